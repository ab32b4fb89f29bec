"""The table `events`: landed event lines checked and de-duplicated."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf

from pipelines.landing.json_text import MAX_DEPTH
from pipelines.landing.readers import PLACE, Landed
from pipelines.landing.readers.placed import first_problem, problem
from pipelines.review_rules import ReviewRules
from pipelines.reviews import date_cases, missing, told, unknown_item
from schemas.events import EVENTS

MAX_CONTEXT_CHARS = 4_000
_ACTION = r"^[a-z0-9][a-z0-9_.:-]{0,39}$"


def check_events(landed: Landed, rules: ReviewRules, known_items: DataFrame | None) -> DataFrame:
    """Every landed line with its columns, the first problem found, and its rank among copies of its key.

    Args:
        known_items: frame of `item_id`; events of other items are refused. None lets every item pass.

    Returns:
        One row per landed line: the columns of `PLACE` and of the table without ``source``, ``source_line`` of the
        file and ``partition_date``; `cut`, which is false, as no context is cut; and `copy`, which is 1 for the winner
        of a key: longest context, then first file and line. `copy` counts rows without a problem only.
    """
    frame = landed.frame.select(
        *PLACE,
        sf.trim("user_id").alias("user_id"),
        sf.trim("item_id").alias("item_id"),
        sf.lower(sf.trim("action")).alias("action"),
        "occurred_at",
        "date_raw",
        sf.nullif(sf.trim("context"), sf.lit("")).alias("context"),
    )
    found = first_problem(
        missing("user_id", "missing_user_id"),
        missing("item_id", "missing_item_id"),
        missing("action", "missing_action"),
        (
            ~sf.col("action").rlike(_ACTION),
            problem("bad_action", told("action", "action", "expected one word such as view or add_to_cart")),
        ),
        *date_cases("occurred_at", rules),
        (
            sf.char_length("context") > MAX_CONTEXT_CHARS,
            problem("bad_context", f"context has more than {MAX_CONTEXT_CHARS} characters; leave out what is not used"),
        ),
        (~_is_object("context"), problem("bad_context", told("context", "context", "expected one JSON object"))),
    )
    frame = frame.withColumn("problem", sf.coalesce("problem", found)).drop("date_raw")
    if known_items is not None:
        frame = unknown_item(frame, known_items)
    fine = sf.col("problem").isNull()
    copies = Window.partitionBy(fine, *EVENTS.key).orderBy(
        sf.coalesce(sf.char_length("context"), sf.lit(0)).desc(), sf.col("source_file"), sf.col("source_line")
    )
    return frame.withColumns({"cut": sf.lit(False), "copy": sf.when(fine, sf.row_number().over(copies))})


def winners(checked: DataFrame) -> DataFrame:
    """The rows of `checked` to publish: valid, and the first of its copies."""
    columns = [name for name in EVENTS.column_names() if name != "partition_date"]
    return checked.where(sf.col("copy") == 1).withColumn("source", sf.col("source_file")).select(columns)


def _is_object(name: str) -> Column:
    """Whether a text is one JSON object; null for null. A deep one would end Java and is not looked into."""
    text = sf.col(name)
    brackets = sf.char_length(text) - sf.char_length(sf.translate(text, "[{", ""))
    shallow = sf.when((brackets <= MAX_DEPTH) & text.startswith("{"), text)
    # parse_json ignores what follows the first value, so a second count proves that nothing does.
    alone = sf.json_array_length(sf.concat(sf.lit("["), shallow, sf.lit(",0]"))) == 2
    return sf.when(text.isNotNull(), sf.coalesce(alone & sf.try_parse_json(shallow).isNotNull(), sf.lit(False)))
