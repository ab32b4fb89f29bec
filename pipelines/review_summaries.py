"""Runs the stage review_summaries: lines by chunk of reviews, folded step by step."""

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from infra.progress import phase
from pipelines.language.language_stage import LanguageRun, Result, checked_text, refused_rows, run_language_stage
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.validation import DISLIKE, LIKE, VERBS, SummaryLimits, summary_problem
from pipelines.stages.review_summaries import ReviewSummariesSettings
from schemas.handoff import StageReport
from schemas.review_summaries import REVIEW_SUMMARIES
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

_EMPTY = "-"


def chunks(lines: DataFrame, size: int) -> DataFrame:
    """Lines by user, sentiment and chunk; each chunk of a user has a row for both sentiments, empty or not.

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
    """Summaries after each chunk: the model folds the chunk's lines into the summary so far, one request per step.

    Likes and dislikes are folded separately. Where the answer is unusable, the summary stays and the lines are carried
    over to the next chunk.

    Returns:
        user_id, sentiment, chunk, as_of, known (the summary, maybe empty), folded (number of lines in it), problem,
        raw.
    """
    prompt = load_chat_prompt(chosen.prompt)
    requests = ledger.requests(
        lambda known, new: prompt.render("phrase", known=known or _EMPTY, new="; ".join(new)) if new else None,
        "known",
        "new",
    )
    read = checked_text(
        "summary",
        lambda phrase, known, new: summary_problem(phrase, known=known, new=list(new), limits=SummaryLimits()),
        "known",
        "new",
    )
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
        asked = new.withColumn("request", requests)
        note = f"folding chunk {number + 1}"
        useless = read["problem"].isNotNull()
        answered = ledger.process(asked, order_by=("sentiment", "user_id"), note=note, useless=useless)
        lost = sf.col("read.text").isNull()
        step = (
            answered.withColumn("read", read)
            .select(
                "user_id",
                "sentiment",
                "chunk",
                "as_of",
                sf.coalesce("read.text", "known").alias("known"),
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


def summaries(sequences: DataFrame, steps: DataFrame, users: DataFrame) -> DataFrame:
    """Rows of the table review_summaries without its partition column.

    Of chunks that end at the same time the last one counts. A user outside `users` has one row of status ``not_asked``.

    Args:
        steps: as returned by `fold`.
        users: user_id of the users whose reviews were read.
    """

    def part(sentiment: str, verb: str) -> Column:
        known = sf.max(sf.when(sf.col("sentiment") == sentiment, sf.col("known")))
        return sf.when(known != "", sf.concat(sf.lit(f"{verb} "), known, sf.lit(".")))

    written = (
        steps.groupBy("user_id", "chunk")
        .agg(
            sf.max("as_of").alias("as_of"),
            sf.concat_ws(" ", part(LIKE, "Likes"), part(DISLIKE, "Avoids")).alias("summary"),
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
    """Publish the table review_summaries for the request's day; errors as `run_language_stage`.

    Where the stage preferences ran before, the lines come from the ledger and cost nothing.
    """
    return run_language_stage(request, REVIEW_SUMMARIES, _summarise)


def _summarise(run: LanguageRun) -> Result | None:
    chosen = stage_settings(ReviewSummariesSettings, run.settings, run.request)
    reading = stage_settings(ReviewLineSettings, run.settings, run.request)
    sequences, users = run.histories(reading.max_users)
    chunked = chunks(run.lines(sequences, users, reading), chosen.chunk_reviews).localCheckpoint()
    steps = fold(run.ledger, chunked, chosen)
    if run.ledger.dry_run:
        return None
    with phase("putting summaries together"):
        rows = summaries(sequences, steps, users).localCheckpoint()
    detail = "the model's phrase for this user, sentiment and chunk; its lines go into the next chunk"
    return Result(
        rows=rows,
        refused=refused_rows(steps, "user_id", "sentiment", "chunk", detail=detail),
        prompts=[load_chat_prompt(reading.prompt), load_chat_prompt(chosen.prompt)],
        statuses="summaries",
    )
