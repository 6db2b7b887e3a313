import json

import pytest
from datasets import Dataset

import hf_evol
from hf_evol.autoif.verify import pass_rates
from hf_evol.constraints.constraint import Constraint
from hf_evol.constraints.named import is_countable, is_telling, measurable
from hf_evol.errors import ColumnError, ConfigError, HfEvolError
from hf_evol.generation.base import Completion
from hf_evol.reading.conditions import conditions, says_yes
from hf_evol.sandbox import Sandbox

PROSE = (
    "The tide pool is a small world of its own. Crabs hide below the weed, and snails graze on the rocks. When the tide returns, "
    "the pool is cold and full of food again. Children love the pool, as every stone in the pool may hide a surprise."
)
CODE = "def sum_even(numbers):\n    total = 0\n    for number in numbers:\n        if number % 2 == 0:\n            total += number\n    return total"
MATHS = "Ann picks 3*4 = <<3*4=12>>12 apples on Monday.\nShe then has 12+5 = <<12+5=17>>17 apples.\n#### 17"
LIST = "- Drink a glass of water.\n- Open the window.\n- Stretch your arms and legs.\n- Make your bed."
VERSE = "The moon is up, the lamps are low,\nthe ships come home, the cold winds blow.\nA bell is heard across the bay,\nand so we end another day."
MARKED = (
    "## You need\n- a cup of flour\n- **two** eggs\n- salt\n\n## Do this\n- Mix it all.\n- **Bake** it.\n- Let it cool."
)
GOOD = [
    ("Describe a tide pool", PROSE),
    ("Write a Python function that adds up the even numbers of a list.", CODE),
    ("Ann picks three apples an hour for four hours, and has five more at home. How many has she?", MATHS),
    ("What can I do after getting up?", LIST),
    ("Write a poem about an evening at sea.", VERSE),
    ("Is 91 a prime number?", "No"),
    ("What is seven times eight?", "56"),
    ("How do I bake this?", MARKED),
    ("Turn the list into an object:", '{"a": 1, "b": 2}'),
    ("Write to the landlord.", "Dear [name],\n\nThe heating in our flat has failed. Please send someone on [day], as it is cold.\n\nP.S. The bell is broken, too."),
]  # fmt: skip
OF_PROSE = {
    "words",
    "sentences",
    "longest_sentence",
    "paragraphs",
    "capital_letters",
    "occurrences",
    "commas",
    "last_words",
}


def made(pairs, **settings):
    """A row for each instruction and response."""
    rows = {"id": [f"set-{number}" for number in range(len(pairs))]}
    rows |= dict(zip(("instruction", "output"), map(list, zip(*pairs, strict=True)), strict=True))
    found = hf_evol.BackTranslate(**settings)(rows)
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def drawn(pair, **settings):
    """What many draws for one row give, as constraints."""
    return [Constraint.of(one) for row in made([pair] * 60, **settings) for one in row["checks"]]


def test_every_constraint_is_met_asked_once_and_checked_as_those_of_autoif():
    rows = made(GOOD * 8)
    assert {row["back_translate_status"] for row in rows} == {"ok"}
    for row, (instruction, response) in zip(rows, GOOD * 8, strict=True):
        assert row["parent_instruction"] == instruction and instruction in row["instruction"]
        assert 1 <= len(row["constraints"]) == len(row["checks"]) == len(row["functions"]) <= 3
        assert all(constraint in row["instruction"] for constraint in row["constraints"])
        kinds = [one["kind"] + Constraint.of(one).bound for one in row["checks"]]
        assert len(set(kinds)) == len(kinds)
        assert all(Constraint.of(one).holds(response) for one in row["checks"])
    with Sandbox() as sandbox:
        rates = pass_rates([row["functions"] for row in rows], [response for _, response in GOOD * 8], sandbox)
        assert rates == [(1.0, "ok")] * len(rows)
        others = pass_rates([row["functions"] for row in rows], ["aardvarks"] * len(rows), sandbox)
    assert sum(rate < 1 for rate, _ in others) > len(rows) / 2  # so the functions do tell responses apart


def test_a_row_is_the_same_in_any_arrangement():
    rows = made(GOOD)
    for place, pair in enumerate(GOOD):
        alone = {"id": [f"set-{place}"], "instruction": [pair[0]], "output": [pair[1]]}
        assert {name: [value] for name, value in rows[place].items()} == hf_evol.BackTranslate()(alone)
    given = {
        "id": [f"set-{n}" for n in range(len(GOOD))],
        "instruction": [a for a, _ in GOOD],
        "output": [b for _, b in GOOD],
    }
    mapped = hf_evol.map(Dataset.from_dict(given), hf_evol.BackTranslate(), batch_size=2)
    assert mapped.select_columns(list(rows[0])).to_list() == rows
    assert made(GOOD, seed=1) != rows


def test_bounds_are_such_as_people_state():
    for one in drawn(GOOD[0]):
        if one.kind == "words":
            assert (
                all(bound is None or bound % 5 == 0 for bound in (one.at_least, one.at_most)) and one.bound != "exactly"
            )
    assert {one.kind for one in drawn(GOOD[0])} >= {"words", "sentences", "occurrences"}
    assert {one.kind for one in drawn(GOOD[5])} == {"choices", "words"}
    assert {one.kind for one in drawn(GOOD[6])} == {"bare_numbers"}


def test_code_is_not_asked_for_prose():
    kinds = {one.kind for one in drawn(GOOD[1])}
    assert kinds >= {"lines", "functions", "constructs", "comments", "uneven_indents"} and not kinds & OF_PROSE


def test_constructs_of_one_language_are_not_asked_of_another():
    form = "<form>\n  <select>\n    <option>one</option>\n  </select>\n  <label for='a'>A</label>\n</form>"
    said = " ".join(one for row in made([("Write an HTML form.", form)] * 60) for one in row["constraints"])
    assert "JavaScript" in said and not any(word in said for word in ("subquer", "loop", "JOIN", "function"))


def test_keywords_are_no_names_and_neither_given_nor_banned_where_given():
    for one in drawn(GOOD[0]):
        if one.kind == "occurrences" and one.bound == "some":
            assert one.parameters["text"] not in ("tide", "pool", "describe", "small", "again", "returns")
        if one.kind == "occurrences" and one.bound == "none":
            assert one.parameters["text"] not in ("tide", "pool", "describe")


@pytest.mark.parametrize(
    ("pair", "kinds"),
    [
        (("Describe a tide pool in four sentences.", PROSE), {"words", "sentences"}),
        (("List in bullet points what to do after getting up.", LIST), {"bullets"}),
        (("Write a function called sum_even.", CODE), {"functions"}),
        (("Write a loop that adds up even numbers, on a few lines, without comments.", CODE), {"lines", "comments"}),
        (("Write a haiku about an evening at sea.", VERSE), {"lines", "words"}),
        (("Is 91 a prime number? Answer in one word.", "No"), {"choices", "words"}),
    ],
)
def test_what_is_asked_already_is_not_asked_again(pair, kinds):
    assert not {one.kind for one in drawn(pair)} & kinds


def test_rows_that_get_nothing_keep_their_place_and_say_why():
    hostile = [
        ("Say something.", None), (None, PROSE), ("Say something.", ""), (" \n", PROSE), ("Say something.", " \t\n\x00"),
        ("Describe the sea.", "word " * 20_000), ("Describe the sea.", "(" * 20_000), ("Write.", "\x1b[31m\u202e{}{0}%s</script>"),
        ("Décris la mer, qui est grande et froide, à ton ami.", "La mer est grande et froide, et nous aimons la voir chaque été."),
        ("Describe the sea.", "海は広くて青いです。" * 9), ("Describe the sea.", "البحر واسع وأزرق، ونحن نحب أن نراه كل صيف. " * 4),
        ("Explain sorting.", "Sorting puts things in order. For example:\nnumbers.sort()\nprint(numbers)\nThis changes the list in place."),
    ]  # fmt: skip
    rows = made(hostile)
    assert [row["back_translate_status"] for row in rows] == ["invalid_input"] * 4 + ["no_constraint"] * 8
    assert [row["instruction"] for row in rows] == [instruction for instruction, _ in hostile]
    assert all(row["constraints"] == row["functions"] == row["checks"] == [] for row in rows)


def test_braces_and_markup_of_an_instruction_stay_text():
    instruction = "Describe {constraints} of <b>{instruction}</b> and {0} in a tide pool\x1b"
    (row,) = made([(instruction, PROSE)])
    assert row["back_translate_status"] == "ok" and instruction in row["instruction"]


def test_failed_rows_stay_as_they_are_and_earlier_functions_are_kept():
    batch = {
        "id": ["a-0", "a-1"], "instruction": ["Describe a tide pool."] * 2, "output": [PROSE] * 2, "parent_instruction": ["A pool?"] * 2,
        "response_status": ["cut_off", "ok"], "functions": [None, ["def evaluate(response):\n    return True"]],
    }  # fmt: skip
    found = hf_evol.BackTranslate(max_constraints=1)(batch)
    assert found["back_translate_status"] == ["not_answered", "ok"]
    assert found["parent_instruction"] == ["A pool?", "Describe a tide pool."]
    assert [len(functions) for functions in found["functions"]] == [0, 2]
    assert found["functions"][1][0] == batch["functions"][1][0]


def test_settings_and_columns_are_checked():
    with pytest.raises(ConfigError, match="max_constraints must be 1 or more; got 0"):
        hf_evol.BackTranslate(max_constraints=0)
    with pytest.raises(ColumnError, match="Column 'id' not found"):
        hf_evol.BackTranslate()({"instruction": ["a"], "output": ["b"]})


def test_the_command_writes_rows_and_a_card_that_counts_kinds(tmp_path, monkeypatch, capsys):
    from hf_evol.cli.main import main

    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"instruction": a, "output": b}) for a, b in [*GOOD, ("Say nothing.", "")]]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main(["back-translate", "--dataset", "rows.jsonl", "--max-constraints", "2", "--output", "out"]) == 0
    assert f"Constraints: ok {len(GOOD)}, invalid_input 1" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    (stage,) = record["stages"]
    assert stage["counts"] == {"ok": len(GOOD), "invalid_input": 1} and sum(stage["constraints"].values()) >= len(GOOD)
    assert stage["settings"]["max_constraints"] == 2
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{sum(stage['constraints'].values())} in all: " in card and "back\\_translate\\_status" in card
    assert len(record["examples"]) == 3
    assert (
        main(["back-translate", "--dataset", "out", "--seed", "1", "--output", "again"]) == 0
    )  # adds to what is there
    stages = json.loads((tmp_path / "again" / "provenance.json").read_text(encoding="utf-8"))["stages"]
    assert [entry["stage"] for entry in stages] == ["back-translate"] * 2


NAMED = """Here are five conditions:
1. Write at most 60 words.
2. **Tone:** Use a calm and friendly tone.
3. Write at least 300 words.
4. Write it as a poem.
5. Is it short?
6. Say that crabs hide below the weed.
7. Describe a tide pool.
- Speak to children.
- Use a calm and friendly tone!"""
CALM, CHILDREN, SHORT = "Use a calm and friendly tone.", "Speak to children.", "Write at most 60 words."


class Model:
    """Names constraints, and says of each whether a response meets and whether it breaks it."""

    name = "a-model"

    def __init__(
        self,
        named=NAMED,
        says=lambda asked: "Yes" if ("poem" in asked) == ("break" in asked) else "No",
        n_parameters=None,
    ):
        self.named, self.says, self.n_parameters, self.asked = named, says, n_parameters, []

    def identity(self):
        return {"name": self.name}

    def check(self, params=None):
        pass

    def stream(self, chats, params, keys):
        assert params.temperature == 0
        for place, turns in enumerate(chats):
            asked = turns[-1]["content"]
            self.asked.append(asked)
            reply = self.named if asked.startswith("Task: ") else self.says(asked.partition("Condition: ")[2])
            yield [(place, reply if isinstance(reply, Completion) else Completion(reply, "stop"))]


def named_by(model, pair=GOOD[0], n=60, **settings):
    """Of many draws, the constraints with their checks, and the functions, of rows that got some."""
    rows = made([pair] * n, model=model, journal=False, max_constraints=2, **settings)
    assert {row["back_translate_status"] for row in rows} == {"ok"}
    return rows, {said: check for row in rows for said, check in zip(row["constraints"], row["checks"], strict=True)}


def test_what_a_model_names_is_kept_where_code_or_a_judge_finds_it_met():
    rows, said = named_by(Model())
    judged = {"kind": "judged", "parameters": json.dumps({"judge": "a-model"})}
    assert said[CALM] == said[CHILDREN] == judged
    assert Constraint.of(said[SHORT]) == Constraint("words", None, 60)
    assert not {"poem", "300", "crabs hide", "short?"} & {
        part for text in said for part in ("poem", "300", "crabs hide", "short?") if part in text
    }
    for row in rows:
        assert all(text in row["instruction"] for text in row["constraints"])
        assert len(row["functions"]) == sum(check["kind"] != "judged" for check in row["checks"])
    assert rows == [*made([GOOD[0]] * 60, model=Model(), journal=False, max_constraints=2)]
    other = Model()
    _, by_other = named_by(Model(), judge=other)
    assert by_other[CALM] == judged and other.asked and all(asked.startswith("Response: ") for asked in other.asked)


@pytest.mark.parametrize("says", ["Yes", "No", "?", "Maybe yes"])
def test_a_judge_that_says_the_same_to_all_finds_nothing_met(says):
    _, said = named_by(Model(says=lambda asked: says))
    assert CALM not in said and CHILDREN not in said and SHORT in said


def test_a_small_judge_is_not_believed():
    model = Model(n_parameters=135_000_000)
    _, said = named_by(model)
    assert CALM not in said and SHORT in said and all(asked.startswith("Task: ") for asked in model.asked)
    assert CALM in named_by(model, judge=Model(n_parameters=1_000_000_000))[1]


def test_rows_that_code_has_nothing_for_may_get_what_a_model_names():
    how = "Call it like so, and it prints the sum of both numbers that you give it:"
    code = "def add(a, b):\n    return a + b"
    mixed = ("How do I add numbers?", f"{how}\n\n{code}\n\nIt is quick, and it works for negative numbers, too.")
    assert made([mixed])[0]["back_translate_status"] == "no_constraint"
    assert {CALM, CHILDREN, SHORT} <= set(named_by(Model(), mixed)[1])
    foreign = ("Beschreibe den kleinen Hafen und seine sehr alten Schiffe und ihre Lampen.", PROSE)
    model = Model()
    assert (
        made([foreign], model=model, journal=False)[0]["back_translate_status"] == "no_constraint" and not model.asked
    )


def test_requests_that_fail_are_said_and_others_go_on():
    broke, long = (Completion("", "error", error=error) for error in ("engine_error: broke", "too_long: 9 tokens"))
    for model in (Model(named=broke), Model(says=lambda asked: broke)):
        (row,) = made([GOOD[0]], model=model, journal=False)
        assert row["back_translate_status"] == "engine_error: broke" and row["instruction"] == GOOD[0][0]
        assert row["constraints"] == row["checks"] == row["functions"] == []
    (row,) = made([GOOD[0]], model=Model(named=long), journal=False)
    assert row["back_translate_status"] == "ok" and row["constraints"]


@pytest.mark.parametrize(
    ("text", "meets", "breaks"),
    [
        ("Do not use more than 3 words.", "one two three", "one two three four"),
        ("Use 3 words or fewer", "one two three", "one two three four"),
        ("Mention the phrase 'old mill' at least once.", "The old mill.", "The mill is old."),
        ("Format the answer as JSON.", "[1]", "one"),
        ("Write fewer than five sentences.", "The sun sets. The owl calls.", "The sun sets. The owl calls. The dog barks. The cat runs. All sleep."),
        ("Write more than 3 words.", "one two three four", "one two three"),
        ("Answer in exactly two paragraphs.", "a\n\nb", "a\n\nb\n\nc"),
        ("Use at least two bullet points.", "- a\n- b", "- a"),
        ("Answer with a bulleted list.", "- a", "a"),
        ("Do not use commas.", "a b", "a, b"),
        ("Include the word \"sun\".", "The sun shines.", "The sunny day."),
        ("Avoid the word “sun”.", "The moon.", "The sun."),
        ("Put the answer into a table.", "| a |\n| - |\n| b |", "a b"),
    ],
)  # fmt: skip
def test_what_code_can_check_of_a_text(text, meets, breaks):
    constraint = measurable(text)
    assert constraint.holds(meets) and not constraint.holds(breaks)


@pytest.mark.parametrize(
    "text",
    [
        "Keep each sentence under 20 words.",
        "Begin each point with a verb.",
        "Write about 80 words.",
        "Give two reasons.",
        "Do not use 80 words.",
        "Use exactly one example.",
        "Use a numbered list without sub-items.",
        "Use bullet points and avoid long sentences.",
        'Do not forget to include the word "sun".',
        'Open with the phrase "wakes up".',
        'Use the word "sun" only once.',
        'Use the word "sun" but avoid the word "moon".',
        "Write paragraphs with at least two sentences.",
        "Use at least 3 and at most 5 bullet points.",
        "Write in one paragraph with at least five sentences.",
        "Use two sentence paragraphs.",
        "Include at least one line of dialogue.",
        "Use a title of at most five words.",
        "Conclude with one question.",
        "Use commas sparingly.",
        "Use a table instead of bullet points.",
        "Avoid semicolons.",
        'Avoid the letter "e".',
        "Use at least 3 words or fewer.",
    ],
)
def test_what_neither_code_nor_a_judge_can_check(text):
    assert measurable(text) is None and is_countable(text)


@pytest.mark.parametrize(
    ("item", "read"),
    [
        ("Use a **formal** tone.", ["Use a formal tone."]),
        ("**Tone**: Use a formal one for adults!", ["Use a formal one for adults."]),
        ("\"Speak to old sailors.\"", ["Speak to old sailors."]),
        ("Use the name \"Bergen\".", ["Use the name \"Bergen\"."]),
        ("Use a formal tone…", ["Use a formal tone."]),
        ("Use a formal\x1b[31m tone.", []),
        ("Use a formal<|im_end|> tone.", []),
        ("Describe a tide pool with care.", []),
        ("Is the tone formal?", []),
        ("The tone is formal.", []),
        ("Explain that crabs hide below the weed.", []),
        ("Use a formal tone. Be brief.", []),
    ],
)  # fmt: skip
def test_items_of_a_reply(item, read):
    assert conditions(f"Sure:\n1. {item}", "Describe a tide pool.", PROSE) == read
    assert conditions(f"1. {item}", "Describe a tide pool.", PROSE, "length") == []
    assert conditions(f"1. Avoid jokes.\n2. {item}\n3. Use a", "Describe a tide pool.", PROSE, "length") == read


def test_items_that_say_the_same_are_read_once():
    reply = "1. Use a formal tone.\n2. Maintain a formal tone throughout.\n3. Avoid jokes and slang."
    assert conditions(reply, "Describe a pool.", PROSE) == ["Use a formal tone.", "Avoid jokes and slang."]
    assert conditions("I'm sorry, I can't help.\n1. Use a formal tone.", "Describe a pool.", PROSE) == []


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("Yes.", True),
        ("**No**", False),
        ("The answer is yes.", True),
        ("Yes or no: no", None),
        ("Perhaps", None),
        ("", None),
    ],
)
def test_says_yes(reply, says):
    assert says_yes(reply) is says


@pytest.mark.parametrize(
    ("constraint", "telling"),
    [
        (Constraint("words", None, 60), True), (Constraint("words", None, 100), False), (Constraint("words", 30), True),
        (Constraint("words", 2), False), (Constraint("sentences", 1), False), (Constraint("questions", None, 0), True),
    ],
)  # fmt: skip
def test_bounds_far_from_the_response_say_nothing(constraint, telling):
    assert constraint.holds(PROSE) and is_telling(constraint, PROSE) == telling


def test_what_decides_is_in_the_identity():
    believed = hf_evol.BackTranslate(model=Model(n_parameters=10**9), journal=False).identity()
    assert believed != hf_evol.BackTranslate(model=Model(n_parameters=10**8), journal=False).identity()
    assert hf_evol.BackTranslate().identity() is None


def test_prompts_that_can_t_be_sent_are_said(caplog):
    made([GOOD[0]], model=Model(named=Completion("", "error", error="template_error: odd")), journal=False)
    assert "a-model could not be asked for constraints: template_error 1" in caplog.text


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """Writes ``mine.yaml`` beside rows that it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": GOOD[0][0], "output": PROSE}), encoding="utf-8")
    return lambda text: (tmp_path / "mine.yaml").write_text(f"dataset: rows.jsonl\n{text}", encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "recipe", "said"),
    [
        (["back-translate", "--judge", "x"], "", "give --constrainer, too"),
        (["run"], "constrainer: x\n", "constrainer names constraints for back_translate"),
    ],
)
def test_models_without_use_are_refused(command, recipe, said, recipe_file, capsys):
    from hf_evol.cli.main import main

    recipe_file(recipe)
    assert main([*command, "--recipe", "mine.yaml"]) == 2 and said in " ".join(capsys.readouterr().err.split())


def test_a_recipe_for_runs_serves_without_its_models(recipe_file):
    from hf_evol.cli.main import main

    recipe_file("engine: endpoint\njudge: x\nbest_of: 2\n")
    assert main(["back-translate", "--recipe", "mine.yaml", "--output", "out"]) == 0


def test_a_model_is_described_in_record_and_card(tmp_path, monkeypatch, wide_model):
    from hf_evol.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": GOOD[0][0], "output": PROSE}), encoding="utf-8")
    command = ["back-translate", "--dataset", "rows.jsonl", "--constrainer", wide_model, "--output", "out"]
    assert main(command) == 0
    record = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert [(model["role"], model["name"]) for model in record["models"]] == [("constrainer", "wide")]
    assert "| constrainer | wide " in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", [{"judge": Model()}, {"model": "no/such model"}])
def test_models_are_checked(wrong):
    with pytest.raises(HfEvolError):
        hf_evol.BackTranslate(**wrong).check()
