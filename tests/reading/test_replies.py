"""What judges really write, and what it must be read as."""

import time

import pytest

from hf_evol.prompts.judge import LEVELS
from hf_evol.reading.replies import read_level, read_score, read_verdict, strip_thinking

LEVEL_REPLIES = {
    "hard": "hard", "Hard": "hard", "HARD.": "hard", "  medium\n": "medium", "**Very Hard**": "very hard",
    "very_hard": "very hard", "Very-Easy": "very easy", "“Easy”": "easy", "`medium`": "medium", "*Very  easy*.": "very easy",
    "Difficulty: hard.": "hard", "### Level\nMedium": "medium", "Level: Very Hard": "very hard", "Difficulty Level - Easy": "easy",
    "**Difficulty level:** *Medium*": "medium", '```json\n{"difficulty": "medium"}\n```': "medium",
    '{"level": "hard", "reason": "It has many steps, some of them easy."}': "hard", "Answer: \\boxed{easy}": "easy",
    "The difficulty of this instruction is hard.": "hard", "I would rate this instruction as very hard.": "very hard",
    "I'd classify it as **medium**, since it takes some knowledge.": "medium", "This is a medium task.": "medium",
    "Hard. A beginner would not find it easy.": "hard", "Very hard\n\nOne might think it easy.": "very hard",
    "Easy, because it takes one step.": "easy", "It isn't easy; it is hard.": "hard", "It is not an easy one: medium.": "medium",
    "It takes many steps.\n\n**Hard**": "hard", "Some parts are easy, some hard. Overall, I'd say medium.": "medium",
    "Level: easy at first sight. Final level: hard": "hard",
    "Of very easy, easy, medium, hard, and very hard, I choose medium.": "medium",
    "On a scale from very easy to very hard, it is easy.": "easy", "Very easy / easy / medium / hard / very hard: hard": "hard",
    "Difficulty: hard\n\nIt is hard to say more.": "hard", "Level 4: hard": "hard", "hard (4 of 5)": "hard",
    "ｈａｒｄ": "hard", "Hard ⭐⭐⭐⭐": "hard", "很难": None, "": None, "...": None, "42": None, "difficult": None,
    "I can't help with that.": None, "Easy or medium": None, "easy/medium": None, "Difficulty: medium to hard": None,
    "medium-hard": None, "Difficulty: hard or very hard": None, "Between medium and hard": None, "Easy.\nHard.": None,
    "easy for experts but hard for beginners": None, "Extremely hard": None, "moderately easy": None, "not hard": None,
    "It is hard to tell.": None, "Not very hard.": None, "too easy": None, "Very easy, easy, medium, hard, very hard": None,
    "Difficulty: hard (bordering on very hard)": None, "easy-to-follow": None, "Easy → Medium": None, "Easy\nEasy\nEasy": "easy",
    "Medium (leaning towards hard)": None, "It is easy to understand, but hard to answer well.\n\nDifficulty level: medium": "medium",
    "Knowledge: medium\nSteps: easy\nLevel: medium": "medium", "Difficulty: hard\nConfidence: medium": "hard",
    "It has many hard constraints. Therefore, the difficulty level is very hard.": "very hard", "(c) medium": "medium", "There are no hard parts: easy": "easy", "Level: not very hard": None, "harder than most": None,
}  # fmt: skip

SCORE_REPLIES = {
    "85": 85.0, "0": 0.0, "100": 100.0, " 72.5\n": 72.5, "72,5": 72.5, "**85**": 85.0, "85.": 85.0, "85%": 85.0, "85/100": 85.0,
    "85 / 100": 85.0, "Score: 85/100": 85.0, "85 out of 100": 85.0, "85 out of a possible 100.": 85.0, "85 points": 85.0,
    "I'd rate this 70.": 70.0, "I'd rate this a 70 because it takes 3 steps": 70.0, "The score is **72.5**": 72.5,
    "The score is 72.5.": 72.5, '{"score": 85, "confidence": 90}': 85.0, '```json\n{"difficulty_score": "40"}\n```': 40.0,
    "Difficulty score (0-100): 60": 60.0, "Score (out of 100): 60": 60.0, "### Score\n65": 65.0, "$\\boxed{65}$": 65.0,
    "on a scale from 0 to 100, I give 55": 55.0, "On a scale of 0–100, this is a 55.": 55.0,
    "From 0 (very easy) to 100 (very hard), it deserves 30.": 30.0, "Where 0 is trivial and 100 is impossible: 45": 45.0,
    "Score: 75\n\nThe instruction has 3 constraints and asks for 200 words.": 75.0,
    "1. It takes 2 steps.\n2. It needs some knowledge.\n\nScore: 35": 35.0, "85. The instruction has 3 constraints.": 85.0,
    "It asks for 20 words. I would put it at about 25 out of 100.": 25.0, "Knowledge: 80/100\nSteps: 60/100\nOverall: 70/100": 70.0,
    "The difficulty lies in 3 constraints. I rate it 60.": 60.0, "Score: 60. Final score: 65": 65.0, "Score:85": 85.0,
    "Score - 85": 85.0, "difficulty = 15": 15.0, "I would estimate the difficulty of this instruction at around 40.": 40.0,
    "８５": 85.0, "": None, "hard": None, "eighty-five": None, "105": None, "-5": None, "Score: -5": None, "150/100": None,
    "8/10": None, "Score: 8/10": None, "4 out of 5": None, "10/10": None, "40 seems right": 40.0, "65+": 65.0,
    "40 on a scale of 0 to 100": 40.0, "Base: 20, +10 for steps = 30": None, "As of 2024, experts know it. Score: 80": 80.0,
    "The instruction asks to add 2 and 3, so the score is 5.": 5.0, "Score: forty (40)": 40.0, "score 60s": None, "70-80": None, "70–80": None, "Score: 70 to 80": None,
    "between 70 and 80": None, "60 or 70": None, "Score: 60\nScore: 70": None, "1,000": None, "Score: 1000": None,
    "It asks for 20 words.": None, "It takes 3 steps and 200 words.": None, "On a scale from 0 to 100": None, "GPT-4": None,
    "I can't score this.": None, "3-step tasks": None, "Score: N/A": None, "nan": None, "1e2": None, "0x55": None,
}  # fmt: skip

VERDICT_REPLIES = {
    "better than": "win", "Better than": "win", "**Better than**": "win", '"worse than"': "lose", "Worse than.": "lose",
    "equal to": "tie", "Equal": "tie", "Tie": "tie", "It's a tie.": "tie", "Verdict: better than": "win", "better": "win",
    "**Verdict:** worse than": "lose", '```json\n{"verdict": "equal to"}\n```': "tie", "Response 1 is better than Response 2.": "win",
    "Response 2 is better than Response 1.": "lose", "Response 1 is worse than Response 2": "lose",
    "**Response 2** is *worse than* **Response 1**.": "win", "Response 1 is equal to Response 2.": "tie",
    "Response 1 is slightly better than Response 2": "win", "Response 2 is better.": "lose", "Response 1 is much worse.": "lose",
    "The first response is better than the second.": "win", "The second response is better than the first one.": "lose",
    "The second response is better.": "lose", "The better response is Response 2.": "lose", "Answer 1 is superior to Answer 2.": "win",
    "Both responses are equally good.": "tie", "Responses 1 and 2 are equal in quality.": "tie", "They are equally helpful.": "tie",
    "Neither response is better than the other.": "tie", "Response 2 wins.": "lose",
    "Better than\n\nResponse 1 is complete; a better answer would also name rivers.": "win",
    "Worse than. Response 1 says that 2 + 2 is equal to 5.": "lose",
    "Response 1 says that x is equal to 4, so it is better than Response 2.": "win",
    "Compared to Response 1, Response 2 is better.": "lose", "Response 1 is better in style. Overall, Response 2 is better.": "lose",
    "Response 1 is better in style, and Response 2 is better in substance.\nVerdict: equal to": "tie",
    "Response 1 is longer than Response 2 and clearer, so Response 1 is better than Response 2": "win",
    "Verdict: Response 1 is worse than Response 2": "lose", "Response 1 gives a better answer than Response 2.": "win",
    "": None, "Response 1": None, "Response 1 and Response 2 are not equal.": None, "tied": "tie", "I can't compare them.": None, "Response 1 is not better than Response 2.": None, "42": None,
    "Response 1 is better than Response 2, and Response 2 is better than Response 1.": None, "better than or equal to": None,
    "Better than\nWorse than": None, "Response 1 is better than or equal to Response 2": None,
    "Response 1 is the better response.": "win", "Response #1 is better than response #2": "win", "Both are equally bad.": "tie",
    "Response 1: better than\nResponse 2: worse than": "win", "Response 1 is no better than Response 2.": None,
    "Response 1 is better because it is correct; Response 2 is worse because it is wrong.": "win", "Is Response 1 better than, worse than, or equal to Response 2? Worse than.": "lose",
    "Both could be better organised.": None, "better than, worse than or equal to": None,
    "Response 1 is better in style, but Response 2 is better in substance.": None, "x is equal to 4": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("read", "replies"),
    [(read_level, LEVEL_REPLIES), (read_score, SCORE_REPLIES), (read_verdict, VERDICT_REPLIES)],
    ids=["level", "score", "verdict"],
)
def test_what_judges_write(read, replies):
    assert {reply: read(reply) for reply in replies} == replies


def test_every_level_is_read_in_every_case():
    for level in LEVELS:
        for reply in (level, level.upper(), level.title(), f"Level: {level}", f"**{level}**\n\nBecause."):
            assert read_level(reply) == level
    assert len(LEVELS) == 5


def test_every_score_is_read():
    for score in range(101):
        for reply in (f"{score}", f"Score: {score}", f"{score}/100", f"I'd give it {score}.", f"{score}.0"):
            assert read_score(reply) == score


@pytest.mark.parametrize("read", [read_level, read_score, read_verdict])
@pytest.mark.parametrize(
    "part", ["not ", "very ", "1 ", "1,", "response 1 is ", "of the ", "score ", "( ", "to or ", "9" * 5]
)
def test_long_replies_are_read_quickly(read, part):
    start = time.perf_counter()
    read(part * 5_000 + "hard 5 better")
    assert time.perf_counter() - start < 5


def test_thinking_is_dropped():
    for tag in ("think", "thinking", "reasoning"):
        assert strip_thinking(f"<{tag}>\nhard, 90\n</{tag}>\n\nAnswer with </b> tags") == "Answer with </b> tags"
        assert strip_thinking(f"<{tag}>it never ends: easy") == ""
