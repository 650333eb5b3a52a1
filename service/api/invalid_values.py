"""Describes what pydantic finds wrong with a request."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.runtime.messages import shorten
from service.api.filters import FILTER_EXAMPLE, FILTER_SIZE
from service.api.query_schemas import kind_tag
from service.api.schemas import InvalidValue


def invalid_value(issue: Mapping[str, Any], body: object, example: str) -> InvalidValue:
    """Describe a validation error: the value at fault and the remedy.

    Args:
        issue: what pydantic says of it; its `loc` begins with the part of the request, such as "body".
        body: the body.
        example: a valid body.
    """
    place, *inner = issue["loc"]
    path = _path_in(body, inner)
    if path[:1] == ["filter"]:
        example = FILTER_EXAMPLE
    kind, value, context = issue["type"], issue.get("input"), issue.get("ctx", {})
    name = ".".join(map(str, path))
    if kind == "json_invalid":
        position = path[0] if path else 0
        return InvalidValue(
            pointer="#",
            detail=f"The body is not JSON: {context['error']} at character {position}. Send {example}.",
        )
    where = [*path, "op"] if kind == "union_tag_invalid" else path
    pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in where)
    if place != "body":
        pointer = f"?{name}"
    shown = shorten(value)
    if not path and kind == "missing":
        detail = f"The request has no body. Send {example}."
    elif isinstance(value, bytes):
        detail = "The body is not declared as JSON. Send it with the header Content-Type: application/json."
    elif kind == "missing":
        detail = f'"{name}" is missing. Send {example}.'
    elif kind == "extra_forbidden":
        detail = f"{shorten(name)} is not a known field. Remove it; /openapi.json lists the known fields."
    elif kind.startswith("int_"):
        detail = f"{name} must be a whole number such as 10, not {shown}."
    elif kind in ("float_type", "float_parsing", "finite_number"):
        detail = f"{name} must be a number such as 2.5, not {shown}."
    elif kind == "bool_type":
        detail = f"{name} must be true or false, not {shown}."
    elif kind == "string_type":
        detail = f"{name} must be text, not {shown}."
    elif kind == "string_unicode":
        detail = f"{name} holds half of a surrogate pair, which is not a character. Remove it."
    elif kind == "greater_than_equal":
        detail = f"{name} must be at least {context['ge']:g}, not {shown}."
    elif kind == "less_than_equal":
        detail = f"{name} must be at most {context['le']}, not {shown}."
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        detail = f"{name or 'The body'} must be a JSON object, not {shown}. Send {example}."
    elif kind == "too_short":
        detail = f"{name} has {context['actual_length']} values; give at least {context['min_length']}."
    elif kind == "too_long":
        detail = f"{name} has too many values; give at most {context['max_length']}."
    elif kind == "union_tag_not_found":
        detail = f'{name} has no "op". Write one like {example}.'
    elif kind == "union_tag_invalid":
        detail = f"{name}.op must be one of {context['expected_tags']}, not {shorten(context['tag'])}."
    elif kind == FILTER_SIZE:
        detail = issue["msg"]
    elif kind in ("literal_error", "enum"):
        detail = f"{name} must be {context['expected']}, not {shown}."
    else:
        detail = f"{name or 'The request'} is invalid: {issue['msg']}, not {shown}. See /openapi.json."
    return InvalidValue(pointer=pointer, detail=detail)


def _path_in(body: object, path: Sequence[str | int]) -> list[str | int]:
    """The path to a value without the kinds of filters and of queries, which pydantic adds to it."""
    kept: list[str | int] = []
    for part in path:
        if kind_tag(part):
            continue
        if isinstance(body, dict) and part not in body and part == body.get("op"):
            continue
        kept.append(part)
        if isinstance(body, dict):
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            body = body[part]
    return kept
