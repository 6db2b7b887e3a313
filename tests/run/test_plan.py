"""Plans against numbers worked out by hand, and the page that shows one."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from talkative import make_talkative
from tiny_models import build_llama, build_tokenizer

from hf_evol.cli.main import main
from hf_evol.errors import ConfigError, SourceError
from hf_evol.run import plan, workload
from hf_evol.run.plan import Resources, duration, estimate, figure, markdown, size, table
from hf_evol.run.recipe import Recipe
from hf_evol.run.workload import StageLoad, Workload

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "scale.md"

# 10 rows, 2 rounds: 20 evolved, 15 kept and answered and scored.
MEASURED = Workload(
    hardware="a machine",
    recipe={"model": "tiny", "dataset": "rows"},
    n_seeds=10,
    rounds=2,
    stages={
        "evolve": StageLoad(20, 2000, 1000, 10.0),
        "respond": StageLoad(15, 1500, 3000, 20.0),
        "score": StageLoad(15, 9000, 0, 3.0),
    },
    set_bytes=10_000,
    arrow_bytes=20_000,
    journal_bytes=5_000,
    libraries={},
)


def test_a_plan_by_hand():
    """1 million rows are 100,000 times the measured ones."""
    resources = Resources({"evolve": 1000, "respond": 2000, "score": 10_000}, gpus=4, price_per_gpu_hour=2.0)
    made = estimate(MEASURED, resources, 1_000_000)
    assert made.tokens == {"evolve": 100.0, "respond": 300.0, "score": 900.0}  # millions
    seconds = {"evolve": 100e6 / 1000, "respond": 300e6 / 2000, "score": 900e6 / 10_000}
    assert {name: made.hours[name] * 4 * 3600 for name in seconds} == pytest.approx(seconds)
    # 340,000 s of stages, and each of 4 workers loads a model three times in 120 s
    assert made.gpu_hours == pytest.approx((340_000 + 4 * 3 * 120) / 3600)
    assert made.cost == pytest.approx(2 * made.gpu_hours)
    assert made.tasks == 95  # 94.4 hours
    assert (made.set_bytes, made.journal_bytes) == (1e9, 5e8)
    assert made.files == 4 + 2  # 2 GB in files of 500 MB, and a last one of each round
    assert made.hours["finish"] == pytest.approx(2e9 / 98e6 / 3600)
    assert made.hours["upload"] == pytest.approx(1e9 / 50e6 / 3600)
    assert made.longest == "respond"
    assert made.limits == ()
    both = made.hours["finish"] + made.hours["upload"]
    assert made.gpu_hours / made.gpus_until_one_machine_is_slower == pytest.approx(both)


def test_the_measured_throughput_is_used_where_none_is_given():
    made = estimate(MEASURED, Resources({"respond": 300}), 10)
    assert {name: made.hours[name] * 3600 for name in workload.STAGES} == pytest.approx(
        {"evolve": 10, "respond": 10, "score": 3}
    )
    nothing = replace(MEASURED, stages=MEASURED.stages | {"respond": StageLoad()})
    with pytest.raises(ConfigError, match="no tokens of stage 'respond'"):
        estimate(nothing, Resources(), 10)


def test_longer_texts_take_more_tokens_and_bytes_but_no_more_rows():
    one, three = (estimate(MEASURED, Resources(longer=longer), 1000) for longer in (1, 3))
    assert three.tokens == pytest.approx({name: 3 * count for name, count in one.tokens.items()})
    assert three.set_bytes == 3 * one.set_bytes and three.finish_memory == one.finish_memory


def test_small_runs_are_bound_by_loading_and_large_ones_by_memory():
    fast = Resources(dict.fromkeys(workload.STAGES, 1e6), gpus=8)
    small, large = (estimate(MEASURED, fast, rows) for rows in (1000, 2_000_000_000))
    assert small.longest == "start" and small.limits == ()
    assert small.tasks == 8
    reasons = " ".join(large.limits)
    # 3 billion scores at 70 bytes; 4 TB of Arrow data in files of 500 MB
    for found in ("210 GB of memory", "8,002 files", "recommended for one commit", "2.00 TB"):
        assert found in reasons


@pytest.mark.parametrize(
    "wrong",
    [{"gpus": 0}, {"longer": 0}, {"task_hours": -1}, {"price_per_gpu_hour": -1}, {"tokens_per_second": {"score": 0}},
     {"tokens_per_second": {"train": 1}}],
    ids=str,
)  # fmt: skip
def test_figures_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Resources(**wrong)


def test_numbers_as_they_are_read():
    shown = ["0", "0.0123", "1.50", "42.0", "1,230", "269,000"]
    assert [figure(value) for value in (0, 0.01234, 1.5, 42, 1234, 269_039)] == shown
    assert [size(count) for count in (999, 13.9e9, 5e15)] == ["999 B", "13.9 GB", "5,000 TB"]
    assert [duration(hours) for hours in (0.001, 0.5, 3, 72)] == ["3.60 s", "30.0 min", "3.00 h", "3.00 days"]


def test_lines_have_a_cell_for_each_size():
    resources = Resources(gpus=2)
    made = [estimate(MEASURED, resources, rows) for rows in (10, 1000, 10**6)]
    assert {len(line) for line in table(made, resources)} == {4}
    assert not any(line[0].startswith("Cost") for line in table(made, resources))
    text = markdown(MEASURED, resources, made)
    assert "which stands for a GPU here: evolve 100, respond 150, score 3,000" in text


def test_a_measurement_counts_what_the_run_did(tmp_path, monkeypatch):
    make_talkative(monkeypatch)
    model = tmp_path / "model"
    build_llama(context=2048).save_pretrained(model)  # which holds the prompts with their worked examples
    build_tokenizer().save_pretrained(model)
    from hf_evol.models import load_tokenizer
    from hf_evol.run.stages import Stages

    rows = [{"instruction": f"Explain in {n} words why the sea is blue.", "output": "So."} for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = Recipe(
        dataset=str(tmp_path / "rows.jsonl"), model=str(model), rounds=2, max_new_tokens=8, response_max_new_tokens=6
    )
    made = workload.measure(recipe, 4)
    assert (made.n_seeds, made.rounds) == (4, 2)
    evolve, respond, score = (made.stages[name] for name in workload.STAGES)
    assert evolve.requests == 8 and 8 * 8 < evolve.generated_tokens <= 8 * 8 * recipe.tries  # of all tries
    assert respond.requests <= 8 and 0 < respond.generated_tokens <= 6 * respond.requests
    assert score.generated_tokens == 0 < score.prompt_tokens
    assert min(load.seconds for load in made.stages.values()) > 0
    assert made.set_bytes > 0 and made.arrow_bytes > 0 and made.journal_bytes > 0
    stages = Stages.of(recipe)
    ids = [f"rows-{n}" for n in range(4)]
    first = [stages.evolve.prompt(row_id, row["instruction"], 0) for row_id, row in zip(ids, rows, strict=False)]
    first_tokens = stages.evolve.model.count_prompt_tokens(first)
    assert load_tokenizer(stages.models["evolver"]) and evolve.prompt_tokens > first_tokens
    again = workload.measure(recipe, 4)  # nothing is served from a cache or a journal
    assert again.stages["evolve"].generated_tokens == evolve.generated_tokens
    made.save(tmp_path / "made.json")
    assert Workload.load(tmp_path / "made.json") == made


def test_a_judge_is_not_measured(tiny_model):
    with pytest.raises(ConfigError, match="judge"):
        workload.measure(Recipe(model=tiny_model, judge=tiny_model), 1)


def test_a_file_that_is_no_measurement(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for name in ("x.json", "none.json"):
        with pytest.raises(SourceError, match="is no measurement"):
            Workload.load(tmp_path / name)


def test_the_command_needs_a_measurement(capsys):
    assert main(["plan", "--rows", "10"]) == 2
    assert "--measure N" in capsys.readouterr().err
    assert main(["plan"]) == 2


def test_the_command_shows_and_writes_the_plan(tmp_path, capsys):
    MEASURED.save(tmp_path / "m.json")
    options = ["--measurement", str(tmp_path / "m.json"), "--output", str(tmp_path / "plan.md")]
    options += ["--tokens-per-second", "score=10000", "--tokens-per-second", "1000", "--price-per-gpu-hour", "2"]
    assert main(["plan", "--rows", "1000000", *options]) == 0
    out = capsys.readouterr().out
    rates = {"evolve": 1000, "respond": 1000, "score": 10_000}
    made = estimate(MEASURED, Resources(rates, price_per_gpu_hour=2), 1_000_000)
    assert figure(made.gpu_hours) in out and figure(made.cost) in out and "1,000,000" in out
    assert "as given, not measured by us" in out
    assert f"| All GPU hours | {figure(made.gpu_hours)} |" in (tmp_path / "plan.md").read_text()
    assert main(["plan", "--rows", "10", *options, "--tokens-per-second", "many"]) == 2


def test_constants_are_those_measured():
    text = (ROOT / "benchmarks" / "results" / "scale-finish-xeon-2-cores.txt").read_text()
    first = text.split("\n\n")[0]  # 10 million rows
    seconds, _, anonymous = map(float, re.search(r"result.finish +(.+)", first)[1].split())
    arrow = float(re.search(r"([\d.]+) GiB as Arrow data", first)[1]) * 2**30
    rows = int(text.split(" ", 1)[0].replace(",", ""))
    assert arrow / seconds == pytest.approx(plan.FINISH_BYTES_PER_SECOND, rel=0.01)
    assert plan.FINISH_BASE_BYTES + rows * plan.FINISH_BYTES == pytest.approx(anonymous * 2**30, rel=0.1)


def test_the_page_shows_what_its_command_gives(tmp_path, monkeypatch, capsys):
    """To bring the page up to date, put what the command's --output writes between its marks."""
    page = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- plan: begin -->\n(.*)<!-- plan: end -->", page, re.DOTALL)[1]
    command = shlex.split(re.search(r"```bash\nhf-evol (plan .*)\n```", page)[1])
    monkeypatch.chdir(ROOT)
    assert main([*command, "--output", str(tmp_path / "plan.md")]) == 0
    assert shown == (tmp_path / "plan.md").read_text(encoding="utf-8")
