"""What a run of many rows would take: GPU hours, cost, storage, tasks, and which step takes longest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hf_evol.errors import ConfigError
from hf_evol.run.workload import STAGES, Workload

# Finishing on one machine: benchmarks/results/scale-finish-xeon-2-cores.txt, the slower of its two; 10 million rows.
FINISH_BYTES_PER_SECOND = 98e6  # of Arrow data, which is mostly the writing
FINISH_BYTES = 70  # of memory, for a scored row
FINISH_BASE_BYTES = 0.5e9  # the libraries
FILE_BYTES = 500e6  # of Arrow data, hf_evol.hub.target.FILE_BYTES
# https://huggingface.co/docs/hub/storage-limits: recommended files per commit and per folder, files per repository.
COMMIT_FILES, FOLDER_FILES, REPO_FILES = 100, 10_000, 100_000
REPO_BYTES = 1e12  # the same page asks for word before a larger public repository
ARRAY_TASKS = 1001  # Slurm's default MaxArraySize (slurm.conf); datatrove makes several arrays of more
MACHINE_BYTES = 64e9  # memory of the machine that finishes, assumed


@dataclass(frozen=True)
class Resources:
    """What there is to work with.

    Args:
        tokens_per_second: of one GPU, by stage: generated tokens (their prompts read along the way), and for ``score`` tokens
            read. A stage that is not named takes the measurement's own.
        gpus: how many work at a time, each with a worker of its own.
        price_per_gpu_hour: in any currency; None leaves the cost out.
        longer: how many times as long as the measured ones the texts are.
        task_hours: about what a task takes, which is what a failed one repeats at most.
        start_seconds: until a worker has loaded its model; assumed.
        upload_bytes_per_second: to the Hub; assumed.
    """

    tokens_per_second: Mapping[str, float] = field(default_factory=dict)
    gpus: int = 1
    price_per_gpu_hour: float | None = None
    longer: float = 1.0
    task_hours: float = 1.0
    start_seconds: float = 120.0
    upload_bytes_per_second: float = 50e6

    def __post_init__(self) -> None:
        for name in self.tokens_per_second:
            if name not in STAGES:
                raise ConfigError(f"A stage is {', '.join(STAGES)}; got {name!r}.")
        figures = {name: getattr(self, name) for name in ("longer", "task_hours", "upload_bytes_per_second")}
        figures |= {f"tokens_per_second of {name}": value for name, value in self.tokens_per_second.items()}
        for name, value in figures.items():
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be over 0; got {value!r}.")
        if self.gpus < 1 or self.start_seconds < 0 or (self.price_per_gpu_hour or 0) < 0:
            raise ConfigError("gpus must be 1 or more; start_seconds and price_per_gpu_hour not below 0.")


@dataclass(frozen=True)
class Estimate:
    """The plan for one number of seed rows.

    Args:
        rows: seed rows.
        tokens: by stage, in millions of the tokens that its throughput is stated in.
        hours: by step, on the clock: ``start``, the stages on all GPUs; ``finish`` and ``upload`` on one machine.
        gpu_hours: of the stages and of starting.
        cost: of these, in the currency of the price.
        tasks: each about ``task_hours`` long, and at least one for each GPU.
        files: of the finished set.
        set_bytes, journal_bytes, finish_memory: in bytes.
        limits: what this size runs into, one sentence each.
    """

    rows: int
    tokens: dict[str, float]
    hours: dict[str, float]
    gpu_hours: float
    cost: float | None
    tasks: int
    files: int
    set_bytes: float
    journal_bytes: float
    finish_memory: float
    limits: tuple[str, ...]

    @property
    def longest(self) -> str:
        """The step that takes most hours."""
        return max(self.hours, key=self.hours.__getitem__)

    @property
    def gpus_until_one_machine_is_slower(self) -> float:
        """How many GPUs it takes until finishing and uploading, which more GPUs don't speed up, take longest."""
        return self.gpu_hours / (self.hours["finish"] + self.hours["upload"])


def throughput(workload: Workload, resources: Resources, stage: str) -> float:
    """Tokens per second of one GPU in a stage: as given, or as measured."""
    if stage in resources.tokens_per_second:
        return resources.tokens_per_second[stage]
    load = workload.stages[stage]
    if not (load.paced_tokens and load.seconds):
        raise ConfigError(
            f"The measurement has no tokens of stage {stage!r}. Measure more rows, or give tokens per second."
        )
    return load.paced_tokens / load.seconds


def estimate(workload: Workload, resources: Resources, rows: int) -> Estimate:
    """Scale a measurement to a number of seed rows: everything grows with the rows, and nothing else is assumed.

    A stage's GPU hours are rows times its measured tokens per seed row (rounds and dropped rows included) divided by its
    throughput.
    """
    if rows < 1:
        raise ConfigError(f"--rows must be 1 or more; got {rows}.")
    scale = rows / workload.n_seeds
    tokens = {name: workload.stages[name].paced_tokens * scale * resources.longer for name in STAGES}
    stage_hours = {name: tokens[name] / throughput(workload, resources, name) / 3600 for name in STAGES}
    start = len(STAGES) * resources.start_seconds / 3600  # each worker, once in each stage
    gpu_hours = sum(stage_hours.values()) + start * resources.gpus
    scored = workload.stages["score"].requests * scale
    set_bytes, arrow, journal = (
        value * scale * resources.longer for value in (workload.set_bytes, workload.arrow_bytes, workload.journal_bytes)
    )
    hours = {"start": start} | {name: value / resources.gpus for name, value in stage_hours.items()}
    hours |= {
        "finish": arrow / FINISH_BYTES_PER_SECOND / 3600,
        "upload": set_bytes / resources.upload_bytes_per_second / 3600,
    }
    tasks = min(rows, max(resources.gpus, math.ceil(sum(stage_hours.values()) / resources.task_hours)))
    made = Estimate(
        rows=rows,
        tokens={name: value / 1e6 for name, value in tokens.items()},
        hours=hours,
        gpu_hours=gpu_hours,
        cost=None if resources.price_per_gpu_hour is None else gpu_hours * resources.price_per_gpu_hour,
        tasks=tasks,
        files=math.ceil(arrow / FILE_BYTES) + workload.rounds,  # the last file of each config is not full
        set_bytes=set_bytes,
        journal_bytes=journal,
        finish_memory=FINISH_BASE_BYTES + scored * FINISH_BYTES,
        limits=(),
    )
    return Estimate(**vars(made) | {"limits": tuple(_limits(made))})


def _limits(made: Estimate) -> list[str]:
    found = []
    if made.finish_memory > MACHINE_BYTES:
        found.append(
            f"finishing needs {size(made.finish_memory)} of memory, over the {size(MACHINE_BYTES)} assumed: finish in parts"
        )
    if made.files > COMMIT_FILES:
        found.append(
            f"{made.files:,} files, over the {COMMIT_FILES} recommended for one commit of the Hub: upload in several"
        )
    if made.files > REPO_FILES:
        found.append(f"over the {REPO_FILES:,} files of a Hub repository: use several")
    elif made.files > FOLDER_FILES:
        found.append(f"over the {FOLDER_FILES:,} files of a folder on the Hub, if one config has them")
    if made.set_bytes > REPO_BYTES:
        found.append(f"{size(made.set_bytes)}: ask the Hub before a repository of over {size(REPO_BYTES)}")
    if made.tasks > ARRAY_TASKS:
        found.append(f"{made.tasks:,} tasks, over Slurm's {ARRAY_TASKS - 1} of one array: several arrays")
    return found


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{figure(count)} {unit}"
        count /= 1000
    raise AssertionError("the last unit returns")


def figure(value: float) -> str:
    """Three significant figures, with thousands marked."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    rounded = round(value, places) if value < 1000 else round(value, 2 - math.floor(math.log10(value)))
    return f"{rounded:,.{places}f}" if places else f"{rounded:,.0f}"


def duration(hours: float) -> str:
    """Hours in the unit that suits them."""
    if hours >= 48:
        return f"{figure(hours / 24)} days"
    if hours >= 1:
        return f"{figure(hours)} h"
    return f"{figure(hours * 60)} min" if hours * 60 >= 1 else f"{figure(hours * 3600)} s"


def table(estimates: Sequence[Estimate], resources: Resources) -> list[list[str]]:
    """The plan as lines of cells; the first line is the head."""
    names = {"evolve": "Evolve", "respond": "Respond", "score": "Score"}
    lines = [["Seed rows", *(f"{entry.rows:,}" for entry in estimates)]]

    def line(label: str, values: Sequence[str]) -> None:
        lines.append([label, *values])

    for stage, label in names.items():
        kind = "read" if stage == "score" else "generated"
        line(f"{label}: million tokens {kind}", [figure(entry.tokens[stage]) for entry in estimates])
    for stage, label in names.items():
        line(f"{label}: GPU hours", [figure(entry.hours[stage] * resources.gpus) for entry in estimates])
    line("Loading models: GPU hours", [figure(entry.hours["start"] * resources.gpus) for entry in estimates])
    line("All GPU hours", [figure(entry.gpu_hours) for entry in estimates])
    if resources.price_per_gpu_hour is not None:
        line(f"Cost at {resources.price_per_gpu_hour:g} a GPU hour", [figure(entry.cost) for entry in estimates])
    gpus = f"{resources.gpus:,} GPU{'s' if resources.gpus > 1 else ''}"
    line(f"Time on {gpus}", [duration(entry.gpu_hours / resources.gpus) for entry in estimates])
    line("GPUs to be done in a week", [f"{math.ceil(entry.gpu_hours / 168):,}" for entry in estimates])
    line("Tasks", [f"{entry.tasks:,}" for entry in estimates])
    line("Seed rows a task", [f"{math.ceil(entry.rows / entry.tasks):,}" for entry in estimates])
    line("Finished set, parquet", [size(entry.set_bytes) for entry in estimates])
    line("Its files", [f"{entry.files:,}" for entry in estimates])
    line("Journals", [size(entry.journal_bytes) for entry in estimates])
    line("Finishing, on one machine", [duration(entry.hours["finish"]) for entry in estimates])
    line("Memory for finishing", [size(entry.finish_memory) for entry in estimates])
    line("Upload", [duration(entry.hours["upload"]) for entry in estimates])
    line("Longest step", [entry.longest for entry in estimates])
    edge = [figure(math.ceil(entry.gpus_until_one_machine_is_slower)) for entry in estimates]
    line("GPUs with which finishing and upload take as long", edge)
    return lines


def assumptions(workload: Workload, resources: Resources) -> list[str]:
    """What the numbers rest on, one sentence each."""
    requests = workload.n_seeds * workload.rounds
    given = [name for name in STAGES if name in resources.tokens_per_second]
    measured = [name for name in STAGES if name not in given]

    def rates(names: Sequence[str]) -> str:
        return ", ".join(f"{name} {figure(throughput(workload, resources, name))}" for name in names)

    lines = [
        f"Tokens and bytes per row: measured with {workload.recipe['model']!r} on {workload.n_seeds} rows of "
        f"{workload.recipe['dataset']!r}, {workload.rounds} rounds"
        + (f", and taken {resources.longer:g} times: the texts are assumed so much longer." if resources.longer != 1 else ".")
    ]  # fmt: skip
    per = ", ".join(
        f"{name} {figure(load.prompt_tokens * resources.longer / requests)} read and "
        f"{figure(load.generated_tokens * resources.longer / requests)} generated"
        for name, load in ((name, workload.stages[name]) for name in STAGES)
    )
    lines.append(f"Tokens per row and round: {per}.")
    if given:
        lines.append(
            f"Tokens per second of one GPU, as given, not measured by us on any GPU: {rates(given)}. They are an input: take "
            "those of your own model, engine and GPU."
        )
    if measured:
        lines.append(
            f"Tokens per second, measured on {workload.hardware}, which stands for a GPU here: {rates(measured)}."
        )
    lines.append(
        "Evolving and responding are paced by generated tokens, their prompts read meanwhile; scoring, which generates "
        "nothing, by tokens read."
    )
    lines.append(
        f"Assumed: {resources.start_seconds:g} s to load a model, once per worker and stage; tasks of about "
        f"{resources.task_hours:g} h; upload at {size(resources.upload_bytes_per_second)}/s; GPUs are never idle; later rounds "
        "and longer runs cost what the measured rows did."
    )
    lines.append(
        f"Finishing (select, statistics, figures, writing) as measured on two busy cores, "
        f"benchmarks/results/scale-finish-xeon-2-cores.txt: {size(FINISH_BYTES_PER_SECOND)}/s before compression, and "
        f"{FINISH_BYTES} bytes of memory a scored row. Files of 500 MB before compression. Shards between the stages and caches come on top: keep a few times the set's size free."
    )
    lines.append("Limits of the Hub: https://huggingface.co/docs/hub/storage-limits.")
    return lines


def markdown(workload: Workload, resources: Resources, estimates: Sequence[Estimate]) -> str:
    """The plan as Markdown: table, limits, assumptions."""
    head, *lines = table(estimates, resources)
    out = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(estimates)]
    out += ["| " + " | ".join(line) + " |" for line in lines]
    found = [f"- {entry.rows:,} rows: {limit}." for entry in estimates for limit in entry.limits]
    out += ["", "What these sizes run into:", "", *(found or ["- Nothing that this plan looks at."])]
    out += ["", "What the numbers rest on:", "", *(f"- {line}" for line in assumptions(workload, resources)), ""]
    return "\n".join(out)
