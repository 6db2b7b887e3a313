"""Static screening of generated source: the first layer of the sandbox, cheap and talkative, and not a wall.

Functions that pass are published, and may be run where no other layer stands. So what imports give is listed, a module is
never a value, names of attributes are never computed, and nothing that differs from run to run is called.

Also loaded outside the package by the isolated process, so it imports the standard library alone.
"""

from __future__ import annotations

import ast
import os
import string
from collections.abc import Iterable, Iterator


def _allowed() -> dict[str, frozenset[str]]:
    """The names of each module that ``allowed.txt`` lists; of `ast`, all kinds of nodes, too."""
    here = os.path.dirname(__file__)  # noqa: PTH120 - pathlib would stay loaded in every leaf
    with open(f"{here}/allowed.txt", encoding="ascii") as file:  # noqa: PTH123
        lines = [line.partition(": ") for line in file if line.strip() and not line.startswith("#")]
    nodes = {name for name, kind in vars(ast).items() if isinstance(kind, type) and issubclass(kind, ast.AST)}
    return {module: frozenset(names.split()) | (nodes if module == "ast" else set()) for module, _, names in lines}


ALLOWED = _allowed()
_PACKAGES = {module[:end] for module in ALLOWED for end, char in enumerate(module + ".") if char == "."}

_REFUSED_NAMES = frozenset(
    "open exec eval compile globals locals vars dir input breakpoint help memoryview exit quit delattr setattr getattr "
    "hasattr type id hash copyright credits license".split()
)

# Names with which generated code ordinarily defines classes or guards a main block.
_ALLOWED_DUNDERS = frozenset(
    "__name__ __main__ __init__ __post_init__ __doc__ __len__ __bool__ __str__ __repr__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ "
    "__hash__ __iter__ __next__ __contains__ __call__ __getitem__ __setitem__ __add__ __enter__ __exit__ __version__ "
    "__all__ __author__ __slots__".split()
)
# Ways from a harmless object to frames, code, the classes of all objects, attributes by name, the module that an
# AttributeError is about, a clock, or the seed of hashes.
_REFUSED_ATTRIBUTES = frozenset(
    "gi_frame gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next f_back f_builtins f_code f_globals f_locals "
    "co_code func_globals func_code mro format format_map obj now today utcnow "
    "__hash__".split()
)
# Also where they are refused for being on no list.
_VARYING = frozenset(
    "random secrets now today utcnow id hash __hash__ uuid1 uuid4 getnode time time_ns monotonic perf_counter process_time "
    "localtime gmtime ctime asctime strftime".split()
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IMPORTS = (ast.Import, ast.ImportFrom)


def screen_tree(tree: ast.Module) -> str | None:
    """Why parsed source must not be run, in short ASCII such as ``"imports os"``; or None.

    CPython's parser can be crashed by hostile text, so it is the isolated process that parses.
    """
    reason = next(_Screening(tree).reasons(), None)
    if reason and reason.rpartition(" ")[2].rpartition(".")[2] in _VARYING:
        reason += " (differs from run to run)"
    return reason and ascii(reason)[1:-1][:160]


class _Screening:
    """Walks a tree, and knows of each name whether it can be a module's or a builtin's."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._imported: dict[str, str] = {}  # what a name stands for, as "module" or "module.name"
        self._fixed: set[str] = set()  # names that other scopes bind, too
        of_module = set(_own(tree.body))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                self._fixed.update(node.names)
            elif isinstance(node, _IMPORTS):
                self._imported |= dict(_bound(node))
                self._fixed.update(name for name, _ in _bound(node) if node not in of_module)

    def reasons(self) -> Iterator[str | None]:
        """Every reason to refuse the tree."""
        todo: list[tuple[ast.AST, frozenset[str]]] = [(self._tree, frozenset())]  # nodes, and the plain variables there
        while todo:
            node, variables = todo.pop()
            yield from filter(None, self._reasons(node, variables))
            inner, inside = set(), variables
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                inner = set(node.body if isinstance(node.body, list) else [node.body])
                # A name that a class binds can be a builtin in its body all the same.
                inside = variables | self._variables(node, inner) if isinstance(node, _FUNCTIONS) else frozenset()
            children = reversed(self._children(node, variables))  # so that the first reason is the first in the source
            todo += [(child, inside if child in inner else variables) for child in children]

    def _variables(self, function: ast.AST, body: set[ast.AST]) -> set[str]:
        """Names that are surely a function's own, and never a module."""
        found = {node.arg for node in _own(ast.iter_child_nodes(function.args)) if isinstance(node, ast.arg)}
        found |= {node.id for node in _own(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return found - self._fixed

    def _children(self, node: ast.AST, variables: frozenset[str]) -> list[ast.AST]:
        """The children of a node, without those that `_reasons` looks at together with it."""
        if isinstance(node, ast.Attribute):
            return [] if self._path(node, variables) else [_chain(node)[0]]
        seen = node.func if isinstance(node, ast.Call) and _asks_type(node) else None
        return [child for child in ast.iter_child_nodes(node) if child is not seen]

    def _path(self, node: ast.AST, variables: frozenset[str]) -> str | None:
        """What a name, or names with dots between them, stand for if they begin with an imported name."""
        root, names = _chain(node)
        if isinstance(root, ast.Name) and root.id in self._imported and root.id not in variables:
            return ".".join([self._imported[root.id], *names])
        return None

    def _reasons(self, node: ast.AST, variables: frozenset[str]) -> Iterator[str | None]:
        for name in _identifiers(node):
            if name.startswith("__") and name not in _ALLOWED_DUNDERS:
                yield f"{'attribute' if isinstance(node, ast.Attribute) else 'name'} {name}"
        if isinstance(node, _IMPORTS):
            yield from self._import(node)
        elif isinstance(node, ast.Attribute):
            yield from self._attribute(node, variables)
        elif isinstance(node, ast.Name) and node.id not in variables:
            path = self._path(node, variables)
            yield f"name {node.id}" if node.id in _REFUSED_NAMES else path and _reach(path)
        elif isinstance(node, ast.MatchClass):
            yield "class pattern with positions" if node.patterns else None  # by names that a class computes
            yield from map(_attribute_name, node.kwd_attrs)
        elif isinstance(node, ast.ClassDef):
            yield "class with keywords" if node.keywords else None  # a metaclass sees and changes the names in it
            yield "imports in a class" if any(isinstance(inner, _IMPORTS) for inner in _own(node.body)) else None

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[str | None]:
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if alias.name not in ALLOWED)
        elif node.level or node.module not in _PACKAGES:
            yield f"imports {'.' * node.level}{node.module or ''}"
        else:
            paths = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (f"imports {path}" for path in paths if path not in ALLOWED and _reach(path))
        yield from (f"two imports of {name}" for name, target in _bound(node) if self._imported[name] != target)

    def _attribute(self, node: ast.Attribute, variables: frozenset[str]) -> Iterator[str | None]:
        root, names = _chain(node)
        path = self._path(node, variables)
        if path:
            yield _reach(path) if isinstance(node.ctx, ast.Load) else f"changes {path}"
        if isinstance(root, ast.Constant) and isinstance(root.value, str) and names[0] in ("format", "format_map"):
            yield "format string that reaches an attribute" if _format_reaches(root.value) else None
            names = names[1:]
        yield from map(_attribute_name, names)


def _own(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a scope that are in no scope inside it."""
    todo = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _SCOPES):
            todo += ast.iter_child_nodes(node)


def _bound(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """The names that an import binds, and what each stands for."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        else:
            top = alias.name.partition(".")[0]
            yield alias.asname or top, alias.name if alias.asname else top


def _identifiers(node: ast.AST) -> Iterator[str]:
    """Every name in a node's own fields, also of functions, parameters, keywords and patterns."""
    if not isinstance(node, ast.Constant):
        for field, value in ast.iter_fields(node):
            names = value if isinstance(value, list) else [value]
            yield from (name for name in names if isinstance(name, str) and field != "module" and name != "__future__")


def _chain(node: ast.AST) -> tuple[ast.AST, list[str]]:
    """What stands before the dots, and the names behind them."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return node, names[::-1]


def _reach(path: str) -> str | None:
    """Why a dotted path from a module must not be followed; past the first name that is on a list, it may."""
    module, *names = path.split(".")
    for name in names:
        if f"{module}.{name}" not in _PACKAGES:
            allowed = ALLOWED.get(module, frozenset())
            listed = name in allowed or ("*" in allowed and not name.startswith("_"))
            return None if listed else f"attribute {module}.{name}"
        module = f"{module}.{name}"
    return f"module {module} as a value" if module in _PACKAGES else None


def _attribute_name(name: str) -> str | None:
    dunder = name.startswith("__") and name not in _ALLOWED_DUNDERS
    return f"attribute {name}" if dunder or name in _REFUSED_ATTRIBUTES else None


def _asks_type(node: ast.Call) -> bool:
    """Whether it calls `type` with one argument."""
    one = len(node.args) == 1 and not isinstance(node.args[0], ast.Starred) and not node.keywords
    return one and getattr(node.func, "id", None) == "type"


def _format_reaches(text: str) -> bool:
    """Whether `str.format` of a text would read attributes, in a field or in the specification within a field."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:  # `format` raises it, too, but may have read some fields before
        return True
    return any("." in (field or "") or _format_reaches(spec or "") for _, field, spec, _ in fields)
