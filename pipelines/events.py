"""The table `events`: landed event lines checked and de-duplicated."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from pipelines.landing.checks import checked_columns, missing, numbered_copies, unexpected, with_problems, wrong_date
from pipelines.landing.readers import Landed
from pipelines.landing.readers.json_lines import is_object, is_shallow
from pipelines.landing.readers.rows import problem
from pipelines.stages.ingest import LandingRules
from schemas.events import EVENTS

MAX_CONTEXT_CHARS = 4_000
_ACTION = r"^[a-z0-9][a-z0-9_.:-]{0,39}$"


def check_events(landed: Landed, rules: LandingRules, known_items: DataFrame | None) -> DataFrame:
    """Check every landed line, find its first problem, and number the copies of its key.

    Args:
        known_items: frame of `item_id`; events of other items are refused. None accepts every item.

    Returns:
        One row per landed line: `SOURCE_FIELDS`, the columns of the table without ``source`` and ``partition_date``,
        `cut` (always false: no context is cut), and `copy`: null for a row with a problem, else 1 for the copy to
        publish, which is the one with the longest context, then of the first file and line.
    """
    context = sf.col("context")
    frame = landed.frame.withColumns(
        {
            "user_id": sf.trim("user_id"),
            "item_id": sf.trim("item_id"),
            "action": sf.lower(sf.trim("action")),
            "context": sf.nullif(sf.trim("context"), sf.lit("")),
            "cut": sf.lit(False),
        }
    )
    one_word = unexpected("action", "action", "expected one word such as view or add_to_cart")
    too_long = f"context has more than {MAX_CONTEXT_CHARS} characters; leave out what is not used"
    no_object = unexpected("context", "context", "expected one JSON object")
    frame = with_problems(
        frame,
        missing("user_id"),
        missing("item_id"),
        missing("action"),
        (~sf.col("action").rlike(_ACTION), problem("bad_action", one_word)),
        *wrong_date("occurred_at", rules),
        (sf.char_length(context) > MAX_CONTEXT_CHARS, problem("bad_context", too_long)),
        (context.isNotNull() & ~_is_object(context), problem("bad_context", no_object)),
        known_items=known_items,
    )
    frame = numbered_copies(frame, EVENTS, sf.coalesce(sf.char_length(context), sf.lit(0)).desc())
    return frame.select(checked_columns(EVENTS, "cut", "copy"))


def _is_object(text: Column) -> Column:
    """Whether `text` is one JSON object that parsers can read without overflowing their stack."""
    shallow = sf.when(is_shallow(text), text)
    return sf.coalesce(is_object(shallow) & sf.try_parse_json(shallow).isNotNull(), sf.lit(False))
