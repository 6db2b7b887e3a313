"""What can be counted of a response: a constraint is a count and its bounds.

Each count has the name of a kind of constraint. Where IFEval (arXiv:2311.07911) has the kind, the count is as there, unless
its docstring says otherwise. The sources of these functions are published with the rows that use them
(`Constraint.function`), so each uses ``json``, ``re`` and other functions of this file, and nothing else. All take time
in proportion to the response's length.
"""

import json
import re


def words(response: str) -> int:
    """Runs of letters, digits and underscores: "well-known" and "don't" are two."""
    return len(re.findall(r"\w+", response))


def sentence_list(response: str) -> list[str]:
    abbreviation = r"(?i)(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|sr|jr|vs|no|fig|inc|ltd|(?!i\.$)[a-z](?:\.[a-z])*)\.$"
    found, start, first = [], 0, re.search(r"\w", response)
    for end in re.finditer(r"""(?<=[.!?])["'”’)\]]*\s+|\n\s*\n""", response):
        before, after = response[max(start, end.start() - 12) : end.end()].rstrip(), response[end.end() : end.end() + 1]
        if first is None or first.start() >= end.start():
            start = end.end()
        elif not after.islower() and not re.search(abbreviation, before):
            found.append(response[start : end.end()])
            start = end.end()
            first = re.compile(r"\w").search(response, start)
    return [*found, response[start:]] if first else found


def sentences(response: str) -> int:
    """Parts that end in a full stop, question or exclamation mark, or with the paragraph; IFEval asks a trained model."""
    return len(sentence_list(response))


def longest_sentence(response: str) -> int:
    """Words of the longest sentence."""
    return max((len(re.findall(r"\w+", sentence)) for sentence in sentence_list(response)), default=0)


def paragraph_list(response: str) -> list[str]:
    return [part for part in re.split(r"\n[^\S\n]*\n", response) if part.strip()]


def paragraphs(response: str) -> int:
    """Parts between blank lines; IFEval wants lines of three asterisks between them."""
    return len(paragraph_list(response))


def first_words(response: str, paragraph: int, word: str) -> int:
    """1 if this paragraph, from 1, begins with the word."""
    parts = paragraph_list(response)[paragraph - 1 : paragraph]
    return sum(re.findall(r"\w+", part.lower())[:1] == [word.lower()] for part in parts)


def last_words(response: str, word: str) -> int:
    """1 if the last word is this one."""
    return int(re.findall(r"\w+", response.lower())[-1:] == [word.lower()])


def final_stops(response: str) -> int:
    """1 if the response ends with a full stop."""
    return int(response.rstrip().endswith("."))


def lines(response: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in response.splitlines())


def longest_line(response: str) -> int:
    """Characters of the longest line, without white space at its end."""
    return max((len(line.rstrip()) for line in response.splitlines()), default=0)


def bullets(response: str) -> int:
    """Lines that begin with ``-``, ``*`` or ``•`` and a space; IFEval knows the first two, and needs no space."""
    return len(re.findall(r"(?m)^[ \t]*[-*•][ \t]+\S", response))


def numbered_items(response: str) -> int:
    """Lines that begin with a number and ``.`` or ``)``."""
    return len(re.findall(r"(?m)^[ \t]*\d{1,3}[.)][ \t]*\D", response))


def headings(response: str) -> int:
    """Markdown headings; IFEval's sections begin with a word of the constraint and a number."""
    return len(re.findall(r"(?m)^#{1,6}[ \t]+\S", response))


def highlights(response: str) -> int:
    """Parts between single or double asterisks."""
    return len(re.findall(r"\*\*(?=[^\n*]*[^\s*])[^\n*]+\*\*|(?<!\*)\*(?=[^\n*]*[^\s*])[^\n*]+\*(?!\*)", response))


def titles(response: str) -> int:
    """Lines that consist of a text in double angular brackets."""
    return len(re.findall(r"(?m)^[ \t]*<<(?=[^\n<>]*\w)[^\n<>]+>>[ \t]*$", response))


def placeholders(response: str) -> int:
    """Parts in square brackets."""
    return len(re.findall(r"\[[^\[\]\n]+\]", response))


def postscripts(response: str) -> int:
    """Lines that begin with P.S. or P.P.S."""
    return len(re.findall(r"(?mi)^[ \t]*(?:P\.[ ]?){1,2}S\b", response))


def code_blocks(response: str) -> int:
    """Parts between lines of three backticks."""
    return len(re.findall(r"(?m)^[ \t]*```", response)) // 2


def table_rows(response: str) -> int:
    """Rows of Markdown tables, below the heading."""
    marked = [bool(re.match(r"\s*\|.*\|\s*$", line)) for line in response.splitlines()]
    rules = [bool(re.match(r"\s*\|(?=.*-)[\s:|-]+\|\s*$", line)) for line in response.splitlines()]
    return sum(marked) - 2 * sum(rules) if any(rules) else 0


def json_values(response: str) -> int:
    """1 if the whole response, or what it holds in one block of code, is an object or an array of JSON."""
    text = response.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return int(isinstance(json.loads(text), dict | list))
    except (ValueError, RecursionError):
        return 0


def quotations(response: str) -> int:
    """1 if the whole response is in double quotation marks."""
    text = response.strip()
    return int(len(text) > 2 and text[0] in '"“' and text[-1] in '"”' and not re.search('["“”]', text[1:-1]))


def choices(response: str, options: list[str]) -> int:
    """1 if the response is one of the options, whatever its case and final stop."""
    return int(response.strip().rstrip(".").lower() in [option.lower() for option in options])


def bare_numbers(response: str) -> int:
    """1 if the response is a number and nothing else."""
    return int(bool(re.fullmatch(r"\s*-?\d[\d,]*(?:\.\d+)?\s*", response)))


def occurrences(response: str, text: str) -> int:
    """How often a word or phrase occurs, in any case, and not within another word; IFEval finds it there, too."""
    return len(re.findall(rf"(?i)(?<!\w){re.escape(text)}(?!\w)", response))


def commas(response: str) -> int:
    return response.count(",")


def questions(response: str) -> int:
    """Question marks."""
    return response.count("?")


def capital_letters(response: str) -> int:
    return sum(char.isupper() for char in response)


def small_letters(response: str) -> int:
    return sum(char.islower() for char in response)


def capital_words(response: str) -> int:
    """Words of two letters or more in capitals alone."""
    return len(re.findall(r"\b[A-Z]{2,}\b", response))


def calculations(response: str) -> int:
    """Calculations in double angular brackets, as in GSM8K (arXiv:2110.14168): ``<<2+3=5>>``."""
    return len(re.findall(r"<<[^<>\n=]*=[^<>\n]*>>", response))


def answer_lines(response: str) -> int:
    """1 if the last line is ``####`` and a number, as in GSM8K (arXiv:2110.14168)."""
    return int(bool(re.fullmatch(r"####[ \t]*-?\$?[\d,.]*\d\W*", response.rstrip().rsplit("\n", 1)[-1])))


def comment_pattern() -> str:
    directives = "include|define|if|ifdef|ifndef|else|elif|endif|undef|pragma|import|region|endregion"
    no_css = r"[^{;\n]{0,200}$"  # as colours and selectors begin with a hash, too
    hashes = r"#(?![\w!{]).*|#(?!(?:" + directives + r")\b)\w+[ \t]+" + no_css
    slashes = r"(?:^[ \t]*|(?<=[;{}),][ \t])|(?<=[ \t]{2}))//(?![*@]).*"  # but no division, address or XPath
    blocks = r"/\*(?s:.{0,500}?)\*/|<!--(?s:.{0,500}?)-->"
    return rf"(?m){blocks}|(?:^|(?<=[ \t]))(?:{hashes}|--(?=[ \t]).*)|{slashes}"


def comments(response: str) -> int:
    """Comments in code, by the usual marks of languages."""
    return len(re.findall(comment_pattern(), response))


def code_alone(response: str) -> str:
    code = re.sub(r'"""(?s:.{0,500}?)"""', '""', re.sub(comment_pattern(), "", response))
    return re.sub(r'(?<!\\)"(?:\\.|[^"\\\n])*"|' + r"(?<!\\)'(?:\\.|[^'\\\n])*'", '""', code)


def constructs(response: str, pattern: str) -> int:
    """How often a construct, given by a regular expression, occurs in code, outside of comments and strings."""
    return len(re.findall(pattern, code_alone(response)))


def function_names(response: str) -> list[str]:
    known = re.findall(
        r"(?m)\b(?:def|function|fun|func|fn|sub)[ \t]+(?:self\.)?(\w+)"
        r"|\b(?:const|let|var)[ \t]+(\w+)[ \t]*=[ \t]*(?:async[ \t]+)?(?:function\b|\([^()\n]*\)[ \t]*=>|\w+[ \t]*=>)"
        r"|^[ \t]*(?:(?:public|private|protected|static|final|virtual|inline)[ \t]+)*"
        r"(?!(?:else|new|return|throw|catch|switch|public|private|protected|static)\b)[\w<>\[\],:*&]+[ \t]+[*&]?(?!(?:if|for|while|switch|catch)\b)(\w+)[ \t]*"
        r"\([^()\n]*\)\s*(?:throws[\s\w,]+)?\{",
        response,
    )
    return ["".join(names) for names in known]


def functions(response: str, name: str) -> int:
    """Definitions of functions with this name, as common languages write them."""
    return function_names(response).count(name)


def class_names(response: str) -> list[str]:
    return re.findall(
        r"(?m)^[ \t]*(?:(?:public|private|abstract|final|static|export|data)[ \t]+)*class[ \t]+(\w+)", response
    )


def classes(response: str, name: str) -> int:
    """Definitions of classes with this name."""
    return class_names(response).count(name)


def uneven_indents(response: str, width: int) -> int:
    """Lines indented by tabs, or by no multiple of this number of spaces."""
    indents = re.findall(r"(?m)^([ \t]*)\S", response)
    return sum("\t" in indent or len(indent) % width > 0 for indent in indents)
