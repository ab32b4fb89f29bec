"""Finds out whether something fitted depends on what is held out, by changing what is held out.

Items, times, preferences and summaries at positions from the validation target on are replaced, and vectors of items
that occur at no training position; whatever was fitted must come out the same to the bit. The catalogue stays: it is
the set of candidates that the protocol ranks, items without a training position among them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ray_jobs.data.histories import Histories
from ray_jobs.recommenders.base import Recommender

Fit = Callable[[Histories], Mapping[str, Any]]
"""Fits something on histories and gives its state: tensors, arrays and plain values by name."""
_YEAR_S = 365 * 86_400


def leaks(fit: Fit, histories: Histories, items: int, seed: int = 0) -> list[str]:
    """Names of the parts of the state that change with what is held out, sorted; empty where nothing leaks.

    Args:
        fit: has to give the same state for the same histories, so it sets its own seeds.
        items: size of the catalogue, at least 2.

    Raises:
        ValueError: two fits on the same histories differ, so that a leak could not be told from chance; the parts
            that differ are named.
    """
    first = fit(histories)
    loose = _differing(first, fit(histories))
    if loose:
        raise ValueError(f"two fits on the same histories differ in {', '.join(loose)}: fix the seeds first")
    return _differing(first, fit(poisoned(histories, items, seed)))


def poisoned(histories: Histories, items: int, seed: int = 0) -> Histories:
    """`histories` with another item, a later time and other texts at every position that is held out."""
    rng = np.random.default_rng(seed)
    changed, times = [], []
    ends = histories.training_ends
    for user, own in enumerate(histories.items):
        start = len(histories.training_items(user))
        other = (own[start:] + rng.integers(1, items, len(own) - start)) % items
        changed.append(np.concatenate([own[:start], other]))
        if histories.times is not None:
            late = np.arange(len(own)) >= start
            times.append(histories.times[user] + late * _YEAR_S)

    def texts(notes: Sequence[Mapping[int, tuple[str, ...]]]) -> tuple[dict[int, tuple[str, ...]], ...]:
        return tuple(
            {p: ("poisoned",) if p >= end else known for p, known in own.items()}
            for own, end in zip(notes, ends, strict=False)
        )

    return replace(
        histories,
        items=tuple(changed),
        times=None if histories.times is None else tuple(times),
        preferences=texts(histories.preferences),
        summaries=texts(histories.summaries),
    )


def fitted_recommender(make: Callable[[], Recommender], histories: Histories, seed: int = 0) -> dict[str, Any]:
    """All that a recommender takes from histories before the first training step.

    Args:
        make: builds the untrained recommender.

    Returns:
        ``state.<tensor>`` for parameters and buffers after the counts are fitted, ``examples.<field>`` for what it
        would train on, and ``told.<field>`` for what it would hear.
    """
    torch.manual_seed(seed)
    recommender = make()
    recommender.fit_counts(histories)
    known = {"examples": recommender.training_examples(histories), "told": recommender.told_examples(histories)}
    tensors = {**dict(recommender.named_parameters()), **dict(recommender.named_buffers())}
    tensors |= recommender.trained_state()
    return {
        **{f"state.{name}": tensor.detach().clone() for name, tensor in tensors.items()},
        **{
            f"{name}.{part}{field}": values
            for name, examples in known.items()
            if examples is not None
            for part, fields in (("", examples.columns), ("offsets.", examples.offsets))
            for field, values in fields.items()
        },
    }


def poisoned_vectors(
    vectors: npt.NDArray[np.float32], training: npt.NDArray[np.bool_], seed: int = 0
) -> npt.NDArray[np.float32]:
    """`vectors` float32[N, D] with those of items outside `training`, bool[N], replaced by far ones."""
    rng = np.random.default_rng(seed)
    changed = vectors.copy()
    changed[~training] = rng.normal(50, 100, (int((~training).sum()), vectors.shape[1]))
    return changed


def vector_leaks(
    fit: Callable[[npt.NDArray[np.float32]], Mapping[str, Any]],
    vectors: npt.NDArray[np.float32],
    training: npt.NDArray[np.bool_],
    seed: int = 0,
) -> list[str]:
    """As `leaks`, for a tokenizer: what depends on vectors of items that occur at no training position.

    Args:
        fit: gives what was learnt and the codes of training items only; those of other items may of course change.

    Raises:
        ValueError: as `leaks`.
    """
    first = fit(vectors)
    loose = _differing(first, fit(vectors.copy()))
    if loose:
        raise ValueError(f"two fits on the same vectors differ in {', '.join(loose)}: fix the seeds first")
    return _differing(first, fit(poisoned_vectors(vectors, training, seed)))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(
        name for name in {*one, *other} if name not in one or name not in other or not _same(one[name], other[name])
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        one, other = one.cpu().numpy(), other.cpu().numpy()
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)
