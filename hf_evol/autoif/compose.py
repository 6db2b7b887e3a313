"""Rows of a constraint and a user's query, and answers under the constraint (the paper's Scenario 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value

from hf_evol import columns as col
from hf_evol.data.chats import Unreadable, read_turns
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.evolve.respond import Respond
from hf_evol.generation.base import Chat
from hf_evol.generation.sampling import request_seed, row_key
from hf_evol.prompts.autoif import answer_prompt
from hf_evol.transform import check_columns

_CARRIED = (col.FUNCTIONS, col.CASES, col.ACCURACIES)
_TURNS = ("messages", "conversations", "conversation")
_TEXTS = ("instruction", "prompt", "question", "query", "text")


@dataclass(frozen=True, kw_only=True)
class AnswerUnderConstraint(Respond):
    """Answer each row's query, its ``input``, strictly under its constraint, its ``instruction``; else as `Respond`."""

    def prompt(self, instruction: str, input: str | None, context: Chat | None = None) -> Chat:
        return answer_prompt(instruction, input or "")


def user_queries(dataset: Dataset, *, longer_than: int = 20, shorter_than: int = 300) -> tuple[list[str], Counter[str]]:
    """The queries that users ask in a dataset, each once, and how many rows were left out for which reason.

    Args:
        dataset: chats in ``messages``, ``conversations`` or ``conversation``, with turns of ``role`` and ``content`` or
            of ``from`` and ``value``, as `hf_evol.to_instructions` reads them (their first user turn counts), or texts in ``instruction`` (with ``input``, on a new
            line), ``prompt``, ``question``, ``query`` or ``text``.
        longer_than, shorter_than: characters; 20 and 300 in the paper.

    Returns:
        The queries in their order; and counts of ``no_query``, ``too_short``, ``too_long`` and ``repeated``.

    Raises:
        ColumnError: none of those columns is there.
    """
    name = next((name for name in (*_TURNS, *_TEXTS) if name in dataset.column_names), None)
    if name is None:
        raise ColumnError(
            f"No column with queries. Columns present: {', '.join(map(repr, dataset.column_names))}. Rename the right one "
            "with dataset.rename_column(…, 'query')."
        )
    found: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for row in dataset.select_columns([each for each in (name, col.INPUT) if each in dataset.column_names]):
        query = _query(row, name)
        if longer_than < len(query) < shorter_than:
            found[query] += 1
        else:
            lost["no_query" if not query else "too_short" if len(query) <= longer_than else "too_long"] += 1
    return list(found), lost + Counter(repeated=found.total() - len(found))


def _query(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if name in _TURNS or isinstance(value, list):
        try:
            value = next((turn["content"] for turn in read_turns(value) if turn["role"] == "user"), None)
        except Unreadable:
            value = None
    elif name == col.INSTRUCTION and isinstance(value, str) and isinstance(row.get(col.INPUT), str) and row[col.INPUT]:
        value = f"{value}\n{row[col.INPUT]}"
    return value.strip() if isinstance(value, str) else ""


def compose_rows(constraints: Dataset, queries: list[str], *, per_constraint: int = 16, seed: int = 0) -> Dataset:
    """Pair each constraint with queries drawn at random.

    Which queries a constraint gets depends on the seed, its id and the list of queries, not on the other constraints.

    Args:
        constraints: rows with ``id`` and ``instruction``, and, if there, ``functions``, ``cases``, ``accuracies``.
        queries: of `user_queries`.
        per_constraint: how many each gets, without repetition; 16 in the paper.
        seed: of the choice.

    Returns:
        Rows with ``id`` (the constraint's, a dash and a number), ``instruction`` (the constraint), ``input`` (the query)
        and the columns carried along.

    Raises:
        ConfigError: ``per_constraint`` is under 1, or over the number of queries.
        ColumnError: a missing column.
    """
    if not 1 <= per_constraint <= len(queries):
        raise ConfigError(
            f"per_constraint must be from 1 to the {len(queries)} usable queries; got {per_constraint!r}."
        )
    check_columns((col.ID, col.INSTRUCTION), constraints.column_names)
    carried = [name for name in _CARRIED if name in constraints.column_names]
    ids, inputs = [], []
    for row_id in constraints[col.ID]:
        generator = np.random.default_rng(request_seed(row_key(seed, str(row_id), 0, "compose")))
        ids += [f"{row_id}-{k}" for k in range(per_constraint)]
        inputs += [queries[place] for place in generator.choice(len(queries), per_constraint, replace=False)]
    rows = constraints.select(np.repeat(np.arange(len(constraints)), per_constraint))
    features = dict.fromkeys((col.ID, col.INSTRUCTION, col.INPUT), Value("string"))
    features |= {name: constraints.features[name] for name in carried}
    columns = {col.ID: ids, col.INSTRUCTION: rows[col.INSTRUCTION], col.INPUT: inputs}
    columns |= {name: rows[name] for name in carried}
    return Dataset.from_dict(columns, features=Features(features))
