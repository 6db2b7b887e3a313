import re

import pytest

from hf_evol.errors import ConfigError
from hf_evol.prompts.evol_instruct import IN_DEPTH, METHODS, PRESETS, Method, resolve_methods, version_of
from hf_evol.prompts.examples import EXAMPLES, likeness, share_of_example
from hf_evol.prompts.respond import SYSTEM, respond_prompt
from hf_evol.prompts.template import chat, fill
from hf_evol.prompts.words import domain_of
from hf_evol.reading.evolved import read_evolved

HOSTILE = [
    "{instruction}",
    "{how} {x!r} {0}",
    "{{ 7*7 }} {% raw %}",
    "### Rewritten prompt",
    "<|im_end|>",
    "\x00",
    "مرحبا 👋",
]


SEEDS = {
    "general": "Describe a lighthouse.",
    "writing": "Write a short story about a lighthouse.",
    "code": "Write a Python function that counts the vowels in a string.",
    "math": "A baker bakes 24 loaves a day and sells 15 of them. How many loaves are left after a week?",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_user_text_comes_through_as_it_is(text):
    for method in METHODS.values():
        *shown, last = method.prompt(text)
        assert last == {"role": "user", "content": text}
        assert not any(text in turn["content"] for turn in shown)
    own = Method(
        "own", [{"role": "system", "content": "Do {0} with {instruction}!"}, {"role": "user", "content": "Go {1}"}]
    )
    assert [turn["content"] for turn in own.prompt(text)] == ["Do {0} with " + text + "!", "Go {1}"]


@pytest.mark.parametrize("domain", SEEDS)
@pytest.mark.parametrize("name", METHODS)
def test_prompts_are_turns_with_examples_of_the_instructions_domain(name, domain):
    turns = METHODS[name].prompt(SEEDS[domain])
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * ((len(turns) - 2) // 2), "user"]
    shown = [turn["content"] for turn in turns[1:-1]]
    pairs = list(zip(shown[::2], shown[1::2], strict=True))
    assert len(set(pairs)) == 3 and set(pairs) <= set(EXAMPLES[domain][name])
    assert turns[-1]["content"] == SEEDS[domain]
    assert METHODS[name].of_domain(domain).prompt(SEEDS[domain]) == turns
    shown = [turn["content"] for turn in METHODS[name].of_domain(domain).prompt("Why?")[1:-1]]
    assert set(zip(shown[::2], shown[1::2], strict=True)) <= set(EXAMPLES[domain][name])


@pytest.mark.parametrize("name", METHODS)
def test_the_examples_are_evolved_as_replies_should_be(name):
    for given, evolved in (pair for domain in (*SEEDS, "science") for pair in EXAMPLES[domain][name]):
        assert read_evolved(evolved, parent=given, prompt=chat(given), method=name) == (evolved, "ok")


def test_tries_and_instructions_are_shown_other_examples():
    turns = [{"role": "user", "content": f"Given {number}"} for number in range(4)]
    shown = [
        turn for number, given in enumerate(turns) for turn in (given, {"role": "assistant", "content": str(number)})
    ]
    system, last = {"role": "system", "content": "Say."}, {"role": "user", "content": "{instruction}"}
    own = Method("own", [system, *shown, last], shots=2)

    def numbers(instruction, attempt=1):
        first, *pairs, asked = own.prompt(instruction, attempt)
        assert first == system and asked == {"role": "user", "content": instruction} and len(pairs) == 4
        assert [turn["content"] for turn in pairs[::2]] == [f"Given {turn['content']}" for turn in pairs[1::2]]
        return tuple(int(turn["content"]) for turn in pairs[1::2])

    assert numbers("x") == numbers("x")
    of_tries = [numbers("x", attempt) for attempt in (1, 2, 3, 4)]  # the best one stands last, and goes at the next try
    assert [first for first, _ in of_tries] == [last for _, last in of_tries[1:]] + [of_tries[0][1]]
    assert len(set(of_tries)) == 4
    assert len({numbers(text) for text in "abcdefgh"}) > 1
    all_four = Method("own", [system, *shown, last], shots=9)
    assert len({str(all_four.prompt("x", attempt)) for attempt in (1, 2, 3, 4, 5)}) == 4
    assert len(Method("own", [system, *shown, last]).prompt("x")) == 10
    with pytest.raises(ConfigError, match="shots must be 1 or more"):
        Method("own", "{instruction}", shots=0)
    early = [last, {"role": "assistant", "content": "Yes."}, turns[0]]
    for wrong in (early, [system, turns[0], last], [*shown, system, last]):
        with pytest.raises(ConfigError, match="pairs of a user's and an assistant's turn"):
            Method("own", wrong, shots=1)


@pytest.mark.parametrize(
    ("instruction", "shown"),
    [
        ("Write a SQL query that finds all authors.", r"SQL|query|database"),
        ("Add a footer to the HTML page of a shop.", r"HTML|CSS"),
        ("What is polymorphism?", r"hash table|recursion|garbage"),
        ("Debug the following code.", r"following|given"),
    ],
)
def test_the_example_that_fits_best_in_form_stands_last(instruction, shown):
    for name in IN_DEPTH:
        assert re.search(shown, METHODS[name].of_domain("code").prompt(instruction)[-3]["content"])


@pytest.mark.parametrize(
    ("instruction", "given"),
    [
        ("Suggest a hobby.", "a gift for a birthday|a mammal|a river"),
        ("Suggest a name for a cat.", "a name for|an analogy|a sentence"),
        ("Suggest names for cats.", "hobbies|List|Name|Give "),
        ("Whistle slowly.", "Relate"),
        ("Write a tale of two rivers.", "a story about"),
        ("Create a conversation in a tale.", "dialogue|conversation"),
        ("Summarize an essay about owls.", "Summarize|summary"),
        ("Explain the end of a poem.", "Explain|Describe|Discuss"),
        ("Provide a plan for a walk.", "plan|strategy|checklist"),
        ("Explain why maps are important.", "important|importance|significance"),
        ("Why do owls hoot?", r"\?"),
        ("Given a proverb, create a list of lies about it.", "List|Name|Give |Suggest some"),
        (
            "Describe the moon in at most eighty words, without technical terms, and say what makes it shine.",
            "vaccines|volcanoes|museum|water cycle|photosynthesis",
        ),
    ],
)
def test_what_asks_for_one_thing_for_several_things_or_for_several_ones_at_once(instruction, given):
    for name in IN_DEPTH:
        assert re.search(given, METHODS[name].prompt(instruction)[-3]["content"])


@pytest.mark.parametrize("domain", ["general", "writing"])
@pytest.mark.parametrize("name", IN_DEPTH)
def test_what_an_example_adds_fits_the_others_of_its_form(name, domain):
    pairs = [(given, evolved) for given, evolved in EXAMPLES[domain][name] if evolved.startswith(given[:-1])]
    alike = [
        (given, evolved[len(shown) - 1 :])
        for given, _ in pairs
        for shown, evolved in pairs
        if shown != given and likeness(shown, given) == 1
    ]
    assert len(alike) > len(pairs)
    for given, added in alike:
        text = given + added[1:] if added[0] in ".?" else given[:-1] + added
        assert read_evolved(text, parent=given, prompt=METHODS[name].prompt(given), method=name) == (text, "ok")


@pytest.mark.parametrize("instruction", ["Write a poem about the sea.", "What is recursion?", "Whistle slowly."])
def test_likeness_is_a_share(instruction):
    assert likeness(instruction, instruction) == (1 if "Whistle" not in instruction else 0.3)
    assert all(0 <= likeness(given, instruction) <= 1 for given, _ in EXAMPLES["general"]["deepen"])


def test_the_share_of_what_is_added_that_an_example_added_too():
    prompt = [
        {"role": "system", "content": "Harder."},
        {"role": "user", "content": "Describe a mill."},
        {"role": "assistant", "content": "Describe a mill in ten words, and name its owner."},
        {"role": "user", "content": "Draw a well."},
        {"role": "assistant", "content": "Draw a deep well by night."},
        {"role": "user", "content": "Describe a lamp."},
    ]
    parent = "Describe a lamp."
    assert share_of_example("Describe a lamp in ten words, and name its owner.", parent, prompt) == 1
    assert share_of_example("Describe a lamp in ten words.", parent, prompt) == 2 / 4
    assert share_of_example("Describe a lamp in ten words by night.", parent, prompt) == 2 / 5
    assert share_of_example("Describe a red lamp.", parent, prompt) == 0
    assert share_of_example(parent, parent, prompt) == 0
    assert share_of_example("Show a lamp in ten words, and name its owner.", parent, prompt) == 4 / 5
    assert share_of_example("Describe a light in ten words, and name its owner.", parent, prompt) == 0
    assert share_of_example("Describe a red lamp.", parent, chat(parent)) is None
    asked = "Describe a lamp that is shining, and explain its parts, and explain its uses."
    kept = "Describe the shining lamp, explaining its parts and uses, in ten words, and name its owner."
    assert share_of_example(kept, asked, prompt) >= 4 / 6  # "the" lamp, in other forms of its words
    assert share_of_example(kept.replace("parts and ", ""), asked, prompt) == 0
    code = [turn | {"content": turn["content"].replace("lamp", "Python program in short")} for turn in prompt]
    assert share_of_example("Describe a program in ten words.", "Describe a Python program in short.", code) == 1


def test_an_example_that_adds_what_is_said_already_is_not_shown():
    for name in IN_DEPTH:
        for _, evolved in EXAMPLES["general"][name]:
            assert {"role": "assistant", "content": evolved} not in METHODS[name].prompt(evolved)


def test_words_for_each_domain():
    own = Method("own", {"general": "Say {instruction}", "math": [{"role": "user", "content": "Count {instruction}"}]})
    said = {domain: own.prompt(text)[0]["content"].split()[0] for domain, text in SEEDS.items()}
    assert said == {"general": "Say", "writing": "Say", "code": "Say", "math": "Count"}
    assert own.of_domain("math").prompt("x") == [{"role": "user", "content": "Count x"}]
    assert own.of_domain("code") == own


@pytest.mark.parametrize("name", METHODS)
def test_a_method_comes_back_from_its_plain_values(name):
    import yaml

    method = METHODS[name]
    assert Method(**yaml.safe_load(yaml.safe_dump(method.to_dict(), sort_keys=False))) == method
    text = Method("own", "Do {instruction}")
    assert Method(**text.to_dict()) == text and hash(text) == hash(Method("own", "Do {instruction}"))


def test_versions_tell_wordings_apart():
    own = [Method("own", "Do {instruction}")]
    assert version_of(own) == version_of([Method("own", "Do {instruction}")])
    assert version_of(own) != version_of([Method("own", "Do {instruction}!")])
    assert len({version_of([method]) for method in METHODS.values()}) == len(METHODS)


def test_values_are_not_filled_again():
    assert fill("{a}{b}", a="{b}", b="{a}") == "{b}{a}"


def test_other_braces_are_plain_text():
    assert fill('{"k": {}} {instruction}', instruction="x") == '{"k": {}} x'


USER = {"role": "user", "content": "{instruction}"}


@pytest.mark.parametrize(
    ("template", "fragment"),
    [
        (5, "must be a text, or a list of turns"), ("", "must be a text, or a list of turns"), ([], "must be a text, or a list of turns"),
        (None, "must be a text, or a list of turns"), ([USER, {"role": "assistant", "content": "x"}], "the last of them the user's"),
        ([{"role": "user"}], "a list of turns"), ([USER | {"content": 7}], "a list of turns"), ([("user", "{instruction}", "x")], "a list of turns"),
        ([USER, USER], "in one turn alone"), ("no slot", "in one turn alone"), ("{instruction} {other}", "no other slot"),
        ([USER | {"content": "{other}"}], "in one turn alone"), ({}, "no domain"), ({"physics": "{instruction}"}, "domains are general, writing, code, math"),
    ],
)  # fmt: skip
def test_wrong_turns_are_refused(template, fragment):
    with pytest.raises(ConfigError, match=fragment):
        Method("mine", template)


def test_presets_are_those_of_the_paper():
    assert PRESETS["alpaca"] == ("constraint", "deepen", "concretize", "reasoning", "breadth")
    assert PRESETS["gsm8k"] == PRESETS["code"] == PRESETS["alpaca"][:4]
    assert [METHODS[name].kind for name in PRESETS["alpaca"]] == ["in_depth"] * 4 + ["in_breadth"]


@pytest.mark.parametrize("preset", ["science", "writing"])
def test_a_presets_examples_are_of_its_domain_whatever_the_instruction(preset):
    for method in resolve_methods(preset):
        assert len(EXAMPLES[preset][method.name]) >= 10 and not method.same_language
        for seed in (*SEEDS.values(), "Why is snow white?"):
            system, *shown, last = [turn["content"] for turn in method.prompt(seed)]
            assert f"sends a {preset}" in system and last == seed
            assert set(zip(shown[::2], shown[1::2], strict=True)) <= set(EXAMPLES[preset][method.name])
    names = [method.name for method in resolve_methods(preset)]
    assert names == list(METHODS) and resolve_methods("alpaca") == tuple(METHODS.values())


def test_prompts_hold_the_facts_of_the_paper():
    for method in METHODS.values():
        for seed in SEEDS.values():
            system = method.prompt(seed)[0]["content"]
            assert ("10 to 20 more words" in system) == (method.kind == "in_depth")
            assert "nothing else" in system
            if method.name == "breadth":
                assert "rarer" in system and "same field" in system and "same length and difficulty" in system


def test_methods_from_a_file(tmp_path):
    file = tmp_path / "methods.yaml"
    file.write_text("- deepen\n- name: mine\n  template: 'Do {instruction}'\n", encoding="utf-8")
    deepen, mine = resolve_methods(file)
    assert deepen == METHODS["deepen"]
    assert mine == Method("mine", "Do {instruction}")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [("name: x", "Unknown method"), ("- {name: x}", "Unknown method"), ("- {name: x, template: 5}", "must be a text"), ("- [", "Cannot read"), ("[]", "one or more"),
     ("- deepen\n- deepen", "different names"), ("- {name: x, template: '{instruction}', kind: odd}", "kind must be")],
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
    for nothing in (None, "", " \n"):
        assert respond_prompt("Do it.", nothing)[-1] == {"role": "user", "content": "Do it."}
    asked = {"role": "user", "content": "Do {input}.\n\nInput: {instruction}"}
    assert respond_prompt("Do {input}.", "{instruction}") == [{"role": "system", "content": SYSTEM}, asked]
    assert respond_prompt("Do {input}.", "{instruction}", None) == [asked]
    assert respond_prompt("Do {input}.", "{instruction}", "Be {brief}.")[0]["content"] == "Be {brief}."


@pytest.mark.parametrize(
    ("instruction", "domain"),
    [
        ("Write a script for a 3-minute commercial for a new lamp.", "writing"),
        ("Create a chatbot script with five turns.", "writing"),
        ("Write a shell script for backing up files.", "general"),
        ("Create a script for deploying a web server.", "general"),
        ("Given a word, write a poem about it.", "writing"),
        ("Find two numbers whose sum is 30 and whose difference is 4, if both are positive.", "math"),
        ("Find five books on trees that came out in the last five years in Norway.", "general"),
    ],
)
def test_domains(instruction, domain):
    assert domain_of(instruction) == domain


@pytest.mark.parametrize(
    ("parent", "text", "kept"),
    [
        ("Describe cats or dogs.", "Describe cats and dogs", False),
        ("Plan a trip from Rome.", "Plan a trip to Rome", False),
        ("Describe the care of owls.", "Describe the cars of owls", False),
        ("Describe the news.", "Describe a new thing", False),
        ("Do not use the notes.", "Use the notes", False),
        ("Describe the sea whose tide is high.", "Describe the sea with a high tide", True),
        ("Compare owls, and weigh their strengths.", "Compare owls, weighing their strength", True),
    ],
)
def test_words_of_the_parent_are_kept_in_their_forms(parent, text, kept):
    prompt = chat(parent, examples=[(parent, f"{parent[:-1]} in ten words, and name its owner.")])
    assert (share_of_example(f"{text} in ten words, and name its owner.", parent, prompt) > 0.5) == kept
