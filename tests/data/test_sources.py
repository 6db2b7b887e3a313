import json
import re

import pytest
from datasets import Dataset
from hub_server import HubServer

from hf_evol.data.formats import to_instructions
from hf_evol.data.sources import load_seeds
from hf_evol.errors import SourceError

CARD = """---
configs:
- config_name: rows
  data_files:
  - split: train
    path: rows/*.parquet
  default: true
- config_name: dropped
  data_files:
  - split: train
    path: dropped/*.parquet
---
"""


def write(folder, value):
    for name in ("rows", "dropped"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"x": [f"{name} {value}"]}).to_parquet(folder / name / "train.parquet")
    (folder / "README.md").write_text(CARD, encoding="utf-8")


def test_a_folder_is_read_as_it_is_now(tmp_path):
    """Not as another one of its name, nor as before it was overwritten."""
    for place, value in (("one", 1), ("two", 2), ("one", 3)):
        write(tmp_path / place / "set", value)
        folder = str(tmp_path / place / "set")
        assert load_seeds(folder)["x"][:] == load_seeds(folder, config="rows")["x"][:] == [f"rows {value}"]
        assert load_seeds(folder, config="dropped")["x"][:] == [f"dropped {value}"]
    assert load_seeds(folder)._fingerprint == load_seeds(folder)._fingerprint
    for wrong in ({"config": "none"}, {"split": "none"}):
        with pytest.raises(SourceError):
            load_seeds(folder, **wrong)


def test_a_folder_without_a_card(tmp_path):
    for value in (1, 2):
        Dataset.from_dict({"x": [value]}).to_json(tmp_path / "train.jsonl")
        assert load_seeds(str(tmp_path))["x"][:] == [value]


LINES = '{"question": "Q?", "answer": "A."}\n'


@pytest.mark.parametrize("name", ["rows.ndjson", "rows.JSONL", "rows.Jsonl", "rows.tsv"])
def test_further_endings_are_files_too(tmp_path, name):
    text = "question\tanswer\nQ?\tA.\n" if name.endswith("tsv") else LINES
    (tmp_path / name).write_text(text)
    assert load_seeds(str(tmp_path / name)).to_list() == [{"question": "Q?", "answer": "A."}]


def test_files_whose_columns_differ_are_read_together(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl").write_text('{"answer": "B.", "question": "R?", "score": 1}\n')
    for source in (tmp_path, tmp_path / "*.jsonl"):
        rows = load_seeds(str(source))
        assert rows["question"][:] == ["Q?", "R?"]
        assert rows["score"][:] == [None, 1]


def test_a_column_that_files_hold_in_two_kinds_is_read_as_it_is(tmp_path):
    parts = [{"type": "text", "text": "Why?"}]
    for name, content in (("a", "Why?"), ("b", parts)):
        chat = [{"role": "user", "content": content}, {"role": "assistant", "content": 'He said "no".'}]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    rows = to_instructions(load_seeds(str(tmp_path)))
    assert rows["instruction"][:] == ["Why?"] * 2
    assert rows["output"][:] == ['He said "no".'] * 2


def test_a_kind_that_changes_late_in_a_file_changes_no_text(tmp_path):
    """`datasets` decides by the first ten megabytes, unless told otherwise."""
    first, last = {"question": "Q " * 200, "answer": "A."}, {"question": [{"text": "Q?"}], "answer": "2024-01-01"}
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(first) + "\n") * 30_000 + json.dumps(last) + "\n")
    rows = load_seeds(str(file))
    assert rows[30_000] == last and rows[0] == first


def test_numbers_are_text_as_they_are_written(tmp_path):
    answers = ["007", "3.10", "true", "1" * 30, ""]
    (tmp_path / "rows.csv").write_text("question,answer\n" + "".join(f"Q,{answer}\n" for answer in answers))
    assert load_seeds(str(tmp_path / "rows.csv"))["answer"][:] == answers
    (tmp_path / "scores.csv").write_text("id,score\na-0,0.5\n")
    assert load_seeds(str(tmp_path / "scores.csv"), typed=True)["score"][:] == [0.5]
    (tmp_path / "rows.jsonl").write_text('{"answer": 3}\n{"answer": 2.50}\n{"answer": null}\n')
    assert load_seeds(str(tmp_path / "rows.jsonl"))["answer"][:] == ["3", "2.50", None]


def test_fields_that_are_too_many(tmp_path):
    (tmp_path / "rows.csv").write_text("question,answer\nQ?,A.,\n")  # a comma at the end shifts nothing
    assert load_seeds(str(tmp_path / "rows.csv")).to_list() == [{"question": "Q?", "answer": "A."}]
    (tmp_path / "rows.csv").write_text("question,answer\nQ?,A.,and more\n")
    with pytest.raises(SourceError, match="more fields than the 2 columns"):
        load_seeds(str(tmp_path / "rows.csv"))


def test_a_long_field_and_one_of_several_lines(tmp_path):
    rows = [{"question": "word " * 40_000, "answer": 'one\n\ntwo, "three"'}]
    Dataset.from_list(rows).to_csv(tmp_path / "rows.csv")
    assert load_seeds(str(tmp_path / "rows.csv")).to_list() == rows


def test_quotation_marks_in_tab_separated_values(tmp_path):
    file = tmp_path / "rows.tsv"
    file.write_text('question\tanswer\n"Hello\tsaid he\nQ?\tA.\n')  # no mark closes it
    assert load_seeds(str(file))["question"][:] == ['"Hello', "Q?"]
    file.write_text('question\tanswer\n"two\nlines"\tA.\n')
    assert load_seeds(str(file))["question"][:] == ["two\nlines"]


def test_encodings(tmp_path):
    file, row = tmp_path / "rows.jsonl", '{"question": "café?", "answer": "2024-01-01"}\n'
    file.write_bytes(b"\xef\xbb\xbf" + row.encode())
    assert load_seeds(str(file)).to_list() == [json.loads(row)]
    file.write_bytes(row.replace("2024-01-01", "So.").encode("cp1252"))
    with pytest.raises(SourceError, match=r"rows\.jsonl.*not in UTF-8"):
        load_seeds(str(file))


def test_the_broken_one_of_several_files_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl").write_text('{"question": \n')
    with pytest.raises(SourceError, match=r"b\.jsonl: JSON parse error"):
        load_seeds(str(tmp_path / "*.jsonl"))


def test_a_file_without_rows_says_so(tmp_path):
    for name, text in (("rows.jsonl", ""), ("rows.csv", "question,answer\n"), ("rows.json", "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceError, match="it has no rows"):
            load_seeds(str(tmp_path / name))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_texts_that_look_like_dates_stay_as_they_are_written(tmp_path, name):
    rows = [{"question": f"2024-01-0{day}", "answer": "2024-01-01T00:00:00", "n": day} for day in (1, 2)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_text(lines if name == "rows.jsonl" else json.dumps(rows))
    assert load_seeds(str(tmp_path / name)).to_list() == rows


CONFIGS = """---
configs:
- config_name: easy
  data_files: easy.jsonl
- config_name: hard
  data_files: hard.jsonl
---
"""


def test_sets_on_the_hub_and_what_the_hub_says(monkeypatch, tmp_path):
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path)
        dates = LINES.replace("A.", "2024-01-01").encode()
        files = {"README.md": CONFIGS.encode(), "easy.jsonl": LINES.encode(), "hard.jsonl": dates}
        hub.add_repo("dataset", "me/rows", files)
        hub.add_repo("dataset", "me/empty", {})
        rows = load_seeds("me/rows", config="easy")
        assert rows.to_list() == [{"question": "Q?", "answer": "A."}]
        assert load_seeds("me/rows", config="hard")["answer"][:] == ["2024-01-01"]
        commit = hub.repos["dataset", "me/rows"].commits[-1].sha
        assert load_seeds("me/rows", config="easy", revision=commit).to_list() == rows.to_list()
        for source, options, said in (
            ("me/rows", {}, "pick one among the available configs: ['easy', 'hard']"),
            ("me/rows", {"config": "odd"}, "Available: ['easy', 'hard']"),
            ("me/rows", {"config": "easy", "split": "test"}, "Should be one of ['train']"),
            ("me/rows", {"config": "easy", "revision": "v9"}, "Revision 'v9' doesn't exist"),
            ("me/none", {}, "Dataset 'me/none' doesn't exist on the Hub"),
            ("me/empty", {}, "doesn't contain any data files"),
        ):
            with pytest.raises(SourceError, match=re.escape(said)) as caught:
                load_seeds(source, **options)
            assert "\n" not in str(caught.value)
