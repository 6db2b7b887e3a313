"""What code can see of a response's faults: that it breaks a condition which its English instruction sets the whole of it, or repeats
itself. Where the words leave a doubt, none is found."""

from __future__ import annotations

import re
from collections import Counter

from hf_evol.constraints import counts
from hf_evol.prompts.words import VERBS, domain_of, numbers, words

_N = r"(?:\d{1,4}|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|fifty|one hundred)"
_UNIT = r"words?|sentences?|paragraphs?|lines?"
_WRITE = "write|compose|create|generate|draft|give|provide|make|construct|produce|craft"
_LIST = f"{_WRITE}|list|name|suggest|compile|offer|identify|outline|come up with"
# "in at most 100 words", "with 10-15 lines", "of two paragraphs", "to 50 words or fewer"
_SIZE = re.compile(
    rf"(?i)\b(?P<by>in|with|within|using|to|of|use) (?:(?P<most>at most|no more than|not more than|up to|a maximum of|under|fewer than|less than)|"
    rf"(?P<least>at least|no fewer than|no less than|a minimum of|more than|over)|(?P<near>about|around|approximately|roughly)|exactly|just|only)? ?"
    rf"(?P<n>{_N})(?: ?(?:-|–|to) ?(?P<to>\d{{1,4}}))? (?:short |simple |complete |full )?(?P<unit>{_UNIT})\b(?: (?:or (?P<or>more|fewer|less)|long))?"
    r"(?! (?:from|in|for|of|on) (?:any|an?|one|the)\b)"
)
_SIZED = re.compile(
    rf"(?i)\A\W*(?:please )?(?:{_WRITE})(?: me)? an? (?:[\w'’]+ ){{0,2}}?(?P<n>{_N})[- ](?P<unit>word|sentence|paragraph|line)\b(?! of\b)"
)
_ITEMS = re.compile(
    rf"(?i)\A\W*(?:please )?(?:{_LIST})(?: me| us)?(?: an? (?:[\w-]+ )?list of)?(?: the)?(?: top| first| best| main)? (?P<n>{_N}) (?!{_UNIT}\b|-)"
    r"(?:[\w'’-]+ )*?\w+s\b"
)
_POINTS = re.compile(
    rf"(?i)\b(?:in|as|with) (?:(?P<most>at most|no more than|up to) )?(?P<n>{_N}) (?:short |numbered |bullet )*(?:points|steps|items)\b"
)
_QUESTION = re.compile(
    r"(?i)\b(?:finish|end|close|conclude)(?: it| the \w+| your \w+)? with (?:an?|one) (?:\w+ )?question\b"
)
_TABLE = re.compile(
    r"(?i)\b(?:show|put|present|arrange|organi[sz]e|display|summari[sz]e|list|compare|answer)\b[^,.;]*\b(?:in|as) an? (?:[\w-]+ ){0,2}table\b(?! of contents)"
)
_OF_PARTS = re.compile(r"(?i)\b(?:each|every|per|both|either|another|respectively|choice)\b")
_A_TEXT = re.compile(
    r"(?i)\b(?:poem|haiku|story|essay|summary|article|letter|speech|answer|response|description|text|report|post|review|e-?mail|message|note|"
    r"dialogue|biography|explanation|overview|reply)\W*\Z"
)
_A_PART = re.compile(
    r"(?i)\b(?:title|headline|sentence|reason|hint|example|line|item|point|step|verse|word|name|heading|caption|introduction|conclusion|"
    r"definition|quote|question|term)s?\W*\Z"
)
_THE_ANSWER = re.compile(
    r"(?i)\A\W*(?:(?:and|then|also|but|please) )*(?:(?:answer|respond|reply|do (?:it|this|so)|(?:keep|limit) (?:it|everything|yourself|(?:the|your) \w+)|"
    r"write(?: it| (?:the|your) \w+)?)(?: all)?)?\W*\Z"
)
# What asks for something beside the text of the first clause.
_MORE = re.compile(
    r"(?i)(?:\A|[.,;:]\s+|\b(?:and|then) )\W*(?:(?:and|then|also|finally|please) )*(?:add|give|explain|finish|end|close|conclude|"
    r"include (?!the (?:exact )?(?:word|phrase|term))|list|name|state|compare|describe|provide|discuss|suggest|propose|rank|"
    r"write (?!it\b|the answer|your answer)|create|say|mention|show|offer|analy[sz]e|an?|the|one|two)\b"
)
_CLAUSES = re.compile(r"[,;:.!?](?:\s+|\Z)|\n+")
_SLACK = {"near": 0.3, "about": 0.25, "bound": 0.05}  # of a number of words
_MARK = re.compile(r"(?m)^[ \t]*(?:[#*_]*[ \t]*\d{1,3}[.)]|[-*•][ \t])[ \t]*")
_HEADING = re.compile(
    r"\s*(?:#|\W*(?:title|verse|chorus|stanza|part)\b|[^\n]{0,60}:\s*\Z|\*\*[^\n*]+\*\*\s*\Z)", re.IGNORECASE
)
_REPEATS_RIGHTLY = re.compile(
    r"(?i)\b(?:songs?|raps?|lyrics|poems?|chants?|hymns?|ballads?|jingles?|verses?|refrain|repeat\w*|plan|schedule|routine|menu|week\w*|workout|itinerary|"
    r"calendar|timetable|sequence|pattern|table|dialogue|conversation|data)\b"
)
_ASKS = VERBS.union("please what how why who which where when can could should is are do does".split())
_A_SENTENCE = 4  # words


def breaks_condition(instruction: str, response: str) -> bool:
    """Whether the response breaks a size, a number of list items, a table or a closing question that the instruction demands of the whole of
    it."""
    if domain_of(instruction) == "code":
        return False
    start = 0
    for end in [*_CLAUSES.finditer(instruction), None]:
        clause, rest = instruction[start : end.start() if end else None], instruction[end.end() :] if end else ""
        if _clause_breaks(clause, rest, start == 0, response):
            return True
        start = end.end() if end else 0
    return False


def _clause_breaks(clause: str, rest: str, is_first: bool, response: str) -> bool:
    if _QUESTION.search(clause):
        return "?" not in response
    if _TABLE.search(clause):
        return not any(mark in response for mark in ("|", "\t", "<table", "\\begin{tabular}"))
    if _OF_PARTS.search(clause):
        return False
    if found := _SIZE.search(clause):
        before, after = clause[: found.start()], clause[found.end() :]
        asks = is_first and _ASKS.issuperset(words(before)[:1]) and not _A_PART.search(before)
        is_whole = _THE_ANSWER.match(before) or (asks and not _asks_more(after, rest))
        is_odd = (found["by"] == "of" and not _A_TEXT.search(before)) or (found["by"] == "use" and not found["most"])
        return bool(is_whole) and not is_odd and not _fits(response, found)
    if found := _POINTS.search(clause):
        items, n = len(_items(response)), _number(found["n"])
        fits = 1 <= items <= n if found["most"] else items == n
        return bool(_THE_ANSWER.match(clause[: found.start()])) and items > 0 and not fits
    if not is_first:
        return False
    if found := _SIZED.match(clause):
        return not _asks_more(clause[found.end() :], rest) and not _fits(response, found)
    if (found := _ITEMS.match(clause)) and len(numbers(clause)) == 1:
        items, n = len(_items(response)), _number(found["n"])
        return items > 0 and items not in ((n, 2 * n) if " and " in clause else (n,))
    return False


def _asks_more(after: str, rest: str) -> bool:
    return bool(_SIZE.search(after) or _MORE.search(f"{after}, {rest}"))


def _fits(response: str, found: re.Match[str]) -> bool:
    """Whether the response has the size that was found; one heading more is as well."""
    said, unit = found.groupdict(), found["unit"].lower().rstrip("s")
    at_most = bool(said.get("most")) or said.get("or") in ("fewer", "less")
    at_least = bool(said.get("least")) or said.get("or") == "more"
    least, most, slack = _number(found["n"]), float(said.get("to") or _number(found["n"])), 0.0
    paragraphs = counts.paragraph_list(response)
    if unit == "word":
        sizes = [counts.words(_MARK.sub("", response))]
        slack = _SLACK["bound" if at_most or at_least else "near" if said.get("near") else "about"]
    elif unit == "sentence":
        sizes = [counts.sentences(response)]
    elif unit == "paragraph":
        sizes = [len(paragraphs), sum(not _HEADING.match(part) for part in paragraphs)]
    else:
        lines = [line for line in response.splitlines() if line.strip()]
        of_text = sum(not _HEADING.match(line) for line in lines)
        sizes = [len(lines), of_text, of_text - (len(paragraphs) > 1 and "\n" not in paragraphs[0].strip())]
    return any((at_most or size >= least * (1 - slack)) and (at_least or size <= most * (1 + slack)) for size in sizes)


def _items(text: str) -> list[str]:
    """What the items of a list say: of those with numbers, or else those that are furthest left; empty where there is no list."""
    if numbered := re.findall(r"(?m)^[ \t]*[#*_]*[ \t]*\d{1,3}[.)](.*)$", text):
        return numbered
    marked = re.findall(r"(?m)^([ \t]*)[-*•][ \t]+(.*)$", text)
    furthest = min((len(mark.expandtabs()) for mark, _ in marked), default=0)
    return [said for mark, said in marked if len(mark.expandtabs()) == furthest]


def repeats_itself(instruction: str, response: str) -> bool:
    """Whether a list has an item twice, or a sentence of four words or more stands three times in the text; not in code, songs, plans
    and other texts that rightly come back to the same."""
    if "```" in response or domain_of(instruction) == "code" or _REPEATS_RIGHTLY.search(instruction):
        return False
    items = [said for said in map(words, _items(response)) if any(word[0].isalpha() for word in said)]
    sentences = [
        said for text in counts.sentence_list(response) if len(said := words(_MARK.sub("", text))) >= _A_SENTENCE
    ]
    return len(set(items)) < len(items) or max(Counter(sentences).values(), default=0) > 2


def _number(text: str) -> int:
    return int((numbers(text) or (1,))[0])
