"""The service's side of a process that does one job with one file: starts it, reads what it makes, ends it.

Nothing that the process says is believed: messages are checked, and what is shown of them is cut.

Processes are started in the main thread, in which the event loop runs: the kernel ends a process when the
thread ends that has started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import fields
from typing import Any, Self, TypeVar

from model.runtime.messages import printable
from model.runtime.own_code import import_path
from service.errors import MediaUnreadableError, NoEncodersError
from service.playback.jobs import Bounds, Job, Order, StreamJob
from service.playback.playable import MediaDescription

_MODULE = "service.playback.worker"
_CHUNK_BYTES = 64 << 10
_MESSAGE_BYTES = 16 << 10
_SHOWN_CHARACTERS = 300
_MEDIA_TYPE = re.compile(r'video/mp4; codecs="avc1\.[0-9a-f]{6}(, mp4a\.40\.2)?"')
_NONSENSE = "Its decoder sent nonsense."
#: What a process gets of the environment. Code for a fault of a decoder must find no secrets there.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
#: How long a process may take to end by itself after its last message.
_END_SECONDS = 5.0

Result = TypeVar("Result")


class MediaProcess:
    """A running process; `start` makes it. Whoever has it calls `close`."""

    def __init__(self, process: subprocess.Popen[bytes], silence_seconds: float) -> None:
        self._process = process
        self._silence_seconds = silence_seconds
        self._transports: list[asyncio.BaseTransport] = []
        self._messages = asyncio.StreamReader(_MESSAGE_BYTES)
        self._made = asyncio.StreamReader(_CHUNK_BYTES)

    @classmethod
    async def start(
        cls, job: Job, media: int, bounds: Bounds, *, output: int = -1, silence_seconds: float
    ) -> Self:
        """Start a process.

        Args:
            job: what to do.
            media: the descriptor of the open file.
            bounds: what the process may use.
            output: the descriptor of the file that a clip is written to.
            silence_seconds: it is given up when nothing comes from it for so long.

        Raises:
            OSError: the system starts no more processes.
        """
        made, output = os.pipe() if isinstance(job, StreamJob) else (-1, output)
        try:
            process = _launch(Order(job, bounds, media, output, os.getpid()))
        except BaseException:
            if made >= 0:
                os.close(made)
            raise
        finally:
            if made >= 0:
                os.close(output)
        self = cls(process, silence_seconds)
        try:
            if process.stdout is not None:
                await self._connect(self._messages, process.stdout.fileno(), process.stdout)
            if made >= 0:
                await self._connect(self._made, made, os.fdopen(made, "rb", 0))
        except BaseException:
            self.close()
            raise
        return self

    async def _connect(self, reader: asyncio.StreamReader, descriptor: int, pipe: Any) -> None:
        os.set_blocking(descriptor, False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)

    async def media_type(self) -> str:
        """The content type of the stream, with its codecs; the stream follows.

        Raises:
            MediaUnreadableError: no stream can be made.
            NoEncodersError: the process may not decode.
        """
        found = (await self._message()).get("media_type")
        if not isinstance(found, str) or not _MEDIA_TYPE.fullmatch(found):
            raise MediaUnreadableError(_NONSENSE)
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stream, piece by piece, to its end.

        Raises:
            MediaUnreadableError: the process ended before the stream did.
        """
        num_bytes = 0
        while chunk := await self._wait(self._made.read(_CHUNK_BYTES)):
            num_bytes += len(chunk)
            yield chunk
        if (await self._message()).get("done") != num_bytes:
            raise MediaUnreadableError(_NONSENSE)

    async def description(self) -> MediaDescription:
        """The description of the file. Raises as `media_type`."""
        found = (await self._message()).get("described")
        names = [field.name for field in fields(MediaDescription)]
        if not isinstance(found, dict) or set(found) != set(names):
            raise MediaUnreadableError(_NONSENSE)
        container, codec = found["container"], found["video_codec"]
        others = [found[name] for name in names[2:]]
        if not all(isinstance(value, str) for value in (container, codec)) or not all(
            value is None or isinstance(value, str) for value in others
        ):
            raise MediaUnreadableError(_NONSENSE)
        return MediaDescription(
            _shown(container), _shown(codec), *(None if value is None else _shown(value) for value in others)
        )

    async def size(self) -> int:
        """The size in bytes of the clip, once it is written. Raises as `media_type`."""
        found = (await self._message()).get("done")
        if not isinstance(found, int) or found <= 0:
            raise MediaUnreadableError(_NONSENSE)
        return found

    def close(self) -> None:
        """End the process, whatever it does."""
        for transport in self._transports:
            transport.close()
        if self._process.poll() is None:
            self._process.kill()
            # A process that waits for a disk ends later.
            asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    async def _message(self) -> dict[str, Any]:
        """The next message that is no sign of life."""
        while True:
            try:
                line = await self._wait(self._messages.readline())
                message = json.loads(line) if line else None
            except ValueError:
                raise MediaUnreadableError(_NONSENSE) from None
            if message is None:
                raise MediaUnreadableError(await self._how_it_ended())
            if not isinstance(message, dict):
                raise MediaUnreadableError(_NONSENSE)
            reason = _shown(str(message.get("reason", "")))
            if message.get("failed") == "unconfined":
                raise NoEncodersError(
                    f"Decoders cannot be confined ({reason}), so no streams and clips are made. Set "
                    "REELFIND_SANDBOX=auto to go without."
                )
            if "failed" in message:
                raise MediaUnreadableError(f"{reason[:1].upper()}{reason[1:]}.")
            if "alive" not in message:
                return message

    async def _wait(self, coming: Awaitable[Result]) -> Result:
        try:
            return await asyncio.wait_for(coming, self._silence_seconds)
        except TimeoutError:
            raise MediaUnreadableError(
                f"Nothing came of decoding it for {self._silence_seconds:g} s."
            ) from None

    async def _how_it_ended(self) -> str:
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(None, self._process.wait), _END_SECONDS)
        code = self._process.returncode
        if code is None or code >= 0:
            return f"Its decoder ended early (exit code {code})."
        if -code == signal.SIGXCPU:
            return "Decoding it takes more CPU time than it may."
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"Its decoder crashed ({name})."


def _launch(order: Order) -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, order.pack()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[descriptor for descriptor in (order.media, order.output) if descriptor >= 0],
        # In a process group of its own: Ctrl-C reaches only the service.
        process_group=0,
        # One thread: a process that leaves the network must not have others.
        env={**kept, "PYTHONPATH": import_path(), "OPENBLAS_NUM_THREADS": "1"},
    )


def _shown(text: str) -> str:
    return printable(text[:_SHOWN_CHARACTERS])
