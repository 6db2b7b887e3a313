"""Tiny random models whose tokens, which are no language, are read as instructions, or as verdicts of judges."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from hf_evol.generation import transformers_engine
from hf_evol.models import loading
from hf_evol.prompts import judge, self_instruct

STONES = (
    "agate beryl cinnabar dolomite epidote fluorite galena hematite ilmenite jasper kyanite lazurite malachite nephrite "
    "olivine pyrite quartz rutile sphalerite topaz ulexite vanadinite wulfenite xenotime zircon"
).split()
_VERDICTS = {  # what a judge is told, and what it may say
    judge._LEVEL: judge.LEVELS,
    judge._SCORE: tuple(map(str, range(101))),
    judge._SAID["comparison"]: ("better than", "worse than", "equal to"),
    judge._SAID["equality"]: ("Equal", "Different"),
}
RAW = 4  # one reply in so many stays as the model gave it, which is no instruction


def make_talkative(monkeypatch, processes: bool = False) -> None:
    """From now on a reply is the last turn and a requirement drawn by the prompt and the tokens that the model gave, or, where
    a judge is asked, a verdict drawn by the prompt.

    Args:
        processes: in Python processes that are started from here on, too.
    """
    monkeypatch.setattr(transformers_engine, "_completion", _talking(transformers_engine._completion))
    monkeypatch.setattr(loading, "_SMALL", 0)  # what is drawn comes from no example
    if processes:
        here = Path(__file__).parent
        path = [str(here / "startup"), str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        monkeypatch.setenv("HF_EVOL_TESTS_TALKATIVE", "1")


def talk() -> None:
    """The same for good, in a process of its own."""
    transformers_engine._completion = _talking(transformers_engine._completion)
    loading._SMALL = 0


def _drawn(verdicts, prompt):
    """One of the verdicts that judges give, which depends on the prompt alone."""
    return verdicts[int.from_bytes(hashlib.sha256(repr(prompt).encode()).digest(), "big") % len(verdicts)]


def _talking(complete):
    def completion(tokenizer, request, tokens, stops, probs=None):
        given = complete(tokenizer, request, tokens, stops, probs)
        if request.limit == 1:  # no room for a reply, which is cut off
            return given
        asked = tokenizer.decode(request.prompt)
        if verdicts := next((verdicts for system, verdicts in _VERDICTS.items() if system in asked), None):
            return replace(given, text=_drawn(verdicts, request.prompt), finish_reason="stop")
        draw = hashlib.sha256(
            repr((request.prompt, [token for token in tokens if token not in stops])).encode()
        ).digest()
        if draw[0] % RAW == 0:
            return replace(given, finish_reason="stop")
        turn = re.split(r"<\|user\|>|\n", re.sub(r"(<\|end\|><\|assistant\|>|\s)+$", "", asked))[-1]
        first, second, third = (STONES[byte % len(STONES)] for byte in draw[1:4])
        if turn == self_instruct.ASK:
            return replace(given, text=f"Name {first}, {second} and {third}.", finish_reason="stop")
        return replace(given, text=f"{turn} Name {first}, {second} and {third} as well.", finish_reason="stop")

    return completion
