"""Lines about a review: what its writer prefers or avoids. Both language tables are made from these lines.

The prompt says how a review is read: with a schema ``both`` the model lists what the writer prefers and what they
avoid; without, it gives one line whose sentiment the stars decide, which is as much as a small model can do.
"""

import json
from collections.abc import Callable, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from infra.settings import LLMSettings
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import ChatPrompt, load_chat_prompt
from pipelines.language.requests import OK, to_json
from pipelines.language.review_settings import BOTH, ReviewLineSettings
from pipelines.language.validation import DISLIKE, LIKE, LineLimits, line_problem, sentiment_of

_LINES = "array<struct<line:string,sentiment:string,problem:string>>"
_LISTS = {"prefers": LIKE, "avoids": DISLIKE}


def review_lines(ledger: Ledger, positions: DataFrame, names: frozenset[str], chosen: ReviewLineSettings) -> DataFrame:
    """Ask for the line of every review in `positions`, and check it.

    The model sees stars and text; the item's title, brand and categories serve the check only. Reviews without text are
    not asked about, nor are those of three stars, or of none, where the stars decide the sentiment.

    Args:
        positions: as `reviewed_positions` gives them, of the users to ask about.
        names: as `product_names` gives them.

    Returns:
        user_id, position, number (of the line, from 0), as_of, line, sentiment, problem, raw: at least one row per
        position. `line` is null where nothing was asked or said, or the line is of no use; then `problem` says why, and
        `raw` is the answer as it came.
    """
    prompt = load_chat_prompt(chosen.prompt)
    render = sf.udf(_renderer(prompt, ledger.llm, chosen), "string", useArrow=False)
    asked = positions.withColumn("request", render("stars", "review"))
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
    prompt: ChatPrompt, llm: LLMSettings, chosen: ReviewLineSettings
) -> Callable[[float | None, str | None], str | None]:
    def render(stars: float | None, review: str | None) -> str | None:
        if not review:
            return None
        told = None if stars is None else sentiment_of(stars)
        schema = BOTH if BOTH in prompt.schemas else told
        if schema is None:
            return None
        shown = "unknown" if stars is None else f"{stars:g}"
        return to_json(prompt.render(schema, stars=shown, text=chosen.shown(review)), llm)

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
            told = [(line, sentiment) for name, sentiment in _LISTS.items() for line in answer[name]]
        else:
            told = [(answer["preference"], sentiment_of(stars) or LIKE)]
        lines: list[tuple[str | None, ...]] = []
        for line, sentiment in told:
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


def refused_lines(lines: DataFrame) -> DataFrame:
    """Rows for the quarantine: every answer that could not be used."""
    return lines.where(sf.col("problem").isNotNull()).select(
        sf.concat_ws("|", "user_id", "position", sf.when(sf.col("number") > 0, sf.col("number"))).alias("row_key"),
        sf.col("problem").alias("reason"),
        sf.lit("the model's line for the review at this user and position").alias("detail"),
        sf.substring(sf.coalesce("raw", sf.lit("")), 1, 2000).alias("raw"),
    )
