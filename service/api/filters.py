"""The wire format of filters, and how they become those of `service/search/filters.py`."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.search import conditions
from service.search.fields import FIELDS, describe_fields
from service.search.filters import And, Filter, Not, Or

#: How deeply filters may be nested, and how many parts and values one may have.
MOST_LEVELS = 10
MOST_PARTS = 100
MOST_VALUES = 1000
FILTER_EXAMPLE = '{"op": "range", "field": "duration_seconds", "gte": 60}'
#: The type of the validation error of a filter that is larger.
FILTER_SIZE = "filter_size"

FieldName = Annotated[
    str, Field(description="What is compared.", json_schema_extra={"enum": list(FIELDS)}, examples=["codec"])
]
#: `conditions.py` checks values, since what they may be depends on the field.
_VALUE_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
ValueToCompare = Annotated[Any, WithJsonSchema(_VALUE_SCHEMA)]
Bound = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}], "default": None}),
]


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AndFilter(_Filter):
    """All of the filters hold."""

    op: Literal["and"]
    filters: list["AnyFilter"] = Field(min_length=1)


class OrFilter(_Filter):
    """One of the filters holds."""

    op: Literal["or"]
    filters: list["AnyFilter"] = Field(min_length=1)


class NotFilter(_Filter):
    """The filter does not hold; so videos without a value are among those whose value is not another."""

    op: Literal["not"]
    filter: "AnyFilter"


class EqualsFilter(_Filter):
    """The field has this value; a time, on this day."""

    op: Literal["equals"]
    field: FieldName
    value: ValueToCompare


class InFilter(_Filter):
    """The field has one of these values."""

    op: Literal["in"]
    field: FieldName
    values: list[ValueToCompare] = Field(min_length=1)


class RangeFilter(_Filter):
    """The field lies within bounds: at least (`gte`), above (`gt`), at most (`lte`), or below (`lt`).

    Times are as in RFC 3339, in UTC unless they say otherwise. A day such as `2024-05-01` stands for all of
    it: `lte` includes it.
    """

    op: Literal["range"]
    field: FieldName
    gte: Bound = Field(None, examples=[60])
    gt: Bound = None
    lte: Bound = None
    lt: Bound = None


class UnderFilter(_Filter):
    """The path is this folder, or lies in it, however deep."""

    op: Literal["under"]
    field: FieldName
    folder: str = Field(description="A path as `path` of a hit or a video.", examples=["/media/holiday"])


class ContainsFilter(_Filter):
    """The text has this part; upper and lower case are the same."""

    op: Literal["contains"]
    field: FieldName
    value: str


class IsNullFilter(_Filter):
    """The field has no value."""

    op: Literal["is_null"]
    field: FieldName


AnyFilter: TypeAlias = Annotated[
    AndFilter
    | OrFilter
    | NotFilter
    | EqualsFilter
    | InFilter
    | RangeFilter
    | UnderFilter
    | ContainsFilter
    | IsNullFilter,
    Field(discriminator="op"),
]


def _check_size(value: Any) -> Any:
    """Refuse what is nested too deeply or too long, before anything walks through it."""
    level: list[Any] = [value]
    num_parts = num_levels = 0
    while level:
        filters = [each for each in level if isinstance(each, dict)]
        num_parts += len(filters)
        num_levels += 1
        if num_levels > MOST_LEVELS or num_parts > MOST_PARTS:
            raise PydanticCustomError(
                FILTER_SIZE,
                f"A filter may have {MOST_PARTS} parts, nested up to {MOST_LEVELS} levels deep. Simplify it: "
                '"in" compares with many values at once.',
            )
        if any(len(each["values"]) > MOST_VALUES for each in filters if isinstance(each.get("values"), list)):
            raise PydanticCustomError(
                FILTER_SIZE, f'"in" may compare with up to {MOST_VALUES:,} values. Leave some out.'
            )
        level = [inner for each in filters for inner in _inner(each)]
    return value


def _inner(value: dict[str, Any]) -> Iterable[Any]:
    inner = value.get("filters")
    return [*(inner if isinstance(inner, list) else []), *([value["filter"]] if "filter" in value else [])]


#: The filter of a request.
RequestFilter = Annotated[AnyFilter, BeforeValidator(_check_size)]
ABOUT_FILTER = (
    "Which videos count: all others are left out before anything is ranked. A video without a value fits no "
    f"condition but `is_null`. At most {MOST_PARTS} parts, nested up to {MOST_LEVELS} levels deep. Null or "
    f"absent: all. Fields:\n\n{describe_fields()}"
)


def to_filter(given: AnyFilter, pointer: str = "/filter") -> Filter:
    """A filter of a request as the search understands it.

    Args:
        given: the filter.
        pointer: the JSON pointer of it in the request, for errors.

    Raises:
        QueryError: a field, an operator or a value cannot be.
    """
    match given:
        case AndFilter() | OrFilter():
            parts = (to_filter(each, f"{pointer}/filters/{i}") for i, each in enumerate(given.filters))
            return And(tuple(parts)) if given.op == "and" else Or(tuple(parts))
        case NotFilter():
            return Not(to_filter(given.filter, f"{pointer}/filter"))
        case EqualsFilter():
            return conditions.equals(given.field, given.value, pointer)
        case InFilter():
            return conditions.one_of(given.field, given.values, pointer)
        case RangeFilter():
            bounds = {side: getattr(given, side) for side in ("gte", "gt", "lte", "lt")}
            return conditions.within(given.field, bounds, pointer)
        case UnderFilter():
            return conditions.under(given.field, given.folder, pointer)
        case ContainsFilter():
            return conditions.contains(given.field, given.value, pointer)
        case IsNullFilter():
            return conditions.is_null(given.field, pointer)
