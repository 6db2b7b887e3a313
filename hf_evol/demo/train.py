"""Train the small embedded model from nothing, on text that `hf_evol.demo.corpus` generates.

    python -m hf_evol.demo.train --minutes 60 --output hf_evol/demo/model

The model is a small Llama with a vocabulary of its own. The fixed sentences of the package's prompts are
single tokens of that vocabulary, which keeps prompts short for a model this small; so a change of a built-in
prompt calls for a new training run (a test says when).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hf_evol.demo.corpus import Corpus, Example
from hf_evol.demo.prompts import RESPOND_WITH_INPUT, TRAINED_ON

CONTEXT = 1024
VOCABULARY = 4096
HEAD_SIZE = 32
LENGTHS = (64, 96, 128, 192, 256, 384)  # padded lengths, few so that each is compiled once
TOKENS_PER_BATCH = 6144
SPECIAL = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
NOISY_SHARE = 0.45  # of the in-depth rewritings: their parents are partly random tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@cache
def prompt_literals() -> list[str]:
    """The fixed text of the built-in prompts, in the pieces between their slots."""
    templates = [*TRAINED_ON.values(), RESPOND_WITH_INPUT]
    return sorted({literal for template in templates for literal in template.literals})


def build_tokenizer(seed: int, rows: int = 60_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the corpus, with the prompts' fixed text as single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    literals = prompt_literals()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(literals),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((example.reply for example in islice(Corpus(seed, salad=0.5), rows)), trainer)
    tokenizer.add_tokens([AddedToken(text, lstrip=True, rstrip=True, normalized=False) for text in literals])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int, n_layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 11 // 4,
        num_hidden_layers=n_layers,
        num_attention_heads=hidden_size // HEAD_SIZE,
        num_key_value_heads=hidden_size // HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Plain matrix-product attention compiles to the fastest training step on a CPU at these lengths.
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    look_back(model, {0: 1, 1: 1, 2: 2})
    return model


def look_back(model: LlamaForCausalLM, heads: dict[int, int]) -> None:
    """Start heads of the first layer as heads that look a fixed number of tokens back.

    Copying needs such heads (induction, arXiv:2209.11895), and a model this small takes long to find them. The
    biases give query and key constant vectors; rotary embedding turns them by position, so that their product
    depends on the distance alone, and is greatest at the distance asked for.

    Args:
        heads: head number to distance in tokens.
    """
    attention, size = model.model.layers[0].self_attn, model.config.head_dim
    frequencies = 1.0 / 10_000 ** (torch.arange(0, size, 2) / size)
    sharpness = 6.5  # a gap of about 5 between the right place and its neighbours, before the softmax
    with torch.no_grad():
        for head, distance in heads.items():
            for pair in range(6):  # the fast frequencies tell neighbours apart
                at, angle = head * size + pair, frequencies[pair] * distance
                attention.q_proj.bias[at] = sharpness
                attention.k_proj.bias[at] = sharpness * torch.cos(angle)
                attention.k_proj.bias[at + size // 2] = sharpness * torch.sin(angle)


def encode(tokenizer: PreTrainedTokenizerFast, example: Example) -> tuple[list[int], int]:
    """Token ids of a row and how many of them, from the start, are not to be learned."""
    if example.prompt is None:
        return [*tokenizer.encode(example.reply), tokenizer.eos_token_id], 1
    chat = [{"role": "user", "content": example.prompt}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    return [*prompt, *tokenizer.encode(example.reply), tokenizer.eos_token_id], len(prompt)


def encode_noisy(tokenizer: PreTrainedTokenizerFast, example: Example, pick: random.Random) -> tuple[list[int], int]:
    """The same for an in-depth rewriting, with a share of the parent's tokens replaced by any tokens, in the
    prompt and in the reply alike: what is learned of it is to copy every token of the vocabulary."""
    first = len(SPECIAL) + 1
    last = VOCABULARY - len(prompt_literals()) - 1
    share = pick.random()
    parent = [
        pick.randint(first, last) if pick.random() < share else token for token in tokenizer.encode(example.parent)
    ]
    stand_in = "\ue000"
    chat = [{"role": "user", "content": TRAINED_ON[example.method].fill(instruction=stand_in)}]
    before, after = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False).split(stand_in)
    prompt = [*tokenizer.encode(before), *parent, *tokenizer.encode(after)]
    return [*prompt, *parent, *tokenizer.encode(example.added), tokenizer.eos_token_id], len(prompt)


def batches(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, indices of the learned positions in the flattened shifted ids), by padded length."""
    waiting: dict[int, list[tuple[list[int], int]]] = {length: [] for length in LENGTHS}
    for example in corpus:
        noisy = example.method is not None and corpus.random.random() < NOISY_SHARE
        ids, n_prompt = encode_noisy(tokenizer, example, corpus.random) if noisy else encode(tokenizer, example)
        length = next((length for length in LENGTHS if len(ids) <= length), None)
        if length is None:
            continue
        waiting[length].append((ids, n_prompt))
        if len(waiting[length]) * length >= TOKENS_PER_BATCH:
            rows, waiting[length] = waiting[length], []
            batch = torch.full((len(rows), length), tokenizer.pad_token_id)
            learned = torch.zeros(len(rows), length - 1, dtype=torch.bool)
            for row, (ids, n_prompt) in enumerate(rows):
                batch[row, : len(ids)] = torch.tensor(ids)
                learned[row, n_prompt - 1 : len(ids) - 1] = True
            yield batch, learned.flatten().nonzero().squeeze(1)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start)
        model = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32, attn_implementation="eager").to(
            device
        )
        earlier = json.loads((args.start / "training.json").read_text(encoding="utf-8"))
    else:
        tokenizer = build_tokenizer(args.seed)
        model = build_model(tokenizer, args.hidden_size, args.layers).to(device)
        earlier = {"runs": [], "loss": []}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer):,} tokens in the vocabulary", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.05, fused=True)

    def loss_of(ids: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[learned])
        return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:].reshape(-1)[learned])

    torch._dynamo.config.recompile_limit = 4 * len(LENGTHS)
    compiled = torch.compile(loss_of)
    start, seconds, steps, tokens, recent, curve = time.time(), 60 * args.minutes, 0, 0, [], []
    corpus = Corpus(args.seed + 1, breadth=args.breadth)
    for ids, learned in batches(tokenizer, corpus):
        done = (time.time() - start) / seconds
        if done >= 1:
            break
        corpus.salad_share = 0.3 if args.start else max(0.3, 0.9 - 6 * done)  # copying first
        rate = args.learning_rate * min(1.0, (steps + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch._dynamo.mark_dynamic(learned, 0)
        loss = compiled(ids.to(device), learned.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps, tokens, recent = steps + 1, tokens + ids.numel(), [*recent[-99:], loss.item()]
        if steps % 100 == 0:
            curve.append(
                {
                    "run": len(earlier["runs"]) + 1,
                    "step": steps,
                    "tokens": tokens,
                    "loss": round(sum(recent) / len(recent), 4),
                }
            )
            print(json.dumps(curve[-1]), f"{(time.time() - start) / 60:.1f} min", flush=True)
        if steps % 500 == 0:
            save(model, tokenizer, args.output)
    save(model, tokenizer, args.output)
    this_run = {
        "steps": steps,
        "tokens": tokens,
        "minutes": round((time.time() - start) / 60, 1),
        "seed": args.seed,
        "breadth": args.breadth,
        "learning_rate": args.learning_rate,
        "hardware": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{os.cpu_count()}-core {platform.machine()} CPU",
        "torch": torch.__version__,
    }
    runs = [*earlier["runs"], this_run]
    figures = {"parameters": parameters, "runs": runs, "loss": [*earlier["loss"], *curve]}
    (args.output / "training.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer in half precision, as ``transformers`` reads them."""
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_length=CONTEXT
    )
    half.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock time to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="go on from the model in this folder")
    parser.add_argument("--hidden-size", type=int, default=256, help=f"a multiple of {HEAD_SIZE}, at least 96")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--breadth", type=float, default=0.1, help="share of in-breadth rows")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="its peak")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
