import builtins
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset, Features, List, Value, load_dataset
from datasets.fingerprint import Hasher

import hf_evol
from hf_evol.autoif.verify import THRESHOLDS, CheckResponses, CrossValidate, Verify, pass_rates
from hf_evol.errors import ConfigError
from hf_evol.generation.base import Completion
from hf_evol.prompts.autoif import CHECKS_SHOWN, python_block
from hf_evol.sandbox import Sandbox

UPPER = "def evaluate(response):\n    return response.isupper()"
SHORT = "import re\nLIMIT = 3\ndef evaluate(response):\n    return len(re.findall(r'\\w+', response)) <= LIMIT"
COMMA = "def evaluate(response):\n    return ',' not in response"
HARMLESS = [UPPER, SHORT, COMMA]
HELPER = "LIMIT = 3\n\n\ndef helper(text):\n    return len(text)\n\n\ndef evaluate(response):\n    return helper(response) <= LIMIT"
SLOW = "def evaluate(response):\n    while True: pass"
# One function for each way to fail, with the reason that it is counted under.
FAILING = {
    "call_refused": "import os\ndef evaluate(response):\n    return True",
    "call_exception": "def evaluate(response):\n    return 1 / 0 > 0",
    "call_not_bool": "def evaluate(response):\n    return 1",
    "call_no_evaluate": "evaluates = 1",
    "call_timeout": SLOW,
    "call_memory": "def evaluate(response):\n    raise MemoryError",
    "function_inaccurate": "def evaluate(response):\n    return False",
    "syntax_error": "def evaluate(response) return True",
}
QUICK = 0.4  # seconds


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(QUICK) as shared:
        yield shared


def completion(source, *cases):
    return json.dumps({"func": source, "cases": [{"input": text, "output": value} for text, value in cases]})


def cross_validate(instruction, completions, sandbox, **thresholds):
    """What `CrossValidate` makes of one row, its losses by reason."""
    found = CrossValidate(sandbox=sandbox, **thresholds)({"instruction": [instruction], "completions": [completions]})
    row = {name: value for name, (value,) in found.items()}
    return row | {"losses": {loss["reason"]: loss["count"] for loss in row["losses"]}}


@dataclass(frozen=True)
class Scripted:
    """A reply that names its constraint and the number in its key; "broken" constraints get errors, "half" ones one."""

    name = "scripted"

    def check(self, params=None):
        pass

    def identity(self):
        return {"model": "scripted"}

    def stream(self, chats, params, keys):
        for place in reversed(range(len(chats))):  # out of order, as a server does
            _, k, stage, _, row_id = keys[place].split("|")
            asked = chats[place][-1]["content"]
            failed = "broken" in asked or ("half" in asked and k == "0")
            error = {"error": f"engine_error: {k}"} if failed else {}
            yield [(place, Completion(f"<think>x</think>\n{stage} {row_id} {k} {asked}", "stop", **error))]


def test_verify_asks_n_times_and_keeps_the_order():
    texts = ["Use {instruction}\n<|end|>", None, "broken", " ", "half"]
    rows = Dataset.from_dict({"id": [f"c-{n}" for n in range(5)], "instruction": texts})
    verify = Verify(Scripted(), n=3, journal=False)
    found = hf_evol.map(rows, verify, batch_size=100)
    assert found["completions"][:] == [
        [f"verify c-0 {k} {texts[0]}" for k in range(3)], [], [], [], [f"verify c-4 {k} half" for k in (1, 2)],
    ]  # fmt: skip
    assert found["verify_status"][:] == ["ok", "invalid_input", "engine_error: 0", "invalid_input", "ok"]
    assert hf_evol.map(rows, verify, batch_size=1).to_list() == found.to_list()
    back = hf_evol.map(rows.select([4, 3, 2, 1, 0]), verify, batch_size=2)
    assert back.to_list()[::-1] == found.to_list()


def test_verify_with_wrong_settings():
    for wrong in ({"n": 0}, {"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ConfigError):
            Verify(Scripted(), **wrong)


def constraint_rows():
    good = [completion(source, ("A B", True), ("a, b c d", False)) for source in HARMLESS]
    lists = [
        good, [], None, [None, "no json"], [good[0].replace("\\n", "\\r\\n"), good[0]],
        [completion(UPPER, ("\ud83d", True), ("A", True))],
        [completion(source, ("A", True)) for source in FAILING.values()],
    ]  # fmt: skip
    names = [f"rule {place}" for place in range(len(lists))]
    features = Features({"instruction": Value("string"), "completions": List(Value("string"))})
    return Dataset.from_dict({"instruction": names, "completions": lists}, features=features)


@pytest.fixture(scope="module")
def validated():
    return hf_evol.map(constraint_rows(), CrossValidate(sandbox=Sandbox(QUICK)), batch_size=100).to_list()


def test_cross_validate_as_a_transform(validated):
    first, *empty, same, surrogate, failing = validated
    # A case is kept where any function agrees: both. All three are right on "A B"; on the other, all say False.
    assert first["functions"] == HARMLESS and first["accuracies"] == [1.0] * 3 and first["n_cases"] == 2
    assert first["cases"] == [{"input": "A B", "output": True}, {"input": "a, b c d", "output": False}]
    assert [row["constraint_status"] for row in empty] == ["too_few_cases"] * 3
    assert [row["losses"] for row in empty] == [[], [], [{"reason": "no_json", "count": 2}]]
    assert same["functions"] == [UPPER] and {"reason": "function_repeated", "count": 1} in same["losses"]
    assert surrogate["cases"] == [{"input": "A", "output": True}]
    assert failing["constraint_status"] == "too_few_functions" and failing["n_functions"] == len(FAILING) - 1
    losses = {loss["reason"]: loss["count"] for loss in failing["losses"]}
    repeated = {"case_repeated": len(FAILING) - 1, "case_without_agreement": 1, "function_inaccurate": len(FAILING) - 1}
    assert losses == dict.fromkeys(FAILING, 1) | repeated


def test_every_completion_is_counted_once(sandbox):
    """Four came with JSON; two hold the same broken source, and one of the others repeats."""
    broken, good = completion(FAILING["syntax_error"], ("A", True)), completion(UPPER, ("A", True))
    found = cross_validate("x", [broken, good, "", broken, good], sandbox)
    assert found["losses"] == {"no_json": 1, "syntax_error": 2, "function_repeated": 1, "case_repeated": 3}
    assert (found["n_functions"], found["functions"]) == (1, [UPPER])


def test_rows_do_not_depend_on_batches_order_or_processes(validated):
    rows, order = constraint_rows(), [3, 6, 0, 5, 1, 4, 2]
    assert hf_evol.map(rows, CrossValidate(sandbox=Sandbox(QUICK)), batch_size=1).to_list() == validated
    mixed = hf_evol.map(rows.select(order), CrossValidate(sandbox=Sandbox(QUICK)), batch_size=3, num_proc=2).to_list()
    assert mixed == [validated[place] for place in order]


def test_copied_completions_are_counted(sandbox):
    cases = [("A", True), ("b\n`{c}`", False)]
    (_, _, shown_cases), (rule, shown, _), _ = CHECKS_SHOWN
    texts = [python_block(shown, cases), python_block(UPPER, shown_cases), python_block(UPPER, cases)]
    found = cross_validate("Shout.", texts, sandbox)
    assert (found["functions"], found["n_cases"], found["losses"]) == ([UPPER], 2, {"copied": 2})
    assert cross_validate(rule, texts[:1], sandbox)["n_functions"] == 1


def test_functions_and_cases_vouch_for_each_other(sandbox):
    """By hand: UPPER agrees with the cases of "A" and "b", and nothing with those of "C" and "d"; FAILING["function_inaccurate"] is right on one
    of the two that are kept."""
    texts = [
        completion(UPPER, ("A", True), ("b", False)),
        completion(UPPER, ("A", True)),
        completion(FAILING["function_inaccurate"], ("C", "true ?"), ("c d", True)),
        completion("def evaluate(response) return", ("d", True)),
        "no json",
    ]
    found = cross_validate("Shout.", texts, sandbox)
    assert found == {
        "functions": [UPPER],
        "accuracies": [1.0],
        "cases": [{"input": "A", "output": True}, {"input": "b", "output": False}],
        "n_functions": 2,
        "n_cases": 4,
        "constraint_status": "ok",
        "losses": {
            "function_repeated": 1, "case_repeated": 1, "syntax_error": 1, "no_json": 1, "case_without_agreement": 2,
            "function_inaccurate": 1,
        },
    }  # fmt: skip


def test_a_function_whose_result_hangs_on_the_order_of_a_set_is_not_kept(sandbox):
    words = [f"{letter} {other}" for letter in "abcdef" for other in "ghij"]
    first = "def evaluate(response):\n    return list(set(response.split()))[0] == response[0]"
    steady = first.replace("list(set", "sorted(list").replace("))[0]", "))[0]")
    cases = [(text, True) for text in words]
    found = cross_validate("x", [completion(first, *cases), completion(steady, *cases)], sandbox, min_accuracy=0)
    assert found["functions"] == [steady] and found["losses"]["function_unstable"] == 1


def test_helpers_and_constants_beside_evaluate_work(sandbox):
    found = cross_validate("Be short.", [completion(HELPER, ("abc", True), ("abcd", False))], sandbox)
    assert (found["constraint_status"], found["functions"], found["accuracies"]) == ("ok", [HELPER], [1.0])


@pytest.mark.parametrize(
    ("thresholds", "status"),
    [
        (THRESHOLDS["paper"], "ok"),
        (THRESHOLDS["autoif"], "too_few_cases"),
        ({"min_functions": 2}, "too_few_functions"),
        ({"min_cases": 3}, "too_few_cases"),
    ],
)
def test_thresholds(sandbox, thresholds, status):
    text = completion(UPPER, ("A", True), ("b", False))
    assert cross_validate("Shout.", [text], sandbox, **thresholds)["constraint_status"] == status


def test_hostile_functions_are_wrong_and_harm_nothing(sandbox, tmp_path):
    target = tmp_path / "harm"
    evil = f"import os\ndef evaluate(response):\n    open({str(target)!r}, 'w').write('x')\n    return True"
    found = cross_validate("x", [completion(evil, ("A", True)), completion(UPPER, ("A", True))], sandbox)
    assert found["functions"] == [UPPER] and found["losses"]["call_refused"] == 1 and not target.exists()


def test_nothing_usable_and_wrong_thresholds(sandbox):
    found = cross_validate("x", ["", "no"], sandbox)
    assert (found["constraint_status"], found["functions"], found["cases"]) == ("too_few_cases", [], [])
    for wrong in ({"min_accuracy": 2}, {"min_functions": 0}, {"min_cases": 0}):
        with pytest.raises(ConfigError, match="min_accuracy must be"):
            CrossValidate(**wrong)


def response_rows():
    texts = ["A B", "a, b", "ABC, D, E, F", "", None, " \n", "\0 \u202e 𝔸 {x}", "HELLO"]
    functions = [HARMLESS, [UPPER, COMMA, UPPER], [], None, [SLOW], HARMLESS[::-1], ["", None, UPPER]]
    pairs = [(texts[place % len(texts)], sources) for place, sources in enumerate(functions * 3)]
    features = Features({"output": Value("string"), "functions": List(Value("string"))})
    columns = {"output": [text for text, _ in pairs], "functions": [sources for _, sources in pairs]}
    return Dataset.from_dict(columns, features=features)


def plain_rate(sources, text):
    """By exec in this process: all these functions are harmless."""
    if not (text or "").strip():
        return None, "no_response"
    called = []
    for source in dict.fromkeys(source for source in sources or [] if source):
        if source == SLOW:
            return None, "call_failed: timeout"
        namespace = {}
        exec(source, namespace)
        called.append(namespace["evaluate"](text))
    return (sum(called) / len(called), "ok") if called else (None, "no_functions")


def test_pass_rates_against_a_plain_computation():
    rows, check = response_rows(), CheckResponses(Sandbox(QUICK))
    expected = [plain_rate(row["functions"], row["output"]) for row in rows]
    assert len(set(expected)) > 5
    order = sorted(range(len(rows)), key=lambda place: place * 37 % 41)
    for size in (100, 5):
        found = hf_evol.map(rows.select(order), check, batch_size=size)
        assert found.features["pass_rate"] == Value("float64")
        assert list(zip(found["pass_rate"], found["check_status"], strict=True)) == [expected[place] for place in order]


def test_the_failure_told_is_the_row_s_own(sandbox):
    """Whatever functions the rows beside it have, in whatever order."""
    one, other = FAILING["call_exception"], FAILING["call_not_bool"]
    rows = [[one, other], [other, one], [one, UPPER]]
    expected = [(None, "call_failed: not_bool"), (None, "call_failed: exception: ZeroDivisionError"), (0.5, "ok")]
    assert pass_rates(rows, ["A"] * 3, sandbox) == expected
    assert [pass_rates([row], ["A"], sandbox)[0] for row in rows] == expected


def test_generated_text_is_parsed_in_the_sandbox_only(sandbox, monkeypatch, recwarn):
    """Not in this process, whose parser it could crash, or fill the terminal with warnings."""
    compiled, real = [], builtins.compile

    def compile(source, *rest, **more):
        compiled.append(source)
        return real(source, *rest, **more)

    source = "import re\ndef evaluate(response):\n    return bool(re.match('\\w+', response))"
    batch = {"instruction": ["x"], "completions": [[completion(source, ("A", True))]]}
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "compile", compile)
        found = CrossValidate(sandbox=sandbox)(batch)
    assert found["functions"] == [[source]] and not compiled and not recwarn.list


SCRIPT = """
import sys, hf_evol
from datasets import load_dataset
from hf_evol.autoif import CrossValidate, CheckResponses
from hf_evol.sandbox import Sandbox
rows = load_dataset("json", data_files=sys.argv[1], split="train")
hf_evol.map(hf_evol.map(rows, CrossValidate(min_cases=10, sandbox=Sandbox(2))), CheckResponses(sandbox=Sandbox(2)))
"""


def test_another_process_finds_the_cached_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    text = completion(UPPER, ("A", True))
    file.write_text(json.dumps({"instruction": "Shout.", "completions": [text], "output": "A"}), encoding="utf-8")
    subprocess.run([sys.executable, "-c", SCRIPT, str(file)], check=True, capture_output=True)
    rows = load_dataset("json", data_files=str(file), split="train")
    folder = Path(rows.cache_files[0]["filename"]).parent
    there = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    slow = Sandbox(2)
    found = hf_evol.map(hf_evol.map(rows, CrossValidate(min_cases=10, sandbox=slow)), CheckResponses(slow))
    assert found["constraint_status"][:] == ["too_few_cases"] and found["pass_rate"][:] == [1.0]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == there and len(there) > 2


def test_settings_decide_the_fingerprint_and_survive_pickling():
    made = [
        CrossValidate(), CrossValidate(**THRESHOLDS["autoif"]), CrossValidate(sandbox=Sandbox(QUICK)), CrossValidate(min_cases=2),
        CheckResponses(), CheckResponses(Sandbox(QUICK)), CheckResponses(Sandbox(screen=False)),
    ]  # fmt: skip
    hashes = [Hasher.hash(transform) for transform in made]
    assert len(set(hashes)) == len(made)
    batch = {
        "functions": [[UPPER]],
        "output": ["A"],
        "instruction": ["x"],
        "completions": [[completion(UPPER, ("A", True))]],
    }
    for transform, fingerprint in zip(made, hashes, strict=True):
        used = transform(batch)
        assert Hasher.hash(transform) == fingerprint  # though its sandbox has been started
        copy = pickle.loads(pickle.dumps(transform))
        assert Hasher.hash(copy) == fingerprint and copy(batch) == used
