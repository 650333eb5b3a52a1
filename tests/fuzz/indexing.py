"""One indexing run as a process of its own, which prints each event as a line of JSON.

`python -m tests.fuzz.indexing MEDIA LIBRARY BUNDLE WORKERS TIMEOUT MEMORY` does what `reelfind index` does,
but tells when a file is begun and done. The last lines are what the published library says of each file.
"""

import json
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from indexer.encode import open_indexing_bundle
from indexer.events import Event, FileDone, FileNotReached, FileStarted
from indexer.library.snapshot import Snapshot
from indexer.library.verify import verify_library
from indexer.options import CPU_BATCH_FRAMES, IndexOptions
from indexer.run import index_paths


def main(
    media: Path, library: Path, bundle: Path, workers: int, timeout_seconds: float, worker_memory: int
) -> None:
    """Index a folder; SIGTERM ends the run in order."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    opened, encoders = open_indexing_bundle(bundle, "cpu", None, CPU_BATCH_FRAMES)
    options = IndexOptions(
        workers=workers,
        encoders=encoders,
        timeout_seconds=timeout_seconds,
        worker_memory=worker_memory,
        list_passed_over=True,
        publish_seconds=30.0,
    )
    summary = index_paths([media], library, opened, options, _say_event, stop)
    passed_over = [path.name for path, _ in summary.passed_over_files]
    _say(what="scanned", passed_over=passed_over, problems=[str(path) for path, _ in summary.problems])
    if summary.snapshot is not None:
        snapshot = Snapshot.open(library)
        videos = snapshot.videos(0, 1_000_000, None)
        report = verify_library(library)
        _say(
            what="library",
            verdicts={Path(video.path).name: video.verdict for video in videos},
            ids={video.video_id: Path(video.path).name for video in videos},
            damage=[problem for checked in report.snapshots for problem in checked.problems],
        )
    # Of all processes that have ended; a new one counts with the memory of the one that it comes from.
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    _say(what="end", interrupted=summary.interrupted, worker_peak=most)


def _say_event(event: Event) -> None:
    if isinstance(event, FileStarted):
        _say(what="started", name=event.path.name)
    elif isinstance(event, FileDone):
        _say(what="done", name=event.path.name, verdict=event.verdict, reason=event.reason)
    elif isinstance(event, FileNotReached):
        _say(what="not_reached", name=event.path.name, reason=event.reason)


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps({"seconds": time.monotonic(), **line}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:4]]
    main(places[0], places[1], places[2], int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
