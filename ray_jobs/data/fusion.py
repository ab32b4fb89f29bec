"""Training examples from the training split of the table ``preference_benchmark`` (data fusion, Paischer et al., 2025).

Steering samples have the preference and target of one user and the history of another. Sentiment samples have no
history: the positive preference asks for the item, the negative one rejects it.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pyarrow as pa

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, examples_at, join_examples
from ray_jobs.data.histories import Histories
from ray_jobs.recipes.generative.settings import Fused
from schemas.errors import DataError
from schemas.preference_benchmark import COARSE, FINE, SENTIMENT

_AXIS = {"fine_steering": FINE, "coarse_steering": COARSE, "positive": SENTIMENT, "negative": SENTIMENT}
assert set(_AXIS) == set(get_args(Fused))


def fused_examples(
    samples: pa.Table, histories: Histories, catalogue: Catalogue, kinds: Sequence[Fused], max_history: int
) -> Examples:
    """The samples of `kinds` as examples, in the order of `kinds` and of their ids.

    Args:
        samples: rows of `preference_benchmark`; those of other splits than ``train`` are left out.

    Raises:
        DataError: a sample has an unknown user or item, its history includes a held-out position, or there is no sample
            of `kinds`.
    """
    rows = sorted(
        (row for row in samples.to_pylist() if row["split"] == "train"), key=lambda r: (r["axis"], r["sample_id"])
    )
    users = {user: number for number, user in enumerate(histories.user_ids)}
    parts = []
    for kind in kinds:
        chosen = [row for row in rows if row["axis"] == _AXIS[kind]]
        _require_known(chosen, users, histories, catalogue)
        places = [(users[row["history_user_id"]], row["history_end"]) for row in chosen]
        made = examples_at(histories, places, 0 if _AXIS[kind] == SENTIMENT else max_history)
        parts.append(
            made.with_columns(
                targets=np.array([catalogue.index[row["target_item_id"]] for row in chosen], dtype=np.int64),
                preferences=tuple(row["opposite" if kind == "negative" else "preference"] for row in chosen),
                negative=np.full(len(made), kind == "negative"),
            )
        )
    if not parts or not any(len(part) for part in parts):
        raise DataError(
            f"table preference_benchmark has no training sample of {', '.join(kinds)}: more users need preferences "
            "(review_lines.max_users), or take these kinds out of the recipe's setting fuse"
        )
    return join_examples(parts)


def _require_known(
    rows: Sequence[dict[str, object]], users: dict[str, int], histories: Histories, catalogue: Catalogue
) -> None:
    for row in rows:
        user, target = str(row["history_user_id"]), str(row["target_item_id"])
        if user not in users or target not in catalogue.index:
            raise DataError(
                f"preference_benchmark sample {row['axis']} {row['sample_id']}: user {user!r} or item {target!r} is "
                "not among the day's sequences; run the stage preference_benchmark for the same sequences"
            )
        end, held_out = int(str(row["history_end"])), int(histories.valid_position[users[user]])
        if 0 <= held_out < end:
            raise DataError(
                f"preference_benchmark training sample {row['axis']} {row['sample_id']} reads the history of {user!r} "
                f"up to position {end}, beyond its training positions (below {held_out}): build the table again"
            )
