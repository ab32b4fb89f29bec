"""Logging a bundle as an MLflow model that loads in a clean process."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from infra.settings import REPOSITORY
from ray_jobs.registry.served import ARTIFACT, DEFAULT_EXCLUDE_SEEN, DEFAULT_K
from ray_jobs.registry.users import User, user_columns
from schemas.columns import HISTORY, ExampleColumn, requested

REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors")
"""What loading any recipe needs; `Recommender.packages` names what one needs beside it."""
CODE = ("ray_jobs", "schemas", "infra")


_TYPES = {
    "item": DataType.string,
    "text": DataType.string,
    "int64": DataType.long,
    "float32": DataType.double,
    "bool": DataType.boolean,
}


def _type(column: ExampleColumn) -> DataType | Array:
    kind = Array(_TYPES[column.kind]) if column.width else _TYPES[column.kind]
    return Array(kind) if column.along else kind


def signature() -> ModelSignature:
    """Columns in and out, and parameters, ``k`` and ``exclude_seen`` among them; see `schemas.columns`."""
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(_type(column), name=asked.name, required=asked.required)
                for column, asked in requested()
                if not asked.parameter
            ]
        ),
        outputs=Schema(
            [
                ColSpec(Array(DataType.string), name="item_ids"),
                ColSpec(Array(DataType.string), name="titles"),
                ColSpec(Array(DataType.double), name="scores"),
                ColSpec(Array(DataType.string), name="because"),
                ColSpec(Array(DataType.string), name="unmatched"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", DataType.long, DEFAULT_K),
                ParamSpec("exclude_seen", DataType.boolean, DEFAULT_EXCLUDE_SEEN),
                *(
                    ParamSpec(asked.name, _TYPES[column.kind], column.default)
                    for column, asked in requested()
                    if asked.parameter
                ),
            ]
        ),
    )


def pip_requirements(packages: Sequence[str]) -> list[str]:
    """Packages that serving needs, pinned to this environment; a build's local label (``+cpu``) is dropped.

    Args:
        packages: what the recipe needs beside `REQUIREMENTS`.
    """
    return [f"{name}=={version(name).split('+', 1)[0]}" for name in (*REQUIREMENTS, *packages)]


def input_example(reader: User) -> pd.DataFrame:
    """One input row, as the pages show it and as serving accepts it."""
    columns = {HISTORY: [reader.history], "preferences": [reader.preference or ""], **user_columns([reader])}
    names = {column.name: asked.name for column, asked in requested()}
    return pd.DataFrame({names[name]: values for name, values in columns.items() if name != "known"})


def log_model(
    run_id: str,
    bundle_dir: str | Path,
    example: pd.DataFrame,
    packages: Sequence[str],
    tags: Mapping[str, str],
) -> str:
    """Log the bundle at `bundle_dir` as a model of the run, with its code.

    Args:
        packages: what loading it needs beside `REQUIREMENTS`.

    Returns:
        The model's id, as in ``models:/<id>``.
    """
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="recommender",
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={ARTIFACT: str(bundle_dir)},
            code_paths=[str(REPOSITORY / folder) for folder in CODE],
            signature=signature(),
            input_example=example,
            pip_requirements=pip_requirements(packages),
            tags=dict(tags),
        )
    assert info.model_id is not None
    return info.model_id
