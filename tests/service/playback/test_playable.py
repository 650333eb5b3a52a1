"""What browsers play as it is: the rule, on descriptions and on real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.runtime.video import ReadingLimits
from service.playback.describing import describe_file
from service.playback.playable import MediaDescription, why_not_playable
from tests.support.flashes import Films, films
from tests.support.paths import ROOT

__all__ = ["films"]
MP4, WEBM = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
SEEDS = ROOT / "tests/fuzz/seeds"
#: All others are not.
PLAYABLE = {
    *("av1.mp4", "av1.webm", "h264.m4v", "h264_aac.mp4", "h264_fragments.mp4", "h264_index_first.mp4"),
    *("vp8_alpha.webm", "vp8_vorbis.webm", "vp9.mp4", "vp9.webm"),
}


@pytest.mark.parametrize(
    ("media", "suffix", "why"),
    [
        (MediaDescription(MP4, "h264", "High", "yuv420p", "aac", "LC"), ".mp4", None),
        (MediaDescription(MP4, "h264", "High", "yuv420p", "aac", "LC"), ".MOV", None),
        (MediaDescription(MP4, "h264", "High", "yuv420p"), ".mp4", None),
        (MediaDescription(MP4, "h264", "High 10", "yuv420p10le"), ".mp4", "profile High 10"),
        (MediaDescription(MP4, "h264", "High 4:2:2", "yuv422p"), ".mp4", "profile High 4:2:2"),
        (MediaDescription(MP4, "h264", "High", "yuv444p"), ".mp4", "pixels as yuv444p"),
        (MediaDescription(MP4, "hevc", "Main", "yuv420p", "aac", "LC"), ".mp4", "do not play hevc"),
        (MediaDescription(MP4, "h264", "High", "yuv420p", "ac3"), ".mp4", "sound in ac3"),
        (MediaDescription(MP4, "h264", "High", "yuv420p", "alac"), ".mov", "sound in alac"),
        (MediaDescription(MP4, "h264", "High", "yuv420p", "aac", "USAC"), ".mp4", "profile USAC"),
        (MediaDescription(WEBM, "vp9", "Profile 0", "yuv420p", "opus"), ".webm", None),
        (MediaDescription(WEBM, "vp9", "Profile 2", "yuv420p10le", "opus"), ".webm", "profile Profile 2"),
        (MediaDescription(WEBM, "vp9", "Profile 0", "yuv420p", "opus"), ".mkv", "of the format matroska"),
        (MediaDescription(WEBM, "h264", "High", "yuv420p", "aac", "LC"), ".webm", "h264 in files of the"),
        (MediaDescription(WEBM, "vp9", "Profile 0", "yuv420p", "aac", "LC"), ".webm", "sound in aac"),
        (MediaDescription("mpegts", "h264", "High", "yuv420p", "aac", "LC"), ".ts", "format mpegts"),
        (MediaDescription("avi", "mpeg4", None, "yuv420p"), ".avi", "do not play mpeg4"),
    ],
)
def test_the_rule(media: MediaDescription, suffix: str, why: str | None) -> None:
    found = why_not_playable(media, suffix)
    assert (found is None) if why is None else (found is not None and why in found)


@pytest.mark.parametrize("path", sorted(SEEDS.iterdir()), ids=lambda path: path.name)
def test_real_files(path: Path) -> None:
    why = why_not_playable(describe_file(path, ReadingLimits()), path.suffix)
    assert (why is None) == (path.name in PLAYABLE), why


def test_the_stream_of_sound_counts_that_a_player_plays(films: Films) -> None:
    described = describe_file(films("vp9"), ReadingLimits())
    assert (described.video_codec, described.audio_codec) == ("vp9", "ac3")
