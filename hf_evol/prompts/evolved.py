"""Read the evolved instruction in a model's reply, and say what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from hf_evol.columns import OK
from hf_evol.prompts.replies import strip_thinking
from hf_evol.prompts.words import STOP_WORDS, VERBS, content, domain_of, numbers, stem, words

_MIN_GAIN = 2.5  # in new content words; a number or a quoted name counts twice, a word more than the parent has a half
_MIN_KEPT = {"general": 0.3, "code": 0.6, "math": 0.7}  # of the parent's content words, in in-depth methods
_A_QUANTITY = 10  # smaller figures may well come back
_MOST_OF_A_WORD = 2  # times that a content word may come more often than in the parent
_MIN_DISTINCT = 0.45  # of the words of a longer text
_SHARED_RUN = 4  # words in a row that only the prompt can have given
_MANY_ANSWERS = 2  # statements after the last request

_NOUN = r"(?:prompt|instruction|task|question|request|problem|query|exercise|version|variant|variation|rewrite|rewriting|revision)s?"
_LEAD_WORDS = frozenset(
    (
        "a an the my your this that it it's its is are be here here's sure certainly of course okay ok absolutely great good alright yes "
        "hello hi for to in with as and or new rewritten revised evolved created final finally harder hard difficult more most "
        "challenging complex complicated improved updated modified enhanced better rare rarer different advanced specific "
        "detailed deeper broader original given example possible one another some slightly somewhat bit little much following below output "
        "result answer response step text made make makes adds adding added which requires you i i've have can do would be let "
        "me us come up please refined concrete adapted expanded brand longer same extended alternative second programming math "
        "coding constraint constraints requirement reworded rephrased user assistant try"
    ).split()
)
_OPENER = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|alright|great|got it|understood|yes|no problem|here(?:'s|’s| is| are| you go)?|"
    r"i(?:'ll|’ll| will| would|'d|’d| can| have|'ve|’ve|'m|’m| am)|let me|thank(?:s| you))\b",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"[\s#*_>\"“'`\-]{0,12}([^\n:]{1,240}?)[\s*_#\"”]{0,12}(?::(?=\s|[\"“*_`]|\Z)[\s*_#]*|\n)")
_HAS_NOUN = re.compile(rf"\b{_NOUN}\b", re.IGNORECASE)
_TRAILING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*|\*\*|__)?[ \t]*(?:(?:possible|sample|example|expected|model|correct|final|suggested)[ \t]+)?"
    r"(?:explanations?|notes?|answers?|responses?|solutions?|outputs?|rationale|reasoning|analysis|changes(?: made)?|why this works|"
    r"what (?:was )?(?:changed|added)|hints?|assistant|user|end of (?:prompt|task)|word count|added words?)"
    r"(?:[ \t]+\d+)?[ \t]*(?:\*\*|__)?[ \t]*(?:[:：][^\n]*|#*[ \t]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_REMARK = re.compile(
    rf"(?:\n[ \t]*\n|\n(?=[ \t]*\())[ \t*_(\[]*(?:note\b|explanation\b|(?:in )?(?:this|the)\s+(?:\w+\s+){{0,2}}{_NOUN}\s+(?:is|was|has|aims|"
    r"requires|asks|adds|now|encourages|challenges|includes|involves|allows|will|should|can|incorporates|introduces|builds|"
    r"focuses|and|i|we|the)\b|i\s+(?:have|hope|added|made|changed|replaced|tried|also|used)\b|i['’]ve\b|let me know\b|"
    r"feel free\b|is there anything|by\s+(?:adding|asking|specifying|including|requiring)\b|here,?\s+(?:i|the)\b|"
    r"this (?:adds|makes|requires|way|revised|ensures)\b)",
    re.IGNORECASE,
)
_SECTION = re.compile(rf"^[ \t]*(?:#{{1,6}}|\*\*)[^\n]*\b{_NOUN}\b[^\n]*$", re.IGNORECASE | re.MULTILINE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`", "‘": "’", "„": "“", "「": "」"}

_REFUSAL = re.compile(
    r"\s*(?:i['’]?m (?:very |so |really )?sorry|i am sorry|sorry,|i apologi[sz]e|my apologies|unfortunately,? i (?:can|am)|"
    r"i (?:can(?:no|['’])t|am unable to|am not able to|won['’]t) (?:\w+ ){0,3}(?:assist|help|comply|fulfil+|provide|rewrite|create)|"
    r"as an ai\b)",
    re.IGNORECASE,
)
# What texts about the evolving itself say.
_META = re.compile(
    r"\b(?:prompts?|rewrit(?:e|es|ing|ten) (?:of |the |this |task|problem|instruction)|rephrased|original (?:task|question|problem|instruction|one)|"
    r"(?:the|this) (?:given|current|above) (?:task|question|instruction|problem|answer)|(?:the|this) task (?:is|of|was|requires|involves|can)|"
    r"(?:this|the) (?:puzzle|problem) (?:is|requires|involves)|please (?:provide|share|give me|send) (?:the|your|a|me|more)|"
    r"how can i (?:help|assist)|you are (?:asked|given) to (?:rewrite|create))\b",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(
    r"\A\W*(?:i(?:'m|’m|'ll|’ll| am| will| was| have| can| think| would| believe)|let's|let’s|as a)\b", re.IGNORECASE
)
_QUESTION = re.compile(
    r"\A(?:who|what|when|where|why|which|whose|whom|how|can|could|would|will|should|is|are|was|were|do|does|did|has|have|if)\b",
    re.IGNORECASE,
)
_WISH = re.compile(
    r"\b(?:i (?:want|need|would like|wish|am looking)|i['’]d like|we need|your (?:task|job|goal) is|you (?:must|should|need to|have to|are to))\b",
    re.IGNORECASE,
)
_SPEECH = re.compile(r"[\"“][^\"“”]*[\"”]")
_RULE = re.compile(
    r"\b(?:must|should|include|use|using|avoid|your|you|answer|response|ensure|no more|at least|at most|limit|each|only|not|do not|"
    r"don't|without|make sure|assume|provide|explain|consider|remember|keep)\b",
    re.IGNORECASE,
)
_TELLS_HOW = re.compile(
    r"\A\W*(?:to|in order to)\s[^.?!\n]*?,\s*(?:you|we|i|one|use|simply|just|the|it|first)\b", re.IGNORECASE
)
_TELLS = re.compile(
    r"\A\W*(?:this|it|it's|these|you can|you could|you would|you will|we can|the (?:query|function|code|program|script|answer|"
    r"output|result|solution|key|first|method|algorithm))\b(?![^.]*\?)",
    re.IGNORECASE,
)
_MUST = re.compile(r"\b(?:must|should|need(?:s)? to|have to|has to|may not|cannot|can't|is to)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?。？！])[\"”')]*\s+|\n+")
_STRIP_START = re.compile(
    r"\A[\s\-*•>#\"“'(`]*(?:\d{1,2}[.)]\s+)?(?:(?:question|task|problem|instruction|prompt|exercise|query)\s*:\s*)?(?:(?:please|then|now|next|first|finally|also|kindly|and|lastly|second|third)\b,?\s+)*",
    re.IGNORECASE,
)
_SETTING = re.compile(
    r"\A(?:given|using|with|for|in|if|as|from|based|assuming|suppose|imagine|when|while|without|after|before|you|consider|to|on|by|at|of|"
    r"starting|taking|working|drawing|following|through|within|during|under|over|between|among|there|keeping|considering)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,:;]\s+(?:then\s+|and\s+|please\s+)?")
_WORKING = re.compile(
    r"\d\s*[=≈]|=\s*[-$€£]?\d|####|<<|\bthe answer is\b|\btherefore\b|\bthus\b|\\boxed", re.IGNORECASE
)
_QUANTITIES = re.compile(r"\bhow (?:many|much)\b", re.IGNORECASE)
_ANNOUNCED = re.compile(r":\s*\Z|\b(?:following|below|given|this|starter|provided)\b", re.IGNORECASE)
_FENCE = re.compile(r"```(?:\w*)\n(.*?)\n?```", re.DOTALL)


def read_evolved(
    reply: str, *, parent: str, prompt: Sequence[dict[str, str]], method: str | None = None, finish_reason: str = "stop"
) -> tuple[str | None, str]:
    """The evolved instruction in a reply to an evolving prompt, and its status.

    What models put around it is taken off: a reasoning block, lead-ins and labels, headings, quotation marks or a fence
    around the whole, remarks and answers behind it. Nothing inside the text is changed. The rules that know words
    (instruction verbs, stop words) are for English; parents in other languages go through the others alone.

    Args:
        reply: the model's raw text.
        parent: the instruction that was to be evolved.
        prompt: the turns that were sent: what only they can have given is a leak.
        method: the method's name; ``"breadth"`` need not keep the parent's task.
        finish_reason: ``"length"`` where the token limit ended the reply.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``;
        ``unchanged``; ``broken`` (repetition); ``leak`` (words of the prompt or its examples, which the parent lacks);
        ``chatter`` (talks about the task of rewriting); ``answered`` (carries the parent out); ``not_instruction``;
        ``off_topic`` (lost the parent's task; for math, its question or quantities); ``near_copy`` (nothing added).

    Example:
        >>> read_evolved("Sure, here's the rewritten prompt: List three rivers of Asia that flow to the Arctic Ocean.",
        ...              parent="List three rivers.", prompt=[{"role": "user", "content": "List three rivers."}])
        ('List three rivers of Asia that flow to the Arctic Ocean.', 'ok')
    """
    text = _unpack(strip_thinking(reply), parent)
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    return text, _status(text, parent, prompt, method, finish_reason)


def is_refusal(text: str) -> bool:
    """Whether a reply begins the way refusals do."""
    return bool(_REFUSAL.match(text))


def _unpack(text: str, parent: str) -> str:
    """The text without what stands around it."""
    for _ in range(4):
        before, text = text, _settled(lambda text: _without_lead(_unwrap(text.strip()), parent), text)
        text = _without_end(text, parent).strip()
        if text == before:
            break
    return text


def _settled(step: Callable[[str], str], text: str) -> str:
    """The text after as many steps as change it, up to six."""
    for _ in range(6):
        before, text = text, step(text)
        if text == before:
            break
    return text


def _without_lead(text: str, parent: str) -> str:
    """Without a lead-in, a label or a heading in front, unless the parent begins with the same."""
    found = _PREFIX.match(text)
    if found and text[found.end() :].strip() and not parent.lower().startswith(found[1].lower().strip()):
        lead = found[1].strip()
        said = words(lead)
        only_lead = said and len(said) <= 16 and all(word in _LEAD_WORDS or _HAS_NOUN.fullmatch(word) for word in said)
        named = _HAS_NOUN.search(lead) or said[:1] in (["here"], ["here's"], ["sure"])
        if named and (
            only_lead or (_OPENER.match(lead) and len(said) <= 40 and found.group().rstrip(' *_#"\n').endswith(":"))
        ):
            return text[found.end() :]
    first, gap, rest = text.partition("\n\n")  # "Sure! I can help with that."
    if gap and rest.strip() and _OPENER.match(first) and len(words(first)) <= 30 and not parent.startswith(first[:20]):
        return rest
    return text


def _without_end(text: str, parent: str) -> str:
    """Without remarks, answers and further versions behind the text, unless the parent holds the same mark."""
    for pattern in (_TRAILING, _REMARK, _SECTION):
        for found in pattern.finditer(text):
            mark = re.split("[:：]", found.group().strip(" \t\n*_#(["), maxsplit=1)[0].strip().lower()
            kept = any(line.strip(" \t*_#([").lower().startswith(mark) for line in parent.splitlines())
            if text[: found.start()].strip() and not kept:
                text = text[: found.start()].rstrip().rstrip("-*_=").rstrip()
                break
    return text


def _unwrap(text: str) -> str:
    if fence := re.fullmatch(r"```(?:text|markdown|prompt|plaintext|md)?\n((?:(?!```).)*)\n?```", text, re.DOTALL):
        return fence.group(1).strip()
    if (bold := re.fullmatch(r"(\*\*|__)((?:(?!\1).)+)\1", text, re.DOTALL)) is not None:
        return bold.group(2).strip()
    close = _QUOTES.get(text[:1])
    if close and len(text) > 2:
        inner, after = text[1:].split(close, 1) if close in text[1:] else (None, "")
        alone = inner is not None and (not after.strip() or after.startswith("\n"))
        if alone and text[0] not in inner and "\n\n" not in inner:
            return inner.strip() + (after if after.strip() else "")
    return text


def _status(text: str, parent: str, prompt: Sequence[dict[str, str]], method: str | None, finish_reason: str) -> str:
    if is_refusal(text) and not is_refusal(parent):
        return "refusal"
    if finish_reason == "length":
        return "cut_off"
    if _squeeze(text) == _squeeze(parent):
        return "unchanged"
    domain = domain_of(parent)
    if domain == "math" and _WORKING.search(text) and not _WORKING.search(parent):
        return "answered"
    if _is_broken(text, parent, method == "breadth"):
        return "broken"
    new = [
        word
        for word in content(text.partition(" ")[2] if words(text)[:1] and words(text)[0] in VERBS else text)
        if word not in set(content(parent))
    ]
    if _leaks(text, parent, prompt, new if domain != "math" else []):  # everyday things are in all math problems
        return "leak"
    if (fault := _form_fault(text, parent, domain)) is not None:
        return fault
    if method != "breadth" and (fault := _task_fault(text, parent, domain)) is not None:
        return fault
    gain = _gain(text, parent, new, keeps_task=method != "breadth")
    return OK if gain >= _MIN_GAIN else "near_copy"


def _is_broken(text: str, parent: str, is_new: bool) -> bool:
    """Whether words come back as in texts of models that are stuck, or a quantity of the parent is said once more."""
    said, before = words(text), words(parent)
    usual = _runs(before)
    if any(len(set(run)) == 1 and run not in usual for run in _runs(said)):
        return True
    if any(count > max(1, usual[run]) and _says(run) for run, count in _runs(said).items()):
        return True
    own, now = Counter(content(parent)), Counter(content(text))
    most = _MOST_OF_A_WORD + (is_new or domain_of(text) == "math")
    if any(count - own[word] > most for word, count in now.items()):
        return True
    figures, given = Counter(numbers(text)), Counter(numbers(parent))
    if any(count > given[figure] > 0 and figure >= _A_QUANTITY for figure, count in figures.items()):
        return True
    fewest = min(_MIN_DISTINCT, 0.9 * len(set(before)) / max(1, len(before)))
    return len(said) >= 20 and len(set(said)) / len(said) < fewest


def _runs(said: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(zip(said, said[1:], said[2:], said[3:], strict=False))


def _says(run: tuple[str, ...]) -> bool:
    return sum(word not in STOP_WORDS for word in run) >= 2


def _leaks(text: str, parent: str, prompt: Sequence[dict[str, str]], new: list[str]) -> bool:
    """Whether the text has words that only the prompt can have given: a run of them, or most of what is new."""
    parent_words = words(parent)
    known = {tuple(parent_words[i : i + _SHARED_RUN]) for i in range(len(parent_words))}
    own = set(content(parent))
    shown: set[str] = set()
    topics: set[str] = set()
    said = words(text)
    runs = {tuple(said[i : i + _SHARED_RUN]) for i in range(len(said) - _SHARED_RUN + 1)}
    for place, turn in enumerate(prompt):
        told = turn["content"]
        if place == len(prompt) - 1:
            told = told.replace(parent, "\n", 1) if parent else told
        pieces = words(told)
        for i in range(len(pieces) - _SHARED_RUN + 1):
            run = tuple(pieces[i : i + _SHARED_RUN])
            if run in runs and run not in known and any(stem(word) not in own for word in _content_of(run)):
                return True
        shown.update(content(told))
        if turn["role"] == "user" and place < len(prompt) - 1:
            topics.update(word for word in content(told) if word not in _STEMMED_VERBS)
    leaked = [
        word for word in dict.fromkeys(new) if word in shown and word not in _STEMMED_VERBS and not word[0].isdigit()
    ]
    if leaked and ((_META.search(text) and not _META.search(parent)) or _OF_PROMPTS.intersection(leaked)):
        return True
    distinct = len(set(new))
    return bool(
        any(word in topics for word in leaked)
        or (len(leaked) >= 2 and 2 * len(leaked) >= distinct)
        or (leaked and len(leaked) == distinct and distinct <= 2)
    )


_STEMMED_VERBS = frozenset(map(stem, VERBS))
_OF_PROMPTS = frozenset(map(stem, ("prompt", "rewritten", "rewriting", "constraint", "requirement")))


def _content_of(run: tuple[str, ...]) -> list[str]:
    return content(" ".join(run))


def _form_fault(text: str, parent: str, domain: str) -> str | None:
    """What keeps the text from being an instruction at all."""
    if not _is_english(parent):
        return None
    if _META.search(text) and not _META.search(parent):
        return "chatter"
    if (
        _FIRST_PERSON.match(text)
        and not _FIRST_PERSON.match(parent)
        and not text.rstrip().endswith("?")
        and not _WISH.search(text)
    ):
        return "chatter"
    fenced = [code for code in _FENCE.findall(text) if code not in parent]
    if fenced and "```" not in parent and not _ANNOUNCED.search(text.partition("```")[0]):
        return "answered"
    if is_instruction(parent) and not _takes_the_form(text, parent):
        overlap = set(content(text)) & set(content(parent))
        return "answered" if len(overlap) >= 2 or numbers(text) else "not_instruction"
    if _answers_behind(text, parent):
        return "answered"
    return None


def _takes_the_form(text: str, parent: str) -> bool:
    """Whether the first sentence asks, or the last one does in the parent's way, after a setting."""
    sentences = _sentences(text)
    first, last = sentences[0], sentences[-1]
    if _TELLS_HOW.match(first):
        return False
    if (
        first.endswith("?")
        and _is_order(_sentences(parent)[0])
        and not _QUESTION.match(_STRIP_START.sub("", first, count=1))
    ):
        return False  # "The sea – who owns it?"
    if _asks(first):
        return True
    if not _asks(_sentences(parent)[0]):  # a setting, and what is asked of it
        return any(map(_asks, sentences))
    return _is_order(last) if any(map(_is_order, _sentences(parent))) else _asks(last)


def _answers_behind(text: str, parent: str) -> bool:
    """Whether an answer follows the task: after the parent's words and a colon, or as statements at the end."""
    head = parent.rstrip(" .!?:\n").lower()
    if len(head) > 8 and ":" not in parent and text.lower().startswith(head):
        after = text[len(head) :].lstrip(" .!?")
        if (
            after.startswith(":")
            and words(after)[:1]
            and words(after)[0]
            not in VERBS | {"first", "what", "how", "why", "the", "a", "who", "when", "where", "which"}
        ):
            return True
    last = _sentences(text)[-1]
    if _TELLS.match(last) and last not in parent and not _MUST.search(last):
        return True
    ending = 0
    for sentence in reversed(_sentences(text)):
        if _asks(sentence) or _RULE.search(sentence) or sentence in parent or len(words(sentence)) < 4:
            break
        ending += 1
    return ending >= _MANY_ANSWERS and ending > len(_sentences(parent)) - 1


def _task_fault(text: str, parent: str, domain: str) -> str | None:
    """Whether an in-depth rewriting lost what the parent asks, or its quantities."""
    if domain == "math":
        lost = Counter(numbers(parent)) - Counter(numbers(text))
        asks = "?" in text or re.search(
            r"\b(?:calculate|find|determine|compute|how (?:many|much))\b", text, re.IGNORECASE
        )
        if lost or not asks or not _same_quantities(text, parent):
            return "off_topic"
    wanted = {word for word in content(parent) if word not in _STEMMED_VERBS}
    if not wanted:
        return None
    kept = len(wanted & set(content(text))) / len(wanted)
    return "off_topic" if kept < _MIN_KEPT[domain] else None


def _same_quantities(text: str, parent: str) -> bool:
    """Whether each of the parent's figures still stands before its unit."""
    now = _units(text)
    return all(
        not unit or any(not after or unit[0] in after for after in now.get(figure, ()))
        for figure, units in _units(parent).items()
        for unit in units
    )


def _units(text: str) -> dict[str, list[list[str]]]:
    """Of each figure, the stems of up to three words behind it in its clause, with % as a word."""
    said = re.findall(r"\d+(?:[.,]\d+)*|%|[.,;:?!]|[^\W\d_]+", text.lower())
    found: dict[str, list[list[str]]] = {}
    for place, word in enumerate(said):
        if word[0].isdigit():
            after = said[place + 1 : place + 4]
            end = next((number for number, mark in enumerate(after) if mark in ".,;:?!"), len(after))
            found.setdefault(word, []).append([stem(near) for near in after[:end]])
    return found


def _gain(text: str, parent: str, new: list[str], keeps_task: bool) -> float:
    figures = len(set(numbers(text)) - set(numbers(parent)))
    quoted = re.findall(r"[`\"“]([^`\"”\n]{1,40})[`\"”]", text)
    names = {*quoted, *re.findall(r"(?<=[\w,] )[A-Z]\w+", text)}
    named = any(name.lower() not in parent.lower() for name in names)
    growth = len(words(text)) - len(words(parent))
    if not keeps_task:
        growth = max(0, growth)
    fresh = len({word for word in new if not word[0].isdigit()})
    questions = len(_QUANTITIES.findall(text)) > len(_QUANTITIES.findall(parent))
    gain = fresh + 2 * figures + 2 * named + 2 * questions
    return gain + (min(growth / 2, gain) if growth > 0 else growth / 4)


def is_instruction(text: str) -> bool:
    """Whether a text asks for something, by its English words: an imperative, a question or a wish."""
    return any(_asks(sentence) for sentence in _sentences(text))


def _sentences(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def _asks(sentence: str) -> bool:
    return sentence.rstrip(" \"”')*_`").endswith(("?", "？")) or _is_order(sentence) or _is_question(sentence)


def _is_question(sentence: str) -> bool:
    text = _STRIP_START.sub("", sentence, count=1)
    said = words(text)
    return len(said) > 2 and said[0] in ("what", "how", "why", "who", "which", "when", "where") and not _is_clause(said)


def _is_order(sentence: str) -> bool:
    text = _STRIP_START.sub("", sentence, count=1)
    said = words(text)
    if not said:
        return False
    if said[0] in VERBS and not (len(said) > 1 and said[1] in ("is", "are", "was", "were", "has", "have", "can", "of")):
        return True
    if _WISH.search(_SPEECH.sub(" ", text)) or re.match(r"(?:can|could|would|will) you\b", text, re.IGNORECASE):
        return True
    if _SETTING.match(text):
        return any((start := words(clause)) and start[0] in VERBS for clause in _CLAUSE.split(text)[1:])
    return False


def _is_clause(said: list[str]) -> bool:
    """ "When it comes to …" and "What a discovery" open statements."""
    return (
        said[:3] == ["when", "it", "comes"]
        or said[:2] in (["what", "a"], ["what", "an"])
        or (
            said[0] in ("when", "where")
            and said[1]
            not in (
                "is",
                "are",
                "was",
                "were",
                "do",
                "does",
                "did",
                "can",
                "could",
                "should",
                "will",
                "would",
                "and",
                "has",
                "have",
            )
        )
    )


def _is_english(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return not letters or sum(char.isascii() for char in letters) / len(letters) > 0.9


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(" .!?")
