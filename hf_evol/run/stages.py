"""A recipe's transforms and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hf_evol.errors import ConfigError
from hf_evol.evolve.auto_evol import AutoEvolInstruct
from hf_evol.evolve.back_translate import BackTranslate
from hf_evol.evolve.eliminate import Eliminate
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.evolve.respond import Respond
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.generation.vllm_engine import VllmEngine
from hf_evol.models import ModelSpec
from hf_evol.prompts.auto_evol import AUTO
from hf_evol.prompts.evol_instruct import resolve_methods
from hf_evol.prompts.respond import SYSTEM
from hf_evol.run.recipe import ENGINES, Recipe, shown
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.transform import Transform

NO_SCORER = "An endpoint gives no losses to score by. Name a model to load here with scorer (--scorer)."


@dataclass(frozen=True)
class Stages:
    """The transforms of a recipe, with its models. Building them checks all settings and loads nothing."""

    evolve: EvolInstruct
    eliminate: Eliminate
    respond: Respond
    back_translate: BackTranslate | None
    score: IcIfd | None
    models: dict[str, ModelSpec | EndpointEngine]

    @classmethod
    def of(cls, recipe: Recipe) -> Stages:
        settings = {"evolver": recipe.model, "responder": recipe.responder or recipe.model, "judge": recipe.judge}
        engines = {role: engine_of(recipe, setting) for role, setting in settings.items() if setting}
        models = {role: model_of(engine) for role, engine in engines.items()}
        scorer = None  # an endpoint gives no losses
        if recipe.scorer or not isinstance(engines["evolver"], EndpointEngine):
            scorer = spec_of(recipe, recipe.scorer or recipe.model)
            if isinstance(engines["evolver"], VllmEngine) and not recipe.scorer:
                scorer = replace(scorer, loading=None)  # vLLM's arguments
            models["scorer"] = scorer
        models = {role: models[role] for role in ("evolver", "responder", "scorer", "judge") if role in models}
        methods = (AUTO,) if recipe.methods == AUTO.name else resolve_methods(recipe.methods)
        respond = Respond(
            engines["responder"], system=recipe.response_system or SYSTEM, temperature=recipe.response_temperature,
            top_p=recipe.response_top_p, max_new_tokens=recipe.response_max_new_tokens, seed=recipe.seed, journal=recipe.journal,
        )  # fmt: skip
        score = scorer and IcIfd(
            scorer,
            convention=recipe.convention,
            max_length=recipe.max_length,
            truncate=recipe.truncate,
            journal=recipe.journal,
        )
        if recipe.best_of > 1 and score is None:
            raise ConfigError(NO_SCORER)
        evolve = (AutoEvolInstruct if all(method.kind == "auto" for method in methods) else EvolInstruct)(
            engines["evolver"], methods=methods, tries=recipe.tries, best_of=recipe.best_of,
            prefer=(respond, score) if recipe.best_of > 1 else None, by_example=recipe.by_example, **recipe.sampling,
        )  # fmt: skip
        eliminate = Eliminate(keep=True, judge=engines.get("judge"), journal=recipe.journal)
        constrain = constraining(recipe) if recipe.back_translate else None
        if recipe.constrainer and constrain is None:
            raise ConfigError("constrainer names constraints for back_translate: set that to how many a row may get.")
        if constrain is not None and constrain.model is not None:
            models["constrainer"] = model_of(constrain.model)
        return cls(evolve, eliminate, respond, constrain, score, models)

    @property
    def transforms(self) -> list[Transform]:
        """Those of the recipe's steps, in their order."""
        steps = (self.evolve, self.eliminate, self.respond, self.back_translate, self.score)
        return [transform for transform in steps if transform is not None]

    def check(self) -> None:
        """Raise if a model can't be found or used; loads configurations and tokenizers only."""
        if self.score is None:
            raise ConfigError(NO_SCORER)
        for transform in self.transforms:
            transform.check()


def model_of(engine: Any) -> ModelSpec | EndpointEngine:
    """What a record describes of an engine: its model; or a server's engine itself."""
    return engine if isinstance(engine, EndpointEngine) else engine.model


def constraining(recipe: Recipe) -> BackTranslate:
    """The transform of ``back_translate``, with the recipe's constrainer and, for that, its judge."""
    model, judge = (engine_of(recipe, one) if one else None for one in (recipe.constrainer, recipe.judge))
    return BackTranslate(
        model=model, judge=judge if model else None, max_constraints=recipe.back_translate, seed=recipe.seed,
        journal=recipe.journal,
    )  # fmt: skip


def engine_of(recipe: Recipe, setting: str | dict) -> Any:
    """The engine of a role: of the recipe's kind, or of the one that the role's own mapping names."""
    kind, own = _parts(recipe, setting)
    if kind == "endpoint":
        shared = {} if "provider" in own else {"base_url": recipe.base_url, "api_key_env": recipe.api_key_env}
        return _built(EndpointEngine, shared | {"model": own.pop("name")} | own)
    if kind == "vllm":
        return VllmEngine(spec_of(recipe, setting))
    if kind == "transformers":
        return TransformersEngine(spec_of(recipe, setting), recipe.batch_size)
    raise ConfigError(f"engine must be {', '.join(ENGINES)}; got {shown(kind)}.")


def spec_of(recipe: Recipe, setting: str | dict) -> ModelSpec:
    shared = {"dtype": recipe.dtype, "device": recipe.device, "trust_remote_code": recipe.trust_remote_code}
    if setting == recipe.model:
        shared["chat_template"] = recipe.chat_template
    return _built(ModelSpec, shared | _parts(recipe, setting)[1])


def _parts(recipe: Recipe, setting: str | dict) -> tuple[str, dict[str, Any]]:
    """The kind of a model's engine, and its other settings."""
    own = dict(setting) if isinstance(setting, dict) else {"name": setting}
    if not own.get("name"):
        raise ConfigError(f"A model in the recipe has no name; it has {', '.join(map(str, own)) or 'no settings'}.")
    for name, value in own.items():
        if name != "loading" and isinstance(value, (Mapping, list)):
            raise ConfigError(f"A model's {name} must be a text, a number, true or false; got {shown(value)}.")
    return own.pop("engine", recipe.engine), own


def _built(kind: Any, settings: dict[str, Any]) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        known = kind.__dataclass_fields__
        unknown = ", ".join(sorted(map(repr, settings.keys() - known)))
        wrong = f"unknown settings: {unknown}" if unknown else f"a setting of a wrong type: {error}"
        raise ConfigError(f"A model in the recipe has {wrong}. Known: {', '.join(known)}.") from error
