"""What reading one file may take: the size of its pictures, its length, and CPU time.

Files that are damaged or made to do harm ask for far more than they hold. Where a limit is reached, reading
ends or leaves something out, and what was read until then counts.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadingLimits:
    """Limits of one file. The defaults cut no file that a camera, a screen recorder or an editor writes.

    Attributes:
        max_pixels: the largest picture. 8K is 33 million, 16K 133 million; a picture above takes gigabytes.
        max_hours: the longest video. Recorders write days in one file hardly ever, damaged times say years.
        cpu_seconds: CPU time for any file, in seconds of one core, without scaling and encoding.
        cpu_seconds_per_megabyte: CPU time for each million bytes of a file, more than a slow machine takes.
    """

    max_pixels: int = 2**27
    max_hours: float = 100.0
    cpu_seconds: float = 600.0
    cpu_seconds_per_megabyte: float = 1000.0

    @property
    def codec_options(self) -> dict[str, str]:
        """Options with which FFmpeg takes no memory for pictures that are far too large.

        It counts pictures with their margins, which may be a good part of a small one.
        """
        return {"max_pixels": str(self.max_pixels + self.max_pixels // 8 + 2**16)}


class LimitReachedError(Exception):
    """Reading has to end here; the message names the limit and the option that raises it."""


class CpuBudget:
    """Counts the CPU time of this process while a file is read, of all its threads.

    Args:
        limits: how much a file may take.
        path: the file.

    Raises:
        OSError: the file's size cannot be read.
    """

    def __init__(self, limits: ReadingLimits, path: Path) -> None:
        megabytes = path.stat().st_size / 1e6
        self.seconds = limits.cpu_seconds + limits.cpu_seconds_per_megabyte * megabytes
        self._spent = 0.0
        self._since: float | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count until the end of the block: what happens between two blocks is not reading."""
        self._since = time.process_time()
        try:
            yield
        finally:
            self._spent += time.process_time() - self._since
            self._since = None

    def is_spent(self, share: float = 1.0) -> bool:
        """Whether more than this share of the budget is used up."""
        running = 0.0 if self._since is None else time.process_time() - self._since
        return self._spent + running > share * self.seconds

    def check(self) -> None:
        """Raise LimitReachedError once the budget is used up."""
        if self.is_spent():
            raise LimitReachedError(self.reason)

    @property
    def reason(self) -> str:
        """Why reading ended."""
        return (
            f"reading it takes more than {round(self.seconds, 1):g} CPU seconds "
            "(--cpu-seconds, --cpu-seconds-per-megabyte)"
        )
