"""Mean cross-entropy of parts of token sequences under a causal language model.

Sequences are padded to a few lengths, and all forward passes of one length have one shape, filled up with padding where
there are too few sequences. On a CPU each pass has one thread. So the same kernels add the same numbers in the same order,
whatever else is in a batch, and a loss is the same to the last bit in any arrangement of the rows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
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
Spans = tuple[tuple[int, int], ...]
Loss = float | Literal["out_of_memory"] | None

_budgets: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # what worked, once memory has run out


@dataclass(frozen=True)
class TokenSpans:
    """A token sequence, and the parts of it that are measured.

    Args:
        ids: token ids, int32.
        parts: each some spans (start, end) of token positions, counted from 0, end not included. The token at
            position 0 is never predicted, so it never counts.
    """

    ids: np.ndarray
    parts: tuple[Spans, ...]

    @classmethod
    def of(cls, ids: Sequence[int], *parts: Iterable[tuple[int, int]]) -> TokenSpans:
        """From a list of token ids."""
        import numpy as np

        return cls(np.asarray(ids, dtype=np.int32), tuple(tuple(part) for part in parts))


Work = tuple[TokenSpans, list[Any]]  # with a key for each of the parts


def mean_losses(
    model: Any,
    groups: Sequence[Sequence[TokenSpans]],
    batch_tokens: int | None = None,
    known: MutableMapping[bytes, Loss] | None = None,
) -> Iterator[list[tuple[int, list[Loss]]]]:
    """Yield, batch by batch, (index of a group of sequences, mean loss of each of their parts in nats per token).

    A part without predicted tokens gives None; one whose loss overflows, a value that is not finite; and one of a
    sequence that is too long for the memory, even alone, `OUT_OF_MEMORY`. A part's loss depends on the tokens up to its
    end alone, so of parts that are equal so far, in sequences padded to one length, one is computed.

    Args:
        model: a causal language model in evaluation mode.
        groups: of sequences not longer than the model's context.
        batch_tokens: as of `measured`.
        known: losses of parts met before; kept up to date here.
    """
    known = {} if known is None else known
    context = models.context_length(model.config)
    keys: list[list[bytes]] = [[] for _ in groups]
    users, work = defaultdict(set), []
    for place, group in enumerate(groups):
        for sequence in group:
            new = {}
            for spans in sequence.parts:
                key = _key(sequence.ids, spans, context)
                keys[place].append(key)
                if key not in known and key not in users:
                    new[key] = spans
                users[key].add(place)
            if new:
                work.append((TokenSpans(sequence.ids, tuple(new.values())), list(new)))

    def complete(places: Iterable[int]) -> list[tuple[int, list[Loss]]]:
        return [(place, [known[key] for key in keys[place]]) for place in places if known.keys() >= set(keys[place])]

    yield complete(range(len(groups)))
    for results in measured(model, work, SplitModel.losses, batch_tokens):
        known.update((key, _mean(values)) for key, values in results)
        yield complete(set().union(*(users[key] for key, _ in results)))


def _key(ids: np.ndarray, spans: Spans, context: int) -> bytes:
    place = repr((padded_length(len(ids), context), spans)).encode()
    return hashlib.blake2b(ids[: _end(spans)].tobytes() + place, digest_size=16).digest()


def _end(spans: Spans) -> int:
    return max((end for _, end in spans), default=0)


def _mean(values: np.ndarray | None) -> Loss:
    if values is None:
        return OUT_OF_MEMORY
    return float(values.mean()) if len(values) else None


def measured(
    model: Any, work: list[Work], measure: Callable[..., torch.Tensor], batch_tokens: int | None
) -> Iterator[list[tuple[Any, np.ndarray | None]]]:
    """Yield, batch by batch, (a part's key, in float64 what is measured at each of its predicted tokens).

    It is None where the memory can't hold a sequence, even alone; parts that end before it does are tried again.

    Args:
        measure: `SplitModel.losses` or `SplitModel.confidences`.
        batch_tokens: as of `run_batches`.
    """
    import numpy as np
    import torch

    split = split_model(model)

    def forward(places: list[int], shape: tuple[int, int]) -> tuple[list[int], torch.Tensor]:
        ids = np.zeros(shape, dtype=np.int64)
        rows, positions, counts = [], [], []
        for row, place in enumerate(places):
            sequence = work[place][0]
            ids[row, : len(sequence.ids)] = sequence.ids
            for spans in sequence.parts:
                at = [np.arange(max(start, 1), end) for start, end in spans]
                positions += at
                counts.append(sum(map(len, at)))
                rows.append(np.full(counts[-1], row))
        if not sum(counts):
            return counts, torch.zeros(0)
        return counts, measure(split, ids, np.concatenate(rows), np.concatenate(positions))

    while work:
        shorter = []
        lengths = [len(sequence.ids) for sequence, _ in work]
        for places, result in run_batches(model, lengths, forward, batch_tokens, split.max_tokens):
            if result is None:
                sequence, keys = work[places[0]]
                for key, spans in zip(keys, sequence.parts, strict=True):
                    if (end := _end(spans)) < len(sequence.ids):
                        shorter.append((TokenSpans(sequence.ids[:end], (spans,)), [key]))
                    else:
                        yield [(key, None)]
                continue
            counts, values = result
            parts = np.split(values.cpu().double().numpy(), np.cumsum(counts)[:-1])
            yield list(zip([key for place in places for key in work[place][1]], parts, strict=True))
        work = shorter


def padded_length(n_tokens: int, context: int) -> int:
    """The length that a sequence is padded to: at most an eighth longer, or a multiple of 16, within the context."""
    step = max(16, 1 << max(0, n_tokens.bit_length() - 4))
    return max(n_tokens, min(-(-max(2, n_tokens) // step) * step, context))


def run_batches(
    model: Any,
    lengths: Sequence[int],
    forward: Callable[[list[int], tuple[int, int]], Any],
    batch_tokens: int | None,
    max_tokens: int | None = None,
) -> Iterator[tuple[list[int], Any]]:
    """Run sequences, longest first, and yield (their places, what ``forward`` gives for them).

    That is None for a single one that the memory can't hold. While a GPU works on one batch, the next is made ready.

    Args:
        lengths: of the sequences, in tokens.
        forward: runs the sequences at some places, in a batch of the given shape: more rows, and wider, than they need.
        batch_tokens: about so many tokens, padding included, in each forward pass (or one sequence); by default 4096 on a
            GPU, 512 elsewhere: a GPU is busy with these; what fits a CPU's caches is quickest there, and a few rows should
            not take long. It does not depend on the free memory, as results would then, too, in the last digit. Halved,
            for this process, when memory runs out.
        max_tokens: the most tokens of a batch, whatever ``batch_tokens`` says.
    """
    wanted = batch_tokens or (4096 if model.device.type == "cuda" else 512)
    context, under_way = models.context_length(model.config), deque()
    widths = [padded_length(length, context) for length in lengths]
    waiting = sorted(range(len(widths)), key=lambda place: -widths[place])
    with _side_by_side(model) as (submit, most):
        while waiting or under_way:
            while waiting and len(under_way) < most:
                width = widths[waiting[0]]
                count = max(1, min(wanted, _budgets.get(model, wanted), max_tokens or wanted) // width)
                batch = [place for place in waiting[:count] if widths[place] == width]
                under_way.append((submit(_attempt, forward, batch, (count, width)), batch, count, width))
                waiting = waiting[len(batch) :]
            future, batch, count, width = under_way.popleft()
            result = future.result()
            if result is None and count > 1:
                _budgets[model] = min(count // 2 * width, _budgets.get(model, count * width))
                waiting = sorted([*batch, *waiting], key=lambda place: -widths[place])
            else:
                yield batch, result


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


def _attempt(forward: Callable[..., Any], batch: list[int], shape: tuple[int, int]) -> Any:
    """What ``forward`` gives, or None if memory ran out; what it held is free again then."""
    try:
        return forward(batch, shape)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not models.is_out_of_memory(error):
            raise
        return None
