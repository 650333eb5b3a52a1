"""Reading takes no more memory for a longer file, nor for a consumer that is slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clips import Clips, clips, ffmpeg

__all__ = ["clips"]
READ = """
import resource, sys
from model.runtime.video import VideoReader
with VideoReader(sys.argv[1], decoder=sys.argv[2], max_side=None) as reader:
    kept = sum(len(segment.frames) for segment in reader.segments(segment_seconds=2.0))
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_peak_memory_does_not_grow_with_length(kind: str, clips: Clips, tmp_path: Path) -> None:
    peaks = []
    for loops in (4, 59):
        path = tmp_path / f"{loops}.{kind}"
        ffmpeg("-stream_loop", str(loops), "-i", str(clips("all_key_frames")), "-c", "copy", str(path))
        command = [sys.executable, "-c", READ, str(path), "pyav"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        kept, peak = map(int, done.stdout.split())
        assert kept >= 8 * 3 * (loops + 1)
        peaks.append(peak)
    # All the frames that the longer file keeps would be 30 MB.
    assert peaks[1] < 1.1 * peaks[0]
