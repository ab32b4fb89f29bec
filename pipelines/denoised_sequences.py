"""Which positions of a history do not belong, by how much the rest of the history helps a model to expect them.

A position's score is the mean log-probability per token of its title after the user's other titles, less that of the
title after a bare prompt: how much the rest of the history says about it. Low is noise (after LLM4DSR, arXiv
2408.08208, with the whole title's likelihood in place of its first token's).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from infra.settings import LLMSettings, load_settings, stage_settings
from pipelines.language.histories import chosen_users, newest_items
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import TitlePrompt, load_title_prompt
from pipelines.language.replacements import suggest_replacements
from pipelines.language.requests import OK, to_json
from pipelines.language.tracking import record_run
from pipelines.publisher import Publisher
from pipelines.spark import spark_session
from schemas.denoised_sequences import DENOISED_SEQUENCES
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.sequences import SEQUENCES
from schemas.stage import run_stage
from schemas.stage_request import StageRequest

STAGE = "denoised_sequences"
# The last bits of a mean over the partition depend on the order in which Spark adds it up; a rerun must not show them.
DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class DenoiseSettings:
    """What is scored and what counts as suspect.

    Args:
        max_users: users whose histories are scored, chosen by hash; 0 for everybody.
        context: other titles shown, the nearest in the history.
        min_context: fewer other titles say nothing, and the position is not scored.
        max_title_words: longer titles are cut.
        suspect_share: positions whose score is below this quantile of all scores of the day are candidates.
        max_edits: candidates per history that are marked suspect, lowest score first.
        prompt: name of the prompt file.
    """

    max_users: int = 0
    context: int = 8
    min_context: int = 2
    max_title_words: int = 12
    suspect_share: float = 0.1
    max_edits: int = 1
    prompt: str = "title_likelihood"

    def __post_init__(self) -> None:
        if not 0 <= self.suspect_share < 1:
            raise ValueError(f"denoised_sequences.suspect_share is {self.suspect_share}, but must be in [0, 1)")
        if self.min_context < 1 or self.context < self.min_context or self.max_users < 0 or self.max_edits < 0:
            raise ValueError(
                "denoised_sequences: min_context must be at least 1, context at least min_context, max_users and "
                "max_edits at least 0"
            )


def scored_positions(sequences: DataFrame, titles: DataFrame, chosen: DenoiseSettings) -> DataFrame:
    """The positions to score, each with its context.

    Held-out targets stay out of it: positions before the validation target are scored, with each other as context, so
    that no edit of a training history depends on what a model is tested on.

    Args:
        titles: item_id, title.

    Returns:
        user_id, position, item_id, title, others (titles in the order of the history).
    """
    known = (
        sequences.select(
            "user_id",
            sf.coalesce("valid_position", "length").alias("_end"),
            sf.posexplode("item_ids").alias("position", "item_id"),
        )
        .where(sf.col("position") < sf.col("_end"))
        .join(titles, "item_id")
        .select("user_id", "position", "item_id", "title")
    )
    listed = known.groupBy("user_id").agg(
        sf.sort_array(sf.collect_list(sf.struct("position", "title"))).alias("listed")
    )

    def nearest(listed: Column) -> Column:
        others = sf.filter(listed, lambda x: x["title"] != sf.col("title"))
        by_distance = sf.array_sort(
            sf.transform(
                others,
                lambda x: sf.struct(
                    sf.abs(x["position"] - sf.col("position")).alias("d"),
                    x["position"].alias("position"),
                    x["title"].alias("title"),
                ),
            )
        )
        kept = sf.slice(by_distance, 1, chosen.context)
        in_order = sf.array_sort(
            sf.transform(kept, lambda x: sf.struct(x["position"].alias("position"), x["title"].alias("title")))
        )
        return in_order["title"]

    return (
        known.join(listed, "user_id")
        .select("user_id", "position", "item_id", "title", nearest(sf.col("listed")).alias("others"))
        .where(sf.size("others") >= chosen.min_context)
    )


def scores(ledger: Ledger, positions: DataFrame, chosen: DenoiseSettings) -> DataFrame:
    """Score every position; the bare title is asked once per title, whoever has it.

    Returns:
        user_id, position, score (nats per token; null where the model gave none), problem, raw.
    """
    prompt = load_title_prompt(chosen.prompt)
    render = sf.udf(_renderer(prompt, ledger.llm), "string", useArrow=False)
    bare = positions.select(
        sf.lit("").alias("user_id"),
        sf.lit(-1).alias("position"),
        "title",
        sf.array().cast("array<string>").alias("others"),
    ).distinct()
    asked = positions.select("user_id", "position", "title", "others").unionByName(bare)
    answered = ledger.process(
        asked.withColumn("request", render("others", "title")), ("user_id", "position", "title"), "scoring titles"
    )
    mean = sf.when(
        sf.col("answer.status") == OK, sf.col("answer.logprobs")[0] / sf.col("answer.token_counts")[0]
    ).alias("mean")
    problem = sf.when(sf.col("answer.status") != OK, sf.concat(sf.lit("model: "), "answer.status"))
    given = answered.where("position >= 0").select(
        "user_id", "position", "title", mean, problem.alias("problem"), "answer.error"
    )
    alone = answered.where("position < 0").select("title", mean.alias("bare"))
    return given.join(alone, "title", "left").select(
        "user_id", "position", (sf.col("mean") - sf.col("bare")).alias("score"), "problem", sf.col("error").alias("raw")
    )


def mark(scored: DataFrame, chosen: DenoiseSettings) -> DataFrame:
    """Add keep_probability (logistic of the standardised score) and suspect.

    The standard deviation is the population's; where all scores are equal every probability is one half.
    """
    found = scored.where(sf.col("score").isNotNull())
    row = found.agg(
        sf.mean("score").alias("mean"),
        sf.stddev_pop("score").alias("spread"),
        sf.percentile("score", sf.lit(chosen.suspect_share)).alias("threshold"),
    ).first()
    assert row is not None
    spread = row.spread or 1.0
    rank = sf.row_number().over(Window.partitionBy("user_id").orderBy("score", "position"))
    return found.select(
        "user_id",
        "position",
        "score",
        sf.round(1 / (1 + sf.exp(-(sf.col("score") - sf.lit(row["mean"])) / sf.lit(spread))), DIGITS).alias(
            "keep_probability"
        ),
        ((sf.col("score") < sf.lit(row.threshold)) & (rank <= chosen.max_edits)).alias("suspect"),
    )


def denoised_sequences(sequences: DataFrame, marked: DataFrame, replacements: DataFrame, users: DataFrame) -> DataFrame:
    """Rows of the table denoised_sequences, its partition column left out: every history, position by position.

    Args:
        marked: as `mark` gives them.
        replacements: user_id, position, replacement for suspect positions.
        users: user_id of those who were asked about.
    """
    entry = sf.struct("position", "score", "keep_probability", "suspect", "replacement")
    by_user = (
        marked.join(replacements, ["user_id", "position"], "left")
        .groupBy("user_id")
        .agg(sf.map_from_entries(sf.collect_list(sf.struct("position", entry))).alias("found"))
    )
    positions = sf.sequence(sf.lit(0), sf.col("length") - 1)

    def each(field: str, kind: str) -> Column:
        return sf.transform(positions, lambda p: sf.try_element_at("found", p)[field].cast(kind))

    rows = sequences.join(users.withColumn("asked", sf.lit(True)), "user_id", "left").join(by_user, "user_id", "left")
    return rows.select(
        "user_id",
        "item_ids",
        each("score", "double").alias("scores"),
        each("keep_probability", "double").alias("keep_probability"),
        sf.transform(each("suspect", "boolean"), lambda x: sf.coalesce(x, sf.lit(False))).alias("suspect"),
        each("replacement", "string").alias("replacements"),
        sf.when(sf.col("asked").isNull(), "not_asked")
        .when(sf.col("found").isNull(), "none")
        .otherwise("ok")
        .alias("status"),
    )


def run(request: StageRequest) -> StageReport:
    """Publish the table denoised_sequences for the request's day; an endpoint without scoring gives status ``none``.

    Raises:
        EndpointError: the language model's endpoint needs a person.
        BudgetExhausted: the run has spent what it may; the next one goes on.
        TooManyBadAnswers: more answers than allowed are of no use.
        DataError: an input table is missing or the result fails its gate.
    """
    settings = load_settings()
    chosen = stage_settings(DenoiseSettings, STAGE, settings, request.overrides)
    spark = spark_session(f"penchant {STAGE}", settings)
    ledger = Ledger(spark, settings, request, STAGE)
    with Publisher(spark, settings, request) as publisher:
        day = request.partition_date()
        sequences = publisher.cache(publisher.read(SEQUENCES).where(sf.col("partition_date") == sf.lit(day)))
        users = publisher.cache(chosen_users(sequences, chosen.max_users))
        words = sf.split(sf.trim("title"), r"\s+")
        titles = newest_items(publisher.read(ITEMS), day).select(
            "item_id", sf.array_join(sf.slice(words, 1, chosen.max_title_words), " ").alias("title")
        )
        positions = scored_positions(sequences.join(users, "user_id"), titles.where("title != ''"), chosen)
        if settings.llm.scoring == "none":
            positions = positions.limit(0)
        scored = scores(ledger, publisher.cache(positions), chosen).localCheckpoint()
        if ledger.dry_run:
            return ledger.dry_report()
        marked = mark(scored, chosen).localCheckpoint()
        suspects = marked.where("suspect").select("user_id", "position")
        replacements = suggest_replacements(sequences, suspects).localCheckpoint()
        rows = denoised_sequences(sequences, marked, replacements, users).localCheckpoint()
        publisher.publish(rows, DENOISED_SEQUENCES)
        _, refused = publisher.quarantine(_refused(scored), STAGE)
        found = (
            marked.join(replacements, ["user_id", "position"], "left")
            .agg(
                sf.count(sf.lit(1)).alias("positions"),
                sf.count_if("suspect").alias("suspects"),
                sf.count("replacement").alias("replacements"),
            )
            .first()
        )
        assert found is not None
        counts = {
            "positions_scored": found.positions,
            "suspects": found.suspects,
            "replacements": found.replacements,
            **{f"refused.{reason}": count for reason, count in refused.items()},
            **ledger.counts(),
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    outputs = {"mlflow_run": record_run(settings, request, counts, [load_title_prompt(chosen.prompt)])}
    outputs["scoring"] = settings.llm.scoring
    return StageReport(stage=STAGE, status="done", handoffs=handoffs, counts=counts, outputs=outputs)


def _renderer(prompt: TitlePrompt, llm: LLMSettings) -> Callable[[Sequence[str], str], str]:
    def render(others: Sequence[str], title: str) -> str:
        return to_json(prompt.render(others, title), llm)

    return render


def _refused(scored: DataFrame) -> DataFrame:
    return scored.where(sf.col("problem").isNotNull()).select(
        sf.concat_ws("|", "user_id", "position").alias("row_key"),
        sf.col("problem").alias("reason"),
        sf.lit("the title at this user and position could not be scored").alias("detail"),
        sf.substring(sf.coalesce("raw", sf.lit("")), 1, 2000).alias("raw"),
    )


if __name__ == "__main__":
    run_stage(STAGE, __doc__ or "", run)
