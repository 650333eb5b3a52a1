"""The summary of an indexing run: a table for people, JSON for programs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from indexer.events import IndexSummary
from indexer.library.records import VERDICTS, displayable
from service.cli.printing import print_line

_SHOWN_FAILURES = 50


def summary_object(summary: IndexSummary, library: Path) -> dict[str, Any]:
    """The summary of a run, for `--json`."""
    return {
        "library": displayable(library),
        "snapshot": summary.snapshot,
        "published": summary.published,
        "interrupted": summary.interrupted,
        "files": summary.files,
        "unchanged": summary.unchanged,
        "failed_before": summary.failed_before,
        "verdicts": {verdict: summary.verdicts[verdict] for verdict in VERDICTS},
        "failures": [
            {"path": displayable(f.path), "verdict": f.verdict, "reason": f.reason} for f in summary.failures
        ],
        "not_scanned": [{"path": displayable(path), "reason": reason} for path, reason in summary.problems],
        "removed": summary.removed,
        "vanished": summary.vanished,
        "segments": summary.segments,
        "frames": summary.frames,
        "video_seconds": round(summary.video_seconds, 3),
        "elapsed_seconds": round(summary.elapsed_seconds, 3),
        "num_videos": summary.num_videos,
        "num_segments": summary.num_segments,
    }


def print_summary(summary: IndexSummary, library: Path, console: Console) -> None:
    """Print the summary of a run: a table of verdicts, the failures, and what to do about them."""
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("verdict")
    table.add_column("files", justify="right")
    for verdict in VERDICTS:
        if summary.verdicts[verdict]:
            table.add_row(verdict, str(summary.verdicts[verdict]))
    if summary.unchanged:
        note = f" ({summary.failed_before} failed before)" if summary.failed_before else ""
        table.add_row(f"unchanged{note}", str(summary.unchanged))
    if summary.removed:
        table.add_row("removed", str(summary.removed))
    if table.row_count:
        console.print(table)
    for failure in summary.failures[:_SHOWN_FAILURES]:
        print_line(console, f"  {failure.verdict}: {displayable(failure.path)}: {failure.reason}")
    if len(summary.failures) > _SHOWN_FAILURES:
        print_line(console, f"  … and {len(summary.failures) - _SHOWN_FAILURES} more; `--json` lists all")
    if not summary.files:
        print_line(console, "no video files found: name a folder that holds videos, or the files themselves")
    if summary.vanished:
        print_line(console, f"{summary.vanished} videos no longer exist on disk: `--prune` removes them")
    if summary.failed_before:
        print_line(console, "`--retry-failed` reads the files again that failed before")
    if summary.video_seconds:
        rate = summary.video_seconds / max(summary.elapsed_seconds, 1e-9)
        print_line(
            console,
            f"{summary.video_seconds / 3600:.2f} hours of video in {summary.elapsed_seconds:.1f} s "
            f"({rate:.1f} × real time)",
        )
    if summary.snapshot is not None:
        print_line(
            console,
            f"snapshot {summary.snapshot} of {displayable(library)}: {summary.num_videos} videos, "
            f"{summary.num_segments} segments",
        )
