"""Warm start from a model that was trained on another catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ray_jobs.recommenders.base import Recommender
from schemas.errors import DataError
from schemas.stage_request import StageRequest


@dataclass(frozen=True)
class Carried:
    """What a new model takes over from an old one.

    Args:
        tensors: the complete trained state of the new model.
        numbers: how many learned numbers were taken over, and how many there are.
        items: items of the new catalogue that the old one contains.
        left: tensors of which the old model has none of that name and shape.
    """

    tensors: Mapping[str, Tensor]
    numbers: tuple[int, int]
    items: int
    left: tuple[str, ...]


def require_no_leak(before: Mapping[str, Any], request: StageRequest, data_version: str) -> None:
    """Refuse a model that may have been trained on items that this run holds out.

    The training items of a later day include an earlier day's targets, and histories with another order or split have
    other targets. Models of other data sets are accepted.

    Args:
        before: provenance of the old model's bundle.
        data_version: of this run's histories, see `TrainingDataSettings.version`.

    Raises:
        DataError: the model was trained on a later day, or on another version of the histories.
    """
    if before.get("dataset") != request.dataset:
        return
    if (day := before.get("partition", "")) > request.partition:
        raise DataError(
            f"the model that warm_start names was trained on {day}, so its training items may include validation and "
            f"test items of {request.partition}: name a version of this day or an earlier one, or leave warm_start "
            "empty"
        )
    if (known := before.get("data_version", "")) != data_version:
        raise DataError(
            f"the model that warm_start names was trained on histories {known or 'as they are'!r}, and this run's are "
            f"{data_version or 'as they are'!r}: its training items may be this run's validation and test items. Name "
            "a version with the same training_data.ties and training_data.split, or leave warm_start empty"
        )


def carry_over(old: Recommender, new: Recommender) -> Carried:
    """Take over every learned tensor of `old` with the same name and shape; tables with a row per item by item id.

    Raises:
        DataError: the recipes or the semantic ids of an item differ, or no tensor fits.
    """
    if old.name != new.name:
        raise DataError(f"warm_start names a model of recipe {old.name}, and {new.name} is to be trained")
    rows = [(old.catalogue.index[i], row) for row, i in enumerate(new.catalogue.item_ids) if i in old.catalogue.index]
    known = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)
    _require_same_codes(old, new, known)
    before, tensors = old.trained_state(), dict(new.trained_state())
    learned = {name: tensor for name, tensor in tensors.items() if name not in new.computed}
    taken, left = 0, []
    for name, tensor in learned.items():
        source = before.get(name)
        first = new.item_rows.get(name)
        if first is not None and source is not None and _same_but_items(source, tensor, old, new):
            tensors[name] = _by_item(source, tensor, first, known, len(old.catalogue), len(new.catalogue))
            per_row = tensor[0].numel()
            taken += (len(known) + len(tensor) - len(new.catalogue)) * per_row
        elif first is None and source is not None and source.shape == tensor.shape:
            tensors[name] = source.detach().clone()
            taken += tensor.numel()
        else:
            left.append(name)
    if not taken:
        raise DataError(
            f"warm_start: none of the {len(before)} tensors of the old model has the shape that the settings of this "
            f"{new.name} ask for; use the old settings (width, layers) or leave warm_start empty"
        )
    return Carried(tensors, (taken, sum(tensor.numel() for tensor in learned.values())), len(known), tuple(left))


def _same_but_items(source: Tensor, tensor: Tensor, old: Recommender, new: Recommender) -> bool:
    """Whether the shapes differ in the number of items only."""
    others = len(source) - len(old.catalogue) == len(tensor) - len(new.catalogue)
    return others and source.shape[1:] == tensor.shape[1:]


def _by_item(source: Tensor, tensor: Tensor, first: int, known: Tensor, before: int, now: int) -> Tensor:
    """Rows before the items, by item, and after them; new items keep their initial rows."""
    made = tensor.detach().clone()
    made[:first] = source[:first]
    made[first + now :] = source[first + before :]
    made[first + known[:, 1]] = source[first + known[:, 0]]
    return made


def _require_same_codes(old: Recommender, new: Recommender, known: Tensor) -> None:
    if old.catalogue.codes is None or new.catalogue.codes is None:
        return
    same = old.catalogue.level_sizes == new.catalogue.level_sizes
    if same:
        differ = (old.catalogue.codes[known[:, 0].numpy()] != new.catalogue.codes[known[:, 1].numpy()]).any(axis=1)
        if not differ.any():
            return
        first = int(np.flatnonzero(differ)[0])
        example = f", e.g. {new.catalogue.item_ids[int(known[first, 1])]!r}"
    raise DataError(
        "the model that warm_start names was trained with other semantic ids"
        f"{example if same else f' of levels {old.catalogue.level_sizes}'}: its weights mean nothing here. Train with "
        "the codebook it was trained with, or leave warm_start empty"
    )
