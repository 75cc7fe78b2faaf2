"""Recipes are typed data, and what is wrong with one is said in a line."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.recipes import CoreLoader, load_config, parse_config
from visavis.schemas.train import TrainConfig
from visavis.training.features import audio_spec

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_default_recipe_states_the_defaults() -> None:
    assert load_config(CONFIGS / "default.yaml", BuildConfig) == BuildConfig()
    assert load_config(CONFIGS / "train" / "paper.yaml", TrainConfig).model == TrainConfig().model


def test_wav2vec2_waits_no_longer_than_the_paper_does() -> None:
    paper, encoded = (load_config(CONFIGS / "train" / f"{name}.yaml", TrainConfig) for name in ("paper", "wav2vec2"))
    waits = [audio_spec(config.features, config.model).stream_wait_ms for config in (paper, encoded)]
    assert waits == [480, 480]
    assert (encoded.features.kind, encoded.optim.precision) == ("wav2vec2", paper.optim.precision)


@pytest.mark.parametrize("name", ["default.yaml", "demo.yaml", "cluster.yaml"])
def test_every_recipe_loads(name: str) -> None:
    load_config(CONFIGS / name, BuildConfig)


def test_overrides_are_yaml_values() -> None:
    config = parse_config("windows: {hop: 10}", BuildConfig, ["windows.length=100", "balance.mixture={listening: 1}"])
    assert (config.windows.length, config.windows.hop) == (100, 10)
    assert config.balance.mixture == {WindowClass.LISTENING: 1.0}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("windows: {lenght: 50}", [], r"windows\.lenght: unknown key"),
        ("windows: {length: fifty}", [], r"windows\.length: .*valid integer"),
        ("windows: [50]", [], r"windows: "),
        ("- a", [], "must be a mapping"),
        ("a: [", [], "not valid YAML"),
        ("", ["windows.length"], "wants section.key=value"),
        ("", ["windows.length.x=1", "windows.length=2"], r"windows\.length"),
        ("windows: 3", ["windows.length=50"], "windows is not a section"),
        ("balance: {mixture: {speaking: -1}}", [], "mixture needs shares"),
        ("x: !!python/object/apply:os.system [ls]", [], "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_config(text, BuildConfig, overrides)
    assert "\n" not in str(error.value)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        BuildConfig().windows.length = 3  # type: ignore[misc]


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read config"):
        load_config(tmp_path / "absent.yaml", BuildConfig)


# YAML 1.2


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"), ("off", "off"), ("yes", "yes"), ("1:30", "1:30"), ("2026-01-02", "2026-01-02"), ("~x", "~x"),
        ("1_000", "1_000"), ("0b11", "0b11"), ("010", 10), ("0o10", 8), ("0x10", 16), ("1e3", 1000.0), ("1e-3", 0.001),
        ("true", True), ("null", None), ("~", None), ("", None), (".5", 0.5), ("+3", 3), ("\"3\"", "3"), ("'no'", "no"),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)  # fmt: skip
def test_words_mean_what_yaml_1_2_says(word: str, value: Any) -> None:
    given = {"model": value, "language": "en"}
    try:
        expected: Any = BuildConfig.model_validate({"transcribe": given})
    except ValidationError:
        expected = None
    for text, overrides in (
        (f"transcribe:\n  language: en\n  model: {word}\n", []),
        ("transcribe: {language: en}", [f"transcribe.model={word}"]),
    ):
        try:
            config = parse_config(text, BuildConfig, overrides)
        except UsageError:
            config = None
        assert config == expected


def test_numbers_and_languages_of_overrides() -> None:
    config = parse_config("", TrainConfig, ["optim.lr=1e-3", "seed=010"])
    assert (config.optim.lr, config.seed) == (0.001, 10)
    assert parse_config("transcribe: {language: no}", BuildConfig).transcribe.language == "no"
    assert parse_config("", BuildConfig, ["transcribe.language=no"]).transcribe.language == "no"
    assert parse_config("transcribe: {language: en}", BuildConfig, ["transcribe.language="]).transcribe.language is None
    assert parse_config("", BuildConfig, ["transcribe.alignment={no: x}"]).transcribe.alignment == {"no": "x"}


def test_sections_of_comments_only_have_their_defaults() -> None:
    text = "quality:\n  # min_face: 3\nrun:\n  resources:\n    # faces: {cpus: 3}\n"
    assert parse_config(text, BuildConfig) == BuildConfig()
    assert parse_config("# nothing", BuildConfig) == BuildConfig()


def test_a_section_may_be_named_and_used_again() -> None:
    text = "run:\n  resources:\n    faces: &large {cpus: 3}\n    encode: *large\n"
    config = parse_config(text, BuildConfig, ["run.resources.faces.cpus=5"])
    assert [config.run.resources[name].cpus for name in ("faces", "encode")] == [5, 3]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_a_recipe(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.yaml").write_bytes("transcribe: {model: größe}\r\n".encode(encoding))
    assert load_config(tmp_path / "r.yaml", BuildConfig).transcribe.model == "größe"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(n + 1)}: &{chr(n + 1)} [{', '.join([f'*{chr(n)}'] * 9)}]\n" for n in range(97, 105)
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quality: {}\nbind: {}\nquality: {}\n", "line 3, column 1: 'quality' comes twice, first in line 1"),
        ("quality:\n  min_face: 3\n  min_face: 4\n", "line 3, column 3: 'min_face' comes twice, first in line 2"),
        ("quality: &a {}\nbind:\n  <<: *a\n", "line 3, column 3: merge keys"),
        ("quality:\n  min_face: .nan\n", "r.yaml, line 2: quality.min_face: Input should be a finite number"),
        ("quality: {min_face: .inf}", "finite number"),
        ("quality: {min_face: 1e999}", "finite number"),
        ("quality: {min_face: true}", "min_face is true, which is no value for it"),
        ("quality: {min_face: yes}", "valid number, unable to parse string as a number, got 'yes'"),
        ("quality: {min_face: }", "an empty value is none, which this setting cannot be"),
        ("windows: {hop: 1:30}", "valid integer"),
        ("windows: {hop: 2.5}", "valid integer"),
        ("x: !!timestamp 2026-99-99", "the tag !!timestamp is not read"),
        ("x: !!int many", "'many' is no int"),
        ("x: !!bool many", "'many' is no bool"),
        ("x: !!set {a}", "the tag !!set is not read"),
        ("x: !own 3", "the tag !own is not read"),
        ("x: " + "9" * 5000, "is no int"),
        ("x: 0x" + "9" * 5000, "is no int"),
        ("%YAML 1." + "9" * 5000, "is not valid YAML"),
        ("x: &x [*x]", "an alias inside of what it stands for"),
        ("[a]: 3", "a key is one word"),
        ("1: 3", "1: unknown key"),
        ("---\na: 1\n---\nb: 1", "line 3, column 1: but found another document"),
        ("quality:\n\tmin_face: 3", "line 2, column 1"),
        ("x: \"\\ud800\"", "half a character"),
        ("[" * 9999, "nested too deep"),
        (BOMB, "more than 20000 entries"),
    ],
)  # fmt: skip
def test_what_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_config(text, BuildConfig, where="r.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("r.yaml")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("qualty.min_face=3", "--set qualty.min_face: qualty: unknown key; did you mean quality?"),
        ("quality.min_fase=3", "--set quality.min_fase: quality.min_fase: unknown key; did you mean quality.min_face?"),
        ("min_face=3", "--set min_face: min_face: unknown key; did you mean quality.min_face?"),
        ("run.resources.faces.cpu=3", "did you mean run.resources.faces.cpus?"),
        ("quality.min_face=", "--set quality.min_face: quality.min_face: "),
        ("quality.min_face=.inf", "finite number"),
        ("quality.min_face=true", "--set quality.min_face: quality: min_face is true"),
        ("motion.kind=blendshapes", "--set motion.kind: "),
        ("faces.landmarker=#1/x.task", "has a comment in it; quote the value"),
        ("faces.landmarker=run #1/x.task", "has a comment in it; quote the value"),
        ("quality.min_face={a: 1, a: 2}", "'a' comes twice"),
        ("quality..min_face=3", "wants section.key=value"),
        ("quality.min_face=[", "is not valid YAML"),
    ],
)
def test_an_override_is_blamed_for_what_it_says(override: str, message: str) -> None:
    text = "quality: {min_face: 3}" if "motion" not in override else ""
    with pytest.raises(UsageError) as error:
        parse_config(text, BuildConfig, [override], where="r.yaml")
    assert str(error.value).startswith("--set ")
    assert message in str(error.value)
    assert str(error.value).isprintable()


def test_an_empty_override_of_a_path_with_a_hash_is_quoted() -> None:
    assert parse_config("", BuildConfig, ["faces.landmarker='run #1/x.task'"]).faces.landmarker == "run #1/x.task"
    assert parse_config("", BuildConfig, ["faces.landmarker=a#b"]).faces.landmarker == "a#b"


@pytest.mark.parametrize("suffix", [".mp4", ".jsonl", ".yaml"])
@pytest.mark.parametrize(
    "content", [b"\0\0\0\x20ftypisom", b"\xff\xfb\x90", codecs.BOM_UTF16_LE + b"\0", b" " * 300_000]
)
def test_something_else_where_the_recipe_belongs(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"talk{suffix}"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is no recipe, which comes first, for example configs"):
        load_config(file, BuildConfig)
    with pytest.raises(UsageError, match="the recipe comes first"):
        load_config(tmp_path, BuildConfig)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("ingest: {}", TrainConfig, "r.yaml is a recipe for `visavis build`, not for `visavis train`"),
        ("optim: {}", BuildConfig, "r.yaml is a recipe for `visavis train`, not for `visavis build`"),
        ("gate: {}", BuildConfig, "r.yaml is a recipe for `visavis pairs`, not for `visavis build`"),
        ("model: {}", PairsConfig, "r.yaml is a recipe for `visavis train`, not for `visavis pairs`"),
        ("ingest: {}\nmodel: {}", TrainConfig, "r.yaml, line 1: ingest: unknown key"),
    ],
)
def test_a_recipe_for_another_command(text: str, kind: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_config(text, kind, where="r.yaml")
    assert str(error.value).startswith(message)


# Anything at all

_WORDS = st.sampled_from(
    [
        "quality",
        "min_face",
        "run",
        "resources",
        ": ",
        ":",
        "\n",
        "\n  ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "<<",
        "no",
    ]
    + [
        "010",
        "1:30",
        "1e3",
        ".nan",
        "!!python/name:os.system ",
        "!!float ",
        "!!bool ",
        "- ",
        "# ",
        "'",
        '"',
        "\\ud800",
        "|",
        ">",
    ]
    + ["---", "...", "%YAML 1.1", "\t", "\ufeff", "\x00", "\u2028", "? ", "~", "0x", "0o8", "9" * 5000]
)
_TEXT = st.lists(_WORDS, max_size=20).map("".join) | st.text(max_size=60)


@given(text=_TEXT, override=_TEXT)
def test_any_text_is_a_recipe_or_wrong_use(text: str, override: str) -> None:
    for recipe, overrides in ((text, []), ("", [f"quality.min_face={override}"]), (text, [override])):
        try:
            config = parse_config(recipe, BuildConfig, overrides, where="r.yaml")
        except UsageError:
            continue
        assert isinstance(config, BuildConfig)


@given(data=st.binary(max_size=60) | _TEXT.map(lambda text: text.encode("utf-16", "surrogatepass")))
def test_any_bytes_are_a_recipe_or_wrong_use(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    try:
        config = load_config(file, BuildConfig)
    except UsageError:
        return
    assert isinstance(config, BuildConfig)


class CoreDumper(yaml.SafeDumper):
    """Quotes the words that YAML 1.2 would read as something else than text."""

    yaml_implicit_resolvers = CoreLoader.yaml_implicit_resolvers


_STRINGS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | _WORDS.filter(lambda word: len(word) < 100)
_NUMBERS = st.floats(0, 1e9, exclude_min=True, allow_subnormal=False)


@given(model=_STRINGS, language=st.none() | _STRINGS, words=st.dictionaries(_STRINGS, _STRINGS), factor=_NUMBERS)
def test_any_config_survives_yaml_and_json(
    model: str, language: str | None, words: dict[str, str], factor: float
) -> None:
    values = {
        "transcribe": {"model": model, "language": language, "alignment": words, "enabled": bool(words)},
        "run": {"limit_factor": factor, "resources": {"faces": {"cpus": factor, "labels": words}}},
        "motion": {"expression_dims": 1 + int(factor) % 64},
    }
    config = BuildConfig.model_validate(values)
    plain = config.model_dump(mode="json", exclude_defaults=True)
    for text in (yaml.dump(plain, Dumper=CoreDumper), json.dumps(plain)):
        assert parse_config(text, BuildConfig) == config
    assert (
        parse_config("", BuildConfig, [f"transcribe={json.dumps(plain.get('transcribe', {}))}"]).transcribe
        == config.transcribe
    )


def test_the_programs_own_recipes_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the help names them; a file of that name in the current folder goes before."""
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/default.yaml", BuildConfig)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.yaml").write_text("faces: {max_faces: 3}\n")
    assert load_config("configs/default.yaml", BuildConfig).faces.max_faces == 3
    with pytest.raises(UsageError, match="cannot read config"):
        load_config("configs/none.yaml", BuildConfig)
