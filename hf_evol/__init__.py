"""Evolve, answer, score, select and publish instruction-tuning sets with small language models.

The names below load on first use, so that importing the package stays quick: it imports neither torch nor
datasets.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AutoEvolInstruct": "hf_evol.evolve.auto_evol",
    "EvolInstruct": "hf_evol.evolve.evol_instruct",
    "Eliminate": "hf_evol.evolve.eliminate",
    "Respond": "hf_evol.evolve.respond",
    "Difficulty": "hf_evol.scoring.difficulty",
    "Confidence": "hf_evol.scoring.confidence",
    "Embed": "hf_evol.scoring.embed",
    "IcIfd": "hf_evol.scoring.ic_ifd",
    "Judge": "hf_evol.scoring.judge",
    "Method": "hf_evol.prompts.evol_instruct",
    "MethodOptimizer": "hf_evol.evolve.optimize",
    "ModelSpec": "hf_evol.generation.models",
    "EndpointEngine": "hf_evol.generation.endpoint",
    "Reward": "hf_evol.scoring.reward",
    "TrajectoryKeywords": "hf_evol.evolve.auto_evol",
    "TransformersEngine": "hf_evol.generation.transformers_engine",
    "VllmEngine": "hf_evol.generation.vllm_engine",
    "Recipe": "hf_evol.pipeline",
    "run": "hf_evol.pipeline",
    "append": "hf_evol.appending",
    "read_evolved": "hf_evol.prompts.evolved",
    "diversity": "hf_evol.scoring.diversity",
    "equal_size": "hf_evol.selection",
    "load_seeds": "hf_evol.sources",
    "map": "hf_evol.transform",
    "publish": "hf_evol.hub.publish",
    "select": "hf_evol.selection",
    "to_instructions": "hf_evol.formats",
    "to_training": "hf_evol.formats",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hf_evol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
