"""Mean cross-entropy of parts of token sequences under a causal language model.

Sequences are padded to a few lengths, and all forward passes of one length have one shape, filled up with padding where
there are too few sequences. On a CPU each pass has one thread. So the same kernels add the same numbers in the same order,
whatever else is in a batch, and a loss is the same to the last bit in any arrangement of the rows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from hf_evol import models
from hf_evol.scoring.token_losses import SplitModel, split_model

if TYPE_CHECKING:
    import numpy as np
    import torch

OUT_OF_MEMORY = "out_of_memory"
Span = tuple[int, int]
Loss = float | Literal["out_of_memory"] | None

_budgets: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # what worked, once memory has run out


@dataclass(frozen=True)
class TokenSpans:
    """A token sequence, and the parts of it whose mean loss is wanted.

    Args:
        ids: token ids, int32.
        parts: each some spans (start, end) of token positions, counted from 0, end not included. The token at
            position 0 is never predicted, so it never counts.
    """

    ids: np.ndarray
    parts: tuple[tuple[Span, ...], ...]


def mean_losses(
    model: Any,
    sequences: Sequence[TokenSpans],
    batch_tokens: int | None = None,
    known: MutableMapping[bytes, Loss] | None = None,
) -> Iterator[list[tuple[int, list[Loss]]]]:
    """Yield, batch by batch, (index of a sequence, mean loss of each of its parts in nats per token).

    A part without predicted tokens gives None; one whose loss overflows, a value that is not finite; and one of a
    sequence that is too long for the memory, even alone, `OUT_OF_MEMORY`. Sequences are sorted by length and
    padded on the right. A part's loss depends on the tokens up to its end alone, so of parts that are equal so far, in
    sequences padded to one length, one is computed.

    Args:
        model: a causal language model in evaluation mode.
        sequences: not longer than the model's context.
        batch_tokens: about so many tokens, padding included, in each forward pass (or one sequence); by default
            `token_budget`. Halved, for this process, when memory runs out.
        known: losses of parts met before; kept up to date here.
    """
    known = {} if known is None else known
    parts, context = split_model(model), models.context_length(model.config)
    keys = [[_key(sequence.ids, spans, context) for spans in sequence.parts] for sequence in sequences]
    users, waiting, work = defaultdict(list), [], []
    for place in sorted(range(len(sequences)), key=lambda place: (-len(sequences[place].ids), place)):
        parts_by_key = dict(zip(keys[place], sequences[place].parts, strict=True))
        new = [(key, spans) for key, spans in parts_by_key.items() if key not in known and key not in users]
        unknown = {key for key in keys[place] if key not in known}
        for key in unknown:
            users[key].append(place)
        waiting.append((place, len(unknown)))
        if new:
            work.append((sequences[place], new))
    missing = dict(waiting)
    yield [(place, [known[key] for key in keys[place]]) for place, count in missing.items() if not count]
    for results in batches(model, parts, work, batch_tokens, LossBatch):
        finished = []
        for key, loss in results:
            known[key] = loss
            for place in users.pop(key):
                missing[place] -= 1
                if not missing[place]:
                    finished.append((place, [known[key] for key in keys[place]]))
        yield finished


Work = tuple[TokenSpans, list[tuple[Any, tuple[Span, ...]]]]  # with a key for each of the parts


def _end(spans: tuple[Span, ...]) -> int:
    return max((end for _, end in spans), default=0)


def _key(ids: np.ndarray, spans: tuple[Span, ...], context: int) -> bytes:
    place = repr((padded_length(len(ids), context), spans)).encode()
    return hashlib.blake2b(ids[: _end(spans)].tobytes() + place, digest_size=16).digest()


def padded_length(n_tokens: int, context: int) -> int:
    """The length that a sequence is padded to: at most an eighth longer, or a multiple of 16, within the context."""
    step = max(16, 1 << max(0, n_tokens.bit_length() - 4))
    return max(n_tokens, min(-(-max(2, n_tokens) // step) * step, context))


def batches(
    model: Any, parts: SplitModel, work: list[Work], batch_tokens: int | None, kind: type[Batch]
) -> Iterator[list[tuple[Any, Any]]]:
    """Run sequences, longest first, and yield what ``kind`` says of their parts, or `OUT_OF_MEMORY`, by key.

    While a GPU works on one batch, the next is made ready.
    """
    context, under_way = models.context_length(model.config), deque()
    with _side_by_side(model) as (submit, most):
        while work or under_way:
            while work and len(under_way) < most:
                wanted = batch_tokens or token_budget(model)
                budget = min(wanted, _budgets.get(model, wanted))
                width = padded_length(len(work[0][0].ids), context)
                count = max(1, min(budget, parts.max_tokens or budget) // width)
                taken = [item for item in work[:count] if padded_length(len(item[0].ids), context) == width]
                under_way.append((submit(_launch, kind, parts, taken, (count, width)), taken, count, width))
                work = work[len(taken) :]
            future, taken, count, width = under_way.popleft()
            if batch := future.result():
                yield batch.results()
            elif count > 1:
                _budgets[model] = min(count // 2 * width, _budgets.get(model, count * width))
                work = sorted([*taken, *work], key=lambda item: -len(item[0].ids))
            else:
                failed = taken[0]
                yield [(key, OUT_OF_MEMORY) for key, spans in failed[1] if _end(spans) == len(failed[0].ids)]
                work = sorted([*work, *_shortened(failed)], key=lambda item: -len(item[0].ids))


@contextmanager
def _side_by_side(model: Any) -> Iterator[tuple[Callable[..., Future], int]]:
    """What launches a batch, and how many are under way at once.

    On a CPU each pass has one thread, and as many passes run as there are threads: quicker than to share out every
    product, and the numbers don't depend on how many there are.
    """
    import torch

    if model.device.type != "cpu":
        yield _at_once, 2
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads take it over
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.submit, threads + 1
    finally:
        torch.set_num_threads(threads)


def _at_once(function: Callable[..., Any], *args: Any) -> Future:
    future: Future = Future()
    future.set_result(function(*args))
    return future


def _shortened(work: Work) -> Iterator[Work]:
    """The parts that end before their sequence does, each with the tokens up to its end."""
    sequence, wanted = work
    for key, spans in wanted:
        if (end := _end(spans)) < len(sequence.ids):
            yield TokenSpans(sequence.ids[:end], (spans,)), [(key, spans)]


def _launch(kind: type[Batch], parts: SplitModel, work: list[Work], shape: tuple[int, int]) -> Batch | None:
    """A batch under way, or None if memory ran out; what it held is free again then."""
    try:
        return kind(parts, work, shape)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not models.is_out_of_memory(error):
            raise
        return None


class Batch:
    """One forward pass of a given shape, under way on a GPU until `results` waits for it."""

    def __init__(self, parts: SplitModel, work: list[Work], shape: tuple[int, int]) -> None:
        import numpy as np

        self.work = work
        ids = np.zeros(shape, dtype=np.int64)
        rows, positions, self.keys, self.counts = [], [], [], []
        for row, (sequence, wanted) in enumerate(work):
            ids[row, : len(sequence.ids)] = sequence.ids
            for key, spans in wanted:
                at = [np.arange(max(start, 1), end) for start, end in spans]
                positions += at
                self.keys.append(key)
                self.counts.append(sum(map(len, at)))
                rows.append(np.full(self.counts[-1], row))
        self.values: torch.Tensor | None = None
        if sum(self.counts):
            self.values = self.measure(parts, ids, np.concatenate(rows), np.concatenate(positions))

    def measure(self, parts: SplitModel, ids: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        """A value, or some, for each of the positions."""
        raise NotImplementedError

    def results(self) -> list[tuple[Any, Any]]:
        """For each part its key, and what is made of its values."""
        raise NotImplementedError


class LossBatch(Batch):
    """Mean losses."""

    def measure(self, parts: SplitModel, ids: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        return parts.losses(ids, rows, positions)

    def results(self) -> list[tuple[bytes, Loss]]:
        import numpy as np

        owners = np.repeat(np.arange(len(self.keys)), self.counts)
        losses = np.zeros(0) if self.values is None else self.values.double().cpu().numpy()
        sums = np.bincount(owners, weights=losses, minlength=len(self.keys))
        return [
            (key, float(total) / count if count else None)
            for key, total, count in zip(self.keys, sums, self.counts, strict=True)
        ]


def token_budget(model: Any) -> int:
    """How many tokens to run at once. It does not depend on the free memory, as losses would then, too, in the last digit.

    A GPU is busy with 4096 tokens. What fits a CPU's caches is quickest there, and a few rows should not take long.
    """
    return 4096 if model.device.type == "cuda" else 512
