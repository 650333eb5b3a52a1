"""The benchmark's results: figures with their n, medians, ranges and bars, and how they are printed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from service.bench.stage_rates import StageRates

Cell = str | int | float | None


class Section(StrEnum):
    """The headings of the report."""

    INDEXING = "Indexing throughput"
    STAGES = "Stages of indexing, and the plan that follows"
    MEMORY = "Peak memory of indexing"
    RESCAN = "Indexing again without a change"
    RENAMES = "Indexing renamed files"
    PUBLISHING = "Publishing a change"
    ISOLATION = "Confined decoders"
    ENGINES = "Ray on one node against the local engine"
    SEARCH = "Search over HTTP"
    FAISS = "FAISS against exact search"
    VECTORS = "Backends of vectors"
    RERANKING = "Re-ranking"
    ENSEMBLE = "Spliced films: the ensemble against the similarity alone"
    TOKENS = "Stored tokens"
    PAGING = "Filters and pages"


@dataclass(frozen=True)
class Bar:
    """The value that a figure should reach: at least, or at most, `limit`."""

    kind: Literal[">=", "<="]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether `value` meets the bar."""
        return value >= self.limit if self.kind == ">=" else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One line of the report: its name, and a value for each repetition."""

    section: str
    name: str
    values: tuple[float, ...]
    unit: Literal["ratio", "queries/s", "files/s", "ms", "MiB", "s", "%", "points", "segments"] = "ratio"
    bar: Bar | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name!r} has no values: give one for each repetition")

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def passed(self) -> bool | None:
        """Whether the median meets the bar; None where there is no bar."""
        return None if self.bar is None else self.bar.holds(self.median)

    def to_json(self) -> dict[str, Any]:
        """The figure as a JSON object."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "n": len(self.values),
            "median": round(self.median, 4),
            "min": round(min(self.values), 4),
            "max": round(max(self.values), 4),
            "bar": None if self.bar is None else f"{self.bar.kind} {self.bar.limit:g}",
            "passed": self.passed,
            "note": self.note,
        }


@dataclass(frozen=True)
class Grid:
    """A table: a row for each thing compared, its name first; None where a column does not apply."""

    section: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"the row {row} has {len(row)} cells for {len(self.columns)} columns")

    def to_json(self) -> dict[str, Any]:
        """The grid as a JSON object, with an object for each row."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"section": self.section, "note": self.note, "rows": rows}


@dataclass(frozen=True)
class BenchReport:
    """The results of one part of the benchmark."""

    figures: Sequence[Figure] = ()
    grids: Sequence[Grid] = ()
    rates: StageRates | None = None
    """What the stages take, for `reelfind bench plan`."""


def ratios(over: Sequence[float], under: Sequence[float]) -> tuple[float, ...]:
    """Divide repetition by repetition, so that what slows both of a pair cancels out."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def milliseconds(seconds: Sequence[float]) -> tuple[float, ...]:
    """Times in milliseconds."""
    return tuple(1000 * value for value in seconds)


def print_figures(console: Console, figures: Sequence[Figure]) -> None:
    """Print a table for each section."""
    for section in dict.fromkeys(figure.section for figure in figures):
        table = Table(title=section, title_justify="left", title_style="bold", pad_edge=False)
        for heading in ("figure", "median", "min to max", "n", "bar"):
            table.add_column(heading, justify="left" if heading in ("figure", "bar") else "right")
        for figure in figures:
            if figure.section == section:
                table.add_row(*_cells(figure))
        console.print(table)


def print_grids(console: Console, grids: Sequence[Grid]) -> None:
    """Print a table for each grid."""
    for grid in grids:
        table = Table(title=grid.section, title_justify="left", title_style="bold", pad_edge=False)
        table.box, table.caption, table.caption_justify = box.SIMPLE_HEAD, grid.note, "left"
        for number, heading in enumerate(grid.columns):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*(_cell(value) for value in row))
        console.print(table)


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _cells(figure: Figure) -> tuple[str, str, str, str, str]:
    name = f"{figure.name}\n[dim]{figure.note}[/dim]" if figure.note else figure.name
    unit = "" if figure.unit == "ratio" else f" {figure.unit}"
    digits = 2 if figure.median >= 1 else 3
    bar = ""
    if figure.bar is not None:
        sign = "≥" if figure.bar.kind == ">=" else "≤"
        verdict = "[green]pass[/green]" if figure.passed else "[red]miss[/red]"
        bar = f"{sign} {figure.bar.limit:g} {verdict}"
    span = f"{min(figure.values):.{digits}f} to {max(figure.values):.{digits}f}"
    return name, f"{figure.median:.{digits}f}{unit}", span, str(len(figure.values)), bar
