"""Conditions on the attributes of items, such as ``brand == "Fender" and price < 50 and "Guitars" in categories``.

A condition compares attributes with texts and numbers by ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=`` and ``in``, and
joins comparisons by ``and``, ``or``, ``not`` and parentheses. It is Python's grammar, read by Python's parser and never
run. An attribute that an item lacks makes every comparison with it false.
"""

import ast
from collections.abc import Mapping
from typing import Literal

from schemas.errors import DataError

Kind = Literal["text", "number", "texts"]

ATTRIBUTES: Mapping[str, Kind] = {"brand": "text", "categories": "texts", "price": "number"}
"""Columns of the table `items` that conditions speak of."""
ORDERS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_EXAMPLE = 'brand == "Fender" and price < 50'


def read_condition(text: str) -> ast.expr:
    """Read a condition: the tree of its comparisons, which has no parts but those named above.

    Raises:
        DataError: it is none; the message names the part and the remedy.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise DataError(f"{_shown(text)} is no condition ({error.msg}); write it like {_EXAMPLE}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise DataError(f"{_shown(text)} cannot be read ({error}); write a shorter condition") from error
    try:
        _check(tree)
    except RecursionError as error:
        raise DataError(f"{_shown(text)} is nested too deeply; write fewer parentheses") from error
    return tree


def _check(tree: ast.expr) -> None:
    """Raise a `DataError` at the first part that no condition may have."""
    match tree:
        case ast.BoolOp(values=values):
            for value in values:
                _check(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand)
        case ast.Compare(left=left, ops=[operation], comparators=[right]):
            _check_comparison(left, operation, right)
        case _:
            raise DataError(f"{_source(tree)} is no comparison of an attribute; write it like {_EXAMPLE}")


def _check_comparison(left: ast.expr, operation: ast.cmpop, right: ast.expr) -> None:
    if isinstance(operation, ast.In) and isinstance(right, ast.Name):
        if _kind(right) != "texts" or not isinstance(constant(left), str):
            raise DataError(f'{_source(right)} holds no list of texts; "in" takes "Guitars" in categories')
        return
    kind = _kind(left)
    if kind == "texts":
        raise DataError(f'{_source(left)} is a list of texts; ask "Guitars" in {_source(left)}')
    if isinstance(operation, ast.In) and isinstance(right, ast.List | ast.Tuple):
        for one in right.elts:
            _require_kind(left, kind, constant(one))
    elif isinstance(operation, ORDERS):
        _require_kind(left, kind, constant(right))
    else:
        raise DataError(f"{_source(left)} is compared by ==, !=, <, <=, >, >= or in [...]")


def _kind(name: ast.expr) -> Kind:
    if not isinstance(name, ast.Name) or name.id not in ATTRIBUTES:
        raise DataError(f"{_source(name)} is no attribute of items; there are {', '.join(ATTRIBUTES)}")
    return ATTRIBUTES[name.id]


def constant(value: ast.expr) -> str | float:
    """The text or number that a part of a condition is.

    Raises:
        DataError: it is neither.
    """
    match value:
        case ast.Constant(value=str() as found):
            return found
        case ast.Constant(value=int() | float() as found) if not isinstance(found, bool):
            return float(found)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as found)):
            return -float(found)
    raise DataError(f"{_source(value)} is neither a text in quotes nor a number")


def _require_kind(name: ast.expr, kind: Kind, value: str | float) -> None:
    if isinstance(value, str) != (kind == "text"):
        raise DataError(f"{_source(name)} is a {kind}, which is not compared with {value!r}"[:200])


def _source(tree: ast.expr) -> str:
    return _shown(ast.unparse(tree))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
