"""Train a LoRA adapter that evolves instructions, on pairs written by hand; to be compared with worked examples in the prompt.

    python benchmarks/train_evolver.py --model FOLDER_OR_NAME --output adapter

Each pair of ``evolver_pairs.jsonl`` (domain, method, given, evolved) becomes the method's own system turn, the given instruction and
the evolved one, without worked examples. The adapter's folder is then a model like any other: ``--model adapter``, with
methods that show no examples (``--methods adapter/methods.yaml``, which is written as well).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hf_evol.prompts.evol_instruct import METHODS, Method

PAIRS = Path(__file__).with_name("evolver_pairs.jsonl")


def without_examples(method: Method) -> Method:
    return Method(method.name, {domain: (turns[0], turns[-1]) for domain, turns in method.template}, method.kind)


def rows() -> Dataset:
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    return Dataset.from_list(
        [
            {
                "prompt": without_examples(METHODS[pair["method"]]).of_domain(pair["domain"]).prompt(pair["given"]),
                "completion": [{"role": "assistant", "content": pair["evolved"]}],
            }
            for pair in pairs
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.model, dtype="float32"),
        processing_class=tokenizer,
        train_dataset=rows().shuffle(seed=0),
        peft_config=LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=str(args.output), num_train_epochs=args.epochs, learning_rate=args.learning_rate,
            per_device_train_batch_size=8, lr_scheduler_type="cosine", warmup_steps=10, logging_steps=10, save_strategy="no",
            report_to="none", bf16=False, gradient_checkpointing=False, seed=0, completion_only_loss=True,
        ),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(args.output))
    methods = [without_examples(method).to_dict() for method in METHODS.values()]
    (args.output / "methods.yaml").write_text(yaml.safe_dump(methods, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
