"""Which items fulfil a condition of `schemas.item_conditions`."""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.item_conditions import constant

BoolArray = npt.NDArray[np.bool_]
_COMPARED: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}


def holds(tree: ast.expr, items: pa.Table) -> BoolArray:
    """For which rows of a table with the columns of `ATTRIBUTES` the condition is true, bool[N]."""
    match tree:
        case ast.BoolOp(op=joined, values=values):
            join = operator.and_ if isinstance(joined, ast.And) else operator.or_
            return reduce(join, [holds(value, items) for value in values])
        case ast.UnaryOp(operand=operand):
            return ~holds(operand, items)
        case ast.Compare(left=left, ops=[operation], comparators=[right]):
            return _compared(left, operation, right, items)
    raise AssertionError(tree)


def _compared(left: ast.expr, operation: ast.cmpop, right: ast.expr, items: pa.Table) -> BoolArray:
    if isinstance(right, ast.Name):
        return _among(items[right.id].combine_chunks(), constant(left))
    assert isinstance(left, ast.Name)
    values = items[left.id].combine_chunks()
    if isinstance(right, ast.List | ast.Tuple):
        found = pc.is_in(values, pa.array([constant(one) for one in right.elts], values.type))
    else:
        found = _COMPARED[type(operation)](values, pa.scalar(constant(right), values.type))
    return np.asarray(pc.fill_null(found, False), dtype=np.bool_)


def _among(lists: pa.ListArray, value: str | float) -> BoolArray:
    """Which of the lists hold `value`."""
    hits = pc.list_parent_indices(lists).filter(pc.fill_null(pc.equal(lists.flatten(), value), False))
    found = np.zeros(len(lists), dtype=np.bool_)
    found[np.asarray(hits)] = True
    return found
