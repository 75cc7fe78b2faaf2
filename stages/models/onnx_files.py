"""Networks in ONNX: how one is run, and what one may hold: plain layers and their weights, and nothing else.

An ONNX file is a protocol buffer (onnx.proto3 of the ONNX project). Of its nodes those are let through that compute
from what they are given and end: no loops, no branches, no functions, no operators of other domains, and no weights
that lie in other files. Read with a walk over the fields, since neither `onnx` nor its schema is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from visavis.training.home import report_nothing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MODEL_GRAPH, _MODEL_MORE = 7, (20, 25)  # training, functions
_GRAPH_NODE, _GRAPH_WEIGHTS, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_MORE = (5, 10), (6, 11, 22, 23)  # graphs, sparse tensors
_TENSOR_ELSEWHERE = (13, 14)  # external_data, data_location
_MOST_NODES = 100_000

_OPERATORS = """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Constant Conv Div Dropout Elu Equal Erf Exp Flatten
    Gather Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Log LpNormalization MatMul Max MaxPool Min Mul Neg PRelu Pow Reciprocal ReduceL2
    ReduceMax ReduceMean ReduceSum Relu Reshape Shape Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh
    Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Operators that are let through: those of convolutional networks and vision transformers as they are exported."""


def onnx_session(data: bytes) -> InferenceSession:
    """A network on one core. Of a file that is not ours `check_onnx` comes first."""
    report_nothing()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check_onnx(data: bytes) -> None:
    """Refuse what is no ONNX network of plain layers.

    Raises:
        ValueError: says what is in it.
    """
    graphs = 0
    for field, value in _fields(memoryview(data)):
        if field in _MODEL_MORE:
            raise ValueError("holds functions or training of its own")
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_graph(_message(value))
    if graphs != 1:
        raise ValueError("is no ONNX network")


def _check_graph(graph: memoryview) -> None:
    nodes = 0
    for field, value in _fields(graph):
        if field == _GRAPH_NODE:
            nodes += 1
            _check_node(_message(value))
        elif field == _GRAPH_WEIGHTS:
            _check_tensor(_message(value))
        elif field == _GRAPH_SPARSE:
            raise ValueError("holds sparse weights")
    if not 0 < nodes <= _MOST_NODES:
        raise ValueError(f"has {nodes} layers, expected 1 to {_MOST_NODES}")


def _check_node(node: memoryview) -> None:
    operator = ""
    for field, value in _fields(node):
        if field == _NODE_OPERATOR:
            operator = _text(value)
        elif field == _NODE_DOMAIN and _text(value) not in ("", "ai.onnx"):
            raise ValueError(f"holds operators of the domain {_text(value)}")
        elif field == _NODE_ATTRIBUTE:
            for inner, part in _fields(_message(value)):
                if inner in _ATTRIBUTE_MORE:
                    raise ValueError(f"holds more than a layer in {operator or 'a node'}")
                if inner in _ATTRIBUTE_TENSORS:
                    _check_tensor(_message(part))
    if operator not in OPERATORS:
        raise ValueError(f"holds the operator {operator or 'without a name'}, which is not let through")


def _check_tensor(tensor: memoryview) -> None:
    if any(field in _TENSOR_ELSEWHERE and value not in (0, b"") for field, value in _fields(tensor)):
        raise ValueError("has weights in other files; save it as one file")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("is no ONNX network")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)[:64]).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message; a fixed number as its bytes."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("is no ONNX network")
        if at + size > end:
            raise ValueError("is cut short")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten bytes, seven bits each, the lowest first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("is no ONNX network")
