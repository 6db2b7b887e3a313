"""Make up the inputs that instructions need (Self-Instruct, arXiv:2212.10560)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_evol import columns as col
from hf_evol.generation.sampling import row_key
from hf_evol.models import is_small
from hf_evol.prompts.inputs import name_prompt, text_prompt
from hf_evol.reading.new_input import read_input, wanted
from hf_evol.transform import Batch, SampledTransform

NEEDS_INPUT = "needs_input"


@dataclass(frozen=True, kw_only=True)
class MakeInput(SampledTransform):
    """Have a model make up the input that each instruction needs: a step of `hf_evol.self_instruct`.

    A model of under 300 million parameters is only asked for names, such as a product or a city, of which any one serves; asked
    greedily, it gives few different ones.

    Input columns:
        ``id``, which decides what the prompt shows, and ``instruction``.

    Output columns:
        ``input`` (empty where none was made), ``input_generator`` (the model's name; null where none was made),
        ``instruction_status``: ``ok``, ``no_input: …`` with a reason of `hf_evol.reading.new_input.read_input`, ``needs_input``
        (there is no example of what the instruction needs, or it is nothing to ask this model for), ``too_long: …``,
        ``template_error: …`` or ``engine_error: …``.

    Args:
        temperature: 0, which is greedy, as in the paper.
        max_new_tokens: 300 in the paper.
    """

    temperature: float = 0.0
    max_new_tokens: int = 300

    input_columns: ClassVar[tuple[str, ...]] = (col.ID, col.INSTRUCTION)
    output_columns: ClassVar[dict[str, Any]] = dict.fromkeys(
        (col.INPUT, col.INPUT_GENERATOR, col.INSTRUCTION_STATUS), "string"
    )
    keyed_by: ClassVar[tuple[str, ...]] = (col.ID,)
    label: ClassVar[str] = "Inputs"

    def apply(self, batch: Batch) -> Batch:
        ids, texts = batch[col.ID], batch[col.INSTRUCTION]
        inputs, by, statuses = ([value] * len(texts) for value in ("", None, NEEDS_INPUT))
        any_text, asking = not is_small(self.model), []
        for place, text in enumerate(texts):
            given = wanted(text) if isinstance(text, str) else None
            if given is None or not (any_text or given.is_name):
                continue
            pick = random.Random(f"{self.seed}|{ids[place]}")
            answer = pick.choice(given.answers) if given.answers else None
            prompt = name_prompt(given.noun, pick) if given.is_name else text_prompt(text, given.noun, answer, pick)
            asking.append((place, given, answer, *prompt))
        keys = [row_key(self.seed, ids[place], 0, "input") for place, *_ in asking]
        replies = self.complete([turns for *_, turns, _ in asking], keys)
        for (place, given, answer, _, shown), done in zip(asking, replies, strict=True):
            if done.error:
                statuses[place] = done.error
                continue
            text, status = read_input(done.text, texts[place], given, answer, shown, done.finish_reason)
            statuses[place] = status if status == col.OK else f"no_input: {status}"
            if text is not None:
                inputs[place], by[place] = text, self.model.name
        return {col.INPUT: inputs, col.INPUT_GENERATOR: by, col.INSTRUCTION_STATUS: statuses}
