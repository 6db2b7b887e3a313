"""A constraint on a response: a count of `hf_evol.constraints.counts`, its parameters and its bounds."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hf_evol.constraints import counts

_BOUNDS = ("at_least", "at_most")


@dataclass(frozen=True)
class Constraint:
    """``at_least <= kind(response, **parameters) <= at_most``, where a bound that is None does not count."""

    kind: str
    at_least: int | None = None
    at_most: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def holds(self, response: str) -> bool:
        count = getattr(counts, self.kind)(response, **self.parameters)
        return (self.at_least or 0) <= count and (self.at_most is None or count <= self.at_most)

    @property
    def bound(self) -> str:
        """What the bounds say: ``none``, ``one`` (exactly), ``some``, ``at_least``, ``at_most``, ``exactly`` or ``between``."""
        if self.at_most == 0:
            return "none"
        if self.at_least is not None and self.at_least == self.at_most:
            return "one" if self.at_least == 1 else "exactly"
        if self.at_most is None:
            return "some" if self.at_least == 1 else "at_least"
        return "at_most" if self.at_least is None else "between"

    def data(self) -> dict[str, str]:
        """As rows keep it: ``kind``, and its parameters and bounds as JSON."""
        bounds = {name: getattr(self, name) for name in _BOUNDS if getattr(self, name) is not None}
        return {"kind": self.kind, "parameters": json.dumps(self.parameters | bounds, ensure_ascii=False)}

    @classmethod
    def of(cls, data: dict[str, str]) -> Constraint:
        """The constraint of what `data` gives."""
        parameters = json.loads(data["parameters"])
        bounds = {name: parameters.pop(name, None) for name in _BOUNDS}
        return cls(data["kind"], parameters=parameters, **bounds)

    def function(self) -> str:
        """Source of a Python function ``evaluate(response)`` that needs this package for nothing, as AutoIF's are."""
        given = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        count = f"{self.kind}(response{given})"
        least = f"{self.at_least} <= " if self.at_least is not None else ""
        most = f" <= {self.at_most}" if self.at_most is not None else ""
        return f"{_source(self.kind)}\n\ndef evaluate(response):\n    return {least}{count}{most}\n"


@cache
def _source(kind: str) -> str:
    """The source of a count, after that of all that it uses."""
    used = {kind: inspect.getsource(getattr(counts, kind))}
    for name in (pending := [kind]):
        for node in ast.walk(ast.parse(used[name])):
            if (
                isinstance(node, ast.Name)
                and node.id not in used
                and inspect.isfunction(getattr(counts, node.id, None))
            ):
                used[node.id] = inspect.getsource(getattr(counts, node.id))
                pending.append(node.id)
    code = "\n\n".join(reversed(used.values()))
    return "".join(f"import {module}\n" for module in ("json", "re") if f"{module}." in code) + f"\n\n{code}"
