"""Runs the stage item_descriptions: one request per item, one checked answer."""

from pyspark.sql import Window
from pyspark.sql import functions as sf

from pipelines.evaluated import evaluated
from pipelines.language.language_stage import LanguageRun, Result, checked_text, refused_rows, run_language_stage
from pipelines.language.prompts import load_chat_prompt
from pipelines.language.validation import description_problem
from pipelines.stages.item_descriptions import ItemDescriptionsSettings
from schemas.handoff import StageReport
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.items import ITEMS
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest


def run(request: StageRequest) -> StageReport:
    """Publish the table item_descriptions for the request's day; errors as `run_language_stage`."""
    return run_language_stage(request, ITEM_DESCRIPTIONS, _describe)


def _describe(run: LanguageRun) -> Result | None:
    chosen = stage_settings(ItemDescriptionsSettings, run.settings, run.request)
    prompt = load_chat_prompt(chosen.prompt)
    landed = run.publisher.read(ITEMS).where(sf.col("partition_date") <= sf.lit(run.request.partition_date()))
    newest = landed.groupBy("item_id").agg(sf.max_by("text", "partition_date").alias("text"))
    shown = sf.array_join(sf.slice(sf.split("text", r"\s+"), 1, chosen.max_text_words), " ")
    items = newest.select("item_id", shown.alias("text"))
    rank = sf.row_number().over(Window.orderBy(sf.sha2("item_id", 256), "item_id"))
    asked = sf.lit(True) if chosen.max_items == 0 else rank <= chosen.max_items
    requests = run.ledger.requests(lambda text: prompt.render("description", text=text), "text")
    read = checked_text("description", lambda description, text: description_problem(description, text=text), "text")
    answered = run.ledger.process(
        items.withColumn("request", sf.when(asked, requests)),
        order_by=("item_id",),
        note="describing items",
        useless=read["problem"].isNotNull(),
    )
    if run.ledger.dry_run:
        return None
    rows = (
        answered.withColumn("read", read)
        .select(
            "item_id",
            "request_key",
            "read.text",
            "read.problem",
            sf.coalesce("answer.text", "answer.error").alias("raw"),
        )
        .transform(evaluated)
    )
    status = sf.when(sf.col("request_key").isNull(), "not_asked").when(sf.col("text").isNotNull(), "ok")
    return Result(
        rows=rows.select(
            "item_id", sf.coalesce("text", sf.lit("")).alias("description"), status.otherwise("none").alias("status")
        ),
        refused=refused_rows(rows, "item_id", detail="the model's description of this item"),
        prompts=[prompt],
        statuses="items",
    )
