"""IC-IFD, batched, against the paper's procedure: same rows, model, precision and device, turn by turn.

    python benchmarks/ic_ifd.py rows.jsonl --model demo --rows 24 100 200
    python benchmarks/ic_ifd.py rows.jsonl --model demo --rows 200 --turns 1 --record turns.jsonl
    python benchmarks/ic_ifd.py rows.jsonl    # a random 41M-parameter Llama on this CPU
    python benchmarks/ic_ifd.py rows.jsonl --model random-1b --dtype bfloat16 --device cuda
    python benchmarks/ic_ifd.py rows.jsonl --model random-gpt2 --dtype bfloat16 --device cuda --rows 52000 --repeat

The procedure of the paper is three forward passes a row, batch size 1, the library's own loss. Useful FLOP are those
of the distinct sequences' own tokens, without padding; the peak is that of square matrix products in the same run.
Figures are medians over the turns, those of earlier runs in the record's file among them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.formats import FORMATS, detect_format
from hf_evol.models import ModelSpec, encoding
from hf_evol.models.packing import pack
from hf_evol.scoring.pairs import PairScorer, make_pair

RANDOM = {
    # hidden, intermediate, layers, heads, vocabulary, tied
    "random-41m": (512, 1376, 8, 8, 32_000, True),
    "random-150k": (512, 1376, 8, 8, 150_000, True),
    "random-1b": (2048, 8192, 16, 32, 128_256, True),
    "random-gpt2": (768, 3072, 12, 12, 50_257, True),
}
LOSSES = (col.LOSS_Q, col.LOSS_A, col.LOSS_A_GIVEN_Q)


def build(name: str, dtype: torch.dtype, device: str) -> Any:
    """A model by name, as `transformers` loads it, or a random Llama (GPT-2) of the size asked for."""
    if name not in RANDOM:
        return transformers.AutoModelForCausalLM.from_pretrained(**ModelSpec(name).where, dtype=dtype).to(device).eval()
    hidden, inner, layers, heads, vocabulary, tied = RANDOM[name]
    torch.manual_seed(0)
    if name == "random-gpt2":
        config = transformers.GPT2Config(vocab_size=vocabulary, n_embd=hidden, n_layer=layers, n_head=heads)
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096,
            tie_word_embeddings=tied,
        )  # fmt: skip
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(device).eval()


def train_tokenizer(texts: list[tuple[str, str]], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer trained on the rows themselves, so that rows are as long as with a real one."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as tokenizer_models

    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=min(vocabulary, 8000), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([part for text in texts for part in text], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


Losses = list[tuple[float | None, ...]]


def timed(function: Callable[[], Losses], device: str) -> tuple[Losses, float, float]:
    """What a function gives, its seconds, and the peak memory above what is there now, in GiB."""
    synchronize(device)
    with PeakMemory(device) as memory:
        start = time.perf_counter()
        losses = function()
        synchronize(device)
        seconds = time.perf_counter() - start
    return losses, seconds, memory.peak


class PeakMemory:
    """GiB above the start: of the allocator on a GPU, of the process (sampled) on a CPU."""

    def __init__(self, device: str) -> None:
        self.cuda, self.peak = device.startswith("cuda"), 0.0

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        else:
            self.start, self.done = resident(), threading.Event()
            self.thread = threading.Thread(target=self._sample, daemon=True)
            self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, (resident() - self.start) / 2**30)

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.peak = (torch.cuda.max_memory_allocated() - self.start) / 2**30
        else:
            self.done.set()
            self.thread.join()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def three_passes(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> Losses:
    """Q, A given Q, and A, each in a pass of its own with labels masked by -100."""

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([encoding.encode_text(tokenizer, [text])[0]], device=model.device)

    def loss(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        with torch.no_grad():
            return float(model(input_ids=inputs, labels=labels).loss)

    results = []
    for question, answer in texts:
        n, joint, alone = ids(question).shape[1], ids(f"{question}\n{answer}"), ids(answer)
        of_q, of_a = joint.clone(), joint.clone()
        of_q[:, n:], of_a[:, :n] = -100, -100
        results.append((loss(joint, of_q), loss(alone, alone), loss(joint, of_a)))
    return results


def ours(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> Losses:
    records = PairScorer().score(model, tokenizer, [make_pair(*text) for text in texts])
    return [tuple(record[name] for name in LOSSES) for record in records]


def useful_flop(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> tuple[float, int]:
    """Two per multiply-add of the layers' matrices, of the head and of causal attention; and the tokens."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    inputs = model.get_input_embeddings().weight
    matrices = sum(
        parameter.numel()
        for parameter in model.base_model.parameters()
        if parameter.dim() == 2 and parameter is not inputs
    )
    if positions := getattr(config, "n_positions", None):  # GPT-2's table of positions is no product
        matrices -= positions * config.hidden_size if model.config.model_type == "gpt2" else 0
    width = config.hidden_size * config.num_hidden_layers
    joint = encoding.encode_text(tokenizer, [f"{q}\n{a}" for q, a in texts])
    alone = encoding.encode_text(tokenizer, [a for _, a in texts])
    lengths = [len(ids) for ids in {tuple(ids) for ids in (*joint, *alone)}]
    flop = sum(n * 2 * matrices + (n - 1) * 2 * head.numel() + 2 * n * n * width for n in lengths)
    return float(flop), sum(lengths)


def as_loaded(name: str, plain: Any) -> Any:
    """The same model as this package has it in memory."""
    if name in RANDOM:
        ours, tokens = deepcopy(plain), torch.arange(4, device=plain.device)[None]
        pack(ours, lambda: ours(input_ids=tokens).logits)
        return ours
    return models.load_model(ModelSpec(name, dtype=str(plain.dtype).removeprefix("torch."), device=str(plain.device)))


def matmul_peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of square matrix products, sustained for two seconds; of a CPU, the better of a plain and a packed one."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    layer = torch.nn.Sequential(torch.nn.Linear(size, size, bias=False, dtype=dtype, device=device))
    pack(layer, lambda: layer(a))
    rates = []
    for product in (lambda: a @ b, lambda: layer(a)):
        count, start = 0, time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - start < 2:
                product()
                synchronize(device)
                count += 1
        rates.append(count * 2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def read(path: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    seeds = map(FORMATS[detect_format(list(rows[0]))].read, rows)
    pairs = [make_pair(seed.instruction, seed.output, seed.input, seed.context) for seed in seeds]
    return [("\n".join(turn["content"] for turn in turns), answer) for turns, answer in filter(None, pairs)]


def spread(texts: list[tuple[str, str]], count: int, repeat: bool) -> list[tuple[str, str]]:
    """So many texts, evenly out of all; or all again and again, numbered, so that none is there twice."""
    if repeat:
        return [(f"{n}. {texts[n % len(texts)][0]}", f"{n}: {texts[n % len(texts)][1]}") for n in range(count)]
    return texts[:: max(1, len(texts) // count)][:count]


def hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="rows.jsonl", help="alpaca, gsm8k or chat rows")
    parser.add_argument("--model", default="random-41m", help=f"{', '.join(RANDOM)}, or a name or folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, nargs="+", default=[200], help="how many, spread over the file")
    parser.add_argument("--repeat", action="store_true", help="go through the file again until there are so many")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--record", type=Path, help="a file of turns, to which these are added")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    plain, texts = build(args.model, dtype, args.device), read(args.path)
    model = as_loaded(args.model, plain)
    vocabulary = plain.get_output_embeddings().weight.shape[0]
    random = args.model in RANDOM
    tokenizer = train_tokenizer(texts, vocabulary) if random else models.load_tokenizer(ModelSpec(args.model))
    ours(model, tokenizer, texts[:8])  # warm up, and check the model's head
    three_passes(plain, tokenizer, texts[:2])
    turns = []
    for count in args.rows:
        some = spread(texts, count, args.repeat)
        flop, tokens = useful_flop(plain, tokenizer, some)
        for _ in range(args.turns):
            turn = {"model": args.model, "dtype": args.dtype, "rows": len(some), "tokens": tokens, "flop": flop}
            turn |= {"load": round(os.getloadavg()[0], 2), "peak": matmul_peak(dtype, args.device)}
            theirs, turn["theirs_s"], turn["theirs_gib"] = timed(
                lambda some=some: three_passes(plain, tokenizer, some), args.device
            )
            losses, turn["ours_s"], turn["ours_gib"] = timed(
                lambda some=some: ours(model, tokenizer, some), args.device
            )
            turns.append(turn | {"difference": difference(theirs, losses)})
            if args.record:
                with args.record.open("a") as file:
                    print(json.dumps(turns[-1]), file=file)
    if args.record:
        turns = [json.loads(line) for line in args.record.read_text().splitlines()]
    print(f"{hardware(args.device)}; torch {torch.__version__}, transformers {transformers.__version__}")
    report(turns)


def report(turns: list[dict[str, Any]]) -> None:
    print(
        f"\n{'model':12}{'dtype':>9}{'rows':>6}{'tokens':>8}{'turns':>6}{'load':>6}{'GFLOP/s':>9}{'paper s':>9}{'ours s':>8}"
        f"{'of peak':>9}{'times':>7}  {'range':12}{'GiB':>5}{'difference':>12}"
    )
    kinds = dict.fromkeys((turn["model"], turn["dtype"], turn["rows"]) for turn in turns)
    for kind in kinds:
        same = [turn for turn in turns if (turn["model"], turn["dtype"], turn["rows"]) == kind]
        middle = {name: median(turn[name] for turn in same) for name in same[0] if name not in ("model", "dtype")}
        ratios = sorted(turn["theirs_s"] / turn["ours_s"] for turn in same)
        share = median(turn["flop"] / turn["ours_s"] / turn["peak"] for turn in same)
        print(
            f"{Path(kind[0]).name[:11]:12}{kind[1]:>9}{kind[2]:6}{middle['tokens']:8.0f}{len(same):6}{middle['load']:6.1f}"
            f"{middle['peak'] / 1e9:9.0f}{middle['theirs_s']:9.2f}{middle['ours_s']:8.2f}{share:9.0%}"
            f"{median(ratios):7.2f}  {f'{ratios[0]:.2f} to {ratios[-1]:.2f}':12}{middle['ours_gib']:5.2f}"
            f"{max(turn['difference'] for turn in same):12.1e}"
        )


def difference(one: Losses, other: Losses) -> float:
    """The greatest of a loss."""
    pairs = ((x, y) for row, row2 in zip(one, other, strict=True) for x, y in zip(row, row2, strict=True))
    return max(abs(x - y) for x, y in pairs if x is not None and y is not None and x == x)


if __name__ == "__main__":
    sys.exit(main())
