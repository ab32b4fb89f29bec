"""The table `items`: landed metadata cleaned, de-duplicated, and joined into the text that encoders read."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf

from pipelines.landing.checks import checked_columns, missing, numbered_copies, with_problems
from pipelines.landing.cleaning import clean_brand, clean_categories, clean_description, clean_price, clean_title
from pipelines.landing.readers import Landed
from pipelines.landing.readers.rows import any_longer
from schemas.items import ITEMS

_CLEANED = {
    "title": "string", "brand": "string", "categories": "array<string>", "price": "double", "description": "string",
    "text": "string",
}  # fmt: skip


def item_text(
    *,
    item_id: str,
    title: str | None,
    brand: str | None,
    categories: Sequence[str],
    price: float | None,
    description: str | None,
    description_words: int,
) -> str:
    """What encoders read about one item, from its own cleaned fields only; ``item <id>`` where there are none.

    Example: ``Warm Ukulele. Brand: Tern. Categories: Music > Ukuleles. Price: 49.99. A small ukulele.``

    Args:
        description_words: the description is cut after so many words.
    """
    parts = [title] if title else []
    if brand:
        parts.append(f"Brand: {brand}")
    if categories:
        parts.append(f"Categories: {' > '.join(categories)}")
    if price is not None:
        parts.append(f"Price: {price:.2f}")
    words = (description or "").split()
    if words:
        parts.append(" ".join(words[:description_words]))
    if not parts:
        return f"item {item_id}"
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


def check_items(landed: Landed, description_words: int, max_text_chars: int) -> DataFrame:
    """Clean every landed line, find its first problem, and number the copies of its item.

    Args:
        description_words: words of a description that go into an item's text.
        max_text_chars: longer texts are cut.

    Returns:
        One row per landed line: `SOURCE_FIELDS`, the columns of the table without ``partition_date``, `cut` (a text was
        too long), `junk_title` (the source has a title, and it is page code), `unread`, and `copy`: null for a row with
        a problem, else 1 for the copy to publish, which is one with a title, then the one with the longest text, then
        of the first file and line.
    """
    most = sf.lit(max_text_chars)
    cut = any_longer(max_text_chars, "title", "brand")
    for name in ("categories", "description"):
        cut |= sf.coalesce(sf.exists(name, lambda text: sf.char_length(text) > most), sf.lit(False))
    frame = landed.frame.withColumns(
        {
            "item_id": sf.trim("item_id"),
            "cut": cut,
            **{name: sf.left(name, most) for name in ("title", "brand")},
            **{name: sf.transform(name, lambda text: sf.left(text, most)) for name in ("categories", "description")},
        }
    )
    frame = with_problems(frame, missing("item_id"))
    kinds = ", ".join(f"{name} {kind}" for name, kind in _CLEANED.items())
    clean = sf.pandas_udf(_cleaner(description_words), kinds)  # type: ignore[call-overload]
    given = ("item_id", "title", "brand", "categories", "price", "description")
    frame = frame.withColumn("_cleaned", clean(sf.struct(*given)))
    has_title = sf.coalesce(sf.trim("title"), sf.lit("")) != ""
    frame = frame.withColumn("junk_title", has_title & sf.col("_cleaned.title").isNull())
    frame = frame.withColumns({name: sf.col(f"_cleaned.{name}") for name in _CLEANED})
    frame = numbered_copies(frame, ITEMS, sf.col("title").isNull(), sf.char_length("text").desc())
    return frame.select(checked_columns(ITEMS, "cut", "junk_title", "unread", "copy"))


def stubs(item_ids: DataFrame) -> DataFrame:
    """Items without metadata, with the text ``item <id>``, for a frame of distinct `item_id`."""
    return item_ids.select(
        "item_id",
        sf.lit(None).cast("string").alias("title"),
        sf.lit(None).cast("string").alias("brand"),
        sf.array().cast("array<string>").alias("categories"),
        sf.lit(None).cast("double").alias("price"),
        sf.lit(None).cast("string").alias("description"),
        sf.concat(sf.lit("item "), sf.col("item_id")).alias("text"),
    )


def _cleaner(description_words: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def clean(items: pd.DataFrame) -> pd.DataFrame:
        rows = [clean_item(*row, description_words=description_words) for row in items.itertuples(index=False)]
        return pd.DataFrame(rows, columns=list(_CLEANED))

    return clean


def clean_item(
    item_id: str | None, title: str | None, brand: str | None, categories: Any, price: Any, description: Any,
    *, description_words: int,
) -> dict[str, Any]:  # fmt: skip
    """The cleaned fields of one item and the text built from them."""
    fields: dict[str, Any] = {
        "title": clean_title(title),
        "brand": clean_brand(brand),
        "categories": clean_categories(categories),
        "price": clean_price(price),
        "description": clean_description(description),
    }
    return {**fields, "text": item_text(item_id=item_id or "", **fields, description_words=description_words)}
