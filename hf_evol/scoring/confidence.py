"""The output space of an evolver: how sure it is of its most probable token (paper, "Output space")."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_evol import columns as col
from hf_evol import models, progress
from hf_evol.errors import ConfigError
from hf_evol.generation.base import GREEDY, Completion, Record, SamplingParams
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import encoding
from hf_evol.prompts.evol_instruct import Method, resolve_methods
from hf_evol.prompts.respond import respond_prompt
from hf_evol.scoring.conventions import Pair
from hf_evol.scoring.local import check_counts
from hf_evol.scoring.losses import OUT_OF_MEMORY, TokenSpans, measured
from hf_evol.scoring.pairs import asked, evolutions, is_text
from hf_evol.scoring.token_losses import SplitModel
from hf_evol.transform import Batch, GreedyTransform

if TYPE_CHECKING:
    import numpy as np

_SURE = 0.9  # a position counts for share_over_90 if its most probable token is likelier than this


@dataclass(frozen=True, kw_only=True)
class Confidence(GreedyTransform):
    """The probability of the most probable token at each position of a text that a model writes, or wrote.

    The paper's figure is ``of="greedy"``, over an evolver's own greedy text; its script keeps the first 5 positions,
    ``positions=5``. The others feed a text that is there to the model after its prompt, and so know the entropy as
    well. They tokenize it anew, and the tokens need not be those that were generated.

    Input columns:
        ``parent_instruction``, ``method`` and, if there, ``try``, of which the last round's evolving prompt is made
        again; for ``of="evolution"`` also ``instruction`` and, if there, ``evol_status``. For ``of="response"``:
        ``instruction``, ``output`` and, if there, ``input``. Everywhere, if there, ``context``.

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
        methods: those that the rows were evolved with, as for `EvolInstruct`. For rows of `AutoEvolInstruct`,
            ``[hf_evol.prompts.auto_evol.AUTO]``; their instruction is only a part of the answer, so only
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

    output_columns = {
        col.TOP1_PROBS: ["float64"],
        col.TOP1_MEAN: "float64",
        col.ENTROPY_MEAN: "float64",
        col.SHARE_OVER_90: "float64",
        col.CONFIDENCE_STATUS: "string",
    }
    label = "Measure confidence"

    def __post_init__(self) -> None:
        if self.of not in ("greedy", "evolution", "response"):
            raise ConfigError(f"of must be 'greedy', 'evolution' or 'response'; got {self.of!r}.")
        check_counts(self, "positions", "batch_tokens")
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

    def apply(self, batch: Batch) -> Batch:
        if self.of == "response":
            rows = zip(asked(batch), batch[col.OUTPUT], strict=True)
            pairs = [
                (respond_prompt(*row[:2], context=row[2]), text) if row and is_text(text) else "invalid_input"
                for row, text in rows
            ]
        else:
            pairs = evolutions(batch, self.methods, evolved=self.of == "evolution")
        usable = [pair for pair in pairs if not isinstance(pair, str)]
        progress.advance(len(pairs) - len(usable))
        if self.of == "greedy":  # the pairs' texts don't count
            found = iter([_of_completion(reply) for reply in self.complete([prompt for prompt, _ in usable])])
        else:
            found = iter(self._of_texts(usable))
        records = [_failed(pair) if isinstance(pair, str) else next(found) for pair in pairs]
        return {name: [record[name] for record in records] for name in self.output_columns}

    def _of_texts(self, pairs: list[Pair]) -> list[Record]:
        self.check()
        model, tokenizer = models.load_model(self.model.model), models.load_tokenizer(self.model.model)
        context, sequences = models.context_length(model.config), {}
        texts = encoding.encode_text(tokenizer, [text for _, text in pairs], special_tokens=False)
        for place, ((prompt, _), text) in enumerate(zip(pairs, texts, strict=True)):
            before = encoding.render_chat(tokenizer, prompt)
            ids = before + text[: self.positions]
            if len(ids) <= context:
                sequences[place] = TokenSpans.of(ids, [(len(before), len(ids))])
        progress.advance(len(pairs) - len(sequences))
        records, places = [_failed("too_long")] * len(pairs), list(sequences)
        with closing(measured(model, list(sequences.values()), SplitModel.confidences, self.batch_tokens)) as batches:
            for finished in batches:
                for number, (values,) in finished:
                    records[places[number]] = _of_values(values)
                progress.advance(len(finished))
        return records


def _of_completion(reply: Completion) -> Record:
    if reply.error is None and reply.top1_probs:
        return _record(reply.top1_probs)
    return _failed(reply.error or "no_probabilities")


def _of_values(values: np.ndarray | None) -> Record:
    import numpy as np

    if values is None:
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
