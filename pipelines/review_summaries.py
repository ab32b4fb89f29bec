"""The work of the stage review_summaries: lines by chunk, folded one step after the other."""

import json
from collections.abc import Callable, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from infra.progress import phase
from infra.settings import LLMSettings, load_settings, stage_settings
from pipelines.gates.ahead import load_ahead
from pipelines.language.histories import chosen_users, product_names, reviewed_positions
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import ChatPrompt, load_chat_prompt
from pipelines.language.requests import OK, to_json
from pipelines.language.review_lines import review_lines
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.tracking import record_run
from pipelines.language.validation import DISLIKE, LIKE, VERBS, SummaryLimits, summary_problem
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.review_summaries import STAGE, ReviewSummariesSettings
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.review_summaries import REVIEW_SUMMARIES
from schemas.reviews import REVIEWS
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest

_EMPTY = "-"
_READ = "phrase string, problem string"


def chunks(lines: DataFrame, size: int) -> DataFrame:
    """Lines by user, sentiment and chunk; every chunk of a user is there for both sentiments, empty or not.

    Returns:
        user_id, sentiment, chunk, as_of (of the chunk's last review), lines (without their verb, oldest first).
    """
    numbered = lines.withColumn("chunk", (sf.col("position") / size).cast("int"))
    verbs = "|".join(VERBS.values())
    entry = sf.struct("position", sf.regexp_replace("line", f"^({verbs}) ", "").alias("text"), "sentiment")
    return (
        numbered.groupBy("user_id", "chunk")
        .agg(
            sf.max_by("as_of", "position").alias("as_of"),
            sf.sort_array(sf.collect_list(sf.when(sf.col("line").isNotNull(), entry))).alias("entries"),
        )
        .withColumn("sentiment", sf.explode(sf.array(sf.lit(LIKE), sf.lit(DISLIKE))))
        .select(
            "user_id",
            "sentiment",
            "chunk",
            "as_of",
            sf.filter("entries", lambda e: e["sentiment"] == sf.col("sentiment"))["text"].alias("lines"),
        )
    )


def fold(ledger: Ledger, chunked: DataFrame, chosen: ReviewSummariesSettings) -> DataFrame:
    """State after every chunk: what was known and the chunk's lines become what is known, one call per step.

    Likes and dislikes are folded apart. A step whose answer is of no use keeps what was known and hands its lines on to
    the next one.

    Returns:
        user_id, sentiment, chunk, as_of, known (empty when nothing is), folded (lines in it), problem, raw.
    """
    prompt = load_chat_prompt(chosen.prompt)
    render = sf.udf(_renderer(prompt, ledger.llm), "string", useArrow=False)
    read = sf.udf(_read_phrase, _READ, useArrow=False)
    useless = read("answer.status", "answer.text", "known", "new")["problem"].isNotNull()
    row = chunked.agg(sf.max("chunk").alias("last")).first()
    assert row is not None
    nothing = (sf.lit("").alias("known"), sf.array().cast("array<string>").alias("carried"), sf.lit(0).alias("folded"))
    state = chunked.select("user_id", "sentiment").distinct().select("user_id", "sentiment", *nothing)
    steps = []
    for number in range((row.last or 0) + 1):
        new = chunked.where(sf.col("chunk") == number).join(state, ["user_id", "sentiment"])
        every = sf.concat("carried", "lines")
        first = sf.greatest(sf.size(every) - chosen.most_carried + 1, sf.lit(1))
        new = new.withColumn("new", sf.slice(every, first, sf.lit(chosen.most_carried)))
        asked = new.withColumn("request", render("known", "new"))
        note = f"folding chunk {number + 1}"
        answered = ledger.process(asked, order_by=("sentiment", "user_id"), note=note, useless=useless)
        lost = sf.col("read.phrase").isNull()
        step = (
            answered.withColumn("read", read("answer.status", "answer.text", "known", "new"))
            .select(
                "user_id",
                "sentiment",
                "chunk",
                "as_of",
                sf.coalesce("read.phrase", "known").alias("known"),
                sf.when(lost, sf.col("new")).otherwise(sf.array().cast("array<string>")).alias("carried"),
                (sf.col("folded") + sf.when(lost, 0).otherwise(sf.size("new"))).alias("folded"),
                "read.problem",
                sf.coalesce("answer.text", "answer.error").alias("raw"),
            )
            .localCheckpoint()
        )
        steps.append(step)
        state = step.select("user_id", "sentiment", "known", "carried", "folded")
    return reduce(DataFrame.unionAll, steps)


def _renderer(prompt: ChatPrompt, llm: LLMSettings) -> Callable[[str, Sequence[str]], str | None]:
    def render(known: str, new: Sequence[str]) -> str | None:
        if not new:
            return None
        return to_json(prompt.render("phrase", known=known or _EMPTY, new="; ".join(new)), llm)

    return render


def _read_phrase(status: str | None, text: str | None, known: str, new: Sequence[str]) -> tuple[str | None, str | None]:
    if status is None:
        return None, None
    if status != OK or text is None:
        return None, f"model: {status}"
    phrase = " ".join(json.loads(text)["summary"].split())
    problem = summary_problem(phrase, known=known, new=list(new), limits=SummaryLimits())
    return (phrase, None) if problem is None else (None, problem)


def summaries(sequences: DataFrame, steps: DataFrame, users: DataFrame) -> DataFrame:
    """Rows of the table review_summaries, its partition column left out.

    Of chunks that end at the same time the last one counts. A user outside `users` has one row of status ``not_asked``.

    Args:
        steps: as `fold` gives them.
        users: user_id of those who were asked about.
    """

    def said(sentiment: str, verb: str) -> Column:
        known = sf.max(sf.when(sf.col("sentiment") == sentiment, sf.col("known")))
        return sf.when(known != "", sf.concat(sf.lit(f"{verb} "), known, sf.lit(".")))

    written = (
        steps.groupBy("user_id", "chunk")
        .agg(
            sf.max("as_of").alias("as_of"),
            sf.concat_ws(" ", said(LIKE, "Likes"), said(DISLIKE, "Avoids")).alias("summary"),
            sf.sum("folded").cast("int").alias("reviews_used"),
        )
        .withColumn("_later", sf.row_number().over(Window.partitionBy("user_id", "as_of").orderBy(sf.desc("chunk"))))
        .where("_later = 1")
        .select(
            "user_id",
            "as_of",
            "summary",
            "reviews_used",
            sf.when(sf.col("summary") != "", "ok").otherwise("none").alias("status"),
        )
    )
    unasked = sequences.join(users, "user_id", "left_anti").select(
        "user_id",
        sf.element_at("occurred_at", -1).alias("as_of"),
        sf.lit("").alias("summary"),
        sf.lit(0).alias("reviews_used"),
        sf.lit("not_asked").alias("status"),
    )
    return written.unionByName(unasked)


def run(request: StageRequest) -> StageReport:
    """Publish the table review_summaries for the request's day.

    The lines come from the ledger when the stage preferences ran before, and cost nothing then.

    Raises:
        EndpointError: the language model's endpoint needs a person.
        BudgetExhausted: the run has spent what it may; the next one goes on.
        TooManyBadAnswers: more answers than allowed are of no use.
        DataError: an input table is missing or the result fails its gate.
    """
    settings = load_settings()
    chosen = stage_settings(ReviewSummariesSettings, settings, request)
    reading = stage_settings(ReviewLineSettings, settings, request)
    load_ahead()
    spark = stage_session(request, settings)
    ledger = Ledger(spark, settings, request, STAGE)
    with Publisher(spark, settings, request) as publisher:
        day = request.partition_date()
        sequences = publisher.cache(publisher.read(SEQUENCES).where(sf.col("partition_date") == sf.lit(day)))
        users = publisher.cache(chosen_users(sequences, reading.max_users))
        reviews, items = publisher.read(REVIEWS), publisher.read(ITEMS)
        positions = reviewed_positions(sequences.join(users, "user_id"), reviews, items, day)
        names = product_names(reviews, items, day)
        chunked = chunks(review_lines(ledger, positions, names, reading), chosen.chunk_reviews).localCheckpoint()
        steps = fold(ledger, chunked, chosen)
        if ledger.dry_run:
            return ledger.dry_report()
        with phase("putting summaries together"):
            rows = summaries(sequences, steps, users).localCheckpoint()
        publisher.publish(rows, REVIEW_SUMMARIES)
        refused = publisher.quarantine(_refused(steps))
        by_status = {row.status: row["count"] for row in rows.groupBy("status").count().collect()}
        counts = {
            **{f"summaries_{status}": by_status.get(status, 0) for status in ("ok", "none", "not_asked")},
            **{f"refused.{reason}": count for reason, count in refused.items()},
            **ledger.counts(),
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    prompts = [load_chat_prompt(reading.prompt), load_chat_prompt(chosen.prompt)]
    outputs = {"mlflow_run": record_run(settings, request, counts, prompts)}
    ledger.finish()
    return StageReport(stage=STAGE, status="done", handoffs=handoffs, counts=counts, outputs=outputs)


def _refused(steps: DataFrame) -> DataFrame:
    return steps.where(sf.col("problem").isNotNull()).select(
        sf.concat_ws("|", "user_id", "sentiment", "chunk").alias("row_key"),
        sf.col("problem").alias("reason"),
        sf.lit("the model's phrase for this user, sentiment and chunk; its lines go into the next chunk").alias(
            "detail"
        ),
        sf.substring(sf.coalesce("raw", sf.lit("")), 1, 2000).alias("raw"),
    )
