"""Output tokens per second of the transformers engine, against `generate` in padded batches and vLLM, on the same rows in one run.

    python benchmarks/generation.py rows.jsonl                       # the demo's model, SmolLM2-135M-Instruct, on this CPU
    python benchmarks/generation.py rows.jsonl --limit 24 --length 64  # where each row goes on to 64 tokens
    python benchmarks/generation.py rows.jsonl --texts               # how often bfloat16 and the batch change a text
    python benchmarks/generation.py rows.jsonl --model random-1b --dtype bfloat16 --device cuda
    python benchmarks/generation.py rows.jsonl --model SmolLM2-135M-Instruct --arms hf_evol vllm  # a folder, where vLLM is

The requests are the evolving prompts of the rows, sampled at temperature 0.7 and top-p 0.95. Real models stop by
themselves; the random ones go on to a length drawn for each row. `generate` takes them in input order, 24 at a time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import transformers
from ic_ifd import RANDOM, PeakMemory, as_loaded, build, hardware, read, synchronize  # the benchmark beside this one

from hf_evol import EvolInstruct, models
from hf_evol.generation import batches
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.transformers_engine import _AT_ONCE, TransformersEngine, _Request, _stop_ids
from hf_evol.generation.vllm_engine import VllmEngine
from hf_evol.models import ModelSpec, encoding

BATCH = 24
PARAMS = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=256)


def ours(model: Any, tokenizer: Any, chats: list[Any], limits: list[int]) -> int:
    """Output tokens of the engine's own paths, below its protocol, as that has one limit for all rows."""
    context = models.context_length(model.config)
    requests = {}
    for place, (chat, limit) in enumerate(zip(chats, limits, strict=True)):
        prompt = encoding.render_chat(tokenizer, chat)
        requests[place] = _Request(prompt, f"row {place}", min(limit, context - len(prompt)))
    stops, at_once = _stop_ids(model, tokenizer), _AT_ONCE[model.device.type]
    finished = batches.generate_tokens(model, requests, PARAMS, stops, at_once)
    return sum(len(tokens) - (tokens[-1] in stops) for _, tokens, _ in finished)


def batches_of(items: list[Any]) -> Iterator[list[Any]]:
    yield from (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def plain_generate(model: Any, tokenizer: Any, chats: list[Any], limits: list[int]) -> int:
    """Input order, fixed batches, padded on the left; a batch ends with its last row."""
    tokenizer.padding_side, tokens = "left", 0
    for part in batches_of(list(zip(chats, limits, strict=True))):
        inputs = tokenizer.apply_chat_template(
            [chat for chat, _ in part], add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **inputs, do_sample=True, temperature=0.7, top_p=0.95, top_k=0, pad_token_id=tokenizer.pad_token_id,
                max_new_tokens=max(limit for _, limit in part),
            )  # fmt: skip
        tokens += count(out[:, inputs["input_ids"].shape[1] :].tolist(), [limit for _, limit in part], model)
    return tokens


def count(rows: list[list[int]], limits: list[int], model: Any) -> int:
    """Generated tokens up to the first stop token, of each row at most its limit."""
    stops = model.generation_config.eos_token_id
    stops = set(stops if isinstance(stops, list) else [stops])
    ends = [next((at for at, token in enumerate(row) if token in stops), len(row)) for row in rows]
    return sum(min(end, limit) for end, limit in zip(ends, limits, strict=True))


def timed(function: Callable[..., int], *args: Any, device: str) -> tuple[int, float, float]:
    synchronize(device)
    with PeakMemory(device) as memory:
        start = time.perf_counter()
        tokens = function(*args)
        synchronize(device)
        seconds = time.perf_counter() - start
    return tokens, seconds, memory.peak


def evolving_chats(texts: list[tuple[str, str]]) -> list[Any]:
    evolver = EvolInstruct("demo", methods="alpaca")
    return [evolver.prompt(f"alpaca-{place}", question, 0) for place, (question, _) in enumerate(texts)]


def vllm(model: Any, tokenizer: Any, chats: list[Any], limits: list[int]) -> int:
    """vLLM's own scheduling, by the engine for it; here ``model`` is a name or folder, and all limits are alike."""
    engine, params = VllmEngine(model), replace(PARAMS, max_new_tokens=limits[0])
    finished = engine.stream(chats, params, [f"row {place}" for place in range(len(chats))])
    return sum(completion.n_tokens for part in finished for _, completion in part)


ARMS = {"hf_evol": ours, "generate": plain_generate, "vllm": vllm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="JSON lines of alpaca, gsm8k or chat rows")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=200, help="rows")
    parser.add_argument("--length", type=int, help="tokens that each row goes on to")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hf_evol", "generate"])
    parser.add_argument("--texts", action="store_true", help="compare texts and their statuses instead")
    args = parser.parse_args()
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    texts = read(args.rows)[: args.limit]
    tokenizer = models.load_tokenizer(ModelSpec("demo" if args.model in RANDOM else args.model))
    chats = evolving_chats(texts)
    print(f"{args.model}, {args.dtype}, {len(chats)} prompts; {hardware(args.device)}, load {os.getloadavg()[0]:.1f}; "
          f"torch {torch.__version__}, transformers {transformers.__version__}\n", flush=True)  # fmt: skip
    if args.texts:
        compare_texts([question for question, _ in texts], args.device)
        return
    plain = build(args.model, getattr(torch, args.dtype), args.device)
    limits = [args.length or PARAMS.max_new_tokens] * len(chats)
    if args.model in RANDOM and not args.length:  # lengths as those of real rewritings are spread
        limits = torch.randint(16, 257, (len(chats),), generator=torch.Generator().manual_seed(0)).tolist()
    if args.model in RANDOM or args.length:
        plain.generation_config.eos_token_id = []
    model = as_loaded(args.model, plain)
    model.generation_config = plain.generation_config
    named = {"hf_evol": model, "generate": plain, "vllm": ModelSpec(args.model, dtype=args.dtype)}
    start = time.perf_counter()
    encoding.render_chats(tokenizer, chats)
    print(f"render_chats: {(time.perf_counter() - start) / len(chats) * 1e3:.2f} ms a chat, {len(tokenizer):,} tokens")
    print(f"\n{'':12}{'tokens':>9}{'seconds':>9}{'tokens/s':>10}{'GiB above weights':>19}")
    rates = {}
    for arm in args.arms:
        # Warm up; not before, as vLLM's processes keep the cores busy.
        ARMS[arm](named[arm], tokenizer, chats[:4], [4] * 4)
        tokens, seconds, memory = timed(ARMS[arm], named[arm], tokenizer, chats, limits, device=args.device)
        rates[arm] = tokens / seconds
        print(f"{arm:12}{tokens:9}{seconds:9.1f}{rates[arm]:10.1f}{memory:19.2f}", flush=True)
    for arm in rates.keys() - {"hf_evol"} if "hf_evol" in rates else ():
        print(f"\nhf_evol: {rates['hf_evol'] / rates[arm]:.2f} x {arm}; load {os.getloadavg()[0]:.1f}")


def compare_texts(questions: list[str], device: str) -> None:
    """Texts of both precisions, alone and together, beside those of float32 together; and how many are ok at the first try."""
    rows, base = {"id": [f"alpaca-{place}" for place in range(len(questions))], "instruction": questions}, []
    print(f"{'':24}{'seconds':>9}{'tokens':>9}{'ok':>6}{'other text':>12}{'other status':>14}")
    for dtype, size in (("float32", 64), ("float32", 1), ("bfloat16", 64), ("bfloat16", 1)):
        engine = TransformersEngine(ModelSpec(dtype=dtype, device=device), size)
        evolver = EvolInstruct(engine, tries=1, temperature=0.7, max_new_tokens=256, journal=False)
        start = time.perf_counter()
        records = [history[-1] for history in evolver(rows)["history"]]
        seconds, base = time.perf_counter() - start, base or records
        others = [
            sum(one[name] != other[name] for one, other in zip(base, records, strict=True))
            for name in ("instruction", "status")
        ]
        ok, tokens = sum(one["status"] == "ok" for one in records), sum(one["n_tokens"] for one in records)
        print(
            f"{dtype + f', {size} together':24}{seconds:9.1f}{tokens:9}{ok:6}{others[0]:12}{others[1]:14}", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
