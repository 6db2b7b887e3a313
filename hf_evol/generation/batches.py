"""Batches in one cache: what prompts have in common at the beginning is read once, and a row that ends makes room for another."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from hf_evol import models, progress
from hf_evol.errors import ModelError
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.sampling import CYCLE, LOOP, sample, uniforms

logger = logging.getLogger(__name__)

_PASS = 40  # tokens that a CPU reads in the time that a forward pass takes beside its tokens
_PASS_ON_GPU = 2000
_SPARE = 128  # columns that a cache has beyond those in use
_REFILL = 3 / 4  # of the most rows: from here down, waiting ones join; few at a time take longer to read
_SHARE = 1 / 2  # of the free memory, for the cache
# cuDNN's attention makes a plan for each length, which takes longer than the step itself.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass
class _Row:
    """A request in work."""

    place: int
    prompt: list[int]
    limit: int
    key: str
    noise: np.ndarray | None = None  # drawn as it joins: that of all waiting rows would fill the memory
    generated: list[int] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.generated


def generate_tokens(
    model: Any, requests: Mapping[int, Any], params: SamplingParams, stop_ids: set[int], size: int
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Yield (place, generated tokens, top-1 probabilities) as requests finish, at most ``size`` of them in work at a time.

    Raises:
        ModelError: the model has no key-value cache.
    """
    rows: list[_Row] = []
    # Of about one length, so that padding at most doubles a batch; then those next to each other that begin alike.
    order = sorted(
        requests, key=lambda place: (len(requests[place].prompt).bit_length(), requests[place].prompt, place)
    )
    waiting = deque(_Row(place, of.prompt, of.limit, of.key) for place in order for of in [requests[place]])
    batch = _Shared(model) if _attends_to_all(model) else _Padded(model)
    while rows or waiting:
        with torch.inference_mode(), sdpa_kernel(_KERNELS):
            joining = [_drawn(waiting.popleft(), params) for _ in range(batch.room(waiting, size))]
            batch.read(joining, lambda share, old=rows, new=joining: _report(old, new, share))
            rows = rows + joining
            logits = batch.step([row.tokens[-1] for row in rows])
            tokens = _choose(logits, rows, params)
        progress.stepped(_pass_cost(model))
        ended = set()
        for line, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            row.generated.append(token)
            if token in stop_ids or len(row.generated) == row.limit or _loops(row.generated):
                ended.add(line)
        finished, lines = [rows[line] for line in ended], _closed_up(len(rows), ended)
        fit = batch.fitting(lines)
        waiting.extendleft(rows[line] for line in reversed(lines[fit:]))  # to go on later from where they are
        with torch.inference_mode():
            batch.keep(lines[:fit])
        rows = [rows[line] for line in lines[:fit]]
        _report(rows)
        yield from ((row.place, row.generated, row.probs) for row in finished)


def _loops(tokens: list[int]) -> bool:
    if len(tokens) < LOOP or len(tokens) % CYCLE:
        return False
    end = tokens[-LOOP:]
    return any(end[period:] == end[:-period] for period in range(1, CYCLE + 1))


def _drawn(row: _Row, params: SamplingParams) -> _Row:
    if row.noise is None and params.temperature > 0:
        row.noise = uniforms(row.key, row.limit)
    return row


def _report(rows: Sequence[_Row], reading: Sequence[_Row] = (), share: float = 1.0) -> None:
    read, to_read = (sum(len(row.prompt) for row in part) for part in (rows, reading))
    written, in_hand = [len(row.generated) for row in rows], len(rows) + len(reading)
    progress.underway(written, in_hand=in_hand, to_read=read + to_read, reading=read + to_read * share)


def _choose(logits: torch.Tensor, rows: Sequence[_Row], params: SamplingParams) -> list[int]:
    if asked := [line for line, row in enumerate(rows) if len(row.generated) < params.top1_probs]:
        for line, prob in zip(asked, logits[asked].float().softmax(-1).amax(-1).tolist(), strict=True):
            rows[line].probs.append(prob)
    noise = None
    if params.temperature > 0:
        drawn = [row.noise[len(row.generated)] for row in rows]
        noise = torch.tensor(drawn, dtype=torch.float32, device=logits.device)
    return sample(logits, params, noise).tolist()


def _closed_up(count: int, ended: set[int]) -> list[int]:
    """The lines that go on, the last of them in the places of those that ended, so that few move."""
    going = [line for line in range(count) if line not in ended]
    moving = iter(line for line in going if line >= len(going))
    return [line if line not in ended else next(moving) for line in range(len(going))]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts have in common at the beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _groups(before: Sequence[int], prompts: Sequence[list[int]], pass_cost: int) -> Iterator[tuple[int, int]]:
    """Prompts that follow each other, as (first, end) of those that are read in one pass: of all divisions, that with the
    fewest tokens and passes. A pass reads what its prompts do not have in common with the last of the pass before."""
    common = [_common(one, other) for one, other in pairwise([before, *prompts])]
    best: list[tuple[int, int]] = [(0, 0)]  # the cost of the prompts up to here, and where their last group begins
    for end in range(1, len(prompts) + 1):
        longest, shared, costs = 0, len(prompts[end - 1]), []
        for first in range(end - 1, -1, -1):
            longest, shared = max(longest, len(prompts[first])), min(shared, common[first])
            costs.append((best[first][0] + pass_cost + (end - first) * (longest - shared), first))
        best.append(min(costs))
    ends = [len(prompts)]
    while ends[-1]:
        ends.append(best[ends[-1]][1])
    return pairwise(reversed(ends))


def _pass_cost(model: Any) -> int:
    return _PASS if model.device.type == "cpu" else _PASS_ON_GPU


def _attends_to_all(model: Any) -> bool:
    """Whether all layers keep the keys and values of all tokens."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def _cache_name(model: Any) -> str:
    """What the model calls its cache, as its answer to one token says: ``past_key_values`` until transformers 5.23, then
    ``cache``. A `ModelError` if it has none."""
    if model not in _names:
        with torch.inference_mode():
            out = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=True)
        found = next((name for name in ("cache", "past_key_values") if _is_filled(out.get(name))), None)
        if found is None:
            raise ModelError(
                f"The model {model.name_or_path!r} ({type(model).__name__}) keeps its state in a form of its own; only "
                "models with a key-value cache can generate here. Serve it elsewhere, or choose another."
            )
        _names[model] = found
    return _names[model]


_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _is_filled(cache: Any) -> bool:
    return isinstance(cache, Cache) and any(getattr(layer, "keys", None) is not None for layer in cache.layers)


@contextmanager
def _by_layers(model: Any, report: Callable[[float], None]) -> Iterator[None]:
    """Report the share of the layers that have read: to read the prompts of a batch may take minutes."""
    layers = next((part for part in model.modules() if isinstance(part, torch.nn.ModuleList)), ())
    shares = (number / len(layers) for number in range(1, len(layers) + 1))
    hooks = [layer.register_forward_hook(lambda *_: report(next(shares, 1.0))) for layer in layers]
    report(0.0)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Columns:
    """Where the rows of a batch stand in its cache. All end in the same column, so that padding is on the left."""

    start: int = 0
    end: int = 0
    at: torch.Tensor | None = None  # the column to write, while a step over the whole room is recorded


class _Layer(DynamicLayer):
    """A layer with room for more rows and tokens than it holds: a step writes a column, and copies nothing."""

    def __init__(self, columns: _Columns) -> None:
        super().__init__()
        self.columns, self.is_initialized = columns, True
        self.room: list[torch.Tensor] = []  # for keys and for values: (rows, heads, columns, dimensions)

    def get_seq_length(self) -> int:
        return self.columns.end - self.columns.start

    def reserve(self, like: Sequence[torch.Tensor], rows: int, end: int) -> None:
        """Make room, where what is held ends at the column ``end``."""
        held, old = self.get_seq_length(), self.room
        width = -(-(end + _SPARE) // 64) * 64  # kernels like even numbers
        self.room = [part.new_zeros(rows, part.shape[1], width, part.shape[3]) for part in like]
        for new, part in zip(self.room, old, strict=bool(old)):
            new[: len(part), :, end - held : end] = part[:rows, :, self.columns.start : self.columns.end]

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if self.columns.at is not None:
            self.keys, self.values = (
                room.index_copy_(2, self.columns.at, new) for room, new in zip(self.room, (keys, values), strict=True)
            )
            return self.keys, self.values
        if not self.room:
            self.reserve((keys, values), len(keys), self.columns.end)
        after = self.columns.end + keys.shape[2]
        for room, new in zip(self.room, (keys, values), strict=True):
            room[: len(new), :, self.columns.end : after] = new
        self.keys, self.values = (room[: len(keys), :, self.columns.start : after] for room in self.room)
        return self.keys, self.values


class _Recorded:
    """A step of all rows and columns that a batch has room for, as a CUDA graph. To launch its kernels one by one takes
    longer than they run."""

    def __init__(self, model: Any, cache: Cache, columns: _Columns) -> None:
        self.model, self.cache, self.room = model, cache, cache.layers[0].room
        rows, width = self.room[0].shape[0], self.room[0].shape[2]
        self.inputs = torch.zeros(2, rows, 1, dtype=torch.long, device=model.device)  # tokens, and lengths before them
        self.column = torch.full((1,), columns.end, device=model.device)
        self.places = torch.arange(width, device=model.device)
        self.graph, columns.at = torch.cuda.CUDAGraph(), self.column
        try:
            with torch.cuda.device(model.device):
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):  # what libraries set up at first must not be recorded
                    self._forward()
                torch.cuda.current_stream().wait_stream(stream)
                with torch.cuda.graph(self.graph, stream=stream):
                    self.logits = self._forward()
        finally:
            columns.at = None

    def _forward(self) -> torch.Tensor:
        tokens, lengths = self.inputs
        mask = (self.places <= self.column) & (self.places >= self.column - lengths)
        out = self.model(
            input_ids=tokens, attention_mask=mask[:, None, None], position_ids=lengths, use_cache=True, logits_to_keep=1,
            **{_cache_name(self.model): self.cache},
        )  # fmt: skip
        return out.logits[:, -1]

    def __call__(self, tokens: list[int], lengths: list[int], column: int) -> torch.Tensor:
        self.inputs[:, : len(tokens), 0] = torch.tensor([tokens, lengths], device=self.inputs.device)
        self.inputs[:, len(tokens) :] = 0
        self.column.fill_(column)
        self.graph.replay()
        return self.logits[: len(tokens)]


class _Shared:
    """A batch of a model whose layers attend to all tokens. Of the prompt read last, the keys and values are kept: those
    of what the next ones have in common with it are copied from there."""

    def __init__(self, model: Any) -> None:
        self.model, self.columns, self.lengths = model, _Columns(), list[int]()
        self.cache = Cache(layers=[_Layer(self.columns) for _ in DynamicCache(config=model.config).layers])
        self.last: list[int] = []
        self.last_read: list[list[torch.Tensor]] = []  # by layer, its keys and values
        self.most = 0  # columns of all rows together that fit into memory; known after a step
        self.recorded: _Recorded | None = None
        self.records = model.device.type == "cuda" and model.config._attn_implementation == "sdpa"

    def room(self, waiting: Sequence[_Row], size: int) -> int:
        """How many of the waiting rows can join."""
        count, width, joining = len(self.lengths), max(self.lengths, default=0), 0
        while count <= _REFILL * size and joining < min(len(waiting), size - count):
            width, rows = max(width, len(waiting[joining].tokens)), count + joining + 1
            if rows > 1 and rows * (width + _SPARE) > self.most:
                break
            joining += 1
        return joining

    def fitting(self, lines: list[int]) -> int:
        """How many of these rows have memory for a step."""
        width = max((self.lengths[line] for line in lines), default=0) + 1
        return min(len(lines), max(1, self.most // width))

    def read(self, rows: Sequence[_Row], report: Callable[[float], None]) -> None:
        """Let rows join: all of their tokens but the last, which is the next to be given to the model."""
        prompts = [row.tokens[:-1] for row in rows]
        total = max(1, sum(map(len, prompts)))
        count, done = len(self.lengths) + len(rows), 0
        for first, end in _groups(self.last, prompts, _pass_cost(self.model)):
            group = prompts[first:end]
            size = sum(map(len, group))
            with _by_layers(self.model, lambda share, d=done, s=size: report((d + s * share) / total)):
                read = self._read(group)
            done += size
            self._join(group, read, count)

    def _read(self, prompts: list[list[int]]) -> list[list[torch.Tensor]]:
        """By layer, keys and values of prompts, which begin with the same column."""
        shared = min(_common(self.last, prompt) for prompt in prompts)
        rests = [prompt[shared:] for prompt in prompts]
        width = max(map(len, rests))
        past = [[part[:, :, :shared].expand(len(prompts), -1, -1, -1) for part in layer] for layer in self.last_read]
        if not width:
            return past
        device = self.model.device
        ids = torch.tensor([rest + [0] * (width - len(rest)) for rest in rests], device=device)
        positions = torch.arange(shared, shared + width, device=device).expand(len(prompts), -1)
        inputs = {"input_ids": ids, "position_ids": positions, "use_cache": True, "logits_to_keep": 1}
        if shared:
            inputs[_cache_name(self.model)] = DynamicCache([tuple(layer) for layer in past])
        return [[layer.keys, layer.values] for layer in self.model(**inputs)[_cache_name(self.model)].layers]

    def _join(self, prompts: list[list[int]], read: list[list[torch.Tensor]], count: int) -> None:
        lengths = [len(prompt) for prompt in prompts]
        if max(lengths):
            self._reserve(read, count, max(lengths))
            for layer, parts in zip(self.cache.layers, read, strict=True):
                for room, part in zip(layer.room, parts, strict=True):
                    for line, length in enumerate(lengths):
                        at = slice(self.columns.end - length, self.columns.end)
                        room[len(self.lengths) + line, :, at] = part[line, :, :length]
            self.last = prompts[-1]
            self.last_read = [[part[-1:, :, : lengths[-1]].clone() for part in parts] for parts in read]
        self._hold(self.lengths + lengths)

    def _reserve(self, like: list[list[torch.Tensor]], rows: int, width: int) -> None:
        """Have room for so many rows, of which the new ones have at most ``width`` tokens, and for a step."""
        room = self.cache.layers[0].room
        if room and len(room[0]) >= rows and width <= self.columns.end < room[0].shape[2]:
            return
        end = max(width, self.columns.end - self.columns.start)
        for layer, parts in zip(self.cache.layers, like, strict=True):
            layer.reserve(parts, rows, end)
        self.columns.start, self.columns.end = end - (self.columns.end - self.columns.start), end

    def _hold(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.columns.start = self.columns.end - max(lengths, default=0)

    def step(self, tokens: list[int]) -> torch.Tensor:
        """Logits of the next tokens, of shape (rows, vocabulary), after these."""
        if self.cache.layers[0].room:
            self._reserve([layer.room for layer in self.cache.layers], len(tokens), 0)
        logits = self._recorded(tokens) if self.records else None
        if logits is None:
            logits = self._stepped(tokens)
        self.columns.end += 1
        self._hold([length + 1 for length in self.lengths])
        if not self.most:
            rooms = [room for layer in self.cache.layers for room in layer.room]
            column = sum(room.nbytes for room in rooms) / (len(rooms[0]) * rooms[0].shape[2])
            self.most = int(_free_bytes(self.model.device) * _SHARE / column)
        return logits

    def _stepped(self, tokens: list[int]) -> torch.Tensor:
        device, width = self.model.device, max(self.lengths)
        lengths = torch.tensor(self.lengths, device=device)[:, None]
        mask = (torch.arange(width + 1, device=device) >= width - lengths).long()
        out = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None], attention_mask=mask, position_ids=lengths,
            use_cache=True, logits_to_keep=1, **{_cache_name(self.model): self.cache},
        )  # fmt: skip
        return out.logits[:, -1]

    def _recorded(self, tokens: list[int]) -> torch.Tensor | None:
        """As `_stepped`; None where there is no room yet, or the model can't be recorded."""
        room = self.cache.layers[0].room
        if not room:
            return None
        if self.recorded is None or self.recorded.room is not room:
            self.recorded = None  # its memory first
            try:
                self.recorded = _Recorded(self.model, self.cache, self.columns)
            except Exception as error:  # whatever a model of any kind makes of the mask, or of being recorded
                if models.is_out_of_memory(error):
                    raise
                logger.debug("The steps of %s can't be recorded: %s", self.model.name_or_path, error)
                self.records = False
                return None
        return self.recorded(tokens, self.lengths, self.columns.end)

    def keep(self, lines: list[int]) -> None:
        """Let these rows go on, in this order."""
        for target, source in enumerate(lines):
            if target != source:
                for room in (room for layer in self.cache.layers for room in layer.room):
                    held = room[:, :, self.columns.start : self.columns.end]
                    held[target] = held[source]
        self._hold([self.lengths[line] for line in lines])


class _Padded:
    """A batch of a model with layers of other kinds, in the library's cache. Its rows begin together."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)
        self.state: dict[str, Any] = {}  # the cache, under the model's own name for it

    def room(self, waiting: Sequence[_Row], size: int) -> int:
        return 0 if len(self.mask) else min(len(waiting), size)

    def fitting(self, lines: list[int]) -> int:
        return len(lines)

    def read(self, rows: Sequence[_Row], report: Callable[[float], None]) -> None:
        if not rows:
            return
        prompts = [row.tokens[:-1] for row in rows]
        width, device = max(map(len, prompts)), self.model.device
        self.state = {}
        self.mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        if width:
            with _by_layers(self.model, report):
                self._forward([[0] * (width - len(p)) + p for p in prompts])

    def _forward(self, ids: list[list[int]]) -> torch.Tensor:
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -len(ids[0]) :]
        out = self.model(
            input_ids=torch.tensor(ids, device=self.model.device), attention_mask=self.mask, position_ids=positions,
            use_cache=True, logits_to_keep=1, **self.state,
        )  # fmt: skip
        name = _cache_name(self.model)
        self.state = self.state or {name: out[name]}
        return out.logits[:, -1]

    def step(self, tokens: list[int]) -> torch.Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return self._forward([[token] for token in tokens])

    def keep(self, lines: list[int]) -> None:
        if lines == list(range(len(self.mask))):
            return
        kept = torch.tensor(lines, dtype=torch.long, device=self.model.device)
        next(iter(self.state.values())).reorder_cache(kept)
        self.mask = self.mask[kept]


def _free_bytes(device: torch.device) -> int:
    """Memory that a device, or this machine, has free for this process."""
    if device.type == "cuda":  # and what PyTorch holds for later
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    share = min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))  # of a worker among others
    return int(_free_bytes_here() * share)


def _free_bytes_here() -> int:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return 4 * 2**30
    try:  # of a container; files that were read lie in memory until it is needed
        most, used, of = (Path("/sys/fs/cgroup", f"memory.{name}").read_text() for name in ("max", "current", "stat"))
        parts = dict(line.split() for line in of.splitlines())
        return min(free, int(most) - int(used) + int(parts["active_file"]) + int(parts["inactive_file"]))
    except (OSError, ValueError, KeyError):  # none, or no limit
        return free
