"""Ask a trained recommender on another catalogue: other items, nothing trained on them (zero-shot).

What it has learned about texts or codes is kept; what it computes from the items' texts is computed anew. An id that
both catalogues have names two different items, as between data sets. To go on training on the same items a day later,
see `ray_jobs.training.warm_start`.
"""

from dataclasses import replace

import numpy as np

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.bundle import Bundle
from schemas.errors import DataError


def on_another_catalogue(trained: Recommender, catalogue: Catalogue) -> Recommender:
    """The recommender with the items of `catalogue` instead of its own, for inference, without a steering layer.

    No item counts as interacted, so a recipe that also learns single items takes all of these for cold ones.

    Args:
        catalogue: for a recipe that reads codes with those by the tokenizer that `trained` had its codes from, see
            `ray_jobs.semantic_ids.of_another_catalogue`.

    Raises:
        DataError: the recipe knows items by their ids alone, or its codes have other levels.
    """
    if not trained.uses_content:
        raise DataError(
            f"recipe {trained.name} knows items by their ids, so that it has nothing to say about those of another "
            "catalogue: take one that reads codes, such as recgpt"
        )
    if trained.catalogue.codes is not None and trained.catalogue.level_sizes != catalogue.level_sizes:
        raise DataError(
            f"{trained.name} was trained with semantic ids of levels {trained.catalogue.level_sizes}, and those of the "
            f"other catalogue have {catalogue.level_sizes or 'none'}: make them by the tokenizer that it had them from"
        )
    nobody = np.zeros(len(catalogue), dtype=np.bool_)
    asked = type(trained)(trained.settings, replace(catalogue, interacted=nobody))
    before = trained.trained_state()
    own = {*asked.computed, *asked.item_rows}
    asked.load_trained_state(
        {name: tensor if name in own else before[name] for name, tensor in asked.trained_state().items()}
    )
    return asked.eval().requires_grad_(False)


def bundle_on(bundle: Bundle, catalogue: Catalogue) -> Bundle:
    """`on_another_catalogue` for a registered model; its provenance stays that of the training."""
    return Bundle(on_another_catalogue(bundle.recommender, catalogue), bundle.provenance)
