import importlib.util
import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import Dataset, get_dataset_config_names, load_dataset
from talkative import make_talkative
from tiny_models import build_llama

import hf_evol
from hf_evol import cluster, models
from hf_evol import columns as col
from hf_evol.errors import ConfigError, FormatError, MissingExtraError, ModelError, OutputError, SourceError
from hf_evol.evolve.eliminate import OF_RESPONSES
from hf_evol.generation.base import GREEDY
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.hub import writer
from hf_evol.hub.provenance import shareable
from hf_evol.models import loading
from hf_evol.progress import counted_tokens
from hf_evol.reading.evolved import read_evolved
from hf_evol.run import pipeline, steps
from hf_evol.run.estimate import measure
from hf_evol.run.recipe import Recipe
from hf_evol.run.stages import Stages
from hf_evol.run.steps import REASON, part
from hf_evol.run.tables import languages_of

TEXTS = [
    f"Explain in {n} words why the {what} is {adjective}."
    for n in (5, 9)
    for what in ("sea", "sky")
    for adjective in "ab"
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rows = [{"instruction": text, "input": "", "output": "Because it is so."} for text in [*TEXTS, "", "x " * 3000]]
    file = tmp_path_factory.mktemp("seeds") / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


def recipe_to(output, source, model):
    return Recipe(
        dataset=source, model=model, rounds=2, max_new_tokens=24, response_max_new_tokens=24, output=str(output), seed=3
    )


@pytest.fixture
def recipe(tmp_path, source, wide_model):
    return recipe_to(tmp_path / "out", source, wide_model)


@pytest.fixture(scope="module")
def done(tmp_path_factory, source, wide_model):
    """A run that several tests read: its recipe, and its result."""
    recipe = recipe_to(tmp_path_factory.mktemp("done") / "out", source, wide_model)
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        return recipe, hf_evol.run(recipe)


@pytest.fixture
def talkative(monkeypatch):
    make_talkative(monkeypatch)


def test_every_row_is_accounted_for(done):
    recipe, result = done
    configs = get_dataset_config_names(recipe.output)
    assert configs[0] == "selected" and set(configs) == {"selected", "round_1", "round_2", "dropped"}
    dropped = load_dataset(recipe.output, "dropped", split="train")
    seeds = pipeline.read_seeds(recipe)
    for table in result.provenance["rounds"]:
        number = table["round"]
        kept = load_dataset(recipe.output, f"round_{number}", split="train")
        lost = dropped.filter(lambda row, n=number: row["round"] == n)
        assert sorted([*kept["id"], *lost["id"]]) == sorted(seeds["id"])
        assert table["rows_in"] == len(seeds) and table["in_set"] == len(kept)
        assert sum(table["dropped"].values()) == len(lost) == table["rows_in"] - table["in_set"]
        assert table["dropped"]["no_instruction"] == table["dropped"]["too_long"] == 1
        assert all(row["output"] and row["seed_instruction"] in TEXTS for row in kept)
    assert set(dropped[REASON]) >= {"no_instruction", "too_long"}


def test_dropped_rows_hold_the_text_and_status_of_every_try(recipe, talkative):
    record = hf_evol.run(replace(recipe, tries=2, seed=1)).provenance
    lost = load_dataset(recipe.output, "dropped", split="train").to_list()
    texts = []
    for row in lost:
        if row[REASON] in ("no_instruction", "too_long"):
            assert row[col.REJECTED] == []
            continue
        tried = [entry["try"] for entry in row[col.REJECTED]]
        if row[col.EVOL_STATUS] == "ok":  # it is the response that fell short
            assert row[REASON] in OF_RESPONSES and tried == [1, 2][: row[col.TRY] - 1]
        else:
            assert row[REASON] == row[col.EVOL_STATUS] == row[col.REJECTED][-1]["status"] and tried == [1, 2]
        assert all(bool(entry["instruction"]) != (entry["status"] == "empty") for entry in row[col.REJECTED])
        assert all(entry["status"] != "ok" for entry in row[col.REJECTED])
        texts += [(row[col.PARENT_INSTRUCTION], row[col.METHOD], entry) for entry in row[col.REJECTED]]
    assert texts
    counts = Counter(entry["status"] for _, _, entry in texts)
    assert {shown["status"]: shown["count"] for shown in record["failures"]} == counts
    assert len(record["failures"]) == len(counts)
    for shown in record["failures"]:
        known = [(parent, way, entry["instruction"], entry["status"]) for parent, way, entry in texts]
        assert (shown["parent_instruction"], shown["method"], shown["text"], shown["status"]) in known


def test_a_row_is_asked_again_until_its_text_is_ok(done):
    recipe, result = done
    for table in result.provenance["rounds"]:
        tries = table["tries"]
        assert 1 < len(tries) <= recipe.tries
        assert sum(tries[0].values()) == table["rows_in"] - 2  # without the rows that can't be asked
        for before, after in pairwise(tries):
            assert sum(after.values()) == sum(before.values()) - before.get("ok", 0)
        assert sum(counts.get("ok", 0) for counts in tries) == table["ok"]
        for row in load_dataset(recipe.output, f"round_{table['round']}", split="train"):
            assert [entry["try"] for entry in row[col.REJECTED]] == list(range(1, row[col.TRY]))


def test_rows_that_say_the_same_are_left_out(recipe, talkative, tmp_path):
    """Greedy texts of one instruction by one method are equal; the five methods come in turn."""
    rows = Dataset.from_dict({"instruction": TEXTS[:5] * 2, "output": ["So."] * 10})
    rows.to_json(tmp_path / "twice.jsonl")
    record = hf_evol.run(replace(recipe, dataset=str(tmp_path / "twice.jsonl"), temperature=0.0)).provenance
    lost = load_dataset(recipe.output, "dropped", split="train").to_list()
    for table in record["rounds"]:
        kept = load_dataset(recipe.output, f"round_{table['round']}", split="train")
        again = [row for row in lost if row["round"] == table["round"] and row[REASON] == "duplicate"]
        assert len(kept) and all(int(row_id.rsplit("-", 1)[1]) < 5 for row_id in kept["id"])
        assert sorted(row["instruction"] for row in again) == sorted(kept["instruction"])
        assert all(row["output"] and row[col.EVOL_STATUS] == "ok" for row in again)
        assert table["dropped"]["duplicate"] == len(again) == table["ok"] - len(kept)


def test_selected_rows_are_the_best_of_each_round(done):
    recipe, result = done
    selected = load_dataset(recipe.output, split="train")
    for table in result.provenance["rounds"]:
        rows = load_dataset(recipe.output, f"round_{table['round']}", split="train")
        scores = sorted((score for score in rows[col.IC_IFD] if score is not None), reverse=True)
        best = [row[col.IC_IFD] for row in selected if row["round"] == table["round"]]
        assert (
            sorted(best, reverse=True) == scores[: len(best)] and len(best) == -(-len(scores) // 4) == table["selected"]
        )
        mean = next(score["mean"] for score in table["scores"] if score["name"] == "IC-IFD")
        assert mean == pytest.approx(sum(scores) / len(scores))


def test_a_second_run_gives_the_same_bytes(done, talkative, tmp_path):
    recipe, _ = done
    hf_evol.run(replace(recipe, output=str(tmp_path / "again"), batch_size=2, journal=False))
    files = list(Path(recipe.output).rglob("*.parquet"))
    assert files
    for file in files:
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(recipe.output)).read_bytes()


def test_the_runs_rounds_are_the_transforms_rounds(done):
    recipe, _ = done
    second = {row["id"]: row for row in load_dataset(recipe.output, "round_2", split="train")}
    first = {row["id"]: row for row in load_dataset(recipe.output, "round_1", split="train")}
    evolve, shared = Stages.of(recipe).evolve, second.keys() & first.keys()
    assert shared
    for row_id in shared:
        assert second[row_id]["parent_instruction"] == first[row_id]["instruction"]
        parent, method = first[row_id]["instruction"], second[row_id]["method"]
        prompt = evolve.prompt(row_id, parent, 1)
        assert read_evolved(second[row_id]["instruction"], parent=parent, prompt=prompt, method=method)[1] == "ok"


@pytest.mark.parametrize("file_format", ["json", "arrow"])
def test_other_file_formats(recipe, talkative, file_format):
    recipe = replace(recipe, file_format=file_format, limit=4, rounds=1)
    (table,) = hf_evol.run(recipe).provenance["rounds"]
    assert len(load_dataset(recipe.output, "round_1", split="train")) == table["in_set"] > 1


def test_an_fsspec_url(recipe, talkative):
    import fsspec

    hf_evol.run(replace(recipe, output="memory://evolved/set", limit=3))
    files = fsspec.filesystem("memory").find("/evolved/set")
    assert {file.rsplit("/", 1)[-1] for file in files} >= {"README.md", "provenance.json", "ic_ifd.png"}
    with pytest.raises(OutputError, match="exists"):
        hf_evol.run(replace(recipe, output="memory://evolved/set"))


def test_what_a_run_took_is_found_by_what_it_has_published(tmp_path):
    recipe = Recipe(response_system="The password=hunter2-hunter2 is secret.", journal=str(tmp_path / "journal.sqlite"))
    times = [{"label": "Evolve", "tokens": 3}]
    pipeline._remember(recipe, times)
    published = shareable(recipe.for_card())
    assert "hunter2" not in str(published) and pipeline.times_of(recipe, published) == times


def test_a_set_of_which_nothing_is_left(recipe, tmp_path):
    Dataset.from_dict({"instruction": ["too long " * 3000] * 2, "output": ["x", "y"]}).to_json(tmp_path / "none.jsonl")
    result = hf_evol.run(replace(recipe, dataset=str(tmp_path / "none.jsonl")))
    assert [table["in_set"] for table in result.provenance["rounds"]] == [0, 0]
    assert get_dataset_config_names(recipe.output) == ["dropped"]
    assert "No row was selected" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_set_of_which_nothing_can_be_read_is_refused_with_the_reasons(recipe, tmp_path):
    turns = [{"role": "assistant", "content": "Hello."}]
    rows = Dataset.from_list([{"messages": turns}, {"messages": []}, {"messages": [{"role": "user", "content": None}]}])
    rows.to_parquet(tmp_path / "none.parquet")
    with pytest.raises(
        FormatError, match=r"No row of 'none.parquet' can be read. 0 of 3 .*no_user_turn 2, no_instruct"
    ):
        hf_evol.run(replace(recipe, dataset=str(tmp_path / "none.parquet")))


@pytest.mark.parametrize(
    ("change", "error", "fragment"),
    [
        ({"dataset": "missing.jsonl"}, SourceError, "missing.jsonl"),
        ({"format": "gsm8k"}, FormatError, "question"),
        ({"format": "odd"}, FormatError, "Unknown format"),
        ({"model": "./nowhere"}, ModelError, "nowhere"),
        ({"model": {"name": "x", "size": 3}}, ConfigError, "unknown settings"),
        ({"scorer": "./nowhere"}, ModelError, "nowhere"),
        ({"methods": "odd"}, ConfigError, "Unknown method"),
        ({"push_to": "no-slash"}, ConfigError, "user/name"),
        ({"select_by": "odd"}, ConfigError, "select_by"),
        ({"output": "/dev/null/x"}, OutputError, "can't be written"),
    ],
)
def test_wrong_settings_come_before_any_model(recipe, monkeypatch, change, error, fragment):
    monkeypatch.setattr(loading, "_load_model", lambda spec: pytest.fail("a model was loaded"))
    with pytest.raises(error, match=fragment):
        hf_evol.run(replace(recipe, **change))


def test_a_model_without_a_chat_template(recipe, bos_model, talkative, monkeypatch):
    with pytest.raises(ConfigError, match="--chat-template"):
        hf_evol.run(replace(recipe, model=bos_model))
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    assert hf_evol.run(replace(recipe, model=bos_model, chat_template=template, limit=2)).provenance["n_seeds"] == 2


def test_an_existing_output_is_refused_unless_told_otherwise(recipe, talkative):
    recipe = replace(recipe, limit=2, rounds=1)
    hf_evol.run(recipe)
    with pytest.raises(OutputError, match="--overwrite"):
        hf_evol.run(recipe)
    hf_evol.run(replace(recipe, overwrite=True))


def test_a_full_disk_leaves_the_old_result(recipe, talkative, monkeypatch, tmp_path):
    hf_evol.run(replace(recipe, limit=2, rounds=1))
    before = (tmp_path / "out" / "README.md").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_provenance", full)
    with pytest.raises(OutputError, match=r"No space left.*journal"):
        hf_evol.run(replace(recipe, limit=3, rounds=1, overwrite=True))
    assert (tmp_path / "out" / "README.md").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_plan_loads_no_model(recipe, monkeypatch):
    monkeypatch.setattr(loading, "_load_model", lambda spec: pytest.fail("a model was loaded"))
    plan = pipeline.plan(recipe)
    assert plan.n_seeds == len(TEXTS) + 2 and plan.prompt_tokens > 1000 and plan.methods[0] == "constraint"


def test_processes_change_no_byte(recipe, talkative, tmp_path):
    """Also where no row is dropped, which leaves a table of several pieces whole."""
    recipe = replace(recipe, limit=4, rounds=1)
    hf_evol.run(recipe)
    hf_evol.run(replace(recipe, output=str(tmp_path / "two"), num_proc=2))
    for file in (tmp_path / "out").rglob("*.parquet"):
        ours = Dataset.from_parquet(str(file)).to_list()
        assert Dataset.from_parquet(str(tmp_path / "two" / file.relative_to(tmp_path / "out"))).to_list() == ours


def test_a_set_from_scratch(recipe, talkative, tmp_path, monkeypatch):
    """Instructions are made up, evolved, answered and constrained; every reply is accounted for; and a second run asks nothing."""
    pytest.importorskip("rapidfuzz")
    monkeypatch.setattr("hf_evol.evolve.back_translate.GREEDY", replace(GREEDY, max_new_tokens=8))
    recipe = replace(
        recipe, self_instruct=6, back_translate=2, constrainer=recipe.model, rounds=1, select=1.0,
        file_format="json",
    )  # fmt: skip
    record = hf_evol.run(recipe).provenance
    assert [model["role"] for model in record["models"]] == ["evolver", "responder", "scorer", "constrainer"]
    rows, rejected = (load_dataset(recipe.output, name, split="train") for name in ("selected", "rejected"))
    counts = record["self_instruct"]["counts"]
    assert counts["ok"] == record["n_seeds"] == record["rounds"][0]["rows_in"] == 6
    assert len(rejected) == sum(counts.values()) - 6 and "ok" not in rejected["instruction_status"]
    assert all(row_id.startswith("self-instruct-") for row_id in rows["id"])
    constrained = [row for row in rows if row["back_translate_status"] == "ok"]
    assert sum(record["constraints"].values()) == sum(len(row["checks"]) for row in rows) >= len(constrained) > 0
    for row in constrained:
        assert all(said in row["instruction"] for said in row["constraints"])
        assert row["parent_instruction"] in row["instruction"] and row["ic_ifd"] is not None
    card = Path(recipe.output, "README.md").read_text(encoding="utf-8")
    assert "(Self-Instruct, arXiv:2212.10560)" in card and "constraint back-translation" in card
    assert "- self-instruct\n" in card and "- verifiable-rewards\n" in card
    with counted_tokens() as new:
        hf_evol.run(replace(recipe, output=str(tmp_path / "again")))
    assert new == [0]
    files = [file.relative_to(recipe.output) for file in Path(recipe.output).rglob("*.jsonl")]
    assert len(files) > 2 and all(
        (tmp_path / "again" / file).read_bytes() == Path(recipe.output, file).read_bytes() for file in files
    )


def test_what_can_not_have_instructions_made_up_says_so(recipe):
    pytest.importorskip("rapidfuzz")
    recipe = replace(recipe, self_instruct=6)
    assert pipeline.plan(recipe).n_seeds == 6
    for refused in (lambda: cluster.run(recipe), lambda: measure(recipe, 2)):
        with pytest.raises(ConfigError, match="run hf-evol self-instruct first"):
            refused()


def test_what_making_up_needs_is_checked_before(recipe, monkeypatch, tmp_path):
    long = [f"{text} " * 20 for text in TEXTS]
    Dataset.from_dict({"instruction": long, "output": [""] * 8}).to_json(tmp_path / "long.jsonl")
    recipe = replace(recipe, self_instruct=6, dataset=str(tmp_path / "long.jsonl"))
    for early in (pipeline.plan, pipeline.prepare):
        with monkeypatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda name: None)
            with pytest.raises(MissingExtraError, match=r"hf_evol\[self-instruct\]"):
                early(recipe)
        pytest.importorskip("rapidfuzz")
        with pytest.raises(ConfigError, match="None of the 8 seeds can be shown"):
            early(recipe)


def test_nothing_dropped_from_a_table_of_several_pieces():
    from datasets import concatenate_datasets

    rows = Dataset.from_dict({"id": ["a-0", "a-1"]})
    kept, lost = part(concatenate_datasets([rows, rows]), ["kept"] * 4)
    assert len(kept) == 4 and len(lost) == 0 and REASON in lost.column_names


def test_changed_weights_are_not_served_from_the_cache(recipe, talkative, wide_model, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(wide_model, folder)
    recipe = replace(recipe, model=str(folder), limit=3, rounds=1, journal=False, file_format="json")
    hf_evol.run(recipe)
    first = (tmp_path / "out" / "round_1" / "train-00000-of-00001.jsonl").read_bytes()
    models.release()
    build_llama(seed=9, context=4096).save_pretrained(folder)
    hf_evol.run(replace(recipe, overwrite=True))
    assert (tmp_path / "out" / "round_1" / "train-00000-of-00001.jsonl").read_bytes() != first


def test_the_first_rows_say_early_what_can_be_expected(recipe, monkeypatch, capsys, tmp_path):
    """The random model's texts are none: the run says so before the other rows, and asks for no row twice."""
    monkeypatch.setattr(steps, "FIRST_ROWS", 3)
    monkeypatch.setattr(steps, "_MANY", 6)
    asked = []
    stream = TransformersEngine.stream
    monkeypatch.setattr(
        TransformersEngine,
        "stream",
        lambda self, chats, params, keys: (asked.extend(keys), stream(self, chats, params, keys))[1],
    )
    hf_evol.run(replace(recipe, journal=str(tmp_path / "own.sqlite")))
    said = capsys.readouterr().err
    assert "Of the first 3 rows, 0% are ok; of the others: " in said and "a larger --model" in said
    assert len(asked) == len(set(asked))


def test_the_first_rows_of_a_good_model_need_no_advice(recipe, talkative, monkeypatch, capsys):
    monkeypatch.setattr(steps, "FIRST_ROWS", 3)
    monkeypatch.setattr(steps, "_MANY", 6)
    hf_evol.run(recipe)
    said = capsys.readouterr().err
    assert re.search("Of the first 3 rows, (67|100)% are ok", said) and "--model" not in said


def test_a_small_run_says_after_its_first_round_that_little_came_of_it(recipe, capsys):
    hf_evol.run(replace(recipe, limit=3))
    said = capsys.readouterr().err
    assert said.count("Of the 3 rows of round 1, 0% are ok; of the others: ") == said.count("That is little") == 1


def test_a_small_run_of_a_good_model_needs_no_advice(recipe, talkative, capsys):
    hf_evol.run(replace(recipe, limit=3))
    assert "rows of round 1" not in capsys.readouterr().err


def test_a_measurement_says_what_all_rows_take_and_keeps_nothing(recipe, talkative, capsys, monkeypatch):
    from hf_evol.cli.main import main
    from hf_evol.run.estimate import measure

    recipe = replace(recipe, journal=str(Path(recipe.output).with_name("journal.sqlite")))
    found = measure(recipe, 4)
    assert (found.n_measured, found.n_rows, found.times) == (4, 10, 2.5)
    whole = hf_evol.run(replace(recipe, limit=4, journal=False))
    rows = load_dataset(whole.output, "round_1", split="train")
    assert set(found.tokens) == {"Evolve", "Eliminate", "Respond", "Score"} and found.tokens["Evolve"] > 0
    assert found.tokens["Eliminate"] == found.tokens["Score"] == 0 < found.tokens["Respond"] and len(rows)
    size = sum(file.stat().st_size for file in Path(whole.output).rglob("*") if file.is_file())
    assert found.set_bytes == pytest.approx(size, rel=0.1)
    assert found.hours == pytest.approx(sum(found.seconds.values()) * 2.5 / 3600)
    assert not Path(recipe.journal).exists()

    options = [
        "--dataset",
        recipe.dataset,
        "--model",
        recipe.model,
        "--max-new-tokens",
        "24",
        "--response-max-new-tokens",
        "24",
    ]
    assert main(["run", *options, "--rounds", "1", "--dry-run", "--measure", "4", "--price-per-hour", "2"]) == 0
    said = capsys.readouterr().out
    assert "measured here, on 4 of 10 rows" in said and "at 2 an hour" in said and "generated tokens a row" in said
    assert main(["run", *options, "--measure", "4"]) == 2
    with pytest.raises(ConfigError, match="1 or more"):
        measure(recipe, 0)


def test_a_set_in_any_language_says_which(recipe, talkative):
    pytest.importorskip("py3langid")
    german, french = "Beschreibe, wie eine Mühle gebaut wird.", "Décris la vie dans un petit village de montagne."
    rows = Dataset.from_dict({"instruction": [german] * 120 + [french] * 79 + ["Describe how a mill is built."]})
    assert languages_of(rows) == ["de", "fr"] and languages_of(rows.select([199])) == ["en"]
    record = hf_evol.run(replace(recipe, methods="multilingual", rounds=1)).provenance
    assert record["source"]["language"] == languages_of(load_dataset(recipe.output, "round_1", split="train")) != []
    assert "\nlanguage:\n" in Path(recipe.output, "README.md").read_text(encoding="utf-8")
    assert hf_evol.run(replace(recipe, rounds=1, overwrite=True)).provenance["source"]["language"] == []
