"""The process that does one job with one file, confined to that file before it looks into it.

The process's argument is a packed `Order`. What is made goes to the descriptor that it names; on standard
output come lines of JSON, which `process` reads. Code for a fault of a decoder may write anything to both.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import stat
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.runtime.errors import VideoError
from model.runtime.remote.channel import ChannelSource
from model.runtime.remote.path import RemotePath, provide
from model.runtime.sandbox.confinement import (
    Confinement,
    Limits,
    confine_for_file,
    confine_for_run,
    limit_only,
)
from model.runtime.sandbox.preloading import load_decoders
from model.runtime.sandbox.rights import be_ended_first, die_with_parent
from model.runtime.video.limits import ReadingLimits
from service.playback.cutting import copy_clip
from service.playback.describing import describe_file
from service.playback.encoding import encode
from service.playback.jobs import DescribeJob, FailureKind, Order, StreamJob

#: Searches come first.
_NICENESS = 10
_SHOWN_CHARACTERS = 300
#: While a clip is written, there is a sign of life so often.
_SIGN_SECONDS = 1.0
_OUT_OF_MEMORY = "it takes more memory than it may (REELFIND_ENCODER_MEMORY_MB)"


def run_worker() -> None:
    """Do the job, and say what became of it."""
    order = Order.unpack(sys.argv[1])
    # Ctrl-C is handled by the service, which decides what to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(order.parent)
    be_ended_first()
    os.nice(_NICENESS)
    load_decoders()
    path = _media(order.media)
    lacking = _confine(path, order)
    if lacking:
        _fail("unconfined", lacking)
        return
    try:
        _do(path, order)
    except BrokenPipeError:
        pass  # nobody wants it any more
    except VideoError as error:
        _fail("media", str(error).removeprefix(f"{path}: "))
    except MemoryError:
        _fail("media", _OUT_OF_MEMORY)
    except OSError as error:
        too_large = f"the clip is larger than {order.bounds.output_bytes >> 30} GiB"
        _fail("media", too_large if error.errno == errno.EFBIG else f"it cannot be read: {error.strerror}")
    except Exception as error:
        # Decoders may raise any error on unusual input.
        _fail("media", f"the reader failed: {type(error).__name__}: {error}".replace(str(path), "the file"))


def _media(descriptor: int) -> Path:
    """The path of the open file, or what stands for a remote one, which is read by a channel."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return Path(f"/proc/self/fd/{descriptor}")
    path = RemotePath("https:/media/file")
    provide(path, ChannelSource(descriptor))
    return path


def _confine(path: Path, order: Order) -> str:
    """Confine this process. → What is missing, if it is required."""
    bounds = order.bounds
    limits = Limits(bounds.memory_bytes, bounds.cpu_seconds, bounds.output_bytes)
    if bounds.sandbox == "off":
        limit_only(limits)
        return ""
    network = confine_for_run()
    readable = Path(os.devnull) if isinstance(path, RemotePath) else path
    found = Confinement((*confine_for_file(os.fsencode(readable), limits), network))
    lacking = found.lacks() if bounds.sandbox == "required" else ()
    return ", ".join(f"{part.name}: {part.missing}" for part in lacking)


def _do(path: Path, order: Order) -> None:
    limits, threads, job = ReadingLimits(), order.bounds.threads, order.job
    if isinstance(job, DescribeJob):
        _say(described=asdict(describe_file(path, limits)))
    elif isinstance(job, StreamJob):
        pipe = _Pipe(order.output)
        encode(path, job, limits, threads, pipe, lambda media_type: _say(media_type=media_type))
        _say(done=pipe.num_written)
    else:
        file = _ClipFile(order.output)
        if not copy_clip(path, job, limits, file):
            file.restart()
            encode(path, job, limits, threads, file, lambda _: None)
        _say(done=file.size)


class _Pipe:
    """Where a stream is written: waits where nobody reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.num_written = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            count = os.write(self._descriptor, view)
            self.num_written += count
            view = view[count:]
        return len(data)


class _ClipFile:
    """Where a clip is written. The file may be longer in the end: `size` bytes of it count."""

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "r+", closefd=False)
        self._last_sign = time.monotonic()
        self.size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size = max(self.size, self._file.tell())
        if time.monotonic() - self._last_sign > _SIGN_SECONDS:
            self._last_sign = time.monotonic()
            _say(alive=True)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self.size + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def restart(self) -> None:
        """Forget what was written."""
        self._file.seek(0)
        self.size = 0


def _say(**message: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _fail(kind: FailureKind, reason: str) -> None:
    _say(failed=kind, reason=reason[:_SHOWN_CHARACTERS])


if __name__ == "__main__":
    run_worker()
