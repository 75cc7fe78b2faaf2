"""Stages of a user's own: what is wrong with one is said in a line, before anything starts."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from tests.pipeline.test_cli import visavis
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Bound, Build
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.plugins import GROUP, load, with_plugins
from visavis.pipeline.state.tasks import Artifact
from visavis.schemas.config import BuildConfig, PluginConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Address

HEAD = """
from __future__ import annotations
from collections.abc import Sequence
from visavis.schemas.section import Device, Section
from visavis.schemas.dyads import Census, Codec, Dyad, Motion
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding, Conversation, Row
from visavis.schemas.voice_rows import Voices
from visavis.stages.base import Stage
class Settings(Section):
    limit: int = 3
    device: Device = "cpu"
class Out(Row):
    n: int
"""
BODY = """
class Mine(Stage[{input}, Out]):
    name, version = "mine", 1
    {more}
    def __init__(self, config: Settings) -> None:
        super().__init__(config)
    def process(self, item):
        yield Out(n=1)
"""


def written(folder: Path, fields: str, input_: str = "In", more: str = "") -> str:
    """A stage that takes these fields; the word for it."""
    path = folder / "mine.py"
    takes = f"class In(Row):\n    {fields or 'pass'}\n"
    path.write_text(HEAD + takes + BODY.format(input=input_, more=more))
    return f"{path}:Mine"


def graph(code: str, **more: object) -> Graph:
    config = BuildConfig.model_validate(more)
    return Graph(with_plugins(config, [code]))


def place(graph: Graph) -> str:
    """The stage that it comes after."""
    order = list(graph.steps)
    return order[order.index("mine") - 1]


@pytest.mark.parametrize(
    ("fields", "sources", "after"),
    [
        ("binding: Binding; conversation: Conversation", {"binding": "bind", "conversation": "ingest"}, "bind"),
        ("voices: Voices; of: str = ''", {"voices": "separate"}, "separate"),
        ("motion: tuple[Motion, ...]; codec: Codec", {"motion": "motion", "codec": "fit"}, "motion"),
        ("faces: Sequence[FaceTracks]", {"faces": "faces"}, "faces"),
    ],
)
def test_what_it_takes_follows_from_its_types(tmp_path: Path, fields: str, sources: dict[str, str], after: str) -> None:
    found = graph(written(tmp_path, fields))
    assert dict(found.steps["mine"].takes) == sources
    assert place(found) == after


def test_it_may_take_a_row_as_a_whole_and_name_who_makes_it(tmp_path: Path) -> None:
    assert dict(graph(written(tmp_path, "", "Dyad")).steps["mine"].takes) == {"*": "windows"}
    found = graph(written(tmp_path, "heard: Binding", more="takes = {'heard': 'bind'}"))
    assert dict(found.steps["mine"].takes) == {"heard": "bind"}


@pytest.mark.parametrize(
    ("fields", "more", "message"),
    [
        ("census: Census", "", "no stage of this build makes what its input census takes"),
        ("count: int", "", "no stage of this build makes what its input count takes"),
        ("count: int = 0", "", "it takes nothing that a stage makes"),
        ("motion: Motion", "", r"motion makes several, so motion must be a Sequence\[Motion\]"),
        ("heard: Binding", "takes = {'heard': 'bin'}", "takes of heard names bin; there are .* stages: bin"),
        ("heard: Binding", "takes = {'heard': 'cast'}", "heard takes Binding, but cast makes Cast"),
        ("heard: Binding", "name = 'bind'", "has the name of a stage that is there already, bind"),
        ("heard: Binding", "name = 'encode'", "has the name of a stage that is there already, encode"),
        ("heard: Binding", "name = 'reference'", "has the name of a stage that is there already, reference"),
        ("heard: Binding", "takes = {'herd': 'bind'}", "takes names herd; there is 1 field: heard"),
        ("heard: Binding", "takes = ['bind']", "has a `takes` that maps no field to a stage"),
        ("heard: Binding", "name = '../mine'", "has no name of small letters"),
        ("heard: Binding", "version = 'one'", "no version that is a number"),
    ],
)
def test_what_it_cannot_take_is_said(tmp_path: Path, fields: str, more: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        graph(written(tmp_path, fields, more=more))


def test_its_settings_are_typed_by_its_own_class(tmp_path: Path) -> None:
    code = written(tmp_path, "binding: Binding")

    def prints(**settings: object) -> dict[str, str]:
        return graph(code, plugins={"mine": {"settings": settings}}).fingerprints

    plain, other = prints(), prints(limit=4)
    assert {stage for stage in plain if plain[stage] != other[stage]} == {"mine"}
    assert plain.items() > Graph(BuildConfig()).fingerprints.items()
    with pytest.raises(UsageError, match=r"plugins\.mine\.settings\.limit: Input should be a valid integer"):
        prints(limit="many")
    with pytest.raises(UsageError, match=r"plugins\.mine\.settings\.most: there are 2 settings: limit, device"):
        prints(most=4)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("absent.py:Mine", "No such file"),
        ("mine.py:Yours", "has no Yours; there is 1 stage: Mine"),
        ("mine.py:Settings", "is no class of a stage"),
        ("mine.py:Stage", "is no class of a stage"),
        ("broken.py:Mine", "does not load: ZeroDivisionError: division by zero"),
        ("nonsense.py:Mine", "does not load: SyntaxError"),
        ("untyped.py:Mine", r"must derive from Stage\[In, Out\], with rows"),
        ("large.py:Mine", "is larger than 1 MB: no file of code"),
        ("https://example.org/mine.py:Mine", "must be a file of this machine"),
        ("mine", f"is neither FILE.py:Class nor the name of an installed stage .{GROUP}.; there is no installed stage"),
    ],
)
def test_a_stage_that_is_not_there_is_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "binding: Binding")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "nonsense.py").write_text("class :")
    (tmp_path / "large.py").write_text("#" * (1 << 20) + "\n")
    typed = (tmp_path / "mine.py").read_text()
    (tmp_path / "untyped.py").write_text(typed.replace("Mine(Stage[In, Out])", "Mine(Stage[int, str])"))
    with pytest.raises(UsageError, match=message):
        load(code)


def test_an_installed_package_may_bring_one_and_it_is_used_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "binding: Binding")
    (tmp_path / "mine.py").rename(tmp_path / "visavis_mine.py")
    info = tmp_path / "visavis_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: visavis-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nmine = visavis_mine:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" not in Graph(BuildConfig()).steps
    assert place(graph("mine")) == "bind"
    assert place(Graph(BuildConfig(plugins={"mine": PluginConfig()}))) == "bind"
    sys.modules.pop("visavis_mine")


def test_another_process_loads_the_same_file_or_none(tmp_path: Path) -> None:
    code = written(tmp_path, "binding: Binding")
    found = graph(code, plugins={"mine": {"settings": {"limit": 5}}})
    sent = pickle.dumps(found.stages(BuildConfig(), "")["mine"])
    assert b"yield" not in sent
    assert pickle.loads(sent).config.limit == 5
    path = Path(code.partition(":")[0])
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UsageError, match=r"mine\.py:Mine is another one on \S+ than where the build began"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(UsageError, match=r"No such file or directory on \S+, and every machine of the"):
        pickle.loads(sent)


def test_the_command_line_names_it_and_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = written(tmp_path, "binding: Binding")
    (tmp_path / "r.yaml").write_text("run: {engine: local}\n")
    (tmp_path / "a.mp4").write_bytes(b"x")
    given = ["build", str(tmp_path / "r.yaml"), str(tmp_path / "a.mp4"), "--out", str(tmp_path / "run"), "--dry-run"]
    right = visavis(capsys, monkeypatch, *given, "--plugin", code, "--set", "plugins.mine.settings.limit=4")
    assert right[0] == 0
    wrong, _, said = visavis(capsys, monkeypatch, *given, "--plugin", code, "--set", "plugins.mine.settings.limits=4")
    assert (wrong, said.count("\n")) == (2, 1)
    assert "plugins.mine.settings.limits" in said


def test_what_its_class_marks_does_not_ask_for_anything_again(tmp_path: Path) -> None:
    code = written(tmp_path, "binding: Binding")

    def of(**settings: object) -> Build:
        config = BuildConfig(plugins={"mine": PluginConfig(code=code, settings=settings)})
        return Build(config, str(tmp_path / "run"), local_engine, Reporter())

    assert of(device="cuda").settings == of().settings
    assert of(limit=4).settings != of().settings


def test_one_that_opens_files_after_the_codec_knows_where_they_lie(tmp_path: Path) -> None:
    code = written(tmp_path, "conversation: Conversation; codec: Codec")
    builds = [
        Build(with_plugins(BuildConfig(), named), str(tmp_path / "run"), local_engine, Reporter())
        for named in ([code], [])
    ]
    assert [build._opens_later for build in builds] == [True, False]
    bound = Bound("c", "c.mp4", 0, 1.0, {}, (Address("s3://b/c.mp4?signature=x"),))
    first = next(builds[0].workflow_to_dyad(bound, Artifact("artifacts/codec/x.safetensors", "0" * 16)))
    assert [(task.stage, task.addresses) for task in first] == [("mine", bound.addresses)]
