"""Sessions that come and go, in one batch of fixed size: what a server needs.

A `Stream` begins all its sessions together. In a pool each has its own clock: it joins a free row whenever it comes, is
given conditions when it has them, and leaves. All tensors have their size from the start, rows that are free or have
nothing to do are computed and thrown away, so nothing is allocated, compiled or captured again whoever comes.

    pool = StreamPool(model, SamplerConfig(), capacity=64)
    pool.join("anna-17", reference_D)
    motion_BD = pool.step({"anna-17": (avatar_audio_N, user_audio_N, user_motion_TD)})["anna-17"]
    pool.remember()                                   # while waiting
    kept = save_stream(pool.session("anna-17"))       # as any stream's; `pool.admit(load_stream(kept, model))` goes on
    pool.leave("anna-17")

A session's motion does not depend on who else is there, by no bit: it is that of a `Stream` of `capacity` sessions that
has it in the same row. A stream of its own differs in the last bits, since products of other sizes are summed
otherwise.

Conditions of sessions that were given alike so far (all after their first steps) are encoded together; a step in which
some begin costs one more encoding.

Shape suffixes: S rows for sessions, R rows of caches (guidance branches · S), T frames, D motion dimensions, N samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import Drop, SamplerConfig
from visavis.training.block import BlockInputs, BlockSampler, empty_cache, flat, keep_rows
from visavis.training.guidance import guidance_weights, kept_by
from visavis.training.layers import KeysValues
from visavis.training.masks import ahead
from visavis.training.model import Listener
from visavis.training.noise import NoiseSource
from visavis.training.sampler import Counts, Stream, check_finite

Given = tuple[Tensor, Tensor, Tensor]
"""Avatar's audio [640 · T], user's audio [640 · T] and user's motion [T, D] of one session, float32."""


@dataclass
class _Seat:
    """One session: its row, its clock (as `StreamState` has it), and the conditions that are not forgotten yet."""

    row: int
    reference_1D: Tensor
    noise_key: np.ndarray
    held: Given
    start: int = 0
    encoded: int = 0
    done: int = 0

    @property
    def given(self) -> int:
        return self.start + len(self.held[2])

    @property
    def layout(self) -> tuple[int, int]:
        """What is held before and after `encoded`: sessions that are alike in it are encoded together."""
        return self.encoded - self.start, self.given - self.encoded


class StreamPool:
    """Up to `capacity` sessions of one model, each at its own place; see the module's text. Calls do not overlap."""

    def __init__(
        self,
        model: Listener,
        config: SamplerConfig,
        capacity: int,
        drop: Drop = "full",
        *,
        compile: bool = False,
        graph: bool | None = None,
        pack: bool | None = None,
    ) -> None:
        """compile, graph, pack: as for `Stream`; the first step takes the time for both.

        Raises:
            UsageError: a model with mask `full`, which cannot stream.
        """
        self.model, self.config, self.capacity, self.drop = model, config, capacity, drop
        device, weights = model.mean.device, guidance_weights(config, drop)
        self._branches, rows = len(weights), len(weights) * capacity
        self._block = model.config.block
        self._keep = kept_by(weights, capacity, device)
        neutral = torch.zeros(capacity, model.motion.dim, device=device)
        self._blocks = BlockSampler(model, neutral, config, weights, compile=compile, graph=graph, pack=pack)
        attentions = model.encoder.hear_user, model.encoder.join_avatar
        reach = model.config.context + ahead(model.config)
        self._encoder: tuple[KeysValues, KeysValues] = (
            empty_cache(attentions[0], rows, reach),
            empty_cache(attentions[1], rows, reach),
        )
        self._codes = tuple(empty_cache(cross, rows, self._blocks.codes_length) for _, cross in model.attentions())
        self._noise = NoiseSource(config.seed)
        self._seats: dict[str, _Seat] = {}
        self._free = list(range(capacity))[::-1]

    @property
    def keys(self) -> tuple[str, ...]:
        """Sessions that are there."""
        return tuple(self._seats)

    def join(self, key: str, reference_D: Tensor) -> None:
        """Begin a session. reference_D: codec units.

        Raises:
            UsageError: no row is free, a session of this key is there, or the reference is not finite.
        """
        self.admit(Stream(self.model, reference_D[None], self.config, [key], self.drop, graph=False))

    @torch.no_grad()
    def admit(self, stream: Stream) -> None:
        """Go on with a session that was a stream of its own; the stream is not used any more.

        Raises:
            UsageError: no row is free, a session of its key is there, or it is of another model or setting, of several
                sessions, or at its end.
        """
        if len(stream.keys) != 1 or stream.model is not self.model:
            raise UsageError("a pool takes streams of one session that run on its own model")
        if (stream.config, stream.drop) != (self.config, self.drop):
            raise UsageError(f"session {stream.keys[0]} was sampled with other settings than this pool's")
        (key,), state = stream.keys, stream.state
        if state.encoded != (state.done and state.done + ahead(self.model.config)) or state.done % self._block:
            raise UsageError(f"session {key} was given its last conditions and cannot go on")
        if key in self._seats:
            raise UsageError(f"a session {key} is in this pool already")
        if not self._free:
            raise UsageError(f"all {self.capacity} places of this pool are taken; let a session leave first")
        self.remember()
        stream.remember()
        row = self._free.pop()
        for into, held in self._caches(stream, row):
            into[:] = 0
            into[:, :, into.shape[2] - held.shape[2] :] = held
        self._blocks.reference_SD[row] = self.model.normalise(stream.reference[0])
        self._blocks.mean_SD[row] = state.mean[0]
        given = state.avatar_audio[0], state.user_audio[0], state.user_motion[0]
        noise_key = self._noise.key_of(key)
        self._seats[key] = _Seat(row, stream.reference, noise_key, given, state.start, state.encoded, state.done)

    def leave(self, key: str) -> None:
        """End a session; its row is free. Raises KeyError: it is not there."""
        self.remember()
        self._free.append(self._seats.pop(key).row)

    @torch.no_grad()
    def session(self, key: str) -> Stream:
        """A copy of a session as a stream of its own: to save it, or to make its last frames, which are no whole block.

        Raises KeyError: it is not there.
        """
        self.remember()
        seat = self._seats[key]
        stream = Stream(self.model, seat.reference_1D, self.config, [key], self.drop, graph=False)
        state, blocks = stream.state, seat.done // self._block
        if blocks:
            usual = self._branches, self._blocks.codes_length
            state.codes = tuple(empty_cache(cross, *usual) for _, cross in self.model.attentions())
        for held, into in self._caches(stream, seat.row):
            into.copy_(held[:, :, held.shape[2] - into.shape[2] :])
        state.mean.copy_(self._blocks.mean_SD[seat.row])
        state.avatar_audio, state.user_audio, state.user_motion = (part[None].clone() for part in seat.held)
        state.start, state.encoded, state.done = seat.start, seat.encoded, seat.done
        stream.counts = Counts(blocks * self._blocks.steps, blocks)
        return stream

    def needs(self, key: str) -> int:
        """Frames of new conditions that a session's next step takes."""
        seat = self._seats[key]
        return seat.done + self._block + ahead(self.model.config) + self.model.features.look_ahead - seat.given

    def done(self, key: str) -> int:
        """Frames of a session that were generated."""
        return self._seats[key].done

    @torch.no_grad()
    def step(self, given: Mapping[str, Given]) -> dict[str, Tensor]:
        """One block of motion of each session that is given conditions, [B, D] in codec units.

        Args:
            given: `needs` new frames of each of these sessions.

        Raises:
            KeyError: a session is not there.
            ValueError: not as many frames as a session needs, or a number that is not finite; it says of which session.
                The pool is as it was, and the step may be tried again, or without that session.
        """
        if not given:
            return {}
        groups = self._grouped(given)
        self.remember()
        for seats, conditions in groups:
            self._encode(seats, conditions)
        motion_SBD = self.model.denormalise(self._generate([self._seats[key] for key in given]))
        motion = {}
        for key in given:
            seat = self._seats[key]
            seat.done += self._block
            motion[key] = motion_SBD[seat.row]
        return motion

    def remember(self) -> None:
        """Write the last blocks into the cache, if that is not done yet; see `Stream.remember`."""
        self._blocks.write()

    def _grouped(self, given: Mapping[str, Given]) -> list[tuple[list[_Seat], Given]]:
        """Sessions that are encoded together, with what they hold and are given, stacked."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        for key, new in given.items():
            seat, frames = self._seats[key], self.needs(key)
            if (found := tuple(len(part) for part in new)) != (samples := frames * SAMPLES_PER_FRAME, samples, frames):
                raise ValueError(
                    f"session {key}: this step needs {frames} new frames, got {found[2]} of motion and"
                    f" {found[0]} and {found[1]} samples"
                )
            groups[seat.layout].append(key)
        stacked = []
        for keys in groups.values():
            seats = [self._seats[key] for key in keys]
            new = _stacked([given[key] for key in keys])
            check_finite(*new, keys, [seat.given for seat in seats])
            held = _stacked([seat.held for seat in seats])
            avatar, user, motion = (torch.cat(parts, dim=1) for parts in zip(held, new, strict=True))
            stacked.append((seats, (avatar, user, motion)))
        return stacked

    def _encode(self, seats: Sequence[_Seat], given: Given) -> None:
        """Codes of what these sessions were given, as `Stream` makes them, in their rows alone."""
        rows_G = torch.tensor([seat.row for seat in seats], device=given[0].device)
        avatar, user, motion = (
            part.new_zeros(self.capacity, *part.shape[1:]).index_copy(0, rows_G, part) for part in given
        )
        start, encoded = seats[0].start, seats[0].encoded  # what lies between is all that features ask
        conditions = self.model.conditions(avatar, user, motion, start, encoded, last=False).repeat(self._branches)
        starts_S, active_S = self._by_row((seat, seat.encoded) for seat in seats), self._active(seats)
        encoder, codes = self._blocks.encode(conditions, self._keep, starts_S, self._encoder)
        keep_rows(self._encoder, encoder, active_S)
        keep_rows(self._codes, codes, active_S)
        for seat, *held in zip(seats, *given, strict=True):
            seat.encoded += codes[0][0].shape[2]
            forgotten = max(0, seat.encoded - self.model.features.history - seat.start)
            sound = forgotten * SAMPLES_PER_FRAME
            seat.held = held[0][sound:].clone(), held[1][sound:].clone(), held[2][forgotten:].clone()
            seat.start += forgotten

    def _generate(self, seats: Sequence[_Seat]) -> Tensor:
        """The next block of these sessions, normalised [S, T, D]; other rows hold nothing of use."""
        keys: list[np.ndarray | None] = [None] * self.capacity
        numbers = [0] * self.capacity
        for seat in seats:
            keys[seat.row], numbers[seat.row] = seat.noise_key, seat.done // self._block
        noise_STD = self._noise.draw(keys, numbers, self._block, self.model.motion.dim)
        done_R = self._by_row((seat, seat.done) for seat in seats)
        encoded_R = self._by_row((seat, seat.encoded) for seat in seats)
        x_STD = noise_STD.to(self.model.mean.device)
        return self._blocks.generate(BlockInputs(x_STD, done_R, encoded_R, self._codes, self._active(seats)))

    def _active(self, seats: Sequence[_Seat]) -> Tensor:
        return self._by_row((seat, 1) for seat in seats)[: self.capacity, 0, 0] == 1

    def _by_row(self, numbers: Iterable[tuple[_Seat, int]]) -> Tensor:
        """A number of some sessions in all of their rows, int64 [R, 1, 1]; 0 in those of others."""
        by_row = [0] * self.capacity
        for seat, number in numbers:
            by_row[seat.row] = number
        return torch.tensor(by_row, device=self.model.mean.device).repeat(self._branches)[:, None, None]

    def _caches(self, stream: Stream, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each cache of a session in this pool's row, a view, beside that of its stream."""
        ours = self._encoder, self._codes, self._blocks.past
        theirs = stream.state.encoder, stream.state.codes, stream.state.past
        for our, their in zip(ours, theirs, strict=True):
            for pooled, own in zip(flat(our), flat(their), strict=True):
                yield pooled[row :: self.capacity], own


def _stacked(conditions: Sequence[Given]) -> Given:
    """Those of several sessions, [G, …] each."""
    avatar, user, motion = (torch.stack(parts) for parts in zip(*conditions, strict=True))
    return avatar, user, motion
