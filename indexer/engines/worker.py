"""The decoding process: forks a process of its own for each file, which reads that file alone.

    indexer ─▶ this process, with the decoders loaded ─▶ a process for each file, confined to it

This process never looks into a file. The one that does sends what `FileJob.messages` yields over a socket of
its own, and ends. A crash or a hang of a decoder affects only that one. None of them imports Lance, FAISS or
ONNX Runtime, or reads a pickle.
"""

import gc
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from indexer.decode import DecodedSegment, DecodeJob, decode_file
from indexer.engines.media_messages import media_message_parts
from indexer.engines.messages import Buffer, frame_message, message_parts, read_framed
from indexer.engines.preloading import load_all, load_decoder, load_text_reader
from indexer.engines.records import MessageError, pack, unpack
from indexer.media import MediaJob, read_media
from indexer.texts import TextJob, read_source
from model.runtime import faults
from model.runtime.remote.channel import ChannelSource
from model.runtime.remote.path import RemotePath, media_path, provide
from model.runtime.sandbox.confinement import (
    Confinement,
    Limits,
    Part,
    SandboxMode,
    confine_for_file,
    confine_for_run,
)
from model.runtime.sandbox.devices import Devices, load_nvidia_libraries, nvidia_devices
from model.runtime.sandbox.rights import be_ended_first, die_with_parent
from model.runtime.video import HwaccelName
from model.runtime.video.hardware import why_unavailable

#: Messages between the indexer and this process, beside those of `messages`.
READY, JOB, END, WAIT = 64, 65, 66, 67
#: The answer to WAIT: how the process ended, as `waitpid` gives it.
ENDED = struct.Struct("<i")
#: How long a process may take to end by itself after it has closed its socket.
_END_SECONDS = 2.0
_POLL_SECONDS = 0.005
#: With tests' fault log, which is written to after the confinement.
_FAULT_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class WorkerOptions:
    """How a decoding process is confined.

    Attributes:
        mode: whether to.
        memory_bytes: address space of the process for one file.
        hwaccel: the GPU's decoder that it may reach; None: none.
    """

    mode: SandboxMode
    memory_bytes: int
    hwaccel: HwaccelName | None = None

    @property
    def devices(self) -> Devices | None:
        """What the process for one file may reach besides it."""
        return None if self.hwaccel is None else nvidia_devices()


@dataclass(frozen=True)
class FileJob:
    """What to do with a file, one of three things, and how many seconds of CPU time it may take.

    Attributes:
        video: a video to decode for the index.
        text: a source of text to read.
        media: sound or pictures to read for a stage.
        cpu_seconds: of all threads together.
    """

    video: DecodeJob | None
    text: TextJob | None
    media: MediaJob | None
    cpu_seconds: int

    @property
    def path(self) -> bytes:
        """The one file that the job may read."""
        job = self.video or self.text or self.media
        return b"" if job is None else job.path

    def messages(self) -> Iterator[list[Buffer]]:
        """Do the job, and yield what comes of it, as `message_parts` gives it."""
        if self.video is not None:
            for message in decode_file(self.video):
                yield message_parts(_ordered(message) if isinstance(message, DecodedSegment) else message)
        if self.text is not None:
            yield from map(message_parts, read_source(self.text))
        if self.media is not None:
            yield from map(media_message_parts, read_media(self.media))


def run_worker() -> None:
    """Fork a process for each job until the socket closes.

    The process's arguments are the socket's file descriptor, the id of the parent process, and the packed
    `WorkerOptions` in hex.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    options = unpack(WorkerOptions, bytes.fromhex(sys.argv[3]))
    # Ctrl-C is handled by the parent, which decides what to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is printed goes to a pipe that nobody reads before the end: what does not fit is lost.
    os.set_blocking(sys.stdout.fileno(), False)
    die_with_parent(parent)
    be_ended_first()
    load_all()
    if options.hwaccel is not None:
        load_nvidia_libraries()
    network = () if options.mode == "off" else (confine_for_run(),)
    # What is here by now is shared with every process forked later, and not looked at by their collectors.
    gc.collect()
    gc.freeze()
    with suppress(EOFError, ConnectionError), socket.socket(fileno=descriptor) as control:
        control.sendall(frame_message(READY, pack(_confinement(options, network))))
        _Forks(control, options).serve()


class _Forks:
    """Answers the indexer: starts a process for a job, and ends it. There is one at a time, at most."""

    def __init__(self, control: socket.socket, options: WorkerOptions) -> None:
        self._control = control
        self._options = options
        self._child: int | None = None
        self._passed: list[int] = []

    def serve(self) -> None:
        """Answer until the indexer closes its socket.

        Raises:
            EOFError: it has.
        """
        while True:
            kind, body = read_framed(self._receive)
            self._end(wait=kind == WAIT)
            if kind == JOB:
                passed, self._passed = self._passed, []
                self._start(unpack(FileJob, body), passed)

    def _receive(self, view: memoryview) -> None:
        while view:
            data, descriptors, _, _ = socket.recv_fds(self._control, len(view), 2)
            self._passed += descriptors
            if not data:
                raise EOFError
            view[: len(data)] = data
            view = view[len(data) :]

    def _start(self, job: FileJob, passed: list[int]) -> None:
        """Start a process for a job.

        Args:
            job: the job.
            passed: where the process's messages go, and for a remote file the channel that it reads it by.
        """
        if job.video is not None:
            load_decoder(job.video.spec.decoder)
        if job.text is not None:
            load_text_reader(job.text.kind)
        if job.media is not None:
            load_decoder(job.media.decoder)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._control.close()
            _decode(job, passed, parent, self._options)
        for descriptor in passed:
            os.close(descriptor)
        self._child = child

    def _end(self, *, wait: bool) -> None:
        """End the process of the last job; with `wait`, let it end by itself, and tell how it did."""
        child, self._child = self._child, None
        status = None
        deadline = time.monotonic() + _END_SECONDS
        while child is not None and status is None:
            late = not wait or time.monotonic() > deadline
            if late:
                os.kill(child, signal.SIGKILL)
            ended, found = os.waitpid(child, 0 if late else os.WNOHANG)
            if ended:
                status = found
            else:
                time.sleep(_POLL_SECONDS)
        if wait:
            self._control.sendall(frame_message(WAIT, ENDED.pack(status or 0)))


def _decode(job: FileJob, passed: list[int], parent: int, options: WorkerOptions) -> None:
    """Decode a file in this process, which was forked for it. Does not return."""
    code = 1
    descriptor, readable = passed[0], job.path
    try:
        die_with_parent(parent)
        if isinstance(path := media_path(job.path), RemotePath):
            provide(path, ChannelSource(passed[1]))
            readable = os.fsencode(os.devnull)
        if options.mode != "off":
            devices = None if job.video is None else options.devices
            confined = Confinement(confine_for_file(readable, _limits(options, job.cpu_seconds), devices))
            if options.mode == "required" and confined.lacks():
                raise OSError(str(confined))
        for parts in job.messages():
            _send(descriptor, parts)
        code = 0
    except BrokenPipeError:
        pass
    except BaseException as error:
        text = f"{type(error).__name__}: {error}\n"
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _ordered(segment: DecodedSegment) -> DecodedSegment:
    """A segment with its frames in the order of their times, which damaged files may not have."""
    if not (np.diff(segment.pts_seconds) < 0).any():
        return segment
    order = np.argsort(segment.pts_seconds, kind="stable")
    return replace(
        segment,
        frames=segment.frames[order],
        pts_seconds=segment.pts_seconds[order],
        thumbnails=tuple(segment.thumbnails[i] for i in order),
    )


def _send(descriptor: int, parts: list[Buffer]) -> None:
    views = [memoryview(part) for part in parts]
    while views:
        sent = os.writev(descriptor, views)
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]


def _limits(options: WorkerOptions, cpu_seconds: int) -> Limits:
    return Limits(options.memory_bytes, cpu_seconds, _FAULT_LOG_BYTES if faults.is_logging() else 0)


def _confinement(options: WorkerOptions, network: tuple[Part, ...]) -> Confinement:
    """What is in force for the processes of this run: found out in one that is confined as they will be."""
    if options.mode == "off" and options.hwaccel is None:
        return Confinement()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            nothing, limits = os.fsencode(os.devnull), _limits(options, 60)
            found = () if options.mode == "off" else confine_for_file(nothing, limits, options.devices)
            os.write(writing, pack(Confinement(found, hwaccel_part(options.hwaccel))))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    try:
        tried = unpack(Confinement, data)
    except MessageError:
        tried = Confinement((Part("sandbox", "", "a process could not be confined"),))
    return replace(tried, parts=(*tried.parts, *network))


def hwaccel_part(name: HwaccelName | None) -> Part | None:
    """Whether a GPU decodes in this process, which is confined as those for files are."""
    return None if name is None else Part(name, f"a GPU decodes ({name})", why_unavailable(name))
