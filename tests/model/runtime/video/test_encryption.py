"""Encrypted media is refused as such: without its keys its pictures are noise."""

from pathlib import Path

import pytest

from model.runtime.errors import VideoError
from model.runtime.video import VideoReader
from tests.support.clips import Clips, clips, ffmpeg
from tests.support.sample_entries import insert_box

__all__ = ["clips"]

KEYS = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76" * 16, "-encryption_kid", "a7" * 16)
CONTENT_ENCODINGS = bytes.fromhex("6d8092 62408f 50338101 503588 47e18105 47e28100")


def _refused(path: Path) -> None:
    with pytest.raises(VideoError, match=r": encrypted$") as caught:
        VideoReader(path)
    assert caught.value.verdict == "unsupported"


def _read(path: Path) -> None:
    with VideoReader(path) as reader:
        assert list(reader.segments())
        assert reader.damage is None


@pytest.mark.parametrize("flags", ["", "-movflags +faststart", "-movflags +frag_keyframe+empty_moov"])
def test_common_encryption_in_mp4(flags: str, clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "encrypted.mp4"
    ffmpeg("-i", str(clips("b_frames")), "-c", "copy", *KEYS, *flags.split(), str(path))
    _refused(path)


def test_a_track_with_the_boxes_of_encryption_may_be_clear(clips: Clips, tmp_path: Path) -> None:
    for protected in (0, 1):
        tenc = b"tenc" + bytes([0, 0, 0, 0, 0, 0, protected, 8]) + b"\xa7" * 16
        schi = b"schi" + (4 + len(tenc)).to_bytes(4, "big") + tenc
        path = tmp_path / f"{protected}.mp4"
        insert_box(clips("constant"), path, b"sinf", (4 + len(schi)).to_bytes(4, "big") + schi)
        _refused(path) if protected else _read(path)


def test_a_clear_video_beside_encrypted_sound_is_read(clips: Clips, tmp_path: Path) -> None:
    both = tmp_path / "both.mp4"
    ffmpeg(
        "-i",
        str(clips("constant")),
        "-f",
        "lavfi",
        "-i",
        "sine=d=3",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        str(both),
    )
    _read(insert_box(both, tmp_path / "sound.mp4", b"sinf", b"", track=1))
    _refused(insert_box(both, tmp_path / "video.mp4", b"sinf", b"", track=0))


def test_encrypted_webm(clips: Clips, tmp_path: Path) -> None:
    data = clips("vp9").read_bytes()
    number = bytes.fromhex("1654ae6b")
    tracks = data.index(number, data.index(number) + 1)  # the seek head names it before
    entry = data.index(b"\xae\x01", tracks + 5)
    grown = bytearray(data)
    at = entry + 1
    width = 9 - grown[at].bit_length()
    end = at + width + int.from_bytes(grown[at : at + width], "big") % (1 << 7 * width)
    grown[end:end] = CONTENT_ENCODINGS
    for place in (at, tracks + 4):
        size = 9 - grown[place].bit_length()
        value = int.from_bytes(grown[place : place + size], "big") + len(CONTENT_ENCODINGS)
        grown[place : place + size] = value.to_bytes(size, "big")
    path = tmp_path / "encrypted.webm"
    path.write_bytes(grown)
    _refused(path)


@pytest.mark.parametrize("size", [188, 192])
def test_scrambled_transport_streams(size: int, clips: Clips, tmp_path: Path) -> None:
    plain = tmp_path / "plain.m2ts"
    ffmpeg(
        "-i",
        str(clips("b_frames")),
        "-c",
        "copy",
        "-f",
        "mpegts",
        "-mpegts_m2ts_mode",
        str(int(size == 192)),
        str(plain),
    )
    _read(plain)
    data = bytearray(plain.read_bytes())
    pids = [(data[at + 1] & 0x1F) << 8 | data[at + 2] for at in range(size - 188, len(data), size)]
    video = max(set(pids), key=pids.count)
    for number, pid in enumerate(pids):
        at = number * size + size - 188
        if pid == video:
            data[at + 3] |= 0x80
            start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            data[start : at + 188] = bytes(byte ^ 0x5A for byte in data[start : at + 188])
    path = tmp_path / "scrambled.m2ts"
    path.write_bytes(data)
    _refused(path)


def test_sample_encryption_of_hls(clips: Clips, tmp_path: Path) -> None:
    plain = tmp_path / "plain.ts"
    ffmpeg("-i", str(clips("b_frames")), "-c", "copy", str(plain))
    data = bytearray(plain.read_bytes())
    for at in range(0, len(data), 188):
        table = at + 5
        if data[table] == 2 and data[at + 1] & 0x40 and (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x1000:
            end = table + 3 + (int.from_bytes(data[table + 1 : table + 3], "big") & 0xFFF)
            kind = table + 12 + (int.from_bytes(data[table + 10 : table + 12], "big") & 0xFFF)
            assert data[kind] == 0x1B
            data[kind] = 0xDB
            data[end - 4 : end] = _crc_mpeg(bytes(data[table : end - 4]))
    path = tmp_path / "sample_aes.ts"
    path.write_bytes(data)
    _refused(path)


def _crc_mpeg(data: bytes) -> bytes:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register & 0x80000000 else 0)) & 0xFFFFFFFF
    return register.to_bytes(4, "big")


def test_a_scrambled_dvd(clips: Clips, tmp_path: Path) -> None:
    plain = tmp_path / "plain.vob"
    ffmpeg("-i", str(clips("mpeg2_ps")), "-c", "copy", "-f", "vob", str(plain))
    _read(plain)
    data = bytearray(plain.read_bytes())
    at = data.find(b"\x00\x00\x01\xe0")
    while at >= 0:
        data[at + 6] |= 0x10
        data[at + 128 : at + 1900] = bytes(byte ^ 0x5A for byte in data[at + 128 : at + 1900])
        at = data.find(b"\x00\x00\x01\xe0", at + 1900)
    path = tmp_path / "scrambled.vob"
    path.write_bytes(data)
    _refused(path)
