"""How much of a file is looked at: what goes beyond is rejected with a reason of its own, in time."""

from __future__ import annotations

from av.container import InputContainer

from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import shown
from visavis.stages.media.spans import Span
from visavis.stages.media.video import pixel_aspect

_GB, _HOUR = 1e9, 3600.0


class Limits:
    """The limits of `ingest`, held against what headers claim and what packets show."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._seconds, self._packets = config.max_hours * _HOUR, config.max_packets

    def check(self, uri: str, container: InputContainer, size: int) -> None:
        """Hold an opened file against them. size: bytes.

        Raises:
            Rejected: TOO_HEAVY, TOO_LARGE, TOO_BUSY.
        """
        most = self._config
        if size > most.max_gb * _GB:
            raise Rejected(Reason.TOO_HEAVY, f"{shown(uri)}: {size / _GB:.1f} GB, ingest.max_gb is {most.max_gb:g}")
        if (count := len(container.streams)) > most.max_streams:
            raise Rejected(Reason.TOO_BUSY, f"{shown(uri)}: {count} streams, ingest.max_streams is {most.max_streams}")
        for stream in container.streams.video:
            if (context := stream.codec_context) is not None:
                aspect = float(pixel_aspect(stream.sample_aspect_ratio))
                self._check_picture(uri, round(context.width * max(1.0, aspect)), context.height)
        for sound in container.streams.audio:
            if (heard := sound.codec_context) is not None:
                self._check_sound(uri, heard.sample_rate, heard.channels)

    def check_span(self, uri: str, span: Span) -> None:
        """Hold what has been seen of a stream against them.

        Raises:
            Rejected: TOO_LONG, TOO_BUSY.
        """
        if span.end > self._seconds:
            said = f"{shown(uri)}: {span.end / _HOUR:.1f} h and more, ingest.max_hours is {self._config.max_hours:g}"
            raise Rejected(Reason.TOO_LONG, said)
        if span.count > self._packets * (1 + max(0.0, span.duration)):
            raise Rejected(Reason.TOO_BUSY, f"{shown(uri)}: more than {self._packets} packets a second in a stream")

    def _check_picture(self, uri: str, width: int, height: int) -> None:
        if width * height > self._config.max_pixels:
            most = self._config.max_pixels
            raise Rejected(Reason.TOO_LARGE, f"{shown(uri)}: pictures of {width}x{height}, ingest.max_pixels is {most}")

    def _check_sound(self, uri: str, rate: int, channels: int) -> None:
        if rate * channels > self._config.max_samples:
            said = f"{shown(uri)}: {channels} channels at {rate} Hz, ingest.max_samples is {self._config.max_samples}"
            raise Rejected(Reason.TOO_BUSY, said)
