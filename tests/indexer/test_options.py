"""The options of an indexing run."""

from dataclasses import replace
from typing import Any

import pytest

from indexer.options import IndexOptions
from model.runtime.errors import InputError


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("workers", -1, "it must be 0 or more"),
        ("batch_frames", 0, "it must be at least 1"),
        ("encoders", 0, "it must be at least 1"),
        ("keep_snapshots", 0, "it must be at least 1"),
        ("timeout_seconds", 0.0, "it must be more than 0 seconds"),
        ("timeout_seconds", float("nan"), "it must be more than 0 seconds"),
        ("max_pixels", 0, "it must be at least 1"),
        ("max_hours", 0.0, "it must be more than 0"),
        ("cpu_seconds", float("nan"), "it must be more than 0"),
        ("cpu_seconds_per_megabyte", -1.0, "it must be 0 or more"),
        ("stored_megabytes", 0.0, "it must be more than 0"),
        ("stored_bytes_per_byte", -1.0, "it must be 0 or more"),
        ("threads", 0, "it must be at least 1"),
        ("tokens", "int4", "it must be one of int8, float32, none"),
    ],
)
def test_an_invalid_option_is_refused_by_the_name_of_its_field(field: str, value: Any, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(IndexOptions(), **{field: value})
    assert str(caught.value) == f"{field} is {value!r}: {rule}"
    assert caught.value.field == field
