"""Runs a graph in parts, so that what comes before a part is computed once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from model.arrays import Array
from model.runtime.onnx import ort

Values = dict[str, NDArray[np.generic]]
# Parts begin where no more values than these are still needed.
_MOST_VALUES = 4


class PartialRuns:
    """The values within a graph for some inputs, read in the order of the graph.

    The graph's weights may change between two readings, if they are behind what was read.

    Args:
        model: the graph, whose nodes are in the order of their computation.
        examples: its inputs, each a run of its own.
        threads: that run the graph; None: one for each core.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        examples: Sequence[Mapping[str, NDArray[np.generic]]],
        threads: int | None = None,
    ) -> None:
        self._model, self._threads = model, threads
        self._values: list[Values] = [dict(example) for example in examples]
        self._starts = _starts(model)
        self._begun = 0

    def rows(self, name: str) -> Array:
        """All rows of a float value [..., K] for all examples. → float32 [R, K]

        It may not lie before one that was read.
        """
        nodes = self._model.graph.node
        produced = next((place for place, node in enumerate(nodes) if name in node.output), 0)
        start = max((place for place in self._starts if place <= produced), default=0)
        if start > self._begun:
            self._values = self._run(self._starts[start])
            self._begun = start
        found = [values[name] for values in self._run({name})]
        return np.concatenate([value.reshape(-1, value.shape[-1]) for value in found]).astype(np.float32)

    def _run(self, names: Collection[str]) -> list[Values]:
        """Some values for all examples, computed from those at hand."""
        given = self._values[0]
        wanted = sorted(set(names) - given.keys())
        if not wanted:
            return [{name: values[name] for name in names} for values in self._values]
        needed = set(wanted)
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self._model.graph.node):
            if not needed.isdisjoint(node.output):
                nodes.append(node)
                needed.update(name for name in node.input if name not in given)
        part = helper.make_model(
            helper.make_graph(
                nodes[::-1],
                "part",
                [_value(name, array) for name, array in given.items() if _reads(nodes, name)],
                [onnx.ValueInfoProto(name=name) for name in wanted],
                [tensor for tensor in self._model.graph.initializer if tensor.name in needed],
            ),
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
        )
        session = cpu_session(part.SerializeToString(), self._threads)
        fed = [item.name for item in session.get_inputs()]
        return [
            {name: values[name] for name in names if name in given}
            | dict(zip(wanted, session.run(wanted, {name: values[name] for name in fed}), strict=True))
            for values in self._values
        ]


def cpu_session(content: bytes, threads: int | None) -> ort.InferenceSession:
    """Open a graph on the CPU, with so many threads; None: one for each core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _reads(nodes: Sequence[onnx.NodeProto], name: str) -> bool:
    return any(name in node.input for node in nodes)


def _value(name: str, array: NDArray[np.generic]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def _starts(model: onnx.ModelProto) -> dict[int, frozenset[str]]:
    """The nodes before which few values are still needed, and these values."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    last: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        last.update((name, place) for name in node.input if name and name not in stored)
    alive = {item.name for item in graph.input} - stored
    starts: dict[int, frozenset[str]] = {}
    for place, node in enumerate(graph.node):
        if len(alive) <= _MOST_VALUES:
            starts[place] = frozenset(alive)
        alive.update(node.output)
        alive = {name for name in alive if last.get(name, -1) > place}
    return starts
