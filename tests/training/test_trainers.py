import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from tiny_models import build_llama, build_tokenizer

from hf_evol.errors import ColumnError, ConfigError, OutputError
from hf_evol.training.sets import load_training_sets
from hf_evol.training.trainers import PLAIN_TEMPLATE, FineTuning, write_llama_factory, write_trl

# What each configuration must say: learning rate 2e-5, cosine, 3 epochs, bf16.
PAPER = {"learning_rate": 2e-5, "lr_scheduler_type": "cosine", "num_train_epochs": 3, "bf16": True}
# LLaMA-Factory 0.9.5: names in its examples/train_full/llama3_full_sft.yaml and in the data_args.py and
# finetuning_args.py of its hparams, beside those of transformers' TrainingArguments.
LLAMA_FACTORY = {
    "model_name_or_path", "stage", "do_train", "finetuning_type", "dataset", "dataset_dir", "template", "cutoff_len",
    "packing", "train_on_prompt", "plot_loss", "warmup_ratio",
}  # fmt: skip


def read(path):
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


@pytest.fixture
def parsed_by_trl(monkeypatch):
    """What ``trl sft`` makes of a configuration: its arguments, and what is left for accelerate."""

    def parse(folder, config):
        from trl.scripts.sft import make_parser

        monkeypatch.chdir(folder)
        arguments = ["--config", config, "--use_cpu"]
        script, training, model, _, rest = make_parser().parse_args_and_config(arguments, return_remaining_strings=True)
        return script, training, model, rest

    return parse


@pytest.mark.parametrize(("per_device", "accumulated"), [(1, 64), (4, 16), (64, 1)])
def test_trl_reads_the_papers_settings(finished, out, parsed_by_trl, per_device, accumulated):
    commands = write_trl(load_training_sets([finished]), FineTuning("base/model", 1, per_device), str(out))
    assert commands == ["CUDA_VISIBLE_DEVICES=0 trl sft --config small-set/sft.yaml"]
    script, training, model, rest = parsed_by_trl(out, "small-set/sft.yaml")
    assert (script.dataset_name, script.dataset_train_split) == ("small-set/data", "train")
    assert (model.model_name_or_path, model.use_peft) == ("base/model", False)
    assert training.per_device_train_batch_size == per_device
    assert training.gradient_accumulation_steps == accumulated
    assert (training.learning_rate, training.num_train_epochs, training.bf16) == (2e-5, 3, True)
    assert training.lr_scheduler_type == "cosine"
    assert [training.get_warmup_steps(steps) for steps in (100, 2436)] == [3, 74]  # 0.03 of them, rounded up
    assert (training.max_length, training.packing, training.completion_only_loss) == (2048, False, True)
    assert training.chat_template_path == "chat_template.jinja"
    assert training.output_dir == "small-set/model"
    assert rest == ["--num_processes", "1"]


def test_the_yaml_is_the_papers(finished, out):
    sets, tuning, other = load_training_sets([finished]), FineTuning("base/model", 8, 2), out.with_name("other")
    assert write_trl(sets, tuning, str(out)) == ["trl sft --config small-set/sft.yaml"]
    write_llama_factory(sets, tuning, str(other))
    trl, factory = read(out / "small-set" / "sft.yaml"), read(other / "small-set" / "train.yaml")
    for config in (trl, factory):
        assert {name: config[name] for name in PAPER} == PAPER
        assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * 8 == 64
    assert (trl["max_length"], trl["warmup_steps"]) == (factory["cutoff_len"], factory["warmup_ratio"]) == (2048, 0.03)
    assert (trl["num_processes"], trl["accelerate_config"]) == (8, "fsdp2")
    assert "arXiv:2412.11231" in (out / "small-set" / "sft.yaml").read_text()


def test_the_rows_for_trl_are_prompts_and_completions(finished, out):
    (one,) = load_training_sets([finished])
    write_trl([one], FineTuning("base/model"), str(out))
    written = load_dataset(str(out / "small-set" / "data"), split="train")
    assert written.column_names == ["prompt", "completion"]
    for row, source in zip(written, one.rows, strict=True):
        text = source["instruction"] + ("\n" + source["input"] if source["input"] else "")
        assert row["prompt"] == [{"role": "user", "content": text}]
        assert row["completion"] == [{"role": "assistant", "content": source["output"]}]


def test_only_the_set_differs_between_configurations(finished, rows_folder, out):
    sets = load_training_sets([finished, rows_folder("other")])
    assert len(write_trl(sets, FineTuning("base/model"), str(out))) == 2
    first, second = (read(out / name / "sft.yaml") for name in ("small-set", "other"))
    assert first.keys() == second.keys()
    assert {name: (first[name], second[name]) for name in first if first[name] != second[name]} == {
        "dataset_name": ("small-set/data", "other/data"),
        "output_dir": ("small-set/model", "other/model"),
    }


def test_llama_factory_finds_its_rows_and_knows_every_name(finished, rows_folder, out):
    from transformers import TrainingArguments

    sets = load_training_sets([finished, rows_folder("other")])
    commands = write_llama_factory(sets, FineTuning("base/model"), str(out))
    assert commands[1] == "FORCE_TORCHRUN=1 NPROC_PER_NODE=1 llamafactory-cli train other/train.yaml"
    config = read(out / "other" / "train.yaml")
    assert config.keys() <= LLAMA_FACTORY | {field.name for field in dataclasses.fields(TrainingArguments)}
    assert (config["stage"], config["finetuning_type"], config["template"]) == ("sft", "full", "default")
    info = json.loads((out / config["dataset_dir"] / "dataset_info.json").read_text())
    assert info.keys() == {"small-set", "other"}
    entry = info[config["dataset"]]
    assert entry["columns"] == {"prompt": "instruction", "query": "input", "response": "output"}
    rows = load_dataset("parquet", data_files=str(out / entry["file_name"] / "*"), split="train")
    assert rows.to_list() == sets[1].rows.to_list()
    assert not (out / "zero3.json").exists()


def test_llama_factory_shards_over_several_gpus(rows_folder, out):
    commands = write_llama_factory(load_training_sets([rows_folder("a")]), FineTuning("base/model", 4), str(out))
    assert "NPROC_PER_NODE=4" in commands[0]
    sharding = json.loads((out / read(out / "a" / "train.yaml")["deepspeed"]).read_text())
    assert sharding["zero_optimization"]["stage"] == 3


@pytest.mark.parametrize(("gpus", "rows"), [(3, 4), (1, 3), (64, 2), (0, 4), (1, 0), (-1, -4)])
def test_a_batch_that_does_not_divide_64_is_refused(gpus, rows):
    with pytest.raises(ConfigError, match=r"64|1 or more"):
        FineTuning("base/model", gpus, rows)


@pytest.mark.parametrize("changes", [{"model": " "}, {"chat_template": ""}])
def test_an_empty_setting_is_refused(changes):
    with pytest.raises(ConfigError, match="empty"):
        FineTuning(**({"model": "base/model"} | changes))


def test_a_folder_that_is_not_there_is_told(out):
    with pytest.raises(ConfigError, match="no folder 'no/such/model'"):
        FineTuning("no/such/model")


def test_a_local_base_model_is_found_from_the_new_folder(rows_folder, out, tiny_model, monkeypatch):
    sets = load_training_sets([rows_folder("a")])
    monkeypatch.chdir(Path(tiny_model).parent)
    write_trl(sets, FineTuning(Path(tiny_model).name), str(out))
    assert read(out / "a" / "sft.yaml")["model_name_or_path"] == tiny_model


@pytest.mark.parametrize("model", ["user/x: {y}", "ünï", "a\nb: c", "yes", "1e3", "'\"#"])
def test_any_name_survives_the_yaml(rows_folder, out, model):
    write_trl(load_training_sets([rows_folder("a")]), FineTuning(model), str(out))
    assert read(out / "a" / "sft.yaml")["model_name_or_path"] == model


def test_chat_templates_of_trl(rows_folder, out, tmp_path):
    sets = load_training_sets([rows_folder("a")])
    (tmp_path / "mine.jinja").write_text("{{ messages }} ü", encoding="utf-8")
    write_trl(sets, FineTuning("base/model", chat_template="mine.jinja"), str(out))
    assert (out / read(out / "a" / "sft.yaml")["chat_template_path"]).read_text(encoding="utf-8") == "{{ messages }} ü"
    for chosen, said in (("own", None), ("some/model", "some/model")):
        write_trl(sets, FineTuning("base/model", chat_template=chosen), str(out), overwrite=True)
        assert read(out / "a" / "sft.yaml").get("chat_template_path") == said
        assert not (out / "chat_template.jinja").exists()
    with pytest.raises(ConfigError, match=r"nothing\.jinja"):
        write_trl(sets, FineTuning("base/model", chat_template="nothing.jinja"), str(out), overwrite=True)


@pytest.mark.parametrize(("chosen", "said"), [("plain", "default"), ("own", None), ("llama3", "llama3")])
def test_chat_templates_of_llama_factory(rows_folder, out, chosen, said):
    sets = load_training_sets([rows_folder("a")])
    write_llama_factory(sets, FineTuning("base/model", chat_template=chosen), str(out))
    assert read(out / "a" / "train.yaml").get("template") == said


@pytest.mark.parametrize(("bos", "start"), [(False, ""), (True, "<s>")])
def test_the_plain_template_reads_as_llama_factorys_default(bos, start):
    turns = [("user", "a {b}"), ("assistant", "c"), ("user", "d")]
    messages = [{"role": role, "content": content} for role, content in turns]
    tokenizer = build_tokenizer(bos=bos, template=PLAIN_TEMPLATE)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # LLaMA-Factory 0.9.5, "default": "Human: {content}<eos>\nAssistant:" and "{content}<eos>\n"
    assert text == f"{start}Human: a {{b}}<|end|>\nAssistant:c<|end|>\nHuman: d<|end|>\nAssistant:"
    assert text.startswith(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))


def test_rows_that_cannot_be_trained_on_are_told_and_nothing_is_written(rows_folder, out):
    with pytest.raises(ColumnError, match="null or empty"):
        write_trl(load_training_sets([rows_folder("a", output="")]), FineTuning("base/model"), str(out))
    assert not out.exists()


@pytest.mark.parametrize("write", [write_trl, write_llama_factory])
def test_an_earlier_recipe_is_replaced_on_request_only(rows_folder, out, write):
    old, new = load_training_sets([rows_folder("old")]), load_training_sets([rows_folder("new")])
    write(old, FineTuning("base/model"), str(out))
    with pytest.raises(OutputError, match="--overwrite"):
        write(new, FineTuning("base/model"), str(out))
    write(new, FineTuning("base/model"), str(out), overwrite=True)
    assert (out / "new").is_dir() and not (out / "old").exists()


def test_a_trained_model_is_never_overwritten(rows_folder, out):
    sets = load_training_sets([rows_folder("a")])
    write_trl(sets, FineTuning("base/model"), str(out))
    (out / "a" / "model").mkdir()
    (out / "a" / "model" / "model.safetensors").write_bytes(b"days of work")
    with pytest.raises(OutputError, match=r"a/model/model\.safetensors"):
        write_trl(sets, FineTuning("base/model"), str(out), overwrite=True)
    assert (out / "a" / "model" / "model.safetensors").read_bytes() == b"days of work"


def test_a_finished_set_is_never_overwritten(finished, rows_folder):
    with pytest.raises(OutputError, match="holds a set, no recipe"):
        write_trl(load_training_sets([rows_folder("a")]), FineTuning("base/model"), finished, overwrite=True)
    assert len(load_dataset(finished, split="train")) == 2


def test_a_remote_output_is_refused(rows_folder):
    with pytest.raises(ConfigError, match="local"):
        write_trl(load_training_sets([rows_folder("a")]), FineTuning("base/model"), "memory://out")


@pytest.mark.slow
def test_trl_trains_on_it(finished, out, tmp_path):
    base = tmp_path / "base"  # as base models come: without a chat template
    build_llama().save_pretrained(base)
    build_tokenizer(bos=True, template=None).save_pretrained(base)
    write_trl(load_training_sets([finished]), FineTuning(str(base), 1, 2), str(out))
    start = "import sys; from trl.cli.main import main; sys.argv[0] = 'trl'; main()"
    options = ["--use_cpu", "--max_steps", "3", "--logging_steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", start, "sft", "--config", "small-set/sft.yaml", *options],
        cwd=out,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    model = out / "small-set" / "model"
    log = json.loads((model / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3 and all(0 < loss < 20 for loss in losses)
    assert max(entry.get("learning_rate", 0) for entry in log) == pytest.approx(2e-5)
    assert (model / "model.safetensors").is_file()
    assert (model / "chat_template.jinja").read_text() == PLAIN_TEMPLATE
