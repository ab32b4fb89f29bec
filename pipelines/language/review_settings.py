"""The settings by which reviews are read, and what the model is shown of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from infra.bounds import Bounded, Count, CountOrZero, PositiveShare
from pipelines.language.prompts import ChatPrompt
from pipelines.language.redaction import KINDS, check_kinds, redact
from schemas.dataset import Dataset

BOTH = "both"
"""Schema of prompts whose answers tell likes and dislikes apart; with others the stars decide."""

_BEYOND = 20
"""Words read beyond those shown, for personal data that goes on there."""
_WORD_CHARS = 40
"""Characters of a word, on the average of a review."""


@dataclass(frozen=True, kw_only=True)
class ReviewLineSettings(Bounded):
    """How reviews are read; shared by the stages preferences and review_summaries, which pay for a line once.

    Args:
        max_users: users that are asked about, chosen by hash; 0 for everybody.
        max_review_words: longer reviews are cut, because a small model reads slowly.
        redact: personal data that is taken out before a review is sent, see `pipelines.language.redaction`.
        phone_region: country whose national telephone numbers are recognised.
        least_grounded: share of a line's words that must tell a property in words of the review. Small models make the
            rest up, larger ones say it in their own words.
        topics: what lines may talk of because the data is about it: ``price``, ``delivery``.
        prompt: name of the prompt file; ``review_opinions`` is for models that can tell likes from dislikes.
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
        """What the model sees of a review: its first words, without personal data.

        The review is cut before personal data is sought, so that its length costs nothing, and again after it: what
        stands across the first cut is never shown.
        """
        most = self.max_review_words + _BEYOND
        if len(review) > most * _WORD_CHARS:
            review = review[: most * _WORD_CHARS]
            review = review.rpartition(" ")[0] or review
        review = " ".join(review.split(maxsplit=most)[:most])
        return " ".join(redact(review, self.redact, self.phone_region).split()[: self.max_review_words])


def require_readable(prompt: ChatPrompt, datasets_dir: Path, dataset: str) -> None:
    """Refuse reviews that would not be read, before anything is asked: they have texts, and the prompt needs stars.

    Raises:
        DataError: so.
    """
    registered = Dataset.find(datasets_dir, dataset)
    if registered and BOTH not in prompt.schemas and {"title", "text"} & registered.review_columns.keys():
        remedy = "set review_lines.prompt to review_opinions, or leave the task out (leave_out)"
        registered.require_ratings(f"the prompt {prompt.name}, which tells likes from dislikes by the stars,", remedy)
