"""Mean cross-entropy of parts of token sequences under a causal language model.

Sequences are padded to a few lengths, and all forward passes of one length have one shape, filled up with padding. On a
CPU each pass has one thread. So the same kernels add the same numbers in the same order, whatever else is in a batch,
and a loss is the same to the last bit in any arrangement of the rows.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from hf_evol import models
from hf_evol.scoring.token_losses import SplitModel, split_model

if TYPE_CHECKING:
    import numpy as np
    import torch

OUT_OF_MEMORY = "out_of_memory"
Loss = float | Literal["out_of_memory"] | None
Forward = Callable[
    [list[int], tuple[int, int]], Any
]  # from places and the shape of a batch, which is no less, to results

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
    users: dict[TokenSpans, set[int]] = defaultdict(set)
    for place, group in enumerate(groups):
        for sequence in group:
            users[sequence].add(place)
    distinct, known = list(users), {}
    for results in measured(model, distinct, SplitModel.losses, batch_tokens):
        finished = {distinct[number]: [_mean(values) for values in parts] for number, parts in results}
        known |= finished
        places = set().union(*(users[sequence] for sequence in finished))
        complete = [place for place in places if known.keys() >= set(groups[place])]
        yield [(place, [loss for sequence in groups[place] for loss in known[sequence]]) for place in complete]


def _mean(values: np.ndarray | None) -> Loss:
    if values is None:
        return OUT_OF_MEMORY
    return float(values.mean()) if len(values) else None


def measured(
    model: Any, sequences: Sequence[TokenSpans], of_states: Callable[..., torch.Tensor], batch_tokens: int | None
) -> Iterator[list[tuple[int, list[np.ndarray | None]]]]:
    """Yield, batch by batch, (index of a sequence, of each part in float64 what `SplitModel.measure` gives of its
    predicted tokens). That is None where the memory can't hold the sequence, even alone."""
    import numpy as np
    import torch

    split = split_model(model)

    def forward(batch: list[int], shape: tuple[int, int]) -> tuple[list[int], torch.Tensor]:
        ids = np.zeros(shape, dtype=np.int64)
        rows, positions, counts = [], [], []
        for row, place in enumerate(batch):
            ids[row, : len(sequences[place].ids)] = sequences[place].ids
            for spans in sequences[place].parts:
                at = [np.arange(max(start, 1), end) for start, end in spans]
                positions += at
                counts.append(sum(map(len, at)))
                rows.append(np.full(counts[-1], row))
        if not sum(counts):
            return counts, torch.zeros(0)
        return counts, split.measure(of_states, ids, np.concatenate(rows), np.concatenate(positions))

    lengths = [len(sequence.ids) for sequence in sequences]
    for batch, result in run_batches(model, lengths, forward, batch_tokens, split.max_tokens):
        if result is None:
            yield [(place, [None] * len(sequences[place].parts)) for place in batch]
            continue
        counts, values = result
        parts = iter(np.split(values.cpu().double().numpy(), np.cumsum(counts)[:-1]))
        yield [(place, [next(parts) for _ in sequences[place].parts]) for place in batch]


def padded_length(n_tokens: int, context: int) -> int:
    """The length that a sequence is padded to: at most an eighth longer, or a multiple of 16, within the context."""
    step = max(16, 1 << max(0, n_tokens.bit_length() - 4))
    return max(n_tokens, min(-(-max(2, n_tokens) // step) * step, context))


def run_batches(
    model: Any, lengths: Sequence[int], forward: Forward, batch_tokens: int | None, max_tokens: int | None = None
) -> Iterator[tuple[list[int], Any]]:
    """Run sequences, longest first, and yield (their places, what ``forward`` gives for them).

    That is None for a single one that the memory can't hold. While one batch is read, the next is under way.

    Args:
        lengths: of the sequences, in tokens.
        batch_tokens: about so many tokens, padding included, in each forward pass (or one sequence); by default 4096 on
            a GPU, which is busy with these, and 512 elsewhere, as what fits a CPU's caches is quickest. It does not
            depend on the free memory, as results would then, too, in the last digit. Halved, for this process, when
            memory runs out.
        max_tokens: the most tokens of a batch, whatever ``batch_tokens`` says.
    """
    import torch

    wanted = batch_tokens or (4096 if model.device.type == "cuda" else 512)
    context, under_way = models.context_length(model.config), deque()
    widths = [padded_length(length, context) for length in lengths]
    waiting = sorted(range(len(widths)), key=lambda place: -widths[place])
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
                batch = [place for place in waiting[:count] if widths[place] == width]
                under_way.append((pool.submit(_attempt, forward, batch, (count, width)), batch, count, width))
                waiting = waiting[len(batch) :]
            future, batch, count, width = under_way.popleft()
            result = future.result()
            if result is None and count > 1:
                _budgets[model] = min(count // 2 * width, _budgets.get(model, count * width))
                waiting = sorted([*batch, *waiting], key=lambda place: -widths[place])
            else:
                yield batch, result


def _attempt(forward: Forward, batch: list[int], shape: tuple[int, int]) -> Any:
    """What ``forward`` gives, or None if memory ran out; what it held is free again then."""
    try:
        return forward(batch, shape)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not models.is_out_of_memory(error):
            raise
        return None
