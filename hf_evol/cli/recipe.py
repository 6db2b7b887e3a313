"""``hf-evol recipe``: configurations for trainers and for benchmarks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from hf_evol.cli.options import quiet

app = typer.Typer(
    help="Fine-tune a base model on evolved sets with the paper's settings, and evaluate it: what other tools need.",
    no_args_is_help=True,
)
Sets = Annotated[list[str], typer.Argument(help="Folders that hf-evol run has written, or Hub names (user/name).")]
Model = Annotated[str, typer.Option(help="The base model: a Hub name or folder.")]
Output = Annotated[str, typer.Option(help="The folder to write to.")]
ConfigName = Annotated[
    str | None, typer.Option(help="The configuration of each set, if it has several; by default 'selected'.")
]
Gpus = Annotated[int, typer.Option(help="How many GPUs; with several, the model is sharded over them.")]
BatchSize = Annotated[int, typer.Option(help="Rows that one GPU holds at once; the global batch is 64 in any case.")]
ChatTemplate = Annotated[
    str,
    typer.Option(
        help="plain, own (the base model's), for trl a .jinja file or a model to take it from, for llama-factory a template of its own."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier recipe in the output folder.")]


def _for_trainer(tool: str, run: str) -> None:
    """Add the command that prepares training with one tool."""

    @app.command(tool, help=f"Write the rows and a configuration for `{run}`, one of each set; only the set differs.")
    def command(
        sets: Sets,
        model: Model,
        output: Output,
        config_name: ConfigName = None,
        gpus: Gpus = 1,
        per_device_batch_size: BatchSize = 4,
        chat_template: ChatTemplate = "plain",
        overwrite: Overwrite = False,
    ) -> None:
        quiet()
        from hf_evol.training.sets import load_training_sets
        from hf_evol.training.trainers import FineTuning, write_llama_factory, write_trl

        tuning = FineTuning(model, gpus, per_device_batch_size, chat_template)
        loaded = load_training_sets(sets, config_name)
        write = write_trl if tool == "trl" else write_llama_factory
        needs = "trl" if tool == "trl" else "llamafactory" + (" and deepspeed" if gpus > 1 else "")
        commands = write(loaded, tuning, output, overwrite=overwrite)
        for one in loaded:
            print(f"{one.name}: {len(one.rows):,} rows of {one.source} ({one.config})")
        if len({len(one.rows) for one in loaded}) > 1:
            print("The sets differ in size, and so in training steps: hf_evol.equal_size makes two equal.")
        _show_commands(output, needs, commands)
        trained = shlex.join(f"{output.rstrip('/')}/{one.name}/model" for one in loaded)
        print(f"Then: hf-evol recipe lighteval {trained} --output {shlex.quote(output.rstrip('/') + '-evaluation')}")


_for_trainer("trl", "trl sft")
_for_trainer("llama-factory", "llamafactory-cli train")


@app.command("lighteval")
def lighteval(
    models: Annotated[list[str], typer.Argument(help="Fine-tuned models: folders or Hub names.")],
    output: Output,
    batch_size: Annotated[int, typer.Option(help="Rows that are generated together.")] = 16,
    overwrite: Overwrite = False,
) -> None:
    """Write what evaluates models on IFEval, GSM8K, MATH, HumanEval and MBPP.

    The last two, which lighteval does not have, are for lm-eval. It runs the code that the models write.
    """
    from hf_evol.training.evaluation import write_evaluation

    commands = write_evaluation(models, output, overwrite=overwrite, batch_size=batch_size)
    _show_commands(output, "lighteval[extended_tasks,math] and lm-eval[hf]", commands)
    print("lm-eval runs code that the model has written: start it in a container that has nothing to lose.")


def _show_commands(output: str, needs: str, commands: Sequence[str]) -> None:
    print(f"Next, in an environment with {needs}:")
    for command in (f"cd {shlex.quote(output)}", *commands):
        print(f"  {command}")
