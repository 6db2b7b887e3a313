"""The engine against servers that people run, with SmolLM2-135M-Instruct in float32: ``make test-servers``."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from chat_server import unused_port
from tiny_models import plain_model

from hf_evol import models
from hf_evol.errors import ConfigError, HfEvolError
from hf_evol.generation import endpoint
from hf_evol.generation.base import SamplingParams, generate
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import ModelSpec
from hf_evol.models.spec import DEMO
from hf_evol.prompts.template import chat

ROOT = Path(__file__).parents[2]
LLAMA_CPP, VLLM = (ROOT / f".venv-{name}" / "bin" / "python" for name in ("servers", "vllm"))
MODELS = ROOT / ".venv-servers" / "models"
pytestmark = pytest.mark.servers

CONTEXT = 1024
THINGS = "sea bread rivers bees chess rain copper trains wool glass salt owls".split()
TEXTS = [f"List three facts about {thing}." for thing in THINGS] + [f"What is {thing}? One word." for thing in THINGS]
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, max_new_tokens=32, top1_probs=8)
SAMPLED = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=16)
# What a server that heeds it would do to every text.
OF_ITS_OWN = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.01, "repetition_penalty": 1.3}

RUN_LLAMA_CPP = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.port, params.model.path, params.n_ctx = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
params.cpuparams.n_threads = params.n_parallel = 1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def folder():
    """The demo's model as safetensors, with sampling settings of its own and a short context. It stays for the next time."""
    folder = MODELS / "SmolLM2-135M-Instruct"
    if (folder / "tokenizer.json").exists():
        return folder
    of_gguf = plain_model(DEMO)
    unpacked = type(of_gguf)(models.load_config(ModelSpec(DEMO)))
    unpacked.load_state_dict(of_gguf.state_dict())
    unpacked.save_pretrained(folder)
    for name, more in (("config", {"max_position_embeddings": CONTEXT}), ("generation_config", OF_ITS_OWN)):
        file = folder / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
    models.load_tokenizer(ModelSpec(DEMO)).save_pretrained(folder)
    models.release()
    return folder


@pytest.fixture(scope="module")
def gguf_file():
    """The same weights as a GGUF file without packing, which llama.cpp multiplies in float32."""
    import gguf

    spec = ModelSpec(DEMO)
    file = MODELS / "SmolLM2-135M-Instruct.gguf"
    if file.exists():
        return file
    MODELS.mkdir(exist_ok=True)
    reader = gguf.GGUFReader(Path(spec.path) / spec.gguf_file)
    writer = gguf.GGUFWriter(part := file.with_suffix(".part"), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return part.rename(file)


class Server:
    """A server of one kind, which can be killed and started again at the same address."""

    def __init__(self, kind, weights, log):
        self.kind, self.log, self.port = kind, log, unused_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        here = ["--host", "127.0.0.1", "--port", str(self.port)]
        if kind == "llama.cpp":
            self.model = weights.stem
            self.command = [LLAMA_CPP, "-c", RUN_LLAMA_CPP, self.port, weights, CONTEXT]
        elif kind == "vllm":
            self.model = weights.name
            self.command = [VLLM, "-m", "vllm.entrypoints.openai.api_server", "--model", weights, *here]
            self.command += ["--served-model-name", self.model, "--dtype", "float32", "--enforce-eager"]
            self.command += ["--gpu-memory-utilization", "0.15", "--max-model-len", CONTEXT]
        else:
            self.model = str(weights)
            self.command = [sys.executable, "-m", "transformers.cli.transformers", "serve", weights, *here]
            self.command += ["--device", "cpu", "--dtype", "float32"]
        if not Path(self.command[0]).exists():
            pytest.skip(f"no {self.command[0]}: make test-servers makes it")

    def start(self):
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, self.command)), env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def ready(self):
        end = time.monotonic() + 200
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=5):
                return self
            time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def kill(self):
        """With all of its processes, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def engine(self, **options):
        return EndpointEngine(self.model, self.url, **options)


@pytest.fixture(scope="module", params=["transformers", "llama.cpp", "vllm"])
def server(request, tmp_path_factory):
    weights = request.getfixturevalue("gguf_file" if request.param == "llama.cpp" else "folder")
    server = Server(request.param, weights, tmp_path_factory.mktemp("log") / "log")
    server.start()
    try:
        yield server.ready()
    finally:
        server.kill()


@pytest.fixture(scope="module")
def expected(folder):
    """What the engine in this process gives greedily."""
    done = complete(TransformersEngine(ModelSpec(str(folder))), TEXTS, GREEDY)
    models.release()
    return done


def complete(engine, texts, params=SAMPLED, seed=0):
    return generate(engine, [chat(text) for text in texts], params, [f"{seed}|{text}" for text in texts], None)


def texts_of(*arguments, **options):
    return [completion.text for completion in complete(*arguments, **options)]


def test_greedily_it_is_what_transformers_gives(server, expected):
    """Whatever the model's own generation_config.json says: texts, reasons, counts of tokens without the end token, and
    probabilities of the most probable tokens, where the server tells them."""
    engine = server.engine()
    engine.check(GREEDY)
    done = complete(engine, TEXTS, GREEDY)
    assert {completion.finish_reason for completion in expected} == {"stop", "length"}
    for name in ("text", "finish_reason", "n_prompt_tokens", "n_tokens"):
        pairs = [(getattr(ours, name), getattr(theirs, name)) for ours, theirs in zip(done, expected, strict=True)]
        others = [pair for pair in pairs if pair[0] != pair[1]]
        print(f"{server.kind}: {name}: {len(pairs) - len(others)} of {len(pairs)} equal", *others, sep="\n  ")
    assert [c.n_prompt_tokens for c in done] == [c.n_prompt_tokens for c in expected]
    equal = [pair for pair in zip(done, expected, strict=True) if pair[0].text == pair[1].text]
    assert len(equal) >= (
        22 if server.kind == "llama.cpp" else 24
    )  # it rounds otherwise: of near ties, another token wins
    for ours, theirs in equal:
        assert (ours.finish_reason, ours.n_tokens) == (theirs.finish_reason, theirs.n_tokens)
        if server.kind == "transformers":
            assert ours.top1_probs is None
        else:
            assert ours.top1_probs == pytest.approx(theirs.top1_probs, abs=1e-2 if server.kind == "llama.cpp" else 1e-3)
    assert engine.notes == []


def test_sampled_tokens_have_the_probabilities_of_temperature_and_top_p(server, folder):
    """Of a hundred first tokens with as many seeds: no top-k, min-p or penalty, and the temperature before the nucleus."""
    import torch

    engine, text, params = server.engine(), "Name an animal.", SamplingParams(1.4, 0.8, 1)
    engine.check(params)
    spec = ModelSpec(str(folder))
    tokenizer, model = models.load_tokenizer(spec), plain_model(spec)
    ids = tokenizer.apply_chat_template(chat(text), add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        probabilities = (model(**ids).logits[0, -1].float() / params.temperature).softmax(-1).sort(descending=True)
    size = int((probabilities.values.cumsum(-1) - probabilities.values < params.top_p).sum())
    nucleus = (probabilities.values[:size] / probabilities.values[:size].sum()).tolist()
    words = [tokenizer.decode([token]).strip() for token in probabilities.indices[:size].tolist()]
    found = Counter(
        completion.text.strip()
        for completion in generate(engine, [chat(text)] * 100, params, [str(key) for key in range(100)], None)
    )
    likely = Counter()
    for word, probability in zip(words, nucleus, strict=True):
        likely[word] += probability
    distinct = sum(1 - (1 - probability) ** 100 for probability in likely.values())
    print(f"{server.kind}: nucleus of {size}, {len(found)} distinct tokens of 100, {distinct:.0f} expected")
    assert sum(count for word, count in found.items() if word not in likely) <= 2  # halves of characters
    assert abs(len(found) - distinct) < 4 * distinct**0.5
    for word, probability in likely.most_common(5):
        assert abs(found[word] - 100 * probability) < 4 * (100 * probability) ** 0.5 + 1, (
            word,
            found[word],
            probability,
        )
    assert engine.notes == []
    models.release()


def test_a_key_gives_the_same_text(server):
    """In any company by vLLM and llama.cpp; transformers serve has one noise for all of its requests, so there only alone."""
    engine = server.engine(max_concurrency=1) if server.kind == "transformers" else server.engine()
    texts = TEXTS[:8]
    expected = dict(zip(texts, texts_of(engine, texts), strict=True))
    shuffled = random.Random(1).sample(texts, len(texts))
    again = dict(zip(shuffled, texts_of(engine, shuffled), strict=True))
    print(f"{server.kind}: {sum(expected[text] == again[text] for text in texts)} of {len(texts)} equal")
    assert again == expected
    assert all(expected[text] != other for text, other in zip(texts, texts_of(engine, texts, seed=1), strict=True))


def test_too_long_prompts_get_their_status_and_others_go_on(server):
    long, other = complete(server.engine(), ["sea " * (CONTEXT + 100), TEXTS[0]], SAMPLED)
    print(f"{server.kind}: {long.error}")
    if server.kind == "transformers":  # it reads on past the context
        assert long.error is None and long.n_prompt_tokens > CONTEXT
    else:
        assert long.error.startswith("too_long: HTTP 400") and long.finish_reason == "error"
    assert other.error is None and other.text


def test_an_answer_gets_what_the_context_leaves(server):
    if server.kind == "transformers":
        pytest.skip("it has no limit")
    params = SamplingParams(1.0, 1.0, CONTEXT)
    (completion,) = complete(server.engine(), ["sea " * (CONTEXT - 100)], params)
    print(f"{server.kind}: {completion}")
    assert completion.error is None and completion.n_prompt_tokens + completion.n_tokens <= CONTEXT


def test_a_wrong_name_is_an_error(server):
    with pytest.raises(HfEvolError) as caught:
        EndpointEngine("no-such-model", server.url).check()
    print(f"{server.kind}: {caught.value}")
    assert isinstance(caught.value, ConfigError) == (server.kind != "transformers")
    assert "no-such-model" in str(caught.value)


def test_a_server_that_is_killed_and_started_again_costs_no_row(server, caplog):
    engine, params = server.engine(max_concurrency=2), SamplingParams(0.0, 1.0, 16)
    texts = TEXTS[:12]
    expected = texts_of(engine, texts, params)
    found, first = [], threading.Event()

    def work():
        for finished in engine.stream([chat(text) for text in texts], params, texts):
            found.extend(finished)
            first.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert first.wait(60)
    server.kill()
    before = len(found)
    time.sleep(3)
    begun = time.monotonic()
    server.start()
    server.ready()
    print(f"{server.kind}: killed after {before} of {len(texts)} rows, back after {time.monotonic() - begun:.0f} s")
    thread.join()
    assert before < len(texts) and "is away (connection failed" in caplog.text
    assert [completion.text for _, completion in sorted(found)] == expected


def test_a_server_that_hangs_is_waited_for_and_then_given_up(server, caplog):
    engine = server.engine(timeout_s=2.0, patience_s=6.0, max_concurrency=2)
    complete(engine, TEXTS[:1], SamplingParams(0.0, 1.0, 1))
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        done = complete(engine, TEXTS, SamplingParams(0.0, 1.0, 2))
        took = time.monotonic() - begun
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    print(f"{server.kind}: {took:.0f} s for {len(TEXTS)} rows; {done[-1].error}")
    assert all(completion.error == "engine_error: no answer within 2 s" for completion in done)
    assert "is away (no answer within 2 s)" in caplog.text and took < 60
    endpoint._known.clear()
    time.sleep(5)
    assert not any(completion.error for completion in complete(server.engine(), TEXTS[:2]))
