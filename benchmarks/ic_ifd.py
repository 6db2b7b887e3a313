"""IC-IFD, batched, against one row at a time and against naive padding: same rows, model, dtype and device.

    python benchmarks/ic_ifd.py rows.jsonl    # a random 41M-parameter Llama on this CPU
    python benchmarks/ic_ifd.py rows.jsonl --model demo
    python benchmarks/ic_ifd.py rows.jsonl --model random-1b --dtype bfloat16 --device cuda
    python benchmarks/ic_ifd.py rows.jsonl --model random-gpt2 --dtype bfloat16 --device cuda --repeat-to 52000

(a) is the procedure of the paper: three forward passes a row, batch size 1, the library's own loss. (b) is joint and
alone sequences in batches of 16 in input order, padded, with an attention mask and all logits. Useful FLOP are those
of the distinct sequences' own tokens, without padding; the peak is that of square matrix products in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.formats import FORMATS, detect_format
from hf_evol.models import ModelSpec, encoding
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
    """A model by name, or a random Llama (GPT-2) of the size asked for."""
    if name not in RANDOM:
        return models.load_model(ModelSpec(name, dtype=str(dtype).removeprefix("torch."), device=device))
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


@dataclass
class Run:
    name: str
    rows: int
    seconds: float
    memory: float
    losses: list[tuple[float | None, ...]]


def measured(name: str, function: Callable[[], list[tuple[float | None, ...]]], device: str) -> Run:
    """Time and peak memory above what is there now."""
    synchronize(device)
    with PeakMemory(device) as memory:
        start = time.perf_counter()
        losses = function()
        synchronize(device)
        seconds = time.perf_counter() - start
    return Run(name, len(losses), seconds, memory.peak, losses)


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


def three_passes(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[tuple[float | None, ...]]:
    """(a): Q, A given Q, and A, each in a pass of its own with labels masked by -100."""

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


def naive_batches(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[tuple[float | None, ...]]:
    """(b): batches of 16 sequences in input order, padded to the longest, masked, all logits at once."""
    sequences, spans = [], []
    for question, answer in texts:
        n = len(encoding.encode_text(tokenizer, [question])[0])
        joint, alone = encoding.encode_text(tokenizer, [f"{question}\n{answer}", answer])
        sequences += [joint, alone]
        spans += [[(0, n), (n, len(joint))], [(0, len(alone))]]
    means: list[list[float]] = []
    for start in range(0, len(sequences), 16):
        batch = sequences[start : start + 16]
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()
        for row, parts in zip(losses, spans[start : start + 16], strict=True):
            means.append([float(row[max(begin, 1) - 1 : end - 1].mean()) for begin, end in parts])
    return [(means[i][0], means[i + 1][0], means[i][1]) for i in range(0, len(means), 2)]


def ours(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[tuple[float | None, ...]]:
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


def matmul_peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of square matrix products, sustained for two seconds."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 2:
        a @ b
        synchronize(device)
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start)


def read(path: str, limit: int | None, repeat_to: int | None) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    reader = FORMATS[detect_format(list(rows[0]))].read
    texts = []
    for row in rows[:limit]:
        seed = reader(row)
        if pair := make_pair(seed.instruction, seed.output, seed.input):
            texts.append((pair[0][0]["content"], pair[1]))
    if repeat_to:  # numbered, so that no text repeats
        texts = [(f"{n}. {texts[n % len(texts)][0]}", f"{n}: {texts[n % len(texts)][1]}") for n in range(repeat_to)]
    return texts


def hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="JSON lines of alpaca, gsm8k or chat rows")
    parser.add_argument("--model", default="random-41m", help=f"{', '.join(RANDOM)}, or a name or folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, help="use the first rows only")
    parser.add_argument("--repeat-to", type=int, help="go through the rows again until there are so many")
    parser.add_argument(
        "--compare", type=int, default=200, help="rows for (a) and (b), spread over the set; 0 for none"
    )
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    model = build(args.model, dtype, args.device)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    texts = read(args.rows, args.limit, args.repeat_to)
    random = args.model in RANDOM
    tokenizer = train_tokenizer(texts, vocabulary) if random else models.load_tokenizer(ModelSpec(args.model))
    step = max(1, len(texts) // args.compare) if args.compare else 1
    compared = texts[::step][: args.compare]
    ours(model, tokenizer, texts[:64])  # warm up, and check the model's head
    peak = matmul_peak(dtype, args.device)
    runs = [(measured("hf_evol", lambda: ours(model, tokenizer, texts), args.device), texts)]
    if compared:
        runs += [
            (measured(name, lambda f=f: f(model, tokenizer, compared), args.device), compared)
            for name, f in (("(a) 3 passes", three_passes), ("(b) naive 16", naive_batches), ("hf_evol", ours))
        ]
    peak = (peak + matmul_peak(dtype, args.device)) / 2  # before and after, as the clock of a shared machine varies
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{args.model}: {count / 1e6:.1f}M parameters, vocabulary {vocabulary}, {args.dtype}; {hardware(args.device)}"
    )
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}; matrix-product peak {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"\n{'':14}{'rows':>7}{'seconds':>9}{'rows/s':>9}{'tokens/s':>10}{'of peak':>9}{'GiB above weights':>19}")
    for run, used in runs:
        flop, tokens = useful_flop(model, tokenizer, used)
        rates = f"{run.rows / run.seconds:9.1f}{tokens / run.seconds:10.0f}{flop / run.seconds / peak:9.0%}"
        print(f"{run.name:14}{run.rows:7}{run.seconds:9.2f}{rates}{run.memory:19.2f}")
    if compared:
        (a, _), (b, _), (same, _) = runs[1:]
        print(
            f"\nhf_evol on the compared rows: {a.seconds / same.seconds:.2f} x (a), {b.seconds / same.seconds:.2f} x (b)"
        )
        print(f"greatest difference of a loss from (a): {difference(a, same):.1e}, from (b): {difference(b, same):.1e}")


def difference(one: Run, other: Run) -> float:
    pairs = ((x, y) for row, row2 in zip(one.losses, other.losses, strict=True) for x, y in zip(row, row2, strict=True))
    return max(abs(x - y) for x, y in pairs if x is not None and y is not None and x == x)


if __name__ == "__main__":
    sys.exit(main())
