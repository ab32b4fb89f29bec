"""The table `items`: landed metadata cleaned, de-duplicated, and written as the text that encoders read."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf

from pipelines.landing.cleaning import clean_brand, clean_categories, clean_description, clean_price, clean_title
from pipelines.landing.readers import PLACE, Landed
from pipelines.landing.readers.placed import first_problem, problem, texts_cut
from pipelines.review_rules import MAX_TEXT_CHARS
from schemas.items import ITEMS

_CLEANED = "title string, brand string, categories array<string>, price double, description string, text string"


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


def check_items(landed: Landed, description_words: int, max_text_chars: int = MAX_TEXT_CHARS) -> DataFrame:
    """Every landed line with cleaned columns, the first problem found, and its rank among copies of its item.

    Args:
        description_words: how much of a description goes into an item's text.
        max_text_chars: longer texts are cut.

    Returns:
        One row per landed line: the columns of `PLACE` and of the table without ``partition_date``; `cut`, true where a
        text was too long; `junk_title`, true where the source has a title that is page code; `unread`; and `copy`,
        which is 1 for the winner of an item_id: one with a title, then longest text, then first file and line. `copy`
        counts rows without a problem.
    """
    clean = sf.pandas_udf(_cleaner(description_words), _CLEANED)  # type: ignore[call-overload]
    most, texts, lists = sf.lit(max_text_chars), ("title", "brand"), ("categories", "description")
    long = texts_cut(max_text_chars, *texts)
    for name in lists:
        long = long | sf.coalesce(sf.exists(name, lambda text: sf.char_length(text) > most), sf.lit(False))
    cut = {name: sf.left(name, most) for name in texts}
    cut |= {name: sf.transform(name, lambda text: sf.left(text, most)) for name in lists}
    frame = landed.frame.withColumns({"item_id": sf.trim("item_id"), "cut": long, **cut})
    cleaned = clean("item_id", "title", "brand", "categories", "price", "description")
    absent = (
        sf.coalesce(sf.col("item_id"), sf.lit("")) == "",
        problem("missing_item_id", "item_id is absent or empty; deliver the line again with it"),
    )
    frame = frame.select(
        *(name for name in PLACE if name != "problem"),
        sf.coalesce("problem", first_problem(absent)).alias("problem"),
        "item_id",
        sf.coalesce(sf.trim("title"), sf.lit("")).alias("_title"),
        "unread",
        "cut",
        cleaned.alias("_cleaned"),
    )
    fine = sf.col("problem").isNull()
    copies = Window.partitionBy(fine, "item_id").orderBy(
        sf.col("_cleaned.title").isNull(),
        sf.char_length("_cleaned.text").desc(),
        sf.col("source_file"),
        sf.col("source_line"),
    )
    return frame.select(
        *PLACE,
        "item_id",
        "_cleaned.*",
        "cut",
        ((sf.col("_title") != "") & sf.col("_cleaned.title").isNull()).alias("junk_title"),
        "unread",
        sf.when(fine, sf.row_number().over(copies)).alias("copy"),
    )


def winners(checked: DataFrame) -> DataFrame:
    """The rows of `checked` to publish: valid, and the first of its copies."""
    return checked.where(sf.col("copy") == 1).select(_columns())


def stubs(item_ids: DataFrame) -> DataFrame:
    """Items without metadata: an id and the text ``item <id>``, for a frame of distinct `item_id`."""
    return item_ids.select(
        "item_id",
        sf.lit(None).cast("string").alias("title"),
        sf.lit(None).cast("string").alias("brand"),
        sf.array().cast("array<string>").alias("categories"),
        sf.lit(None).cast("double").alias("price"),
        sf.lit(None).cast("string").alias("description"),
        sf.concat(sf.lit("item "), sf.col("item_id")).alias("text"),
    )


def _columns() -> list[str]:
    return [name for name in ITEMS.column_names() if name != "partition_date"]


def _cleaner(description_words: int) -> Callable[..., pd.DataFrame]:
    def clean(
        item_ids: pd.Series,
        titles: pd.Series,
        brands: pd.Series,
        categories: pd.Series,
        prices: pd.Series,
        descriptions: pd.Series,
    ) -> pd.DataFrame:
        rows = zip(item_ids, titles, brands, categories, prices, descriptions, strict=True)
        return pd.DataFrame([clean_item(*row, description_words=description_words) for row in rows], columns=_FIELDS)

    return clean


_FIELDS = ["title", "brand", "categories", "price", "description", "text"]


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
