"""Screening refuses by meaning, whatever the spelling, and lets ordinary checking functions through."""

from __future__ import annotations

import ast
import importlib
import sys
import types

import pytest

from hf_evol.sandbox.sandbox import Sandbox
from hf_evol.sandbox.screen import ALLOWED, screen_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="isolation needs Linux")

# Reason, and sources that are refused for it; each is a statement in `evaluate` or, with a line break, a whole program.
REFUSED = {
    "format string": [
        '"{0.__class__}".format(r)', '("{0" ".__globals__}").format(evaluate)', '"{:{0.__class__}}".format(r)',
        '"{0[:].real}".format({":": r})', '"{0.x} {".format(r)', '"{r.x}".format_map({"r": r})', 'map("{0.a}".format, [r])',
    ],
    "attribute format": [
        '("{0." + "__class__}").format(r)', '"".join(["{0.", "__class__}"]).format(r)', 'f"{r}".format(r)', "r.format(r)",
        "str.format(r, r)", "x = r\nr.format_map({})", "from collections import Counter\nCounter.format",
        "def evaluate(r):\n    match r:\n        case str(format=f): return f(r)",
    ],
    "imports string.Formatter": ["from string import Formatter as F"],
    "attribute string.Formatter": ["import string\nstring.Formatter().get_field('0.x', [1], {})"],
    "name getattr": [
        'getattr(r, "__cl" + "ass__")', 'getattr(r, "format")(r)', "import json as j\ngetattr(j, 'codecs')", "getattr(r, 'strip')()",
        "from functools import reduce\nreduce(getattr, ['a', 'b'], 1)", "x = [getattr]",
        "import functools\nfunctools.partial(getattr, 1)", "map(getattr, [r], ['x'])", "(g := getattr)", 'getattr(*[r, "x"])',
        "def evaluate(r, g=getattr): return g(r, r)", "@getattr\ndef f(): pass", "class C:\n    x = getattr",
        "def evaluate(getattr):\n    class C:\n        x = getattr\n        getattr = 1", "[getattr for getattr in [1]], getattr",
        "def evaluate(r):\n    global getattr\n    x = getattr\n    getattr = 1", "x = lambda f=lambda getattr: 1: getattr",
    ],
    "attribute operator.": ["import operator as o\no.attrgetter('x')", "import operator\noperator.methodcaller('x')"],
    "imports operator.": ["from operator import attrgetter as a", "from operator import *"],
    "name vars": ["vars(r)"], "name open": ["f = open", "if 0: open = 1\nopen('x')"], "name memoryview": ["memoryview(b'')"],
    "name compile": ["from re import compile\ncompile('x', '', 'exec')"], "name __builtins__": ["__builtins__['open']"],
    "name setattr": ["import json\nsetattr(json.JSONDecoder, 'decode', 1)"],
    "name type": ["type('X', (), {})", "t = type", "type(*[r])", "type('X', (), dict(a=1))", "class M(type): pass"],
    "attribute __dict__": ["type(r).__dict__"], "attribute mro": ["type(r).mro()"], "attribute __subclasses__": ["object.__subclasses__()"],
    "class pattern": ["def evaluate(r):\n    match r:\n        case object(x): return x"],
    "attribute f_globals": ["def evaluate(r):\n    match r:\n        case object(f_globals=g): return g"],
    "module json as a value": [
        "import json\nx = json", "import json\ndef f(m): return m.codecs\nf(json)",
        "def evaluate(json):\n    import json\n    return json", "import json\njson = 1", "import json\n'{}'.format(json)",
        "def f():\n    import json\n    def g():\n        nonlocal json\n        x = json\n        json = x\n        return x",
    ],
    "module urllib as a value": ["import urllib.parse\nx = urllib"],
    "attribute json.codecs": ["import json\njson.codecs.open('x')", "import json as j\ndef f(): return j.codecs"],
    "attribute calendar.": ["import calendar\ncalendar.main(['x'])", "import calendar as c\nc.sys"],
    "attribute hashlib.file_digest": ["import hashlib\nhashlib.file_digest"],
    "attribute xml.etree.ElementTree.parse": [
        "import xml.etree.ElementTree as E\nE.parse('/etc/passwd')", "from xml.etree import ElementTree\nElementTree.parse('x')",
        "import xml.etree.ElementTree\nxml.etree.ElementTree.parse('x')",
    ],
    "imports xml.etree": ["from xml import etree", "from xml.etree.ElementTree import ElementTree"],
    "two imports of": ["import json as j, re as j", "import datetime\nfrom datetime import datetime"],
    "imports in a class": ["class C:\n    if 1:\n        import json"],
    "imports copy": ["import copy"], "imports pickle": ["import pickle"], "imports os": ["from os import path"], "imports .": ["from . import x"],
    "imports typing.get_type_hints": ["from typing import get_type_hints"],
    "attribute typing.": ["import typing\ntyping.ForwardRef('x')", "import typing as t\nt.get_type_hints(evaluate)", "import typing\ntyping.TypedDict"],
    "imports dataclasses": ["import dataclasses", "from dataclasses import dataclass"],  # it writes code with names of fields
    "name hasattr": ["hasattr(r, 'strip')"],
    "imports functools.": ["from functools import singledispatch", "from functools import update_wrapper, wraps"],
    "imports enum": ["from enum import Enum\nEnum('X', 'a')"], "imports re.template": ["from re import template"],
    "attribute re._compiler": ["import re\nre._compiler"], "attribute decimal.": ["import decimal\ndecimal.getcontext().prec = 3"],
    "attribute obj": ["import re\ntry: re.PatternError\nexcept AttributeError as e: e.obj.enum.sys"],
    "class with keywords": ["class X(metaclass=print): pass", "class X(dict, **{}): pass"],
    **{f"name {name}": [f"class X:\n    def {name}(self, *a): return 1"] for name in (
        "__class_getitem__", "__init_subclass__", "__set_name__", "__reduce__", "__reduce_ex__", "__getattr__", "__prepare__",
    )},
    "name __match_args__": ["class X:\n    __match_args__ = ('x',)"], "name __annotations__": ["__annotations__ = {}"],
    "name __getattribute__": ["def __getattribute__(a, b): pass", "from re import sub as __getattribute__"],
    "attribute __traceback__": ["try: pass\nexcept E as e: e.__traceback__"], "attribute tb_frame": ["r.tb_frame"],
    "changes json.": ["import json\njson.loads = len", "import json\nfor json.x in r: pass", "import json\ndel json.loads"],
    "changes re.": ["from re import match\nmatch.x = 1"], "changes collections.Counter": ["from collections import Counter\nCounter.update = 1"],
}  # fmt: skip
VARYING = [
    "import random", "from random import Random", "import secrets", "import uuid\nuuid.uuid4()", "from uuid import uuid1",
    "import time\ntime.time()", "from time import perf_counter", "import time as t\nt.strftime('%Y')", "id(r)", "hash(r)",
    "import datetime\ndatetime.datetime.now()", "from datetime import datetime as d\nd.today()", "map(hash, r)", "r.__hash__()",
    "from datetime import date\ndate.today()",
]  # fmt: skip

# What small models write: lines of which the last is what `evaluate` returns, and whole programs.
ORDINARY = [
    "response.isupper()", "len(response.split()) <= 50", "response.strip().endswith('?')", "',' not in response",
    "all(line.startswith('- ') for line in response.splitlines())", "len(set(response.lower().split())) > 3", "bool(response)",
    "sorted(response.split(), key=len) == response.split()", "response == response[::-1]", "response.count('\\n\\n') == 2",
    "sum(c in 'aeiouAEIOU' for c in response) > 10", "max(map(len, response.split()), default=0) < 12", "response.title() == response",
    "any(ord(c) > 127 for c in response)", "isinstance(response, str) and response.isascii()", "type(response) == str",
    "type(response) is str and type(response).__name__ == 'str'", 
    "'{} {}'.format('a', response) != ''", "'{:.2f}%'.format(3.14159) in response", "'{name:>{width}}'.format(name='x', width=3)",
    "f'{len(response):>{4}d} {response!r:.5}' != ''", "'%s: %d' % (response, 3) != response", "all(map('{}'.format, [1, 2]))",
    "response.encode('utf-8').decode('ascii', 'ignore') == response", "dict(zip('ab', (1, 2))).get('a') == 1",
    "format(len(response), ',') != ''", "bytes(response, 'utf-8').hex() != ''", "isinstance(response, (str, bytes))",
    "next((w for w in response.split() if len(w) == 7), None) is not None", "[x for x in range(3) if (y := x) > 1] == [2]",
    "(lambda text: len(text) > 3)(response)", "int('0' + ''.join(filter(str.isdigit, response))) % 2 == 0", "not {'a'} & {*response}",
    "import re\nbool(re.search(r'\\b\\d{3}-\\d{4}\\b', response))", "import re\nre.match('[A-Z]', response, re.I | re.MULTILINE) is None",
    "import re\nlen(re.findall(r'\\{[^{}]*[._]\\w+\\}', response)) == 0", "import re\nre.compile(r'^\\d+\\.', re.M).sub('', response) != ''",
    "from re import findall, split\nlen(findall('a', response)) < len(split('b', response)) + 9", "import re as regex\nregex.split(r'[.!?]+', response)[-1] == ''",
    "import json\nisinstance(json.loads('[1]'), list)", "import json\njson.dumps({'a': response}, indent=2) != ''",
    "from collections import Counter\nCounter(response.split()).most_common(1) != [1]", "import collections\ncollections.defaultdict(int)['a'] == 0",
    "from collections import namedtuple\nnamedtuple('P', 'x y')(1, 2)._replace(x=3).x == 3",
    "from collections.abc import Iterable\nisinstance(response, Iterable)", "from typing import List, Dict, Optional\nx: List[str] = []\nx == []",
    "import unicodedata\nunicodedata.normalize('NFD', response) != ''", "import unicodedata as u\nany(u.category(c) == 'So' for c in response)",
    "import statistics\nstatistics.mean([len(w) for w in ['a', response]]) > 1", "from statistics import median, stdev\nmedian([1, 2]) < stdev([1, 9])",
    "import textwrap\ntextwrap.dedent(response) == textwrap.fill(response, 70)", "import string\nresponse.strip(string.punctuation) != ''",
    "import string\nresponse.translate(str.maketrans('', '', string.punctuation)) != ''", "import math\nmath.isqrt(9) == 3 and math.pi > 3",
    "import itertools\nlen(list(itertools.groupby(response))) > 0", "from itertools import combinations\nlen(list(combinations('abc', 2))) == 3",
    "from datetime import datetime\nbool(datetime.strptime('2024-02-03', '%Y-%m-%d'))", "import datetime\ndatetime.date.fromisoformat('2024-02-03').year == 2024",
    "import datetime as dt\n(dt.datetime(2024, 1, 2) - dt.timedelta(days=1)).strftime('%A') == 'Monday'",
    "import time\ntime.strptime('12:30', '%H:%M').tm_hour == 12", "import uuid\nuuid.UUID('12345678123456781234567812345678').version is None",
    "import ast\nisinstance(ast.literal_eval('[1, 2]'), list)", "import ast\nany(isinstance(n, ast.FunctionDef) for n in ast.walk(ast.parse('def f(): 1')))",
    "import csv, io\nlist(csv.reader(io.StringIO('a,b'))) == [['a', 'b']]", "import csv\nfrom io import StringIO\nlen(list(csv.DictReader(StringIO(response)))) >= 0",
    "import xml.etree.ElementTree as ET\nET.fromstring('<a><b/></a>').find('b') is not None", "import html\nhtml.unescape('&lt;') == '<'",
    "import xml.etree.ElementTree\nxml.etree.ElementTree.fromstring('<a/>').tag == 'a'", "import base64\nbase64.b64decode('YQ==') == b'a'",
    "from urllib.parse import urlparse\nurlparse('https://x.org/y').scheme == 'https'", "import hashlib\nlen(hashlib.sha256(response.encode()).hexdigest()) == 64",
    "import difflib\ndifflib.SequenceMatcher(None, response, 'abc').ratio() < 0.9", "from fractions import Fraction\nFraction('1/2') == 0.5",
    "from decimal import Decimal, InvalidOperation\nDecimal('1.5') > 1", "import calendar\nlist(calendar.month_name)[1] == 'January'",
    "from functools import reduce, lru_cache\nreduce(lambda a, b: a + len(b), response.split(), 0) > 0", "import operator\noperator.itemgetter(0)('abc') == 'a'",
    "from functools import partial\npartial(int, base=2)('101') == 5", "import heapq, bisect\nheapq.nlargest(1, [1, 3]) == [3] and bisect.bisect([1], 2) == 1",
]  # fmt: skip
PROGRAMS = [
    "def evaluate(input):\n    vars, id = input.split(), 0\n    for dir in vars:\n        id += len(dir)\n    return id > 2",
    "import string\ndef vowels(string):\n    return sum(c in 'aeiou' for c in string.lower())\ndef evaluate(response):\n    return vowels(response) > 0",
    "import json\ndef evaluate(response):\n    try:\n        data = json.loads(response)\n    except (json.JSONDecodeError, ValueError) as e:\n"
    "        print(f'bad: {type(e).__name__}: {e}')\n        return False\n    return isinstance(data, dict)",
    "def evaluate(response):\n    def helper(text):\n        nonlocal count\n        count += len(text)\n    count = 0\n    helper(response)\n    return count > 0",
    "import re\n\nclass Checker:\n    LIMIT = 5\n    def __init__(self, text: str) -> None:\n        self._words = re.findall(r'\\w+', text)\n"
    "    @property\n    def words(self): return self._words\n    def __len__(self): return len(self._words)\n\n"
    "def evaluate(response: str) -> bool:\n    return len(Checker(response)) <= Checker.LIMIT\n\nif __name__ == '__main__':\n    print(evaluate('x'))",
    "from html.parser import HTMLParser\nclass P(HTMLParser):\n    def __init__(self):\n        super().__init__()\n        self.tags = []\n"
    "    def handle_starttag(self, tag, attrs): self.tags.append(tag)\ndef evaluate(response):\n    p = P()\n    p.feed('<b>x</b>')\n    return p.tags == ['b']",
    "def evaluate(response):\n    match response.split():\n        case [first, *rest] if rest: return first.isalpha()\n        case []: return False\n"
    "        case _: return True",
    "import re\ndef evaluate(response):\n    import re\n    match = re.match(r'(?P<a>\\w+)', response)\n    return bool(match and match.group('a'))",
]  # fmt: skip


def program(text):
    """A whole source: imports stay above, the last line of the rest is returned."""
    if "def evaluate" in text:
        return text
    *before, last = text.splitlines()
    imports = [line for line in before if line.startswith(("import ", "from "))]
    body = [line for line in before if line not in imports] + [f"return bool({last})"]
    return "\n".join([*imports, "def evaluate(response):", *(f"    {line}" for line in body)])


def screen(source):
    return screen_tree(ast.parse(source))


@pytest.mark.parametrize("reason", REFUSED)
def test_what_reaches_out_is_refused(reason):
    for source in REFUSED[reason]:
        found = screen(source)
        assert found and found.startswith(reason), (source, found)


def test_what_differs_from_run_to_run_is_refused_and_says_so():
    assert {
        source: screen(source)
        for source in VARYING
        if not (screen(source) or "").endswith(" (differs from run to run)")
    } == {}


def test_ordinary_functions_pass_and_run():
    sources = list(map(program, [*ORDINARY, *PROGRAMS]))
    with Sandbox() as box:
        failures = {source: result.failure for source in sources for result in box.call(source, ["One of 2 tests."])}
    assert {source: failure for source, failure in failures.items() if failure} == {}


def test_nothing_that_is_listed_is_or_holds_a_module():
    """Of the modules in whole, everything is looked at: a new Python may add to them."""
    for module, names in ALLOWED.items():
        found = importlib.import_module(module)
        for name in [name for name in dir(found) if name[0] != "_"] if names == {"*"} else names:
            value = getattr(found, name, None)  # some are of newer versions
            held = [getattr(value, attribute, None) for attribute in dir(value)] if isinstance(value, type) else []
            assert not any(isinstance(each, types.ModuleType) for each in [value, *held]), f"{module}.{name}"
            assert getattr(value, "__module__", None) not in ("os", "posix", "sys", "subprocess", "shutil"), (
                f"{module}.{name}"
            )
