"""Tiny models, built here: nothing is downloaded."""

from __future__ import annotations

import pytest

WORDS = (
    "write a short poem about the sea list three facts explain why rivers flow how many apples are left sort numbers"
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory):
    """No test touches the user's caches or the network."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "hf"))
        patch.setenv("HF_EVOL_CACHE", str(folder / "hf_evol"))
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        import datasets.config

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        yield folder


def build_tokenizer(bos: bool = False, template: str | None = TEMPLATE):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 4)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        bos_token="<s>" if bos else None,
        extra_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=template,
    )


def build_llama(seed: int = 0, context: int = 512, spread: float = 0.3):
    """A random model whose next-token distributions are neither flat nor certain."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A folder with a tiny Llama, and a tokenizer that has a chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_llama().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def bos_model(tmp_path_factory) -> str:
    """Another one, whose tokenizer puts a BOS token in front and has no chat template."""
    folder = tmp_path_factory.mktemp("models") / "bos"
    build_llama(seed=1).save_pretrained(folder)
    build_tokenizer(bos=True, template=None).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def seeds():
    from datasets import Dataset

    texts = [
        "Write a short poem about the sea.", "List three facts.", "Explain why rivers flow.", "How many apples are left?",
        "Sort {numbers} with <|end|> in it.", "Why?", "write a list of three rivers that flow to the sea",
    ]  # fmt: skip
    return Dataset.from_dict(
        {
            "id": [f"t-{i}" for i in range(len(texts))],
            "instruction": texts,
            "input": [""] * len(texts),
            "output": ["An answer."] * len(texts),
        }
    )
