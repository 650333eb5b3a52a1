"""Reports of a library's contents and damage: lines for people, JSON for programs."""

import os
from typing import Any

from rich.console import Console

from indexer.library.folder import Library
from indexer.library.generations import staged
from indexer.library.manifest import SnapshotManifest, generation_name
from indexer.library.overview import GenerationState
from indexer.library.records import VERDICTS, displayable
from indexer.library.verify import VerifyReport
from model.runtime.remote.path import media_path
from service.cli.printing import print_line

_SHOWN_VIDEOS = 50
_LINES = {"name": "of names", "speech": "of subtitles", "transcript": "heard", "screen": "read in pictures"}


def info_object(
    library: Library,
    current: int | None,
    manifests: list[SnapshotManifest],
    generations: list[GenerationState],
) -> dict[str, Any]:
    """A library's contents, for `--json` and `print_info`."""
    served = next(manifest for manifest in manifests if manifest.number == current)
    snapshot = library.current()
    return {
        "library": os.fspath(library.path),
        "snapshot": served.number,
        "created": served.created,
        "bundle": {"name": served.bundle_name, "checksum": served.bundle_checksum},
        "num_videos": served.num_videos,
        "num_segments": served.num_segments,
        "num_frames": served.num_frames,
        "hours": round(snapshot.hours, 4),
        "verdicts": {verdict: served.verdicts.get(verdict, 0) for verdict in VERDICTS},
        "lines": snapshot.line_counts(),
        "stages": snapshot.stage_counts(),
        "index": {
            "backend": served.index_backend,
            "factory": served.index_factory,
            "requested": served.index_requested,
        },
        "tokens": {
            "stored": library.layout.tokens,
            "per_frame": library.layout.tokens_per_frame,
            "dim": library.layout.token_dim,
        },
        "bytes": sum(stamp.bytes for stamp in served.files.values()),
        "media_roots": [displayable(media_path(root)) for root in served.media_roots],
        "generations": [
            {
                "name": state.name,
                "bundle": {"name": state.bundle_name, "checksum": state.bundle_checksum},
                "state": state.state,
                "snapshot": state.snapshot,
                "num_videos": state.num_videos,
                "num_segments": state.num_segments,
                "bytes": state.bytes,
            }
            for state in generations
        ],
        "snapshots": [
            {
                "number": manifest.number,
                "generation": generation_name(manifest.bundle_checksum),
                "staged": staged(library.path, manifest.number),
                "created": manifest.created,
                "num_videos": manifest.num_videos,
                "num_segments": manifest.num_segments,
            }
            for manifest in manifests
        ],
    }


def print_info(info: dict[str, Any], console: Console) -> None:
    """Print a library's contents."""
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
        ("lines", ", ".join(f"{n} {_LINES[kind]}" for kind, n in info["lines"].items() if n) or "none"),
        ("stages", ", ".join(f"{stage}: {n} videos" for stage, n in info["stages"].items() if n) or "none"),
        ("index", f"{index['backend']} {index['factory']} (requested: {index['requested']})"),
        ("tokens", stored if tokens["per_frame"] else "none: a matching head would need them"),
        ("size", f"{info['bytes'] / 1e6:.1f} MB"),
        ("media", ", ".join(info["media_roots"])),
    ]
    for label, text in lines:
        print_line(console, f"{label:<10} {text}")
    print_line(console, "generations")
    for entry in info["generations"]:
        counts = f"{entry['num_videos']} videos, {entry['bytes'] / 1e6:.1f} MB"
        print_line(console, f"  {entry['name']}  {entry['bundle']['name']}  {counts}  {entry['state']}")
    print_line(console, "snapshots")
    several = len(info["generations"]) > 1
    for entry in reversed(info["snapshots"]):
        mark = "served" if entry["number"] == info["snapshot"] else entry["staged"] or ""
        counts = f"{entry['num_videos']} videos, {entry['num_segments']} segments"
        name = f"  {entry['generation']}" if several else ""
        print_line(console, f"  {entry['number']:>4}  {entry['created']}{name}  {counts}  {mark}".rstrip())


def verify_object(report: VerifyReport) -> dict[str, Any]:
    """A library's damage, for `--json`."""
    return {
        "ok": report.ok,
        "library": displayable(report.library),
        "files": report.files,
        "bytes": report.bytes,
        "snapshots": [
            {
                "number": s.number,
                "served": s.current,
                "staged": s.staged,
                "ok": not s.problems,
                "problems": s.problems,
                "damaged_videos": s.damaged_videos,
            }
            for s in report.snapshots
        ],
        "rows_without_checksums": report.rows_without_checksums,
        "curation": report.curation,
        "remedy": report.remedy,
    }


def print_verify(report: VerifyReport, console: Console) -> None:
    """Print a library's damage and the remedy."""
    for snapshot in report.snapshots:
        served = ", served" if snapshot.current else ", not served yet" if snapshot.staged else ""
        print_line(
            console, f"snapshot {snapshot.number}{served}: {'damaged' if snapshot.problems else 'intact'}"
        )
        for problem in snapshot.problems:
            print_line(console, f"  {problem}")
        for path in snapshot.damaged_videos[:_SHOWN_VIDEOS]:
            print_line(console, f"  damaged: {path}")
        if (more := len(snapshot.damaged_videos) - _SHOWN_VIDEOS) > 0:
            print_line(console, f"  … and {more} more videos; `--json` lists all")
    if report.curation is not None:
        print_line(console, report.curation)
    print_line(console, f"{report.files} files, {report.bytes / 1e6:.1f} MB read")
    if report.rows_without_checksums:
        print_line(
            console,
            f"{report.rows_without_checksums} rows have no checksums of their own, because an earlier "
            "version wrote them: damage to them is noticed when their whole file is read",
        )
    if report.remedy:
        print_line(console, report.remedy)
