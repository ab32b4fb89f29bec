"""What a reproduced number depends on besides its settings: the data that it was measured on, and the code."""

import ast
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories
from schemas.run_identity import config_hash

_ROOT = Path(__file__).parents[1]
_RUNNER = "ray_jobs.reproduction.runner"
# Settings enter the identity by value, and code that keeps or prints results does not affect them. Ensembles affect
# their own results only: they import what scores the members, which would make every result depend on it.
_APART = {f"ray_jobs.reproduction.{name}" for name in ("ensembles", "experiments", "results", "usage")}


def data_hash(catalogue: Catalogue, histories: Histories, texts: bool, preferences: bool) -> str:
    """Hash of items and histories with their split and times; where a model reads them, of texts and preferences."""
    parts = [histories.valid_position, histories.test_position, *histories.items, *(histories.times or ())]
    content = hashlib.sha256(b"".join(np.asarray(part, np.int64).tobytes() for part in parts)).hexdigest()
    read = (catalogue.titles, catalogue.texts) if texts else ()
    said = (
        {"preferences": [dict(one) for one in histories.preferences]}
        if preferences and any(histories.preferences)
        else {}
    )
    return config_hash({"items": catalogue.item_ids, "histories": content, "texts": read, **said})


@cache
def code_hash(modules: Sequence[str]) -> str:
    """Hash of the code that trains and evaluates the recipes in `modules`; comments and docstrings do not count.

    Args:
        modules: below ``ray_jobs``, such as ``recipes.sequential.sasrec``. What they import counts, so that a change
            of one recipe leaves the results of the others as they are.
    """
    roots = [_RUNNER, *(f"ray_jobs.{module}" for module in modules)]
    left = list(roots)
    found: dict[str, str] = {}
    while left:
        name = left.pop()
        path = _source(name)
        if path is not None and name not in found and (name in roots or name not in _APART):
            found[name], imported = _read(path)
            left.extend(imported)
    content = "".join(f"{name}\n{found[name]}\n" for name in sorted(found))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _source(module: str) -> Path | None:
    """The file of a module of this room; None of another one, and for a name that is no module."""
    if module.partition(".")[0] != _ROOT.name:
        return None
    path = _ROOT.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The code of a module without comments and docstrings, and the modules that it imports."""
    tree = ast.parse(path.read_text())
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.extend((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return ast.dump(_bare(tree)), tuple(names)


def _bare(tree: ast.Module) -> ast.Module:
    """The module without strings that stand alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
