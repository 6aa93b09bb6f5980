"""Expressions of OpenMM's custom forces: parsed by their grammar (Lepton's) and evaluated on JAX arrays.

    sum      = product {(+ | −) product}
    product  = signed {(* | /) signed}
    signed   = − signed | power
    power    = atom [^ (− …) power]                  to the right: 2^3^2 = 2^9; −x^2 = −(x^2)
    atom     = number | name | name(sum, …) | (sum)
    text     = sum {; name = sum}                    a definition may use those to its right

A derivative that is not finite where the value is, such as that of √x at 0, counts as 0. The branch of a `select`
that is not taken gives derivatives of 0 whatever its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from hpcfit.energies.functions import FUNCTIONS, GUARDED
from hpcfit.errors import InputError, nearest

NUMBER = r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
NAME = r"(?P<name>[^\s\d+\-*/^(),;=.][^\s+\-*/^(),;=]*)"
TOKEN = re.compile(rf"\s*(?:{NUMBER}|{NAME}|(?P<sign>[-+*/^(),;=]))")


class Number(NamedTuple):
    """A literal."""

    value: float


class Name(NamedTuple):
    """A variable."""

    name: str


class Call(NamedTuple):
    """A function or an operator with its arguments."""

    function: str
    arguments: tuple[Node, ...]


Node: TypeAlias = Number | Name | Call


@dataclass(frozen=True)
class Expression:
    """A parsed text; equal texts are equal. root: its value, with definitions in place of their names."""

    text: str
    root: Node = field(compare=False, repr=False)

    def __call__(self, variables: Mapping[str, Any], functions: Mapping[str, Callable] | None = None) -> Any:
        """The value, from those of the variables; functions: further ones, of tables."""
        return _Evaluation(variables, functions or {}).value(self.root, False)

    def names(self) -> set[str]:
        """The variables that the value depends on."""
        return {node.name for node in _walk(self.root) if isinstance(node, Name)}

    def arguments_of(self, functions: set[str]) -> set[str]:
        """The variables in arguments of some functions."""
        calls = (node for node in _walk(self.root) if isinstance(node, Call) and node.function in functions)
        return {node.name for call in calls for node in _walk(call) if isinstance(node, Name)}


def parse(text: str, *, functions: set[str] = frozenset(), source: str = "the expression") -> Expression:
    """The expression in a text. functions: names of tables beside the standard functions."""
    return Expression(text, _Parser(text, set(FUNCTIONS) | set(functions), source).text_value())


def require_names(expression: Expression, known: set[str], *, source: str) -> None:
    """Raises InputError for a variable that is none of those known."""
    for name in sorted(expression.names() - known):
        raise InputError(
            f"{source}: {expression.text!r} uses {name}, which is no variable", remedy=nearest(name, known)
        )


def _walk(root: Node) -> Iterator[Node]:
    """Every node once, though definitions make parts of the tree shared."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting += node.arguments if isinstance(node, Call) else ()
            yield node


class _Parser:
    def __init__(self, text: str, functions: set[str], source: str):
        self.whole, self.functions, self.source = text, functions, source
        self.tokens = list(self._tokens())
        self.place = 0
        self.definitions: dict[str, Node] = {}

    def _tokens(self) -> Iterator[tuple[str, str]]:
        text, at = self.whole.rstrip("; \t\n"), 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if not found:
                raise self._error(f"{text[at:].split()[0]!r} is not understood")
            at = found.end()
            yield found.lastgroup, found[found.lastgroup]
        yield "end", ""

    def _error(self, what: str) -> InputError:
        remedy = "write it in OpenMM's grammar for custom forces"
        return InputError(f"{self.source}: {what} in {self.whole!r}", remedy=remedy)

    def text_value(self) -> Node:
        """Definitions are read from the last one on, since each uses those to its right."""
        parts, kept = [[]], self.tokens[:-1]
        for token in kept:
            parts.append([]) if token == ("sign", ";") else parts[-1].append(token)
        for part in reversed([part for part in parts[1:] if part]):
            if len(part) < 3 or part[0][0] != "name" or part[1] != ("sign", "="):
                raise self._error(f"{''.join(text for _, text in part)!r} is no definition")
            self.definitions[part[0][1]] = self._whole(part[2:])
        return self._whole(parts[0])

    def _whole(self, tokens) -> Node:
        self.tokens, self.place = [*tokens, ("end", "")], 0
        found = self._sum()
        if self._here != ("end", ""):
            raise self._error(f"{self._here[1]!r} is not expected")
        return found

    @property
    def _here(self) -> tuple[str, str]:
        return self.tokens[self.place]

    def _take(self, *signs: str) -> str | None:
        """The sign that stands here, if it is one of these; it is passed."""
        kind, text = self._here
        if kind == "sign" and text in signs:
            self.place += 1
            return text
        return None

    def _sum(self) -> Node:
        found = self._product()
        while sign := self._take("+", "-"):
            found = Call(sign, (found, self._product()))
        return found

    def _product(self) -> Node:
        found = self._signed()
        while sign := self._take("*", "/"):
            found = Call(sign, (found, self._signed()))
        return found

    def _signed(self) -> Node:
        return Call("negative", (self._signed(),)) if self._take("-") else self._power()

    def _power(self) -> Node:
        base = self._atom()
        return Call("^", (base, self._signed())) if self._take("^") else base

    def _atom(self) -> Node:
        kind, text = self._here
        if self._take("("):
            return self._closed(self._sum())
        if kind not in ("number", "name"):
            raise self._error(f"{text or 'the end'!r} is not expected")
        self.place += 1
        if kind == "number":
            return Number(float(text))
        return self._call(text) if self._take("(") else self.definitions.get(text, Name(text))

    def _call(self, name: str) -> Node:
        if name not in self.functions:
            raise self._error(f"{name} is no function ({nearest(name, self.functions)})")
        arguments = [self._sum()]
        while self._take(","):
            arguments.append(self._sum())
        expected = FUNCTIONS[name].arguments if name in FUNCTIONS else len(arguments)
        if len(arguments) != expected:
            raise self._error(f"{name} takes {expected} arguments, not {len(arguments)},")
        return self._closed(Call(name, tuple(arguments)))

    def _closed(self, node: Node) -> Node:
        if not self._take(")"):
            raise self._error(f"{self._here[1] or 'the end'!r} stands where ) is expected")
        return node


class _Evaluation:
    """One evaluation; parts that definitions share are computed once, and once more below a select."""

    def __init__(self, variables, functions):
        self.variables, self.functions = variables, functions
        self.known: dict[tuple[int, bool], Any] = {}

    def value(self, node: Node, guarded: bool) -> Any:
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Name):
            return self.variables[node.name]
        key = (id(node), guarded)
        if key not in self.known:
            self.known[key] = self._call(node, guarded)
        return self.known[key]

    def _call(self, call: Call, guarded: bool) -> Any:
        below = [guarded or (call.function == "select" and place > 0) for place in range(len(call.arguments))]
        arguments = [self.value(node, guard) for node, guard in zip(call.arguments, below)]
        if call.function in self.functions:
            return self.functions[call.function](*arguments)
        if call.function == "^" and isinstance(arguments[1], float) and arguments[1].is_integer():
            return FUNCTIONS["integer power"].apply(arguments[0], int(arguments[1]))
        table = GUARDED if guarded and call.function in GUARDED else FUNCTIONS
        return table[call.function].apply(*arguments)
