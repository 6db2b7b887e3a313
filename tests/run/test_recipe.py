from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import yaml

from hf_evol.errors import ConfigError
from hf_evol.run.recipe import BUILT_IN, FILE_FORMATS, Recipe, help_of, public_name, shown

# Settings of arXiv:2412.11231 that all three recipes share.
PAPER = {
    "rounds": 3, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 2048, "response_temperature": 0.0,
    "response_max_new_tokens": 2048, "select_by": "ic_ifd",
}  # fmt: skip
MODELS = {
    "model": "Qwen/Qwen2-7B-Instruct",
    "responder": "Qwen/Qwen2.5-72B-Instruct",
    "scorer": "meta-llama/Meta-Llama-3-8B",
}
SEEDS = {
    "alpaca": {"dataset": "tatsu-lab/alpaca", "format": "alpaca", "methods": "alpaca"},
    "gsm8k": {"dataset": "openai/gsm8k", "config": "main", "format": "gsm8k", "methods": "gsm8k"},
    "code_alpaca": {"dataset": "sahil2801/CodeAlpaca-20k", "format": "code_alpaca", "methods": "code"},
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_built_in_recipe_has_the_papers_settings(name):
    settings = asdict(Recipe.load(name))
    expected = PAPER | MODELS | SEEDS[name]
    assert {key: settings[key] for key in expected} == expected
    assert settings["select"] in (0.05, 0.10, 0.15, 0.25)
    assert settings["split"] == "train"


def test_the_built_in_recipes_are_those_and_write_to_different_places():
    names = {*SEEDS, "from_scratch"}
    assert {file.stem for file in BUILT_IN.glob("*.yaml")} == names
    assert len({Recipe.load(name).output for name in names}) == len(names)


def load(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return Recipe.load(file)


def test_a_file_overrides_the_defaults_and_nothing_else(tmp_path):
    assert load(tmp_path, "dataset: me/wörter\nrounds: 2\n") == Recipe(dataset="me/wörter", rounds=2)


def test_a_recipe_written_as_yaml_loads_the_same(tmp_path):
    recipe = Recipe(model={"name": "m", "revision": "r"}, methods=["deepen"], seed=7, journal=False, select=3)
    assert load(tmp_path, yaml.safe_dump(asdict(recipe))) == recipe


def test_unknown_keys_are_named_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"'modle', 'sed'\. Settings: dataset, .*model,.*seed,"):
        load(tmp_path, "sed: 1\nmodle: x\n")


def test_a_key_that_is_no_text_is_unknown(tmp_path):
    with pytest.raises(ConfigError, match="Unknown recipe setting '1'"):
        load(tmp_path, "1: 2\n")


WRONG = [
    ("rounds", "3", "int"),
    ("rounds", 1.0, "int"),
    ("rounds", None, "int"),
    ("seed", True, "int"),
    ("limit", False, "int or null"),
    ("temperature", True, "float"),
    ("temperature", "warm", "float"),
    ("select", None, "int or float"),
    ("dataset", None, "str"),
    ("dataset", ["a"], "str"),
    ("model", 7, "str or dict"),
    ("model", None, "str or dict"),
    ("responder", True, "str or dict or null"),
    ("methods", {"a": 1}, "str or list"),
    ("overwrite", "yes", "bool"),
    ("overwrite", 1, "bool"),
    ("journal", 1, "bool or str"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_value_of_the_wrong_type_is_refused(name, value, allowed):
    with pytest.raises(ConfigError, match=f"'{name}' must be {allowed}; got ") as caught:
        Recipe(**{name: value})
    assert shown(value) in str(caught.value)


def test_an_integer_is_a_float_and_a_boolean_is_neither():
    recipe = Recipe(select=100, temperature=0, top_p=1)
    assert (recipe.temperature, recipe.top_p) == (0.0, 1.0)
    assert all(isinstance(value, float) for value in (recipe.temperature, recipe.top_p))
    assert isinstance(recipe.select, int) and isinstance(Recipe(select=1.0).select, float)  # 100 rows; all rows
    with pytest.raises(ConfigError, match="'select' must be int or float; got True"):
        Recipe(select=True)


@pytest.mark.parametrize("name", ["rounds", "tries", "best_of", "batch_size", "limit", "num_proc"])
def test_a_count_below_one_is_refused(name):
    for value in (0, -1):
        with pytest.raises(ConfigError, match=f"{name} must be 1 or more; got {value}"):
            Recipe(**{name: value})


@pytest.mark.parametrize("value", [0, -2, 1.5, math.nan, math.inf])
def test_a_selection_out_of_range_is_refused_before_anything_runs(value):
    with pytest.raises(ConfigError, match="select"):
        Recipe(select=value)


def test_an_unknown_file_format_lists_those_there_are():
    with pytest.raises(ConfigError, match="parquet, json, arrow; got 'xml'"):
        Recipe(file_format="xml")
    assert [Recipe(file_format=name).file_format for name in FILE_FORMATS] == list(FILE_FORMATS)


@pytest.mark.parametrize("text", ["rounds: [1", "a: b: c", "\tx", "!!python/object:os.system {}", "\x00"], ids=repr)
def test_malformed_yaml_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"Cannot read the recipe .*recipe\.yaml"):
        load(tmp_path, text)


def test_yaml_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"dataset: \xff\xfe")
    with pytest.raises(ConfigError, match=r"Cannot read the recipe .*recipe\.yaml"):
        Recipe.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("text", ["", "- rounds: 1", "rounds", "3", "null"], ids=repr)
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="must be a mapping"):
        load(tmp_path, text)


def test_a_missing_recipe_lists_the_built_in_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"'nothing'.*alpaca, code_alpaca, from_scratch, gsm8k"):
        Recipe.load("nothing")


def test_with_settings_leaves_the_recipe_alone():
    recipe = Recipe()
    assert recipe.with_settings({"rounds": 5}).rounds == 5
    assert recipe == Recipe()
    with pytest.raises(ConfigError, match="Unknown recipe setting 'round'"):
        recipe.with_settings({"round": 5})


def test_every_setting_has_a_help_line():
    assert all(help_of(name) for name in Recipe.__dataclass_fields__)


PUBLIC = {
    "me/rows": "me/rows",
    "demo/gsm8k": "demo/gsm8k",
    "rows/a.jsonl": "rows/a.jsonl",
    "/home/me/rows.jsonl": "rows.jsonl",
    "/home/me/folder/": "folder",
    "~/rows.jsonl": "rows.jsonl",
    "/home/me/*.jsonl": "*.jsonl",
    "s3://bucket/rows.json": "s3://bucket/rows.json",
    "https://me:secret@host/rows.json?token=1": "https://host/rows.json",
    "https://host:8080/a/b.json": "https://host:8080/a/b.json",
    "https://token@host": "https://host",
    "https://host/a@b.json": "https://host/a@b.json",
    "hf://datasets/me/rows@main/a.json": "hf://datasets/me/rows@main/a.json",
}


def test_a_public_name_holds_nothing_private():
    assert {source: public_name(source) for source in PUBLIC} == PUBLIC


@pytest.mark.parametrize(
    "source",
    [
        "file:///home/me/rows.jsonl",
        "local:///home/me/rows.jsonl",
        "zip://rows.jsonl::https://me:secret@host/rows.zip?token=secret",
        "simplecache::s3://me:secret@bucket/rows.jsonl",
        "zip://rows.jsonl::/home/me/rows.zip",
        "https://host/rows.json#access_token=secret",
    ],
)
def test_no_kind_of_url_gives_away_a_secret_or_a_home(source):
    name = public_name(source)
    assert "secret" not in name
    assert "/home/me" not in name
    assert "rows" in name


def test_the_card_shows_what_decides_the_result():
    assert Recipe().for_card() == {
        "dataset": "demo/general", "model": "demo", "methods": "alpaca", "rounds": 1, "tries": 8,
        "seed": 0, "temperature": 0.0, "top_p": 0.95, "max_new_tokens": 2048, "response_max_new_tokens": 2048,
        "convention": "paper", "select": 0.25,
    }  # fmt: skip
    shown = Recipe(judge="me/judge", limit=9, select_by="ifd", model={"name": "me/m", "revision": "r"}).for_card()
    assert (shown["judge"], shown["limit"], shown["select_by"]) == ("me/judge", 9, "ifd")
    assert shown["model"] == {"name": "me/m", "revision": "r"}
    of_responses = {"response_system": "Be brief.", "response_temperature": 0.5, "response_top_p": 0.9}
    assert Recipe(**of_responses).for_card() == Recipe().for_card() | of_responses


def test_the_card_shows_no_settings_of_this_machine():
    local = {
        "output": "/home/me/out", "overwrite": True, "push_to": "me/set", "private": True, "journal": "/home/me/journal",
        "device": "cuda:1", "num_proc": 2, "batch_size": 8,
    }  # fmt: skip
    assert Recipe(**local).for_card() == Recipe().for_card()


@pytest.mark.parametrize("folder", ["/home/me", "~"])
def test_the_card_shows_no_path_of_this_machine(folder):
    files = dict.fromkeys(("dataset", "model", "responder", "scorer", "judge"), "thing")
    files |= {"chat_template": "chat.jinja", "methods": "methods.yaml"}
    shown = Recipe(**{name: f"{folder}/{file}" for name, file in files.items()}).for_card()
    assert {name: shown[name] for name in files} == files


def test_the_card_shows_no_path_or_device_in_a_models_settings():
    settings = {
        "name": "/home/me/model",
        "device": "cuda:1",
        "chat_template": "/home/me/chat.jinja",
        "dtype": "float32",
    }
    for role in ("model", "responder", "scorer", "judge"):
        shown = Recipe(**{role: settings}).for_card()[role]
        assert shown == {"name": "model", "chat_template": "chat.jinja", "dtype": "float32"}


def test_a_models_settings_without_a_name_mean_the_default_one():
    shown = Recipe(model={"dtype": "float32"}).for_card()["model"]
    assert shown.get("name", "demo") == "demo"


def test_an_inline_chat_template_is_shown_whole():
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert Recipe(chat_template=template).for_card()["chat_template"] == template


def test_the_card_shows_no_credentials():
    shown = Recipe(dataset="https://me:secret@host/rows.jsonl?token=secret").for_card()
    assert shown["dataset"] == "https://host/rows.jsonl"
