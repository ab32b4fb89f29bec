"""Runs the stage denoised_sequences: scores of positions, marks, replacements."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from infra.progress import phase
from pipelines.evaluated import evaluated
from pipelines.language.histories import newest_items
from pipelines.language.language_stage import LanguageRun, Result, refused_rows, run_language_stage
from pipelines.language.ledger import Ledger
from pipelines.language.noise import DIGITS, mark
from pipelines.language.prompts import TitlePrompt, load_title_prompt
from pipelines.language.replacements import best_by_likelihood, suggest_replacements
from pipelines.language.requests import OK
from pipelines.stages.denoised_sequences import PERCENTILE, DenoisedSequencesSettings
from schemas.denoised_sequences import DENOISED_SEQUENCES
from schemas.handoff import StageReport
from schemas.items import ITEMS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


def scored_positions(sequences: DataFrame, titles: DataFrame, chosen: DenoisedSequencesSettings) -> DataFrame:
    """The positions to score, each with its contexts.

    Only positions before the validation target are scored or shown, so that no edit of a training history depends on
    held-out targets.

    Args:
        titles: item_id, title.

    Returns:
        user_id, position, item_id, title, context (number), others (titles in the order of the history).
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

    shown = known.join(listed, "user_id").withColumn("others", nearest(sf.col("listed")))
    numbered = shown.where(sf.size("others") >= chosen.min_context).withColumn(
        "context", sf.explode(sf.sequence(sf.lit(0), sf.lit(chosen.contexts - 1)))
    )
    return numbered.select(
        "user_id",
        "position",
        "item_id",
        "title",
        "context",
        sf.when(sf.col("context") == 0, sf.col("others")).otherwise(_part(sf.col("others"))).alias("others"),
    ).dropDuplicates(["user_id", "position", "others"])


def _part(others: Column) -> Column:
    """Two thirds of `others`, rounded up, chosen by the hash of title, position and context, in their given order."""
    drawn = sf.array_sort(
        sf.transform(
            others,
            lambda title, i: sf.struct(
                sf.xxhash64(title, "user_id", "position", "context").alias("hash"), i.alias("i"), title.alias("title")
            ),
        )
    )
    kept = sf.slice(drawn, sf.lit(1), sf.ceil(sf.size(others) * 2 / 3).cast("int"))
    return sf.array_sort(sf.transform(kept, lambda x: sf.struct(x["i"].alias("i"), x["title"].alias("title"))))["title"]


def gains(ledger: Ledger, asked: DataFrame, prompt: TitlePrompt, note: str) -> DataFrame:
    """How much more likely `others` make `title`, in nats per token; a bare title is scored once for all users.

    Args:
        asked: title, others and any other columns.

    Returns:
        `asked` with gain (null where the model gave none), problem and raw (the error).
    """
    requests = ledger.requests(prompt.render, "others", "title")
    empty = sf.array().cast("array<string>")
    bare = asked.select("title").distinct().withColumn("others", empty)
    both = asked.withColumn("_bare", sf.lit(False)).unionByName(
        bare.withColumn("_bare", sf.lit(True)), allowMissingColumns=True
    )
    order = [name for name in ("user_id", "position") if name in asked.columns]
    answered = ledger.process(both.withColumn("request", requests), (*order, "title", "others"), note)
    mean = sf.when(sf.col("answer.status") == OK, sf.col("answer.logprobs")[0] / sf.col("answer.token_counts")[0])
    problem = sf.when(sf.col("answer.status") != OK, sf.concat(sf.lit("model: "), "answer.status"))
    given = answered.where("NOT _bare").select(*asked.columns, mean.alias("mean"), problem.alias("problem"), "answer")
    alone = answered.where("_bare").select("title", mean.alias("bare"))
    return given.join(alone, "title", "left").select(
        *asked.columns, (sf.col("mean") - sf.col("bare")).alias("gain"), "problem", sf.col("answer.error").alias("raw")
    )


def scores(ledger: Ledger, positions: DataFrame, prompt: TitlePrompt, contexts: int) -> DataFrame:
    """Score every position over its contexts.

    Returns:
        user_id, position, score (mean gain in nats per token, null where the model gave none), uncertainty (standard
        error of that mean; 0 if `contexts` is 1, null if the position has one distinct context), problem, raw.
    """
    every = gains(ledger, positions.drop("item_id", "context"), prompt, "scoring titles")
    found = sf.count("gain")
    spread = sf.stddev_samp("gain") / sf.sqrt(found)
    # Sorted, so that the sum does not depend on Spark's order of rows.
    total = sf.aggregate(sf.sort_array(sf.collect_list("gain")), sf.lit(0.0), lambda so_far, gain: so_far + gain)
    return every.groupBy("user_id", "position").agg(
        (total / found).alias("score"),
        (sf.lit(0.0) if contexts == 1 else sf.round(spread, DIGITS)).alias("uncertainty"),
        sf.when(found == 0, sf.max("problem")).alias("problem"),
        sf.max("raw").alias("raw"),
    )


def denoised_sequences(sequences: DataFrame, marked: DataFrame, replacements: DataFrame, users: DataFrame) -> DataFrame:
    """Rows of the table denoised_sequences without its partition column, one per history.

    Args:
        marked: as returned by `mark`.
        replacements: user_id, position, replacement of suspect positions.
        users: user_id of the users whose histories were scored.
    """
    entry = sf.struct("position", "score", "uncertainty", "keep_probability", "suspect", "replacement")
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
        each("uncertainty", "double").alias("uncertainty"),
        each("keep_probability", "double").alias("keep_probability"),
        sf.transform(each("suspect", "boolean"), lambda x: sf.coalesce(x, sf.lit(False))).alias("suspect"),
        each("replacement", "string").alias("replacements"),
        sf.when(sf.col("asked").isNull(), "not_asked")
        .when(sf.col("found").isNull(), "none")
        .otherwise("ok")
        .alias("status"),
    )


def run(request: StageRequest) -> StageReport:
    """Publish the table denoised_sequences for the request's day; errors as `run_language_stage`.

    Where the endpoint cannot score, every history has the status ``none``.
    """
    return run_language_stage(request, DENOISED_SEQUENCES, _denoise)


def _denoise(run: LanguageRun) -> Result | None:
    chosen = stage_settings(DenoisedSequencesSettings, run.settings, run.request)
    ledger, scoring = run.ledger, run.settings.llm.scoring
    prompt = load_title_prompt(chosen.prompt)
    sequences, users = run.histories(chosen.max_users)
    words = sf.split(sf.trim("title"), r"\s+")
    titles = newest_items(run.publisher.read(ITEMS), run.request.partition_date()).select(
        "item_id", sf.array_join(sf.slice(words, 1, chosen.max_title_words), " ").alias("title")
    )
    positions = scored_positions(sequences.join(users, "user_id"), titles.where("title != ''"), chosen)
    positions = run.publisher.cache(positions.limit(0) if scoring == "none" else positions)
    scored = scores(ledger, positions, prompt, chosen.contexts).transform(evaluated)
    if ledger.dry_run:
        return None
    with phase("marking noise"):
        marked, kinds = mark(scored, chosen)
        marked = marked.transform(evaluated)
    suspects = marked.where("suspect").select("user_id", "position")
    with phase("candidates for replacements"):
        ranked = suggest_replacements(sequences, suspects, chosen.candidates).transform(evaluated)
    replacements = _replacements(ledger, ranked, positions, titles, prompt, chosen)
    rows = denoised_sequences(sequences, marked, replacements, users).transform(evaluated)
    found = (
        marked.join(replacements, ["user_id", "position"], "left")
        .agg(
            sf.count(sf.lit(1)).alias("positions_scored"),
            sf.lit(int(kinds is not None or chosen.rule == PERCENTILE)).alias("two_kinds"),
            sf.lit(round(kinds.share, 4) if kinds else 0.0).alias("noise_share"),
            sf.count_if("suspect").alias("suspects"),
            sf.count("replacement").alias("replacements"),
        )
        .first()
    )
    assert found is not None
    return Result(
        rows=rows,
        refused=refused_rows(
            scored, "user_id", "position", detail="the title at this user and position could not be scored"
        ),
        prompts=[prompt],
        counts=found.asDict(),
        outputs={"scoring": scoring},
    )


def _replacements(
    ledger: Ledger,
    ranked: DataFrame,
    positions: DataFrame,
    titles: DataFrame,
    prompt: TitlePrompt,
    chosen: DenoisedSequencesSettings,
) -> DataFrame:
    """One replacement per suspect position, chosen by the model if there are several candidates."""
    if chosen.candidates == 1:
        return ranked.select("user_id", "position", "replacement")
    shown = positions.where("context = 0").select("user_id", "position", "others")
    named = titles.where("title != ''").select(sf.col("item_id").alias("replacement"), "title")
    asked = ranked.join(shown, ["user_id", "position"]).join(named, "replacement")
    return best_by_likelihood(ranked, gains(ledger, asked, prompt, "choosing replacements")).transform(evaluated)
