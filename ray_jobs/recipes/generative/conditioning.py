"""What recipes that read preferences share: the frozen text encoder, and the preferences of training examples.

A training example gets the known preference that matches its target best (an oracle, in training only), all known lines
as in evaluation, or none, in shares given by the settings. The seed fixes each example's draw, so that cached encoder
states stay valid over all epochs.
"""

from collections.abc import Sequence

import numpy as np

from ray_jobs.data.catalogue import Catalogue, IntArray
from ray_jobs.data.examples import Examples, join_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.text import TextEncoder, TransformerEncoder, load_text_encoder
from ray_jobs.recipes.generative.base import EncoderDecoder
from ray_jobs.recipes.generative.settings import ConditionedSettings
from schemas.preferences import join_preferences, negative_twin, positive_twin


class ConditionedRecommender(EncoderDecoder):
    """A generative recipe that reads preferences and titles through a frozen text encoder."""

    settings: ConditionedSettings

    def __init__(self, settings: ConditionedSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        # In a dict, so that the frozen weights are not part of the module's state, and so of bundles.
        self._outside: dict[str, TransformerEncoder] = {"encoder": load_text_encoder(settings.encoder)}

    @property
    def text_encoder(self) -> TransformerEncoder:
        """The pretrained encoder."""
        return self._outside["encoder"]

    def training_examples(self, histories: Histories) -> Examples:
        """Every training position, with preferences as the settings say."""
        examples = super().training_examples(histories)
        return conditioned(examples, histories, self.settings, self.text_encoder, self.catalogue)


def conditioned(
    examples: Examples, histories: Histories, settings: ConditionedSettings, encoder: TextEncoder, catalogue: Catalogue
) -> Examples:
    """`examples` of training positions with preferences according to the settings."""
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
    """Repetitions of the examples with a matched preference: without history, and with the preference negated."""
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
    """The likes among `known`, or else its dislikes, negated."""
    twins = [positive_twin(line) for line in known]
    return [line for line, twin in zip(known, twins, strict=True) if twin is None] or [twin for twin in twins if twin]


def _swapped(examples: Examples, settings: ConditionedSettings, catalogue: Catalogue) -> Examples:
    """`examples`, a share of which take preference and target from another one.

    Alternately from an example whose target shares the most leading codes with theirs, and from one whose target has
    another first code.
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
    """Each example's candidate with the highest cosine to the target's title; the first one in a tie."""
    sentences = sorted({sentence for row in candidates for sentence in row} | set(titles))
    vector = dict(zip(sentences, encoder.encode(sentences), strict=True))
    return [
        row[int(np.argmax([vector[sentence] @ vector[title] for sentence in row]))]
        for row, title in zip(candidates, titles, strict=True)
    ]
