"""Events and log of a job."""

from __future__ import annotations

from pathlib import Path

from service.jobs.files import MOST_LOG_BYTES, JobFiles


def test_events_are_read_from_any_event_on(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    assert files.read_events(0) == []
    for attempt in range(3):
        files.say_state("running", attempt=attempt, note=None)
    with files.events.open("ab") as file:
        file.write(b'nonsense\n{"no": "event"}\n{"event": "half')
    events = files.read_events(0)
    assert [event.data["attempt"] for event in events] == [0, 1, 2]
    assert all("note" not in event.data for event in events)
    assert files.read_events(events[0].event_id) == events[1:]
    # No event begins there.
    for place in (events[0].event_id + 3, 10**9):
        assert files.read_events(place) == events
    # What a process left when it was killed does not spoil what comes after.
    files.say_state("interrupted")
    assert files.read_events(events[-1].event_id)[-1].data["state"] == "interrupted"


def test_the_last_event_of_a_run_is_found(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    assert files.latest("state") is None
    files.say_state("queued")
    begin = files.events_end()
    assert files.latest("state", begin) is None
    files.say_state("running")
    for after in (0, begin):
        found = files.latest("state", after)
        assert found is not None
        assert found["state"] == "running"


def test_a_long_log_loses_its_older_lines(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.trim_log()
    lines = [f"line {number:08d}" for number in range(MOST_LOG_BYTES // 14 + 1)]
    with files.log.open("ab", buffering=0) as process:
        process.write("".join(f"{line}\n" for line in lines).encode())
        files.trim_log()
        process.write(b"the end\n")
    first, *kept, last, end = files.read_log().split("\n")
    assert (first, last, end) == ("[older lines were removed]", "the end", "")
    assert kept == lines[-len(kept) :]
    assert files.log.stat().st_size < MOST_LOG_BYTES * 0.6
    assert files.last_line() == "the end"
