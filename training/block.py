"""One block of a batch of sessions: from noise to motion by guided Euler steps, and then into the cache.

What lasts from block to block (keys and values of the past, the slow mean of the anchor) lies in tensors that keep
their places, and a block's position is a tensor, too. So a block of the usual size can be captured once and launched as
one (`training.graphs`): all evaluations with their guidance are one graph, the pass that writes the cache a second one,
since it can wait until the motion was given away.

Shape suffixes: S sessions, R rows (guidance branches · sessions), T frames, D motion dimensions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from visavis.schemas import FPS
from visavis.schemas.errors import UsageError
from visavis.schemas.train import SamplerConfig
from visavis.training import graphs
from visavis.training.guidance import Branch, check_student, guided
from visavis.training.layers import Attention, KeysValues, Layout
from visavis.training.masks import ahead
from visavis.training.model import Codes, Conditions, Keep, Listener, Start, frames_from
from visavis.training.packed import packed
from visavis.training.shapes import SD, STD

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockInputs:
    """What a block is made from, beside the past."""

    x_STD: Tensor  # noise
    done: Tensor  # int64 [1, 1, 1], or [R, 1, 1] where each session has its own clock: the block's first frame
    encoded: Tensor  # likewise: the frame after the last that has a code
    codes: Codes  # of the frames up to `encoded`
    active_S: Tensor | None = None  # bool: sessions that take part; the past of others stays as it is. None: all

    def clone(self) -> BlockInputs:
        return replace(
            self,
            x_STD=self.x_STD.clone(),
            done=self.done.clone(),
            encoded=self.encoded.clone(),
            codes=tuple((keys.clone(), values.clone()) for keys, values in self.codes),
            active_S=None if self.active_S is None else self.active_S.clone(),
        )

    def copy_(self, other: BlockInputs) -> None:
        """Take the numbers of another one of the same shapes."""
        self.x_STD.copy_(other.x_STD)
        self.done.copy_(other.done)
        self.encoded.copy_(other.encoded)
        torch._foreach_copy_(flat(self.codes), flat(other.codes))
        if self.active_S is not None and other.active_S is not None:
            self.active_S.copy_(other.active_S)


class BlockSampler:
    """Blocks of S sessions. `past` and `mean_SD` change in place and are never replaced."""

    def __init__(
        self,
        model: Listener,
        reference_SD: SD,
        config: SamplerConfig,
        weights: dict[Branch, float],
        *,
        compile: bool = False,
        graph: bool | None = None,
        pack: bool | None = None,
    ) -> None:
        """
        Args:
            reference_SD: normalised. It is read at every block.
            weights: from `guidance_weights`.
            compile: the denoiser by torch.compile.
            pack: weights for products on a CPU (`training.packed`); None: unless compiled, which packs its own.
            graph: capture blocks at the first one, and those of other sizes when they come again; None: where the
                device is a GPU. Where that fails a warning says so, and they are computed as they come.

        Raises:
            UsageError: a model with mask `full`, which cannot stream, or a student that is asked for other evaluations
                than it was distilled for.
        """
        check_student(model.evaluations, config)
        if model.config.mask == "full":
            raise UsageError("a model with mask `full` sees the whole future and cannot stream")
        self.reference_SD, self.mean_SD = reference_SD, reference_SD.clone()
        self.past = tuple(
            empty_cache(own, len(weights) * len(reference_SD), model.config.context) for own, _ in model.attentions()
        )
        self._packed = packed(model) if (not compile if pack is None else pack) else None
        self._model = model if self._packed is None else self._packed.model
        self._config, self._weights = config, weights
        self._levels = noise_levels(config)
        with torch.no_grad():
            t_LT = torch.tensor(self._levels, device=reference_SD.device)[:, None]
            self._modulations = model.modulations(t_LT)[:, None].unbind(0)  # of each level, [1, 1, 8H]
        self._denoise = compiled(model) if compile else self._model.denoise
        self._graph = reference_SD.device.type == "cuda" if graph is None else graph
        self._captured: dict[tuple[int, int], _Captured | None] = {}  # by size of blocks; None: came once
        self._unwritten: Callable[[], None] | None = None

    @property
    def steps(self) -> int:
        """Evaluations of a block."""
        return len(self._levels) - 1

    @property
    def codes_length(self) -> int:
        """Frames whose codes a block of the usual size takes."""
        config = self._model.config
        return config.cross_window + config.block + ahead(config)

    @torch.no_grad()
    def encode(
        self, conditions: Conditions, keep: Keep, start: Start, past: tuple[KeysValues, ...]
    ) -> tuple[tuple[KeysValues, ...], Codes]:
        """What the encoder keeps for its next call, and codes of these frames, which begin with `start`."""
        self._refresh()
        code_BTC, kept = self._model.encoder(conditions, keep, start, past)
        return kept, self._model.codes(code_BTC, start)

    @torch.no_grad()
    def generate(self, given: BlockInputs) -> STD:
        """The motion of a block, normalised [S, T, D]; `write` must follow before the next one."""
        self._refresh()
        if self._graph and (captured := self._captured_for(given)) is not None:
            self._unwritten = captured.write
            return captured.generate(given)
        layout = self._layout(given)
        x_STD = self._evaluate(given, layout)
        self._unwritten = lambda: self._write(given, x_STD, layout)
        return x_STD

    @torch.no_grad()
    def write(self) -> bool:
        """Write the last block into the past, by a pass at t = 1. Returns whether that was still to be done."""
        if self._unwritten is None:
            return False
        self._refresh()
        self._unwritten()
        self._unwritten = None
        return True

    def begin(self, reference_SD: SD) -> None:
        """Begin other sessions, as many as before: as if made anew, and what was captured stays. Normalised."""
        self.reference_SD.copy_(reference_SD)
        self.mean_SD.copy_(reference_SD)
        torch._foreach_zero_(flat(self.past))
        self._unwritten = None

    def _refresh(self) -> None:
        if self._packed is not None:
            self._packed.refresh()

    def _captured_for(self, given: BlockInputs) -> _Captured | None:
        """The last blocks of sessions are of other sizes; one that comes once only is not worth a capture."""
        size = given.x_STD.shape[1], given.codes[0][0].shape[2]
        usual = size == (self._model.config.block, self.codes_length)
        if size not in self._captured and not usual:
            self._captured[size] = None
        elif self._captured.get(size) is None:
            self._captured[size] = self._capture(given)
        return self._captured[size]

    def _capture(self, given: BlockInputs) -> _Captured | None:
        """Capturing calls what is captured, so what lasts is put back."""
        lasting = [self.mean_SD, *flat(self.past)]
        kept = [each.clone() for each in lasting]
        try:
            return _Captured(self._graphed, self._write_graphed, given)
        except RuntimeError as error:
            self._graph = False
            _log.warning("blocks are not captured as a graph, and slower: %s", str(error).partition("\n")[0])
            return None
        finally:
            for each, before in zip(lasting, kept, strict=True):
                each.copy_(before)

    def _graphed(self, given: BlockInputs) -> None:
        given.x_STD.copy_(self._evaluate(given, self._layout(given)))

    def _write_graphed(self, given: BlockInputs) -> None:
        self._write(given, given.x_STD, self._layout(given))

    def _layout(self, given: BlockInputs) -> Layout:
        size, device = given.x_STD.shape[1], given.x_STD.device

        def frames(start: Start, first: int, end: int) -> Tensor:
            return frames_from(start, first, end, device)

        return self._model.layout_of(
            frames(given.done, 0, size),
            frames(given.done, -self._model.config.context, size),
            frames(given.encoded, -given.codes[0][0].shape[2], 0),
        )

    def _evaluate(self, given: BlockInputs, layout: Layout) -> STD:
        x = given.x_STD
        for level, (t, following) in enumerate(pairwise(self._levels)):
            velocity, _ = self._velocity(x, level, given.codes, layout)
            x = x + (following - t) * guided(self._weights, velocity)
        if self._config.anchor:
            x, mean = anchored(x, self.mean_SD, self.reference_SD, self._config)
            self.mean_SD.copy_(_where(given.active_S, mean, self.mean_SD))
        return x

    def _write(self, given: BlockInputs, x_STD: STD, layout: Layout) -> None:
        _, fresh = self._velocity(x_STD, -1, given.codes, layout)
        keep_rows(self.past, fresh, given.active_S)

    def _velocity(self, x_STD: STD, level: int, codes: Codes, layout: Layout) -> tuple[Tensor, tuple[KeysValues, ...]]:
        denoise = self._denoise if x_STD.shape[1] == self._model.config.block else self._model.denoise  # one shape only
        x, reference = (part.repeat(len(self._weights), *(1,) * (part.ndim - 1)) for part in (x_STD, self.reference_SD))
        return denoise(x, reference, self._modulations[level], codes, layout, self.past)


class _Captured:
    """A block and its writing as graphs, on inputs that keep their places."""

    def __init__(
        self, generate: Callable[[BlockInputs], None], write: Callable[[BlockInputs], None], like: BlockInputs
    ) -> None:
        self._inputs = like.clone()
        device = like.x_STD.device
        self._generate = graphs.capture(lambda: generate(self._inputs), device)
        self.write = graphs.capture(lambda: write(self._inputs), device)

    def generate(self, given: BlockInputs) -> STD:
        self._inputs.copy_(given)
        self._generate()
        return self._inputs.x_STD.clone()  # the next block overwrites it


def flat(layers: Iterable[KeysValues]) -> list[Tensor]:
    """Keys and values of all layers, one after the other."""
    return [part for layer in layers for part in layer]


def empty_cache(attention: Attention, rows: int, frames: int) -> KeysValues:
    """Zeros that no mask shows, in the precision of the layer that makes what will stand there."""
    shape = rows, attention.heads, frames, attention.head_size
    zeros = attention.key_value.weight.new_zeros
    return zeros(shape), zeros(shape)


def keep_rows(kept: tuple[KeysValues, ...], fresh: tuple[KeysValues, ...], active_S: Tensor | None) -> None:
    """Move fresh keys and values into kept ones from the right, in place; only in rows of active sessions, if given."""
    for old, new in zip(flat(kept), flat(fresh), strict=True):
        moved = torch.cat([old, new], dim=2)[:, :, new.shape[2] :]
        active_R = None if active_S is None else active_S.repeat(len(old) // len(active_S))
        old.copy_(_where(active_R, moved, old))


def _where(rows: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` in these rows and `old` in the others."""
    return new if rows is None else torch.where(rows.view(-1, *(1,) * (new.ndim - 1)), new, old)


def anchored(x_STD: STD, mean_SD: SD, reference_SD: SD, config: SamplerConfig) -> tuple[STD, SD]:
    """Take off a share of what has separated the motion from its reference for long; all normalised.

    x'(n) = x(n) − anchor · (m(n) − reference), m the mean of x, weighted by exp(−age / anchor_seconds). A lasting
    offset shrinks to (1 − anchor) of itself; what is quick against `anchor_seconds` passes. The result is what the
    model sees as its past, so an offset that each block adds to the one before stays below offset / anchor.

    Returns: x', and m of the last frame.
    """
    share = -math.expm1(-1 / (config.anchor_seconds * FPS))
    frames = []
    for x_SD in x_STD.unbind(1):
        mean_SD = torch.lerp(mean_SD, x_SD, share)
        frames.append(x_SD - config.anchor * (mean_SD - reference_SD))
    return torch.stack(frames, dim=1), mean_SD


def compiled(model: Listener) -> Callable[..., tuple[Tensor, tuple[KeysValues, ...]]]:
    """`model.denoise` by torch.compile, for one shape of inputs. On the CPU weights are packed for its products."""
    packed: dict[str, Any] = {"freezing": model.mean.device.type == "cpu"}
    return torch.compile(model.denoise, dynamic=False, fullgraph=True, options=packed)


def noise_levels(config: SamplerConfig) -> list[float]:
    """Noise levels from noise to motion; the steps of Euler's method lie between them."""
    return torch.linspace(0, 1, config.steps + 1).tolist()
