"""Output tokens per second of the transformers engine, against `generate` and the text-generation pipeline.

    python benchmarks/generation.py rows.jsonl                       # the demo's model, SmolLM2-135M-Instruct, on this CPU
    python benchmarks/generation.py rows.jsonl --model random-1b --dtype bfloat16 --device cuda

The requests are the evolving prompts of the rows, sampled at temperature 0.7 and top-p 0.95. The demo's model stops by
itself; the random one goes on to a length drawn for each row. (a) is `generate` in input order in batches of 16, (b) the
pipeline with batches of 16. Also measured: sampling by keyed noise against the library's own, the journal's share of the
time, and how many rows' texts depend on the batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from ic_ifd import build, hardware, read, synchronize  # the benchmark beside this one

from hf_evol import EvolInstruct, models
from hf_evol.generation import transformers_engine
from hf_evol.generation.base import SamplingParams, generate
from hf_evol.generation.transformers_engine import TransformersEngine, _continuous, _Request
from hf_evol.models import ModelSpec, encoding
from hf_evol.models.journal import Journal

BATCH = 16
PARAMS = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=256)


def ours(model: Any, tokenizer: Any, chats: list[Any], limits: list[int], batching: str) -> int:
    """Output tokens of the engine's own paths, below its protocol, as that has one limit for all rows."""
    context = models.context_length(model.config)
    requests = {}
    for place, (chat, limit) in enumerate(zip(chats, limits, strict=True)):
        prompt = encoding.render_chat(tokenizer, chat)
        requests[place] = _Request(prompt, f"row {place}", min(limit, context - len(prompt)))
    if batching == "continuous":
        return sum(completion.n_tokens for _, completion in _continuous(model, tokenizer, requests, PARAMS))
    finished = TransformersEngine(ModelSpec("benchmark"))._static(model, tokenizer, requests, PARAMS)
    return sum(completion.n_tokens for part in finished for _, completion in part)


def batches_of(items: list[Any]) -> Iterator[list[Any]]:
    yield from (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def plain_generate(model: Any, tokenizer: Any, chats: list[Any], limits: list[int], _: str) -> int:
    """(a): input order, fixed batches, padded on the left; a batch ends with its last row."""
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


def pipeline(model: Any, tokenizer: Any, chats: list[Any], limits: list[int], _: str) -> int:
    """(b): the library's pipeline over all chats; it has one limit, so the longest."""
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    answers = pipe(
        chats, batch_size=BATCH, do_sample=True, temperature=0.7, top_p=0.95, top_k=0, max_new_tokens=max(limits),
        return_full_text=False,
    )  # fmt: skip
    texts = [answer[0]["generated_text"] for answer in answers]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return sum(min(length, limit) for length, limit in zip(lengths, limits, strict=True))


def timed(function: Callable[..., int], *args: Any, device: str) -> tuple[int, float]:
    synchronize(device)
    start = time.perf_counter()
    tokens = function(*args)
    synchronize(device)
    return tokens, time.perf_counter() - start


@contextmanager
def library_sampling() -> Iterator[None]:
    """The engine's loop with the library's warpers and `torch.multinomial` in place of keyed noise."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    warpers = LogitsProcessorList([TemperatureLogitsWarper(PARAMS.temperature), TopPLogitsWarper(PARAMS.top_p)])

    def sample(logits: torch.Tensor, _: Any, __: Any) -> torch.Tensor:
        return torch.multinomial(warpers(None, logits.float()).softmax(-1), 1)[:, 0]

    own = transformers_engine.sample
    transformers_engine.sample = sample
    try:
        yield
    finally:
        transformers_engine.sample = own


def evolving_chats(texts: list[tuple[str, str]]) -> list[Any]:
    evolver = EvolInstruct("demo", methods="alpaca")
    return [evolver.prompt(f"alpaca-{place}", question, 0) for place, (question, _) in enumerate(texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="JSON lines of alpaca, gsm8k or chat rows")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, default=500, help="rows")
    parser.add_argument("--batching", default=None, help="static or continuous; by default as the engine chooses")
    args = parser.parse_args()
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    model, tokenizer = build(args.model, getattr(torch, args.dtype), args.device), models.load_tokenizer(ModelSpec())
    chats = evolving_chats(read(args.rows, args.limit, None))
    limits = [PARAMS.max_new_tokens] * len(chats)
    if args.model != "demo":  # a random model never stops: lengths as those of real rewritings are spread
        model.generation_config.eos_token_id = None
        limits = torch.randint(16, 257, (len(chats),), generator=torch.Generator().manual_seed(0)).tolist()
    batching = args.batching or ("continuous" if args.device.startswith("cuda") else "static")
    ours(model, tokenizer, chats[:32], limits[:32], batching)  # warm up
    print(f"{args.model}, {args.dtype}, {len(chats)} prompts; {hardware(args.device)}; torch {torch.__version__}, "
          f"transformers {transformers.__version__}\n")  # fmt: skip
    print(f"{'':26}{'tokens':>9}{'seconds':>9}{'tokens/s':>10}")
    rates = {}
    arms = (
        (f"hf_evol, {batching}", ours),
        ("(a) generate, batch 16", plain_generate),
        ("(b) pipeline, batch 16", pipeline),
    )
    runs = [
        [timed(arm, model, tokenizer, chats, limits, batching, device=args.device) for _, arm in arms] for _ in range(3)
    ]
    for place, (name, _) in enumerate(arms):  # of three turns through all, the one in the middle
        tokens, seconds = sorted((run[place] for run in runs), key=lambda run: run[0] / run[1])[1]
        rates[name] = tokens / seconds
        print(f"{name:26}{tokens:9}{seconds:9.2f}{rates[name]:10.0f}")
    own, *others = rates.values()
    print(f"\nhf_evol: {own / max(others):.2f} x the better of (a) and (b)")
    if args.model == "demo":
        extras(model, tokenizer, chats, limits, args)


def extras(model: Any, tokenizer: Any, chats: list[Any], limits: list[int], args: argparse.Namespace) -> None:
    """Keyed noise and journal, alternating with what they are compared to; and texts by batch."""
    ratios = []
    for _ in range(5):
        tokens, seconds = timed(ours, model, tokenizer, chats, limits, "static", device=args.device)
        with library_sampling():
            others, time_of_others = timed(ours, model, tokenizer, chats, limits, "static", device=args.device)
        ratios.append(tokens / seconds / (others / time_of_others))
    print(
        f"keyed noise: {sorted(ratios)[2]:.3f} x the speed of the library's sampling in the same loop, the middle of five"
    )
    engine = TransformersEngine(ModelSpec(dtype=args.dtype, device=args.device), batching="static")
    keys = [f"row {place}" for place in range(len(chats))]
    with tempfile.TemporaryDirectory() as folder:
        ratios = []
        for number in range(5):
            without = timed(generate, engine, chats, PARAMS, keys, None, device=args.device)[1]
            journal = Journal(Path(folder) / f"{number}.sqlite")
            ratios.append(timed(generate, engine, chats, PARAMS, keys, journal, device=args.device)[1] / without)
    print(f"journal: {sorted(ratios)[2] - 1:+.1%} of the time, the middle of five")
    few, some = chats[:100], keys[:100]
    for dtype in dict.fromkeys((args.dtype, "bfloat16")):
        spec = ModelSpec(dtype=dtype, device=args.device)
        alone = generate(TransformersEngine(spec, 1, "static"), few, PARAMS, some, None)
        together = generate(TransformersEngine(spec, 64, "static"), few, PARAMS, some, None)
        differing = sum(one.text != other.text for one, other in zip(alone, together, strict=True))
        print(f"{dtype}: {differing} of {len(few)} texts differ between batches of 1 and of 64")


if __name__ == "__main__":
    sys.exit(main())
