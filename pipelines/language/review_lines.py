"""Lines about a review: what its writer prefers or avoids. The tables preferences and review_summaries rest on them.

With a prompt that has a schema ``both``, the model lists what the writer prefers and avoids. Otherwise it writes one
line, whose sentiment comes from the stars; small models can do no more.
"""

import json
from collections.abc import Callable, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from pipelines.language.ledger import Ledger
from pipelines.language.prompts import ChatPrompt, load_chat_prompt
from pipelines.language.requests import OK, ChatRequest
from pipelines.language.review_settings import BOTH, ReviewLineSettings
from pipelines.language.validation import DISLIKE, LIKE, LineLimits, line_problem, sentiment_of

_LINES = "array<struct<line:string,sentiment:string,problem:string>>"
_LISTS = {"prefers": LIKE, "avoids": DISLIKE}


def review_lines(ledger: Ledger, positions: DataFrame, names: frozenset[str], chosen: ReviewLineSettings) -> DataFrame:
    """Request the lines of every review in `positions`, and check them.

    The model sees stars and text; the item's title, brand and categories are for the check only. Reviews without text
    are skipped; so are those of three stars or none where the stars decide the sentiment.

    Args:
        positions: as returned by `reviewed_positions`.
        names: as returned by `product_names`.

    Returns:
        user_id, position, number (of the line, from 0), as_of, line, sentiment, problem, raw: at least one row per
        position. `line` is null where there was no request, no line, or an unusable one; in the last case `problem` has
        the reason and `raw` the answer as received.
    """
    prompt = load_chat_prompt(chosen.prompt)
    asked = positions.withColumn("request", ledger.requests(_renderer(prompt, chosen), "stars", "review"))
    parts = ("answer.status", "answer.text", "stars", "review", "title", "brand", "categories")
    read = sf.udf(_reader(prompt, names, chosen), _LINES, useArrow=False)(*(sf.col(part) for part in parts))
    useless = (sf.size(read) > 0) & sf.forall(read, lambda line: line["problem"].isNotNull())
    answered = ledger.process(asked, order_by=("user_id", "position"), note="reading reviews", useless=useless)
    every = answered.withColumn("lines", read)
    return every.select("*", sf.posexplode_outer("lines").alias("number", "read")).select(
        "user_id",
        "position",
        sf.coalesce("number", sf.lit(0)).alias("number"),
        "as_of",
        "read.line",
        "read.sentiment",
        "read.problem",
        sf.coalesce("answer.text", "answer.error").alias("raw"),
    )


def _renderer(
    prompt: ChatPrompt, chosen: ReviewLineSettings
) -> Callable[[float | None, str | None], ChatRequest | None]:
    def render(stars: float | None, review: str | None) -> ChatRequest | None:
        if not review:
            return None
        by_stars = None if stars is None else sentiment_of(stars)
        schema = BOTH if BOTH in prompt.schemas else by_stars
        if schema is None:
            return None
        return prompt.render(schema, stars="unknown" if stars is None else f"{stars:g}", text=chosen.shown(review))

    return render


def _reader(
    prompt: ChatPrompt, names: frozenset[str], chosen: ReviewLineSettings
) -> Callable[..., list[tuple[str | None, ...]] | None]:
    examples = prompt.example_answers(*(_LISTS if BOTH in prompt.schemas else ["preference"]))
    limits = LineLimits(topics=chosen.topics, least_grounded=chosen.least_grounded)

    def read(
        status: str | None,
        text: str | None,
        stars: float,
        review: str | None,
        title: str | None,
        brand: str | None,
        categories: Sequence[str] | None,
    ) -> list[tuple[str | None, ...]] | None:
        if status is None or review is None:
            return None
        if status != OK or text is None:
            return [(None, None, f"model: {status}")]
        answer = json.loads(text)
        if BOTH in prompt.schemas:
            written = [(line, sentiment) for name, sentiment in _LISTS.items() for line in answer[name]]
        else:
            written = [(answer["preference"], sentiment_of(stars) or LIKE)]
        lines: list[tuple[str | None, ...]] = []
        for line, sentiment in written:
            line = " ".join(line.split())
            problem = line_problem(
                line,
                sentiment=sentiment,
                review=chosen.shown(review),
                title=title,
                brand=brand,
                examples=examples,
                limits=limits,
                names=names,
                categories=categories or (),
            )
            lines.append((line, sentiment, None) if problem is None else (None, None, problem))
        return lines

    return read
