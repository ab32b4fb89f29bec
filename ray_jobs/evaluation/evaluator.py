"""Rank the held-out item of every user against the whole catalogue."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ray_jobs.data.histories import (
    Batch,
    Examples,
    Histories,
    InMemoryExamples,
    Split,
    evaluation_examples,
    latest_preferences,
    make_batch,
)
from ray_jobs.evaluation.metrics import per_user
from ray_jobs.recommenders.base import Notify, Recommender, silent
from schemas.evaluations import EVALUATIONS

HISTORY, WITH_PREFERENCE = "history", "history+preference"


@dataclass(frozen=True)
class Ranked:
    """Ranks of one model on one split under one condition.

    Args:
        ranks: int64[U] from 1, ties against the model; 0 where the model did not place the target.
    """

    split: Split
    condition: str
    examples: Examples
    ranks: npt.NDArray[np.int64]

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Per-user metrics by name."""
        return per_user(self.ranks)


def evaluate(
    recommender: Recommender,
    histories: Histories,
    splits: tuple[Split, ...] = ("valid", "test"),
    exclude_seen: bool = False,
    notify: Notify = silent,
) -> list[Ranked]:
    """Rank the targets of `splits` under every condition of the recipe.

    The condition with preferences is left out where no user has any.

    Args:
        exclude_seen: leave the items of the history out of the ranking. The published protocol ranks all items.
    """
    recommender.eval()
    jobs: list[tuple[Split, str, Examples]] = []
    for split in splits:
        examples = evaluation_examples(histories, split, recommender.base_settings.max_history)
        jobs.append((split, HISTORY, examples))
        if WITH_PREFERENCE in recommender.conditions:
            preferences = latest_preferences(histories, examples)
            if any(preferences):
                jobs.append((split, WITH_PREFERENCE, examples.with_preferences(preferences)))
    total, done, results = sum(len(job[2]) for job in jobs), 0, []
    for split, condition, examples in jobs:
        ranks: list[torch.Tensor] = []
        start = 0
        for batch in InMemoryExamples(examples).batches(recommender.base_settings.evaluation_batch_size, None):
            placed = batch.to(recommender.device)
            seen = _seen(histories, examples, start, batch).to(recommender.device) if exclude_seen else None
            ranks.append(recommender.ranks(placed, seen).cpu())
            start += len(batch)
            done += len(batch)
            notify(done, total, f"{recommender.name}, {split}, {condition}")
        joined = torch.cat(ranks).numpy() if ranks else np.zeros(0, dtype=np.int64)
        results.append(Ranked(split, condition, examples, joined))
    return results


def _seen(histories: Histories, examples: Examples, start: int, batch: Batch) -> torch.Tensor:
    """Every item before the target's position, the window of the model or not, padded with -1."""
    rows = range(start, start + len(batch))
    before = [histories.items[int(examples.users[row])][: int(examples.positions[row])] for row in rows]
    return make_batch(before, [""] * len(before)).history


def evaluation_rows(results: list[Ranked], model: str, histories: Histories, item_ids: tuple[str, ...]) -> pa.Table:
    """Rows of the table `evaluations` for one model, its partition columns left out but `model`.

    Args:
        model: ``<recipe>@<run identity>``.
    """
    schema = pa.schema([field for field in EVALUATIONS.arrow_schema() if field.name != "partition_date"])
    parts = []
    for result in results:
        examples, size = result.examples, len(result.examples)
        placed = result.ranks > 0
        columns = {
            "user_id": [histories.user_ids[int(user)] for user in examples.users],
            "model": [model] * size,
            "split": [result.split] * size,
            "condition": [result.condition] * size,
            "target_item_id": [item_ids[int(target)] for target in examples.targets],
            "history_length": np.diff(examples.offsets).astype(np.int32),
            "rank": pa.array(result.ranks.astype(np.int32), mask=~placed),
            **{name: values.astype(np.float32) for name, values in result.metrics().items()},
        }
        parts.append(pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}))
    return pa.concat_tables(parts).cast(schema)
