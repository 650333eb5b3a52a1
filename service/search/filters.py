"""Filters: which videos a search or a list is about, as a tree, and how it is evaluated.

A condition holds for a video if one of the field's values fits; a video without a value fits no condition but
`IsNull`. `Not` holds wherever its filter does not.

Shapes: V videos of a catalog, failures included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.search.fields import FIELDS, Facts, FieldValues

#: What values are compared with. Times have a time zone.
Value: TypeAlias = str | float | bool | datetime


@dataclass(frozen=True)
class And:
    """All of some filters hold; of none, too."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Or:
    """One of some filters holds."""

    filters: "tuple[Filter, ...]"


@dataclass(frozen=True)
class Not:
    """A filter does not hold."""

    filter: "Filter"


@dataclass(frozen=True)
class In:
    """A value is one of these."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A value lies within bounds; None: there is no such bound."""

    field: str
    gte: float | datetime | None = None
    gt: float | datetime | None = None
    lte: float | datetime | None = None
    lt: float | datetime | None = None


@dataclass(frozen=True)
class Under:
    """A path is this folder, or lies in it, however deep: `/a/b` is under `/a`, and `/ab` is not."""

    field: str
    folder: str


@dataclass(frozen=True)
class Contains:
    """A text has this part; case does not count, nor how accents are stored."""

    field: str
    part: str


@dataclass(frozen=True)
class IsNull:
    """There is no value."""

    field: str


Filter: TypeAlias = And | Or | Not | In | Range | Under | Contains | IsNull


def joined(*filters: Filter | None) -> Filter | None:
    """The filter that all of these hold; None where there is none."""
    given = tuple(each for each in filters if each is not None)
    return given[0] if len(given) == 1 else And(given) if given else None


def videos_where(where: Filter, facts: Facts) -> NDArray[np.bool_]:
    """For which videos a filter holds, bool [V], in the order of the catalog.

    Raises:
        KeyError: a field does not exist.
        ValueError: values of a field cannot be compared as the filter asks.
    """
    if isinstance(where, And):
        return _reduced(np.logical_and, True, where.filters, facts)
    if isinstance(where, Or):
        return _reduced(np.logical_or, False, where.filters, facts)
    if isinstance(where, Not):
        return ~videos_where(where.filter, facts)
    read = FIELDS[where.field].read(facts)
    num_videos = facts.catalog.num_rows
    if isinstance(where, IsNull):
        return ~read.videos_where(read.values.is_valid(), num_videos)
    if pa.types.is_null(read.values.type):
        return np.zeros(num_videos, np.bool_)
    return read.videos_where(_matches(where, read), num_videos)


def _reduced(combine: np.ufunc, start: bool, filters: Sequence[Filter], facts: Facts) -> NDArray[np.bool_]:
    first = np.full(facts.catalog.num_rows, start)
    return reduce(lambda mask, each: combine(mask, videos_where(each, facts)), filters, first)


def _matches(where: In | Range | Under | Contains, read: FieldValues) -> pa.Array:
    """Which values of a field fit a condition, bool [n] or null."""
    values = read.values
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
    if isinstance(where, In):
        return pc.is_in(values, pa.array(where.values, values.type), skip_nulls=True)
    if isinstance(where, Under):
        folder = where.folder.rstrip("/")
        return pc.or_(pc.equal(values, folder or "/"), pc.starts_with(values, folder + "/"))
    if isinstance(where, Contains):
        return pc.match_substring(folded(values), folded(pa.array([where.part]))[0].as_py())
    bounds = (
        (pc.greater_equal, where.gte),
        (pc.greater, where.gt),
        (pc.less_equal, where.lte),
        (pc.less, where.lt),
    )
    checks = [
        compare(values, pa.scalar(bound, values.type)) for compare, bound in bounds if bound is not None
    ]
    return reduce(pc.and_, checks, values.is_valid())


def folded(values: pa.Array) -> pa.Array:
    """Texts in lower case and composed, so that those that read alike are equal."""
    return pc.utf8_lower(pc.utf8_normalize(values, form="NFC"))
