"""What tests of transforms that ask a judge share."""

from __future__ import annotations

from dataclasses import dataclass

from hf_evol.generation.base import Completion


@dataclass(frozen=True)
class Scripted:
    """Says what is scripted for the first of the marks that the system turn or the last one holds, for what no tiny model
    can be made to say."""

    script: tuple[tuple[str, str], ...]
    name: str = "scripted"

    def check(self, params=None):
        pass

    def identity(self):
        return {"script": self.script}

    def stream(self, chats, params, keys):
        assert params.temperature == 0
        for place, (system, *_, last) in enumerate(chats):
            said = next(reply for mark, reply in self.script if mark in f"{system['content']}\n\n{last['content']}")
            if said.startswith(("engine_error", "too_long")):
                yield [(place, Completion("", "error", error=said))]
            else:
                yield [(place, Completion(said.removesuffix(" CUT"), "length" if said.endswith(" CUT") else "stop"))]
