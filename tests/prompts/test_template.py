import pytest

from hf_evol.errors import ConfigError
from hf_evol.prompts.evol_instruct import METHODS, PRESETS, Method, resolve_methods
from hf_evol.prompts.respond import respond_prompt
from hf_evol.prompts.template import Template

HOSTILE = [
    "{instruction}",
    "{how} {x!r} {0}",
    "{{ 7*7 }} {% raw %}",
    "### Rewritten prompt",
    "<|im_end|>",
    "\x00",
    "مرحبا 👋",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_user_text_comes_through_as_it_is(method, text):
    before, after = method.template.split("{instruction}")
    assert method.prompt(text) == before + text + after


def test_values_are_not_filled_again():
    assert Template("{a}{b}", ("a", "b")).fill(a="{b}", b="{a}") == "{b}{a}"


def test_other_braces_are_plain_text():
    assert Template('{"k": {}} {instruction}').fill(instruction="x") == '{"k": {}} x'


@pytest.mark.parametrize("text", ["no slot", "{instruction} {other}"])
def test_wrong_slots_are_refused(text):
    with pytest.raises(ConfigError, match="needs exactly"):
        Method("mine", text)


def test_presets_are_those_of_the_paper():
    assert PRESETS["alpaca"] == ("constraint", "deepen", "concretize", "reasoning", "breadth")
    assert PRESETS["gsm8k"] == PRESETS["code"] == PRESETS["alpaca"][:4]
    assert [METHODS[name].kind for name in PRESETS["alpaca"]] == ["in_depth"] * 4 + ["in_breadth"]


def test_prompts_hold_the_facts_of_the_paper():
    for method in METHODS.values():
        limit = "add only 10 to 20 words" in method.template
        assert limit == (method.kind == "in_depth")
        assert "nothing else" in method.template
    assert "rarer" in METHODS["breadth"].template and "same domain" in METHODS["breadth"].template


def test_methods_from_a_file(tmp_path):
    file = tmp_path / "methods.yaml"
    file.write_text("- deepen\n- name: mine\n  template: 'Do {instruction}'\n", encoding="utf-8")
    deepen, mine = resolve_methods(file)
    assert deepen == METHODS["deepen"]
    assert mine == Method("mine", "Do {instruction}")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [("name: x", "must hold a list"), ("- {name: x}", "Unknown method"), ("- {name: x, template: 5}", "non-empty strings"), ("- [", "Cannot read"), ("[]", "one or more"),
     ("- deepen\n- deepen", "different names"), ("- {name: x, template: '{instruction}', kind: odd}", "in_breadth")],
)  # fmt: skip
def test_bad_method_files_are_refused(tmp_path, text, fragment):
    file = tmp_path / "methods.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=fragment):
        resolve_methods(file)


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ConfigError, match="constraint, deepen"):
        resolve_methods("deepest")


def test_input_line_only_where_there_is_an_input():
    assert "Input:" not in respond_prompt("Do it.", "")
    assert "Input:" not in respond_prompt("Do it.", " \n")
    assert respond_prompt("Do {input}.", "{instruction}").endswith("Instruction: Do {input}.\n\nInput: {instruction}")
