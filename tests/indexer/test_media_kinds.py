"""Telling videos from other files that have the same extension."""

import random
from pathlib import Path

import pytest

from indexer.media_kinds import Kind, kind_of
from tests.support.clips import ffmpeg

#: What cameras, phones and recorders write: name, encoder, format of the container.
WRITTEN = {
    "MOV001.MOD": ("mpeg2video", "mpeg"),
    "MOV002.TOD": ("mpeg2video", "mpegts"),
    "00001.MTS": ("mpeg2video", "mpegts"),
    "clip.ts": ("mpeg2video", "mpegts"),
    "00002.m2ts": ("mpeg2video", "mpegts"),
    "old.3gpp": ("mpeg4", "3gp"),
    "GS010001.360": ("mpeg4", "mp4"),
    "PXL_20240101_1.MP": ("mpeg4", "mp4"),
    "DJI_0001.LRF": ("mpeg4", "mp4"),
    "VID_20240101_00_001.insv": ("mpeg4", "mp4"),
    "ch1.264": ("libx264", "h264"),
    "ch2.H264": ("libx264", "h264"),
    "ch3.mpv": ("mpeg2video", "mpeg2video"),
    "AVSEQ01.DAT": ("mpeg1video", "mpeg"),
    "show.rec": ("mpeg2video", "mpegts"),
    "tape.dv": ("dvvideo", "dv"),
    "film.nut": ("mpeg4", "nut"),
    "film.mk3d": ("mpeg4", "matroska"),
}

TYPESCRIPT = b"Get<T>(); export const answer: number = 42; // \xc3\xa9\n" * 20
OTHERS = {
    "app.ts": TYPESCRIPT,
    "module.mts": TYPESCRIPT,
    "starts with G.ts": b"G" + TYPESCRIPT,
    "utf16.ts": "export const π = 3;".encode("utf-16"),
    "latin1.ts": "// déjà vu\n".encode("latin-1") * 30,
    "words of 188 letters.ts": (b"G" + b"o" * 186 + b"\n") * 2,
    "translation.ts": b'<?xml version="1.0"?><!DOCTYPE TS><TS version="2.1"></TS>',
    "go.mod": b"module example.org/videos\n\ngo 1.22\n",
    "song.mod": b"a tune".ljust(1080, b"\0") + b"M.K." + bytes(900),
    "driver.mod": b"\x7fELF\x02\x01\x01" + bytes(900),
    "figure.mp": b"beginfig(1); draw (0,0)--(1,1); endfig;\n",
    "page.ps": b"%!PS-Adobe-3.0\n",
    "thumbs.dat": b"\x00\x00\x00\x00\x01\x02\x03\x04" * 90,
    "sound.dat": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(900),
    "empty.dat": b"",
    "song.ogg": b"OggS" + bytes(24) + b"\x01vorbis" + bytes(400),
    "book.lrf": b"L\0R\0F\0\0\0" + bytes(400),
    "material.skm": b"PK\x03\x04" + bytes(400),
    "script.nut": b"local x = 1;\n",
    "part.264": b"just the 264th part of a text\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.mark.parametrize("name", WRITTEN)
def test_what_cameras_write_is_video(folder: Path, name: str) -> None:
    codec, container = WRITTEN[name]
    size = "720x576" if codec == "dvvideo" else "176x144"
    source = f"testsrc2=s={size}:r=25:d=0.2"
    ffmpeg(
        "-f", "lavfi", "-i", source, "-c:v", codec, "-pix_fmt", "yuv420p", "-f", container, str(folder / name)
    )
    assert kind_of(folder / name) is Kind.VIDEO


def test_motion_photos_and_theora_are_video(folder: Path) -> None:
    (folder / "film.ogg").write_bytes(b"OggS" + bytes(24) + b"\x80theora" + bytes(400))
    (folder / "a.dat").write_bytes(b"RIFF\x24\x00\x00\x00CDXAfmt " + bytes(900))
    assert {kind_of(folder / name) for name in ("film.ogg", "a.dat")} == {Kind.VIDEO}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_of_the_same_extension_are_not(folder: Path, name: str) -> None:
    (folder / name).write_bytes(OTHERS[name])
    assert kind_of(folder / name) is Kind.NO_VIDEO


@pytest.mark.parametrize(("before", "size"), [(0, 188), (4, 192), (0, 204)])
def test_packets_of_every_size_are_seen(folder: Path, before: int, size: int) -> None:
    """Packets of printable bytes alone, which only their distance tells from text."""
    packet = (b"4" * before + b"G" + b"abcdefgh" * 30)[:size]
    (folder / "packets.mts").write_bytes(packet * 12)
    assert kind_of(folder / "packets.mts") is Kind.VIDEO
    (folder / "no packets.mts").write_bytes((packet[: size - 1]) * 12)
    assert kind_of(folder / "no packets.mts") is Kind.NO_VIDEO


def test_damaged_recordings_are_looked_at(folder: Path) -> None:
    """A recording that begins with noise, or with nothing, gets a verdict later."""
    (folder / "noise.ts").write_bytes(random.Random(0).randbytes(4000))
    (folder / "empty.ts").write_bytes(b"")
    assert {kind_of(folder / name) for name in ("noise.ts", "empty.ts")} == {Kind.VIDEO}


def test_extensions_that_only_videos_have_are_not_opened(folder: Path) -> None:
    assert kind_of(folder / "not even there.MP4") is Kind.VIDEO
    assert kind_of(folder / "not even there.ts") is Kind.VIDEO
    for name in ("a.jpg", "a.txt", "mp4", "a.mp3", "a.mp4.part", "a."):
        assert kind_of(folder / name) is Kind.OTHER_EXTENSION
