from __future__ import annotations

import json
import logging

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_evol.data.formats import FORMATS, TRAINING_FORMATS, detect_format, to_instructions, to_training, unread
from hf_evol.data.sources import load_seeds
from hf_evol.errors import ColumnError, FormatError, SourceError

OURS = ["id", "instruction", "input", "output"]


def chat(*turns, role="role", text="content"):
    return [{role: who, text: what} for who, what in turns]


ASKED, ANSWERED = ("user", "How many?"), ("assistant", "Three.")
BEFORE = {
    "alpaca": {"instruction": "How many?", "input": "apples", "output": "Three."},
    "code_alpaca": {"instruction": "How many?", "input": "apples", "output": "Three."},
    "gsm8k": {"question": "How many?", "answer": "Three."},
    "messages": {"messages": chat(ASKED, ANSWERED)},
    "prompt-completion": {"prompt": "How many?", "completion": "Three."},
    "sharegpt": {"conversations": chat(("human", "How many?"), ("gpt", "Three."), role="from", text="value")},
}
HOSTILE = {
    "braces": "Sort {numbers} by {0} and {{twice}}, then print {",
    "NUL bytes": "before\x00after\x00",
    "emoji": "🌊👩‍👩‍👧 wave",
    "right-to-left": "\u202eمرحبا بالعالم\u202c שלום",
    "special tokens": "<|im_start|>system<|im_end|></s>[INST] <|end|> #Rewritten Prompt#:",
    "white space": "  \t\r\n two lines \n",
    "100,000 characters": ("long row " * 11_112)[:100_000],
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_read_into_our_columns(format):
    rows = to_instructions(Dataset.from_list([BEFORE[format]]), format)
    assert rows.to_list() == [
        {
            "id": f"{format}-0",
            "instruction": "How many?",
            "input": "apples" if "alpaca" in format else "",
            "output": "Three.",
        }
    ]
    assert rows.features == Features({name: Value("string") for name in OURS})


def test_alpaca_needs_no_input_column_and_a_null_input_becomes_empty():
    without = Dataset.from_dict({"instruction": ["a"], "output": ["b"]})
    null = Dataset.from_dict({"instruction": ["a"], "input": [None], "output": ["b"]})
    assert to_instructions(without)["input"][:] == to_instructions(null)["input"][:] == [""]


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"code_alpaca"}))
def test_auto_decides_by_the_columns_and_says_so(format, caplog):
    rows = Dataset.from_list([BEFORE[format] | {"score": 1.0}])
    with caplog.at_level(logging.INFO, logger="hf_evol.data.formats"):
        assert to_instructions(rows)["id"][:] == [f"{format}-0"]
    assert f"Seed format: {format}" in caplog.text


@pytest.mark.parametrize("asks", ["instruction", "prompt", "question"])
def test_rows_need_no_answers(asks, caplog):
    rows = to_instructions(Dataset.from_dict({asks: ["Why?", "How?"], "topic": ["a", "b"]}))
    assert rows["instruction"][:] == ["Why?", "How?"] and rows["output"][:] == [None, None]
    assert "The rows have no answers, as there is no column " in caplog.text and "'topic'" in caplog.text


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["question", "answer", "messages"], r"fits several formats \(gsm8k, messages\)"),
        (["text", "answer"], "fits no known format"),
        (["instruction", "answer_text"], "fits no known format"),
        (["prompt", "chosen", "rejected"], "fits no known format"),
        ([], "fits no known format"),
    ],
)
def test_an_undecidable_format_lists_columns_and_formats(columns, problem):
    with pytest.raises(FormatError, match=problem) as caught:
        detect_format(columns)
    message = str(caught.value)
    assert all(repr(name) in message for name in columns)
    assert all(f"{name}: " in message for name in FORMATS)
    assert "format=" in message


def test_an_unknown_format_lists_the_formats():
    with pytest.raises(FormatError, match=r"'alpacca'.*auto, alpaca, code_alpaca, gsm8k, messages"):
        to_instructions(Dataset.from_list([BEFORE["alpaca"]]), "alpacca")


def test_a_named_format_without_its_columns_lists_both():
    with pytest.raises(FormatError, match=r"question, answer or response.*'instruction', 'input', 'output'"):
        to_instructions(Dataset.from_list([BEFORE["alpaca"]]), "gsm8k")


def alpaca(**columns):
    n = len(next(iter(columns.values())))
    return Dataset.from_dict({"instruction": ["a"] * n, "output": ["b"] * n} | columns)


def test_our_own_ids_are_kept_in_any_order():
    rows = alpaca(id=["alpaca-7", "alpaca-2", "my-set-0"])
    assert to_instructions(rows)["id"][:] == ["alpaca-7", "alpaca-2", "my-set-0"]


@pytest.mark.parametrize("ids", [[7, 9], ["x", "y"], ["x", "x"], ["alpaca-1", "seed_task_2"], [None, None]])
def test_foreign_ids_are_numbered_anew(ids):
    rows = to_instructions(alpaca(id=ids), keep_columns=["id"])
    assert rows["id"][:] == ["alpaca-0", "alpaca-1"]
    assert rows["source_id"][:] == ids


def test_a_name_numbers_even_our_own_ids_anew():
    assert to_instructions(alpaca(id=["a-7", "a-2"]), name="mine")["id"][:] == ["mine-0", "mine-1"]


def test_ids_follow_the_position_after_a_selection():
    rows = alpaca(instruction=["a", "b", "c"]).select([2, 0])
    read = to_instructions(rows)
    assert list(zip(read["id"], read["instruction"], strict=True)) == [("alpaca-0", "c"), ("alpaca-1", "a")]


def test_repeated_ids_of_ours_are_refused_unless_numbered_anew():
    rows = alpaca(id=["a-1", "a-2", "a-1"])
    with pytest.raises(ColumnError, match=r"'a-1' stands in rows 0 and 2.*name="):
        to_instructions(rows)
    assert to_instructions(rows, name="n")["id"][:] == ["n-0", "n-1", "n-2"]


def test_null_and_empty_instructions_keep_their_place():
    rows = to_instructions(alpaca(instruction=[None, "", " ", "a"], output=["b", None, "", "b"]))
    assert rows["instruction"][:] == [None, "", " ", "a"]
    assert rows["output"][:] == ["b", None, "", "b"]
    assert rows["id"][:] == [f"alpaca-{i}" for i in range(4)]


@pytest.mark.parametrize("value", [5, b"bytes", ["list"], {"key": "value"}], ids=repr)
def test_a_column_of_instructions_that_are_no_text_is_refused(value):
    with pytest.raises(ColumnError, match=r"'instruction'"):
        to_instructions(alpaca(instruction=[value]))


@pytest.mark.parametrize("value", [b"bytes", {"key": "value"}], ids=repr)
def test_a_column_of_answers_that_hold_no_text_is_refused(value):
    with pytest.raises(ColumnError, match=r"'output'"):
        to_instructions(alpaca(output=[value]))


@pytest.mark.parametrize(
    ("answers", "texts"),
    [
        ([0, 42], ["0", "42"]),
        ([0.5, float("nan")], ["0.5", None]),
        ([True, False], ["True", "False"]),
        ([["a", "b"], []], ["a\nb", ""]),
        ([[1, 2], None], ["1\n2", None]),
    ],
)
def test_answers_that_are_numbers_or_lists_are_read_as_text(answers, texts):
    read = to_instructions(Dataset.from_dict({"question": ["Q?", "R?"], "answer": answers}))
    assert read["output"][:] == texts
    assert read.column_names == OURS


def test_only_what_can_t_be_used_is_null_and_says_why(tmp_path):
    """JSON lines whose values are of several kinds."""
    rows = [
        {"instruction": 'with "quotes" and é', "input": "x", "output": "b"},
        {"instruction": "a", "input": "", "output": 42},
        {"instruction": "a", "input": 7, "output": {"a": 1}},
        {"instruction": "a", "input": {"a": 1}, "output": "b"},
        {"instruction": ["a", "list"], "input": "", "output": "b"},
        {"instruction": 5, "input": "", "output": "b"},
        {"instruction": " ", "input": "", "output": "b"},
    ]
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = to_instructions(load_seeds(str(file)))
    assert read["instruction"][:] == ['with "quotes" and é', "a", "a", None, None, None, " "]
    assert read["input"][:3] == ["x", "", "7"]
    assert read["output"][:3] == ["b", "42", None]
    assert read["read_status"][:] == [
        "ok",
        "ok",
        "odd_answer: the column 'output' holds a mapping",
        "not_text: the column 'input' holds a mapping",
        "not_text: the column 'instruction' holds a list",
        "not_text: the column 'instruction' holds int",
        "no_instruction",
    ]
    assert unread(read) == {"odd_answer": 1, "not_text": 3, "no_instruction": 1}


def test_columns_are_renamed_before_they_are_read():
    rows = Dataset.from_dict({"Frage": ["Warum?"], "Antwort": ["Darum."], "instruction": ["other"]})
    (read,) = to_instructions(rows, columns={"Frage": "instruction", "Antwort": "output"}).to_list()
    assert (read["instruction"], read["output"]) == ("Warum?", "Darum.")
    with pytest.raises(ColumnError, match=r"'frage' to rename not found.*'Frage'"):
        to_instructions(rows, columns={"frage": "instruction"})


@pytest.mark.parametrize(
    ("row", "instruction", "input"),
    [
        ({"instruction": "Why?", "context": "A text.", "response": "So."}, "Why?", "A text."),
        ({"system_prompt": "", "question": "Why?", "response": "So."}, "Why?", ""),
        ({"prompt": "Why?", "response": "So."}, "Why?", ""),
        ({"question": "Why?", "context": "A text.", "answer": "So."}, "Why?", "A text."),
        ({"prompt": "Why?", "context": "A text.", "completion": "So."}, "Why?", "A text."),
        ({"question": "Why?", "context": "A text.", "choices": ["a", "b"], "answer": "So."}, "Why?", "A text.\na\nb"),
        (
            {"instruction": "Why?", "input": "", "context": "A text.", "output": None, "response": "So."},
            "Why?",
            "A text.",
        ),
    ],
    ids=["dolly", "openorca", "prompt and response", "question on a text", "prompt on a text", "choices", "empty ones"],
)
def test_other_usual_names_of_columns_are_known(row, instruction, input):
    (read,) = to_instructions(Dataset.from_list([row])).to_list()
    assert (read["instruction"], read["input"], read["output"]) == (instruction, input, "So.")


def test_classes_are_read_by_their_names():
    features = Features({"question": Value("string"), "answer": ClassLabel(names=["A", "B"])})
    rows = Dataset.from_dict({"question": ["Q?", "R?", "S?"], "answer": [1, 0, None]}, features=features)
    assert to_instructions(rows)["output"][:] == ["B", "A", None]


@pytest.mark.parametrize("layout", ["arrow", "pandas", "numpy"])
def test_a_formatted_set_is_read_as_any(layout):
    rows = Dataset.from_list([BEFORE["alpaca"]])
    assert to_instructions(rows.with_format(layout)).to_list() == to_instructions(rows).to_list()


def test_ids_carry_the_name_of_the_set(tmp_path):
    """So that sets of one format can be put together."""
    rows = load_seeds(write(tmp_path / "my-set.jsonl"))
    assert to_instructions(rows)["id"][:] == ["my-set-0", "my-set-1", "my-set-2"]
    rows.info.dataset_name, rows.info.config_name, rows.info.builder_name = "gsm8k", "main", "parquet"
    assert to_instructions(rows.select([2]))["id"][:] == ["gsm8k-main-0"]


def test_further_columns_are_kept_on_request_only():
    rows = alpaca(instruction=["a"], difficulty=[3], output=["b"])
    assert to_instructions(rows).column_names == OURS
    kept = to_instructions(rows, keep_columns=["difficulty", "output"])
    assert kept.column_names == [*OURS, "difficulty", "source_output"]
    assert kept.features["difficulty"] == Value("int64")
    assert (kept["difficulty"][:], kept["source_output"][:]) == ([3], ["b"])


def test_a_column_to_keep_that_is_missing_is_named():
    with pytest.raises(ColumnError, match=r"'difficulty' to keep not found.*'instruction', 'output'"):
        to_instructions(alpaca(instruction=["a"]), keep_columns=["difficulty"])


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_pass_unchanged(text):
    rows = Dataset.from_dict({"instruction": [text], "input": [text], "output": [text]})
    read = to_instructions(rows)
    assert read.to_list() == [{"id": "alpaca-0", "instruction": text, "input": text, "output": text}]
    (written,) = to_training(read, "messages").to_list()
    assert written["messages"] == chat(("user", f"{text}\n{text}"), ("assistant", text))


def test_one_row_and_an_empty_set_have_the_same_columns():
    rows = Dataset.from_list([BEFORE["gsm8k"]])
    empty = to_instructions(rows.select([]))
    assert len(empty) == 0
    assert empty.features == to_instructions(rows).features


def test_the_argument_is_left_alone():
    rows = Dataset.from_list([BEFORE["gsm8k"]])
    to_instructions(rows)
    assert rows.to_list() == [BEFORE["gsm8k"]]


WITH_INPUT = {"id": "a-0", "instruction": "Add.", "input": "1 2", "output": "3"}
WITHOUT_INPUT = {"id": "a-1", "instruction": "Why?", "input": "", "output": "Because."}
AFTER = {
    "alpaca": [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Why?", "input": "", "output": "Because."},
    ],
    "messages": [
        {"messages": chat(("user", "Add.\n1 2"), ("assistant", "3"))},
        {"messages": chat(("user", "Why?"), ("assistant", "Because."))},
    ],
    "prompt-completion": [
        {"prompt": chat(("user", "Add.\n1 2")), "completion": chat(("assistant", "3"))},
        {"prompt": chat(("user", "Why?")), "completion": chat(("assistant", "Because."))},
    ],
    "sharegpt": [
        {"conversations": chat(("human", "Add.\n1 2"), ("gpt", "3"), role="from", text="value")},
        {"conversations": chat(("human", "Why?"), ("gpt", "Because."), role="from", text="value")},
    ],
}


@pytest.mark.parametrize("format", TRAINING_FORMATS)
def test_each_training_format_is_written(format):
    assert to_training(Dataset.from_list([WITH_INPUT, WITHOUT_INPUT]), format).to_list() == AFTER[format]


@pytest.mark.parametrize("format", TRAINING_FORMATS)
def test_what_is_written_reads_back(format):
    rows = Dataset.from_list([WITHOUT_INPUT])
    (read,) = to_instructions(to_training(rows, format)).to_list()
    assert read == WITHOUT_INPUT | {"id": f"{format}-0"}


def test_training_rows_need_no_input_column():
    (written,) = to_training(Dataset.from_list([WITHOUT_INPUT]).remove_columns("input"), "alpaca").to_list()
    assert written == {"instruction": "Why?", "input": "", "output": "Because."}


@pytest.mark.parametrize("missing", [None, ""])
def test_rows_without_a_response_are_no_training_rows(missing):
    rows = alpaca(instruction=["a", "b", "c"], output=["x", missing, missing])
    with pytest.raises(ColumnError, match=r"^2 of the texts.*filter"):
        to_training(rows)


def test_a_missing_response_column_is_named():
    with pytest.raises(ColumnError, match=r"'output' not found.*'instruction'"):
        to_training(Dataset.from_dict({"instruction": ["a"]}))


def test_an_unknown_training_format_lists_the_formats():
    with pytest.raises(FormatError, match=r"'gsm8k'.*alpaca, messages, prompt-completion, sharegpt"):
        to_training(Dataset.from_list([WITH_INPUT]), "gsm8k")


def test_no_rows_make_no_training_rows_with_the_formats_columns():
    rows = Dataset.from_list([WITH_INPUT]).select([])
    assert to_training(rows, "alpaca").column_names == ["instruction", "input", "output"]


QA = [{"question": f"Question {i}?", "answer": f"Answer, {i}"} for i in range(3)]


def write(path, rows=QA):
    rows = Dataset.from_list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows.to_list()))
    else:
        {".jsonl": rows.to_json, ".csv": rows.to_csv, ".parquet": rows.to_parquet}[path.suffix](path)
    return str(path)


@pytest.mark.parametrize("extension", ["json", "jsonl", "csv", "parquet"])
def test_a_local_file_is_loaded(tmp_path, extension):
    assert load_seeds(write(tmp_path / f"rows.{extension}")).to_list() == QA


def test_a_compressed_file_is_loaded(tmp_path):
    import gzip

    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in QA).encode()))
    assert load_seeds(str(file)).to_list() == QA


def test_a_glob_is_loaded_in_the_order_of_names(tmp_path):
    write(tmp_path / "b.jsonl", QA[1:])
    write(tmp_path / "a.jsonl", QA[:1])
    write(tmp_path / "c.csv")
    assert load_seeds(str(tmp_path / "*.jsonl")).to_list() == QA


def test_arrow_files_are_loaded(tmp_path):
    Dataset.from_list(QA).save_to_disk(tmp_path / "saved")
    assert load_seeds(str(tmp_path / "saved" / "*.arrow")).to_list() == QA


def test_a_saved_dataset_is_loaded(tmp_path):
    Dataset.from_list(QA).save_to_disk(tmp_path / "saved")
    assert load_seeds(str(tmp_path / "saved")).to_list() == QA


def test_a_split_of_a_saved_dataset_is_loaded(tmp_path):
    splits = {"train": Dataset.from_list(QA[:2]), "test": Dataset.from_list(QA[2:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert load_seeds(str(tmp_path / "saved")).to_list() == QA[:2]
    assert load_seeds(str(tmp_path / "saved"), split="test").to_list() == QA[2:]


def test_a_folder_of_files_is_loaded_by_split(tmp_path):
    write(tmp_path / "train.jsonl", QA[:2])
    write(tmp_path / "test.jsonl", QA[2:])
    assert load_seeds(str(tmp_path)).to_list() == QA[:2]
    assert load_seeds(str(tmp_path), split="test").to_list() == QA[2:]


@pytest.mark.parametrize("name", ["rows.jsonl", "*.jsonl"])
def test_an_fsspec_url_is_loaded(name):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/seeds/rows.jsonl", "".join(json.dumps(row) + "\n" for row in QA).encode())
    try:
        assert load_seeds(f"memory://seeds/{name}").to_list() == QA
    finally:
        memory.rm("/seeds", recursive=True)


@pytest.mark.parametrize(("name", "format"), [("general", "alpaca"), ("gsm8k", "gsm8k"), ("code", "alpaca")])
def test_the_bundled_sets_are_loaded(name, format):
    rows = load_seeds(f"demo/{name}")
    assert detect_format(rows.column_names) == format
    read = to_instructions(rows)
    assert len(read) >= 40
    assert len(set(read["instruction"])) == len(read)
    assert all(text.strip() for column in ("instruction", "output") for text in read[column])


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing/*.csv", "nothing/*.parquet", "no/such/folder"])
def test_a_missing_source_is_named(tmp_path, name):
    with pytest.raises(SourceError, match=r"Cannot load the seed set .*(nothing|no/such)") as caught:
        load_seeds(str(tmp_path / name))
    assert "demo/general" in str(caught.value)
    assert "pass `features`" not in str(caught.value)


def test_a_missing_bundled_set_lists_those_there_are():
    with pytest.raises(SourceError, match=r"'demo/nothing'.*demo/general, demo/gsm8k, demo/code"):
        load_seeds("demo/nothing")


def test_a_missing_split_of_a_folder_lists_its_splits(tmp_path):
    write(tmp_path / "train.jsonl")
    with pytest.raises(SourceError, match=r"'validation'.*'train'"):
        load_seeds(str(tmp_path), split="validation")


def test_a_missing_split_of_a_saved_dataset_lists_its_splits(tmp_path):
    splits = {"learn": Dataset.from_list(QA[:2]), "exam": Dataset.from_list(QA[2:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(SourceError, match=r"'train'.*learn") as caught:
        load_seeds(str(tmp_path / "saved"))
    assert "exam" in str(caught.value)


@pytest.mark.parametrize("content", ["", '{"question": \n', "\x00\x01"], ids=["empty", "broken", "binary"])
def test_an_unreadable_file_is_named(tmp_path, content):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(SourceError, match=r"Cannot load the seed set .*rows\.jsonl"):
        load_seeds(str(file))


def test_words_that_csv_readers_take_for_null_stay_text(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\nIs there one?,None\nWhat is null?,NA\n")
    assert load_seeds(str(file))["answer"][:] == ["None", "NA"]
