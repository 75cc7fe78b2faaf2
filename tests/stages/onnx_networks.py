"""Small networks as ONNX files, written field by field (onnx.proto3): the `onnx` package is no part of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

SIDE = 112
CELLS = 8
SIZE = 3 * CELLS * CELLS
_FLOAT, _INTS, _GRAPH = 1, 7, 5  # types of a tensor and of attributes


class Node(NamedTuple):
    operator: str
    takes: Sequence[str]
    gives: str
    ints: Mapping[str, Sequence[int]] = {}
    domain: str = ""
    graph: bytes = b""


def onnx(
    nodes: Sequence[Node],
    weights: Mapping[str, np.ndarray] = {},
    takes: Sequence[int | str] = (1, 3, SIDE, SIDE),
    gives: Sequence[int | str] = (1, SIZE),
    elsewhere: str = "",
) -> bytes:
    """A model of opset 13 that takes `faces` and gives `code`. elsewhere: of the weights' file."""
    graph = b"".join(field(1, _node(node)) for node in nodes) + field(2, "network")
    graph += b"".join(field(5, _tensor(name, value, elsewhere)) for name, value in weights.items())
    graph += field(11, _value("faces", takes)) + field(12, _value("code", gives))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def of_cells(mean_K: np.ndarray | None = None) -> bytes:
    """The mean colours of 8 × 8 cells of a face, less `mean_K` [192]: who looks alike has a like vector."""
    shape = {"kernel_shape": [SIDE // CELLS] * 2, "strides": [SIDE // CELLS] * 2}
    nodes = [
        Node("AveragePool", ["faces"], "cells", shape),
        Node("Flatten", ["cells"], "flat"),
        Node("Sub", ["flat", "mean"], "code"),
    ]
    mean = np.full(SIZE, 127.5) if mean_K is None else mean_K
    return onnx(nodes, {"mean": mean.astype(np.float32)[None]})


def field(number: int, value: Any) -> bytes:
    """A field of a message: an int, a text, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _node(node: Node) -> bytes:
    data = b"".join(field(1, name) for name in node.takes) + field(2, node.gives) + field(4, node.operator)
    for name, values in node.ints.items():
        data += field(5, field(1, name) + b"".join(field(8, value) for value in values) + field(20, _INTS))
    if node.graph:
        data += field(5, field(1, "body") + field(6, node.graph) + field(20, _GRAPH))
    return data + (field(7, node.domain) if node.domain else b"")


def _tensor(name: str, value: np.ndarray, elsewhere: str) -> bytes:
    data = b"".join(field(1, size) for size in value.shape) + field(2, _FLOAT) + field(8, name)
    if elsewhere:
        return data + field(13, field(1, "location") + field(2, elsewhere)) + field(14, 1)
    return data + field(9, value.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, _FLOAT) + field(2, sizes)))
