"""The result of an evaluation as a table to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Metrics, and the widths of their columns.
_COLUMNS = {"R@1": 7, "R@5": 6, "R@10": 6, "MdR": 7, "MnR": 7}
_NAME = 20


def metrics_table(result: Mapping[str, Any]) -> str:
    """A table for each gallery, with a line for each way to rank; recalls are in percent."""
    lines = [_settings(result["settings"]), *_tuned(result)]
    for title, block in _galleries(result):
        lines += ["", *_block(title, block)]
    return "\n".join(lines)


def _settings(settings: Mapping[str, Any]) -> str:
    if not settings["rerank"]:
        return "by similarity alone"
    pairs = "all pairs" if settings["mode"] == "all-pairs" else f"the {settings['num_candidates']} nearest"
    count, lam = settings["num_salient_frames"], settings["ensemble_lambda"]
    if settings["match"] == "salience":
        return f"{pairs} matched by the relevance of {count} salient frames; λ = {lam:g}"
    per_frame = settings["tokens_per_frame"]
    tokens = f"{settings['tokens']} tokens" + ("" if per_frame is None else f", {per_frame} a frame")
    return f"{pairs} matched on {count} salient frames ({tokens}); λ = {lam:g}"


def _tuned(result: Mapping[str, Any]) -> Iterator[str]:
    if "tuned" in result:
        tuned = result["tuned"]
        yield f"λ = {tuned['ensemble_lambda']:g} was best of {len(tuned['tried'])} on {tuned['split']}"


def _galleries(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for split, block in result.get("photos", {}).items():
        yield f"photos, {split}", block
    for split, block in result.get("films", {}).items():
        yield f"noisy films of photos, {split}", block
    yield from result.get("datasets", {}).items()
    for name, kinds in result.get("videos", {}).items():
        for kind, block in kinds.items():
            yield f"videos, {name}, gallery {kind}", block


def _block(title: str, block: Mapping[str, Any]) -> Iterator[str]:
    directions = block["global"]
    counts = f"{directions['text_to_video']['n']:,} texts, {directions['video_to_text']['n']:,} videos"
    yield f"{title}: {counts}"
    cells = "".join(f"{name:>{size}}" for name, size in _COLUMNS.items())
    width = len(cells)
    yield f"{'':{_NAME}}{'text to video':>{width}}  {'video to text':>{width}}"
    yield f"{'':{_NAME}}{cells}  {cells}{'R@SUM':>9}"
    for name in ("global", "local", "ensemble"):
        if name in block:
            yield _line(name, block[name])
    for number, both in block.get("salient_frames", {}).items():
        frames = "frame" if number == "1" else "frames"
        for name, values in both.items():
            yield _line(f"{name}, {number} {frames}", values)


def _line(name: str, values: Mapping[str, Any]) -> str:
    directions = (values["text_to_video"], values["video_to_text"])
    cells = ["".join(f"{way[name]:{size}.1f}" for name, size in _COLUMNS.items()) for way in directions]
    return f"{name:{_NAME}}{'  '.join(cells)}{values['R@SUM']:9.1f}"
