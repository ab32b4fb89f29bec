"""No regular expression in the tree hangs: each is matched against 100 kB of its worst texts.

The worst texts are derived from the pattern: a character of every class that its parts distinguish, alone and in pairs,
and near matches with each repetition extended. All are tried short, and the slowest at full length, where a pattern of
quadratic cost takes minutes.
"""

import ast
import random
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

import pytest

ROOMS = ("schemas", "infra", "pipelines", "ray_jobs", "dags")
ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG = 1000, 100_000
BOUND_S = 6.0
"""Linear patterns take 0.01 to 0.3 s for `LONG` here; quadratic ones 30 s and more."""

# Patterns that contain values known at run time only, and why they are linear.
MADE_OF_VALUES = {
    ("infra/masks.py", "f'{before}{re.escape(value)}(?!\\\\w)'"): "a secret, letter for letter",
    ("infra/state.py", "form"): "one class of characters, so many times",
    ("pipelines/landing/readers/amazon.py", "f\"^({'|'.join(TEXT)})\""): "one word of a list, at the start",
    ("pipelines/landing/readers/columns.py", "pattern"): "one class of characters, or the end",
    (
        "pipelines/landing/readers/json_lines.py",
        "sf.lit(f\"^({'|'.join(kinds)}|VOID)\")",
    ): "one word of a list, at the start",
    ("pipelines/landing/readers/values.py", "pattern"): "three of `schemas.spelling`, anchored at both ends",
    ("pipelines/language/dialect.py", "f'\\\\b{field}\\\\b'"): "the name of a field, letter for letter",
    ("pipelines/review_summaries.py", "f'^({verbs}) '"): "one word of a list, at the start",
}
_FUNCTIONS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
_OF_SPARK = {
    "regexp_replace": 1,
    "regexp_extract": 1,
    "regexp_extract_all": 1,
    "regexp_like": 1,
    "split": 1,
    "rlike": 0,
}
_ASKS_ONCE = {"match", "fullmatch"}


@dataclass(frozen=True)
class Found:
    where: str
    pattern: str
    flags: int
    ask: str

    def __str__(self) -> str:
        return self.where


class Unknown(Exception):
    """The value of an expression is known to a run only."""


def _constants(path: Path) -> dict[str, ast.expr | Path]:
    """Names of a module with what they stand for: an expression, or the file that they are imported from."""
    names: dict[str, ast.expr | Path] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            place = ROOT.joinpath(*node.module.split("."))
            files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
            names |= {alias.asname or alias.name: file for alias in node.names for file in files}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            names[node.target.id] = node.value
    return names


def _text(node: ast.expr, names: dict[str, ast.expr | Path]) -> str:
    """The text of an expression made of constants."""
    match node:
        case ast.Constant(value=str() | int() as value):
            return str(value)
        case ast.Name(id=name) if name in names:
            known = names[name]
            return _text(node, _constants(known)) if isinstance(known, Path) else _text(known, names)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return str(int(_text(left, names)) - int(_text(right, names)))
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, names) for part in parts)
        case ast.FormattedValue(value=value):
            return _text(value, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, names) + _text(right, names)
        case ast.Call(func=ast.Attribute(attr="lit"), args=[inner]):
            return _text(inner, names)
    raise Unknown


def _patterns(path: Path) -> Iterator[Found | tuple[str, str]]:
    """Every pattern of a file; file and source of the expression where a run alone knows it."""
    tree = ast.parse(path.read_text())
    file = str(path.relative_to(ROOT))
    names = _constants(path)
    asked = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    of_call = {
        id(node.value): node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        call, owner = node.func.attr, node.func.value
        if isinstance(owner, ast.Name) and owner.id == "re" and call in _FUNCTIONS:
            place = 0
        elif call in _OF_SPARK and not (isinstance(owner, ast.Name) and owner.id == "re"):
            place = _OF_SPARK[call]
            if call == "split" and not (isinstance(owner, ast.Name) and owner.id == "sf"):
                continue
        else:
            continue
        if len(node.args) <= place:
            continue
        try:
            pattern = _text(node.args[place], names)
        except Unknown:
            yield file, ast.unparse(node.args[place])
            continue
        given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "flags")] if call == "compile" else [
            k.value for k in node.keywords if k.arg == "flags"
        ]  # fmt: skip
        flags = sum(int(eval(ast.unparse(flag), {"re": re})) for flag in given)
        if call == "compile":
            name = of_call.get(id(node))
            methods = {method for owner_name, method in asked if owner_name == name}
            ask = next(iter(methods)) if len(methods) == 1 and methods <= _ASKS_ONCE else "search"
        else:
            ask = call if call in _ASKS_ONCE else "search"
        yield Found(f"{file}:{node.lineno}", pattern, flags, ask)


EVERY = [found for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) for found in _patterns(path)]


def _atoms(parsed) -> Iterator[object]:
    """Every part of a parsed pattern that is one character."""
    for op, value in parsed:
        if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            yield (op, value)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            yield from _atoms(value[2])
        elif op is sre.SUBPATTERN:
            yield from _atoms(value[3])
        elif op is sre.BRANCH:
            for one in value[1]:
                yield from _atoms(one)
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            yield from _atoms(value[1])
        elif op is sre.ATOMIC_GROUP:
            yield from _atoms(value)


_TAIL = "\x00q"
"""What words do not go on with, and what no run of other characters goes on with."""
_CHARS = [chr(code) for code in range(32, 127)] + ["\n", "\x00", "\u2013", "\u00e9", "\u20ac"]


class _Worst:
    """Texts that a pattern may find hard, for a number of characters."""

    def __init__(self, found: Found) -> None:
        self.state = _parser.State()
        self.state.flags = found.flags
        self.parsed = _parser.parse(found.pattern, found.flags)
        self.flags = found.flags | re.UNICODE
        self.members: dict[str, list[str]] = {}
        self.chance = random.Random(0)
        atoms = {repr(atom): atom for atom in _atoms(self.parsed)}
        self.classes: dict[tuple[bool, ...], str] = {}
        for atom in atoms.values():
            self._of(atom)
        for char in _CHARS:
            self.classes.setdefault((char.isalnum(), *(char in of for of in self.members.values())), char)

    def _of(self, atom) -> list[str]:
        key = repr(atom)
        if key not in self.members:
            one = _parser.SubPattern(self.state, [atom])
            test = re._compiler.compile(one, self.flags & ~re.VERBOSE)  # type: ignore[attr-defined]
            self.members[key] = [char for char in _CHARS if test.match(char)] or ["\u2014"]
        return self.members[key]

    def sample(self, parsed, upto=None) -> tuple[str, bool]:
        """A text that `parsed` matches, lookarounds apart; up to and without the part `upto`, if given."""
        text = ""
        for op, value in parsed:
            if value is upto:
                return text, True
            done = False
            if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
                text += self.chance.choice(self._of((op, value)))
            elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
                for _ in range(max(value[0], 1 if value[1] > 1 or self.chance.random() < 0.5 else 0)):
                    more, done = self.sample(value[2], upto)
                    text += more
                    if done:
                        break
            elif op is sre.SUBPATTERN:
                more, done = self.sample(value[3], upto)
                text += more
            elif op is sre.ATOMIC_GROUP:
                more, done = self.sample(value, upto)
                text += more
            elif op is sre.BRANCH:
                holding = [one for one in value[1] if upto is not None and _holds(one, upto)]
                more, done = self.sample(self.chance.choice(holding or value[1]), upto)
                text += more
            if done:
                return text, True
        return text, False

    def texts(self) -> Iterator[tuple[str, str, str]]:
        """Head, period and tail."""
        one = list(self.classes.values())[:20]
        for first in one:
            for second in one:
                yield "", first + (second if first != second else ""), _TAIL
        for _ in range(4):
            whole = self.sample(self.parsed)[0]
            yield "", whole, _TAIL
            yield "", whole[:-1], _TAIL
            yield "", f" {whole}", ""
        for value in _repeats(self.parsed):
            for _ in range(3):
                before = self.sample(self.parsed, value)[0]
                pump = self.sample(value[2])[0]
                yield before, pump, _TAIL
                yield "", before + pump, _TAIL


def _repeats(parsed) -> Iterator[tuple]:
    for op, value in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            if value[1] > 1:
                yield value
            yield from _repeats(value[2])
        elif op is sre.SUBPATTERN:
            yield from _repeats(value[3])
        elif op is sre.BRANCH:
            for one in value[1]:
                yield from _repeats(one)
        elif op is sre.ATOMIC_GROUP:
            yield from _repeats(value)


def _holds(parsed, part) -> bool:
    return any(value is part for value in _repeats(parsed))


class TooSlow(Exception):
    pass


def _seconds(compiled: re.Pattern[str], ask: str, text: str, bound_s: float) -> float:
    def stop(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, bound_s)
    began = time.perf_counter()
    try:
        if ask == "search":
            for _ in compiled.finditer(text):
                pass
        else:
            getattr(compiled, ask)(text)
    except TooSlow:
        return bound_s
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return time.perf_counter() - began


def _drawn(parts: tuple[str, str, str], length: int) -> str:
    head, period, tail = parts
    return (head + period * (length // max(1, len(period))))[:length] + tail


def slowest(found: Found, bound_s: float) -> tuple[float, tuple[str, str, str]]:
    """Seconds that a pattern takes for the hardest text found, and the head, period and tail of that text."""
    compiled = re.compile(found.pattern, found.flags)
    tried: list[tuple[float, tuple[str, str, str]]] = []
    for parts in dict.fromkeys(_Worst(found).texts()):
        took = _seconds(compiled, found.ask, _drawn(parts, SHORT), bound_s)
        tried.append((took, parts))
        if took >= bound_s:
            return took, parts
    worst = (0.0, ("", "", ""))
    for _, parts in sorted(tried, reverse=True)[:4]:
        worst = max(worst, (_seconds(compiled, found.ask, _drawn(parts, LONG), bound_s), parts))
        if worst[0] >= bound_s:
            break
    return worst


def test_every_pattern_is_found():
    unknown = {found for found in EVERY if not isinstance(found, Found)}
    assert unknown == set(MADE_OF_VALUES), "say in MADE_OF_VALUES why the pattern is linear"
    assert len(EVERY) > 60


@pytest.mark.parametrize("found", [found for found in EVERY if isinstance(found, Found)], ids=str)
def test_no_pattern_hangs(found):
    took, parts = slowest(found, BOUND_S)
    assert took < BOUND_S, f"{found.where} takes over {took:.1f} s for {LONG} characters of {parts!r}"


@pytest.mark.parametrize(
    ("pattern", "ask"),
    [
        (r"(?:\s+[\w-]+(?:\s*=\s*(?:\"[^\"]*\"?|'[^']*'?|[^\s<>]*))?)*\s*/?\Z", "search"),
        (r"\b[\w.+-]+@[\w-]+", "search"),
        (r"[.#][\w-]+\s*\{[^}]*:", "search"),
        (r"(a|a)*b", "fullmatch"),
    ],
)
def test_the_test_finds_patterns_that_hang(pattern, ask):
    assert slowest(Found("here", pattern, 0, ask), 0.5)[0] >= 0.5
