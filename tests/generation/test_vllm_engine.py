"""The engine against vLLM itself, with SmolLM2-135M-Instruct: ``make test-vllm``."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from tiny_models import plain_model

from hf_evol import models
from hf_evol.errors import ConfigError, ModelError
from hf_evol.generation.base import GREEDY, SamplingParams, generate
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.generation.vllm_engine import VllmEngine
from hf_evol.models import ModelSpec
from hf_evol.models.spec import DEMO
from hf_evol.prompts.respond import respond_prompt
from hf_evol.prompts.template import chat
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="make test-vllm installs vLLM")]

SMALL = {"gpu_memory_utilization": 0.15, "enforce_eager": True}  # of the memory; and without compiling
THINGS = "sea bread rivers bees chess rain copper trains wool glass salt owls".split()
TEXTS = [f"List three facts about {thing}." for thing in THINGS] + [f"What is {thing}? One word." for thing in THINGS]
MANY = [f"{text} Then do so for {number} others." for number in range(2, 10) for text in TEXTS]
SAMPLED = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's model as safetensors, which vLLM reads."""
    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    of_gguf = plain_model(DEMO)
    unpacked = type(of_gguf)(models.load_config(ModelSpec(DEMO)))
    unpacked.load_state_dict(of_gguf.state_dict())
    unpacked.save_pretrained(folder)
    models.load_tokenizer(ModelSpec(DEMO)).save_pretrained(folder)
    models.release()
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    yield VllmEngine(ModelSpec(str(folder), loading=SMALL))
    models.release()


def complete(engine, texts, params=SAMPLED, seed=0):
    return generate(engine, [chat(text) for text in texts], params, [f"{seed}|{text}" for text in texts], None)


def texts_of(*arguments, **options):
    return [completion.text for completion in complete(*arguments, **options)]


def works(process):
    """Whether a process is one of vLLM's, and not dead."""
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE and "VLLM" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def processes(of=None):
    """The processes of vLLM below one, by default this."""
    import psutil

    return [process for process in psutil.Process(of).children(recursive=True) if works(process)]


def test_a_text_that_only_repeats_itself_is_ended(engine, folder):
    """As with the other engine, whose text is the same, and ended earlier or later."""
    params = SamplingParams(temperature=0, max_new_tokens=1200)
    asked = [respond_prompt("Discuss the importance of recycling in a sustainable way.", None)]
    ended, other = (
        generate(each, asked, params, ["key"], None)[0] for each in (engine, TransformersEngine(ModelSpec(str(folder))))
    )
    assert ended.finish_reason == other.finish_reason == "length"
    assert max(ended.n_tokens, other.n_tokens) < 1200 and ended.text[:400] == other.text[:400]


def test_greedily_it_is_what_transformers_gives(folder, engine):
    """Texts, counts of tokens without the end token, reasons, and probabilities of the most probable tokens."""
    params = SamplingParams(temperature=0.0, top_p=1.0, max_new_tokens=48, top1_probs=8)
    expected = complete(TransformersEngine(ModelSpec(str(folder))), TEXTS, params)
    done = complete(engine, TEXTS, params)
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}
    for ours, theirs in zip(done, expected, strict=True):
        assert ours.top1_probs == pytest.approx(theirs.top1_probs, abs=1e-3)
        assert (ours.text, ours.finish_reason, ours.n_prompt_tokens, ours.n_tokens) == (
            theirs.text, theirs.finish_reason, theirs.n_prompt_tokens, theirs.n_tokens,
        )  # fmt: skip


def test_a_key_gives_the_same_text_in_any_company(engine):
    expected = dict(zip(TEXTS, texts_of(engine, TEXTS), strict=True))
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert dict(zip(shuffled, texts_of(engine, shuffled), strict=True)) == expected
    assert texts_of(engine, TEXTS[5:8]) == [expected[text] for text in TEXTS[5:8]]
    assert texts_of(engine, TEXTS[3:4]) == [expected[TEXTS[3]]]
    assert texts_of(engine, TEXTS[:8], seed=1) != texts_of(engine, TEXTS[:8])


def test_prompts_of_more_tokens_than_a_step_reads_keep_their_texts(engine):
    """A prompt read in parts would draw from its seed's generator once more for each part, which a CPU's can't take back."""
    texts = [f"{text} {'Think of the sea. ' * 90}" for text in TEXTS]
    together = texts_of(engine, texts)
    assert texts_of(engine, texts[-2:]) == together[-2:] and all(together)


def test_too_long_prompts_get_an_error_and_others_go_on(engine):
    long, other = complete(engine, ["sea " * 20_000, TEXTS[0]], GREEDY)
    assert long.error.startswith("too_long: the prompt has") and long.finish_reason == "error"
    assert other.error is None and other.text


def test_what_is_finished_comes_while_the_rest_runs(engine):
    texts = ["Say yes.", *TEXTS]
    lists = [places for finished in engine.stream([chat(t) for t in texts], GREEDY, texts) if (places := finished)]
    assert len(lists) > len(texts) / 4 and sorted(place for of in lists for place, _ in of) == list(range(len(texts)))


def test_a_process_that_is_killed_is_an_error_and_the_next_call_starts_anew(engine, capfd):
    finished = engine.stream([chat("Say yes."), *map(chat, TEXTS)], GREEDY, ["yes", *TEXTS])
    assert next(finished) == [] and next(finished)
    for process in processes():
        process.kill()
    with pytest.raises(ModelError, match="vLLM broke off"):
        list(finished)
    assert texts_of(engine, TEXTS[:1]) != [""] and not any(capfd.readouterr())


def test_one_engine_at_a_time_and_none_after_release(folder, engine):
    complete(engine, TEXTS[:1])
    before = processes()
    short = VllmEngine(ModelSpec(str(folder), loading={**SMALL, "max_model_len": 64}))
    assert complete(short, ["sea " * 80])[0].error.endswith("the model's context is 64")
    now = processes()
    assert before and len(now) == len(before) and not set(before) & set(now)
    models.release()
    assert not processes()


def test_what_vllm_cannot_be_given_is_an_error(folder):
    spec = ModelSpec(str(folder), loading={"device_map": "auto"})
    with pytest.raises(ConfigError, match="vLLM has no argument 'device_map'"):
        VllmEngine(spec).check()
    with pytest.raises(ConfigError, match="loading must not hold dtype"):
        VllmEngine(ModelSpec(str(folder), loading={"dtype": "float16"})).check()
    with pytest.raises(ModelError, match=r"can't start.*max_model_len \(1000000\)"):
        complete(VllmEngine(ModelSpec(str(folder), loading={"max_model_len": 1_000_000})), TEXTS[:1])
    with pytest.raises(ConfigError, match="leave device unset"):
        VllmEngine(ModelSpec(str(folder), device="cpu"))
    with pytest.raises(ConfigError, match="reads no GGUF files"):
        VllmEngine(ModelSpec(DEMO))


def test_a_recipe_gives_vllm_its_arguments_and_the_scorer_none(folder):
    mapping = {"name": str(folder), "engine": "vllm", "loading": {**SMALL, "max_model_len": 512}}
    stages = Stages.of(Recipe(model=mapping))
    engine, scorer = stages.evolve.model, stages.score.model
    assert isinstance(engine, VllmEngine) and engine.model.loading_options == mapping["loading"]
    assert scorer == ModelSpec(str(folder)) and isinstance(stages.respond.model, VllmEngine)
    less = VllmEngine(ModelSpec(str(folder), loading={**mapping["loading"], "gpu_memory_utilization": 0.5}))
    assert less.identity() == engine.identity() != VllmEngine(ModelSpec(str(folder))).identity()


def command(tmp_path, model, *options, texts=TEXTS):
    """``hf-evol evolve`` with journal and output in a folder."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": text, "output": "Yes."}) + "\n" for text in texts))
    arguments = ["--dataset", rows, "--model", model, "--engine", "vllm", "--tries", "1", "--output", tmp_path / "out"]
    arguments += ["--journal", tmp_path / "journal.sqlite", *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("VLLM")}
    return subprocess.Popen(
        [sys.executable, "-m", "hf_evol.cli.main", "evolve", *map(str, arguments)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finished_requests(tmp_path):
    """When each request that the journal holds was finished."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{tmp_path / 'journal.sqlite'}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT hash, created FROM requests").fetchall())
    except sqlite3.Error:
        return {}


def test_a_killed_command_goes_on_from_the_journal(folder, tmp_path):
    """By Ctrl-C, which all processes of a terminal get, and by SIGKILL, which only ours gets. The share of the memory is the
    one by default."""
    model, before = json.dumps({"name": str(folder), "loading": {"enforce_eager": True}}), {}
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process, deadline = command(tmp_path, model, "--max-new-tokens", "128", texts=MANY), time.monotonic() + 300
        while (done := finished_requests(tmp_path)).keys() == before.keys() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        left = processes(process.pid)
        (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == code and not out
        if sent == signal.SIGINT:
            assert errors.endswith("the same command goes on from there.\n") and "Error" not in errors
        ended = time.monotonic() + 60
        while any(map(works, left)) and time.monotonic() < ended:
            time.sleep(0.1)
        assert left and not any(map(works, left))
        done = finished_requests(tmp_path)
        assert len(before) < len(done) < len(MANY) and before.items() <= done.items()
        before = done
    process = command(tmp_path, model, "--max-new-tokens", "128", texts=MANY)
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0 and "INFO" not in out + errors and out.startswith(f"{len(MANY)} rows in")
    done = finished_requests(tmp_path)
    assert before.items() <= done.items() and len(done) == len(MANY)


def test_a_failed_start_is_one_sentence(folder, tmp_path):
    model = json.dumps({"name": str(folder), "loading": {"gpu_memory_utilization": 0.99}})
    process = command(tmp_path, model)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and not out and len(errors.splitlines()) == 1
    assert errors.startswith("Error: vLLM can't start with") and "Available memory" in errors
