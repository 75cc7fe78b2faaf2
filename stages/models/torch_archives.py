"""What lies in an archive of torch.export or TorchScript, looked at before torch does.

torch.export's loader evaluates texts of its JSON as Python (sizes as sympy expressions, also inside the names of their
symbols; guards) and looks functions up by any dotted path below `torch`. Sizes and function names are few in a network
of pictures, so what is not among them is refused here. TorchScript has a language of its own, and is not looked into.
"""

from __future__ import annotations

import ast
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from visavis.schemas.plain import read_strict
from visavis.schemas.untrusted import bounded

_MOST_PARTS = 100_000
_MOST_JSON = 64 << 20
_SPARE = 16 << 20  # bytes that parts may have beyond the archive's own size: they are stored, not compressed
_LONGEST_SIZE = 10_000  # characters
_LARGEST_POWER = 8
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,9}")
_FUNCTION = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.((?!__)\w+|__i?(and|or|xor)__)(\.(?!__)\w+)?|torch\.sym_[a-z_]+|math\.[a-z0-9]+"
    r"|_operator\.(?!attrgetter|methodcaller|call)[a-z]+"
)
_SIZES = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "Abs", "Pow"),
    *("FloorDiv", "CeilDiv", "CleanDiv", "PythonMod", "ModularIndexing", "CeilToInt", "FloorToInt", "IntTrueDiv"),
    *("TruncToInt", "RoundToInt", "ToFloat", "Identity", "Where"),
    *("Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "And", "Or", "Not"),
}
_NODES = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub)


def kind_of(data: bytes) -> Literal["export", "script"]:
    """Which of the two an archive is.

    Raises:
        ValueError: neither, a bomb, or something that runs outside of torch.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = _parts(archive, len(data))
            if any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names):
                return "script"
            if any(name.endswith("serialized_exported_program.json") or "/models/" in name for name in names):
                _check_export(archive)
                return "export"
    except RecursionError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:  # the last: encrypted
        raise ValueError("is neither a torch.export (.pt2) nor a TorchScript archive") from error
    raise ValueError("is neither a torch.export (.pt2) nor a TorchScript archive (a state_dict alone is no network)")


def _parts(archive: zipfile.ZipFile, size: int) -> list[str]:
    parts = archive.infolist()
    bounded(len(parts), _MOST_PARTS, "parts of an archive")
    bounded(sum(part.file_size for part in parts), size + _SPARE, "bytes of an archive's parts")
    names = [part.filename for part in parts]
    if len(set(names)) < len(names):
        raise ValueError("has two parts of one name")
    if any(name.endswith((".so", ".dll", ".dylib")) or "/aotinductor/" in name for name in names):
        raise ValueError("holds compiled native code; save it with torch.export.save alone")
    return names


def _check_export(archive: zipfile.ZipFile) -> None:
    if any("custom_obj" in name for name in archive.namelist()):
        raise ValueError("holds objects of native classes; a network of tensors needs none")
    for part in archive.infolist():
        if part.filename.endswith(".json"):
            bounded(part.file_size, _MOST_JSON, "bytes of JSON")
            for key, value in _entries(read_strict(archive.read(part))):
                _check_entry(key, value)


def _entries(data: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    waiting = [data]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _check_entry(key: str, value: Any) -> None:
    if key == "expr_str":
        _check_size(str(value))
    elif key == "guards_code" and value:
        raise ValueError("holds guards in Python, which are not run; export it without dynamic shapes")
    elif key in ("range_constraints", "symbol_name_to_range") and not all(map(_SYMBOL.fullmatch, value or ())):
        raise ValueError("names a size by something else than a symbol")
    elif key in ("target", "as_operator") and _names_a_function(str(value)) and not _FUNCTION.fullmatch(str(value)):
        raise ValueError(f"calls {str(value)[:80]}, which is no operation on tensors")


def _names_a_function(target: str) -> bool:
    """Whether torch would look it up; other targets are names of inputs and weights."""
    return target.startswith(("torch", "math", "_operator", "#"))


def _check_size(text: str) -> None:
    """A size as sympy prints it: calls of a few functions on numbers and symbols, and nothing else of Python."""
    bounded(len(text), _LONGEST_SIZE, "characters of a size")
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"has a size that is no expression: {text[:80]}") from error
    if not all(isinstance(node, _NODES) and _is_plain(node) for node in nodes):
        raise ValueError(f"has a size that is more than arithmetic: {text[:80]}")
    if sum(isinstance(node, ast.Name) and node.id == "Pow" for node in nodes) > _LARGEST_POWER:
        raise ValueError("has a size with too many powers")


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        power = isinstance(node.func, ast.Name) and node.func.id == "Pow"
        return isinstance(node.func, ast.Name) and (not power or _is_small(node.args[-1:]))
    if isinstance(node, ast.Name):
        return node.id in _SIZES
    if isinstance(node, ast.keyword):
        return node.arg in ("positive", "integer", "nonnegative", "real", "evaluate", "precision")
    if isinstance(node, ast.Constant):
        return type(node.value) in (bool, int, float) or _is_symbol(node.value)
    return True


def _is_symbol(value: Any) -> bool:
    """A symbol's name, or a float's digits. (sympy evaluates the name of a symbol again.)"""
    return isinstance(value, str) and bool(_SYMBOL.fullmatch(value) or re.fullmatch(r"-?[\d.e+-]{1,40}", value))


def _is_small(exponent: list[ast.expr]) -> bool:
    """An exponent: `Integer(2)`."""
    numbers = [node.value for each in exponent for node in ast.walk(each) if isinstance(node, ast.Constant)]
    return len(numbers) == 1 and isinstance(numbers[0], int) and numbers[0] <= _LARGEST_POWER


@contextmanager
def tensors_only() -> Iterator[None]:
    """Nothing but tensors and plain containers is unpickled inside the block, whatever torch's callers ask for."""
    other = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    before = {name: os.environ.get(name) for name in other}
    try:
        _set(other)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
