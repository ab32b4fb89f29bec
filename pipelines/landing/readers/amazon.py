"""Amazon review and metadata files of the 2014, 2018 and 2023 releases."""

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as sf

from pipelines.landing.csv_rows import UTF_8, Layout
from pipelines.landing.readers.json_lines import (
    BOOLEAN,
    ID,
    LIST,
    LIST_OF_TEXTS,
    NUMBER,
    TEXT,
    field,
    first_field,
    misfits,
    read_json_lines,
    wrong_types,
)
from pipelines.landing.readers.rows import (
    ITEM_FIELDS,
    REVIEW_FIELDS,
    Landed,
    instant,
    problem,
)
from pipelines.landing.readers.values import number

_Types = dict[str, tuple[str, ...]]

_DATED_BY_DAY: _Types = {
    "reviewerID": ID, "asin": ID, "overall": NUMBER, "unixReviewTime": NUMBER, "reviewTime": TEXT, "summary": TEXT,
    "reviewText": TEXT,
}  # fmt: skip
_REVIEW_TYPES: dict[str, _Types] = {
    "amazon-2014": {**_DATED_BY_DAY, "helpful": LIST},
    "amazon-2018": {**_DATED_BY_DAY, "vote": NUMBER, "verified": BOOLEAN},
    "amazon-2023": {
        "user_id": ID, "parent_asin": ID, "asin": ID, "rating": NUMBER, "timestamp": NUMBER, "title": TEXT,
        "text": TEXT, "helpful_vote": NUMBER, "verified_purchase": BOOLEAN,
    },
}  # fmt: skip
_WORDS = (*TEXT, *LIST_OF_TEXTS)
_ITEM_IDS: dict[str, _Types] = {
    "amazon-2014": {"asin": ID},
    "amazon-2018": {"asin": ID},
    "amazon-2023": {"parent_asin": ID, "asin": ID},
}
_ITEM_TYPES: dict[str, _Types] = {
    "amazon-2014": {
        "title": _WORDS, "brand": _WORDS, "categories": _WORDS, "price": NUMBER, "description": _WORDS,
    },
    "amazon-2018": {
        "title": _WORDS, "brand": _WORDS, "category": _WORDS, "price": NUMBER, "description": _WORDS,
    },
    "amazon-2023": {
        "title": _WORDS, "store": _WORDS, "main_category": _WORDS, "categories": _WORDS, "price": NUMBER,
        "description": _WORDS, "features": _WORDS, "details": ("OBJECT", "STRING"),
    },
}  # fmt: skip


def _votes(text: Column) -> Column:
    """A count such as ``5`` or ``1,234``; null for any other use of a comma, which may be a decimal one."""
    grouped = text.rlike(r"^[0-9]{1,3}(,[0-9]{3})+$")
    return number(sf.when(grouped, sf.translate(text, ",", "")).otherwise(text)).try_cast("int")


def _strings(name: str) -> Column:
    """Strings of a field that holds one, a list, or a list of lists, which is flattened in order."""
    value = field(name, "variant")
    kind = sf.schema_of_variant(value)
    listed = sf.when(kind.startswith("ARRAY<ARRAY"), sf.flatten(field(name, "array<array<string>>"))).when(
        kind.startswith("ARRAY"), field(name, "array<string>")
    )
    single = sf.when(kind.rlike(f"^({'|'.join(TEXT)})"), sf.array(field(name, "string")))
    return sf.coalesce(listed, single, sf.array().cast("array<string>"))


def _words(name: str) -> Column:
    """A field that holds a text, a number, or a list of texts, as one text; null for anything else."""
    return sf.nullif(sf.array_join(_strings(name), " "), sf.lit(""))


def _first_id(*names: str) -> Column:
    """The first of several ids that is not empty."""
    return sf.coalesce(*(sf.nullif(sf.trim(field(name, "string")), sf.lit("")) for name in names))


def _day(text: Column) -> Column:
    """A timestamp from ``02 8, 2016`` (month, day, year), midnight UTC."""
    return sf.try_to_timestamp(sf.regexp_replace(text, r"\s+", " "), sf.lit("MM d, yyyy"))


def read_reviews(spark: SparkSession, path: str, release: str, max_line_bytes: int, layout: Layout = UTF_8) -> Landed:
    """Every line of a review file.

    2014 and 2018 have days (`unixReviewTime`, else `reviewTime`); 2023 has milliseconds, and its item id is
    `parent_asin`, else `asin`.
    """
    landed = read_json_lines(spark, path, max_line_bytes, layout)
    if release == "amazon-2023":
        seconds = first_field(("timestamp", "sort_timestamp"), "string")
        columns = {
            "user_id": field("user_id", "string"),
            "item_id": _first_id("parent_asin", "asin"),
            "rating": number(field("rating", "string")),
            "reviewed_at": instant(number(seconds)),
            "date_raw": seconds,
            "title": field("title", "string"),
            "text": field("text", "string"),
            "verified": field("verified_purchase", "boolean"),
            "helpful_votes": _votes(first_field(("helpful_vote", "helpful_votes"), "string")),
        }
    else:
        seconds, day = field("unixReviewTime", "string"), field("reviewTime", "string")
        votes = field("helpful[0]", "string") if release == "amazon-2014" else field("vote", "string")
        columns = {
            "user_id": field("reviewerID", "string"),
            "item_id": field("asin", "string"),
            "rating": number(field("overall", "string")),
            "reviewed_at": sf.when(seconds.isNotNull(), instant(number(seconds))).otherwise(_day(day)),
            "date_raw": sf.coalesce(seconds, day),
            "title": field("summary", "string"),
            "text": field("reviewText", "string"),
            "verified": field("verified", "boolean"),
            "helpful_votes": _votes(votes),
        }
    rating = "rating" if release == "amazon-2023" else "overall"
    unreadable = field(rating, "string").isNotNull() & columns["rating"].isNull()
    not_a_number = problem(
        "wrong_type", sf.concat(sf.lit(f"{rating} is no number: "), sf.left(field(rating, "string"), sf.lit(40)))
    )
    return landed.completed(REVIEW_FIELDS, columns, wrong_types(_REVIEW_TYPES[release]), (unreadable, not_a_number))


def read_items(spark: SparkSession, path: str, release: str, max_line_bytes: int, layout: Layout = UTF_8) -> Landed:
    """Every line of a metadata file.

    Only ids must have the right type. Another field of a wrong type is null and named in `unread`; the item is kept.
    """
    landed = read_json_lines(spark, path, max_line_bytes, layout)
    if release == "amazon-2023":
        listed = _strings("categories")
        columns = {
            "item_id": _first_id("parent_asin", "asin"),
            "title": _words("title"),
            "brand": sf.coalesce(field("details.Brand", "string"), _words("store")),
            "categories": sf.when(sf.size(listed) > 0, listed).otherwise(
                sf.array_compact(sf.array(_words("main_category")))
            ),
            "price": field("price", "string"),
            "description": sf.concat(_strings("features"), _strings("description")),
        }
    else:
        columns = {
            "item_id": field("asin", "string"),
            "title": _words("title"),
            "brand": _words("brand"),
            "categories": _strings("categories" if release == "amazon-2014" else "category"),
            "price": field("price", "string"),
            "description": _strings("description"),
        }
    columns["unread"] = sf.nullif(misfits(_ITEM_TYPES[release]), sf.lit(""))
    return landed.completed(ITEM_FIELDS, columns, wrong_types(_ITEM_IDS[release]))
