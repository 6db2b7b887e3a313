from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset, Value, concatenate_datasets
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_evol.data import selection
from hf_evol.data.selection import equal_size, select
from hf_evol.errors import ColumnError, ConfigError

NAN = math.nan


def scored(*scores, **columns):
    ids = [f"a-{i}" for i in range(len(scores))]
    return Dataset.from_dict({"id": ids, "score": list(scores)} | columns)


def chosen(rows, by="score", **options):
    """The numbers at the end of the ids of the selected rows."""
    return [int(row_id.rpartition("-")[2]) for row_id in select(rows, by, **options)["id"]]


def test_the_highest_scores_are_selected_in_the_order_of_rows():
    assert chosen(scored(0.1, 0.9, 0.5, 0.7), top=2) == [1, 3]


@pytest.mark.parametrize("top", [1, 2, 3])
def test_neighbouring_rows_are_selected(top):
    assert chosen(scored(0.1, 0.7, 0.8, 0.9), top=top) == list(range(4 - top, 4))


def test_the_lowest_scores_are_selected_on_request():
    assert chosen(scored(0.1, 0.9, 0.5, 0.2), top=2, lowest=True) == [0, 3]


def test_more_rows_than_there_are_selects_all():
    assert chosen(scored(0.1, None, 0.5), top=99) == [0, 2]


@pytest.mark.parametrize("lowest", [False, True])
def test_null_and_nan_are_never_selected(lowest):
    rows = scored(None, 0.2, NAN, 0.1, None)
    assert chosen(rows, top=4, lowest=lowest) == [1, 3]
    assert chosen(rows, threshold=0.15, lowest=lowest) == ([3] if lowest else [1])


def test_only_nulls_select_nothing():
    assert chosen(scored(None, None), top=1) == []
    assert chosen(scored(NAN, NAN), top=0.5) == []


def test_an_empty_set_selects_nothing_and_keeps_its_columns():
    empty = scored(0.5).select([])
    assert select(empty, "score", top=0.5).features == scored(0.5).features


def test_ties_break_by_id():
    rows = scored(0.5, 0.5, 0.9, 0.5, id=["b-2", "b-10", "c-0", "a-3"])
    assert select(rows, "score", top=3)["id"][:] == ["b-10", "c-0", "a-3"]  # as text, "b-10" stands before "b-2"
    assert select(rows, "score", top=2, lowest=True)["id"][:] == ["b-10", "a-3"]


@pytest.mark.parametrize(("n", "top", "count"), [(4, 0.25, 1), (5, 0.25, 2), (30, 0.1, 3), (20, 0.15, 3), (1, 0.05, 1)])
def test_a_fraction_is_rounded_up(n, top, count):
    assert len(select(scored(*range(n)), "score", top=top)) == count


def test_a_fraction_counts_rows_with_a_score():
    assert chosen(scored(0.1, None, 0.9, NAN, 0.3, 0.2), top=0.5) == [2, 4]


def test_a_threshold_includes_its_own_value():
    rows = scored(0.1, 0.9, 0.5, 0.7)
    assert chosen(rows, threshold=0.5) == [1, 2, 3]
    assert chosen(rows, threshold=0.5, lowest=True) == [0, 2]
    assert chosen(rows, threshold=1.0) == []


def test_a_threshold_and_a_number_apply_together():
    rows = scored(0.1, 0.9, 0.5, 0.7)
    assert chosen(rows, threshold=0.4, top=2) == [1, 3]
    assert chosen(rows, threshold=0.8, top=2) == [1]
    assert chosen(rows, threshold=0.4, top=0.5) == [1, 3]


def test_the_best_of_each_group_are_selected():
    rows = scored(0.1, 0.9, 0.5, 0.7, 0.2, 0.3, round=[1, 2, 1, 2, 1, 1])
    assert chosen(rows, top=1, per="round") == [1, 2]
    assert chosen(rows, top=0.5, per="round") == [1, 2, 5]


def test_rows_without_a_group_are_a_group_of_their_own():
    rows = scored(0.1, 0.9, 0.5, 0.7, 0.2, method=["deepen", None, "deepen", None, "breadth"])
    assert chosen(rows, top=1, per="method") == [1, 2, 4]


def test_groups_are_found_after_concatenation():
    from datasets import concatenate_datasets

    parts = [scored(0.1, 0.9, round=[k, k], id=[f"a-{2 * k}", f"a-{2 * k + 1}"]) for k in range(3)]
    assert chosen(concatenate_datasets(parts), top=1, per="round") == [1, 3, 5]


def test_a_selected_and_shuffled_dataset_is_read_as_it_is_seen():
    rows = scored(*[k / 10 for k in range(10)])
    reordered = rows.select([9, 0, 5, 3, 7])
    assert chosen(reordered, top=2) == [9, 7]
    shuffled = rows.shuffle(seed=1)
    assert chosen(shuffled, top=3) == [number for number in (int(i[2:]) for i in shuffled["id"]) if number >= 7]


@pytest.mark.parametrize("kind", ["int8", "int64", "float32", "uint16", "bool"])
def test_any_number_is_a_score(kind):
    assert chosen(scored(0, 1, 0, 1).cast_column("score", Value(kind)), top=2) == [1, 3]


def test_the_argument_is_left_alone():
    rows = scored(0.1, 0.9)
    select(rows, "score", top=1)
    assert rows.to_list() == [{"id": "a-0", "score": 0.1}, {"id": "a-1", "score": 0.9}]


def test_a_fraction_of_one_is_all_rows_and_the_number_one_is_one():
    rows = Dataset.from_dict({"id": ["a-0", "a-1", "a-2"], "ic_ifd": [0.2, None, 0.4]})
    assert select(rows, top=1.0)["id"][:] == ["a-0", "a-2"]
    assert select(rows, top=1)["id"][:] == ["a-2"]


@pytest.mark.parametrize("top", [0, -1, 1.5, NAN, math.inf, -0.5])
def test_a_number_of_rows_out_of_range_is_refused(top):
    with pytest.raises(ConfigError, match=r"top must be a fraction up to 1\.0, or a whole number"):
        select(scored(0.1), "score", top=top)


def test_nothing_to_select_by_is_refused():
    with pytest.raises(ConfigError, match=r"needs top=.* or threshold="):
        select(scored(0.1), "score")


@pytest.mark.parametrize(
    ("options", "name"), [({"by": "reward"}, "reward"), ({"by": "score", "per": "method"}, "method")]
)
def test_a_missing_column_is_named(options, name):
    with pytest.raises(ColumnError, match=f"'{name}' not found.*'id', 'score'"):
        select(scored(0.1), top=1, **options)


def test_rows_without_ids_are_refused():
    with pytest.raises(ColumnError, match=r"'id' not found.*to_instructions"):
        select(scored(0.1).remove_columns("id"), "score", top=1)


@pytest.mark.parametrize("values", [["good", "bad"], [[0.1], [0.2]], [{"a": 1}, {"a": 2}]], ids=repr)
def test_a_column_that_holds_no_numbers_is_refused(values):
    with pytest.raises(ColumnError, match="'score'"):
        select(scored(*values), "score", top=1)


def reference(rows, top, threshold, lowest, grouped):
    """The definition of `select`, row by row."""
    usable = [row for row in rows if row["score"] is not None and not math.isnan(row["score"])]
    if threshold is not None:
        usable = [row for row in usable if (row["score"] <= threshold if lowest else row["score"] >= threshold)]
    groups = {}
    for row in sorted(usable, key=lambda row: (row["score"] if lowest else -row["score"], row["id"])):
        groups.setdefault(row["group"] if grouped else None, []).append(row["id"])
    kept = set()
    for ids in groups.values():
        count = len(ids) if top is None else math.ceil(Fraction(str(top)) * len(ids)) if top < 1 else top
        kept |= set(ids[:count])
    return [row["id"] for row in rows if row["id"] in kept]


SCORES = st.one_of(st.none(), st.just(NAN), st.sampled_from([-1.0, 0.0, -0.0, 0.25, 0.5, 1e300]), st.integers(-3, 3))
ROWS = st.lists(st.tuples(st.integers(0, 99), SCORES, st.sampled_from([None, "x", "y"])), unique_by=lambda row: row[0])
TOPS = st.one_of(st.none(), st.integers(1, 8), st.sampled_from([0.05, 0.1, 0.15, 0.25, 0.3, 0.5, 0.7, 0.99]))
TYPES = {"id": "string", "score": "float64", "group": "string"}


@settings(max_examples=150, deadline=None, database=None)
@given(ROWS, TOPS, st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.25, 2.0])), st.booleans(), st.booleans())
@example([(0, 1.0, None), (1, 1.0, None), (2, 0.0, None)], 1, None, False, False)
def test_select_agrees_with_its_definition(triples, top, threshold, lowest, grouped):
    from datasets import Features

    if top is None and threshold is None:
        threshold = 0.0
    rows = [
        {"id": f"a-{i}", "score": None if score is None else float(score), "group": group}
        for i, score, group in triples
    ]
    columns = {name: [row[name] for row in rows] for name in TYPES}
    dataset = Dataset.from_dict(columns, features=Features({name: Value(kind) for name, kind in TYPES.items()}))
    selected = select(dataset, "score", top=top, threshold=threshold, lowest=lowest, per="group" if grouped else None)
    assert selected["id"][:] == reference(rows, top, threshold, lowest, grouped)
    assert selected.features == dataset.features


def numbered(n):
    return Dataset.from_dict({"n": list(range(n)), "id": [f"a-{place}" for place in range(n)]})


def test_the_larger_set_is_cut_to_the_size_of_the_smaller_in_order():
    small, large = equal_size(numbered(3), numbered(50), seed=1)
    assert small["n"][:] == [0, 1, 2]
    assert len(large) == 3
    assert large["n"][:] == sorted(set(large["n"]))
    swapped = equal_size(numbered(50), numbered(3), seed=1)
    assert (swapped[0]["n"][:], swapped[1]["n"][:]) == (large["n"][:], [0, 1, 2])


def test_the_seed_decides_the_choice():
    picks = [tuple(equal_size(numbered(5), numbered(1000), seed=seed)[1]["n"]) for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]


def test_the_choice_depends_on_the_ids_alone():
    rows = numbered(100)
    kept, shuffled = (equal_size(numbered(10), each)[1]["id"][:] for each in (rows, rows.shuffle(seed=3)))
    assert sorted(kept) == sorted(shuffled)
    part = equal_size(numbered(10), rows.select(range(20, 100)))[1]["id"][:]
    assert {row_id for row_id in kept if int(row_id[2:]) >= 20} <= set(part)


def test_sets_of_one_size_or_none_are_left_alone():
    assert [rows["n"][:] for rows in equal_size(numbered(2), numbered(2))] == [[0, 1], [0, 1]]
    assert [len(rows) for rows in equal_size(numbered(0), numbered(2))] == [0, 0]


BUILD = """
import sys
import numpy as np, pyarrow as pa
from datasets import Dataset

n, chunk = 2_000_000, 100_000
text = pa.array(["an instruction of a usual length, which select has no need to look at"] * chunk)
noise = np.random.default_rng(0)
batches = [
    pa.record_batch({
        "id": pa.array([f"alpaca-{i}" for i in range(start, start + chunk)]),
        "instruction": text,
        "ic_ifd": pa.array(noise.random(chunk)),
        "round": pa.array(np.arange(start, start + chunk) % 3),
    })
    for start in range(0, n, chunk)
]
Dataset(pa.Table.from_batches(batches)).save_to_disk(sys.argv[1])
"""
MEASURE = """
import re, resource, sys
from pathlib import Path
from datasets import load_from_disk
from hf_evol.data.selection import select

def peak():
    # getrusage counts the memory of the process that started this one too, so the kernel's own mark comes first.
    status = Path("/proc/self/status")
    mark = re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else None
    return int(mark or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024

rows, before = load_from_disk(sys.argv[1]), peak()
print(len(select(rows, top=0.25, per="round")), peak() - before)
"""


def run_python(code, *arguments):
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, check=True).stdout


@pytest.mark.slow
def test_ten_million_rows_would_take_less_than_two_gib(tmp_path):
    """Memory grows with the rows; here are a fifth of them."""
    run_python(BUILD, tmp_path / "rows")
    n_selected, grown = run_python(MEASURE, tmp_path / "rows").split()
    assert 500_000 <= int(n_selected) <= 500_002
    assert int(grown) < 2 * 2**30 / 5


@pytest.mark.parametrize("block", [1, 3, 10_000])
def test_a_selected_column_is_gathered_in_the_order_of_the_selection(monkeypatch, block):
    monkeypatch.setattr(selection, "_BLOCK", block)
    parts = [Dataset.from_dict({"text": [f"{part}-{place}" for place in range(5)]}) for part in range(3)]
    whole = concatenate_datasets(parts)
    for places in ([], [0], [4, 5, 6, 14], [14, 3, 3, 9, 0], list(range(15)), list(range(14, -1, -1))):
        rows = whole.select(places)
        assert selection.column(rows, "text").to_pylist() == [whole["text"][place] for place in places]
        assert selection.gathered(rows)["text"][:] == rows["text"][:]


def test_a_selected_column_may_hold_more_text_than_arrow_puts_together():
    part = pa.array(["x" * 1_500_000] * 500)  # three of these in one array are over 2 GiB
    whole = Dataset(pa.table({"text": pa.chunked_array([part] * 3)}), fingerprint="large")
    rows = whole.select([1, 700, 1400])
    assert [len(text) for text in selection.column(rows, "text").to_pylist()] == [1_500_000] * 3
