import json

import pytest

from hf_evol.autoif.completions import parse_completion
from hf_evol.autoif.sandbox import Sandbox
from hf_evol.autoif.verify import Thresholds, cross_validate
from hf_evol.errors import ConfigError

UPPER = "def evaluate(response):\n    return response.isupper()"
SHORT = "LIMIT = 3\n\n\ndef helper(text):\n    return len(text)\n\n\ndef evaluate(response):\n    return helper(response) <= LIMIT"
NEVER = "def evaluate(response):\n    return False"


def completion(func, *cases, fence=True):
    text = json.dumps({"func": func, "cases": [{"input": i, "output": o} for i, o in cases]})
    return f"Here it is:\n```json\n{text}\n```\nDone." if fence else text


@pytest.mark.parametrize(
    "text",
    [
        completion(UPPER, ("A", True)),
        completion(UPPER, ("A", True), fence=False),
        "Sure. " + completion(UPPER, ("A", True), fence=False) + " Good luck!",
        completion(UPPER, ("A", "True")),
        completion(UPPER, ("A", " true ")),
        completion(UPPER, ("A", True)).replace("\\n", "\n"),  # raw line breaks in a string
        completion(UPPER, ("A", True)).replace("}]}", "},]\n,}").replace("]\n,}", "],\n}"),
        "```\n" + repr({"func": UPPER, "cases": [{"input": "A", "output": True}]}) + "\n```",
        completion(UPPER.split("\n"), ("A", True)),
        completion(UPPER, ("A", True), ("B", "maybe"), (3, True)),  # unusable cases are left out
        "```python\nx = 1\n```\n" + completion(UPPER, ("A", True)),
    ],
)
def test_objects_as_models_write_them(text):
    assert parse_completion(text) == (UPPER, [{"input": "A", "output": True}])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_json"), ("no object here", "no_json"), ('```json\n{"func": "def evaluate(r', "no_json"),
        ('```json\n{"func": "x", "cases": [{"input": "A", "output": True}]}\n```', "no_json"),
        ('{"cases": []}', "no_function"), (completion("def check(r): return True", ("A", True)), "no_function"),
        (completion(UPPER), "no_cases"), (completion(UPPER, ("A", "maybe")), "no_cases"), ("[" * 100_000, "no_json"),
        ('{"func": 3, "cases": 4}', "no_function"), ("{" + "'a': " * 9000 + "}", "no_json"),
    ],
)  # fmt: skip
def test_what_holds_no_function_has_a_reason(text, reason):
    assert parse_completion(text) == reason


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as shared:
        yield shared


def test_functions_and_cases_vouch_for_each_other(sandbox):
    """By hand: UPPER agrees with the cases of "A" and "b", and nothing with those of "C" and "d"; NEVER is right on one
    of the two that are kept."""
    texts = [
        completion(UPPER, ("A", True), ("b", False)),
        completion(UPPER, ("A", True)),
        completion(NEVER, ("C", "true ?"), ("c d", True)),
        completion("def evaluate(response) return", ("d", True)),
        "no json",
    ]
    found = cross_validate("Shout.", texts, sandbox=sandbox)
    assert found == {
        "instruction": "Shout.",
        "status": "ok",
        "functions": [UPPER],
        "accuracies": [1.0],
        "cases": [{"input": "A", "output": True}, {"input": "b", "output": False}],
        "n_functions": 2,
        "n_cases": 4,
        "reasons": {
            "function_repeated": 1, "case_repeated": 1, "syntax_error": 1, "no_json": 1, "case_without_agreement": 2,
            "function_inaccurate": 1,
        },
    }  # fmt: skip


def test_helpers_and_constants_beside_evaluate_work(sandbox):
    found = cross_validate("Be short.", [completion(SHORT, ("abc", True), ("abcd", False))], sandbox=sandbox)
    assert (found["status"], found["functions"], found["accuracies"]) == ("ok", [SHORT], [1.0])


@pytest.mark.parametrize(
    ("thresholds", "status"),
    [
        ("paper", "ok"),
        ("autoif", "too_few_cases"),
        (Thresholds(functions=2), "too_few_functions"),
        (Thresholds(cases=3), "too_few_cases"),
    ],
)
def test_thresholds(sandbox, thresholds, status):
    text = completion(UPPER, ("A", True), ("b", False))
    assert cross_validate("Shout.", [text], thresholds=thresholds, sandbox=sandbox)["status"] == status


def test_hostile_functions_are_wrong_and_harm_nothing(sandbox, tmp_path):
    target = tmp_path / "harm"
    evil = f"import os\ndef evaluate(response):\n    open({str(target)!r}, 'w').write('x')\n    return True"
    found = cross_validate("x", [completion(evil, ("A", True)), completion(UPPER, ("A", True))], sandbox=sandbox)
    assert found["functions"] == [UPPER] and found["reasons"]["call_refused"] == 1 and not target.exists()


def test_nothing_usable_and_wrong_thresholds(sandbox):
    found = cross_validate("x", ["", "no"], sandbox=sandbox)
    assert (found["status"], found["functions"], found["cases"]) == ("too_few_cases", [], [])
    with pytest.raises(ConfigError, match="thresholds must be paper, autoif"):
        cross_validate("x", [], thresholds="strict")
    with pytest.raises(ConfigError, match="accuracy"):
        Thresholds(accuracy=2)
