"""The served model: histories and preferences in, items out. Imports only what serving needs."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from ray_jobs.recommenders.bundle import Bundle, load_bundle
from schemas.columns import HISTORY, ExampleColumn, FromRequest, requested
from schemas.errors import DataError

ARTIFACT = "bundle"
DEFAULT_K = 10
DEFAULT_EXCLUDE_SEEN = True


class ServedRecommender(PythonModel):
    """A bundle behind MLflow's generic interface."""

    def __init__(self) -> None:
        self._bundle: Bundle | None = None

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that was logged with the model."""
        self._bundle = load_bundle(context.artifacts[ARTIFACT])

    def predict(
        self,
        context: PythonModelContext | None,  # noqa: ARG002  (MLflow's signature)
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best items for each row.

        Args:
            context: unused; `load_context` has loaded the bundle.
            model_input: columns of `schemas.columns` by their request names: ``history`` (item ids, oldest first;
                unknown ids are skipped, an empty history is allowed) and optionally ``preference`` (a sentence; None,
                NaN and "" mean none), ``known`` (known preferences of the user, used without a ``preference``),
                ``times`` (seconds since 1970 of each item, for recipes that read times), ``asked_at`` (time of the
                recommendation; now by default) and others.
            params: ``k`` (items per row), ``exclude_seen`` (exclude items of the history), ``strength`` (weight of
                ``preference``: 0 ignores it, 1 as fitted on validation, up to 10) and the other parameters of
                `schemas.columns`.

        Returns:
            One row per input row, in order, with lists ``item_ids``, ``titles`` and ``scores``, best first; shorter
            than k if the catalogue has fewer items left. ``because`` has for each item the words of its text that
            match a wish, ``unmatched`` the phrases that match nothing in the catalogue.

        Raises:
            DataError: a value has the wrong type; the message names row and column.
        """
        assert self._bundle is not None, "load_context runs before predict"
        wanted = params or {}
        none = [""] * len(model_input)
        given = {"preferences": none, "known": none, **_columns(model_input), **_parameters(wanted, len(model_input))}
        histories, preferences, known = (given.pop(name) for name in (HISTORY, "preferences", "known"))
        for row, sentence in enumerate(preferences):
            if cut := self._bundle.truncation(sentence):
                raise DataError(f"row {row}, column 'preference': {cut}; shorten it")
        answers = self._bundle.recommend(
            histories,
            preferences,
            k=wanted.get("k", DEFAULT_K),
            exclude_seen=bool(wanted.get("exclude_seen", DEFAULT_EXCLUDE_SEEN)),
            known=known,
            **given,
        )
        reasons = [
            self._bundle.reasons(self._bundle.effective_preference(sentence, other), [item for item, _ in row])
            for sentence, other, row in zip(preferences, known, answers, strict=True)
        ]
        catalogue = self._bundle.catalogue
        return pd.DataFrame(
            {
                "item_ids": [[item for item, _ in row] for row in answers],
                "titles": [[catalogue.titles[catalogue.index[item]] for item, _ in row] for row in answers],
                "scores": [[float(score) for _, score in row] for row in answers],
                "because": [[", ".join(words) for words in found.because] for found in reasons],
                "unmatched": [list(found.unmatched) for found in reasons],
            },
            index=model_input.index,
        )


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns of `frame` by name; raises a `DataError` with row and column for a value of the wrong form."""
    found: dict[str, list[Any]] = {}
    for column, field in requested():
        if field.name in frame.columns and not field.parameter:
            read = _rows if column.along else _sentences if column.kind == "text" else _values
            found[column.name] = read(frame, column, field)
        elif field.required:
            raise DataError(f"the input has no column {field.name!r} (it has: {', '.join(map(str, frame.columns))})")
    return found


def _parameters(wanted: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """The columns that one value for all rows supplies."""
    fields = {column.name: field.name for column, field in requested() if field.parameter}
    return {name: [wanted[field]] * count for name, field in fields.items() if wanted.get(field) is not None}


def _rows(frame: pd.DataFrame, column: ExampleColumn, field: FromRequest) -> list[Sequence[Any]]:
    """A list for each row; numbers along the history have one value for each item."""
    rows: list[Sequence[Any]] = []
    for row, value in enumerate(frame[field.name]):
        is_list = isinstance(value, list | tuple | np.ndarray)
        if column.kind != "item":
            of_items = column.along == HISTORY
            if not is_list or (of_items and len(value) != len(frame[HISTORY].iloc[row])):
                each = "item of the history" if of_items else "value"
                raise DataError(f"row {row}, column {field.name!r}: give the {field.meaning} of each {each}")
            rows.append(value)
            continue
        if not is_list:
            raise DataError(
                f"row {row}, column {field.name!r}: {reprlib.repr(value)} is a {type(value).__name__}; give a list of "
                'item ids, oldest first, e.g. ["B000A", "B000B"]'
            )
        for position, item in enumerate(value):
            if not isinstance(item, str):
                raise DataError(
                    f"row {row}, column {field.name!r}, position {position}: {reprlib.repr(item)} is a "
                    f"{type(item).__name__}; item ids are strings"
                )
        rows.append([str(item) for item in value])
    return rows


def _values(frame: pd.DataFrame, column: ExampleColumn, field: FromRequest) -> list[Any]:
    """The column's values, with its default for missing ones."""
    missing = column.missing()
    return [missing if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in frame[field.name]]


def _sentences(frame: pd.DataFrame, _: ExampleColumn, field: FromRequest) -> list[str]:
    sentences = []
    for row, value in enumerate(frame[field.name]):
        if isinstance(value, str):
            sentences.append(value.strip())
        elif value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            sentences.append("")
        else:
            raise DataError(
                f"row {row}, column {field.name!r}: {reprlib.repr(value)} is a {type(value).__name__}; give one "
                f"{field.meaning}, or None"
            )
    return sentences
