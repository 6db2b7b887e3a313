import pytest

from hf_evol.prompts.auto_evol import AUTO, final_instruction, trajectory
from hf_evol.prompts.template import chat
from hf_evol.reading.evolved import read_evolved

SEEDS = [
    "Name {rivers}. Step 4: no",
    "Write a Python function that counts the vowels in a string.",
    "A baker bakes 24 loaves a day and sells 15 of them. How many loaves are left after a week?",
]
FINAL = "Name two rivers, in steps."


@pytest.mark.parametrize(
    "heading",
    [
        "Step 4: Final instruction\n", "step 4: final instruction\n", "STEP 4\n", "Step 4:\n", "Step 4: ", "Step 4 - Review:\n",
        "**Step 4: Final instruction**\n", "**Step 4: Final instruction** ", "### Step 4: Final Instruction\n",
        "### Step 4\n", "Step 4 #Finally Rewritten Instruction#:\n", "**Step 4 #Finally Rewritten Instruction#:**\n",
        "#Finally Rewritten Instruction#:\n", "Final Instruction: ", "**Final Instruction**\n\n", "Finally rewritten:\n",
        "4. Final instruction:\n", "Step 4 – Finally Rewritten Instruction: ", "Step 4. Final version\n", "> Step 4: Final\n",
    ],
)  # fmt: skip
def test_headings_as_models_write_them(heading):
    answer = f"Step 1: Methods\n- add a limit\nStep 2: Plan\nAdd it.\nStep 3: Rewriting\nName rivers.\n{heading}{FINAL}"
    assert final_instruction(answer) == FINAL


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Name two rivers.",
        "Step 1: Methods\n- a\nStep 3: Rewriting\nName rivers.",
        "In step 4 we end.",
        "Finally, go.",
    ],
)
def test_no_heading_is_none_and_not_an_empty_text(answer):
    assert final_instruction(answer) is None


def test_the_last_heading_counts_and_the_text_is_kept_whole():
    answer = "Step 4: Final instruction\nDraft.\n\nStep 4: Final instruction\nSort {x}.\n\n```python\nx: int\n```\nStep by step."
    assert final_instruction(answer) == "Sort {x}.\n\n```python\nx: int\n```\nStep by step."
    assert final_instruction("Step 4: Final instruction\n") == ""


@pytest.mark.parametrize(
    "listed",
    [
        "- add a limit\n- ask for **steps**\n", "* add a limit\n* ask for steps\n", "1. add a limit\n2. ask for steps\n",
        "1) `add a limit`\n\n2) ask for steps\n", "Some ways:\n  • add a limit\n  • ask for steps\n",
    ],
)  # fmt: skip
def test_trajectories(listed):
    rest = "Step 2: Plan\n- not this\nStep 3: Rewriting\nx\nStep 4: Final instruction\ny"
    for heading in ("Step 1: Methods\n", "**Step 1 #Methods List#:**\n", "### Step 1\n"):
        assert trajectory(heading + listed + rest) == ["add a limit", "ask for steps"]
    assert trajectory(rest) == [] and trajectory("") == []


def test_the_prompt_asks_for_what_is_read():
    for text in SEEDS:
        system, *shown, last = AUTO.prompt(text)
        assert all(f"\nStep {number}: " in system["content"] for number in (1, 2, 3, 4))
        assert "10 to 20 words" in system["content"] and last == {"role": "user", "content": text}
        replies = [turn["content"] for turn in shown if turn["role"] == "assistant"]
        assert len(replies) >= 2
        for given, reply in zip(shown[::2], replies, strict=True):
            final = final_instruction(reply)
            assert len(trajectory(reply)) == 3
            assert read_evolved(final, parent=given["content"], prompt=chat(given["content"]))[1] == "ok"


def test_examples_have_the_four_steps_and_list_what_they_add():
    for domain, turns in AUTO.template:
        replies = [text for role, text in turns if role == "assistant"]
        assert len(replies) >= 2
        for given, reply in zip([text for role, text in turns if role == "user"], replies, strict=False):
            ways, final = trajectory(reply), final_instruction(reply)
            assert ways and len(set(ways)) == len(ways) and final != given
            assert all(f"\nStep {number}: " in f"\n{reply}" for number in (1, 2, 3, 4))
            if domain != "math":  # all but the last, which is another method's
                added = [way.rstrip(".").lower() for way in ways]
                assert all(way in final.lower() for way in added[: max(1, len(added) - 1)])
