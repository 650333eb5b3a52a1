"""The files of one job: its events, what its process printed, and the summary of its run.

The process itself appends events (`reelfind index --events`); the service adds those of the job's state while
no process runs. An event's id is where the next one begins in the file, in bytes.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.jobs.records import JobState

#: Size from which on the log loses its older half, in bytes.
MOST_LOG_BYTES = 4 << 20
_READ_BYTES = 256 << 10
# How much of the end of the events is searched for the last one of a name.
_TAIL_BYTES = 64 << 10
_CUT = b"[older lines were removed]\n"


@dataclass(frozen=True)
class JobEvent:
    """An event of a job.

    Attributes:
        event_id: from where on to read the next one.
        name: what happened.
        data: all of it, with `event` and `at`.
    """

    event_id: int
    name: str
    data: dict[str, Any]


def event_line(name: str, **fields: Any) -> str:
    """An event that happens now, as the line that is appended to the file of events."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"event": name, "at": at, **fields}) + "\n"


class JobFiles:
    """The folder of a job; it need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = folder / "events.jsonl"
        self.log = folder / "log"
        self.summary = folder / "summary.json"

    def say_state(self, state: JobState, **more: Any) -> None:
        """Append the event that tells a new state. `more` are further fields; those of None are left out."""
        told = {name: value for name, value in more.items() if value is not None}
        line = event_line("state", state=state, **told)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with self.events.open("ab") as file:
            # A process that was killed may have left half a line.
            if file.tell() and not self._ends_with_newline(file.tell()):
                file.write(b"\n")
            file.write(line.encode())

    def _ends_with_newline(self, size: int) -> bool:
        with self.events.open("rb") as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"

    def read_events(self, after: int) -> list[JobEvent]:
        """The events that begin at a place, some at a time; none: there are no more yet.

        A place where no event begins counts as the beginning.
        """
        try:
            with self.events.open("rb") as file:
                if after > 0:
                    file.seek(after - 1)
                    if file.read(1) != b"\n":
                        after = 0
                file.seek(after)
                lines = file.read(_READ_BYTES).split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            after += len(line) + 1
            event = _event(line, after)
            if event is not None:
                found.append(event)
        return found

    def events_end(self) -> int:
        """Where the next event will begin."""
        try:
            return self.events.stat().st_size
        except FileNotFoundError:
            return 0

    def latest(self, name: str, after: int = 0) -> dict[str, Any] | None:
        """The last event of a name, as far as it is among the last ones; None: there is none.

        `after` is where the events begin that count.
        """
        try:
            with self.events.open("rb") as file:
                start = max(after, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return None
        events = (_event(line, 0) for line in reversed(lines))
        return next((event.data for event in events if event is not None and event.name == name), None)

    def read_log(self) -> str:
        """What the process printed."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def last_line(self) -> str | None:
        """The last line that the process printed; None: none."""
        lines = self.read_log().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), None)

    def trim_log(self) -> None:
        """Remove the older half of a log that is too long. The process appends, and may go on meanwhile."""
        try:
            if self.log.stat().st_size <= MOST_LOG_BYTES:
                return
            with self.log.open("r+b") as file:
                file.seek(-MOST_LOG_BYTES // 2, os.SEEK_END)
                kept = file.read()
                file.truncate(0)
            with self.log.open("ab") as file:
                file.write(_CUT + kept.partition(b"\n")[2])
        except FileNotFoundError:
            return

    def read_summary(self) -> dict[str, Any]:
        """What the run did; empty: not known."""
        try:
            summary = json.loads(self.summary.read_bytes())
        except (OSError, ValueError):
            return {}
        return summary if isinstance(summary, dict) else {}


def _event(line: bytes, event_id: int) -> JobEvent | None:
    try:
        data = json.loads(line)
        return JobEvent(event_id, str(data["event"]), data)
    except (ValueError, TypeError, KeyError):
        return None
