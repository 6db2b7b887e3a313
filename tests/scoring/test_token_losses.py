"""Models as backbone and head: each architecture against the cross-entropy of its own logits."""

import gc

import numpy as np
import pytest
import torch
import transformers
from tiny_models import build_llama
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from hf_evol.errors import ModelError
from hf_evol.scoring import token_losses
from hf_evol.scoring.token_losses import SplitModel, split_model

USUAL = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
HEADS = {"num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = HEADS | {"num_key_value_heads": 2, "head_dim": 8}
# What a configuration does to the head's output is made large here, so that leaving it out would show.
ARCHITECTURES = {
    "Llama": GROUPED,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "OPT": {"num_attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 16},
    "Gemma2": GROUPED | {"final_logit_softcapping": 2.0, "sliding_window": 4},
    "Cohere": GROUPED | {"logit_scale": 0.25},
    "Granite": GROUPED | {"logits_scaling": 4.0},
    "Qwen2": HEADS | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "GPTNeoX": HEADS,
    "Bloom": {"n_layer": 2, "n_head": 4},  # positions by ALiBi
    "Mistral": GROUPED | {"sliding_window": 4},
    "Phi": HEADS,  # a head with a bias
    "Mamba": {"state_size": 8},
    "Lfm2": HEADS | {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "FalconH1": GROUPED
    | {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "lm_head_multiplier": 0.25},
}


def build(name, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    config = getattr(transformers, name + "Config")(**USUAL | settings)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    if name == "Phi":
        model.lm_head.bias.data.normal_()  # zeros as yet
    return model


def both(model, ids, split=None):
    """The losses of two sequences, side by side with padding; and alone, by the logits of the whole model."""
    lengths, expected = (5, 23), []
    for row, length in enumerate(lengths):
        with torch.no_grad():
            logits = model(input_ids=ids[row : row + 1, :length]).logits[0].float()
        expected.append(cross_entropy(logits[:-1], ids[row, 1:length], reduction="none"))
    padded = ids.clone()
    padded[0, lengths[0] :] = 0
    rows = np.repeat([0, 1], [length - 1 for length in lengths])
    positions = np.concatenate([np.arange(1, length) for length in lengths])
    got = (split or split_model(model)).losses(padded.numpy(), rows, positions)
    return got, torch.cat(expected)


@pytest.fixture
def blocks(monkeypatch):
    """The head in many blocks; these small models have one otherwise."""
    monkeypatch.setattr(token_losses, "_BLOCK", {"cpu": (7, 50)})


IDS = torch.randint(3, 320, (2, 23), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.usefixtures("blocks")
def test_losses_of_an_architecture(name):
    model = build(name, **ARCHITECTURES[name])
    got, expected = both(model, IDS)
    assert not split_model(model).whole  # the head runs on the wanted positions alone
    assert got.dtype == torch.float32 and got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_chosen_positions_in_any_order():
    model = build_llama()
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    rows, positions = np.array([1, 0, 1, 1]), np.array([22, 3, 1, 22])
    expected = cross_entropy(logits[rows, positions - 1], IDS[rows, positions], reduction="none")
    torch.testing.assert_close(split_model(model).losses(IDS.numpy(), rows, positions), expected, atol=1e-5, rtol=0)


class Adapted(torch.nn.Linear):
    """A head whose weight doesn't say all."""

    def forward(self, states):
        return super().forward(states) + states.sum(-1, keepdim=True) * torch.linspace(-1, 1, self.out_features)


@pytest.mark.usefixtures("blocks")
def test_a_head_that_is_more_than_its_weight():
    model = build_llama()
    model.lm_head.__class__ = Adapted
    got, expected = both(model, IDS)
    assert not split_model(model).whole
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "lm_head"]])
@pytest.mark.usefixtures("blocks")
def test_adapters(wrapped, modules):
    peft, model = pytest.importorskip("peft"), build_llama()
    config = peft.LoraConfig(target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config) if wrapped else peft.inject_adapter_in_model(config, model)
    got, expected = both(model.eval(), IDS)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("blocks")
def test_a_model_whose_logits_are_more_than_its_head_is_run_whole():
    model = build_llama()
    model.register_forward_hook(lambda module, args, out: setattr(out, "logits", out.logits * 1.5 + 1))
    got, expected = both(model, IDS)
    split = split_model(model)
    assert split.whole and split.max_tokens == 2**26 // 320
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_causal_bert_is_run_whole():
    """Its base model and its head have a layer between them."""
    model = build("Bert", **HEADS, is_decoder=True)
    got, expected = both(model, IDS)
    assert split_model(model).whole
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "width"), [("Electra", "embedding_size"), ("RemBert", "output_embedding_size")])
def test_a_model_whose_head_is_of_another_width_is_run_whole(name, width):
    model = build(name, **HEADS, is_decoder=True, **{width: 16})
    got, expected = both(model, IDS)
    assert split_model(model).whole
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_a_model_that_is_not_causal_is_refused(spread):
    with pytest.raises(ModelError, match="BertLMHeadModel is not causal"):
        split_model(build("Bert", **HEADS | {"initializer_range": spread}))


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
@pytest.mark.parametrize("spread", [0.3, 1.0])
@pytest.mark.usefixtures("blocks")
def test_bfloat16(name, spread):
    """Close to the float32 log-sum-exp of the model's own logits, for likely tokens too, and never below 0."""
    model = build(name, torch.bfloat16, **ARCHITECTURES[name] | {"initializer_range": spread})
    ids = IDS.clone()
    for place in range(10, 23):
        with torch.no_grad():
            ids[:, place] = model(input_ids=ids[:, :place]).logits[:, -1].argmax(-1)
    with torch.no_grad():
        logits = model(input_ids=ids).logits.float()
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    got = split_model(model).losses(ids.numpy(), np.repeat([0, 1], 22), np.tile(np.arange(1, 23), 2))
    assert not split_model(model).whole and got.dtype == torch.float32
    assert got.min() > -1e-3 and (got - expected).abs().mean() < 4e-3
    padded, alone = both(model, ids)
    assert (padded - alone).abs().mean() < 0.05 and (padded - alone).abs().max() < 0.5


def test_a_model_is_split_once_and_let_go():
    model, before = build_llama(), len(token_losses._split)
    assert split_model(model) is split_model(model) and len(token_losses._split) == before + 1
    del model
    gc.collect()
    assert len(token_losses._split) <= before


def test_the_split_is_that_of_the_model():
    """One made before its weights change goes on to use them: it keeps no copy."""
    model = build_llama()
    split = SplitModel(model)
    model.load_state_dict(build_llama(seed=1).state_dict())
    got, expected = both(model, IDS, split)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
