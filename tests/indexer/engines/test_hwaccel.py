"""Decoders that may use a GPU: what they decode without one, and what they may reach besides their file."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from indexer.decode import DecodedSegment, DecodeSpec, FileVerdict
from indexer.engines.local_decoders import Bounds, FileDecoder, InlineDecoder, ProcessDecoder
from indexer.options import IndexOptions
from model.runtime.errors import InputError
from model.runtime.preprocessing import Resizing
from model.runtime.sandbox.devices import nvidia_devices
from model.runtime.sandbox.landlock import landlock_abi
from model.runtime.video.hardware import why_unavailable
from tests.support.paths import ROOT
from tests.support.toy_videos import make_video

SPEC = DecodeSpec("pyav", Resizing(32), 1.0, 4)
ON_GPU = DecodeSpec("pyav", Resizing(32), 1.0, 4, hwaccel="cuda")
NO_CUDA = why_unavailable("cuda")


def has_landlock() -> bool:
    try:
        return landlock_abi() >= 1
    except OSError:
        return False


def decoded(decoder: FileDecoder, spec: DecodeSpec, path: Path) -> list[DecodedSegment]:
    """The segments of a file that is read whole."""
    try:
        *segments, outcome = decoder.read(spec.job(path))
    finally:
        decoder.close()
    assert isinstance(outcome, FileVerdict)
    assert outcome.verdict == "ok", outcome
    return [segment for segment in segments if isinstance(segment, DecodedSegment)]


def test_the_segments_are_the_same_and_the_note_says_who_decodes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "video.mp4")
    stop = threading.Event()
    expected = decoded(InlineDecoder(stop), SPEC, path)
    assert len(expected) == 3
    decoders = (InlineDecoder(stop, "cuda"), ProcessDecoder(Bounds(hwaccel="cuda"), stop))
    who = "a GPU decodes (cuda)" if NO_CUDA is None else "software decodes, not cuda: FFmpeg cannot open cuda"
    for decoder in decoders:
        assert who in decoder.confinement
        for ours, theirs in zip(decoded(decoder, ON_GPU, path), expected, strict=True):
            assert np.array_equal(ours.frames, theirs.frames)
            assert np.array_equal(ours.pts_seconds, theirs.pts_seconds)
            assert ours.thumbnails == theirs.thumbnails


@pytest.mark.skipif(not has_landlock(), reason="needs Landlock")
def test_a_process_with_devices_opens_its_file_these_and_no_other(tmp_path: Path) -> None:
    own, other, folder = tmp_path / "own", tmp_path / "other", tmp_path / "readable"
    own.write_text("own")
    other.write_text("other")
    folder.mkdir()
    (folder / "file").write_text("driver")
    program = f"""
import os, resource
from model.runtime.sandbox.confinement import Limits, confine_for_file
from model.runtime.sandbox.devices import Devices
devices = Devices((b"/dev/zero",), ({bytes(folder)!r},))
parts = {{part.name: part for part in confine_for_file({bytes(own)!r}, Limits(1 << 30, 60), devices)}}
print(parts["files"].missing, parts["files"].effect, "; ", parts["system calls"].missing)
print(resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY)
print(os.read(os.open("/dev/zero", os.O_RDWR), 1))
print(os.read(os.open({str(own)!r}, os.O_RDONLY), 9))
print(os.read(os.open({str(folder / "file")!r}, os.O_RDONLY), 9))
for path, flags in (({str(other)!r}, os.O_RDONLY), ({str(own)!r}, os.O_RDWR), ("/dev/null", os.O_RDWR),
                    ({str(folder / "file")!r}, os.O_RDWR)):
    try:
        os.open(path, flags)
        print("opened", path)
    except PermissionError:
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    effect, limit, *read, first, second, third, fourth = done.stdout.splitlines()
    assert effect.startswith("None Landlock for one file and 1 devices ;  the driver of the GPU")
    assert (limit, read) == ("True", ["b'\\x00'", "b'own'", "b'driver'"])
    assert [first, second, third, fourth] == ["refused"] * 4


def test_only_character_devices_of_the_driver_are_let_through(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").write_text("no device")
    (tmp_path / "nvidia-caps").mkdir()
    (tmp_path / "nvidia1").symlink_to("/dev/null")
    (tmp_path / "other").symlink_to("/dev/zero")
    found = nvidia_devices(tmp_path)
    assert found.nodes == (bytes(tmp_path / "nvidia1"),)
    assert found.readable
    assert nvidia_devices(tmp_path / "nvidia-caps").readable == ()


@pytest.mark.parametrize("others", [{"decoder": "decord"}, {"sandbox": "required"}])
def test_options_that_exclude_each_other_are_refused(others: dict[str, str]) -> None:
    with pytest.raises(
        InputError, match=f"hwaccel is 'cuda'.*{next(iter(others.values()))}|needs the decoder"
    ):
        IndexOptions(hwaccel="cuda", **others)  # type: ignore[arg-type]
