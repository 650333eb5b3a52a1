"""`reelfind watch`: indexes files as they come, until it is stopped."""

import json
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.encode import open_indexing_bundle
from indexer.events import (
    FileDone,
    FileNotReached,
    FileStillWritten,
    Note,
    Published,
    StageFileDone,
)
from indexer.library.records import displayable
from indexer.options import IndexOptions, default_batch_frames, default_workers
from indexer.watch import Gone, RunDone, Trouble, WatchEvent, Watching, WatchOptions, watch_paths
from model.runtime.sandbox.confinement import SandboxMode
from model.runtime.tracing import tracing
from service.cli.generation import own_bundle
from service.cli.index_arguments import (
    HwaccelOption,
    KeepSnapshotsOption,
    ModelProviderOption,
    ModelThreadsOption,
    PathsArgument,
    PinnedOption,
)
from service.cli.options import RequiredLibraryOption
from service.cli.printing import print_json_text, say
from service.cli.stopping import stopping
from service.settings import load_settings, variable_of


def watch_command(
    paths: PathsArgument,
    library: RequiredLibraryOption,
    bundle: Annotated[
        Path | None,
        typer.Option(
            envvar=variable_of("bundle"),
            help="Folder of the model bundle. Default: the one that the library was made with; for a new "
            "library the one that ships with Reelfind.",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Forget files that are gone, or that a rule leaves out now. Without it, those that are gone "
            "count as missing.",
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="As of `reelfind index`; may be repeated."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="As of `reelfind index`; may be repeated."),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            envvar="REELFIND_SETTLE_SECONDS",
            help="Seconds that a new or changed file must be at rest before it is read.",
        ),
    ] = 2.0,
    poll: Annotated[
        bool | None,
        typer.Option(
            "--poll/--events",
            help="Look again every --poll-seconds, or wait for the system's events. Default: events, but on "
            "network shares, which have none, look again.",
            show_default=False,
        ),
    ] = None,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="How often to look, without events.")] = 30.0,
    rescan_hours: Annotated[
        float, typer.Option(min=0.001, help="How often to search all folders, whatever events say.")
    ] = 6.0,
    hwaccel: HwaccelOption = None,
    pinned_memory: PinnedOption = False,
    provider: ModelProviderOption = "cpu",
    threads: ModelThreadsOption = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes. Default: one less than the cores."),
    ] = None,
    sandbox: Annotated[
        SandboxMode, typer.Option(help="Confine the processes that read videos: see `reelfind index`.")
    ] = "auto",
    keep_snapshots: KeepSnapshotsOption = 5,
    speech: Annotated[
        str | None,
        typer.Option(metavar="[MODEL]", help="Hear what is said: see `reelfind index`.", show_default=False),
    ] = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Read what is written in the pictures: see `reelfind index`.")
    ] = False,
    shots: Annotated[bool, typer.Option("--shots", help="Look for cuts: see `reelfind index`.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object a line, for programs.")
    ] = False,
) -> None:
    """Index files as they come: all at the start, then what changes. Runs until Ctrl-C or SIGTERM.

    What fails (a share that is lost, a full disk, another process that writes the library) is tried again.
    """
    settings = load_settings({"library": library, "bundle": bundle, "provider": provider, "threads": threads})
    batch_size = default_batch_frames(provider)
    watching = WatchOptions(poll=poll, poll_seconds=poll_seconds, rescan_hours=rescan_hours)
    options = IndexOptions(
        hwaccel=hwaccel,
        workers=default_workers() if workers is None else workers,
        batch_frames=batch_size,
        sandbox=sandbox,
        prune=prune,
        exclude=tuple(exclude or ()),
        include=tuple(include or ()),
        settle_seconds=settle,
        keep_snapshots=keep_snapshots,
        threads=threads,
        speech=speech,
        screen=screen,
        shots=shots,
    )
    stop = threading.Event()
    with tracing(), stopping(stop):
        opened, encoders = open_indexing_bundle(
            bundle or own_bundle(settings), provider, threads, batch_size, pinned=pinned_memory
        )
        options = replace(options, encoders=encoders)
        watch_paths(paths, library, opened, options, watching, _View(as_json=as_json), stop)


class _View:
    """Prints events: a line for each file, or JSON. What is noted in every run is printed once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._notes: set[str] = set()

    def __call__(self, event: WatchEvent) -> None:
        """Print an event."""
        if isinstance(event, Note):
            if event.text in self._notes:
                return
            self._notes.add(event.text)
        found = _described(event)
        if found is None:
            return
        value, words = found
        now = datetime.now().astimezone()
        if self._as_json:
            timed = {"time": now.isoformat(timespec="milliseconds"), **value}
            print_json_text(json.dumps(timed, ensure_ascii=False))
        elif words:
            say(f"{now:%H:%M:%S} {words}")


def _described(event: WatchEvent) -> tuple[dict[str, Any], str] | None:
    """An event as an object and in words; None: it is not shown."""
    value: dict[str, Any]
    match event:
        case FileDone():
            path, verdict = displayable(event.path), event.verdict or "unchanged"
            value = {"event": "file", "path": path, "verdict": verdict, "reason": event.reason}
            words = f"{verdict}: {path}"
            return {
                **value,
                "segments": event.num_segments,
            }, f"{words}: {event.reason}" if event.reason else words
        case FileNotReached():
            path = displayable(event.path)
            value = {"event": "not_reachable", "path": path, "reason": event.reason}
            return value, f"not reachable: {path}: {event.reason}"
        case FileStillWritten():
            path = displayable(event.path)
            return {"event": "still_written", "path": path}, f"still being written: {path}"
        case StageFileDone():
            path = displayable(event.path)
            value = {"event": "stage", "stage": event.stage, "path": path, "problem": event.problem}
            return value, f"{event.stage}: {path}" + (f": {event.problem}" if event.problem else "")
        case Gone():
            path = displayable(event.path)
            return {"event": "gone", "path": path}, f"gone: {path}"
        case Published():
            words = f"snapshot {event.number}: {event.num_videos} videos, {event.num_segments} segments"
            value = {"event": "published", "snapshot": event.number, "num_videos": event.num_videos}
            return {**value, "num_segments": event.num_segments}, words
        case Note():
            return {"event": "note", "text": event.text}, event.text
        case Watching():
            roots = [displayable(root) for root in event.roots]
            how = "" if event.polled is None else f", looking again and again, because {event.polled}"
            return {
                "event": "watching",
                "paths": roots,
                "polled": event.polled,
            }, f"watching {', '.join(roots)}{how}"
        case RunDone():
            return _described_run(event)
        case Trouble():
            value = {"event": "trouble", "reason": event.reason, "retry_seconds": event.seconds}
            return value, f"{event.reason}; trying again in {event.seconds:.0f} s"
        case _:
            return None


def _described_run(event: RunDone) -> tuple[dict[str, Any], str] | None:
    """The end of a run: of one that searched everything, or that removed something."""
    summary = event.summary
    value = {
        "event": "run",
        "changed": event.changed,
        "files": summary.files,
        "unchanged": summary.unchanged,
        "moved": summary.moved,
        "removed": summary.removed,
        "missing": summary.vanished,
        "snapshot": summary.snapshot,
    }
    if event.changed is None:
        return value, f"all searched: {summary.files} files, {summary.unchanged} unchanged"
    return value, f"{summary.removed} videos removed" if summary.removed else ""
