"""The texts of items for encoders."""

import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings
from ray_jobs.data.tables import input_table, newest_items
from schemas.item_descriptions import ITEM_DESCRIPTIONS
from schemas.stage_request import StageRequest

DESCRIBED_KEY = "item_vectors.descriptions"
"""Upstream output, "true" if the vectors are of texts with descriptions."""


def item_texts(settings: Settings, request: StageRequest, described: bool) -> pa.Table:
    """``item_id`` and ``text`` of the items known on the request's day, sorted by id.

    Args:
        described: prepend the newest description known on the day to the item's text.
    """
    items = newest_items(settings, request).select(["item_id", "text"])
    if not described:
        return items
    known = input_table(
        settings, request, ITEM_DESCRIPTIONS.name, None, pc.field("partition_date") <= request.partition_date()
    )
    rows = known.filter(pc.equal(known["status"], "ok")).sort_by("partition_date").to_pylist()
    newest = {row["item_id"]: row["description"] for row in rows}
    texts = [
        f"{newest[item]} {text}" if item in newest else text
        for item, text in zip(items["item_id"].to_pylist(), items["text"].to_pylist(), strict=True)
    ]
    return items.set_column(1, "text", pa.array(texts, pa.string()))
