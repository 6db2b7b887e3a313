"""Seed sets in, training sets out."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, Features, Json, LargeList, List, Value

from hf_evol import columns as col
from hf_evol.data.chats import Seed, Turns, Unreadable, read_chat, read_text, read_turns
from hf_evol.errors import ColumnError, FormatError
from hf_evol.transform import Batch, check_columns, values_of

logger = logging.getLogger(__name__)

Row = dict[str, Any]
# What stands in the input of rows that have none.
_NO_INPUT = frozenset(
    ("no input", "noinput", "no_input", "no input required", "no input needed", "n/a", "na", "none", "not applicable")
)
_OUR_ID = re.compile(r".+-\d+\Z", re.DOTALL)
# Names of columns, of which the first that holds something counts; of an input, all that do.
_INPUT, _ANSWER, _COMPLETION = "input|context", "output|response", "completion|response"
_SYSTEM, _HISTORY, _TOOLS = "system|system_prompt", "history", "tools"
_MAY_ANSWER = re.compile(r"(?i)answer|output|response|completion|solution|target|chosen|reference|label|reply|\Atext\Z")
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_NO_TOOLS = ("", "[]", "{}", "null")


@dataclass(frozen=True)
class Format:
    """One layout of instruction data.

    Args:
        columns: what a dataset of this format has, of names with a bar between them one. The first column asks, and must be
            there.
        read: one row to what it asks, or `Unreadable`.
        write: instruction, input, output and the turns before to one row; None where trainers don't read it.
        is_chat: whether the columns hold turns.
    """

    columns: tuple[str, ...]
    read: Callable[[Row], Seed]
    write: Callable[[str, str, str, Turns], Row] | None
    is_chat: bool = True

    def missing(self, columns: Sequence[str] = ()) -> list[str]:
        """In words, those that a dataset with these columns lacks."""
        lacking = [names.split("|") for names in self.columns]
        return [" or ".join(names) for names in lacking if not set(names) & set(columns)]


def _value(row: Row, names: str) -> tuple[Any, str]:
    """The value of the first of these columns that holds something, and its name."""
    found = [(row[name], name) for name in names.split("|") if name in row]
    return next((pair for pair in found if pair[0] not in (None, "", [])), found[0] if found else (None, ""))


def _texts(instruction: str, output: str, input: str = "") -> Callable[[Row], Seed]:
    """What reads rows with a column for each text."""

    def read(row: Row) -> Seed:
        asked = read_text(row[instruction], instruction, plain=True)
        given = "\n".join(filter(None, (read_text(row[name], name) for name in input.split("|") if name in row)))
        if given.strip().strip("<>[]().").casefold() in _NO_INPUT:
            given = ""
        try:
            return Seed(asked, given, read_text(*_value(row, output)))
        except Unreadable as error:
            return Seed(asked, given, None, status=str(error).replace("not_text", "odd_answer"))

    return read


def _read_alpaca(row: Row) -> Seed:
    ours = isinstance(row.get(col.CONTEXT), list)
    seed = _texts(col.INSTRUCTION, _ANSWER, col.INPUT if ours else _INPUT)(row)
    return seed._replace(context=read_turns(row[col.CONTEXT])) if ours else seed


def _write_alpaca(instruction: str, input: str, output: str, context: Turns) -> Row:
    """LLaMA-Factory's columns, ``system`` and ``history`` among them."""
    system = "\n".join(turn["content"] for turn in context if turn["role"] == "system")
    spoken = [turn for turn in context if turn["role"] != "system"]
    if [turn["role"] for turn in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ColumnError(
            f"The turns before {instruction[:80]!r} are not pairs of question and answer, which format 'alpaca' needs. Take "
            "'messages', or leave such rows out."
        )
    history = [[spoken[k]["content"], spoken[k + 1]["content"]] for k in range(0, len(spoken), 2)]
    row = {col.INSTRUCTION: instruction, col.INPUT: input, col.OUTPUT: output}
    return row | {"system": system, "history": history}


def _chat(instruction: str, input: str, output: str, context: Turns) -> Turns:
    asked = f"{instruction}\n{input}" if input else instruction
    return [*context, {"role": "user", "content": asked}, {"role": "assistant", "content": output}]


def _write_sharegpt(*parts: Any) -> Row:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in _chat(*parts)]}


def _read_prompt_completion(row: Row) -> Seed:
    answer, _ = _value(row, _COMPLETION)
    if row["prompt"] is None or isinstance(row["prompt"], str):
        return _texts("prompt", _COMPLETION, _INPUT)(row)
    return read_chat(row["prompt"], answer)


def _write_prompt_completion(*parts: Any) -> Row:
    *prompt, answer = _chat(*parts)
    return {"prompt": prompt, "completion": [answer]}


_ALPACA = Format((col.INSTRUCTION, _ANSWER), _read_alpaca, _write_alpaca, is_chat=False)
FORMATS: dict[str, Format] = {
    "alpaca": _ALPACA,
    "code_alpaca": _ALPACA,
    "gsm8k": Format(
        ("question", "answer|response"),
        _texts("question", "answer|response", "input|context|choices|options"),
        None,
        is_chat=False,
    ),
    "messages": Format(
        ("messages",), lambda row: read_chat(row["messages"]), lambda *parts: {"messages": _chat(*parts)}
    ),
    "prompt-completion": Format(("prompt", _COMPLETION), _read_prompt_completion, _write_prompt_completion),
    "sharegpt": Format(("conversations",), lambda row: read_chat(row["conversations"]), _write_sharegpt),
}
_SAME_COLUMNS = {"code_alpaca": "alpaca"}  # differs in name only, so "auto" says alpaca
TRAINING_FORMATS = ("alpaca", "messages", "prompt-completion", "sharegpt")


def detect_format(columns: Sequence[str]) -> str:
    """The one format whose columns a dataset has; or, where no column can hold answers, whose column that asks.

    Raises:
        FormatError: none fits, or several do.
    """
    forms = {name: form for name, form in FORMATS.items() if name not in _SAME_COLUMNS}
    fitting = [name for name, form in forms.items() if not form.missing(columns)]
    if not fitting and not any(map(_MAY_ANSWER.search, columns)):
        fitting = [name for name, form in forms.items() if form.columns[0] in columns]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{name}: {', '.join(form.missing())}" for name, form in FORMATS.items())
    problem = f"fits several formats ({', '.join(fitting)})" if fitting else "fits no known format"
    raise FormatError(
        f"A dataset with the columns {', '.join(map(repr, columns))} {problem}. Formats and their columns: {listed}. "
        "Name one with format= (--format on the command line), or the columns with columns={'yours': 'instruction', …} "
        "(--columns yours=instruction,…)."
    )


def to_instructions(
    dataset: Dataset,
    format: str = "auto",
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    keep_columns: Sequence[str] = (),
) -> Dataset:
    """Bring a seed set into the columns that the transforms read.

    A row before, as gsm8k: ``{"question": "How many …?", "answer": "3 …"}``; and after:
    ``{"id": "gsm8k-0", "instruction": "How many …?", "input": "", "output": "3 …"}``.

    Of a chat, the last user turn is the instruction and what follows is the output; the turns before, the system's among
    them, are the context, as are the columns ``system`` (or ``system_prompt``) and ``history`` of any format. Turns may have
    ``role`` and ``content`` or ``from`` and ``value``, the roles' usual names, contents in text parts, and be stored as
    JSON text. Rows need no answers: without a column of them, which is logged as a warning, outputs are null. Outputs and inputs
    that are numbers, or lists of texts and numbers (one line each), become text.

    Args:
        dataset: the seed set.
        format: ``auto`` (decided by the columns, and logged), ``alpaca`` (Dolly's columns among it), ``code_alpaca``,
            ``gsm8k``, ``messages``, ``prompt-completion`` or ``sharegpt``.
        name: what ids begin with; by default the set's name with its config and split, as far as it has them, or the
            format. A set whose ``id`` column already holds unique ids that end in a dash and a position keeps them, unless a
            name is given.
        columns: columns to rename before, old name to new.
        keep_columns: further columns to keep; one whose name is taken, such as ``id``, is kept as ``source_id``.

    Returns:
        A dataset with the string columns ``id``, ``instruction``, ``input`` and ``output``, and those asked for. If a row has
        any, ``context``: the turns before the instruction, as a list of ``{"role", "content"}``. If a row can't be read whole,
        ``read_status``: ``ok``; ``odd_answer: …`` (only the output is null, as it was no text); or why the instruction is null:
        ``no_instruction``, ``no_user_turn: …``, ``odd_turns: …``, ``not_text: …``, ``tool_call`` or ``tools`` (the
        row needs tools). Every row keeps its place.

    Raises:
        FormatError: the format is unknown, ambiguous, or its columns are not there.
        ColumnError: a column holds something else than text, ids repeat, or a column to rename or keep is missing.
    """
    if not isinstance(dataset, Dataset):
        raise FormatError(
            f"to_instructions takes one Dataset, not {type(dataset).__name__}: choose a split, as in sets['train'], and "
            "load it without streaming."
        )
    dataset = _renamed(dataset.with_format(None), columns or {})
    present = dataset.column_names
    if format == "auto":
        format = detect_format(present)
        logger.info("Seed format: %s, by the columns %s", format, ", ".join(present))
    if format not in FORMATS:
        raise FormatError(f"Unknown format {format!r}. Formats: auto, {', '.join(FORMATS)}.")
    if missing := FORMATS[format].missing(present):
        there = f"Columns present: {', '.join(map(repr, present))}."
        if FORMATS[format].columns[0] not in present or any(map(_MAY_ANSWER.search, present)):
            raise FormatError(f"Format {format!r} needs the column {', '.join(missing)}. {there}")
        logger.warning("The rows have no answers, as there is no column %s. %s", ", ".join(missing), there)
    _check_present(keep_columns, present, "keep")
    _check_text(dataset, FORMATS[format])
    kept = list(keep_columns)
    if name is None and col.ID in present and _are_ours(dataset):
        kept = [column for column in kept if column != col.ID]
    else:
        name = name or _name(dataset) or format
    labels = {name: kind.names for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)}
    features = {column: Value("string") for column in (col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT)}
    features |= {col.CONTEXT: [{"role": Value("string"), "content": Value("string")}], col.READ_STATUS: Value("string")}
    features = Features(features | {_kept_name(column): dataset.features[column] for column in kept})
    if not len(dataset):
        rows = Dataset.from_dict({column: [] for column in features}, features=features)
    else:
        rows = dataset.map(
            _converted,
            batched=True,
            fn_kwargs={"format": format, "name": name, "kept": kept, "labels": labels},
            with_indices=True,
            remove_columns=present,
            features=features,
            desc=f"Read {format}",
        )
    unused = [col.CONTEXT] if rows.data[col.CONTEXT].null_count == len(rows) else []
    return rows.remove_columns([*unused, *([] if unread(rows) else [col.READ_STATUS])])


def unread(rows: Dataset) -> Counter[str]:
    """How many rows of `to_instructions` could not be read whole, by reason."""
    statuses = values_of(rows, col.READ_STATUS) if col.READ_STATUS in rows.column_names else ()
    return Counter(col.reason(status) for (status,) in statuses if status != col.OK)


def _renamed(dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    _check_present(list(columns), dataset.column_names, "rename")
    replaced = [new for old, new in columns.items() if new in dataset.column_names and new not in columns]
    return dataset.remove_columns(replaced).rename_columns({old: new for old, new in columns.items() if old != new})


def _check_present(names: Sequence[str], present: Sequence[str], what: str) -> None:
    if unknown := [name for name in names if name not in present]:
        raise ColumnError(
            f"Column {unknown[0]!r} to {what} not found. Columns present: {', '.join(map(repr, present))}."
        )


def _name(dataset: Dataset) -> str | None:
    """What a set is called, with its config and split; None where it has no name."""
    info = dataset.info
    if not info.dataset_name or info.dataset_name == info.builder_name:  # "json" and the like
        return None
    further = [str(part) for part in (info.config_name, dataset.split) if part]
    return "-".join(
        [info.dataset_name, *(part for part in further if part != "train" and not part.startswith("default"))]
    )


def _kept_name(column: str) -> str:
    ours = (col.ID, col.INSTRUCTION, col.INPUT, col.OUTPUT, col.CONTEXT, col.READ_STATUS)
    return f"source_{column}" if column in ours else column


def _converted(
    batch: Batch, indices: list[int], format: str, name: str | None, kept: Sequence[str], labels: dict[str, list[str]]
) -> Batch:
    """What `to_instructions` maps; ``name`` None keeps the ids, and ``labels`` are names of classes."""
    named = {
        column: [None if value is None or value < 0 else names[value] for value in batch[column]]
        for column, names in labels.items()
    }
    columns = {**batch, **named}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    seeds = [_read(row, FORMATS[format]) for row in rows]
    ids = batch[col.ID] if name is None else [f"{name}-{index}" for index in indices]
    out = {col.ID: ids} | {_kept_name(column): batch[column] for column in kept}
    return out | {
        col.INSTRUCTION: [seed.instruction for seed in seeds],
        col.INPUT: [seed.input for seed in seeds],
        col.OUTPUT: [seed.output for seed in seeds],
        col.CONTEXT: [seed.context or None for seed in seeds],
        col.READ_STATUS: [seed.status for seed in seeds],
    }


def _read(row: Row, form: Format) -> Seed:
    try:
        if (tools := row.get(_TOOLS)) and not (isinstance(tools, str) and tools.strip() in _NO_TOOLS):
            raise Unreadable("tools")
        if seen := [name for name in _MEDIA if row.get(name)]:
            raise Unreadable(f"not_text: the column {seen[0]!r} belongs to the row")
        seed = form.read(row)
        context = [*_before(row), *seed.context]
        status = seed.status if (seed.instruction or "").strip() else "no_instruction"
        return seed._replace(context=context, status=status)
    except Unreadable as error:
        return Seed(None, "", None, status=str(error))


def _before(row: Row) -> Turns:
    """The turns in columns of their own."""
    system = read_text(*_value(row, _SYSTEM), plain=True)
    history = row.get(_HISTORY)
    if isinstance(history, list) and history and isinstance(history[0], Mapping) and "parent" in history[0]:
        history = None  # what an evolver did in each round
    return [*([{"role": "system", "content": system}] if system else []), *read_turns(history)]


def _check_text(dataset: Dataset, form: Format) -> None:
    if form.is_chat:
        return
    asked = form.columns[0]
    for column in (name for names in (*form.columns, _INPUT) for name in names.split("|")):
        kind = dataset.features.get(column)
        dtype = getattr(kind, "dtype", None)
        text = kind is None or isinstance(kind, Json) or dtype in ("string", "large_string", "null")
        numbers = str(dtype).startswith(("int", "uint", "float", "bool")) or isinstance(kind, (List, LargeList))
        if not text and (column == asked or not numbers):
            raise ColumnError(
                f"Column {column!r} holds {dtype or kind}, not text. Cast it first: "
                f"dataset.cast_column({column!r}, Value('string')). Or have it left out, by another name: "
                f"columns={{{column!r}: 'unused'}} (--columns {column}=unused)."
            )


def _are_ours(dataset: Dataset) -> bool:
    """Whether the ids are unique and end in a position.

    Raises:
        ColumnError: they end in a position, but repeat.
    """
    ids = dataset[col.ID][:]
    if not all(isinstance(row_id, str) and _OUR_ID.match(row_id) for row_id in ids):
        return False
    seen: dict[str, int] = {}
    for place, row_id in enumerate(ids):
        if seen.setdefault(row_id, place) != place:
            raise ColumnError(
                f"The id {row_id!r} stands in rows {seen[row_id]} and {place}; ids must be unique. Number the rows anew with "
                "to_instructions(dataset, name=…), or drop the repeated rows."
            )
    return True


def to_training(dataset: Dataset, format: str = "messages") -> Dataset:
    """Write instruction rows in a layout that trainers read.

    Args:
        dataset: rows with ``instruction``, ``output`` and, if there, ``input`` and ``context``. A chat's user turn is the
            instruction and, on a new line, the input; the turns of the context stand before it.
        format: ``alpaca`` (LLaMA-Factory; where there is a ``context``, with its columns ``system`` and ``history``),
            ``messages`` or ``prompt-completion`` (TRL), or ``sharegpt``.

    Raises:
        FormatError: an unknown format.
        ColumnError: a missing column, or rows without a response; select or filter those out first. Turns in ``context`` that
            ``alpaca`` can't hold.
    """
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
        row = {name: [None] for name in dataset.column_names} | {col.INSTRUCTION: [""], col.OUTPUT: [""]}
        return Dataset.from_dict({name: [] for name in _written(row, format)})
    features = None
    if format == "alpaca" and col.CONTEXT in dataset.column_names:
        texts = (col.INSTRUCTION, col.INPUT, col.OUTPUT, "system")
        features = Features(dict.fromkeys(texts, Value("string")) | {"history": List(List(Value("string")))})
    return dataset.with_format(None).map(
        _written,
        batched=True,
        fn_kwargs={"format": format},
        remove_columns=dataset.column_names,
        features=features,
        desc=f"Write {format}",
    )


def _written(batch: Batch, format: str) -> Batch:
    """What `to_training` maps."""
    nothing = [None] * len(batch[col.INSTRUCTION])
    inputs, contexts = batch.get(col.INPUT, nothing), batch.get(col.CONTEXT, nothing)
    parts = zip(batch[col.INSTRUCTION], inputs, batch[col.OUTPUT], contexts, strict=True)
    write = FORMATS[format].write
    rows = [write(asked, given or "", answer, context or []) for asked, given, answer, context in parts]
    names = [name for name in rows[0] if col.CONTEXT in batch or name not in ("system", "history")]
    return {name: [row[name] for row in rows] for name in names}
