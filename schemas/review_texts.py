"""The text of a review that encoders read."""

import re

MAX_REVIEW_WORDS = 128
"""Words after which a review is cut, unless the setting ``text_vectors.max_review_words`` says otherwise."""
_ONLY_STARS = re.compile(r"(one|two|three|four|five|[1-5])\W*stars?\W*", re.IGNORECASE)


def review_text(title: str | None, text: str | None, max_words: int) -> str:
    """Headline and body as one text of at most `max_words` words; empty where nothing was written.

    A headline that only repeats the stars (``Five Stars``, a default of some shops) is dropped: it leaks the rating.
    """
    headline = (title or "").strip()
    if _ONLY_STARS.fullmatch(headline):
        headline = ""
    body = (text or "").strip()
    if headline and body and headline[-1] not in ".!?":
        headline += "."
    return " ".join(f"{headline} {body}".split()[:max_words])
