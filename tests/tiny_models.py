"""Tiny random models and their tokenizer, built in a moment."""

from __future__ import annotations

WORDS = (
    "write a short poem about the sea list three facts explain why rivers flow how many apples are left sort numbers"
)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


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


def plain_model(spec):
    """A causal language model of a name or a `ModelSpec` in float32, as `transformers` alone has it."""
    import torch
    from transformers import AutoModelForCausalLM

    from hf_evol import models

    where = models.as_spec(spec).where
    return AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()


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


def build_classifier(folder, pad=0, labels=1, context=512, **tokenizer):
    """A folder with a random sequence classifier, such as reward models are with one label."""
    import torch
    from transformers import LlamaForSequenceClassification

    config = build_llama(context=context).config
    config.num_labels, config.pad_token_id = labels, pad
    torch.manual_seed(7)
    LlamaForSequenceClassification(config).eval().save_pretrained(folder)
    saved = build_tokenizer()
    for name, value in tokenizer.items():
        setattr(saved, name, value)
    saved.save_pretrained(folder)
    return str(folder)


def loss_by_hand(folder, instruction, output):
    """The mean loss of an output's tokens after its instruction, from a tiny model's logits and nothing of the package."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    question, answer, newline = (
        tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for text in (instruction, output, "\n")
    )
    before = (
        [1, *question, 3, 2] if tokenizer.chat_template else [4, *question, *newline]
    )  # as in TEMPLATE, or after BOS
    with torch.no_grad():
        probs = model(torch.tensor([before + answer])).logits[0].log_softmax(-1)
    return -sum(probs[len(before) + place - 1, token].item() for place, token in enumerate(answer)) / len(answer)
