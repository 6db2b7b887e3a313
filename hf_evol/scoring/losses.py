"""Mean cross-entropy of parts of token sequences under a causal language model.

Each sequence is padded to one of a few lengths, by its own alone, and a forward pass has sequences of one length. On a
CPU each pass has one thread. In products of 16 rows or more MKL then adds the same float32 numbers in the same order, so
a loss is the same to the last bit in any arrangement of the rows. In bfloat16, and on a GPU, the number of rows decides
which kernel adds: that would take passes of one shape, filled up, which cost a third of the time where rows are few.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from hf_evol import models

if TYPE_CHECKING:
    import torch

OUT_OF_MEMORY = "out_of_memory"
Loss = float | Literal["out_of_memory"] | None
Forward = Callable[[list[int], int], Any]  # from places, and the length that they are padded to, to results
# Of each kind of device, the tokens of a forward pass: a GPU is busy with these, and a CPU's caches hold what comes of them.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 4096}
# Of how many batches in the order given the longest sequences are run first: few, so that what belongs together is
# finished soon, and little is lost with the process; more on a GPU, whose passes are short.
_TURN = {"cpu": 8, "cuda": 64}

_budgets: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # what worked, once memory has run out


class TokenSpans(NamedTuple):
    """A token sequence, and the parts of it that are measured: each some spans (start, end) of positions, counted from
    0, the end not included. The token at position 0 is never predicted, so it never counts."""

    ids: tuple[int, ...]
    parts: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, ids: Iterable[int], *parts: Iterable[tuple[int, int]]) -> TokenSpans:
        return cls(tuple(ids), tuple(map(tuple, parts)))


def mean_losses(
    model: Any, groups: Sequence[Sequence[TokenSpans]], batch_tokens: int | None = None
) -> Iterator[list[tuple[int, list[Loss]]]]:
    """Yield, batch by batch, (index of a group of sequences, mean loss of each of their parts in nats per token).

    A part without predicted tokens gives None; one whose loss overflows, a value that is not finite; and one of a
    sequence that is too long for the memory, even alone, `OUT_OF_MEMORY`. Equal sequences are run once.

    Args:
        model: a causal language model in evaluation mode, whose context holds the sequences.
        batch_tokens: as of `run_batches`.
    """
    import torch

    from hf_evol.scoring.token_losses import split_model

    users: dict[TokenSpans, set[int]] = defaultdict(set)
    for place, group in enumerate(groups):
        for sequence in group:
            users[sequence].add(place)
    distinct, split = list(users), split_model(model)

    def forward(batch: list[int], width: int) -> tuple[list[int], torch.Tensor]:
        """How many predicted tokens each part has, and the losses of all."""
        ids = np.zeros((len(batch), width), dtype=np.int64)
        rows, positions, counts = [], [], []
        for row, sequence in enumerate(distinct[place] for place in batch):
            ids[row, : len(sequence.ids)] = sequence.ids
            for spans in sequence.parts:
                at = [np.arange(max(start, 1), end) for start, end in spans]
                positions += at
                counts.append(sum(map(len, at)))
                rows.append(np.full(counts[-1], row))
        if not sum(counts):
            return counts, torch.zeros(0)
        return counts, split.losses(ids, np.concatenate(rows), np.concatenate(positions))

    known: dict[TokenSpans, list[Loss]] = {}
    lengths = [len(sequence.ids) for sequence in distinct]
    for batch, result in run_batches(model, lengths, forward, batch_tokens, split.max_tokens):
        finished = [distinct[place] for place in batch]
        if result is None:
            known |= {sequence: [OUT_OF_MEMORY] * len(sequence.parts) for sequence in finished}
        else:
            counts, losses = result
            parts = np.split(losses.cpu().double().numpy(), np.cumsum(counts)[:-1])
            means = (float(part.mean()) if len(part) else None for part in parts)
            known |= {sequence: [next(means) for _ in sequence.parts] for sequence in finished}
        places = set().union(*(users[sequence] for sequence in finished))
        complete = [place for place in places if known.keys() >= set(groups[place])]
        yield [(place, [loss for sequence in groups[place] for loss in known[sequence]]) for place in complete]


def padded_length(n_tokens: int, context: int) -> int:
    """The length that a sequence is padded to: at most an eighth longer, or a multiple of 16, within the context."""
    step = max(16, 1 << max(0, n_tokens.bit_length() - 4))
    return max(n_tokens, min(-(-max(1, n_tokens) // step) * step, context))


def run_batches(
    model: Any, lengths: Sequence[int], forward: Forward, batch_tokens: int | None, max_tokens: int | None = None
) -> Iterator[tuple[list[int], Any]]:
    """Run sequences, the longest of every few batches first, and yield (their places, what ``forward`` gives for them).

    That is None for a single one that the memory can't hold. While one batch is read, the next is under way.

    Args:
        lengths: of the sequences, in tokens.
        batch_tokens: as of `IcIfd`.
        max_tokens: the most tokens of a batch, whatever ``batch_tokens`` says.
    """
    import torch

    kind = model.device.type if model.device.type in _TURN else "cpu"
    wanted = batch_tokens or _BATCH_TOKENS[kind]
    context, under_way = models.context_length(model.config), deque()
    widths = [padded_length(length, context) for length in lengths]
    turns = [total // (_TURN[kind] * wanted) for total in accumulate(widths)]

    def in_turn(places: Iterable[int]) -> list[int]:
        return sorted(places, key=lambda place: (turns[place], -widths[place]))

    waiting = in_turn(range(len(widths)))
    # On a CPU each pass has one thread, and as many passes run as there are threads: quicker than to share out every
    # product, and the numbers don't depend on how many there are.
    threads = torch.get_num_threads()
    workers = threads if model.device.type == "cpu" else 1
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)  # new threads take it over
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        while waiting or under_way:
            while waiting and len(under_way) <= workers:
                width = widths[waiting[0]]
                count = max(1, min(wanted, _budgets.get(model, wanted), max_tokens or wanted) // width)
                count = next((n for n, place in enumerate(waiting[:count]) if widths[place] != width), count)
                batch, waiting = waiting[:count], waiting[count:]
                under_way.append((pool.submit(_attempt, forward, batch, width), batch, width))
            future, batch, width = under_way.popleft()
            result = future.result()
            if result is None and len(batch) > 1:
                failed = len(batch) * width
                _budgets[model] = min(len(batch) // 2 * width, _budgets.get(model, failed))
                waiting = in_turn([*batch, *waiting])
            else:
                yield batch, result


def _attempt(forward: Forward, batch: list[int], width: int) -> Any:
    """What ``forward`` gives, or None if memory ran out; what it held is free again then."""
    try:
        return forward(batch, width)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not models.is_out_of_memory(error):
            raise
        return None
