"""The model as it is served: histories and preferences in, items out. Imports only what serving needs."""

import reprlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from ray_jobs.recommenders.bundle import Bundle, load_bundle
from schemas.errors import DataError

ARTIFACT = "bundle"
DEFAULT_K = 10
DEFAULT_EXCLUDE_SEEN = True
DEFAULT_STRENGTH = 1.0


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
            context: unused; the bundle is loaded once in `load_context`.
            model_input: column ``history`` (item ids, oldest first; unknown ids are skipped, an empty history is
                allowed) and optionally ``preference`` (a sentence; None, NaN and "" mean none), ``known`` (what is
                known of the user's preferences, which counts where there is no ``preference``), ``times`` (seconds
                since 1970 of each item, for recipes that read times) and ``asked_at`` (when the recommendation is
                wanted; now by default).
            params: ``k`` (items per row), ``exclude_seen`` (leave out items of the history) and ``strength`` (how
                strongly ``preference`` counts: 0 not at all, 1 as fitted on validation, up to 10).

        Returns:
            One row per input row, in order, with lists ``item_ids``, ``titles`` and ``scores``, best first; shorter
            than k where the catalogue has fewer items left. ``because`` has for each item the words of its text that a
            wish found, and ``unmatched`` the phrases that nothing in the catalogue matches.

        Raises:
            DataError: a value is of the wrong kind; row and column are named.
        """
        assert self._bundle is not None, "load_context runs before predict"
        wanted = params or {}
        preferences, known = (_sentences(model_input, column) for column in ("preference", "known"))
        for row, given in enumerate(preferences):
            if unread := self._bundle.unread(given):
                raise DataError(f"row {row}, column 'preference': {unread}; shorten it")
        answers = self._bundle.recommend(
            _histories(model_input),
            preferences,
            k=wanted.get("k", DEFAULT_K),
            exclude_seen=bool(wanted.get("exclude_seen", DEFAULT_EXCLUDE_SEEN)),
            times=_times(model_input),
            asked_at=_asked_at(model_input),
            known=known,
            strength=wanted.get("strength", DEFAULT_STRENGTH),
        )
        reasons = [
            self._bundle.reasons(self._bundle.counted(given, other), [item for item, _ in row])
            for given, other, row in zip(preferences, known, answers, strict=True)
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


def _histories(frame: pd.DataFrame) -> list[list[str]]:
    if "history" not in frame.columns:
        raise DataError(f"the input has no column 'history' (it has: {', '.join(map(str, frame.columns))})")
    histories = []
    for row, value in enumerate(frame["history"]):
        if not isinstance(value, list | tuple | np.ndarray):
            raise DataError(
                f"row {row}, column 'history': {reprlib.repr(value)} is a {type(value).__name__}; give a list of item "
                'ids, oldest first, e.g. ["B000A", "B000B"]'
            )
        for position, item in enumerate(value):
            if not isinstance(item, str):
                raise DataError(
                    f"row {row}, column 'history', position {position}: {reprlib.repr(item)} is a "
                    f"{type(item).__name__}; item ids are strings"
                )
        histories.append([str(item) for item in value])
    return histories


def _times(frame: pd.DataFrame) -> list[Sequence[int]] | None:
    if "times" not in frame.columns:
        return None
    for row, (value, history) in enumerate(zip(frame["times"], frame["history"], strict=True)):
        if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(history):
            raise DataError(f"row {row}, column 'times': give the second since 1970 of each item of the history")
    return list(frame["times"])


def _asked_at(frame: pd.DataFrame) -> list[int] | None:
    """The column; what is missing is now."""
    if "asked_at" not in frame.columns:
        return None
    now = int(time.time())
    return [now if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in frame["asked_at"]]


def _sentences(frame: pd.DataFrame, column: str) -> list[str | None]:
    if column not in frame.columns:
        return [None] * len(frame)
    preferences: list[str | None] = []
    for row, value in enumerate(frame[column]):
        if isinstance(value, str):
            preferences.append(value.strip() or None)
        elif value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
            preferences.append(None)
        else:
            raise DataError(
                f"row {row}, column {column!r}: {reprlib.repr(value)} is a {type(value).__name__}; give one "
                "sentence, or None"
            )
    return preferences
