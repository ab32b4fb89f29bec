"""Which preference a training example is given, for the recipes that read preferences.

The wish that fits the target best among those known then (an oracle, in training only), all known lines as at
evaluation, or none, in shares given by settings; each example's draw is fixed by the seed, so that what a frozen
encoder says of the texts stays the same over all epochs.

The settings also name what is added from the training split of the preference benchmark (data fusion, Paischer et al.,
2025); `ray_jobs.data.fusion` makes those examples.
"""

from collections.abc import Sequence

import numpy as np

from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.examples import Examples, join_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import TextEncoder
from ray_jobs.recipes.generative.settings import ConditionedSettings
from schemas.preferences import join_preferences, negative_twin, positive_twin


def conditioned(
    examples: Examples, histories: Histories, settings: ConditionedSettings, encoder: TextEncoder, catalogue: Catalogue
) -> Examples:
    """`examples` of training positions with the preference that the settings' shares and the seed give each."""
    titles = catalogue.titles
    draws = np.random.default_rng(settings.seed).random((len(examples), 2))
    known = [
        histories.latest_preferences(int(user), int(position))
        for user, position in zip(examples.users, examples.positions, strict=True)
    ]
    given = draws[:, 0] >= settings.preference_dropout
    matched = [row for row in np.flatnonzero(given & (draws[:, 1] < settings.matched_share)) if known[row]]
    best = _matched(
        [_wishes(known[row]) for row in matched], [titles[int(examples.targets[row])] for row in matched], encoder
    )
    chosen = [join_preferences(known[row]) if given[row] else "" for row in range(len(examples))]
    for row, preference in zip(matched, best, strict=True):
        chosen[row] = preference
    given_all = examples.with_preferences(chosen)
    return join_examples(
        [_swapped(given_all, settings, catalogue), *_added(given_all, np.array(matched, dtype=np.int64), settings)]
    )


def _added(examples: Examples, matched: IntArray, settings: ConditionedSettings) -> list[Examples]:
    """Examples with a fitting wish once more: without their histories, and with the wish turned round."""
    rng = np.random.default_rng((settings.seed, 2))
    alone = matched[rng.random(len(matched)) < settings.alone_share]
    wishes = [part for part in (examples.at(alone, with_history=False),) if len(part)]
    both = join_examples([examples.at(matched), *wishes]) if len(matched) else examples.at(matched)
    twins = [negative_twin(preference) for preference in both.preferences]
    turned = np.array([row for row, twin in enumerate(twins) if twin], dtype=np.int64)
    turned = turned[rng.random(len(turned)) < settings.twin_share]
    rejected = both.at(turned).with_preferences([str(twins[row]) for row in turned])
    return [*wishes, *([rejected.with_columns(negative=np.full(len(turned), True))] if len(turned) else [])]


def _wishes(known: Sequence[str]) -> list[str]:
    """What is liked among `known`, or else what is disliked, turned round."""
    twins = [positive_twin(line) for line in known]
    return [line for line, twin in zip(known, twins, strict=True) if twin is None] or [twin for twin in twins if twin]


def _swapped(examples: Examples, settings: ConditionedSettings, catalogue: Catalogue) -> Examples:
    """`examples`, a share of which have preference and target of another one.

    Every second one takes those of an example whose target shares as many leading codes as any other item's does, the
    others those of an example whose target has another first code.
    """
    assert catalogue.codes is not None
    rng = np.random.default_rng((settings.seed, 1))
    givers = np.flatnonzero([bool(preference) for preference in examples.preferences])
    takers = np.flatnonzero(rng.random(len(givers)) < settings.swap_share)
    targets = examples.targets[givers]
    codes = catalogue.codes[targets]
    same_item = _Groups(targets[:, None])
    by_prefix = [_Groups(codes[:, :length]) for length in range(1, codes.shape[1] + 1)]
    source = np.arange(len(examples))
    for turn, taker in enumerate(takers.tolist()):
        if turn % 2 == 0:
            own = same_item.of(taker)
            nearest = next((near for groups in by_prefix[::-1] if len(near := groups.of(taker)) > len(own)), own)
            if len(like := np.setdiff1d(nearest, own, assume_unique=True)):
                source[givers[taker]] = givers[like[rng.integers(len(like))]]
        else:
            near = by_prefix[0].of(taker)
            if others := len(givers) - len(near):
                drawn = rng.integers(others)
                # The drawn-th giver that is not in `near`, which ascends.
                drawn += np.searchsorted(near - np.arange(len(near)), drawn, side="right")
                source[givers[taker]] = givers[drawn]
    preferences = tuple(examples.preferences[row] for row in source)
    return examples.with_columns(targets=examples.targets[source], preferences=preferences)


class _Groups:
    """Rows of int64[n, k] grouped by equality."""

    def __init__(self, rows: IntArray) -> None:
        groups, self._group = np.unique(rows, axis=0, return_inverse=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.searchsorted(self._group[self._order], np.arange(len(groups) + 1))

    def of(self, row: int) -> IntArray:
        """The rows equal to `row`, itself among them, ascending."""
        group = self._group[row]
        return self._order[self._starts[group] : self._starts[group + 1]]


def _matched(candidates: Sequence[Sequence[str]], titles: Sequence[str], encoder: TextEncoder) -> list[str]:
    """Of each example's candidates the one nearest to the target's title by cosine; the first of equals."""
    sentences = sorted({sentence for row in candidates for sentence in row} | set(titles))
    vector = dict(zip(sentences, encoder.encode(sentences), strict=True))
    return [
        row[int(np.argmax([vector[sentence] @ vector[title] for sentence in row]))]
        for row, title in zip(candidates, titles, strict=True)
    ]
