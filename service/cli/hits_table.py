"""The hits of a search: as a table for people, as lines in a pipe, and as JSON for programs."""

from collections.abc import Sequence

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from model.runtime.messages import printable
from service.cli.printing import plain, print_line
from service.search.results import FrameEvidence, Hit, ScoreExplanation, SearchResult, SequenceStep

# Most frame times shown in one row of the table.
_MOST_TIMES = 4
_SEARCH_RESULT = TypeAdapter(SearchResult)


def result_json(result: SearchResult) -> str:
    """The result as one line of JSON, as the service answers over HTTP."""
    return _SEARCH_RESULT.dump_json(result).decode()


def show_hits(result: SearchResult, console: Console) -> None:
    """Print the hits, followed by the steps of sequences (in a terminal, or explained) and by explanations.

    In a terminal they are a table; elsewhere a line each, with tabs between score, start, end, times of the
    salient frames, path and, if the bundle is calibrated, probability.
    """
    if console.is_terminal:
        console.print(_table(result.hits))
    else:
        for hit in result.hits:
            typer.echo("\t".join(printable(cell) for cell in _cells(hit)))
    for hit in result.hits:
        steps = hit.steps or ()
        if steps and (console.is_terminal or steps[0].explanation is not None):
            console.print()
            print_line(console, hit.path)
            _show_steps(steps, console)
        if hit.explanation is not None:
            console.print()
            print_line(console, hit.path)
            _show_explanation(hit.score, hit.frames, hit.explanation, console)


def _table(hits: list[Hit]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("score", "from", "to", "salient frames"):
        table.add_column(name, justify="right")
    table.add_column("video", overflow="fold")
    if any(hit.probability is not None for hit in hits):
        table.add_column("likely", justify="right")
    for hit in hits:
        *cells, path = _cells(hit)[:5]
        table.add_row(*cells, plain(path), *_cells(hit)[5:])
    return table


def _cells(hit: Hit) -> tuple[str, ...]:
    salient = [_clock(frame.pts_seconds) for frame in hit.frames if frame.salient]
    return (
        f"{hit.score:.3f}",
        _clock(hit.start_seconds),
        _clock(hit.end_seconds),
        " ".join(salient[:_MOST_TIMES]) + (" …" if len(salient) > _MOST_TIMES else ""),
        hit.path,
        *([] if hit.probability is None else [f"{hit.probability:.0%}"]),
    )


def _show_steps(steps: Sequence[SequenceStep], console: Console) -> None:
    for step in steps:
        start, end = _clock(step.moment.start_seconds), _clock(step.moment.end_seconds)
        print_line(console, f"  {start} to {end}: {step.text} ({step.moment.score:.3f})")
        if step.explanation is not None:
            _show_explanation(step.moment.score, step.moment.frames, step.explanation, console)


def _show_explanation(
    score: float, frames: Sequence[FrameEvidence], explanation: ScoreExplanation, console: Console
) -> None:
    times = {frame.frame_id: frame.pts_seconds for frame in frames}
    lines = [f"  {score:.4f} = {explanation.formula}"]
    lines.append(f"  before re-ranking: place {explanation.first_stage_rank} of all segments")
    for term in explanation.frames:
        match = "" if term.match_logit is None else f", match {term.match_logit:.4f}"
        lines.append(f"  frame at {_clock(times[term.frame_id])}: relevance {term.relevance:.4f}{match}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
