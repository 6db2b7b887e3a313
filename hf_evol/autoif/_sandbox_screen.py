"""Static screening of generated source: the first layer of the sandbox, cheap and talkative, and not a wall.

Also loaded outside the package by the isolated process, so it imports the standard library alone.
"""

from __future__ import annotations

import ast
import re

# Pure computing: no files, processes, network, or interpreter internals in their public names.
ALLOWED_MODULES = frozenset(
    "__future__ abc ast base64 binascii bisect calendar cmath collections collections.abc copy csv dataclasses "
    "datetime decimal difflib enum fractions functools hashlib heapq hmac html html.entities html.parser itertools "
    "json json.decoder keyword math numbers operator random re statistics string textwrap time typing unicodedata "
    "urllib.parse uuid xml.etree.ElementTree zlib".split()
)
_ALLOWED_FROM = {"io": {"StringIO", "BytesIO"}}  # csv readers want them; the rest of io opens files

_REFUSED_NAMES = frozenset(
    "open exec eval compile globals locals vars dir input breakpoint help memoryview exit quit delattr".split()
)
_DYNAMIC_ACCESS = frozenset(["getattr", "setattr", "hasattr"])

# Names with which generated code ordinarily defines classes or guards a main block.
_ALLOWED_DUNDERS = frozenset(
    "__name__ __main__ __init__ __post_init__ __doc__ __len__ __str__ __repr__ __eq__ __lt__ __hash__ __iter__ "
    "__next__ __contains__ __call__ __getitem__ __enter__ __exit__ __version__ __all__".split()
)
# Ways from a harmless object to frames, code, attributes by name, or the modules that others import.
_REFUSED_ATTRIBUTES = frozenset(
    "gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next f_back f_builtins f_code f_globals f_locals "
    "co_code func_globals func_code mro attrgetter methodcaller builtins codecs ctypes importlib inspect io os sys "
    "open pickle posix shutil signal socket subprocess threading".split()
)
_FORMAT_ACCESS = re.compile(r"\{[^{}]*[.\[]_")


def screen(source: str) -> str | None:
    """Why ``source`` must not be run, in short ASCII such as ``"imports os"``; or None.

    It parses in this process, and CPython's parser can be crashed by hostile text; `Sandbox` therefore screens in the
    isolated process.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "syntax error"
    return screen_tree(tree)


def screen_tree(tree: ast.AST) -> str | None:
    """`screen` for source that is parsed already."""
    reason = next(filter(None, map(_reason, ast.walk(tree))), None)
    return reason and ascii(reason)[1:-1][:160]


def _reason(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import):
        return next((f"imports {alias.name}" for alias in node.names if alias.name not in ALLOWED_MODULES), None)
    if isinstance(node, ast.ImportFrom):
        return _import_from(node)
    if isinstance(node, ast.Attribute):
        return _name(node.attr, _REFUSED_ATTRIBUTES, "attribute")
    if isinstance(node, ast.Name):
        called = getattr(node, "_called", False)  # by a call that `_access` has looked at
        return None if called else _name(node.id, _REFUSED_NAMES | _DYNAMIC_ACCESS, "name")
    if isinstance(node, ast.Call):
        return _access(node)
    if isinstance(node, ast.MatchClass):
        return next((_name(name, _REFUSED_ATTRIBUTES, "attribute") for name in node.kwd_attrs), None)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _FORMAT_ACCESS.search(node.value):
        return "format string that reaches a private attribute"
    return None


def _import_from(node: ast.ImportFrom) -> str | None:
    module, names = node.module or "", [alias.name for alias in node.names]
    if not node.level and set(names) <= _ALLOWED_FROM.get(module, set()):
        return None
    if node.level or module not in ALLOWED_MODULES:
        return f"imports {'.' * node.level}{module}"
    plain = (name for name in names if f"{module}.{name}" not in ALLOWED_MODULES)
    return next(filter(None, (_name(name, _REFUSED_ATTRIBUTES, "attribute") for name in plain)), None)


def _name(name: str, refused: frozenset[str], kind: str) -> str | None:
    private_module = name.startswith("_") and name.strip("_") in _REFUSED_ATTRIBUTES  # random._os
    dunder = name.startswith("__") and name not in _ALLOWED_DUNDERS
    return f"{kind} {name}" if name in refused or private_module or dunder else None


def _access(node: ast.Call) -> str | None:
    # ast.walk meets a call before the names in it, so that the mark is set in time.
    function = node.func
    if not (isinstance(function, ast.Name) and function.id in _DYNAMIC_ACCESS):
        return None
    function._called = True  # type: ignore[attr-defined]
    name = node.args[1] if len(node.args) > 1 else None
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return _name(name.value, _REFUSED_ATTRIBUTES, "attribute")
    return f"{function.id} with a computed name"
