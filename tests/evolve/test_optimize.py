from dataclasses import dataclass, field

import pytest
import yaml
from datasets import Dataset

from hf_evol.errors import ConfigError
from hf_evol.evolve.optimize import MethodOptimizer
from hf_evol.generation.base import Completion
from hf_evol.prompts.auto_evol import AUTO, revised_method
from hf_evol.prompts.evol_instruct import METHODS, Method, resolve_methods

(_, FIRST), *SHOWN = AUTO.template[0][1]
BETTER = FIRST.replace("by that plan", "by that plan with great care")
WORSE = FIRST.replace("by that plan", "by that plan as you like")


@dataclass(frozen=True)
class Evolver:
    """Copies every third instruction, unless told to take care; as told to do what it likes, copies all."""

    name: str = "evolver"
    asked: list = field(default_factory=list, compare=False)

    def check(self, params=None):
        pass

    def identity(self):
        return {"name": self.name}

    def stream(self, chats, params, keys):
        self.asked.extend(chats)
        for place, chat in enumerate(chats):
            yield [(place, Completion(self.reply(chat, keys[place]), "stop", 3, 4))]

    def reply(self, chat, key):
        prompt, given = chat[0]["content"], chat[-1]["content"]
        fails = "as you like" in prompt or (int(given.split()[-1]) % 3 == 0 and "great care" not in prompt)
        final = given if fails else f"{given} in Finnish, and think of a farm animal for each figure."
        return f"Step 1: Methods\n- more\nStep 2: Plan\n.\nStep 3: Rewriting\n.\nStep 4: Final instruction\n{final}"


@dataclass(frozen=True)
class Optimizer(Evolver):
    name: str = "optimizer"
    revisions: tuple = ()

    def reply(self, chat, key):
        prompt = chat[-1]["content"]
        if "between <method>" in prompt:
            return self.revisions[int(key.split("candidate-")[1]) % len(self.revisions)]
        return "Different" if "### Second prompt" in prompt else "Some were copied, for want of care."


def seeds(n=30):
    return Dataset.from_dict({"id": [f"t-{i}" for i in range(n)], "instruction": [f"Count to {i}" for i in range(n)]})


def turns_of(method):
    ((_, turns),) = method.template
    return turns


def search(*revisions, **options):
    settings = {"steps": 1, "candidates": len(revisions), "batch_size": 6, "held_out": 12, "journal": False}
    return MethodOptimizer(Evolver(), Optimizer(revisions=revisions), **settings | options)


def test_the_method_that_fails_least_is_kept():
    optimizer = search(f"<method>{WORSE}</method>", f"Sure!\n<method>\n{BETTER}\n</method>", "I would rather not.")
    found = optimizer.optimize(seeds())
    held_out = seeds().shuffle(seed=0).select(range(12))["instruction"]
    expected = sum(int(text.split()[-1]) % 3 == 0 for text in held_out) / 12
    first, step = found.record
    assert 0 < expected == first["failure_rate"] and first["failures"] == {"unchanged": round(12 * expected)}
    assert (
        found.failure_rate == 0
        and turns_of(found.method) == (("system", BETTER), *SHOWN)
        and found.method.name == "auto_1_1"
    )
    worse, better, none = step["candidates"]
    assert worse["failure_rate"] == 1 and not worse["taken"] and better["taken"]
    assert none == {"rejected": "no_method", "reply": "I would rather not."}
    assert "for want of care" in step["report"]


def test_calls_are_bounded_and_counted_from_above():
    optimizer = search(f"<method>{BETTER}</method>", steps=9, max_calls=24 + 2 * 32)
    found = optimizer.optimize(seeds())
    made = len(optimizer.evolver.asked) + len(optimizer.optimizer.asked)
    assert made <= found.calls == 24 + 2 * (6 + 1 + 25) <= optimizer.max_calls
    assert "stopped" in found.record[-1] and len(found.record) == 4


def test_nothing_better_keeps_the_first():
    found = search(f"<method>{WORSE}</method>").optimize(seeds())
    assert found.method == AUTO and not found.record[1]["candidates"][0]["taken"]


def test_a_later_step_starts_from_the_best(monkeypatch):
    optimizer = search(f"<method>{BETTER}</method>", steps=2)
    optimizer.optimize(seeds())
    revising = [chat[0]["content"] for chat in optimizer.optimizer.asked if "between <method>" in chat[0]["content"]]
    assert "great care" not in revising[0] and "great care" in revising[1]


def test_what_is_saved_is_a_method_to_run_with(tmp_path):
    found = search(f"<method>{BETTER}</method>").optimize(seeds())
    found.save(tmp_path)
    assert resolve_methods(tmp_path / "method.yaml") == (found.method,)
    assert yaml.safe_load((tmp_path / "method.yaml").read_text())[0]["kind"] == "auto"


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"max_calls": 23}, {"start": METHODS["deepen"]}, {"temperature": -1}, {"held_out": 0}]
)
def test_wrong_settings(wrong):
    with pytest.raises(ConfigError):
        search("x", **wrong)


def test_too_few_rows():
    with pytest.raises(ConfigError, match="17 rows are too few"):
        search("x").optimize(seeds(17))


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (f"<method>{BETTER}</method>", True),
        (f"```\n{BETTER}\n```", True),
        (f"<METHOD>\n```text\n{BETTER}\n```\n</METHOD>", True),
        (BETTER + "\n{instruction}", False),
        (BETTER + "\n{other}", False),
        (BETTER + '\n{"json": 1} {Upper} {}', True),
        (BETTER.replace("Step 4", "Finally"), False),
        ("", False),
    ],
)
def test_revisions_as_models_write_them(reply, kept):
    method = revised_method(reply, AUTO, "auto_1_0")
    assert (method is not None) == kept
    if kept:
        asked, before = (of.prompt("{instruction} {x}") for of in (method, AUTO))
        assert asked[-1]["content"] == "{instruction} {x}" and asked[1:] == before[1:] and asked[0] != before[0]
        assert method.kind == "auto" and method.name == "auto_1_0"


@pytest.mark.parametrize(
    ("revised", "kept"),
    [(BETTER + "\n{instruction}", True), (BETTER, False), (BETTER + "\n{instruction} {instruction}", False)],
)
def test_the_mark_of_the_instruction_is_kept_where_the_prompt_has_it(revised, kept):
    start = Method("own", FIRST + "\n{instruction}", kind="auto")
    method = revised_method(revised, start, "auto_1_0")
    assert (method is not None) == kept
    optimizer = search(f"<method>{revised}</method>", start=start)
    optimizer.optimize(seeds())
    revising = [chat[0]["content"] for chat in optimizer.optimizer.asked if "between <method>" in chat[0]["content"]]
    assert len(revising) == 1 and "Keep the mark {instruction}" in revising[0]


def test_no_mark_is_asked_for_where_the_instruction_is_a_turn_of_its_own():
    optimizer = search(f"<method>{BETTER}</method>")
    optimizer.optimize(seeds())
    assert not any("Keep the mark" in chat[0]["content"] for chat in optimizer.optimizer.asked)


def test_methods_of_two_kinds_are_refused(tmp_path, tiny_model):
    from hf_evol.run.recipe import Recipe
    from hf_evol.run.stages import Stages

    file = tmp_path / "methods.yaml"
    own = {
        "name": "own",
        "template": [{"role": "system", "content": BETTER}, {"role": "user", "content": "{instruction}"}],
        "kind": "auto",
    }
    file.write_text(yaml.safe_dump([own]))
    assert type(Stages.of(Recipe(model=tiny_model, methods=str(file))).evolve).__name__ == "AutoEvolInstruct"
    with pytest.raises(ConfigError, match="can't be mixed"):
        Stages.of(Recipe(model=tiny_model, methods=["deepen", own]))
