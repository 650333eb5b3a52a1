"""The summary of an indexing run: a table for people, JSON for programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from indexer.events import IndexSummary, ReadingProblem, StageSummary
from indexer.library.records import VERDICTS, RepairReport, displayable
from indexer.stages.base import StageName
from service.cli.printing import print_line

_SHOWN_FAILURES = 50
_SHOWN_KINDS = 6


def summary_object(summary: IndexSummary, library: Path) -> dict[str, Any]:
    """The summary of a run, for `--json`."""
    passed_over: dict[str, Any] = {
        "files": summary.passed_over.total(),
        "kinds": dict(sorted(summary.passed_over.items())),
    }
    if summary.passed_over_files:
        passed_over["list"] = [
            {"path": displayable(path), "kind": kind} for path, kind in summary.passed_over_files
        ]
    repaired = summary.repaired
    return {
        "library": displayable(library),
        "snapshot": summary.snapshot,
        "published": summary.published,
        "generation": summary.generation,
        "served": summary.served,
        "interrupted": summary.interrupted,
        "files": summary.files,
        "unchanged": summary.unchanged,
        "failed_before": summary.failed_before,
        "verdicts": {verdict: summary.verdicts[verdict] for verdict in VERDICTS},
        "failures": [
            {"path": displayable(f.path), "verdict": f.verdict, "reason": f.reason} for f in summary.failures
        ],
        "not_scanned": [{"path": displayable(path), "reason": reason} for path, reason in summary.problems],
        "passed_over": passed_over,
        "not_reachable": [
            {"path": displayable(path), "reason": reason} for path, reason in summary.not_reached
        ],
        "still_written": [displayable(path) for path in summary.still_written],
        "repaired": None
        if repaired is None
        else {
            "damaged_files": [displayable(path) for path in repaired.files],
            "read_again": list(repaired.read_again),
            "left": list(repaired.left),
            "moved": repaired.moved,
            "lost_rows": repaired.lost_rows,
        },
        "lines": summary.lines,
        "carried": summary.carried,
        "facts_read": summary.facts_read,
        "text_problems": _problem_objects(summary.text_problems),
        "stages": {name: _stage_object(stage) for name, stage in summary.stages.items()},
        "recognised": summary.recognised,
        "moved": summary.moved,
        "removed": summary.removed,
        "vanished": summary.vanished,
        "left_out": summary.left_out,
        "segments": summary.segments,
        "frames": summary.frames,
        "video_seconds": round(summary.video_seconds, 3),
        "elapsed_seconds": round(summary.elapsed_seconds, 3),
        "num_videos": summary.num_videos,
        "num_segments": summary.num_segments,
    }


def _problem_objects(problems: Sequence[ReadingProblem]) -> list[dict[str, Any]]:
    return [
        {"path": displayable(p.path), "verdict": p.verdict or "not_reachable", "reason": p.reason}
        for p in problems
    ]


def _stage_object(stage: StageSummary) -> dict[str, Any]:
    return {
        "videos": stage.videos,
        "done_before": stage.done_before,
        "left": stage.left,
        "lines": stage.lines,
        "cuts": stage.cuts,
        "problems": _problem_objects(stage.problems),
        "video_seconds": round(stage.video_seconds, 3),
        "elapsed_seconds": round(stage.elapsed_seconds, 3),
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
    if summary.not_reached:
        table.add_row("not reachable", str(len(summary.not_reached)))
    if summary.still_written:
        table.add_row("still being written", str(len(summary.still_written)))
    if summary.removed:
        table.add_row("removed", str(summary.removed))
    if table.row_count:
        console.print(table)
    for failure in summary.failures[:_SHOWN_FAILURES]:
        print_line(console, f"  {failure.verdict}: {displayable(failure.path)}: {failure.reason}")
    if len(summary.failures) > _SHOWN_FAILURES:
        print_line(console, f"  … and {len(summary.failures) - _SHOWN_FAILURES} more; `--json` lists all")
    _print_problems("texts", summary.text_problems, "files with texts", console)
    for path, reason in summary.not_reached[:_SHOWN_FAILURES]:
        print_line(console, f"  not reachable: {displayable(path)}: {reason}")
    if summary.not_reached:
        more = len(summary.not_reached) - _SHOWN_FAILURES
        listed = f"… and {more} more (`--json` lists all); " if more > 0 else ""
        print_line(
            console,
            f"  {listed}what was indexed of these files stays: when their disk or share is back and may be "
            "read, run the same command again",
        )
    for path in summary.still_written[:_SHOWN_FAILURES]:
        print_line(console, f"  still being written: {displayable(path)}: the next run looks at it again")
    if summary.repaired is not None:
        _print_repaired(summary.repaired, console)
    _print_passed_over(summary, console)
    if not summary.files:
        print_line(console, "no video files found: name a folder that holds videos, or the files themselves")
    if summary.recognised:
        moved = f", {summary.moved} of them moved or renamed" if summary.moved else ""
        print_line(console, f"{summary.recognised} files were recognised by their content{moved}")
    if summary.vanished:
        print_line(
            console,
            f"{summary.vanished} videos no longer exist on disk and count as missing: `--prune` removes them",
        )
    if summary.left_out:
        print_line(
            console,
            f"{summary.left_out} files of the library are left out by a rule now: `--prune` forgets them",
        )
    if summary.failed_before:
        print_line(console, "`--retry-failed` reads the files again that failed before")
    if summary.video_seconds:
        rate = summary.video_seconds / max(summary.elapsed_seconds, 1e-9)
        print_line(
            console,
            f"{summary.video_seconds / 3600:.2f} hours of video in {summary.elapsed_seconds:.1f} s "
            f"({rate:.1f} × real time)",
        )
    if summary.lines:
        print_line(console, f"{summary.lines} lines of subtitles read")
    if summary.carried:
        print_line(
            console,
            f"texts and cuts of {summary.carried} videos were taken from the generation that is served",
        )
    for name, stage in summary.stages.items():
        _print_stage(name, stage, console)
    if summary.snapshot is not None:
        print_line(
            console,
            f"snapshot {summary.snapshot} of {displayable(library)}: {summary.num_videos} videos, "
            f"{summary.num_segments} segments",
        )


def _print_problems(label: str, problems: Sequence[ReadingProblem], of_what: str, console: Console) -> None:
    """Print the first files that were not, or only partly, read, and how many more there are."""
    for problem in problems[:_SHOWN_FAILURES]:
        state = problem.verdict or "not reachable"
        print_line(console, f"  {label} {state}: {displayable(problem.path)}: {problem.reason}")
    if (more := len(problems) - _SHOWN_FAILURES) > 0:
        print_line(console, f"  … and {more} more {of_what}; `--json` lists all")


def _print_stage(name: StageName, stage: StageSummary, console: Console) -> None:
    """Print what a stage did, and what went wrong."""
    _print_problems(name, stage.problems, f"for {name}", console)
    found = f"{stage.cuts} cuts" if name == "shots" else f"{stage.lines} lines"
    parts = [f"{name}: {stage.videos} videos read, {found} found"]
    if stage.video_seconds:
        rate = stage.video_seconds / max(stage.elapsed_seconds, 1e-9)
        parts.append(f"in {stage.elapsed_seconds:.1f} s ({rate:.1f} × real time)")
    before = f"; {stage.done_before} read before" if stage.done_before else ""
    left = f"; {stage.left} left for the next run" if stage.left else ""
    print_line(console, " ".join(parts) + before + left)


def _print_repaired(repaired: RepairReport, console: Console) -> None:
    """Print what a repair found, which videos it read again, and which it left as they are."""
    if not repaired.files:
        print_line(console, "repair: no damage found")
        return
    for path in repaired.files:
        print_line(console, f"  damaged: {displayable(path)}")
    read_again = len(repaired.read_again) + repaired.lost_rows
    kept = f"{repaired.moved} others in the same files kept"
    print_line(
        console,
        f"repair: {len(repaired.files)} damaged files, {read_again} videos read again, {kept}",
    )
    for name in repaired.left[:_SHOWN_FAILURES]:
        print_line(console, f"  damaged, and not found under PATH: {name}")
    if repaired.left:
        print_line(
            console,
            f"  {len(repaired.left)} damaged videos stay as they are, with their damaged files: run the same "
            "command with their folders when they are there",
        )


def _print_passed_over(summary: IndexSummary, console: Console) -> None:
    """Print how many files are not taken for videos and of what kinds; all of them if they were asked for."""
    for path, kind in summary.passed_over_files:
        print_line(console, f"  passed over ({kind}): {displayable(path)}")
    if total := summary.passed_over.total():
        kinds = [f"{count} {kind}" for kind, count in summary.passed_over.most_common(_SHOWN_KINDS)]
        if len(summary.passed_over) > _SHOWN_KINDS:
            kinds.append("…")
        listed = "" if summary.passed_over_files else "; `--list-passed-over` lists them"
        print_line(console, f"{total} files passed over: {', '.join(kinds)}{listed}")
