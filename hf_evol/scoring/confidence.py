"""The output space of an evolver: how sure it is of its most probable token (paper, "Output space")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_evol import columns as col
from hf_evol import models, progress
from hf_evol.errors import ConfigError
from hf_evol.generation.base import GREEDY, Completion, SamplingParams
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import encoding
from hf_evol.prompts.evol_instruct import Method, prompt_at, resolve_methods
from hf_evol.prompts.respond import respond_prompt
from hf_evol.scoring.losses import OUT_OF_MEMORY, Batch, TokenSpans, batches
from hf_evol.scoring.pairs import is_text
from hf_evol.scoring.token_losses import SplitModel, split_model
from hf_evol.transform import Batch as Rows
from hf_evol.transform import GreedyTransform

if TYPE_CHECKING:
    import numpy as np
    import torch

_SURE = 0.9  # a position counts for share_over_90 if its most probable token is likelier than this

Record = dict[str, Any]
Request = tuple[str, str]  # a prompt, and the text after it


@dataclass(frozen=True, kw_only=True)
class Confidence(GreedyTransform):
    """The probability of the most probable token at each position of a text that a model writes, or wrote.

    The paper's figure is ``of="greedy"``, over an evolver's own greedy text; its script keeps the first 5 positions,
    ``positions=5``. The others take a text that is there, such as one that was sampled, and feed it to the model after
    its prompt; so they know the entropy as well. They tokenize that text anew, and the tokens need not be those that
    were generated.

    Input columns:
        ``parent_instruction``, ``method`` and, if there, ``try``, of which the last round's evolving prompt is made again; for
        ``of="evolution"`` also ``instruction`` and, if there, ``evol_status``. For ``of="response"``: ``instruction``,
        ``output`` and, if there, ``input``.

    Output columns:
        ``top1_probs`` (a list, one number a position), ``top1_mean`` (its mean), ``entropy_mean`` (of the whole
        distribution, in nats; null for ``of="greedy"``, as engines give probabilities of single tokens),
        ``share_over_90`` (the share of positions whose probability is over 0.9), and ``confidence_status``: ``ok``, or
        why the others are null: ``invalid_input`` (no text), ``unknown_method`` (none of ``methods``), ``not_evolved``
        (the instruction is not what the prompt led to, as the row failed that round), ``too_long``, ``out_of_memory``
        (even alone), ``not_finite``, ``no_probabilities`` (the engine gave none) or ``engine_error: …``.

    Args:
        model: the evolver, or the responder: a Hub id, a folder or a `ModelSpec`; for ``of="greedy"``, any engine.
        positions: how many first positions to look at; by default all.
        methods: those that the rows were evolved with, as for `EvolInstruct`. For rows of `AutoEvolInstruct`, its
            prompt ``hf_evol.prompts.auto_evol.AUTO`` in a list; their instruction is only a part of the answer, so only
            ``of="greedy"`` is about what the model wrote.
        of: ``"greedy"`` (the answer to the evolving prompt, generated here), ``"evolution"`` (the evolved instruction)
            or ``"response"`` (the output, after the prompt of `Respond`).
        max_new_tokens: for ``of="greedy"`` without ``positions``; 2,048 in the paper.
        batch_tokens: as in `IcIfd`, for texts that are there.
        journal: where finished generations are remembered: True for the cache folder, False for none, or a file.

    Raises:
        ConfigError: a wrong argument, at construction; no chat template.
        ColumnError: a missing column.
        ModelError: the model can't be found, or isn't causal.

    Example:
        >>> row = {"parent_instruction": ["Name a river."], "method": ["deepen"]}
        >>> [len(probs) for probs in Confidence("demo", positions=5, journal=False)(row)["top1_probs"]]
        [5]
    """

    positions: int | None = None
    methods: str | Path | Sequence[str | Method] = "alpaca"
    of: str = "greedy"
    batch_tokens: int | None = None

    output_columns: ClassVar[dict[str, Any]] = {
        col.TOP1_PROBS: ["float64"],
        col.TOP1_MEAN: "float64",
        col.ENTROPY_MEAN: "float64",
        col.SHARE_OVER_90: "float64",
        col.CONFIDENCE_STATUS: "string",
    }
    label: ClassVar[str] = "Measure confidence"

    def __post_init__(self) -> None:
        if self.of not in ("greedy", "evolution", "response"):
            raise ConfigError(f"of must be 'greedy', 'evolution' or 'response'; got {self.of!r}.")
        for name in ("positions", "batch_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more; got {value!r}.")
        object.__setattr__(self, "methods", resolve_methods(self.methods))
        super().__post_init__()
        if self.of != "greedy" and not isinstance(self.model, TransformersEngine):
            raise ConfigError(
                f"of={self.of!r} runs the model in this process: give its name, folder or ModelSpec, not a "
                f"{type(self.model).__name__}. With of='greedy' any engine will do."
            )

    @property
    def sampling(self) -> SamplingParams:
        count = self.positions or self.max_new_tokens
        return replace(GREEDY, max_new_tokens=count, top1_probs=count)

    @property
    def input_columns(self) -> tuple[str, ...]:
        if self.of == "response":
            return col.INSTRUCTION, col.OUTPUT
        evolving = (col.PARENT_INSTRUCTION, col.METHOD)
        return evolving if self.of == "greedy" else (col.INSTRUCTION, *evolving)

    def apply(self, batch: Rows) -> Rows:
        requests = self._requests(batch)
        usable = [place for place, request in enumerate(requests) if not isinstance(request, str)]
        progress.advance(len(requests) - len(usable))
        records = [_failed(request) if isinstance(request, str) else None for request in requests]
        measure = self._while_generating if self.of == "greedy" else self._of_texts
        with closing(measure([requests[place] for place in usable])) as measured:
            for number, record in measured:
                records[usable[number]] = record
        return {name: [record[name] for record in records] for name in self.output_columns}

    def _requests(self, batch: Rows) -> list[Request | str]:
        """Prompt and text of each row, or its status if there are none."""
        nothing = [None] * len(next(iter(batch.values())))
        if self.of == "response":
            columns = batch[col.INSTRUCTION], batch.get(col.INPUT, nothing), batch[col.OUTPUT]
            return [_responding(*row) for row in zip(*columns, strict=True)]
        parents, names = batch[col.PARENT_INSTRUCTION], batch[col.METHOD]
        texts, statuses = parents, nothing
        if self.of != "greedy":
            texts, statuses = batch[col.INSTRUCTION], batch.get(col.EVOL_STATUS, nothing)
        rows = zip(parents, names, batch.get(col.TRY, nothing), texts, statuses, strict=True)
        methods = {method.name: method for method in self.methods}
        return [_evolving(methods, *row) for row in rows]

    def _while_generating(self, requests: list[Request]) -> Iterator[tuple[int, Record]]:
        """Complete the prompts greedily; their texts don't count."""
        chats = [prompt for prompt, _ in requests]
        yield from ((number, _of_completion(reply)) for number, reply in enumerate(self.complete(chats)))

    def _of_texts(self, requests: list[Request]) -> Iterator[tuple[int, Record]]:
        self.check()
        model, tokenizer = models.load_model(self.model.model), models.load_tokenizer(self.model.model)
        context, work = models.context_length(model.config), []
        texts = encoding.encode_text(tokenizer, [text for _, text in requests], special_tokens=False)
        for number, ((prompt, _), text) in enumerate(zip(requests, texts, strict=True)):
            before, text = encoding.render_chat(tokenizer, prompt), text[: self.positions]
            if len(before) + len(text) > context:
                progress.advance(1)
                yield number, _failed("too_long")
            else:
                work.append(_work(number, before, text))
        work.sort(key=lambda item: -len(item[0].ids))
        for finished in batches(model, split_model(model), work, self.batch_tokens, _Confidences):
            progress.advance(len(finished))
            yield from ((number, _of_values(values)) for number, values in finished)


class _Confidences(Batch):
    """Top-1 probability and entropy at each position of a part, of shape (positions, 2)."""

    def measure(self, parts: SplitModel, ids: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        return parts.confidences(ids, rows, positions)

    def results(self) -> list[tuple[int, np.ndarray]]:
        import numpy as np

        values = np.zeros((0, 2)) if self.values is None else self.values.double().cpu().numpy()
        return list(zip(self.keys, np.split(values, np.cumsum(self.counts)[:-1]), strict=True))


def _work(number: int, before: list[int], text: list[int]) -> Any:
    import numpy as np

    spans = ((len(before), len(before) + len(text)),)
    return TokenSpans(np.asarray(before + text, dtype=np.int32), (spans,)), [(number, spans)]


def _evolving(
    methods: dict[str, Method], parent: Any, name: Any, attempt: Any, text: Any, status: str | None
) -> Request | str:
    if not is_text(parent) or not is_text(text) or name is None:
        return "invalid_input"
    if name not in methods:
        return "unknown_method"
    if status not in (None, col.OK):
        return "not_evolved"
    return prompt_at(tuple(methods.values()), methods[name], parent, attempt or 1), text


def _responding(instruction: Any, input: Any, output: Any) -> Request | str:
    if not is_text(instruction) or not is_text(output) or not (input is None or isinstance(input, str)):
        return "invalid_input"
    return respond_prompt(instruction, input), output


def _of_completion(completion: Completion) -> Record:
    if completion.error is not None:
        return _failed(completion.error)
    return _record(completion.top1_probs) if completion.top1_probs else _failed("no_probabilities")


def _of_values(values: Any) -> Record:
    import numpy as np

    if isinstance(values, str):
        return _failed(OUT_OF_MEMORY)
    if not len(values):
        return _failed("invalid_input")
    if not np.isfinite(values).all():
        return _failed("not_finite")
    return _record(values[:, 0].tolist(), float(values[:, 1].mean()))


def _record(probs: list[float], entropy: float | None = None) -> Record:
    return {
        col.TOP1_PROBS: probs,
        col.TOP1_MEAN: sum(probs) / len(probs),
        col.ENTROPY_MEAN: entropy,
        col.SHARE_OVER_90: sum(prob > _SURE for prob in probs) / len(probs),
        col.CONFIDENCE_STATUS: col.OK,
    }


def _failed(status: str) -> Record:
    return dict.fromkeys(Confidence.output_columns) | {col.CONFIDENCE_STATUS: status}
