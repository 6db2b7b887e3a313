"""What a run leaves: the configs of a set, their tables, provenance, figures and card."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol import models
from hf_evol.data.selection import column, select
from hf_evol.errors import MissingExtraError
from hf_evol.evolve.eliminate import OF_RESPONSES, repeated
from hf_evol.generation.endpoint import EndpointEngine
from hf_evol.hub import figures, provenance
from hf_evol.hub.card import card_text
from hf_evol.hub.licences import notes, plain_licence
from hf_evol.hub.target import hub_dataset, write_dataset, write_provenance, writing
from hf_evol.progress import without_datasets_bars
from hf_evol.prompts.evol_instruct import version_of
from hf_evol.run.recipe import FILE_FORMATS, Recipe, public_name
from hf_evol.scoring.pairs import SCORES
from hf_evol.scoring.summary import summarize

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from hf_evol.prompts.evol_instruct import Method
    from hf_evol.run.stages import Stages

logger = logging.getLogger(__name__)

REASON = "dropped_because"
_FAILED_REQUESTS = ("engine_error", "out_of_memory")
SCORE_COLUMNS = tuple(name for name, kind in SCORES.items() if kind != "string")
_SET_COLUMNS = (
    col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.ROUND, col.METHOD,
    col.TRY, col.REJECTED, col.EVOLVER, col.RESPONDER, *SCORES, col.IC_IFD_CONVENTION,
)  # fmt: skip
_DROPPED_COLUMNS = (
    col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.SEED_INSTRUCTION, col.PARENT_INSTRUCTION, col.ROUND, col.METHOD,
    col.TRY, col.REJECTED, col.EVOLVER, col.EVOL_STATUS, REASON,
)  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """What a run made: where it lies, and its whole provenance (as in ``provenance.json``)."""

    output: str
    provenance: dict[str, Any]
    url: str | None = None

    @property
    def n_failed_requests(self) -> int:
        """How many rows were left out, over all rounds, because a server or the memory failed: another run may have them."""
        dropped = [table["dropped"] for table in self.provenance["rounds"]]
        return sum(count for table in dropped for name, count in table.items() if name.endswith(_FAILED_REQUESTS))


@dataclass(frozen=True)
class Round:
    """The rows of one round: those of the set, and those left out before and after they were answered, with reasons."""

    rows: Dataset
    failed: Dataset
    unanswered: Dataset

    @property
    def dropped(self) -> Dataset:
        """All rows left out, with what is known of them."""
        from datasets import concatenate_datasets

        return concatenate_datasets(
            [_columns(self.failed, _DROPPED_COLUMNS), _columns(self.unanswered, _DROPPED_COLUMNS)]
        )

    def table(self, number: int) -> dict[str, Any]:
        """How many rows came in, were evolved, kept, in the set and scored; reasons, and score statistics."""
        import pyarrow.compute as pc

        rows_in = len(self.rows) + len(self.failed) + len(self.unanswered)
        scores, failed = column(self.rows, col.IC_IFD), column(self.failed, col.EVOL_STATUS)
        unscored = column(self.rows, col.IC_IFD_STATUS).filter(pc.is_null(scores))
        dropped = value_counts(column(self.failed, REASON)) + value_counts(column(self.unanswered, REASON))
        return {
            "round": number,
            "rows_in": rows_in,
            "ok": rows_in - len(self.failed) + value_counts(failed)[col.OK],
            "kept": rows_in - len(self.failed),
            "in_set": len(self.rows),
            "scored": len(scores) - scores.null_count,
            "tries": tries_table(
                [column(rows, name) for name in (col.EVOL_STATUS, col.TRY, col.REJECTED)]
                for rows in (self.rows, self.failed, self.unanswered)
            ),
            "dropped": dict(dropped.most_common()),
            "unscored": dict(value_counts(unscored).most_common()),
            "scores": score_summaries(self.rows),
        }


def score_summaries(rows: Dataset) -> list[dict[str, Any]]:
    """What `summarize` gives of IFD and of IC-IFD."""
    return [summarize(label, column(rows, name)) for name, label in ((col.IFD, "IFD"), (col.IC_IFD, "IC-IFD"))]


def tries_table(parts: Iterable[Sequence[pa.ChunkedArray]]) -> list[dict[str, int]]:
    """Of each try, how many of its texts have which status; a part has, of each row, status, try and rejected texts."""
    import pyarrow.compute as pc

    counts: dict[int, Counter[str]] = {}
    for status, tried, texts in parts:
        rejected, good = pc.list_flatten(texts), tried.filter(pc.equal(status, col.OK))
        counts.setdefault(1, Counter())
        for number, times in value_counts(good).items():
            counts.setdefault(number, Counter())[col.OK] += times
        for number in pc.unique(pc.struct_field(rejected, "try")).to_pylist():
            statuses = pc.struct_field(rejected, "status").filter(pc.equal(pc.struct_field(rejected, "try"), number))
            counts.setdefault(number, Counter()).update(status_counts(statuses))
    return [dict(counts.get(number, Counter()).most_common()) for number in range(1, max(counts) + 1)]


def status_counts(statuses: pa.ChunkedArray) -> dict[str, int]:
    """How many rows have which status, by its countable part, the most frequent first."""
    counts: Counter[str] = Counter()
    for status, times in value_counts(statuses).items():
        counts[col.reason(status)] += times
    return dict(counts.most_common())


def value_counts(values: pa.ChunkedArray) -> Counter[Any]:
    """How often each value occurs, in the order of the first of each."""
    return Counter({entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()})


def evolution_reasons(rows: Dataset) -> list[str]:
    """Of each row, ``kept``, or why its evolution failed."""
    return [
        col.reason(status) if status != col.OK else col.KEPT if why in OF_RESPONSES else why
        for status, why in zip(rows[col.EVOL_STATUS], rows[col.ELIMINATION], strict=True)
    ]


def response_reasons(rows: Dataset) -> list[str]:
    """Of each evolved row, ``kept``, or why it has no usable response."""
    return [
        f"response_{col.reason(status)}" if status != col.OK else why
        for status, why in zip(rows[col.RESPONSE_STATUS], rows[col.ELIMINATION], strict=True)
    ]


def part(rows: Dataset, reasons: list[str]) -> tuple[Dataset, Dataset]:
    """The kept rows, and the others with their reason."""
    from datasets import Dataset, Features, Value

    kept = [place for place, reason in enumerate(reasons) if reason == col.KEPT]
    lost = [place for place, reason in enumerate(reasons) if reason != col.KEPT]
    if not lost:
        features = Features(dict(rows.features) | {REASON: Value("string")})
        return rows, Dataset.from_dict({name: [] for name in features}, features=features)
    with without_datasets_bars():
        dropped = rows.select(lost).add_column(REASON, [reasons[place] for place in lost], feature=Value("string"))
    return rows.select(kept), dropped


def set_columns(rows: Dataset) -> Dataset:
    """The columns that a set's rows have."""
    return _columns(rows, _SET_COLUMNS)


def _columns(rows: Dataset, names: Sequence[str]) -> Dataset:
    return rows.select_columns([name for name in names if name in rows.column_names])


def finish(
    recipe: Recipe, stages: Stages, methods: Sequence[Method], n_seeds: int, rounds: Sequence[Round]
) -> RunResult:
    """Select from the scored rounds, and write everything to the recipe's output."""
    with without_datasets_bars():
        return _finish(recipe, stages, methods, n_seeds, rounds)


def _finish(
    recipe: Recipe, stages: Stages, methods: Sequence[Method], n_seeds: int, rounds: Sequence[Round]
) -> RunResult:
    from datasets import concatenate_datasets

    rounds = without_repeats(rounds)
    sets = [set_columns(entry.rows) for entry in rounds]
    selected = select(concatenate_datasets(sets), recipe.select_by, top=recipe.select, per=col.ROUND)
    lost = concatenate_datasets([entry.dropped for entry in rounds])
    record = _provenance(recipe, stages, methods, n_seeds, [entry.table(n) for n, entry in enumerate(rounds, 1)])
    with writing(recipe.output) as folder:
        write_set(folder, record, selected, sets, lost, file_format=recipe.file_format)
        write_card(folder, record, repo_id=recipe.push_to, shown_as=public_name(recipe.output))
    return RunResult(recipe.output, record)


def without_repeats(rounds: Sequence[Round], published: Sequence[Dataset] = ()) -> list[Round]:
    """The rounds, with rows that say what another row, there or in what is published, says among those left out."""
    from datasets import concatenate_datasets

    done: list[Round] = []
    for entry in rounds:
        again = repeated(entry.rows, *published, *(earlier.rows for earlier in done))
        rows, dropped = part(entry.rows, ["duplicate" if found else col.KEPT for found in again])
        shared = [name for name in dropped.column_names if name in entry.unanswered.column_names]
        unanswered = (
            concatenate_datasets([entry.unanswered, dropped.select_columns(shared)])
            if len(dropped)
            else entry.unanswered
        )
        done.append(replace(entry, rows=rows, unanswered=unanswered))
    return done


def write_set(
    folder: Path, record: dict[str, Any], selected: Dataset, sets: Sequence[Dataset], lost: Dataset, *, file_format: str
) -> None:
    """Write each config's rows and the figures, and add to the record what follows from the rows."""
    configs = [("selected", selected, "the rows of all rounds with the highest scores; the default config")]
    configs += [(f"round_{n}", rows, f"all answered rows of round {n}") for n, rows in enumerate(sets, 1)]
    configs += [("dropped", lost, "rows left out, each with its round and the reason")]
    configs = [entry for entry in configs if len(entry[1])]  # datasets can't load a config without rows
    for name, rows, _ in configs:
        write_dataset(rows, folder / name, file_format)
    by_round = value_counts(column(selected, col.ROUND))
    for table in record["rounds"]:
        table["selected"] = by_round[table["round"]]
    record["configs"] = [
        {"name": name, "rows": len(rows), "description": description, "extension": FILE_FORMATS[file_format]}
        for name, rows, description in configs
    ]
    shown = (col.ROUND, col.METHOD, col.IC_IFD, col.SEED_INSTRUCTION, col.INSTRUCTION, col.INPUT, col.OUTPUT)
    by = record["recipe"].get("select_by", col.IC_IFD)
    record["examples"] = select(selected, by, top=3).select_columns(list(shown)).to_list()
    record["failures"] = rejected_texts(lost)
    record["figures"] = _figures(sets, folder)


def rejected_texts(rows: Dataset) -> list[dict[str, Any]]:
    """One rejected text of each status, the most frequent first, with its parent."""
    import pyarrow.compute as pc

    if col.REJECTED not in rows.column_names or not len(rows):
        return []
    rejected = column(rows, col.REJECTED)
    places, texts = pc.list_parent_indices(rejected), pc.list_flatten(rejected)
    statuses = pc.struct_field(texts, "status")
    found = []
    for status, count in value_counts(statuses).most_common():
        if status == col.OK:  # another text of the row was preferred
            continue
        place = pc.index(statuses, status).as_py()
        row = rows[places[place].as_py()]
        shown = {name: row[name] for name in (col.ROUND, col.METHOD, col.PARENT_INSTRUCTION)}
        found.append({"status": status, "count": count, "text": texts[place].as_py()["instruction"]} | shown)
    return found


def write_card(folder: Path, record: dict[str, Any], *, repo_id: str | None, shown_as: str) -> None:
    """Write provenance and card."""
    write_provenance(record, folder)
    card = card_text(record, repo_id=repo_id or hub_dataset(shown_as)[0], folder=shown_as)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _provenance(
    recipe: Recipe, stages: Stages, methods: Sequence[Method], n_seeds: int, tables: list[dict[str, Any]]
) -> dict[str, Any]:
    source = provenance.describe_source(
        recipe.dataset, config=recipe.config, split=recipe.split, revision=recipe.revision
    )
    records = [describe(role, model) for role, model in stages.models.items()]
    return {
        "kind": "evolved",
        "title": title(source, "evolved", records[:1]),
        "recipe": recipe.for_card(),
        **origin(source, records, recipe.license),
        "n_seeds": n_seeds,
        "methods": [method.name for method in methods],
        "prompts_version": version_of(methods),
        "rounds": tables,
        "libraries": provenance.library_versions(),
    }


def title(source: provenance.SourceRecord, did: str, records: Sequence[provenance.ModelRecord]) -> str:
    """Such as ``alpaca, evolved by Qwen2.5-0.5B-Instruct (494M)``."""
    by = " and ".join(f"{record.name.rsplit('/', 1)[-1]} ({record.size})" for record in records)
    return f"{source.name.rsplit('/', 1)[-1]}, {did} by {by}"


def origin(
    source: provenance.SourceRecord, records: Sequence[provenance.ModelRecord], licence: str | None
) -> dict[str, Any]:
    """What a provenance says of the seed set, the models, and the licences that follow from them unless one is given."""
    licences = [(record.role, record.name, record.license) for record in records]
    return {
        "source": asdict(source),
        "license": licence or plain_licence(source.license, licences),
        "licence_notes": notes(source.license, licences),
        "models": [asdict(record) for record in records],
    }


def describe(role: str, model: Any) -> provenance.ModelRecord:
    """What is known of a model by its `ModelSpec` or `EndpointEngine`."""
    if isinstance(model, EndpointEngine):
        return provenance.describe_model(role, model.name, model.model, dtype="unknown", stated=model.n_parameters)
    record = provenance.describe_model(
        role,
        model.label,
        model.path,
        revision=model.revision,
        gguf_file=model.gguf_file,
        dtype=models.precision(model),
        stated=model.n_parameters,
    )
    return replace(record, revision=f"of the package {models.DEMO_PACKAGE}") if model.name == models.DEMO else record


def _figures(sets: Sequence[Dataset], folder: Path) -> list[dict[str, str]]:
    scores = {number: column(rows, col.IC_IFD).drop_null().to_numpy() for number, rows in enumerate(sets, 1)}
    scores = {number: values for number, values in scores.items() if len(values)}
    if not scores:
        return []
    try:
        figures.check_plots()
    except MissingExtraError as error:
        logger.warning("The card has no figures. %s", error)
        return []
    (folder / "figures").mkdir()
    figures.ic_ifd_histogram(scores, folder / "figures" / "ic_ifd.png")
    return [{"path": "figures/ic_ifd.png", "alt": "Histogram of IC-IFD by round"}]
