"""The three axes that use a user's own preferences: recommendation, history consolidation, sentiment following."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pipelines.language.merging import Preference
from pipelines.language.validation import DISLIKE, LIKE
from pipelines.steering.histories import History, Split
from pipelines.steering.samples import Candidate, Sample
from pipelines.steering.vectors import Vectors, cosines
from schemas.preference_benchmark import CONSOLIDATION, RECOMMENDATION, SENTIMENT
from schemas.preferences import join_preferences, positive_twin

HELD_OUT: tuple[Split, ...] = ("valid", "test")
NO_KNOWN = "no_known_preference"
NO_DISLIKE = "no_dislike_from_there_on"
SAME_PREFERENCE = "same_preference"


def recommendation_samples(histories: Sequence[History]) -> tuple[list[Sample], Counter[str]]:
    """Held-out targets with the likes known before them as candidates; without any like, the inverted dislikes.

    Returns:
        The samples, and the number of targets left out, by split and reason.
    """
    targets = _held_out_targets(RECOMMENDATION, histories)
    return _with_preference((replace(target, candidates=_wishes(known)) for target, known in targets), NO_KNOWN)


def consolidation_samples(histories: Sequence[History]) -> tuple[list[Sample], Counter[str]]:
    """Held-out targets with all preferences known before them, newest first.

    Returns:
        As `recommendation_samples`.
    """
    targets = _held_out_targets(CONSOLIDATION, histories)
    joined = (replace(target, preference=join_preferences([p.text for p in known])) for target, known in targets)
    return _with_preference(joined, NO_KNOWN)


def sentiment_samples(
    histories: Sequence[History], negative: Mapping[str, Iterable[int]]
) -> tuple[list[Sample], Counter[str]]:
    """Negatively reviewed positions with the dislikes generated from there on as candidates.

    Dislikes that rest on the review itself take precedence. Training positions use preferences of training positions
    only, so that no held-out review leaks into training.

    Args:
        negative: positions with a negative review, by user.

    Returns:
        As `recommendation_samples`.
    """
    samples = []
    for history in histories:
        for position in sorted(negative.get(history.user_id, ())):
            if split := history.split_of(position):
                end = history.train_end if split == "train" else len(history.items)
                target = _target(SENTIMENT, split, history, position)
                samples.append(replace(target, candidates=_rejections(history, position, end)))
    return _with_preference(samples, NO_DISLIKE)


def choose_nearest(samples: Iterable[Sample], texts: Vectors, items: Vectors) -> list[Sample]:
    """Give each sample the candidate whose vector is nearest to its target's; the first one wins a tie."""
    found = []
    for sample in samples:
        near = cosines(items.of([sample.target]), texts.of([candidate.text for candidate in sample.candidates]))[0]
        best = int(near.argmax())
        chosen = sample.candidates[best]
        found.append(
            replace(sample, preference=chosen.preference, opposite=chosen.opposite, similarity=float(near[best]))
        )
    return found


def first_of_each(samples: Iterable[Sample]) -> tuple[list[Sample], Counter[str]]:
    """Keep the first sample, by user and position, of each preference in a split; in training, of each with its target.

    Returns:
        The samples kept, and the number left out, by split and reason.
    """
    seen: set[tuple[str, str, str]] = set()
    found, skipped = [], Counter[str]()
    for sample in sorted(samples, key=lambda sample: (sample.history.user_id, sample.history_end)):
        key = (sample.split, sample.preference, sample.target if sample.split == "train" else "")
        if key in seen:
            skipped[f"{sample.split}.{SAME_PREFERENCE}"] += 1
        else:
            seen.add(key)
            found.append(sample)
    return found, skipped


def _target(axis: str, split: Split, history: History, position: int) -> Sample:
    return Sample(
        axis=axis,
        split=split,
        sample_id=f"{history.user_id}@{position}",
        history=history,
        history_end=position,
        target=history.items[position],
    )


def _held_out_targets(axis: str, histories: Sequence[History]) -> Iterator[tuple[Sample, tuple[Preference, ...]]]:
    for split in HELD_OUT:
        for history in histories:
            for position in history.targets(split):
                yield _target(axis, split, history, position), history.known_before(position)


def _with_preference(samples: Iterable[Sample], reason: str) -> tuple[list[Sample], Counter[str]]:
    found, skipped = [], Counter[str]()
    for sample in samples:
        if sample.preference or sample.candidates:
            found.append(sample)
        else:
            skipped[f"{sample.split}.{reason}"] += 1
    return found, skipped


def _wishes(known: Sequence[Preference]) -> tuple[Candidate, ...]:
    likes = [Candidate(text=p.text, preference=p.text) for p in known if p.sentiment == LIKE]
    if likes:
        return tuple(likes)
    twins = ((p.text, positive_twin(p.text)) for p in known if p.sentiment == DISLIKE)
    return tuple(Candidate(text=text, preference=twin) for text, twin in twins if twin)


def _rejections(history: History, position: int, end: int) -> tuple[Candidate, ...]:
    dislikes = [
        preference
        for generated in sorted(history.preferences)
        if position <= generated < end
        for preference in history.preferences[generated]
        if preference.sentiment == DISLIKE
    ]
    own = [preference for preference in dislikes if position in preference.evidence]
    texts = dict.fromkeys(preference.text for preference in own or dislikes)
    twins = ((text, positive_twin(text)) for text in texts)
    return tuple(Candidate(text=text, preference=twin, opposite=text) for text, twin in twins if twin)
