"""The same study as without datatrove, whatever the number of tasks, and after anything that goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from talkative import make_talkative
from tiny_models import TEMPLATE

from hf_evol.cli.main import main
from hf_evol.cluster import Execution
from hf_evol.cluster import study as study_by_tasks
from hf_evol.cluster.work import WorkFolder
from hf_evol.errors import OutputError, TaskError
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.evolve.respond import Respond
from hf_evol.run.recipe import Recipe
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.study.study import Study, run

# Embeddings and top-1 probabilities, and statistics of them, change by rounding in other company.
CLOSE, ROUNDED = {"rel": 1e-4, "abs": 1e-5}, ("top1", "mnd")
OTHER_TEMPLATE = TEMPLATE + "{{ ' ' }}"


def make_recipe(source, model, folder):
    return Recipe(
        dataset=source, limit=7, rounds=2, responder=model, scorer=model, max_new_tokens=24, response_max_new_tokens=24,
        journal=str(folder / "journal.sqlite"), output=str(folder / "study"),
    )  # fmt: skip


@pytest.fixture
def recipe(source, wide_model, talkative, tmp_path):
    return make_recipe(source, wide_model, tmp_path)


@pytest.fixture(scope="session")
def study(wide_model):
    return Study(
        {"whole": wide_model, "other": {"name": wide_model, "chat_template": OTHER_TEMPLATE}},
        judge=wide_model,
        embedding=wide_model,
    )


@pytest.fixture(scope="session")
def plain_study(study, source, wide_model, tmp_path_factory):
    """What a study without datatrove writes."""
    folder = tmp_path_factory.mktemp("plain-study")
    with pytest.MonkeyPatch.context() as patch:
        make_talkative(patch)
        run(study, make_recipe(source, wide_model, folder))
    content = written(folder / "study")
    assert all(entry["ok"] and entry["dropped"] for entry in content["results"]["yields"])
    return content


def written(folder):
    """Results, but for seconds, and the rows of all configs."""
    import pyarrow.parquet as pq

    folder = Path(folder)
    content = {"results": json.loads((folder / "results.json").read_text())}
    for cost in content["results"]["costs"]:
        del cost["seconds"]
    for file in sorted(folder.glob("*/*.parquet")):
        table = pq.read_table(file)
        if file.parent.name != "costs":
            content[f"{file.parent.name}/{file.name}"] = {"columns": table.column_names, "rows": table.to_pylist()}
    return content


def assert_same(one, other, place="study"):
    """Equal texts, counts and scores; numbers that are close where they may be rounded."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert list(one) == list(other), place
        for name in one:
            assert_same(one[name], other[name], f"{place}/{name}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), place
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}/{number}")
    elif isinstance(one, float) and (not place.startswith("study/rows") or any(name in place for name in ROUNDED)):
        assert one == pytest.approx(other, **CLOSE), place
    else:
        assert one == other, place


def test_the_number_of_tasks_changes_nothing(study, recipe, plain_study, within):
    result = study_by_tasks(study, recipe, Execution(tasks=3))
    assert_same(written(recipe.output), plain_study)
    costs = json.loads(Path(recipe.output, "results.json").read_text())["costs"]
    assert all(cost["seconds"] is None and cost["tokens"] is not None for cost in costs)
    assert not Path(recipe.output + ".work").exists()
    assert main(["card", result.output, "--diff"]) == 0


def test_worker_processes_change_nothing(study, recipe, plain_study):
    study_by_tasks(study, recipe, Execution(tasks=3, workers=2))
    assert_same(written(recipe.output), plain_study)


def test_a_second_call_asks_for_nothing_twice(study, recipe, plain_study, wide_model, within, monkeypatch):
    """Completed tasks are known by their marks; there is no journal."""
    recipe, done = replace(recipe, journal=False), []

    def noting(kind, fails_at=None):
        apply = kind.apply

        def noted(self, batch):
            done.append((kind.__name__, tuple(batch["id"])))
            if fails_at == sum(name == kind.__name__ for name, _ in done):
                raise RuntimeError("no more")
            return apply(self, batch)

        monkeypatch.setattr(kind, "apply", noted)

    noting(EvolInstruct)
    noting(Respond)
    noting(IcIfd, fails_at=2)
    with pytest.raises(TaskError, match=r"1 of 3 tasks of the stage 'score'.*RuntimeError: no more"):
        study_by_tasks(study, recipe, Execution(tasks=3))
    assert len(done) == (2 * 2 + 1 + 1) * 3 and not Path(recipe.output).exists()
    with pytest.raises(OutputError, match=r"another plan; it differs in evolvers\."):
        study_by_tasks(replace(study, evolvers=study.evolvers | {"third": wide_model}), recipe, Execution(tasks=3))
    with pytest.raises(OutputError, match=r"another plan; it differs in limit, rows, seeds\."):
        study_by_tasks(study, replace(recipe, limit=2), Execution(tasks=3))
    with WorkFolder(recipe.output + ".work").locked(), pytest.raises(OutputError, match="Another launcher works in"):
        study_by_tasks(study, recipe, Execution(tasks=3))
    before = done.copy()
    study_by_tasks(study, recipe, Execution(tasks=3))
    assert done[len(before) :] == [before[-2]]
    assert_same(written(recipe.output), plain_study)


def test_on_the_command_line(source, wide_model, talkative, tmp_path, capsys):
    options = ["--dataset", source, "--limit", "3", "--rounds", "1", "--max-new-tokens", "32", "--journal", "false"]
    options += ["--response-max-new-tokens", "32"]
    options += ["--embedding", "none", "--responder", wide_model, "--output", str(tmp_path / "study")]
    options += ["--evolver", f"a={wide_model}", "--evolver", f"b={{name: {wide_model}}}"]
    assert main(["study", *options, "--tasks", "2"]) == 2
    assert "--work-folder need --executor" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert main(["study", *options, "--executor", "local", "--executor-option", "x"]) == 2
    assert "'x' is not KEY=VALUE" in capsys.readouterr().err
    assert (
        main(["study", *options, "--executor", "local", "--tasks", "2", "--work-folder", str(tmp_path / "work")]) == 0
    )
    assert "report.html" in capsys.readouterr().out
    assert (tmp_path / "study" / "report.html").exists() and not (tmp_path / "work").exists()
