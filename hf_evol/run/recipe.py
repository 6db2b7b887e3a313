"""The recipe: every setting of a run, in one frozen dataclass that reads and writes YAML."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from hf_evol.data import FILE_FORMATS
from hf_evol.errors import ConfigError, check_counts
from hf_evol.secrets import public_name

BUILT_IN = Path(__file__).parent / "recipes"
ENGINES = ("transformers", "vllm", "endpoint")
_ALWAYS_SHOWN = {
    "dataset", "model", "methods", "rounds", "tries", "seed", "temperature", "top_p", "max_new_tokens",
    "response_max_new_tokens", "convention", "select",
}  # fmt: skip
_NAMES = ("dataset", "methods", "chat_template", "model", "responder", "scorer", "judge", "constrainer", "name")
# What is published of a model's mapping, and of what `from_pretrained` gets: known to decide the result, and no secret.
_OF_LOADING = {
    "attn_implementation", "experts_implementation", "subfolder", "variant", "use_safetensors", "load_in_4bit", "load_in_8bit",
    "quantization_config", "quant_method", "bits", "group_size", "sym", "desc_act", "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "bnb_4bit_use_double_quant", "llm_int8_threshold", "quantization",
    "max_model_len", "kv_cache_dtype",
}  # fmt: skip
_OF_A_MODEL = {
    "name", "engine", "provider", "revision", "dtype", "chat_template", "trust_remote_code", "n_parameters", "loading",
}  # fmt: skip
_PARTS = dict.fromkeys(("model", "responder", "scorer", "judge", "constrainer"), _OF_A_MODEL)
_PARTS |= {"loading": _OF_LOADING, "quantization_config": _OF_LOADING}
# What only the user decides, whatever a card says: which code is run, and which server gets the texts.
_ONLY_GIVEN = {"engine", "provider", "trust_remote_code", "attn_implementation", "experts_implementation"}


def _setting(default: Any, help: str) -> Any:
    """A setting that decides rows, and is published."""
    return field(default=default, metadata={"help": help, "public": True})


def _own(default: Any, help: str) -> Any:
    """A setting that decides no row, and is not published."""
    return field(default=default, metadata={"help": help, "public": False})


@dataclass(frozen=True)
class Recipe:
    """What to evolve, with which models, and where to put the result. `help_of` says what each field means.

    ``model``, ``responder``, ``scorer``, ``judge`` and ``constrainer`` are names, folders, or mappings with the fields of
    `hf_evol.ModelSpec` (``name``, ``revision``, ``dtype``, ``device``, ``chat_template``,
    ``trust_remote_code``, ``n_parameters``, ``loading``), where ``engine`` may stand as well: with ``engine: endpoint``, the
    fields are those of `EndpointEngine`, and with ``engine: vllm``, ``loading`` holds arguments of vLLM. A scorer is always
    loaded here; one that is the evolver by default, without vLLM's arguments.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    dataset: str = _setting(
        "demo/general", "Hub name, file, glob, URL or folder; or demo/general, demo/gsm8k, demo/code"
    )
    config: str | None = _setting(None, "configuration of the seed set")
    split: str = _setting("train", "split of the seed set")
    revision: str | None = _setting(None, "revision of the seed set on the Hub")
    format: str = _setting("auto", "auto, alpaca, code_alpaca, gsm8k, messages, prompt-completion or sharegpt")
    columns: dict | None = _setting(None, "columns of the seed set to rename before, as question=instruction")
    limit: int | None = _setting(None, "use only the first rows of the seed set")
    model: str | dict = _setting(
        "demo", "the evolver: a Hub name, folder or GGUF file; 'demo' is SmolLM2-135M-Instruct"
    )
    responder: str | dict | None = _setting(None, "the model that answers; by default the evolver")
    scorer: str | dict | None = _setting(None, "the model that scores; by default, in a run, the evolver")
    judge: str | dict | None = _setting(
        None, "a model that finds evolutions without information gain, and verifies constraints; by default none"
    )
    constrainer: str | dict | None = _setting(
        None, "a model that names constraints for back_translate, which code or the judge (by default itself) verifies"
    )
    engine: str = _setting(
        "transformers", "what runs models given by name: transformers, vllm (extra vllm) or endpoint"
    )
    base_url: str | None = _own(None, "OpenAI-compatible server of --engine endpoint, as http://localhost:8000/v1")
    api_key_env: str | None = _own(None, "the environment variable with the key of --base-url")
    dtype: str = _setting("auto", "precision of models given by name: auto, float32, bfloat16 or float16")
    device: str | None = _own(None, "device of models given by name, such as cpu or cuda:0")
    chat_template: str | None = _setting(None, "Jinja chat template, or a .jinja file, for an evolver without one")
    trust_remote_code: bool = _setting(False, "run code that comes with models given by name")
    methods: str | list = _setting(
        "alpaca",
        "alpaca, gsm8k, code, writing, science, multilingual (extra multilingual), auto (Auto Evol-Instruct), names with commas between "
        "them, or a YAML file",
    )
    self_instruct: int | None = _setting(
        None, "first have the evolver make up so many instructions like those of the seed set, and evolve these"
    )
    rounds: int = _setting(1, "how many rounds of evolving; 3 in the paper")
    tries: int = _setting(8, "how often a row is asked in a round until its text is ok")
    best_of: int = _setting(1, "of so many texts of a row that are ok, keep the one with the highest IC-IFD")
    by_example: bool | None = _setting(
        None,
        "take only texts that add what a worked example adds; by default for evolvers of fewer than 300M parameters",
    )
    seed: int = _setting(0, "seed of the sampling noise")
    temperature: float = _setting(0.0, "sampling temperature of the evolver; 0 is greedy, 0.7 the paper's")
    top_p: float = _setting(0.95, "nucleus sampling of the evolver")
    max_new_tokens: int = _setting(2048, "longest evolved instruction, in tokens")
    response_system: str | None = _setting(None, "responder's system turn; by default one that asks for good responses")
    response_temperature: float = _setting(0.0, "sampling temperature of the responder; 0 is greedy")
    response_top_p: float = _setting(1.0, "nucleus sampling of the responder")
    response_max_new_tokens: int = _setting(2048, "longest response, in tokens")
    batch_size: int | None = _own(
        None, "rows that the engine transformers generates together, at most; by default 512 on a GPU and 64 elsewhere"
    )
    num_proc: int | None = _own(None, "processes; by default one for each GPU")
    back_translate: int | None = _setting(
        None, "add to each instruction at most so many constraints that its response meets"
    )
    convention: str = _setting("paper", "which tokens IFD and IC-IFD count: paper, superfiltering, exact or exact_chat")
    max_length: int | None = _setting(None, "most tokens of a scored sequence; by default the scorer's context")
    truncate: bool = _setting(False, "score longer rows by the part of the response that fits")
    select: int | float = _setting(0.25, "share (up to 1.0) or number (1: one) of rows to select in each round")
    select_by: str = _setting("ic_ifd", "score to select by, the highest first")
    output: str = _own("evolved", "folder or fsspec URL for the result")
    file_format: str = _setting("parquet", "parquet, json or arrow")
    overwrite: bool = _own(False, "replace the result of an earlier run in the output folder")
    push_to: str | None = _own(None, "name of a Hub dataset (user/name) to upload the result to, if no request failed")
    license: str | None = _setting(
        None, "licence of the set, as the Hub names it; by default the seed set's where all licences plainly allow it"
    )
    private: bool = _own(False, "make the Hub dataset private when it is created")
    journal: bool | str = _own(True, "remember finished requests: true, false, or a file")

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry.name, getattr(self, entry.name), hints[entry.name]))
        if self.engine not in ENGINES:
            raise ConfigError(f"engine must be {', '.join(ENGINES)}; got {self.engine!r}.")
        if self.base_url and self.engine != "endpoint":
            raise ConfigError("base_url is for engine: endpoint.")
        if self.file_format not in FILE_FORMATS:
            raise ConfigError(f"file_format must be {', '.join(FILE_FORMATS)}; got {self.file_format!r}.")
        check_counts(self, "self_instruct", "rounds", "tries", "best_of", "back_translate", "batch_size", "limit")
        check_counts(self, "num_proc")
        if not (0 < self.select < 1 or (self.select >= 1 and float(self.select).is_integer())):
            raise ConfigError(f"select must be a share up to 1.0 or a whole number of rows; got {self.select!r}.")

    @classmethod
    def load(cls, source: str | Path, **usual: Any) -> Recipe:
        """A recipe from a YAML file, or a built-in one: ``alpaca``, ``gsm8k``, ``code_alpaca``, ``from_scratch``; ``usual`` is for
        what it leaves open.

        Raises:
            ConfigError: no such recipe, malformed YAML, unknown keys, wrong values.
        """
        built_in = BUILT_IN / f"{source}.yaml"
        path = built_in if built_in.is_file() else Path(source).expanduser()
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
            raise ConfigError(f"Cannot read the recipe {str(source)!r}: {error}. Built-in recipes: {names}.") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"The recipe {str(source)!r} must be a mapping of settings.")
        return cls(**usual).with_settings(settings)

    @property
    def sampling(self) -> dict[str, Any]:
        """How the evolver's model writes, as arguments of a transform, and the journal that keeps it."""
        names = ("seed", "temperature", "top_p", "max_new_tokens", "journal")
        return {name: getattr(self, name) for name in names}

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """This recipe with some settings replaced; unknown keys are errors."""
        known = [entry.name for entry in fields(self)]
        unknown = sorted(map(str, settings.keys() - set(known)))
        if unknown:
            raise ConfigError(f"Unknown recipe setting {', '.join(map(repr, unknown))}. Settings: {', '.join(known)}.")
        return replace(self, **settings)

    @classmethod
    def from_card(cls, settings: Mapping[str, Any]) -> Recipe:
        """A recipe from settings that `for_card` gave, wherever they come from: what it would not give is left out, and what
        decides which code is run, or which server gets the texts."""
        taken = {entry.name for entry in fields(cls) if entry.metadata["public"]} - _ONLY_GIVEN
        return cls().with_settings({name: _harmless(name, value) for name, value in settings.items() if name in taken})

    def for_card(self) -> dict[str, Any]:
        """The settings that decide the result, fit for publishing: of paths and URLs only what `public_name` leaves, and of
        models' mappings only what is known to decide the result and to be no secret."""
        return {
            entry.name: _public(entry.name, value)
            for entry in fields(self)
            if entry.metadata["public"]
            and ((value := getattr(self, entry.name)) != entry.default or entry.name in _ALWAYS_SHOWN)
        }


def _public(name: str, value: Any) -> Any:
    if name in _PARTS and isinstance(value, Mapping):
        kept = {part: of for part, of in value.items() if part in _PARTS[name] and _is_fit(part, of)}
        return {part: _public(part, of) for part, of in kept.items()}
    return public_name(value) if name in _NAMES and isinstance(value, str) else value


def _harmless(name: str, value: Any) -> Any:
    value = _public(name, value)
    if name not in _PARTS or not isinstance(value, Mapping):
        return value
    return {part: _harmless(part, of) for part, of in value.items() if part not in _ONLY_GIVEN}


def _is_fit(name: str, value: Any) -> bool:
    return isinstance(value, Mapping) if name in _PARTS else not isinstance(value, (Mapping, list))


def shown(value: Any) -> str:
    """A value as messages show it: of a mapping or list, whose values may be private, only the kind."""
    return f"a {type(value).__name__}" if isinstance(value, (Mapping, list)) else repr(value)


def help_of(name: str) -> str:
    """One line on a recipe setting."""
    return next(entry.metadata["help"] for entry in fields(Recipe) if entry.name == name)


def _checked(name: str, value: Any, hint: Any) -> Any:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and int not in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        names = " or ".join("null" if kind is types.NoneType else kind.__name__ for kind in allowed)
        raise ConfigError(f"The recipe setting {name!r} must be {names}; got {shown(value)}.")
    return value
