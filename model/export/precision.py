"""Lowers the precision that a graph computes in: half floats for GPUs, whole numbers of 8 bits for CPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import onnx

from model.runtime.errors import InputError
from model.runtime.onnx import float16_model, quantised_file

#: fp32: as published; fp16: half floats, faster on a GPU and half the size; int8: weights and activations of
#: 8 bits, faster on a CPU and a quarter of the size. Inputs and outputs stay as they are.
Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(name: str) -> Precision:
    """The precision with this name.

    Raises:
        InputError: there is none.
    """
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise InputError(f"--precision is {name!r}: use one of {', '.join(PRECISIONS)}", "precision")


def in_precision(source: Path, target: Path, precision: Precision) -> None:
    """Write a float32 ONNX file, whose weights may lie beside it, in this precision as one file.

    In int8, what is rounded is scaled by the greatest value of a whole batch, so that a row's result depends
    a little on the others.
    """
    with _quiet():
        if precision == "fp32":
            onnx.save(onnx.load(source), target)
        elif precision == "fp16":
            onnx.save(float16_model(onnx.load(source)), target)
        else:
            quantised_file(source, target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice for other kinds of quantisation from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
