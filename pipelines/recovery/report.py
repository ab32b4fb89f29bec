"""How much of a planted world's truth the language stages recovered, compared with bags of words and chance."""

from typing import Any

import numpy as np

from pipelines.landing.planted_world.truth import Truth
from pipelines.recovery.baselines import cosine_scores, random_opinions, word_opinions
from pipelines.recovery.histories import Warehouse
from pipelines.recovery.noise import corrections, detection, scored_positions
from pipelines.recovery.opinions import (
    missed_because,
    preference_recovery,
    stage_readings,
    summary_recovery,
    windowed,
)

_WORDS_PER_LINE = 6


def truth_report(found: Warehouse, truth: Truth, *, window: int, seed: int) -> dict[str, Any]:
    """All measurements, ready for JSON; a stage that has not run has no section.

    Args:
        window: reviews behind a position's preferences, as in the stage.
        seed: of the random baselines.
    """
    report: dict[str, Any] = {}
    if found.preferences:
        report["preferences"] = _preferences(found, window, seed)
    if found.summaries:
        report["summaries"] = summary_recovery(found.summaries, found.histories)
    if found.denoised:
        report |= _noise(found, truth, seed)
    return report


def _preferences(found: Warehouse, window: int, seed: int) -> dict[str, Any]:
    histories = found.histories
    readings, lines = stage_readings(found.preferences)
    places = sorted(readings)
    methods = {
        "stage": readings,
        "bag of words": windowed(word_opinions(histories, places, _WORDS_PER_LINE), places, window),
        "random": windowed(random_opinions(histories, places, seed), places, window),
    }
    return {
        "positions": len(places),
        **lines,
        "methods": {name: preference_recovery(reading, histories, window) for name, reading in methods.items()},
        "missed": missed_because(readings, histories, found.refused, window),
    }


def _noise(found: Warehouse, truth: Truth, seed: int) -> dict[str, Any]:
    positions = scored_positions(found.denoised, found.histories)
    edited = corrections(positions, truth)
    edits = int(edited["edits"] or 0)
    scores = {
        "stage": [p.score for p in positions],
        "TF-IDF of titles": cosine_scores(positions, found.histories, found.titles),
        "TF-IDF of item texts": cosine_scores(positions, found.histories, found.texts),
        "random": np.random.default_rng(seed).random(len(positions)).tolist(),
    }
    return {
        "noise": {name: detection(positions, values, edits) for name, values in scores.items()},
        "corrections": edited,
    }
