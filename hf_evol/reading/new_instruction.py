"""How a reply to Self-Instruct's prompt is read (arXiv:2212.10560): one new instruction, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hf_evol.columns import OK
from hf_evol.prompts.self_instruct import ASK, SYSTEM
from hf_evol.prompts.words import TEXTS, content, domain_of, stem, words
from hf_evol.reading.evolved import unpack
from hf_evol.reading.faults import is_broken, is_refusal, languages, runs
from hf_evol.reading.fit import form_fault
from hf_evol.reading.forms import is_instruction
from hf_evol.reading.replies import strip_thinking

LEAST_WORDS, MOST_WORDS = 4, 150  # the paper leaves out what has three words or fewer, or more than 150
_EXAMPLE, _QUESTION = "Explain it.", "What is it?"  # what is asked in English, in the simplest forms
_REPEATS_UP_TO = 30  # words; in longer texts, what is spoken of comes back

# What a text neither holds nor makes: a picture that is pointed at, or is to be made; what is to be drawn, sung or handed over.
_PICTURE = (
    r"(?:image|picture|photo(?:graph)?|video|audio|graph|(?:flow)?chart|diagram|map|file|screenshot|drawing)s?\b"
    r"(?=\W*\Z|[.,;:?!]| (?:and|or|of|in|on|with|from|to|that|which|you|is|are|shows?|about|for|so)\b)"  # no "map function"
)
_NO_TEXT = re.compile(
    rf"(?i)\b(?:the|this|these|those|your) (?:[\w-]+ )?{_PICTURE}|"
    r"\A\W*(?:please )?(?:create|make|build|construct|produce|generate|design|draw|give|show|provide|take|record|edit|share|send|print|watch|look at|"
    rf"listen to|use) (?:(?!(?:for|of|to|about|in|with|on|from|that)\b)[\w-]+ ){{0,4}}{_PICTURE}|"
    r"\A\W*(?:please )?(?:plot|paint|sketch|sing|draw(?! (?:[\w-]+ ){0,2}(?:conclusion|comparison|parallel|distinction|lesson|inference)s?\b)|"
    r"play(?! (?:\w+ )?role\b)|visit)\b|(?:\A\W*|\b(?:and|then|please) )go to\b|\b(?:give|show|send|offer|hand|present|read) (?:it|them) to\b"
)
# To make or to hand over something, which may be a text.
_MAKES = re.compile(
    r"(?i)\A\W*(?:please )?(?:create|make|build|construct|bake|cook|produce|offer|give|provide|share|present|form|open|start|organi[sz]e|craft|"
    r"perform|demonstrate|teach|tell|train|improve|lead|join|move|submit|take|track|increase|reduce|enhance|add|use|get|let|help|show|learn|"
    r"practi[cs]e|watch|visit|buy|sell|hold|develop|introduce)\b"
)
_SAYS = re.compile(r"(?i)\b(?:how|what|why|whether|about|to say|to write)\b")
# What is spoken of as if it stood there, unless something stands in quotation marks or behind a colon.
_GIVEN = re.compile(
    r"(?i)\b(?:the|this|these|those|each) (?:following|attached|above|below)\b|\b(?:given|provided|shown|listed) (?:below|above|here)\b|"
    r"\b(?:below|above)[.:?!]*\Z|\b(?:given|provided) (?:\w+ )?(?:code|snippet|program|script|query)\b|\bthe (?:given|provided) (?:function|class|method)\b|"
    r"\b(?:this|these) (?!years?|weeks?|months?|centur|days?|world|times?|way|mornings?|kinds?|cases?|is\b|are\b)\w+|"
    r"\A\W*(?:please )?(?:rewrite|edit|correct|proofread|rephrase|paraphrase|shorten|translate|summari[sz]e|sort|classify|turn|convert|put) the "
    r"(?:\w+ ){0,2}(?:sentence|paragraph|passage|text|article|story|poem|code|list|table|letter|e-?mail|dialogue|essay)s?\b|"
    r"\b(?:summari[sz]e|review|analy[sz]e|critique|(?:summary|review|analysis|critique) of) (?:an?|the) (?:\w+ )?(?:movie|film|book|novel|article|"
    r"poem|song|play|speech)\b(?=[.?!]?\Z)"
)
# What code takes as its argument, and what is missing elsewhere.
_SOME = re.compile(
    r"(?i)\b(?:an?|any|the|this|these|those|each) (?:given|provided|certain|particular) (?!(?:number|amount) of\b|(?:number|integer|time|moment|day|year|age|point|place)\b)\w|"
    r"\A\W*given (?:an?|two|some|the) "
)
# A condition of what is not there, as 1 in 400 human instructions has one; of such, small models write mostly contradictions, but
# for limits of the wording, harm that is to be avoided, and people and reasons that are spoken of.
_NEGATED = re.compile(r"(?i)\b(?:without|with no|ha(?:s|ve) no|never|cannot|can['’]t)\b")
_MAY_BE_NEGATED = re.compile(
    r"(?i)\bwithout (?:(?:us|mention|repeat|nam|say|reveal|giv)ing (?:away )?(?:(?:the|any|an?|technical) )?(?:words?|letters?|names?|adjectives?|adverbs?|verbs?|"
    r"numbers?|rhymes?|jargon|terms?|end(?:ing)?|answer|plot)|(?:be|becom|feel|gett|sound|seem|los|harm|hurt|damag|scratch|wast|wak|spend|break|burn|"
    r"offend|hav)ing|\w+ing (?:less|fewer|more|too))\b|\b(?:if|when|who(?:se)?|why|because|as) [^.?!,;]*?\b(?:ha(?:s|ve) no|never|cannot|can['’]t)\b"
)
_NO_SENTENCE = re.compile(
    r"(?i)\A\W*(?:how|what|when|where|whether) to\b"
)  # a title; what is added to it finds no verb
_LISTS = re.compile(
    r"(?i)\A\W*(?:please )?(?:list|name|give|provide|(?:create|make|write|compile|generate|offer|prepare|draft) (?:me )?an? list)\b"
)
_OF_MANY = re.compile(
    r"\b(?:[5-9]\d|\d{3,}|\d,\d{3}|hundred|thousand) (?:\w+ )?(?:words|things|items|ways|ideas|examples|tips|names|facts)\b"
)
_HOLDS_TEXT = re.compile(r"[:\n]\s*\S|[\"“][^\"”]+[\"”]|(?<!\w)['‘][^'’]+['’](?!\w)")
# Asks for the life, feelings or doings of whoever answers.
_OF_THE_READER = re.compile(
    r"(?i)(?<!should )\byou(?:['’]ve| have| had)? (?:ever|never|always|recently|just)\b|\byou(?:['’]ve| have| had) (?:\w+ed|been|seen|done|had|made|read|felt|met|"
    r"gone|heard|learnt|lost|won)\b|(?<!if )\byou (?:had|were|did|felt|feel|love|enjoy)\b|\b(?:have|did|were|(?<!how )do) you (?!think\b)|\b(?:a \w+|memor\w+) you have\b(?! to\b)|"
    r"\b(?:been|happened|matters?|means?|important|special|dear|close) (?:\w+ ){0,3}(?:to|for) you\b|\byour (?:favou?rite|ideal|dream|own life|biggest|greatest|"
    r"best|first|last|earliest|childhood|love|experiences?|confidence|memor\w+|abilit\w+|skills|hobb\w+|hometown|feelings?)\b|"
    r"\b(?:in|of|from) your (?:own )?(?:home ?)?(?:country|city|town|region|area|neighbou?rhood)\b|\ban? (?:new )?favou?rite\b|"
    r"\byou (?:cannot|can['’]t|could not) live\b"
)
_WITH_ITSELF = re.compile(
    r"(?i)\b(?:between|compare|contrast) (?:(?:an?|the) )?(.{3,}?) (?:and|to|with) (?:(?:an?|the) )?\1\b"
)
_COMPARES = re.compile(r"(?i)\b(?:compar\w*|contrast\w*|differen\w*|versus|vs|between|similar\w*|changes? from)\b")
_CLASSIFIES = re.compile(
    r"(?i)\A\W*(?:please )?(?:classify|categori[sz]e|label)\b|\b(?:true or false|yes or no)\b(?! (?:questions?|quiz))|\bwhich (?:one )?of (?:the|these|those)\b|"
    r"\A\W*(?:please )?(?:identify|determine|decide|say|tell(?: me)?|state|check|detect|judge|predict|find out|assess|evaluate) (?:if|whether)\b|"
    r"\b(?:select|choose|pick|identify|find) the (?:correct|right|best|odd|most|least)\b|\b(?:the sentiment of|(?:is|as) spam|parts? of speech)\b|"
    r"\A(?:is|are|was|were|does|do|did|can|could|has|have|should) (?!you\b)[^?]*\?\Z"
)


def read_instruction(reply: str, shown: Sequence[str], finish_reason: str = "stop") -> tuple[str | None, str]:
    """The instruction in a reply to `hf_evol.prompts.self_instruct.instruction_prompt`, and its status.

    What models put around it is taken off, as by `hf_evol.read_evolved`. The rules that know words are for English, and apply where
    most of what is shown asks for something by its English words.

    Args:
        reply: the model's raw text.
        shown: the instructions that it was shown.
        finish_reason: ``"length"`` where the token limit ended the reply.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``; ``too_short`` (under 4
        words) or ``too_long`` (over 150); ``leak`` (words of the turns that ask); ``broken`` (repetition); ``chatter``;
        ``answered`` (an answer follows); ``not_instruction``; ``needs_input`` (speaks of what it doesn't hold); ``not_text``
        (asks for, or about, what is no text); ``too_many`` (a list of 50 or more); ``negated`` (a condition of what is not there,
        other than a limit of the wording or harm to be avoided); ``personal`` (about the life of whoever answers). Code may be
        given its arguments, make things and go without some means.
    """
    text = unpack(strip_thinking(reply), _EXAMPLE)
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    if is_refusal(text):
        return text, "refusal"
    if finish_reason == "length":
        return text, "cut_off"
    said = words(text)
    if len(said) < LEAST_WORDS or len(said) > MOST_WORDS:
        return text, "too_short" if len(said) < LEAST_WORDS else "too_long"
    if set(runs(said)).intersection(runs(words(f"{SYSTEM} {ASK}"))):
        return text, "leak"
    is_english = 2 * sum(map(is_instruction, shown)) > len(shown)
    is_code = domain_of(text) == "code" or bool(languages(text))
    if is_broken(text, _EXAMPLE, True) or (is_english and not is_code and _repeats(text)):
        return text, "broken"
    return text, (_fault(text, is_code) if is_english else None) or OK


def _fault(text: str, is_code: bool) -> str | None:
    if not text.lstrip("\"“'‘`(")[:1].isalnum() or not is_instruction(text) or _NO_SENTENCE.match(text):
        return "not_instruction"
    if (fault := form_fault(text, _QUESTION if text.rstrip("\"”'’ ").endswith("?") else _EXAMPLE)) is not None:
        return fault
    if not is_code and (_NO_TEXT.search(text) or (_MAKES.match(text) and not _is_of_text(text))):
        return "not_text"
    if _LISTS.search(text) and _OF_MANY.search(text):
        return "too_many"
    if not is_code and _NEGATED.search(_MAY_BE_NEGATED.sub(" ", text)):
        return "negated"
    if _OF_THE_READER.search(text):
        return "personal"
    needs_more = _GIVEN.search(text) or (not is_code and _SOME.search(text))
    return "needs_input" if needs_more and not _HOLDS_TEXT.search(text) else None


def _is_of_text(text: str) -> bool:
    return bool(_SAYS.search(text) or TEXTS.intersection(map(stem, words(text)[1:])))


def _repeats(text: str) -> bool:
    """Whether a short text says a word twice that it doesn't compare or quote, or compares a thing with itself: "a hero who is a hero"."""
    if _WITH_ITSELF.search(text):
        return True
    if len(words(text)) > _REPEATS_UP_TO or _COMPARES.search(text) or _HOLDS_TEXT.search(text):
        return False
    return any(count > 1 for count in Counter(content(text)).values())


def is_classification(text: str) -> bool:
    """Whether an instruction asks for one of a few known answers, by its English words."""
    return bool(_CLASSIFIES.search(text))
