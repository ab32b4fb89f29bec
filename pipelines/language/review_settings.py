"""Settings for reading reviews, and the part of a review that the model sees."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, CountOrZero, PositiveShare
from pipelines.language.prompts import ChatPrompt
from pipelines.language.redaction import KINDS, check_kinds, redact
from schemas.dataset import Dataset

BOTH = "both"
"""Schema of prompts whose answers have likes and dislikes; with others the stars decide."""

_BEYOND = 20
"""Words read beyond those shown, for personal data that continues there."""
_WORD_CHARS = 40
"""Upper bound of the mean length of a review's words."""


@dataclass(frozen=True, kw_only=True)
class ReviewLineSettings(Bounded):
    """How reviews are read, by the stages preferences and review_summaries, which share requests.

    Args:
        max_users: number of users whose reviews are read, chosen by hash; 0 for all.
        max_review_words: longer reviews are truncated, because a small model reads slowly.
        redact: personal data removed before a review is sent, see `pipelines.language.redaction`.
        phone_region: country whose national telephone numbers are recognised.
        least_grounded: share of a line's words that must name a property in words of the review. Small models make the
            others up; larger ones paraphrase.
        topics: topics that lines may mention because the data is about them: ``price``, ``delivery``.
        prompt: name of the prompt file; ``review_opinions`` is for models that can distinguish likes from dislikes.
    """

    section: ClassVar[str] = "review_lines"

    max_users: CountOrZero = 0
    max_review_words: Count = 120
    redact: tuple[str, ...] = KINDS
    phone_region: str = "US"
    least_grounded: PositiveShare = 0.6
    topics: tuple[Literal["price", "delivery"], ...] = ()
    prompt: str = "review_preference"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self.redact)

    def shown(self, review: str) -> str:
        """The part of a review that the model sees: its first words, without personal data.

        The review is truncated before the search for personal data, to bound its cost, and again after it, so that
        nothing that spans the first cut is shown.
        """
        most = self.max_review_words + _BEYOND
        if len(review) > most * _WORD_CHARS:
            review = review[: most * _WORD_CHARS]
            review = review.rpartition(" ")[0] or review
        review = " ".join(review.split(maxsplit=most)[:most])
        return " ".join(redact(review, self.redact, self.phone_region).split()[: self.max_review_words])


def require_readable(prompt: ChatPrompt, datasets_dir: str, dataset: str) -> None:
    """Refuse a prompt that needs stars for a data set that has review texts but no ratings.

    Raises:
        DataError: it is such a prompt and data set.
    """
    registered = Dataset.find(datasets_dir, dataset)
    if registered and BOTH not in prompt.schemas and {"title", "text"} & registered.review_columns.keys():
        remedy = "set review_lines.prompt to review_opinions, or leave the task out (leave_out)"
        registered.require_ratings(
            f"the prompt {prompt.name}, which distinguishes likes from dislikes by the stars,", remedy
        )
