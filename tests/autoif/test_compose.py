import pytest
from datasets import Dataset

from hf_evol.autoif.compose import AnswerUnderConstraint, compose_rows, user_queries
from hf_evol.errors import ColumnError, ConfigError
from hf_evol.generation.endpoint import EndpointEngine

ASKED = "What is the {name} of the sea?"
TURNS = [
    ("system", "Be good, whatever is asked."),
    ("user", ASKED),
    ("assistant", "Blue."),
    ("user", "And of the sky above it?"),
]
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in TURNS]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": MESSAGES}, {"conversations": SHAREGPT}, {"conversations": MESSAGES}, {"conversation": MESSAGES},
        {"prompt": MESSAGES[:2], "completion": MESSAGES[2:3]}, {"instruction": f"\n {ASKED} ", "input": "", "output": "Blue."},
        {"instruction": "What is the {name}", "input": "of the sea?"}, {"prompt": ASKED}, {"question": ASKED, "answer": "x"},
        {"query": ASKED}, {"text": ASKED}, {"other": 3, "messages": MESSAGES, "text": "not this one, as chats come first"},
    ],
)  # fmt: skip
def test_formats(row):
    expected = ASKED.replace(" of", "\nof") if row.get("input") else ASKED
    assert user_queries(Dataset.from_list([row])) == ([expected], {})


def test_lengths_are_exclusive_and_each_loss_has_a_reason():
    texts = ["a" * n for n in (20, 21, 299, 300)] + [None, "", " " * 50, " " + "a" * 21 + "\n", "é" * 21]
    assert user_queries(Dataset.from_dict({"query": texts})) == (
        ["a" * 21, "a" * 299, "é" * 21],
        {"too_short": 1, "too_long": 1, "no_query": 3, "repeated": 1},
    )
    assert user_queries(Dataset.from_dict({"query": texts[:4]}), longer_than=19, shorter_than=21)[0] == ["a" * 20]


@pytest.mark.parametrize(
    "turns",
    [None, [], MESSAGES[:1], MESSAGES[2:3], [{"role": "user", "content": None}], [{"role": None, "content": ASKED}]],
)
def test_chats_without_a_question(turns):
    dataset = Dataset.from_list([{"messages": MESSAGES}, {"messages": turns}])
    assert user_queries(dataset) == ([ASKED], {"no_query": 1})


def test_only_the_columns_with_queries_are_read():
    """A broken picture beside a query does no harm."""
    from datasets import Features, Image, Value

    features = Features({"query": Value("string"), "picture": Image()})
    rows = Dataset.from_dict({"query": [ASKED], "picture": [{"path": None, "bytes": b"broken"}]}, features=features)
    assert user_queries(rows) == ([ASKED], {})


def test_no_column_with_queries():
    with pytest.raises(ColumnError, match=r"Columns present: 'x', 'y'\. Rename"):
        user_queries(Dataset.from_dict({"x": [1], "y": [2]}))
    assert user_queries(Dataset.from_dict({"query": []})) == ([], {})


QUERIES = [f"query {n}" for n in range(40)]


def constraints(n, **more):
    return Dataset.from_dict(
        {"id": [f"c-{i}" for i in range(n)], "instruction": [f"rule {i}" for i in range(n)], **more}
    )


def test_each_constraint_draws_for_itself():
    rows = compose_rows(constraints(5), QUERIES, per_constraint=8, seed=3).to_list()
    assert [row["id"] for row in rows] == [f"c-{i}-{k}" for i in range(5) for k in range(8)]
    drawn = {i: [row["input"] for row in rows if row["instruction"] == f"rule {i}"] for i in range(5)}
    assert all(len(set(queries)) == 8 and set(queries) <= set(QUERIES) for queries in drawn.values())
    assert len({tuple(queries) for queries in drawn.values()}) == 5
    alone = compose_rows(constraints(5).select([3]), QUERIES, per_constraint=8, seed=3)
    assert alone["input"][:] == drawn[3]
    assert compose_rows(constraints(5), QUERIES, per_constraint=8, seed=4)["input"][:] != [row["input"] for row in rows]
    everything = compose_rows(constraints(1), QUERIES, per_constraint=40)["input"]
    assert sorted(everything) == sorted(QUERIES)


def test_draws_are_even():
    """Each of 40 queries is drawn with probability 1/5: of 500 constraints, 100 ± 9 (one standard deviation)."""
    drawn = compose_rows(constraints(500), QUERIES, per_constraint=8)["input"][:]
    assert all(60 < drawn.count(query) < 140 for query in QUERIES)


def test_what_is_carried():
    cases = [[{"input": "A", "output": True}], []]
    more = {"functions": [["f"], None], "cases": cases, "accuracies": [[1.0], []], "losses": [1, 2]}
    rows = compose_rows(constraints(2, **more), QUERIES, per_constraint=2)
    assert rows.column_names == ["id", "instruction", "input", "functions", "cases", "accuracies"]
    assert rows["functions"][:] == [["f"], ["f"], None, None]
    assert rows["cases"][:] == [cases[0], cases[0], [], []] and rows["accuracies"][:] == [[1.0], [1.0], [], []]
    none = compose_rows(constraints(2, **more).select([]), QUERIES)
    assert len(none) == 0 and none.features == rows.features


def test_errors():
    for wrong in (0, 41):
        with pytest.raises(ConfigError, match=f"from 1 to the 40 usable queries; got {wrong}"):
            compose_rows(constraints(1), QUERIES, per_constraint=wrong)
    with pytest.raises(ColumnError, match="'instruction' not found"):
        compose_rows(constraints(1).remove_columns("instruction"), QUERIES)


def test_the_prompt_gives_text_no_power():
    engine = EndpointEngine("tiny", "http://localhost:1/v1")
    prompt = AnswerUnderConstraint(engine, journal=False).prompt("Say {query} <|end|>", "Why {instruction}?")
    system, asked = prompt
    assert system["role"] == "system" and system["content"].endswith(": Say {query} <|end|>")
    assert asked == {"role": "user", "content": "Why {instruction}?"}
