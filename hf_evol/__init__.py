"""Evolve, answer, score, select and publish instruction-tuning sets with small language models.

The names below load on first use, so that importing the package stays quick: it imports neither torch nor
datasets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Functions with a room of their name: imported now, as importing a part of the room would put the room in their place.
from hf_evol.autoif import autoif
from hf_evol.run import run
from hf_evol.study import study

if TYPE_CHECKING:  # the same names as below, for type checkers and editors
    from hf_evol.autoif.scenario import AutoIf as AutoIf
    from hf_evol.data.formats import to_instructions as to_instructions
    from hf_evol.data.formats import to_training as to_training
    from hf_evol.data.selection import equal_size as equal_size
    from hf_evol.data.selection import select as select
    from hf_evol.data.sources import load_seeds as load_seeds
    from hf_evol.errors import ColumnError as ColumnError
    from hf_evol.errors import ConfigError as ConfigError
    from hf_evol.errors import FormatError as FormatError
    from hf_evol.errors import HfEvolError as HfEvolError
    from hf_evol.errors import HubError as HubError
    from hf_evol.errors import MissingExtraError as MissingExtraError
    from hf_evol.errors import ModelError as ModelError
    from hf_evol.errors import OutputError as OutputError
    from hf_evol.errors import SandboxError as SandboxError
    from hf_evol.errors import SourceError as SourceError
    from hf_evol.errors import TaskError as TaskError
    from hf_evol.evolve.auto_evol import AutoEvolInstruct as AutoEvolInstruct
    from hf_evol.evolve.auto_evol import TrajectoryKeywords as TrajectoryKeywords
    from hf_evol.evolve.back_translate import BackTranslate as BackTranslate
    from hf_evol.evolve.eliminate import Eliminate as Eliminate
    from hf_evol.evolve.evol_instruct import EvolInstruct as EvolInstruct
    from hf_evol.evolve.optimize import MethodOptimizer as MethodOptimizer
    from hf_evol.evolve.respond import Respond as Respond
    from hf_evol.evolve.self_instruct import self_instruct as self_instruct
    from hf_evol.generation.base import Completion as Completion
    from hf_evol.generation.base import Engine as Engine
    from hf_evol.generation.base import SamplingParams as SamplingParams
    from hf_evol.generation.endpoint import EndpointEngine as EndpointEngine
    from hf_evol.generation.transformers_engine import TransformersEngine as TransformersEngine
    from hf_evol.generation.vllm_engine import VllmEngine as VllmEngine
    from hf_evol.hub.publish import publish as publish
    from hf_evol.models.journal import Journal as Journal
    from hf_evol.models.spec import ModelSpec as ModelSpec
    from hf_evol.prompts.evol_instruct import Method as Method
    from hf_evol.reading.evolved import read_evolved as read_evolved
    from hf_evol.run.append import append as append
    from hf_evol.run.recipe import Recipe as Recipe
    from hf_evol.scoring.compatibility import Compatibility as Compatibility
    from hf_evol.scoring.compatibility import compatibility_adjusted_reward as compatibility_adjusted_reward
    from hf_evol.scoring.confidence import Confidence as Confidence
    from hf_evol.scoring.difficulty import Difficulty as Difficulty
    from hf_evol.scoring.diversity import diversity as diversity
    from hf_evol.scoring.embed import Embed as Embed
    from hf_evol.scoring.ic_ifd import IcIfd as IcIfd
    from hf_evol.scoring.judge import Judge as Judge
    from hf_evol.scoring.reward import Reward as Reward
    from hf_evol.study.study import Study as Study
    from hf_evol.transform import Transform as Transform
    from hf_evol.transform import map_dataset as map  # noqa: F401

_NAMES = {
    "hf_evol.autoif.scenario": ("AutoIf",),
    "hf_evol.data.formats": ("to_instructions", "to_training"),
    "hf_evol.data.selection": ("equal_size", "select"),
    "hf_evol.data.sources": ("load_seeds",),
    "hf_evol.errors": (
        "ColumnError",
        "ConfigError",
        "FormatError",
        "HfEvolError",
        "HubError",
        "MissingExtraError",
        "ModelError",
        "OutputError",
        "SandboxError",
        "SourceError",
        "TaskError",
    ),
    "hf_evol.evolve.auto_evol": ("AutoEvolInstruct", "TrajectoryKeywords"),
    "hf_evol.evolve.back_translate": ("BackTranslate",),
    "hf_evol.evolve.eliminate": ("Eliminate",),
    "hf_evol.evolve.evol_instruct": ("EvolInstruct",),
    "hf_evol.evolve.optimize": ("MethodOptimizer",),
    "hf_evol.evolve.respond": ("Respond",),
    "hf_evol.evolve.self_instruct": ("self_instruct",),
    "hf_evol.generation.base": ("Completion", "Engine", "SamplingParams"),
    "hf_evol.generation.endpoint": ("EndpointEngine",),
    "hf_evol.generation.transformers_engine": ("TransformersEngine",),
    "hf_evol.generation.vllm_engine": ("VllmEngine",),
    "hf_evol.hub.publish": ("publish",),
    "hf_evol.models.journal": ("Journal",),
    "hf_evol.models.spec": ("ModelSpec",),
    "hf_evol.prompts.evol_instruct": ("Method",),
    "hf_evol.reading.evolved": ("read_evolved",),
    "hf_evol.run.append": ("append",),
    "hf_evol.run.recipe": ("Recipe",),
    "hf_evol.scoring.compatibility": ("Compatibility", "compatibility_adjusted_reward"),
    "hf_evol.scoring.confidence": ("Confidence",),
    "hf_evol.scoring.difficulty": ("Difficulty",),
    "hf_evol.scoring.diversity": ("diversity",),
    "hf_evol.scoring.embed": ("Embed",),
    "hf_evol.scoring.ic_ifd": ("IcIfd",),
    "hf_evol.scoring.judge": ("Judge",),
    "hf_evol.scoring.reward": ("Reward",),
    "hf_evol.study.study": ("Study",),
    "hf_evol.transform": ("Transform", "map"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_OTHERWISE = {"map": "map_dataset"}  # names within, where ours would hide a builtin

__all__ = ["__version__", "autoif", "run", "study", *_HOME]


if not TYPE_CHECKING:  # or type checkers would take any name

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), _OTHERWISE.get(name, name))
        raise AttributeError(f"module 'hf_evol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
