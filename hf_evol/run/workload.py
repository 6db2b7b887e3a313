"""What one row costs: tokens, seconds and bytes of each stage, measured by running a recipe on a few rows."""

from __future__ import annotations

import json
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_evol.run.recipe import Recipe
    from hf_evol.run.stages import Stages

STAGES = ("evolve", "respond", "score")


@dataclass
class StageLoad:
    """What a stage did.

    Args:
        requests: rows that went through it, over all rounds.
        prompt_tokens: tokens read: of the rendered prompts; of scoring, those of Q and A in one sequence and of A alone.
        generated_tokens: tokens written; none in scoring.
        seconds: of one worker, models loaded before.
    """

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    @property
    def paced_tokens(self) -> int:
        """The tokens that its throughput is stated in: those written, or, of scoring, those read."""
        return self.generated_tokens or self.prompt_tokens


@dataclass(frozen=True)
class Workload:
    """A measurement: a recipe on ``n_seeds`` rows, for all its rounds.

    Args:
        hardware: what it was measured on.
        recipe: its settings, as on a card.
        n_seeds: seed rows.
        rounds: rounds of evolving.
        stages: by the names of `STAGES`.
        set_bytes: of the finished set's rows in parquet files, without the files' footers.
        arrow_bytes: of the same rows as Arrow data, by which files are cut.
        journal_bytes: of the journal with all requests and scores.
        libraries: versions.
    """

    hardware: str
    recipe: dict[str, Any]
    n_seeds: int
    rounds: int
    stages: dict[str, StageLoad]
    set_bytes: int
    arrow_bytes: int
    journal_bytes: int
    libraries: dict[str, str]

    @classmethod
    def load(cls, path: str | Path) -> Workload:
        """A measurement from a file that `save` wrote.

        Raises:
            SourceError: it can't be read, or is none.
        """
        try:
            values = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            stages = {name: StageLoad(**values["stages"][name]) for name in STAGES}
            return cls(**values | {"stages": stages})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{str(path)!r} is no measurement: {error!r}. Make one with hf-evol plan --measure 100 --measurement FILE."
            ) from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measure(recipe: Recipe, n: int) -> Workload:
    """Run a recipe on the first ``n`` rows of its seed set, in this process, and count.

    Nothing is kept: the set and the journal lie in a temporary folder. The run has the recipe's own settings otherwise.

    Raises:
        ConfigError: the recipe has a judge, whose work is not measured.
        HfEvolError: as in `hf_evol.run`.
    """
    from hf_evol.hub.provenance import library_versions
    from hf_evol.run.pipeline import read_seeds
    from hf_evol.run.stages import Stages

    if recipe.judge:
        raise ConfigError("A plan measures no judge. Leave judge out, and add the judge's own hours.")
    if n < 1:
        raise ConfigError(f"--measure must be 1 or more rows; got {n}.")
    with tempfile.TemporaryDirectory(prefix="hf_evol-") as name:
        folder = Path(name)
        made = {"output": str(folder / "set"), "journal": str(folder / "journal.sqlite"), "file_format": "parquet"}
        recipe = replace(recipe, limit=n, num_proc=1, push_to=None, **made)
        stages = Stages.of(recipe)
        seeds = read_seeds(recipe)
        stages.check()
        _load_models(stages)
        loads = _run(recipe, stages, seeds)
        files = list((folder / "set").rglob("*.parquet"))
        return Workload(
            hardware=_hardware(),
            recipe=recipe.for_card(),
            n_seeds=len(seeds),
            rounds=recipe.rounds,
            stages=loads,
            set_bytes=sum(map(_parquet_bytes, files)),
            arrow_bytes=sum(map(_arrow_bytes, files)),
            journal_bytes=_journal_bytes(recipe.journal),
            libraries=library_versions(),
        )


def _run(recipe: Recipe, stages: Stages, seeds: Dataset) -> dict[str, StageLoad]:
    """The stages of `hf_evol.run`, each timed."""
    from hf_evol import columns as col
    from hf_evol.data.selection import column
    from hf_evol.run.result import Round, evolution_reasons, finish, part, response_reasons
    from hf_evol.transform import map

    loads = {name: StageLoad() for name in STAGES}
    evolved, rounds, rows = [], [], seeds
    for _ in range(recipe.rounds):
        with _timed(loads["evolve"], len(rows)):
            rows = map(rows, stages.evolve)
        rows = map(rows, stages.eliminate)
        evolved.append(rows)
    loads["evolve"].prompt_tokens = sum(entry["n_prompt_tokens"] for row in rows[col.HISTORY] for entry in row)
    for rows in evolved:
        kept, failed = part(rows.remove_columns(col.HISTORY), evolution_reasons(rows))
        chats = [stages.respond.prompt(*texts) for texts in zip(kept[col.INSTRUCTION], kept[col.INPUT], strict=True)]
        loads["respond"].prompt_tokens += stages.respond.model.count_prompt_tokens(chats)
        with _timed(loads["respond"], len(kept)):
            kept = map(kept, stages.respond)
        kept = map(kept, stages.eliminate)
        kept, unanswered = part(kept, response_reasons(kept))
        with _timed(loads["score"], len(kept)):
            kept = map(kept, stages.score)
        questions, answers = (column(kept, name).drop_null() for name in (col.N_TOKENS_Q, col.N_TOKENS_A))
        loads["score"].prompt_tokens += sum(questions.to_pylist()) + 2 * sum(answers.to_pylist())
        rounds.append(Round(kept, failed, unanswered))
    finish(recipe, stages, stages.evolve.methods, len(seeds), rounds)
    return loads


def _load_models(stages: Stages) -> None:
    """Load the weights by a token or two, so that no stage's seconds have it."""
    row = {"id": ["warm-0"], "instruction": ["Name a river."], "input": [""], "output": ["The Rhine is a river."]}
    for transform in (stages.evolve, stages.respond):
        replace(transform, journal=False, max_new_tokens=1)(row)
    replace(stages.score, journal=False)(row)


@contextmanager
def _timed(load: StageLoad, requests: int) -> Iterator[None]:
    from hf_evol.progress import counted_tokens

    start = time.perf_counter()
    with counted_tokens() as tokens:
        yield
    load.seconds += time.perf_counter() - start
    load.generated_tokens += tokens[0]
    load.requests += requests


def _journal_bytes(path: str) -> int:
    from hf_evol.models.journal import open_journal

    journal = open_journal(path)
    journal.prune()  # folds the log into the file, which a small journal would otherwise be mostly
    return journal.stats().bytes


def _hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _parquet_bytes(file: Path) -> int:
    import pyarrow.parquet as pq

    data = pq.read_metadata(file)
    groups: Sequence[Any] = [data.row_group(number) for number in range(data.num_row_groups)]
    return sum(group.column(number).total_compressed_size for group in groups for number in range(group.num_columns))


def _arrow_bytes(file: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_table(file).nbytes
