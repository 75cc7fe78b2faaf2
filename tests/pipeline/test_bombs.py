"""Lists that claim more than they are: refused in one line, before anything is allocated for it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.memory import peak_from_now
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.plan.sources import find_sources
from visavis.schemas.errors import UsageError

MOST_MB = 400  # of more memory than before


def _repeated(word: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([word]))


def _parquet(**columns: pa.Array) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pq.write_table(
            pa.table(columns), path, compression="zstd", store_schema=False, use_dictionary=list(_dictionaries(columns))
        )

    return write


def _dictionaries(columns: dict[str, pa.Array]) -> list[str]:
    return [name for name, column in columns.items() if pa.types.is_dictionary(column.type)]


def _packed(head: bytes, piece: bytes, times: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with gzip.open(path, "wb", 9) as file:
            file.write(head)
            for _ in range(times):
                file.write(piece)

    return write


def _text(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None  # type: ignore[func-returns-value]


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def _footer(*groups: bytes, schema: tuple[bytes, ...] = ()) -> Callable[[Path], None]:
    """A Parquet file that is nothing but a description, in Thrift's compact protocol."""

    def listed(items: tuple[bytes, ...]) -> bytes:
        return b"\xfc" + _varint(len(items)) + b"".join(items)

    root = b"\x48\x06schema\x15" + _varint(2 * max(1, len(schema))) + b"\0"
    schema = schema or (b"\x15\x0c\x25\x02\x18\x03uri\0",)
    data = b"\x15\x02\x19" + listed((root, *schema)) + b"\x16\x02\x19" + listed(groups) + b"\0"
    return _text(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")


def _group(chunks: int) -> bytes:
    return b"\x19\xfc" + _varint(chunks) + b"\x26\0\0" * chunks + b"\x16\0\x16\0\0"


NESTED = b"\x25\x02\x18\x01g\x15\x02\0"
BOMBS = {
    "one long word.parquet": _parquet(uri=_repeated("a" * 900_000, 100_000)),
    "many rows.parquet": _parquet(uri=_repeated("a", 3_000_000)),
    "three words.parquet": _parquet(**{name: _repeated("a" * 900, 400_000) for name in ("uri", "conversation")}),
    "a large page.parquet": lambda path: _parquet(uri=pa.array(["x" * 100_000_000]))(path),
    "wide.parquet": _parquet(**{f"c{n}": pa.array([1]) for n in range(10_001)}),
    "columns that are not there.parquet": _footer(_group(100)),
    "many chunks.parquet": _footer(*[_group(90_000)] * 14),
    "no columns.parquet": _footer(*[b"\x19\x0c\x16\0\x16\0\0"] * 50_000),
    "deep.parquet": _footer(schema=(NESTED,) * 50_000),
    "blank.csv.gz": _packed(b"uri\n", b"\n" * (1 << 20), 64),
    "one row.csv.gz": _packed(b"uri\n", b'"\n",' * (1 << 18), 32),
    "one line.jsonl.gz": _packed(b"", b" " * (1 << 20), 64),
    "rows.jsonl.gz": _packed(b"", b'{"uri":"a.mp4"}\n' * (1 << 16), 16),
    "the same row.csv": _text(b"uri,conversation,participant\n" + b"a,b,c\n" * 100_000),
    "deep.jsonl": _text(b'{"uri":' + b"[" * 900_000),
    "deep objects.jsonl": _text(b'{"uri":"a","x":' + b'{"a":' * 150_000 + b"1" + b"}" * 150_000 + b"}"),
    "infinite.jsonl": _text(b'{"uri":"a","participant":1e999}'),
    "long number.jsonl": _text(b'{"uri":"a","size":' + b"9" * 100_000 + b"}"),
    "columns.csv": _text(b"uri," + b",".join(b"c%d" % n for n in range(100_000))),
    "surrogate.csv": _text(b"\xff\xfeu\0r\0i\0\n\0\x00\xd8a\0"),
    "nul.csv": _text(b"uri\na\0b.mp4\n"),
    "broken.csv.gz": _text(b"\x1f\x8b\x08\x04\0\0\0\0\0\0" + b"\xff" * 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_list_that_claims_too_much_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    BOMBS[name](path)
    before = peak_from_now()
    with pytest.raises(UsageError) as error:
        find_sources([str(path)])
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000
    assert name in str(error.value) or "conversation" in str(error.value)
    assert peak_mb() - before < MOST_MB


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_good_parquet_reads_as_before_however_it_is_packed(tmp_path: Path, encoding: str | None, version: str) -> None:
    names = [f"/v/{n % 4_000:06}.mp4" for n in range(5_000)]
    table = pa.table({"uri": names, "participant": pa.array(["Al", None] * 2_500), "size": list(range(5_000))})
    how = {"use_dictionary": True} if encoding is None else {
        "use_dictionary": False, "column_encoding": {"uri": encoding, "participant": encoding}
    }  # fmt: skip
    pq.write_table(table, tmp_path / "l.parquet", data_page_version=version, row_group_size=2_000, **how)
    assert [source.uris[0] for source in find_sources([str(tmp_path / "l.parquet")])] == names
