"""The embedded model's training text: evolving, answering and plain rows, all generated here.

Nothing is read from any dataset, and the bundled seed rows are not used: the model meets them only when it
runs. A row's parent is a generated instruction that zero to two earlier rewritings may have made longer, or a
string of unrelated words, which teaches copying rather than remembering.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hf_evol.demo import lexicon as lex
from hf_evol.demo.prompts import RESPOND_WITH_INPUT, TRAINED_ON
from hf_evol.prompts.evol_instruct import IN_DEPTH

# What each in-depth method adds, by kind of instruction; {t} is a phrase of the parent.
CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "general": {
        "constraint": (
            "The answer must stay under {n} words and mention {t} at least {m} times.",
            "Use exactly {m} sentences, and do not use the word {t} more than once.",
            "You must include at least {m} examples and avoid any technical terms about {t}.",
            "Keep every sentence shorter than {n} words, and end with a single question about {t}.",
            "The answer must contain only {m} points, each beginning with a different letter.",
            "Do not mention any brand names, and limit the part about {t} to {m} lines.",
            "It must be written for a {p}, without using more than {n} words in total.",
            "The result must fit on one page and include a table with at least {m} rows.",
        ),
        "deepen": (
            "Also explain why {t} matters, how it changes over time, and what its long-term consequences are.",
            "Discuss the main causes behind {t} as well, and compare at least two different points of view.",
            "In addition, explore how {t} influences other areas, and what experts still disagree about.",
            "Explain the underlying principles of {t} too, and discuss its limits and its less obvious effects.",
            "Go further and examine how {t} relates to daily life, and why people misunderstand it.",
            "Also compare {t} with an alternative, and explain in which situations each of them fails.",
        ),
        "concretize": (
            "Take the specific case of a {p} in {c} who has {m} hours and {n} dollars for it.",
            "Answer for a {n}-year-old {p} living in {c} who deals with {t} every Monday morning.",
            "Focus on one concrete example of {t} in {c} during the last {m} years, with real figures.",
            "Consider specifically a {a} {p} from {c} who has only {m} days to deal with {t}.",
            "Refer to {t} in a {a} town near {c} with about {n} thousand inhabitants.",
        ),
        "reasoning": (
            "Reason step by step: first describe {t}, then weigh two options, and finally justify your choice.",
            "Before answering, list the {m} steps of your reasoning about {t}, and explain each step in one sentence.",
            "First state your assumptions about {t}, then draw conclusions from them one by one, and finally check them.",
            "Show your thinking in {m} numbered steps, each building on the step before, and then conclude.",
            "Work through it in several steps: identify the problem, compare causes, and only then give the answer.",
        ),
    },
    "math": {
        "constraint": (
            "Assume that {m} of the {i} are lost before the end, and the answer must be a whole number.",
            "The total must not be more than {n}, and only {i} that are not damaged may be counted.",
            "In addition, at least {m} {i} must be kept in reserve and must not be included.",
            "The answer must also take into account a discount of {n} percent on every second purchase.",
            "However, {x} must give exactly {m} {i} to a neighbor before anything else is counted.",
        ),
        "deepen": (
            "Also explain how the answer would change if the number of {i} doubled, and why.",
            "In addition, compare the result with the case in which {x} had {m} {i} fewer.",
            "Explain too which of the given numbers influences the result most, and how you can tell.",
            "Also find out how the result would grow if the same thing happened every week for {m} weeks.",
        ),
        "concretize": (
            "Each of the {a} {i} costs exactly {m} dollars and weighs {n} grams at a shop in {c}.",
            "All of this happens in {c} on a Monday between {m} and {n} minutes past noon.",
            "To be specific, {x} is a {n}-year-old {p} from {c} who buys {m} {i} each day.",
        ),
        "reasoning": (
            "First find the number of {i} at each step, then combine the results, and finally check the total.",
            "Solve it in {m} steps: write down what is known, work out each part, and then add them.",
            "Show every step of the calculation: first the {i} of {x}, then the rest, and finally the answer.",
            "Reason step by step, first explaining each operation, and then verify the answer in a second way.",
        ),
    },
    "code": {
        "constraint": (
            "The solution must run in linear time and must not use any external libraries or global variables.",
            "It must raise an error for empty input and handle at least {m} thousand elements.",
            "Do not use built-in functions for the main step, and keep the code under {n} lines.",
            "The code must include type hints and at least {m} unit tests that cover edge cases.",
            "Only constant extra memory may be used, and invalid input must be rejected with a clear message.",
        ),
        "deepen": (
            "Also explain the time and space complexity, and compare it with at least one alternative approach.",
            "In addition, discuss how the design would change for very large inputs, and why.",
            "Explain too how the code behaves on edge cases, and which trade-offs the chosen data structure brings.",
            "Also discuss how errors spread through the code, and how it could be tested and extended.",
        ),
        "concretize": (
            "Use the specific example of a shop in {c} that stores {n} {i} with a name and a price.",
            "For example, the input holds {m} {i} with the values {n}, {m} and {k}, read from a file named {i}.csv.",
            "To be specific, each record has an id, a city such as {c}, and a price below {n} dollars.",
        ),
        "reasoning": (
            "First describe the algorithm in {m} steps, then write the code, and finally trace it on an example.",
            "Reason step by step: first list the cases, then handle each one, and finally combine them.",
            "Before coding, explain each step of the solution, and then check every step with a small test.",
        ),
    },
}

_GENERAL_PARENTS = (
    "Describe {t}.",
    "Describe {t} in a few sentences.",
    "Explain why {t} is important.",
    "What is {t}?",
    "Explain how {t} works.",
    "Write a {a} story about {t}.",
    "Write a {a} poem about {t}.",
    "List five facts about {t}.",
    "Give three tips to {v}.",
    "How can I {v}?",
    "Suggest a {a} way to {v}.",
    "Compare {t} and {u}.",
    "Create a {a} plan to {v}.",
    "Name three benefits of {t}.",
    "Write a {a} paragraph about {t} and {u}.",
    "What are the main differences between {t} and {u}?",
    "Explain {t} to a {p}.",
    "Give an example of {t}.",
    "Rewrite the sentence so that it is about {t}.",
    "Summarize the text about {t}.",
    "Generate a list of {m} ideas about {t}.",
    "Write an email to a {p} about {t}.",
    "Design a {a} poster about {t}.",
    "Identify the main parts of {t}.",
    "Come up with a {a} title for an article about {t}.",
    "Explain the role of {t} in {u}.",
    "Write a dialogue between a {p} and a {q} about {t}.",
    "What would happen without {t}?",
    "Make a {a} list for {t}.",
    "Classify these items: {t}, {u}, {w}.",
    "Find a {a} alternative to {t}.",
    "Tell me how to {v} in {m} steps.",
    "Why do people like {t}?",
    "Propose {m} questions about {t} for a {p}.",
    "Edit the following text about {t}.",
)

_RARE_PARENTS = (
    "Describe {t} to a {p}.",
    "Explain how {t} came about and who still uses it today.",
    "Write a {a} guide to {t}.",
    "What would a {p} have to know about {t}?",
    "List three unusual facts about {t}.",
    "Compare {t} with {u}.",
    "Tell a {a} story in which {t} solves a problem.",
    "Suggest how a {p} could try {t} in {c}.",
    "Explain why {t} is rarely seen in {c}.",
    "Write a {a} review of {t}.",
)

_MATH_PARENTS = (
    "{x} has {n} {i} and buys {m} more at {l}. How many {i} does {x} have now?",
    "{x} sold {n} {i} in the morning and {m} in the afternoon. How many {i} did {x} sell altogether?",
    "There are {n} {i} in each box. {x} carries {m} boxes to {l}. How many {i} are there in total?",
    "{x} had {n} {i} and gave {m} of them to {y}. How many {i} are left?",
    "{x} earns {n} dollars an hour and works {m} hours a day. How much does {x} earn in {k} days?",
    "{x} shares {n} {i} equally among {m} friends. How many {i} does each friend get?",
    "{x} reads {n} pages on Monday and twice as many on Tuesday. How many pages does {x} read in both days?",
    "A ticket costs {n} dollars. {x} and {y} buy {m} tickets together and share the cost. How much does each pay?",
    "{x} is {n} years old, and {y} is {m} years older. How old will {y} be in {k} years?",
    "At {l}, {i} cost {m} dollars each. {x} has {n} dollars. How many {i} can {x} buy?",
    "{x} needs {n} {i} for a party but has only half of them. {y} brings {m} more. How many are still missing?",
    "Every week {x} puts {m} {i} in a jar. After {k} weeks, {x} takes {n} out. How many {i} remain in the jar?",
)

_CODE_PARENTS = (
    "Write a {L} function to {v}.",
    "Write a {L} program to {v}.",
    "Create a {L} function that can {v}.",
    "Write code in {L} to {v}.",
    "How would you {v} in {L}?",
    "Generate a {L} script to {v}.",
    "Write a query to {v}.",
    "Implement a {L} method to {v}.",
    "Develop a {L} class that helps to {v}.",
    "Using {L}, {v}.",
    "Construct a {L} algorithm to {v}.",
    "Design a {L} program to {v} and print the result.",
    "Write a {a} {L} snippet to {v}.",
)

_SYLLABLES = (
    "ba be bi bo ka ke ko la le lo ma me mi mo na ne no ra re ri ro sa se so ta te ti to va ve vi za zu an en in on "
    "ar er or st tr pl gr th sh ch ing ed ly ous ment tion al ic able ful"
).split()


def _articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


@dataclass(frozen=True)
class Example:
    """One training row: a chat turn and its reply; with ``prompt=None`` the reply is plain text.

    An in-depth rewriting also names its method, its parent, and what the reply adds to the parent.
    """

    prompt: str | None
    reply: str
    method: str | None = None
    parent: str = ""
    added: str = ""


class Corpus:
    """An endless, seeded stream of training rows.

    Args:
        seed: two corpora of one seed give the same rows.
        salad: the share of parents that are unrelated words; may be changed between two rows.
        breadth: the share of in-breadth rows.
    """

    def __init__(self, seed: int, salad: float = 0.25, breadth: float = 0.1) -> None:
        self.random, self.salad_share, self.breadth_share = random.Random(seed), salad, breadth

    def __iter__(self) -> Iterator[Example]:
        while True:
            draw = self.random.random()
            if self.random.random() < self.breadth_share:
                yield self.breadth()
            elif draw < 0.78:
                yield self.evolve()
            elif draw < 0.94:
                yield self.respond()
            else:
                yield self.plain()

    # -- instructions -----------------------------------------------------------------------------------------

    def word(self) -> str:
        """An invented word, a number or a name in code style: things that can only be copied."""
        pick = self.random
        draw = pick.random()
        if draw < 0.12:
            return str(pick.randint(0, 9999))
        text = "".join(pick.choice(_SYLLABLES) for _ in range(pick.randint(1, 4)))
        if draw < 0.32:
            return text.capitalize()
        return text + pick.choice(("_", ".", "-", "'s")) + pick.choice(_SYLLABLES) if draw < 0.4 else text

    def thing(self, family: str) -> str:
        if self.random.random() < 0.2:
            return " ".join(self.word() for _ in range(self.random.randint(1, 2)))
        return self.random.choice(lex.THINGS[family])

    def slots(self, family: str, **given: str) -> dict[str, str]:
        pick = self.random
        return {
            "t": self.thing(family), "u": self.thing(family), "w": self.thing(family),
            "v": pick.choice(lex.ACTIVITIES[family]), "a": pick.choice(lex.ADJECTIVES), "p": pick.choice(lex.PEOPLE),
            "q": pick.choice(lex.PEOPLE), "c": pick.choice(lex.CITIES), "x": pick.choice(lex.NAMES),
            "y": pick.choice(lex.NAMES), "i": pick.choice(lex.ITEMS), "l": pick.choice(lex.PLACES),
            "n": str(pick.randint(10, 99)), "m": str(pick.randint(2, 9)), "k": str(pick.randint(2, 30)),
            "L": pick.choice(lex.LANGUAGES[:3] * 3 + lex.LANGUAGES),
        } | given  # fmt: skip

    def instruction(self) -> tuple[str, str, dict[str, str]]:
        """A parent as (kind, text, its slots)."""
        pick = self.random
        if pick.random() < self.salad_share:
            return self.salad()
        kind = pick.choices(("general", "math", "code"), (2, 1, 1))[0]
        family = pick.choice(tuple(lex.FAMILIES))
        slots = self.slots(family)
        if kind == "general":
            text = pick.choice(_GENERAL_PARENTS + (_RARE_PARENTS if pick.random() < 0.3 else ()))
            if pick.random() < 0.15:
                slots |= {"t": pick.choice(lex.RARE[family])}
        elif kind == "math":
            text = pick.choice(_MATH_PARENTS)
            if pick.random() < 0.4:
                text = text.replace(". ", f". {pick.choice(lex.NAMES)} has {pick.randint(2, 60)} {slots['i']}. ", 1)
        else:
            text = pick.choice(_CODE_PARENTS)
            tasks = [task for task, _ in lex.CODE_TASKS] + list(lex.MORE_CODE_TASKS)
            slots |= {"v": pick.choice(tasks)}
            slots["t"] = slots["v"].split(" ", 1)[1]
        text = _articles(text.format(**slots))
        if kind == "code" and pick.random() < 0.15:
            text += " " + pick.choice(("[3, 9, 3, 5]", '{"id": 1}', "x = y + 1;", "arr[i] == 0", "SELECT * FROM t"))
        return kind, text, slots

    def salad(self) -> tuple[str, str, dict[str, str]]:
        """Unrelated words after an ordinary beginning: a parent that nothing but copying can rebuild."""
        pick = self.random
        pools = [word for things in lex.THINGS.values() for word in things]
        words = [self.salad_word(pools) for _ in range(pick.randint(4, 26))]
        for place in range(3, len(words) - 1, pick.randint(4, 9)):
            words[place] += pick.choice((",", ".", ":", ";", "?"))
        kind = pick.choice(("general", "general", "math", "code"))
        topic = pick.choice(words).strip(",.:;?")
        start = pick.choice(("Write", "Explain", "Given", "The", "Create", "A", "If", "Find", "When", "How", "In", ""))
        text = " ".join([start, *words]).strip()
        item = topic if kind == "math" else pick.choice(lex.ITEMS)
        slots = self.slots("life", t=topic, i=item)
        return kind, text + pick.choice(".?."), slots

    def salad_word(self, pools: list[str]) -> str:
        draw = self.random.random()
        if draw < 0.3:
            return self.word()
        if draw < 0.7:
            word = self.random.choice(lex.COMMON)
            return word + self.random.choice(("s", "ed", "ing", "er", "ly")) if draw < 0.36 else word
        return self.random.choice(self.random.choice(pools).split())

    # -- rows -------------------------------------------------------------------------------------------------

    def clause(self, kind: str, method: str, slots: dict[str, str]) -> str:
        fresh = self.slots("life") | {key: slots[key] for key in ("t", "x", "i")}
        return _articles(self.random.choice(CLAUSES[kind][method]).format(**fresh))

    def evolve(self) -> Example:
        """An in-depth evolving prompt and the instruction it should give."""
        pick = self.random
        kind, parent, slots = self.instruction()
        for method in pick.sample(IN_DEPTH, pick.choices((0, 1, 2), (50, 30, 20))[0]):
            parent = f"{parent} {self.clause(kind, method, slots)}"
        method = pick.choice(IN_DEPTH)
        added = " " + self.clause(kind, method, slots)
        return Example(TRAINED_ON[method].fill(instruction=parent), parent + added, method, parent, added)

    def breadth(self) -> Example:
        """An in-breadth evolving prompt, and an instruction about a rarer thing of the same family."""
        pick = self.random
        family = pick.choice(tuple(lex.FAMILIES))
        slots = self.slots(family) | {slot: pick.choice(lex.THINGS[family] + lex.RARE[family]) for slot in "tuw"}
        parent = _articles(pick.choice(_GENERAL_PARENTS + _RARE_PARENTS).format(**slots))
        for method in pick.sample(IN_DEPTH, pick.choices((0, 1, 2), (50, 30, 20))[0]):
            parent = f"{parent} {self.clause('general', method, slots)}"
        rare, other = pick.sample(lex.RARE[family], 2)
        child = _articles(pick.choice(_RARE_PARENTS).format(**self.slots(family, t=rare, u=other)))
        return Example(TRAINED_ON["breadth"].fill(instruction=parent), child)

    def respond(self) -> Example:
        """A response prompt and its answer."""
        kind, text, slots = self.instruction()
        if self.random.random() < 0.4:
            text = f"{text} {self.clause(kind, self.random.choice(IN_DEPTH), slots)}"
        extra = self.thing("life") if self.random.random() < 0.15 else None
        return Example(_respond_prompt(text, extra), self.answer(kind, slots))

    def answer(self, kind: str, slots: dict[str, str]) -> str:
        pick = self.random
        solution = dict(lex.CODE_TASKS).get(slots["v"])
        if kind == "code" and solution:
            return f"```python\n{solution}\n```\nThe code works for {slots['t']}."
        if kind == "math":
            a, b = int(slots["n"]), int(slots["m"])
            return f"{slots['x']} starts with {a} {slots['i']}.\nThe next step adds {b}: {a} + {b} = {a + b}.\n#### {a + b}"
        return pick.choice((
            "To understand {t}, begin with an example. First, look at where it is used. Second, ask who needs it. "
            "In short, {t} matters because it helps people.",
            "Here is a clear answer about {t}. 1. Start with the basics. 2. Practice a little every day. "
            "3. Check the result and improve it.",
            "There are three points about {t}: it takes time, it needs care, and it is worth the effort.",
        )).format(**slots)  # fmt: skip

    def plain(self) -> Example:
        """An instruction and its answer as plain text, as scoring reads them."""
        kind, text, slots = self.instruction()
        return Example(None, f"{text}\n{self.answer(kind, slots)}")


def _respond_prompt(instruction: str, input: str | None) -> str:
    prompt = RESPOND_WITH_INPUT.fill(instruction=instruction, input=input or "")
    return prompt if input else prompt.removesuffix("\n\nInput: ")
