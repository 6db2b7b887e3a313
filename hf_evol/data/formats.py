"""Seed sets in, training sets out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_evol import columns as col
from hf_evol.errors import ColumnError, FormatError

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

Row = dict[str, Any]
# What stands in the input of rows that have none.
_NO_INPUT = frozenset(
    ("no input", "noinput", "no_input", "no input required", "no input needed", "n/a", "na", "none", "not applicable")
)
_OUR_ID = re.compile(r".+-\d+\Z", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """One layout of instruction data.

    Args:
        columns: what a dataset must have to be of this format.
        read: one row to (instruction, input, output), or an error of the built-in kind for a malformed row.
        write: (instruction, input, output) to one row.
    """

    columns: tuple[str, ...]
    read: Callable[[Row], tuple[Any, Any, Any]]
    write: Callable[[str, str, str], Row]


def _read_alpaca(row: Row) -> tuple[Any, Any, Any]:
    given = row.get(col.INPUT) or ""
    if isinstance(given, str) and given.strip().strip("<>[]().").casefold() in _NO_INPUT:
        given = ""
    return row[col.INSTRUCTION], given, row[col.OUTPUT]


def _write_alpaca(instruction: str, input: str, output: str) -> Row:
    return {col.INSTRUCTION: instruction, col.INPUT: input, col.OUTPUT: output}


def _user_turn(instruction: str, input: str) -> str:
    return f"{instruction}\n{input}" if input else instruction


def _single_turn(turns: Sequence[Row], role: str, text: str, user: str, assistant: str) -> tuple[Any, Any, Any]:
    """The one user turn and its answer, if there is one; system turns are left out. Chats of several turns are
    refused, as the evolving methods know single prompts only."""
    spoken = [turn for turn in turns or [] if turn[role] != "system"]
    if not spoken or spoken[0][role] != user or len(spoken) > 2 or (len(spoken) == 2 and spoken[1][role] != assistant):
        roles = [turn[role] for turn in turns or []]
        raise ValueError(f"expected one {user} turn and at most one {assistant} turn, got {roles}")
    return spoken[0][text], "", spoken[1][text] if len(spoken) == 2 else None


def _read_messages(row: Row) -> tuple[Any, Any, Any]:
    return _single_turn(row["messages"], "role", "content", "user", "assistant")


def _write_messages(instruction: str, input: str, output: str) -> Row:
    turns = [("user", _user_turn(instruction, input)), ("assistant", output)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _read_sharegpt(row: Row) -> tuple[Any, Any, Any]:
    return _single_turn(row["conversations"], "from", "value", "human", "gpt")


def _write_sharegpt(instruction: str, input: str, output: str) -> Row:
    turns = [("human", _user_turn(instruction, input)), ("gpt", output)]
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}


def _read_prompt_completion(row: Row) -> tuple[Any, Any, Any]:
    if isinstance(row["prompt"], (list, tuple)):
        return _single_turn([*row["prompt"], *(row["completion"] or [])], "role", "content", "user", "assistant")
    return row["prompt"], "", row["completion"]


def _write_prompt_completion(instruction: str, input: str, output: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": _user_turn(instruction, input)}],
        "completion": [{"role": "assistant", "content": output}],
    }


FORMATS: dict[str, Format] = {
    "alpaca": Format((col.INSTRUCTION, col.OUTPUT), _read_alpaca, _write_alpaca),
    "code_alpaca": Format((col.INSTRUCTION, col.OUTPUT), _read_alpaca, _write_alpaca),
    "gsm8k": Format(
        ("question", "answer"),
        lambda row: (row["question"], "", row["answer"]),
        lambda instruction, input, output: {"question": _user_turn(instruction, input), "answer": output},
    ),
    "messages": Format(("messages",), _read_messages, _write_messages),
    "prompt-completion": Format(("prompt", "completion"), _read_prompt_completion, _write_prompt_completion),
    "sharegpt": Format(("conversations",), _read_sharegpt, _write_sharegpt),
}
_SAME_COLUMNS = {"code_alpaca": "alpaca"}  # differs in name only, so "auto" says alpaca
TRAINING_FORMATS = ("alpaca", "messages", "prompt-completion", "sharegpt")


def detect_format(columns: Sequence[str]) -> str:
    """The one format whose columns a dataset has.

    Raises:
        FormatError: none fits, or several do.
    """
    fitting = [
        name for name, form in FORMATS.items() if name not in _SAME_COLUMNS and set(form.columns) <= set(columns)
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{name}: {', '.join(form.columns)}" for name, form in FORMATS.items())
    problem = f"fits several formats ({', '.join(fitting)})" if fitting else "fits no known format"
    raise FormatError(
        f"A dataset with the columns {', '.join(map(repr, columns))} {problem}. Formats and their columns: {listed}. "
        "Name one with format= (--format on the command line), or rename columns with dataset.rename_columns({…})."
    )


def to_instructions(
    dataset: Dataset,
    format: str = "auto",
    *,
    name: str | None = None,
    keep_columns: Sequence[str] = (),
) -> Dataset:
    """Bring a seed set into the columns that the transforms read.

    A row before, as gsm8k: ``{"question": "How many …?", "answer": "3 …"}``; and after:
    ``{"id": "gsm8k-0", "instruction": "How many …?", "input": "", "output": "3 …"}``.

    Args:
        dataset: the seed set.
        format: ``auto`` (decided by the columns, and logged), ``alpaca``, ``code_alpaca``, ``gsm8k``,
            ``messages``, ``prompt-completion`` or ``sharegpt``. Chats must have a single user turn; rows that
            don't, and rows whose instruction is null, keep their place with a null instruction.
        name: what ids begin with; by default the format. A set whose ``id`` column already holds unique ids
            that end in a dash and a position keeps them, unless a name is given.
        keep_columns: further columns to keep; an ``id`` column that isn't ours is kept as ``source_id``.

    Returns:
        A dataset with the string columns ``id``, ``instruction``, ``input`` and ``output``, and those asked for.

    Raises:
        FormatError: the format is unknown, ambiguous, or its columns are not there.
        ColumnError: a column holds something else than text, ids repeat, or a column to keep is missing.
    """
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise FormatError(
            f"to_instructions takes one Dataset, not {type(dataset).__name__}: choose a split, as in sets['train'], and "
            "load it without streaming."
        )
    columns = dataset.column_names
    if format == "auto":
        format = detect_format(columns)
        logger.info("Seed format: %s, by the columns %s", format, ", ".join(columns))
    if format not in FORMATS:
        raise FormatError(f"Unknown format {format!r}. Formats: auto, {', '.join(FORMATS)}.")
    missing = [column for column in FORMATS[format].columns if column not in columns]
    if missing:
        raise FormatError(
            f"Format {format!r} needs the column {', '.join(map(repr, missing))}. "
            f"Columns present: {', '.join(map(repr, columns))}."
        )
    unknown = [column for column in keep_columns if column not in columns]
    if unknown:
        raise ColumnError(f"Column {unknown[0]!r} to keep not found. Columns present: {', '.join(map(repr, columns))}.")
    _check_text(dataset, format)
    if name is None and col.ID in columns and _are_ours(dataset):
        name, kept = None, [column for column in keep_columns if column != col.ID]
    else:
        name, kept = name or format, list(keep_columns)
    from datasets import Features, Value

    features = {column: Value("string") for column in (col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT)}
    features |= {_kept_name(column): dataset.features[column] for column in kept}
    if not len(dataset):
        return Dataset.from_dict({name: [] for name in features}, features=Features(features))
    return dataset.map(
        _Converter(format, name, tuple(kept)),
        batched=True,
        with_indices=True,
        remove_columns=columns,
        features=Features(features),
        desc=f"Read {format}",
    )


def _kept_name(column: str) -> str:
    return f"source_{column}" if column in (col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT) else column


@dataclass(frozen=True)
class _Converter:
    """The function that `to_instructions` maps; ``name`` None keeps the ids."""

    format: str
    name: str | None
    kept: tuple[str, ...]

    def __call__(self, batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        parts = [self._read(row) for row in rows]
        ids = batch[col.ID] if self.name is None else [f"{self.name}-{index}" for index in indices]
        instructions, inputs, outputs = ([part[k] for part in parts] for k in range(3))
        texts = {col.ID: ids, col.INSTRUCTION: instructions, col.INPUT: inputs, col.OUTPUT: outputs}
        return texts | {_kept_name(column): batch[column] for column in self.kept}

    def _read(self, row: Row) -> tuple[Any, Any, Any]:
        try:
            instruction, input, output = FORMATS[self.format].read(row)
            if not all(part is None or isinstance(part, str) for part in (instruction, input, output)):
                return None, "", None
            return instruction, input, output
        except (ValueError, TypeError, KeyError):
            return None, "", None


def _check_text(dataset: Dataset, format: str) -> None:
    chats = format in ("messages", "sharegpt", "prompt-completion")
    extra = (col.INPUT,) if format in ("alpaca", "code_alpaca") and col.INPUT in dataset.features else ()
    for column in (*FORMATS[format].columns, *extra):
        if not chats and type(dataset.features[column]).__name__ not in ("Value", "Json"):
            raise ColumnError(f"Column {column!r} holds {dataset.features[column]}, not text.")
        kind = getattr(dataset.features[column], "dtype", None)
        if kind is not None and kind not in (
            "string",
            "large_string",
            "null",
            "json",
            *(("list", "dict") if chats else ()),
        ):
            raise ColumnError(
                f"Column {column!r} holds {kind}, not text. Cast it first: dataset.cast_column({column!r}, Value('string'))."
            )


def _are_ours(dataset: Dataset) -> bool:
    """Whether the ids are unique and end in a position.

    Raises:
        ColumnError: they end in a position, but repeat.
    """
    seen: dict[str, int] = {}
    repeated = None
    for place, value in enumerate(dataset[col.ID]):
        if not isinstance(value, str) or not _OUR_ID.match(value):
            return False
        if repeated is None and seen.setdefault(value, place) != place:
            repeated = (value, seen[value], place)
    if repeated:
        raise ColumnError(
            f"The id {repeated[0]!r} stands in rows {repeated[1]} and {repeated[2]}; ids must be unique. Number the rows "
            "anew with to_instructions(dataset, name=…), or drop the repeated rows."
        )
    return True


def to_training(dataset: Dataset, format: str = "messages") -> Dataset:
    """Write instruction rows in a layout that trainers read.

    Args:
        dataset: rows with ``instruction``, ``output`` and, if there, ``input``. A chat's user turn is the
            instruction and, on a new line, the input.
        format: ``alpaca`` (LLaMA-Factory), ``messages`` or ``prompt-completion`` (TRL), or ``sharegpt``.

    Raises:
        FormatError: an unknown format.
        ColumnError: a missing column, or rows without a response; select or filter those out first.
    """
    from hf_evol.transform import check_columns

    if format not in TRAINING_FORMATS:
        raise FormatError(f"Unknown training format {format!r}. Formats: {', '.join(TRAINING_FORMATS)}.")
    check_columns((col.INSTRUCTION, col.OUTPUT), dataset.column_names)
    empty = sum(not text for column in (col.INSTRUCTION, col.OUTPUT) for text in dataset[column])
    if empty:
        raise ColumnError(
            f"{empty} of the texts to train on are null or empty. Leave those rows out first: "
            "dataset.filter(lambda row: row['instruction'] and row['output'])."
        )
    if not len(dataset):
        from datasets import Dataset

        return Dataset.from_dict({name: [] for name in FORMATS[format].write("", "", "")})
    return dataset.map(_Writer(format), batched=True, remove_columns=dataset.column_names, desc=f"Write {format}")


@dataclass(frozen=True)
class _Writer:
    """The function that `to_training` maps."""

    format: str

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        inputs = batch.get(col.INPUT) or [""] * len(batch[col.INSTRUCTION])
        triples = zip(batch[col.INSTRUCTION], inputs, batch[col.OUTPUT], strict=True)
        rows = [FORMATS[self.format].write(instruction, text or "", output) for instruction, text, output in triples]
        return {name: [row[name] for row in rows] for name in rows[0]}
