"""Log a bundle as an MLflow model that loads in a clean process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from infra.settings import REPOSITORY
from ray_jobs.registry.requirements import pip_requirements
from ray_jobs.registry.served import ARTIFACT, DEFAULT_EXCLUDE_SEEN, DEFAULT_K
from ray_jobs.registry.users import User, user_columns
from schemas.columns import HISTORY, ExampleColumn, requested

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
    """The model's inputs, outputs and parameters; see `schemas.columns`."""
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(_type(column), name=field.name, required=field.required)
                for column, field in requested()
                if not field.parameter
            ]
        ),
        outputs=Schema(
            [
                ColSpec(Array(DataType.double if name == "scores" else DataType.string), name=name)
                for name in ("item_ids", "titles", "scores", "because", "unmatched")
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", DataType.long, DEFAULT_K),
                ParamSpec("exclude_seen", DataType.boolean, DEFAULT_EXCLUDE_SEEN),
                *(
                    ParamSpec(field.name, _TYPES[column.kind], column.default)
                    for column, field in requested()
                    if field.parameter
                ),
            ]
        ),
    )


def input_example(user: User) -> pd.DataFrame:
    """One input row as serving accepts it."""
    columns = {HISTORY: [user.history], "preferences": [user.preference or ""], **user_columns([user])}
    names = {column.name: field.name for column, field in requested()}
    return pd.DataFrame({names[name]: values for name, values in columns.items() if name != "known"})


def log_model(
    run_id: str,
    bundle_dir: Path,
    example: pd.DataFrame,
    packages: Sequence[str],
    tags: Mapping[str, str],
) -> str:
    """Log the bundle at `bundle_dir` as a model of the run, with its code.

    Args:
        packages: see `pip_requirements`.

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
