"""The three axes that ask a user's own preferences: recommendation, history consolidation and sentiment following."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.language.validation import DISLIKE, LIKE
from pipelines.steering.histories import History, Line, Split
from pipelines.steering.samples import Sample
from pipelines.steering.vectors import Vectors, cosines
from schemas.preference_benchmark import CONSOLIDATION, RECOMMENDATION, SENTIMENT
from schemas.preferences import join_preferences, positive_twin

HELD_OUT: tuple[Split, ...] = ("valid", "test")
NO_KNOWN = "no_known_preference"
NO_DISLIKE = "no_dislike_from_there_on"
SAME_PREFERENCE = "same_preference"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A preference that may be given.

    Args:
        text: the line as it was generated, whose vector decides.
        preference, opposite: what a model is given when it is chosen.
    """

    text: str
    preference: str
    opposite: str | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A target with the preferences of which the one nearest to the target is given."""

    axis: str
    split: Split
    history: History
    position: int
    candidates: tuple[Candidate, ...]

    @property
    def sample_id(self) -> str:
        """User and position of the target."""
        return f"{self.history.user_id}@{self.position}"

    @property
    def target(self) -> str:
        """The right item."""
        return self.history.items[self.position]


def held_out_targets(histories: Iterable[History], split: Split) -> Iterator[tuple[History, int]]:
    """Every user with a target in `split`, and its position."""
    for history in histories:
        for position in history.targets(split):
            yield history, position


def recommendation_questions(histories: Sequence[History]) -> tuple[list[Question], Counter[str]]:
    """The held-out targets with the likes that are known before them; without any, the dislikes turned round.

    Returns:
        The questions, and how many targets have none, by split and reason.
    """
    found, skipped = [], Counter[str]()
    for split in HELD_OUT:
        for history, position in held_out_targets(histories, split):
            candidates = _wishes(history.known_before(position))
            if candidates:
                found.append(
                    Question(
                        axis=RECOMMENDATION, split=split, history=history, position=position, candidates=candidates
                    )
                )
            else:
                skipped[f"{split}.{NO_KNOWN}"] += 1
    return found, skipped


def consolidation_samples(histories: Sequence[History]) -> tuple[list[Sample], Counter[str]]:
    """The held-out targets with everything that is known before them, newest first: nothing is matched.

    Returns:
        The samples, and how many targets have none, by split and reason.
    """
    found, skipped = [], Counter[str]()
    for split in HELD_OUT:
        for history, position in held_out_targets(histories, split):
            preference = join_preferences([line.text for line in history.known_before(position)])
            if preference:
                found.append(
                    Sample(
                        axis=CONSOLIDATION,
                        split=split,
                        sample_id=f"{history.user_id}@{position}",
                        history=history,
                        history_end=position,
                        target=history.items[position],
                        preference=preference,
                    )
                )
            else:
                skipped[f"{split}.{NO_KNOWN}"] += 1
    return found, skipped


def sentiment_questions(
    histories: Sequence[History], negative: Mapping[str, Iterable[int]]
) -> tuple[list[Question], Counter[str]]:
    """The negatively reviewed positions with the dislikes that were generated from there on.

    Dislikes that rest on the review itself come before all others. Training positions are given lines of training
    positions only, so that no held-out review speaks in training.

    Args:
        negative: positions with a negative review, by user.

    Returns:
        The questions, and how many positions have none, by split and reason.
    """
    found, skipped = [], Counter[str]()
    for history in histories:
        for position in sorted(negative.get(history.user_id, ())):
            split = history.split_of(position)
            if split is None:
                continue
            end = history.train_end if split == "train" else len(history.items)
            candidates = _rejections(history, position, end)
            if candidates:
                found.append(
                    Question(axis=SENTIMENT, split=split, history=history, position=position, candidates=candidates)
                )
            else:
                skipped[f"{split}.{NO_DISLIKE}"] += 1
    return found, skipped


def answered(questions: Iterable[Question], lines: Vectors, items: Vectors) -> list[Sample]:
    """Each question with the candidate whose vector is nearest to its target's, the first of equals."""
    found = []
    for question in questions:
        texts = [candidate.text for candidate in question.candidates]
        near = cosines(items.of([question.target]), lines.of(texts))[0]
        best = int(near.argmax())
        found.append(
            Sample(
                axis=question.axis,
                split=question.split,
                sample_id=question.sample_id,
                history=question.history,
                history_end=question.position,
                target=question.target,
                preference=question.candidates[best].preference,
                opposite=question.candidates[best].opposite,
                similarity=float(near[best]),
            )
        )
    return found


def first_of_each(samples: Iterable[Sample]) -> tuple[list[Sample], Counter[str]]:
    """Of the samples of a split that ask for the same the first by user and position.

    In training that is the same preference for the same item: there a repeated sentence teaches of more items.

    Returns:
        The samples kept, and how many were not, by split and reason.
    """
    seen: set[tuple[str, str, str]] = set()
    found, skipped = [], Counter[str]()
    for sample in sorted(samples, key=lambda sample: (sample.history.user_id, sample.history_end)):
        asked = (sample.split, sample.preference, sample.target if sample.split == "train" else "")
        if asked in seen:
            skipped[f"{sample.split}.{SAME_PREFERENCE}"] += 1
        else:
            seen.add(asked)
            found.append(sample)
    return found, skipped


def _wishes(known: Sequence[Line]) -> tuple[Candidate, ...]:
    likes = [Candidate(text=line.text, preference=line.text) for line in known if line.sentiment == LIKE]
    if likes:
        return tuple(likes)
    twins = ((line.text, positive_twin(line.text)) for line in known if line.sentiment == DISLIKE)
    return tuple(Candidate(text=text, preference=twin) for text, twin in twins if twin)


def _rejections(history: History, position: int, end: int) -> tuple[Candidate, ...]:
    lines = [
        line
        for generated in sorted(history.lines)
        if position <= generated < end
        for line in history.lines[generated]
        if line.sentiment == DISLIKE
    ]
    own = [line for line in lines if position in line.evidence]
    texts = dict.fromkeys(line.text for line in own or lines)
    twins = ((text, positive_twin(text)) for text in texts)
    return tuple(Candidate(text=text, preference=twin, opposite=text) for text, twin in twins if twin)
