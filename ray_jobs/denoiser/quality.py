"""Quality of finding and replacing swapped items, on windows with known swaps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from ray_jobs.data.histories import Histories
from ray_jobs.denoiser.cooccurrence import Cooccurrence
from ray_jobs.denoiser.detect import Floats, edits, suspicions
from ray_jobs.denoiser.replace import TitleTable, replacements
from ray_jobs.denoiser.tuning_data import Writer
from ray_jobs.denoiser.windows import Window


def detection(windows: Sequence[Window], scores: Sequence[Floats]) -> dict[str, float]:
    """``auc`` and ``ap`` over all positions, and ``hit_1``: how often the swap has the top score of its window."""
    truth = np.concatenate([np.arange(len(window.items)) == window.position for window in windows])
    pooled = np.concatenate(list(scores))
    hits = [int(np.argmax(score)) == window.position for window, score in zip(windows, scores, strict=True)]
    return {
        "auc": float(roc_auc_score(truth, pooled)),
        "ap": float(average_precision_score(truth, pooled)),
        "hit_1": float(np.mean(hits)),
    }


def taken_items(histories: Histories, window: Window) -> set[int]:
    """Items of the user that a model may know: without the original of the swap."""
    return {int(item) for item in histories.training_items(window.user)} - {window.original} | set(window.items)


def of_model(model: nn.Module, writer: Writer, histories: Histories, windows: Sequence[Window]) -> dict[str, float]:
    """Detection and replacement by a language model.

    Returns:
        The measures of `detection`; ``replacement_hit_1``: share of the given swaps that are replaced by the original;
        ``grounded``: share of the suggestions that were no catalogue title; ``edit_precision`` and ``edit_recall`` of
        the edited positions; ``uncertainty``: its mean; ``hit_1_sure`` and ``hit_1_unsure``: hits in windows with an
        uncertainty up to its median, and in the others.
    """
    found = suspicions(model, writer, [window.items for window in windows])
    suggested = replacements(
        model,
        writer,
        TitleTable(model, writer),
        [(window.items, window.position) for window in windows],
        [taken_items(histories, window) for window in windows],
    )
    scores = [one.scores(writer.settings) for one in found]
    hits = np.array([int(np.argmax(one)) == window.position for window, one in zip(windows, scores, strict=True)])
    chosen = edits(found, writer.settings)
    right = sum(window.position in places for window, places in zip(windows, chosen, strict=True))
    edited = sum(len(places) for places in chosen)
    doubts = np.array([one.uncertainty for one in found])
    sure = doubts <= np.median(doubts)
    return {
        **detection(windows, scores),
        "replacement_hit_1": float(
            np.mean([one.item == window.original for window, one in zip(windows, suggested, strict=True)])
        ),
        "grounded": float(np.mean([one.grounded for one in suggested])),
        "edit_precision": right / max(1, edited),
        "edit_recall": right / len(windows),
        "uncertainty": float(doubts.mean()),
        "hit_1_sure": float(hits[sure].mean()),
        "hit_1_unsure": float(hits[~sure].mean()) if not sure.all() else float(hits.mean()),
    }


def of_baselines(
    histories: Histories, users: Sequence[int], items: int, windows: Sequence[Window], seed: int
) -> dict[str, dict[str, float]]:
    """`detection` and ``replacement_hit_1`` of item co-occurrence in the histories of `users`, and of chance."""
    company = Cooccurrence(histories, users, items)
    rng = np.random.default_rng([seed, 2])
    by_company: list[bool] = []
    by_chance: list[bool] = []
    for window in windows:
        taken = taken_items(histories, window)
        others = [item for place, item in enumerate(window.items) if place != window.position]
        by_company.append(company.replacement(others, taken) == window.original)
        free = np.setdiff1d(np.arange(items), sorted(taken))
        by_chance.append(int(rng.choice(free)) == window.original)
    return {
        "cooccurrence": {
            **detection(windows, [company.scores(window.items) for window in windows]),
            "replacement_hit_1": float(np.mean(by_company)),
        },
        "random": {
            **detection(windows, [rng.random(len(window.items)) for window in windows]),
            "replacement_hit_1": float(np.mean(by_chance)),
        },
    }


def rounded(report: dict[str, dict[str, float]]) -> dict[str, Any]:
    """A report rounded so that it does not depend on the machine."""
    return {name: {key: round(value, 6) for key, value in values.items()} for name, values in report.items()}
