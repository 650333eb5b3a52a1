"""What the commands print: tables for people, objects for programs."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from indexer.events import IndexSummary
from indexer.library.folder import Library
from indexer.library.manifest import SnapshotManifest
from indexer.library.records import VERDICTS, displayable
from indexer.library.verify import VerifyReport

_SHOWN_FAILURES = 50


def summary_object(summary: IndexSummary, library: Path) -> dict[str, Any]:
    """A run's summary for `--json`."""
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
    """A run's summary: a table of verdicts, then the failures."""
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
        _line(console, f"  {failure.verdict}: {displayable(failure.path)}: {failure.reason}")
    if len(summary.failures) > _SHOWN_FAILURES:
        _line(console, f"  … and {len(summary.failures) - _SHOWN_FAILURES} more: `--json` lists all")
    if not summary.files:
        _line(console, "no video files found: name a folder that holds videos, or the files themselves")
    if summary.vanished:
        _line(console, f"{summary.vanished} videos are gone from the disk: `--prune` removes them")
    if summary.failed_before:
        _line(console, "`--retry-failed` tries again what failed before")
    if summary.video_seconds:
        rate = summary.video_seconds / max(summary.elapsed_seconds, 1e-9)
        _line(
            console,
            f"{summary.video_seconds / 3600:.2f} hours of video in {summary.elapsed_seconds:.1f} s "
            f"({rate:.1f} × real time)",
        )
    if summary.snapshot is not None:
        _line(
            console,
            f"snapshot {summary.snapshot} of {displayable(library)}: {summary.num_videos} videos, "
            f"{summary.num_segments} segments",
        )


def info_object(library: Library, current: int | None, manifests: list[SnapshotManifest]) -> dict[str, Any]:
    """What a library is, for `--json` and for printing."""
    served = next(manifest for manifest in manifests if manifest.number == current)
    return {
        "library": os.fspath(library.path),
        "snapshot": served.number,
        "created": served.created,
        "bundle": {"name": served.bundle_name, "checksum": served.bundle_checksum},
        "num_videos": served.num_videos,
        "num_segments": served.num_segments,
        "num_frames": served.num_frames,
        "hours": round(library.current().hours, 4),
        "verdicts": {verdict: served.verdicts.get(verdict, 0) for verdict in VERDICTS},
        "index": {"factory": served.index_factory, "requested": served.index_requested},
        "tokens": {
            "stored": library.layout.tokens,
            "per_frame": library.layout.tokens_per_frame,
            "dim": library.layout.token_dim,
        },
        "bytes": sum(stamp.bytes for stamp in served.files.values()),
        "media_roots": [displayable(Path(root)) for root in served.media_roots],
        "snapshots": [
            {
                "number": manifest.number,
                "created": manifest.created,
                "num_videos": manifest.num_videos,
                "num_segments": manifest.num_segments,
            }
            for manifest in manifests
        ],
    }


def print_info(info: dict[str, Any], console: Console) -> None:
    """What a library is, for people."""
    bundle, index, tokens = info["bundle"], info["index"], info["tokens"]
    stored = f"{tokens['per_frame']} × {tokens['dim']} a frame, {tokens['stored']}"
    failed = {v: n for v, n in info["verdicts"].items() if n and v != "ok"}
    lines = [
        ("library", info["library"]),
        ("snapshot", f"{info['snapshot']}, published {info['created']}"),
        ("bundle", f"{bundle['name']} ({bundle['checksum'][:12]})"),
        ("videos", f"{info['num_videos']} ({info['hours']:.2f} hours)"),
        ("segments", f"{info['num_segments']}, frames {info['num_frames']}"),
        ("not ok", ", ".join(f"{n} {verdict}" for verdict, n in failed.items()) or "none"),
        ("index", f"{index['factory']} (asked for: {index['requested']})"),
        ("tokens", stored if tokens["per_frame"] else "none: searches are not re-ranked"),
        ("size", f"{info['bytes'] / 1e6:.1f} MB"),
        ("media", ", ".join(info["media_roots"])),
    ]
    for label, text in lines:
        _line(console, f"{label:<10} {text}")
    for entry in reversed(info["snapshots"]):
        mark = "served" if entry["number"] == info["snapshot"] else ""
        counts = f"{entry['num_videos']} videos, {entry['num_segments']} segments"
        _line(console, f"  {entry['number']:>4}  {entry['created']}  {counts}  {mark}".rstrip())


def verify_object(report: VerifyReport) -> dict[str, Any]:
    """What is wrong with a library, for `--json`."""
    return {
        "ok": report.ok,
        "library": displayable(report.library),
        "files": report.files,
        "bytes": report.bytes,
        "snapshots": [
            {"number": s.number, "served": s.current, "ok": not s.problems, "problems": s.problems}
            for s in report.snapshots
        ],
        "remedy": report.remedy,
    }


def print_verify(report: VerifyReport, console: Console) -> None:
    """What is wrong with a library, for people."""
    for snapshot in report.snapshots:
        served = ", served" if snapshot.current else ""
        _line(console, f"snapshot {snapshot.number}{served}: {'damaged' if snapshot.problems else 'whole'}")
        for problem in snapshot.problems:
            _line(console, f"  {problem}")
    _line(console, f"{report.files} files, {report.bytes / 1e6:.1f} MB read")
    if report.remedy:
        _line(console, report.remedy)


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
