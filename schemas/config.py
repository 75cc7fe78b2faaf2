"""Configuration: YAML recipes as frozen typed data.

A recipe names only what it changes; everything else has a default here, beside its meaning and unit.
`schemas.recipes` reads them, and refuses unknown keys and wrong types in one line.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from visavis.schemas.access import LEADING_ON
from visavis.schemas.dyads import CodecKind
from visavis.schemas.markers import ByDigest, Runtime
from visavis.schemas.people_config import FaceprintsConfig, SplitConfig, VoiceprintsConfig, check_people
from visavis.schemas.section import Device, Section
from visavis.schemas.windows_config import BalanceConfig, ShardConfig, WindowsConfig, check_labels

MOST_PIXELS = 8192 * 4352
"""Of a picture, 8K and a little: what any decoder of this program allocates at most, whatever the settings."""


class SourcesConfig(Section):
    """Where inputs, and what lists name, may lie beside local disks, the web and object stores (`schemas.access`)."""

    protocols: tuple[str, ...] = Field((), description="further protocols of fsspec that sources may have, such as hf")
    private: tuple[str, ...] = Field(
        (),
        description="hosts (nas.example.org, *.lab.example.org) and networks (10.0.0.0/8) of your own to which "
        "redirects, public names and lists on servers may lead",
    )

    @field_validator("protocols")
    @classmethod
    def _plain(cls, protocols: tuple[str, ...]) -> tuple[str, ...]:
        for protocol in protocols:
            if protocol in LEADING_ON:
                raise ValueError(f"{protocol}:// leads on to other files than its name says, and is never followed")
        return protocols


class IngestConfig(Section):
    min_duration: float = Field(3.0, gt=0, description="seconds; shorter conversations are rejected")
    max_length_mismatch: float = Field(
        1.0, ge=0, description="seconds by which audio and video may begin apart, and end apart however short they are"
    )
    max_missing: float = Field(
        0.1, ge=0, lt=1, description="share of the longer of audio and video after which the shorter may have ended"
    )
    max_hours: float = Field(
        6.0, gt=0, description="longer recordings are rejected; several stages hold an hour of sound in 0.25 GB"
    )
    max_pixels: int = Field(
        MOST_PIXELS, gt=0, le=MOST_PIXELS, description="of a picture; larger ones are rejected, never decoded"
    )
    max_gb: float = Field(100.0, gt=0, description="larger files are rejected unread")
    max_streams: int = Field(100, ge=2, description="of a file, of any kind")
    max_samples: int = Field(4_000_000, gt=0, description="of sound in a second, of all channels of a stream")
    max_packets: int = Field(10_000, gt=0, description="in a second, of a stream")


class DiarizeConfig(Section):
    backend: Literal["embedded", "pyannote", "given"] = Field(
        "embedded", description="given: turns that lie beside each file or that a list names, and no model at all"
    )
    pipeline: str = Field(
        "pyannote/speaker-diarization-community-1", description="pyannote: a local folder or a pipeline's hub name"
    )
    clustering_threshold: float = Field(
        0.75, gt=0, description="embedded: distance of two voices' unit centroids (0…2) below which they are one person"
    )
    min_turn: float = Field(0.2, ge=0, description="seconds; shorter turns are dropped")
    max_pause: float = Field(0.3, ge=0, description="seconds; a speaker's pauses up to this do not end a turn")
    min_share: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="one_frame: a voice with a smaller share of all speech counts as none that was heard",
    )
    strangers: float = Field(
        4.0,
        ge=0,
        description="per_participant: nats by which it must be likelier that the two do not speak with each other than "
        "that they do; 0: not looked at",
    )
    device: Device = "auto"


class TranscribeConfig(Section):
    """Nothing is downloaded while a build runs: `visavis assets fetch` does that before."""

    enabled: bool = Field(False, description="whether there are words in the samples, and back-channels by them")
    model: str = Field(
        "Systran/faster-whisper-large-v3", description="Whisper in CTranslate2's format: a local folder or a hub name"
    )
    folder: Annotated[str | None, ByDigest] = Field(
        None, description="where hub models were fetched to (`visavis assets fetch --to`); none: the hub's own cache"
    )
    language: str | None = Field(None, description="code such as en; none: heard in each conversation")
    alignment: dict[str, str] = Field(
        default_factory=dict,
        description="by language, the wav2vec2 CTC model that times words: a local folder or a hub name",
    )
    batch_size: int = Field(8, ge=1, description="excerpts of up to 30 s heard together; more need more GPU memory")
    device: Device = "auto"


class FacesConfig(Section):
    model: Literal["facemesh", "face-landmarker"] = Field(
        "facemesh", description="face-landmarker adds blendshapes, and needs its file; it finds near faces only"
    )
    landmarker: Annotated[str | None, ByDigest] = Field(
        None, description="face-landmarker: its .task file, a path or URL"
    )
    landmarker_sha256: str = Field(
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        pattern=r"^[0-9a-f]{64}$",
        description="of that file; the default is the float16 bundle named in configs/assets.yaml",
    )
    decoder: Literal["pyav", "decord"] = Field("pyav", description="what decodes the pictures")
    piece_seconds: float = Field(60.0, gt=1, description="longest span that one task works on")
    max_faces: int = Field(6, ge=1, le=16, description="faces looked for in each frame")
    min_confidence: float = Field(0.5, ge=0, le=1, description="of the face model, to find and to follow a face")
    min_likeness: float = Field(
        0.3, ge=0, le=1, description="a frame in which the face looks less as it does in its track is invalid"
    )
    cut_threshold: float = Field(27.0, gt=0, description="PySceneDetect ContentDetector")
    min_track: float = Field(1.0, ge=0, description="seconds; shorter tracks are dropped")
    max_gap: float = Field(0.4, ge=0, description="seconds without a face that a track survives")


class QualityConfig(Section):
    """Which conversations are good enough to learn from. The figures are in the data whatever the thresholds.

    `visavis build --dry-run` shows what other thresholds would leave out of what is measured already.
    """

    min_fresh: float = Field(
        0.75, ge=0, le=1, description="least share of frames that show a participant in a new picture, freezes aside"
    )
    min_together: float = Field(
        3.0, ge=0, description="seconds with both in view, for 2 s and more without a cut; there windows come from"
    )
    min_visible: float = Field(
        0.0, ge=0, le=1, description="least share of frames in which a participant is seen; an edited film has few"
    )
    min_face: float = Field(48.0, ge=0, description="pixels; side of a participant's face")
    min_sharpness: float = Field(40.0, ge=0, description="variance of the Laplacian of the upright face, grey levels²")
    min_luminance: float = Field(10.0, ge=0, le=255, description="of a face, 0…255; darker ones are rejected")
    max_luminance: float = Field(210.0, ge=0, le=255, description="the same; brighter ones are rejected")
    max_yaw: float = Field(60.0, ge=0, description="degrees that a head may exceed in one frame of ten")
    max_pitch: float = Field(45.0, ge=0, description="same")
    max_jitter: float = Field(2.0, ge=0, description="percent of the face's height; noise of the landmarks")
    max_crowd: float = Field(
        0.3, ge=0, le=1, description="share of frames that show a third face of a participant's size"
    )
    max_cuts: float = Field(30.0, ge=0, description="cuts per minute while both are in view")
    max_clipped: float = Field(
        1.0, ge=0, le=1, description="share of a voice's samples that may pile up at the top; 1: any"
    )
    min_bandwidth: float = Field(
        0.0, ge=0, le=8000, description="Hz up to which a voice's spectrum reaches: 8000 where it has no end; 0: any"
    )
    min_level: float = Field(
        -80.0, le=0, description="dB of full scale that one frame of twenty exceeds in a voice's track; -80: any"
    )
    min_snr: float = Field(
        -20.0, description="dB of a voice that speaks alone, over the noise while nobody speaks; -20: any"
    )
    max_residual: float = Field(
        40.0, description="dB of the other's voice in somebody's track, over the own one; 40: hardly anything is more"
    )
    min_sig: float = Field(0.0, ge=0, le=5, description="DNSMOS of the speech; needs dnsmos.enabled; 0: any")
    min_bak: float = Field(0.0, ge=0, le=5, description="… of the background, where 5 is none")
    min_ovrl: float = Field(0.0, ge=0, le=5, description="… of both together")
    min_p808: float = Field(0.0, ge=0, le=5, description="… as the model of P.808 rates it")


class BindConfig(Section):
    min_margin: float = Field(
        0.05,
        ge=0,
        description="least lead of the right voice over the other, in correlation; few turns ask for more",
    )
    min_odds: float = Field(
        1.0,
        description="one_frame: nats of evidence by lips, voices and diarizer that both people speak, not one alone",
    )
    max_unseen: float = Field(
        0.3, ge=0, le=1, description="share of the speech during which nobody's lips may move, of those in view"
    )
    min_share: float = Field(
        0.02, ge=0, le=0.5, description="one_frame: least share of the speech that is each person's, by the lips"
    )
    max_offset: float = Field(
        0.12, ge=0, description="seconds by which a voice may surely be early or late for its lips; 0: not looked at"
    )
    max_unsynced: float = Field(
        180.0, ge=0, description="seconds of speech with lips in view in which some offset must fit; 0: none need"
    )
    strangers: float = Field(4.0, ge=0, description="one_frame: as diarize.strangers, with the lips' turns")


class SeparateConfig(Section):
    backend: Literal["mask", "convtasnet"] = Field(
        "mask", description="one_frame: turns alone, or a separation network where both speak at once"
    )
    fade: float = Field(0.02, ge=0, le=0.2, description="seconds of fade at the edges of a turn mask")
    weights: Annotated[str | None, ByDigest] = Field(
        None,
        description="convtasnet: state dict of torchaudio's conv_tasnet_base(2) in safetensors, a path or URL",
    )
    weights_sha256: Annotated[str | None, ByDigest] = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="of that file; a URL needs it"
    )
    device: Device = "auto"


class DnsmosConfig(Section):
    """How good each participant's speech sounds, as people would rate it (DNSMOS P.835 and P.808)."""

    enabled: bool = Field(False, description="whether that is measured; needs the extra `sound`")
    windows: int = Field(
        6, ge=1, le=10_000, description="of 9 s that are scored of a participant, evenly spread over what is said alone"
    )


class EncodeConfig(Section):
    network: Annotated[str | None, ByDigest] = Field(
        None, description="an encoder of face crops, a path or URL: torch.export (.pt2) or TorchScript (.pt, .ts)"
    )
    network_sha256: Annotated[str | None, Runtime] = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="of that file, which is a program: it runs only by this name"
    )
    size: int = Field(256, ge=16, le=2048, description="pixels of a crop's side, as the network wants it")
    span: Literal["-1..1", "0..1"] = Field("-1..1", description="of the network's input values")
    batch: int = Field(32, ge=1, description="crops at a time, always so many: 1 where the network was exported for 1")
    device: Device = "auto"


class MotionConfig(Section):
    kind: CodecKind = Field("landmark-pca", description="what makes motion of faces")
    expression_dims: int = Field(26, ge=1, le=64, description="landmark-pca: size of the expression code; pose adds 6")
    rest_dims: int = Field(
        6,
        ge=0,
        le=64,
        description="blendshapes, network: principal components of what their code leaves over of the landmarks",
    )
    codec: str | None = Field(None, description="a fitted codec's file, used instead of fitting one")
    fit_conversations: int = Field(
        10_000, ge=1, description="a larger corpus' codec is fitted on so many of its conversations, chosen by hash"
    )


class DuplicatesConfig(Section):
    """Conversations whose sound or pictures are in another one too: encoded anew, cut, sped up, with other sound."""

    enabled: bool = Field(False, description="whether all but one of them are left out")
    min_overlap: float = Field(0.5, gt=0, le=1, description="share of the shorter of two that must be in both")


class StageResources(Section):
    """What one worker of a stage takes, and how many there may be. Stages that need the same share their workers."""

    cpus: float = Field(1.0, ge=0, description="cores that a worker takes")
    gpus: float = Field(0.0, ge=0, description="a fraction lets workers share a GPU")
    memory_gb: float | None = Field(
        None,
        ge=0,
        description="reserved, and enforced: a worker that holds more is stopped; 0: neither; none: not reserved, and"
        " a share of this machine's memory is enforced where the cluster is this machine",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Ray node labels that the machine must have")
    min_workers: int = Field(0, ge=0, description="kept from the start to the end, with or without work")
    max_workers: int = Field(
        0, ge=0, description="0: as many as the cluster has room for; a number may make an autoscaler add machines"
    )
    limit_seconds: float | None = Field(None, gt=0, description="instead of run.limit_seconds")
    limit_factor: float | None = Field(None, ge=0, description="instead of run.limit_factor")


_AS_USUAL = StageResources()
_READINGS = 4.0  # ingest reads a file twice; a busy store may take twice as long as it should


class RunConfig(Section):
    engine: Literal["ray", "local"] = Field("ray", description="local: one item after the other, in this process")
    address: str | None = Field(None, description="a Ray cluster; none: one is started on this machine")
    limit_seconds: float = Field(300.0, gt=0, description="time an item may take …")
    limit_factor: float = Field(20.0, ge=0, description="… and this much more for each second of its media")
    setup_seconds: float = Field(900.0, gt=0, description="time a stage may take to load its models")
    attempts: int = Field(2, ge=1, description="tries of an item that fails, each on another worker where there is one")
    recycle_items: int = Field(1000, ge=0, description="items after which a worker's process is replaced; 0: never")
    heartbeat: float = Field(30.0, gt=0, description="seconds between two lines that name the slowest items at work")
    max_failure_share: float = Field(0.01, ge=0, le=1, description="share of a stage's items that may fail")
    max_failures_in_row: int = Field(20, ge=1, description="consecutive failures that stop the run")
    resources: dict[str, StageResources] = Field(default_factory=dict, description="by stage name")

    def limit_of(self, stage: str, seconds: float, reading: bool = False) -> float:
        """Seconds that an item may take.

        Args:
            seconds: of its media; or, if nobody has looked at the media yet, that it takes to read them once …
            reading: … as they are read, and nothing else is done with them.
        """
        own = self.resources.get(stage, _AS_USUAL)
        base = self.limit_seconds if own.limit_seconds is None else own.limit_seconds
        usual = _READINGS if reading else self.limit_factor
        return base + (usual if own.limit_factor is None else own.limit_factor) * seconds


class PluginConfig(Section):
    """A stage of the user's own (`pipeline.plan.plugins`)."""

    code: Annotated[str | None, ByDigest] = Field(
        None, description="FILE.py:Class; none: the installed package's stage of this name (entry point visavis.stages)"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of that stage, which says what there are")


class BuildConfig(Section):
    """A whole build."""

    sources: Annotated[SourcesConfig, Runtime] = SourcesConfig()
    ingest: IngestConfig = IngestConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    diarize: DiarizeConfig = DiarizeConfig()
    transcribe: TranscribeConfig = TranscribeConfig()
    faces: FacesConfig = FacesConfig()
    quality: QualityConfig = QualityConfig()
    bind: BindConfig = BindConfig()
    separate: SeparateConfig = SeparateConfig()
    dnsmos: DnsmosConfig = DnsmosConfig()
    voiceprints: VoiceprintsConfig = VoiceprintsConfig()
    faceprints: FaceprintsConfig = FaceprintsConfig()
    encode: EncodeConfig = EncodeConfig()
    motion: MotionConfig = MotionConfig()
    windows: WindowsConfig = WindowsConfig()
    balance: BalanceConfig = BalanceConfig()
    split: SplitConfig = SplitConfig()
    shard: ShardConfig = ShardConfig()
    plugins: dict[str, PluginConfig] = Field(default_factory=dict, description="by stage name")
    run: Annotated[RunConfig, Runtime] = RunConfig()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.motion.kind == "blendshapes" and self.faces.model != "face-landmarker":
            raise ValueError("motion.kind=blendshapes needs faces.model=face-landmarker")
        if self.motion.kind == "network" and not self.encode.network:
            raise ValueError("motion.kind=network needs encode.network, the encoder's file")
        check_labels(self.balance, self.shard)
        check_people(self.split, self.voiceprints, self.faceprints)
        asked = [name for name in ("min_sig", "min_bak", "min_ovrl", "min_p808") if getattr(self.quality, name) > 0]
        if asked and not self.dnsmos.enabled:
            raise ValueError(f"quality.{asked[0]} needs dnsmos.enabled=true")
        return self
