import builtins
import json
import time

import pytest

from hf_evol.autoif.completions import parse_completion
from hf_evol.prompts.autoif import CHECKS_SHOWN, python_block
from hf_evol.sandbox import Result, Sandbox

UPPER = "def evaluate(response):\n    return response.isupper()"
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
        ('{"func": "def evaluate(r): return True", "cases": [{"input": "A", "output": true},]}', "no_json"),
    ],
)  # fmt: skip
def test_what_holds_no_function_has_a_reason(text, reason):
    assert parse_completion(text) == reason


CASES = (("A", True), ("b\n`{c}`", False))
TWO = [{"input": text, "output": output} for text, output in CASES]
BLOCK = python_block(UPPER, CASES)
LISTED = 'cases = [("A", True), ("b\\n`{c}`", False)]'


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        BLOCK.replace("```python", "```"),
        BLOCK.replace("```python", "```Py"),
        BLOCK.replace("\n", "\r\n"),
        f"Sure, here it is:\n\n{BLOCK}\n\nIt returns {{True}} for ```A```.",
        BLOCK.removesuffix("\n```"),  # the token limit
        BLOCK.removesuffix("\n]\n```"),
        BLOCK.removesuffix("\n]\n```") + '\n    ("and so',
        BLOCK.removeprefix("```python\n").removesuffix("\n```"),
        BLOCK.removeprefix("```python\n"),
        f"Here is the function:\n{UPPER}\n\nTest cases:\n{LISTED}\n\nIt looks at the letters.",
        f"```python\n{UPPER}\n```\nAnd the cases:\n```python\n{LISTED}\n```",
        f"```python\n{LISTED}\n\n{UPPER}\n```",
        f"```python\n    {UPPER.replace(chr(10), chr(10) + '    ')}\n\n    {LISTED}\n```",
        f"```python\n{UPPER}\n\n    {LISTED}\n```",
        f"```python\n{UPPER}\n\nTEST_CASES: list[tuple[str, bool]] = [('A', True,), ['b\\n`{{c}}`', \"false\"],]\n```",
        f"```python\n{UPPER}\n\ncases = [\n    {{'input': 'A', 'output': True}},  # it's (all) [capitals]\n    {{'input': 'b' '\\n`{{c}}`', 'output': false}}\n]\n```",
        f"```python\n{UPPER}\n\n{LISTED[:-1]}, (\"b\" * 3, True), (3, True), (f'{{x}}', False), ('x', 1), ('a', 'b', True), (['x'], True), 'x', True, maybe]\n```",
        f"```python\n{UPPER}\n\n{LISTED[:-1]},\n    (\"unclosed, True),\n]\n```",
        f"```python\n{UPPER}\n\ncases = [\n    ('unclosed, True),\n    {LISTED[9:]}\n```",
        f"{BLOCK}\n\n```python\n{NEVER}\n\ncases = [('x', False)]\n```",
    ],
)  # fmt: skip
def test_python_as_models_write_it(text):
    assert parse_completion(text) == (UPPER, TWO)


@pytest.mark.parametrize(
    "after",
    [
        "print(evaluate(cases[0][0]))", "# Example usage\nprint(cases)", "for text, output in cases:\n    assert evaluate(text) == output",
        "if __name__ == '__main__':\n    print(1)", f"{NEVER}\n\ncases = [('x', False)]", "cases = [('x', False)]", "evaluate('x')",
        '"""All cases."""', "[print(case) for case in cases]",
    ],
)  # fmt: skip
def test_what_uses_the_cases_is_no_source(after):
    text = f"```python\n{UPPER}\n\n\n{LISTED}\n\n{after}\n```"
    assert parse_completion(text) == parse_completion(text[10:-4]) == (UPPER, TWO)


def test_what_the_function_needs_stays_in_the_source(sandbox):
    helper = "def helper(text):\n\n    return len(text) <= LIMIT\n\nLIMIT = 3"
    source = "import re\n\nevaluates = [\n    1,\n]\ndef evaluate(response):\n    return helper(response)"
    for code in (f"{source}\n\n{LISTED}\n\n{helper}\n\nprint(1)", f"{source}\n{helper}\n{LISTED}"):
        for text in (code, f"```python\n{code}\n```"):
            found, cases = parse_completion(text)
            assert found.split() == f"{source}\n{helper}".split() and cases == TWO
    assert sandbox.call(found, ["abc", "abcd"]) == [Result(True), Result(False)]


def test_fences_in_strings_are_no_ends():
    quoted = "def evaluate(response):\n    return '```' in response"
    text = '"""Look:\n```python\nx = 1\n```\n"""'
    found = parse_completion(
        f"```python\n{quoted}\n\ncases = [\n    ({text}, True),\n    ('no', False),\n]\n```\nDone."
    )
    assert found == (quoted, [{"input": text[3:-3], "output": True}, {"input": "no", "output": False}])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"```python\n{UPPER}\n```", "no_cases"), (UPPER, "no_cases"), (f"```python\n{UPPER}\ncases = []\n```", "no_cases"),
        (f"```python\n{UPPER}\ncases = [('A', 1)]\n```", "no_cases"), (f"```python\n{UPPER}\ncases = [\n```", "no_cases"),
        (f"```python\n{LISTED}\n```", "no_function"), (LISTED, "no_function"),
        (f"```python\n{UPPER.replace('evaluate', 'check')}\n{LISTED}\n```", "no_function"),
        ("```python\nx = 1\n```", "no_json"), ("```python", "no_json"), ("def evaluation is hard", "no_json"),
        (f"```python\n{UPPER}\ncases = [('\ud83d', True)]\n```", "no_cases"), (f"```python\n{UPPER}\ncases = [('\0', True)]\n```", "no_cases"),
        ('{"func": "import re\ndef evaluate(response):\n    return True\ncases = [(\'a\', True)]', "no_json"),  # broken JSON
    ],
)  # fmt: skip
def test_python_without_a_function_or_cases(text, reason):
    assert parse_completion(text) == reason


MANY = 40_000
HOSTILE = [
    "[" * MANY, "(" * MANY, "{" * MANY, "[(" * MANY, '("a", ' * MANY, "('a', True" + ")" * MANY, "-" * MANY + "1", "not " * MANY,
    '("a", ' + "-" * MANY + "True)", '("a"' + " 'a'" * MANY + ", True)", '"""' * MANY, "''' '" * MANY, '"' * (MANY + 1),
    '\\"' * MANY, '"\\\n' * MANY, '\\"\\\n' * MANY, '"""' + '\\"""' * MANY, "# " * MANY, "#\n" * MANY, " " * MANY, "\n" * MANY,
    "," * MANY, ":" * MANY, "a" * MANY, "9" * MANY + ", ('b'", "```\n" * MANY, "```python\ncases = [\n" * 2000, "cases = [" * MANY,
    "\ncases = [('a', True)" * 2000, "{}" * MANY, "<|im_end|><|im_start|>" * 2000, "\x00\x1f\u2028\u202e" * 2000, "def evaluate" * MANY,
    "\ndef evaluate(r):" * 2000, '{"func": ' * 2000, "{'cases': " * 2000,
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_lists_are_read_in_no_time_and_harm_nothing(hostile, recwarn):
    begun = time.monotonic()
    for text in (
        f"```python\n{UPPER}\ncases = [('A', True), {hostile}",
        f"```python\n{UPPER}\ncases = [{hostile}]\n```",
        f"{hostile}\n{UPPER}\n{hostile}",
        f"```python\n{hostile}\n{BLOCK[10:]}",
    ):
        found = parse_completion(text)
        assert found in ("no_json", "no_function", "no_cases") or all(len(case) == 2 for case in found[1])
    assert time.monotonic() - begun < 5 and not recwarn.list


def test_a_list_is_read_up_to_a_bound():
    many = ", ".join(f"('a{n}', True)" for n in range(3000))
    source, cases = parse_completion(f"```python\n{UPPER}\ncases = [{many}]\nLIMIT = 3\n```")
    assert source == f"{UPPER}\n\nLIMIT = 3" and cases == [{"input": f"a{n}", "output": True} for n in range(100)]
    source, cases = parse_completion(
        f"```python\n{UPPER}\ncases = [('a', True), ('{'b' * 200_000}', True)]\nLIMIT = 3\n```"
    )
    assert (source, cases) == (UPPER, [{"input": "a", "output": True}])


def test_the_list_s_plain_values_alone_are_parsed_here(monkeypatch, recwarn):
    compiled, real = [], builtins.compile

    def compile(source, *rest, **more):
        compiled.append(source)
        return real(source, *rest, **more)

    text = f"```python\n{UPPER}\ndata = {{'a': {{1}}}}\ncases = [('\\w', True), (open('x'), True), ('b', [1]), {{'input': 'c', 'output': False}}]\n```"
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "compile", compile)
        source, cases = parse_completion(text)
    assert cases == [{"input": "\\w", "output": True}, {"input": "c", "output": False}] and "data" in source
    assert compiled == ["('\\w', True)", "{'input': 'c', 'output': False}"] and not recwarn.list


(_, FIRST, FIRST_CASES), (_, SECOND, SECOND_CASES), (_, THIRD, THIRD_CASES) = CHECKS_SHOWN


def test_what_is_copied_from_the_examples():
    rule, own = "Write the whole answer in capital letters", (("ALL", True), ("not all", False))
    read = [{"input": text, "output": output} for text, output in own]
    for copied in (
        python_block(FIRST, own), python_block(SECOND, own), python_block(THIRD, own), completion(SECOND, *own),
        python_block(SECOND.replace("    ", "\t").replace(" <= ", "<="), own),
        python_block(f"import re\n\n{SECOND}", own),
        python_block("def evaluate(response):\n    return response[-9:].startswith('Next Stop:')", own),
        python_block(UPPER, FIRST_CASES), completion(UPPER, *THIRD_CASES),
        python_block(UPPER, [("The tram is late.", False), ("A quiet song filled the hall.", False), ("bread needs flour & salt", True)]),
    ):  # fmt: skip
        assert parse_completion(copied, rule) == "copied"
    assert parse_completion(python_block(UPPER, (*own, *SECOND_CASES, ("The library is late today.", True))), rule) == (
        UPPER,
        read,
    )
    changed = SECOND.replace("7", "5")
    assert parse_completion(python_block(changed, own), "Use five words a line") == (changed, read)
    assert parse_completion(python_block(THIRD, own), 'Write no "ZZ" anywhere') == "copied"  # to the letter
    changed = THIRD.replace("words", "found")
    assert parse_completion(python_block(changed, own), 'Write no "ZZ" anywhere') == (changed, read)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as shared:
        yield shared
