"""What is known of a job."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

#: `interrupted`: the server ended while it ran; it is started again.
JobState = Literal["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]
#: The states of a job that is to run.
WAITING: tuple[JobState, ...] = ("queued", "interrupted")
#: The states of a job that does not change any more.
ENDED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class IndexJobOptions:
    """How a job indexes; each is the option of `reelfind index` of that name."""

    prune: bool = False
    retry_failed: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobRecord:
    """A job.

    Attributes:
        job_id: 16 hex digits.
        paths: real paths of the files and folders to index.
        options: how.
        created_by: the name of who started it; None: not known.
        state: how far it is.
        note: why it waits, or why it failed; None: there is nothing to say. It may name any path.
        is_blocked: whether it waits for another process that writes the library.
        attempts: how often it was started, without those that the end of the server's own run stopped.
        is_cancelling: whether it was asked to end.
        created_at: seconds since 1970, as the next two.
        started_at: when it was started last; None: not yet.
        ended_at: when it came to its end; None: not yet.
        exit_code: that of its process; None: it has none.
        summary: what the run did, as `reelfind index --json` says; empty: not known.
    """

    job_id: str
    paths: tuple[Path, ...]
    options: IndexJobOptions
    created_by: str | None
    state: JobState
    note: str | None
    is_blocked: bool
    attempts: int
    is_cancelling: bool
    created_at: float
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether it does not change any more."""
        return self.state in ENDED

    def lies_in(self, folder: Path | None) -> bool:
        """Whether all that it indexes is a folder or lies below it; None: the folder of everything."""
        return folder is None or all(path.is_relative_to(folder) for path in self.paths)
