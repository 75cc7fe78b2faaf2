"""What the packets of streams cover: nothing is decoded, and nothing that a header says is believed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from av.container import InputContainer
from av.packet import Packet

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import shown
from visavis.stages.media.opening import packets_of, stamp, time_origin

_LONGEST_STEP_BACK = 1.0  # seconds; recordings put end to end repeat their time stamps


@dataclass
class Span:
    """What a stream's packets cover, in seconds of media time."""

    count: int = 0
    start: float = math.inf
    last: float = -math.inf  # when the last packet begins
    end: float = -math.inf
    jump: str = ""  # why its time stamps are not to be believed
    decoded_at: float = -math.inf

    @property
    def duration(self) -> float:
        return self.end - self.start if self.count else 0.0

    def add(self, time: float, duration: float) -> None:
        self.count += 1
        self.start = min(self.start, time)
        self.last = max(self.last, time)
        self.end = max(self.end, time + duration)

    def step(self, time: float) -> None:
        """Take note of when the next packet is decoded."""
        back = self.decoded_at - time
        if back > _LONGEST_STEP_BACK and not self.jump:
            self.jump = f"time stamps jump back by {back:.1f} s at {self.decoded_at:.1f} s"
        self.decoded_at = time

    def close(self) -> None:
        """Packets without a duration last as long as the average one."""
        if self.count > 1 and self.end == self.last:
            self.end += (self.last - self.start) / (self.count - 1)

    def checked(self, uri: str) -> Span:
        """Itself.

        Raises:
            Rejected: UNREADABLE, its time stamps jump back.
        """
        if self.jump:
            raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: {self.jump}")
        return self


def timed_packets(container: InputContainer, spans: Mapping[int, Span]) -> Iterator[tuple[int, float, Packet]]:
    """(stream, seconds of media time, packet) of the streams in `spans`, which are filled meanwhile."""
    origin = time_origin(container)
    for packet in packets_of(container, *(container.streams[index] for index in spans)):
        at = stamp(packet)
        if at is None or packet.is_discard:  # the demuxer's flush; or hidden by an edit list
            continue
        index, seconds = packet.stream.index, float(packet.time_base)
        spans[index].step((at if packet.dts is None else packet.dts) * seconds - origin)
        spans[index].add(at * seconds - origin, (packet.duration or 0) * seconds)
        yield index, at * seconds - origin, packet
    for span in spans.values():
        span.close()
