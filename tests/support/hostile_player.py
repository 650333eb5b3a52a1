"""A process that a file has taken over which is to be played: it does what the name of the file says.

It takes the place of `service.playback.worker`. What the test tells it is in `told.json` beside that file: it
reads it before it is confined.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.runtime.errors import VideoError
from service.playback import worker
from service.playback.jobs import DescribeJob, Order, StreamJob

_file = Path()
_told: dict[str, Any] = {}
_GOOD_TYPE = 'video/mp4; codecs="avc1.64001e"'


def _write(data: bytes, descriptor: int = 1) -> None:
    os.write(descriptor, data)


def _connect() -> None:
    with socket.create_connection(("127.0.0.1", _told["port"]), 5):
        pass


def _hold_memory() -> int:
    return len([bytearray(64 << 20) for _ in range(40)])


def _variables() -> str:
    return ",".join(sorted(name for name in os.environ if "SECRET" in name or name.startswith("REELFIND")))


#: What is tried in place of reading a header, by the name of the file: its result is told.
ATTACKS: dict[str, Callable[[], object]] = {
    "read another file": lambda: Path(_told["secret"]).read_text(),
    "read a folder": lambda: list(Path(_told["folder"]).iterdir()),
    "write a file": lambda: Path(_told["folder"], "new").write_text("x"),
    "write to its own file": lambda: os.open(_file, os.O_WRONLY),
    "connect": _connect,
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": os.fork,
    "end the service": lambda: os.kill(_told["service"], signal.SIGTERM),
    "take memory": _hold_memory,
    "raise its limits": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
}


def _spin() -> None:
    while True:
        pass


#: What a process does in place of reading a header.
ENDS: dict[str, Callable[[], object]] = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "leave": lambda: os._exit(3),
    "hang": lambda: time.sleep(600),
    "spin": _spin,
    "no JSON": lambda: _write(b"\xff\xfe nonsense\n"),
    "no object": lambda: _write(b"[1, 2]\n"),
    "another message": lambda: _write(b'{"media_type": "x"}\n'),
    "an endless line": lambda: _write(b"x" * (1 << 20)),
    "fields that are no text": lambda: _write(b'{"described": {"container": 1}}\n'),
    "an unknown failure": lambda: _write(b'{"failed": [], "reason": {}}\n'),
    "a reason that moves the cursor": lambda: _write(b'{"failed": "media", "reason": "a\\u001b[2Jb\\nc"}\n'),
}


def _say(**message: Any) -> None:
    _write(json.dumps(message).encode() + b"\n")


def _stream(output: int) -> None:
    """What comes in place of a stream."""
    match _file.stem:
        case "another type":
            _say(media_type="text/html")
        case "a type with a header":
            _say(media_type=_GOOD_TYPE + "\r\nset-cookie: a=b")
        case "a stream that breaks off":
            _say(media_type=_GOOD_TYPE)
            _write(b"x" * 1000, output)
            os.kill(os.getpid(), signal.SIGKILL)
        case "a stream of another length":
            _say(media_type=_GOOD_TYPE)
            _write(b"x" * 1000, output)
            _say(done=999)
        case "a stream that stops":
            _say(media_type=_GOOD_TYPE)
            _write(b"x" * 1000, output)
            time.sleep(600)


def _act(path: Path, order: Order) -> None:
    if isinstance(order.job, StreamJob):
        _stream(order.output)
    elif isinstance(order.job, DescribeJob) and _file.stem in ENDS:
        ENDS[_file.stem]()
    else:
        try:
            found = ATTACKS[_file.stem]() if _file.stem != "look around" else _variables()
            raise VideoError(f"done: {found}", "corrupt")
        except (OSError, MemoryError, ValueError) as error:
            raise VideoError(f"blocked: {type(error).__name__}", "corrupt") from error


if __name__ == "__main__":
    _file = Path(f"/proc/self/fd/{Order.unpack(sys.argv[1]).media}").readlink()
    _told = json.loads((_file.parent / "told.json").read_text())
    worker._do = _act
    worker.run_worker()
