"""What was planted in addresses and in the environment is used, and turns up nowhere: in no file, line or log."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.webserver import Behaviour, Host, web
from visavis.pipeline.app import main
from visavis.pipeline.engine.run import fingerprint
from visavis.pipeline.engine.terminal import Terminal
from visavis.pipeline.engine.worker import outcome_of
from visavis.pipeline.plan.run_folder import difference
from visavis.pipeline.plan.sources import find_sources, source_key, source_name
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import BuildConfig, MotionConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.plain import to_json
from visavis.schemas.recipes import parse_config
from visavis.schemas.rows import Source
from visavis.schemas.secrets import hidden, written
from visavis.schemas.storage.files import locate
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line
from visavis.schemas.uris import is_shortened, printable, shown, unsigned
from visavis.stages.motion import FitStage

HERE = Path(__file__).parents[2]
USER, PASSWORD, SIGNATURE, NUMBER, FRAGMENT = "usrplanted1", "pwdplanted2", "sigplanted3", "numplanted4", "frgplanted5"
ENVIRONMENT = {
    "HF_TOKEN": "hf_planted6abcdef",
    "AWS_SECRET_ACCESS_KEY": "awsplanted7/+abcdef",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountKey=azplanted8==",
    "SOME_PASSWORD": "envplanted9",
    "HTTPS_PROXY_OF_OURS": "http://prxuser:prxplanted0@proxy:3128",
}
WORDS = [USER, PASSWORD, SIGNATURE, NUMBER, FRAGMENT, *(f"planted{n}" for n in (6, 7, 8, 9, 0))]


def with_keys(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{USER}:{PASSWORD}@{rest}?id={NUMBER}&sig={SIGNATURE}#{FRAGMENT}"


@pytest.mark.parametrize(
    ("url", "name", "identity"),
    [
        ("https://me:pw@h/v.mp4?sig=a&x", "https://…@h/v.mp4?sig=…&x", "https://h/v.mp4?x"),
        ("https://h/v.mp4?id=1&token=2#t", "https://h/v.mp4?id=…&token=…#…", "https://h/v.mp4?id=1#t"),
        ("https://me:p/a?s#s@h/v.mp4", "https://…@h/v.mp4", "https://h/v.mp4"),
        ("https://b/k?X-Amz-Signature=a&X-Amz-Date=b", "https://b/k?X-Amz-Signature=…&X-Amz-Date=…", "https://b/k"),
        ("https://b/k?sv=1&se=2&sig=3&n=4", "https://b/k?sv=…&se=…&sig=…&n=…", "https://b/k?n=4"),
        ("https://b/k?sv=1&se=2", "https://b/k?sv=…&se=…", "https://b/k?sv=1&se=2"),
        ("zip://a.mp4::https://me:pw@h/z?sig=1", "zip://a.mp4::https://…@h/z?sig=…", "zip://a.mp4::https://h/z"),
        ("abfs://container@account/v.mp4", "abfs://container@account/v.mp4", "abfs://container@account/v.mp4"),
        ("https://h/v?", "https://h/v?", "https://h/v?"),
        ("s3://bucket/a@b/c.mp4", "s3://bucket/a@b/c.mp4", "s3://bucket/a@b/c.mp4"),
        ("https://[::1]:80/v", "https://[::1]:80/v", "https://[::1]:80/v"),
        ("/data/a?b=c@d#e", "/data/a?b=c@d#e", "/data/a?b=c@d#e"),
    ],
)
def test_an_address_is_shown_without_keys_and_known_without_signatures(url: str, name: str, identity: str) -> None:
    assert (shown(url), unsigned(url)) == (name, identity)
    assert shown(name) == name
    assert is_shortened(name) == (name != url)


word = st.text("abcxyz0189-_.~%!$*()é", min_size=8, max_size=12)


@given(word, st.text("abc019-:/?#&='\"<{é", min_size=4, max_size=12).map(lambda w: f"Q{w}Q"), word, word)
def test_no_part_of_a_key_is_shown_whatever_is_in_it(user: str, password: str, value: str, fragment: str) -> None:
    url = f"https://{user}:{password}@host.example/v.mp4?sig={value}#{fragment}"
    for text in (shown(url), hidden(f"cannot open {url!r}: refused; {password} {value}", [url])):
        assert password not in text
        assert value not in text
        assert user not in text
        assert fragment not in text


def test_what_libraries_leave_of_an_address_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hidden("GET /v.mp4?sig=abc&x=2 of bob:secret@host failed") == "GET /v.mp4?sig=…&x=… of …@host failed"
    assert hidden("at 12:30 a@b.c said [1:2], x=3") == "at 12:30 a@b.c said [1:2], x=3"
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    text = hidden("; ".join(f"{value} is wrong" for value in ENVIRONMENT.values()))
    assert not any(word in text for word in WORDS)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", __file__)
    assert hidden(__file__) == __file__  # where a credential lies is none


def test_a_list_that_was_signed_anew_is_the_same_list() -> None:
    def key(*uris: str) -> str:
        return source_key(Source(uris=uris, stamps=("1:2",) * len(uris)))

    assert key(with_keys("https://h/v.mp4")) == key(f"https://h/v.mp4?id={NUMBER}&sig=other#{FRAGMENT}")
    assert key("https://h/v.mp4?id=1") != key("https://h/v.mp4?id=2")
    assert key("https://h/v.mp4?id=1&Expires=5&Signature=x") == key("https://h/v.mp4?id=1")
    # Keys of the program before it knew of signatures.
    assert source_key(Source(uris=("https://h/v.mp4?id=1",), stamps=("",))) == "7262266cc17b87e2"
    assert source_key(Source(uris=("/data/v.mp4",), stamps=("5:6",))) == "84756060589d5aa3"


def test_a_message_that_is_cut_does_not_cut_through_a_key(tmp_path: Path) -> None:
    long = f"https://{USER}:{PASSWORD}{'x' * 400}@host/v.mp4"
    assert PASSWORD not in first_line(OSError(f"cannot open {long}"))
    (tmp_path / "list.csv").write_text(f"uri,conversation,participant,size\n/a.mp4,,,{long}\n")
    (tmp_path / "list.jsonl").write_text(f"{long}\n")
    for name in ("list.csv", "list.jsonl"):
        with pytest.raises(UsageError) as refused:
            find_sources([str(tmp_path / name)])
        assert USER not in str(refused.value)
    with pytest.raises(UsageError) as refused:
        parse_config("{}", BuildConfig, [f"faces.decoder={long}"], where="test")
    assert PASSWORD not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        Source.model_validate({"uris": long})
    assert USER not in str(invalid.value)


def test_two_files_of_one_shown_name_are_told_apart() -> None:
    one, other = (Source(uris=(f"https://h/v.mp4?id={n}",)) for n in (1, 2))
    assert source_name(one) == f"v.mp4?id=… ({source_key(one)[:8]})"
    assert source_name(one) != source_name(other)
    assert source_name(Source(uris=("https://me:pw@h/v.mp4?sig=1",))) == "v.mp4?sig=…"


def test_a_dyad_whose_file_is_listed_twice_with_two_signatures_is_one_dyad(tmp_path: Path) -> None:
    rows = [("a", "a.mp4?sig=1"), ("a", "a.mp4?sig=2"), ("b", "b.mp4?sig=3"), ("b", "b.mp4?sig=4")]
    lines = [f"http://127.0.0.1:1/{uri},c,{who}" for who, uri in rows]
    (tmp_path / "list.csv").write_text("\n".join(["uri,conversation,participant", *lines]))
    (first, *_) = find_sources([str(tmp_path / "list.csv")])
    assert [shown(uri).rpartition("/")[2] for uri in first.uris] == ["a.mp4?sig=…", "b.mp4?sig=…"]


def test_a_changed_password_is_no_changed_setting_and_a_changed_path_is(tmp_path: Path) -> None:
    def settings(codec: str) -> dict[str, object]:
        return {"config": {"motion": {"codec": codec}}}

    def print_of(codec: str) -> str:
        return fingerprint(FitStage, MotionConfig(codec=codec))

    store, address = Store(str(tmp_path)), with_keys("https://h/c.safetensors")
    store.write("run.json", to_json(written(settings(address))).encode())
    assert not any(word in (tmp_path / "run.json").read_text() for word in WORDS)
    again = address.replace(PASSWORD, "other").replace(SIGNATURE, "another")
    assert difference(store, settings(again)) == ""
    assert print_of(again) == print_of(address)
    for changed in (address.replace("c.saf", "d.saf"), address.replace(NUMBER, "5")):
        assert difference(store, settings(changed)).startswith("motion.codec=")
        assert print_of(changed) != print_of(address)
    plain = settings("https://h/c?id=1")  # as an earlier version wrote it
    store.write("run.json", to_json(plain).encode())
    assert difference(store, plain) == ""


def test_what_is_kept_without_keys_is_never_opened() -> None:
    with pytest.raises(UsageError, match="name the whole address"):
        locate(shown(with_keys("https://h/v.mp4")))


@pytest.mark.parametrize(
    "name", ["\x1b]0;owned\x07.mp4", "a\x9b2J.mp4", "\u202egpm.mp4", "a\u200bb\u2066.mp4", "\x08a"]
)
def test_names_of_strangers_are_only_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(name).isascii()
    assert printable(name).isprintable()
    task = Task("ingest", "k", name, "p", "f", inline={"uris": ["/x"]})
    outcome = outcome_of(task, "failed", name, f"{name}\nline", seconds=0.0, peak_mb=0.0, attempt=1)
    assert all(text.replace("\n", "").isprintable() for text in (outcome.item, outcome.reason, outcome.detail))
    Terminal().print(f"[bold]{name}[/bold] [link=https://evil]x[/link] :smile:")
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert "[bold]" in said
    assert "[/bold] [link=https://evil]x[/link] :smile:" in said


def test_tracebacks_warnings_and_logs_of_a_process_show_no_key() -> None:
    code = f"""
import logging, sys, warnings, os
from visavis.schemas.secrets import guard_output
url = {with_keys("https://h/v.mp4")!r}
guard_output(["--set", "encode.network=" + url])
print(url, file=sys.stdout); print(repr(url), os.environ["HF_TOKEN"], file=sys.stderr)
warnings.warn("cannot read " + url)
logging.warning("%s and %s", url, "\\x1b[31m")
try:
    raise ValueError("password {PASSWORD}")
except ValueError:
    logging.exception("it failed")
logging.warning("%d", "no number")
raise RuntimeError("ClientResponseError, url='" + url + "', \\x1b[2J " + os.environ["AWS_SECRET_ACCESS_KEY"])
"""
    run = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=HERE, capture_output=True, text=True)
    said = run.stdout + run.stderr
    assert run.returncode == 1
    assert run.stdout == "https://…@h/v.mp4?id=…&sig=…#…\n"
    assert said.count("https://…@h/v.mp4?id=…&sig=…#…") == 5
    assert "RuntimeError" in said
    assert "it failed" in said
    assert not [word for word in WORDS if word in said]
    assert "\x1b" not in said


def environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(HERE)}


Command = Callable[..., str]


@pytest.fixture
def visavis(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process and gives all that it printed."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(HERE)

    def run(*words: str, code: int | None = 0) -> str:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["visavis", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        said = "".join(capfd.readouterr())
        assert code is None or ended.value.code == code, said
        return said

    return run


def leaks(folder: Path) -> Iterator[str]:
    """Files below a folder in which a planted word is found, also where they are packed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.suffix == ".parquet":
            data += str(pq.read_table(path).to_pylist()).encode()
        yield from (f"{path}: {word}" for word in WORDS if word.encode() in data)


def serve(host: Host, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            host.files[f"/{folder.name}/{path.relative_to(folder)}"] = path.read_bytes()


NAMES = ("user.mp4", "avatar.mp4", "broken.mp4", "forbidden.mp4", "absent.mp4")


def listed(host: Host, media: Path, folder: Path, *rows: str) -> tuple[str, dict[str, str]]:
    """A list of these files, two of them a dyad, behind keys that the server wants; and their addresses."""
    urls = {name: with_keys(f"{host.address}/{name}") for name in NAMES}
    asked = {name: f"/{url.partition('#')[0].rpartition('/')[2]}" for name, url in urls.items()}
    host.files[asked["user.mp4"]] = (media / "pair_user.mp4").read_bytes()
    host.files[asked["avatar.mp4"]] = (media / "pair_avatar.mp4").read_bytes()
    host.files[asked["broken.mp4"]] = b"\0\0\0\x20ftypisom" + bytes(5000)
    host.behaviour[asked["forbidden.mp4"]] = Behaviour(status=403)
    lines = [f"{urls[name.split(',')[0]]}{name.removeprefix(name.split(',')[0])}" for name in rows]
    (folder / "list.csv").write_text("\n".join(["uri,conversation,participant", *lines]))
    return str(folder / "list.csv"), urls


BAD = ("broken.mp4,,", "forbidden.mp4,,", "absent.mp4,,")


@pytest.mark.nightly("Ray's own logs; what we write is below")
def test_planted_words_are_in_no_log_of_ray(tmp_path: Path, shared_media: Path) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, web() as host:  # short, for Ray's sockets
        rows, urls = listed(host, shared_media / "conversation", tmp_path, "user.mp4,,", *BAD)
        command = [sys.executable, "-m", "visavis", "build", "configs/default.yaml", rows, urls["broken.mp4"]]
        command += ["--out", str(tmp_path / "out")]
        env = environment() | {"RAY_TMPDIR": folder}
        run = subprocess.run(command, env=env, cwd=HERE, capture_output=True, text=True)
        said = run.stdout + run.stderr
        assert "all with storage" in said
        assert "the server answers 403 Forbidden" in said
        assert [*Path(folder).rglob("worker-*.err")]
        assert not [*leaks(Path(folder))]
    assert not [word for word in WORDS if word in said]
    assert not [*leaks(tmp_path / "out")]


@pytest.mark.slow
def test_planted_words_are_found_nowhere(tmp_path: Path, shared_media: Path, visavis: Command) -> None:
    out, made = tmp_path / "out", tmp_path / "made"
    made.mkdir()
    with web() as host:
        dyad = ("user.mp4,talk,a", "avatar.mp4,talk,b")
        rows, urls = listed(host, shared_media / "conversation", tmp_path, *dyad, *BAD)
        build = ("build", "configs/default.yaml", rows, "--out", str(out), "--engine", "local")
        build += ("--set", "run.max_failure_share=1")
        said = visavis(*build)
        assert "1 kept" in said
        said += the_other_commands(visavis, host, urls, build, out, made)
    assert not [word for word in WORDS if word in said]
    assert not [*leaks(out), *leaks(made)]


def the_other_commands(
    visavis: Command, host: Host, urls: dict[str, str], build: tuple[str, ...], out: Path, made: Path
) -> str:
    """Each of them once, with addresses that have keys wherever they take one."""
    said = visavis("status", str(out)) + visavis("status", str(out), "--json") + visavis(*build, "--dry-run", "--json")
    said += visavis(*build, "--only", "bind", "--item", "") + visavis(*build, "--dry-run")
    picture = ("draw", str(out), "", "--out", str(made / "sheet.png"))
    refused = visavis(*picture, code=2)
    assert "name the whole address with --media" in refused
    said += refused + visavis(*picture, "--media", urls["user.mp4"], "--media", urls["avatar.mp4"])
    said += visavis("report", str(out)) + visavis("export", str(out), "--out", str(made / "w.parquet"))
    codec = next((out / "dataset").glob("codec*.safetensors"))
    place = with_keys(f"{host.address}/codec.safetensors")
    host.files[place.partition("#")[0].partition(host.address.removeprefix("http://"))[2]] = codec.read_bytes()
    for setting in ("encode.network", "separate.weights", "faces.landmarker"):
        wanted = {
            "encode.network": "motion.kind=network",
            "separate.weights": "separate.backend=convtasnet",
            "faces.landmarker": "faces.model=face-landmarker",
        }[setting]
        said += visavis(*build, "--set", f"{setting}={place}", "--set", wanted, "--reconfigure", code=2)
    serve(host, out / "dataset")
    dataset = f"http://{USER}:{PASSWORD}@{host.address.removeprefix('http://')}/dataset"
    train = ("train", "configs/train/tiny.yaml", dataset, "--out", str(made / "train"), "--set", "optim.steps=2")
    said += visavis(*train) + visavis("verify", dataset, code=None)
    weights = ("--set", "features.kind=wav2vec2", "--set", f"features.weights={place}")
    return said + visavis(*train[:3], "--out", str(made / "other"), *weights, code=2)
