"""Models in GGUF files, written here by the gguf package from the tiny Llama."""

import shutil

import pytest
import torch
from tiny_models import plain_model

from hf_evol import models
from hf_evol.errors import ModelError
from hf_evol.generation.base import SamplingParams, generate
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import ModelSpec, loading
from hf_evol.models.record import describe
from hf_evol.prompts.template import chat

gguf = pytest.importorskip("gguf")

TEXTS = ["write a poem", "list three facts about the sea", "why"]


def write_gguf(folder, file, architecture="llama"):
    """The Llama of a folder as one GGUF file, in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    config, writer = model.config, gguf.GGUFWriter(file, architecture)
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges_of(tokenizer)])
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # GGUF keeps the two halves of a rotation beside each other
                rows, width = tensor.shape
                tensor = tensor.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges_of(tokenizer):
    import json

    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]


@pytest.fixture(scope="module")
def gguf_model(tiny_model, tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "Tiny-Model.F32.gguf"
    write_gguf(tiny_model, file)
    return file


def texts_of(spec):
    params = SamplingParams(temperature=0.7, max_new_tokens=12)
    return [c.text for c in generate(TransformersEngine(spec), [chat(t) for t in TEXTS], params, TEXTS, None)]


def test_a_file_says_what_its_folder_says(tiny_model, gguf_model):
    assert texts_of(ModelSpec(str(gguf_model))) == texts_of(ModelSpec(tiny_model))
    model = models.load_model(ModelSpec(str(gguf_model)))
    assert model.dtype == torch.float32


def test_a_folder_with_one_file_stands_for_it(gguf_model):
    file, folder = ModelSpec(str(gguf_model)), ModelSpec(str(gguf_model.parent))
    assert folder.gguf_file == file.gguf_file == gguf_model.name
    assert folder.label == file.label == "Tiny-Model.F32"
    models.load_config(folder)


def test_a_folder_with_several_asks_which(gguf_model, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(gguf_model, tmp_path / name)
    with pytest.raises(ModelError, match=r"several GGUF files; name one of them: a\.gguf, b\.gguf"):
        models.load_config(ModelSpec(str(tmp_path)))


def test_other_weights_beside_a_file_come_first(tiny_model, gguf_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "both")
    shutil.copy(gguf_model, folder)
    assert ModelSpec(str(folder)).gguf_file is None


def test_names_on_the_hub():
    spec = ModelSpec("user/model:model.Q4_K_M.gguf", revision="v1")
    assert (spec.path, spec.gguf_file, spec.label) == ("user/model", "model.Q4_K_M.gguf", "model.Q4_K_M")
    assert not spec.looks_local
    assert spec.where == {
        "pretrained_model_name_or_path": "user/model", "revision": "v1", "gguf_file": "model.Q4_K_M.gguf",
    }  # fmt: skip


def test_the_identity_is_that_of_the_file(gguf_model, tmp_path):
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    for file in (one, other):
        shutil.copy(gguf_model, file)
    before = models.weights_identity(ModelSpec(str(one)))
    other.write_bytes(other.read_bytes() + b"\0")
    assert models.weights_identity(ModelSpec(str(one))) == before
    assert models.weights_identity(ModelSpec(str(other)))["files"] != before["files"]


def test_what_a_card_says_of_it(tiny_model, gguf_model):
    record = describe("evolver", ModelSpec(str(gguf_model)))
    parameters = sum(weights.numel() for weights in plain_model(tiny_model).parameters())
    assert (record.name, record.n_parameters, record.license) == ("Tiny-Model.F32", parameters, "mit")
    assert record.dtype == "F32 (GGUF), unpacked to float32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no GGUF file"),
        (b"", "Cannot read the configuration"),
        (b"GGUF\3\0\0\0 and so on", "llama-server -m FILE"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    file = tmp_path / "bad.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        models.load_config(ModelSpec(str(file)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_download(gguf_model, tmp_path, share):
    content = gguf_model.read_bytes()
    (tmp_path / "half.gguf").write_bytes(content[: int(len(content) * share)])
    spec = ModelSpec(str(tmp_path / "half.gguf"))
    with pytest.raises(ModelError, match="Cannot read the"):
        models.load_config(spec)
        models.load_model(spec)


def test_an_architecture_that_only_servers_know(tiny_model, tmp_path):
    write_gguf(tiny_model, tmp_path / "odd.gguf", architecture="rwkv7")
    with pytest.raises(ModelError, match="--engine endpoint"):
        TransformersEngine(ModelSpec(str(tmp_path / "odd.gguf"))).check()


@pytest.mark.parametrize("package", ["gguf", "accelerate"])  # transformers reads GGUF files by both
def test_without_the_reader(gguf_model, monkeypatch, package):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    loading._load_config.cache_clear()
    with pytest.raises(ImportError, match=rf"needs {package}, .*pip install .*gguf"):
        models.load_config(ModelSpec(str(gguf_model)))


def test_no_bar_is_shown_where_bars_are_unwanted(gguf_model, capfd):
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        models.release()
        models.load_model(ModelSpec(str(gguf_model)))
    finally:
        logging.enable_progress_bar() if shown else None
    assert capfd.readouterr().err == ""
