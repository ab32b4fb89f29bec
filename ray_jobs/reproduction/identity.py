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

_FOLDERS = (
    "data",
    "decoding",
    "encoders",
    "evaluation",
    "objectives",
    "recommenders",
    "tokenizers",
    "training",
)
# What prints results is not here, nor the presets: the settings are part of the identity themselves.
_FILES = tuple(f"reproduction/{name}.py" for name in ("baselines", "benchmark_data", "ensembles", "measures", "runner"))


def data_hash(catalogue: Catalogue, histories: Histories, texts: bool) -> str:
    """Hash of items and histories with their split and times, and of titles and texts where a model reads `texts`."""
    parts = [histories.valid_position, histories.test_position, *histories.items, *(histories.times or ())]
    content = hashlib.sha256(b"".join(np.asarray(part, np.int64).tobytes() for part in parts)).hexdigest()
    read = (catalogue.titles, catalogue.texts) if texts else ()
    return config_hash({"items": catalogue.item_ids, "histories": content, "texts": read})


@cache
def code_hash(families: Sequence[str]) -> str:
    """Hash of the code that trains and evaluates recipes of `families`; comments and docstrings do not count."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    folders = (*_FOLDERS, *(f"recipes/{family}" for family in families))
    modules = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    for path in [*modules, *(root / name for name in _FILES)]:
        digest.update(f"{path.relative_to(root)}\n{ast.dump(_bare(path.read_text()))}\n".encode())
    return digest.hexdigest()[:12]


def _bare(source: str) -> ast.Module:
    """The parsed module without strings that stand alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
