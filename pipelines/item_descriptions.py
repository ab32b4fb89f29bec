"""The work of the stage item_descriptions: one question an item, one checked answer."""

import json
from collections.abc import Callable

from pyspark.sql import Window
from pyspark.sql import functions as sf

from infra.settings import LLMSettings, load_settings, stage_settings
from pipelines.gates.ahead import load_ahead
from pipelines.language.ledger import Ledger
from pipelines.language.prompts import ChatPrompt, load_chat_prompt
from pipelines.language.requests import OK, to_json
from pipelines.language.tracking import record_run
from pipelines.language.validation import description_problem
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.item_descriptions import STAGE, ItemDescriptionsSettings
from schemas.handoff import StageReport
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.items import ITEMS
from schemas.stage_request import StageRequest


def run(request: StageRequest) -> StageReport:
    """Publish the table item_descriptions for the request's day.

    Raises:
        EndpointError: the language model's endpoint needs a person.
        BudgetExhausted: the run has spent what it may; the next one goes on.
        TooManyBadAnswers: more answers than allowed are of no use.
        DataError: an input table is missing or the result fails its gate.
    """
    settings = load_settings()
    chosen = stage_settings(ItemDescriptionsSettings, settings, request)
    load_ahead()
    spark = stage_session(request, settings)
    ledger = Ledger(spark, settings, request, STAGE)
    prompt = load_chat_prompt(chosen.prompt)
    with Publisher(spark, settings, request) as publisher:
        landed = publisher.read(ITEMS).where(sf.col("partition_date") == sf.lit(request.partition_date()))
        shown = sf.array_join(sf.slice(sf.split("text", r"\s+"), 1, chosen.max_text_words), " ")
        items = landed.select("item_id", shown.alias("text"))
        rank = sf.row_number().over(Window.orderBy(sf.sha2("item_id", 256), "item_id"))
        asked = sf.lit(True) if chosen.max_items == 0 else rank <= chosen.max_items
        render = sf.udf(_renderer(prompt, ledger.llm), "string", useArrow=False)
        requests = items.withColumn("request", sf.when(asked, render("text")))
        reading = sf.udf(_read, "description string, problem string", useArrow=False)
        read = reading("answer.status", "answer.text", "text")
        answered = ledger.process(
            requests, order_by=("item_id",), note="describing items", useless=read["problem"].isNotNull()
        )
        if ledger.dry_run:
            return ledger.dry_report()
        rows = answered.withColumn("read", read).localCheckpoint()
        status = (
            sf.when(sf.col("request_key").isNull(), "not_asked")
            .when(sf.col("read.description").isNotNull(), "ok")
            .otherwise("none")
        )
        described = rows.select(
            "item_id", sf.coalesce("read.description", sf.lit("")).alias("description"), status.alias("status")
        )
        publisher.publish(described, ITEM_DESCRIPTIONS)
        refused = rows.where(sf.col("read.problem").isNotNull()).select(
            sf.col("item_id").alias("row_key"),
            sf.col("read.problem").alias("reason"),
            sf.lit("the model's description of this item").alias("detail"),
            sf.substring(sf.coalesce("answer.text", "answer.error", sf.lit("")), 1, 2000).alias("raw"),
        )
        by_reason = publisher.quarantine(refused)
        by_status = {row.status: row["count"] for row in described.groupBy("status").count().collect()}
        counts = {
            **{f"items_{name}": by_status.get(name, 0) for name in ("ok", "none", "not_asked")},
            **{f"refused.{reason}": count for reason, count in by_reason.items()},
            **ledger.counts(),
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    outputs = {"mlflow_run": record_run(settings, request, counts, [prompt])}
    ledger.finish()
    return StageReport(stage=STAGE, status="done", handoffs=handoffs, counts=counts, outputs=outputs)


def _renderer(prompt: ChatPrompt, llm: LLMSettings) -> Callable[[str], str]:
    def render(text: str) -> str:
        return to_json(prompt.render("description", text=text), llm)

    return render


def _read(status: str | None, answer: str | None, text: str) -> tuple[str | None, str | None]:
    if status is None:
        return None, None
    if status != OK or answer is None:
        return None, f"model: {status}"
    description = " ".join(json.loads(answer)["description"].split())
    problem = description_problem(description, text=text)
    return (description, None) if problem is None else (None, problem)
