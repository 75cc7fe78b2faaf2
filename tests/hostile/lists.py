"""Hostile lists of conversations, hostile rows in good lists, and hostile recipes."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.media import Elsewhere
from tests.scale import FEW, some


def write_lists(folder: Path, seed: int) -> list[Path]:
    """Lists whose form is the attack."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    found = []
    for name, data in some(chain(text_lists(rng), tables(rng)), FEW):  # one at a time: together they are 300 MB
        found.append(folder / name)
        found[-1].write_bytes(data)
    return found


def text_lists(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """JSON lines and CSV."""
    yield "deep.jsonl", b'{"uri": ' + b"[" * 100_000 + b"\n"
    yield "deep_object.jsonl", b'{"uri":' * 50_000 + b"1" + b"}" * 50_000
    yield "long.jsonl", b'{"uri": "' + b"a" * (64 << 20) + b'"}'
    yield "number.jsonl", b'{"uri": "a.mp4", "size": ' + b"9" * 50_000 + b"}"
    yield "infinite.jsonl", b'{"uri": "a.mp4", "size": 1e999}'
    yield "nan.jsonl", b'{"uri": "a.mp4", "conversation": NaN, "size": -Infinity}'
    yield "escape.jsonl", b'{"uri": "a\\u001b[2J.mp4", "conversation": "\\u202e", "participant": "\\u0007"}'
    yield "surrogate.jsonl", b'{"uri": "\\ud800.mp4"}'
    yield "keys.jsonl", json.dumps({f"k{i}": i for i in range(200_000)}).encode()
    yield "null.jsonl", b"null\n" * 10
    yield "nul.jsonl", b'{"uri": "a\\u0000.mp4"}'
    yield "bytes.jsonl", rng.bytes(200_000)
    yield "field.csv", b"uri\n" + b"a" * (20 << 20) + b"\n"
    yield "quote.csv", b'uri\n"' + b"a,\n" * 2_000_000
    yield "nul.csv", b"uri\na\0.mp4\n"
    yield "columns.csv", b",".join(b"c%d" % i for i in range(500_000)) + b"\n1\n"
    yield "wide.csv", b"uri\n" + b"," * 2_000_000 + b"\n"
    yield "twice.csv", b"uri,uri,uri\na,b,c\n"
    yield "carriage.csv", b"uri\r" * 100_000
    yield "utf16.csv", "uri\n\x1b[2J".encode("utf-16") + b"\x00"
    yield "bytes.csv", rng.bytes(200_000)
    yield "long_name.csv", b"uri\n" + b"/" + b"a" * 100_000 + b".mp4\n"
    yield "bomb.csv.gz", gzip.compress(b"uri\n" + bytes(300 << 20))
    yield "bomb.jsonl.gz", gzip.compress(b"[" * (300 << 20))
    yield "cut.csv.gz", gzip.compress(b"uri\n" + b"a.mp4\n" * 99)[:-9]
    yield "garbage.jsonl.gz", b"\x1f\x8b" + rng.bytes(900)


def tables(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Parquet."""

    def parquet(table: pa.Table, **options: object) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, **options)
        return buffer.getvalue()

    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array(["x" * 100_000]))
    yield "dictionary.parquet", parquet(pa.table({"uri": one}), compression="zstd")
    yield (
        "numbers.parquet",
        parquet(pa.table({"uri": pa.array(["a.mp4"] * 4), "size": pa.array([2**63 - 1, -1, 0, 1])})),
    )
    long = pa.table({"uri": pa.array(["a" * (100 << 20)])})
    yield "long.parquet", parquet(long, compression="zstd")
    nested: pa.DataType = pa.string()
    for _ in range(300):
        nested = pa.struct([("x", nested)])
    yield "nested.parquet", parquet(pa.table({"uri": pa.array(["a.mp4"]), "n": pa.array([None], nested)}))
    yield "lists.parquet", parquet(pa.table({"uri": pa.array([[["a.mp4"]]])}))
    yield "columns.parquet", parquet(pa.table({"uri": ["a.mp4"], **{f"c{i}": [i] for i in range(5000)}}))
    yield "names.parquet", parquet(pa.table({"uri": ["a.mp4"], "\x1b[2J\u202e": [1], "x" * 100_000: [1]}))
    yield "binary.parquet", parquet(pa.table({"uri": pa.array([b"\xff\xfe\x00"])}))
    whole = parquet(pa.table({"uri": [f"{i}.mp4" for i in range(2000)], "size": list(range(2000))}))
    yield "claim.parquet", whole[:-8] + b"\xff\xff\xff\x7f" + b"PAR1"
    for i in range(8):
        data = bytearray(whole)
        for _ in range(3):  # half of the damage where the sizes are, in the footer
            at = (
                int(rng.integers(len(data) - 600, len(data) - 8))
                if rng.random() < 0.5
                else int(rng.integers(4, len(data)))
            )
            data[at] = int(rng.integers(256))
        yield f"mutant_{i}.parquet", bytes(data)


def rows(elsewhere: Elsewhere) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows that lead where no row may."""
    file, url, host = elsewhere.file, f"{elsewhere.address}/stolen.mp4", elsewhere.host
    yield "reference", {"uri": f"reference://?fo={file}"}
    yield "reference_chain", {"uri": f"reference://x.mp4::{url}"}
    for protocol in (
        "simplecache",
        "filecache",
        "blockcache",
        "zip",
        "tar",
        "libarchive",
        "dir",
        "cached",
        "asyncwrapper",
    ):
        yield protocol, {"uri": f"{protocol}://x.mp4::{url}"}
        yield f"{protocol}_file", {"uri": f"{protocol}://x.mp4::file://{file}"}
    for protocol in (
        "ftp",
        "sftp",
        "ssh",
        "smb",
        "webhdfs",
        "hdfs",
        "github",
        "gitlab",
        "hf",
        "jupyter",
        "jlab",
        "dask",
        "git",
        "dbfs",
    ):
        yield protocol, {"uri": f"{protocol}://{host}/stolen.mp4"}
    yield "memory", {"uri": "memory://x.mp4"}
    yield "data", {"uri": "data:video/mp4;base64,AAAA"}
    yield "data_slashes", {"uri": "data://video/mp4;base64,AAAA"}
    yield "unknown", {"uri": "gopher://x/y.mp4"}
    yield "module", {"uri": "os.system://x"}
    yield "upper", {"uri": f"REFERENCE://?fo={file}"}
    yield "pipe", {"uri": "pipe:0"}
    yield "lavfi", {"uri": "lavfi:testsrc"}
    yield "concat", {"uri": f"concat:{file}|{file}"}
    yield "rtsp", {"uri": f"rtsp://{host}/x"}
    yield "dash", {"uri": "-i"}
    yield "seamless", {"uri": f"gopher://{host}/V00_S0809_I00000582_P0947.mp4"}


def write_row(folder: Path, name: str, row: dict[str, str]) -> Path:
    """A list of one row."""
    path = folder / f"row_{name}.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def recipes() -> Iterator[tuple[str, str]]:
    """YAML that is an attack."""
    layers = "\n".join(f"l{i + 1}: &l{i + 1} [{', '.join([f'*l{i}'] * 10)}]" for i in range(9))
    yield "laughs", f"l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n{layers}\n"
    yield "deep", "ingest: " + "[" * 5000
    yield "deep_block", "".join(f"{' ' * i}a:\n" for i in range(3000))
    yield "python", "ingest: !!python/object/apply:os.system ['true']\n"
    yield "number", "ingest: {min_duration: " + "9" * 20_000 + "}\n"
    yield "hexadecimal", "ingest: {min_duration: 0x" + "f" * 20_000 + "}\n"
    yield "merge", "a: &a {<<: *a}\n"
    yield "control", 'ingest: {"\\e[2J": 1}\n'
    yield "size", "windows: {length: 99999999999999999999}\n"
    yield "tabs", "\t\t\t:\n"
    yield "long", "# " + "x" * (3 << 20) + "\n" + "ingest: {min_duration: 3}\n" * 20_000
