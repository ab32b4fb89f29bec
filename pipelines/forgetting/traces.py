"""Finds a user's rows, also those without the id: requests to language models, answers, vectors, benchmark texts.

Rows are found by joins and deleted by key, so that no id gets into a table's log. Traces are derived from the user's
reviews and preferences; these two tables are emptied last, so that an interrupted run can be repeated.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.delta_tables import read_table, spark_schema, table_exists
from pipelines.forgetting.requests import rows_of_users
from pipelines.forgetting.search import IdSearch, one_column
from pipelines.language.prompts import load_title_prompt
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.language.validation import VERBS
from schemas.erasures import ERASURES, user_key
from schemas.items import ITEMS
from schemas.llm_responses import LLM_RESPONSES
from schemas.measurements import MEASUREMENTS, NEXT_ITEM
from schemas.preference_benchmark import PREFERENCE_BENCHMARK
from schemas.preference_evaluations import PREFERENCE_EVALUATIONS
from schemas.preferences import PREFERENCES
from schemas.quarantine import QUARANTINE
from schemas.review_texts import review_text
from schemas.reviews import REVIEWS
from schemas.table import Table
from schemas.tables import TABLES
from schemas.text_vectors import TEXT_VECTORS, text_hash

_COMPARED_WORDS = 12
_TEXTS = ("preference", "opposite", "latest", "random", "random_opposite")
_FIRST = (LLM_RESPONSES, TEXT_VECTORS, PREFERENCE_EVALUATIONS, PREFERENCE_BENCHMARK)
_LAST = (PREFERENCES, REVIEWS)
_REQUEST = "kind string, messages array<struct<role:string,content:string>>, prompt string, texts array<string>"


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What identifies the rows of some users.

    Args:
        users: ids.
        requests: ledger keys of requests with their words or histories.
        texts: hashes of texts that no other user has written.
        samples: hashes of the ids of benchmark samples about them or with their words.
    """

    users: frozenset[str]
    requests: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()

    def rows(self, frame: DataFrame, table: Table) -> DataFrame | None:
        """The rows of `frame` to delete, with the keys of the users they name in ``_of``; None if there can be none."""
        spark = frame.sparkSession
        nobody = sf.array().cast("array<string>")
        match table.name:
            case LLM_RESPONSES.name:
                known = one_column(spark, self.requests, "request_key")
                return frame.join(known, "request_key", "left_semi").withColumn("_of", nobody)
            case TEXT_VECTORS.name:
                known = one_column(spark, self.texts, "content_hash")
                return frame.join(known, "content_hash", "left_semi").withColumn("_of", nobody)
            case PREFERENCE_EVALUATIONS.name:
                named = frame.withColumn("_of", IdSearch(self.users).keys_of("sample_id"))
                return _either(named, {"sample_id": self.samples})
            case PREFERENCE_BENCHMARK.name:
                return self.of_benchmark(frame)
            case QUARANTINE.name:
                lines = sf.concat_ws("\n", "raw", "row_key")
                return frame.withColumn("_of", IdSearch(self.users).keys_of(lines)).where("size(_of) > 0")
            case MEASUREMENTS.name:
                frame, column = frame.where(sf.col("task") == NEXT_ITEM), "unit_id"
            case _:
                column = "user_id"
        if column not in table.column_names():
            return None
        return rows_of_users(frame, column, self.keys(spark)).withColumn("_of", sf.array(_hash(column)))

    def of_benchmark(self, frame: DataFrame) -> DataFrame:
        """Rows of the preference benchmark that use the users' histories or words."""
        search = IdSearch(self.users)
        named = frame.withColumn("_of", search.keys_of("sample_id")).join(
            self.keys(frame.sparkSession).withColumnRenamed("user_key", "_reader"),
            _hash("history_user_id") == sf.col("_reader"),
            "left",
        )
        named = named.withColumn("_of", sf.array_union("_of", sf.array_compact(sf.array("_reader")))).drop("_reader")
        return _either(named, dict.fromkeys(_TEXTS, self.texts))

    def keys(self, spark: SparkSession) -> DataFrame:
        """Keys of the users, in a column ``user_key``."""
        return one_column(spark, {user_key(user) for user in self.users}, "user_key")


def _either(frame: DataFrame, hashes: Mapping[str, Collection[str]]) -> DataFrame:
    """The rows of `frame` that name a user in ``_of``, or have a text with one of the `hashes` of its column."""
    found = sf.size("_of") > 0
    for number, (column, known) in enumerate(hashes.items()):
        mark = f"_hit{number}"
        marks = one_column(frame.sparkSession, known, f"{mark}_key").withColumn(mark, sf.lit(True))
        frame = frame.join(marks, _hash(column) == sf.col(f"{mark}_key"), "left")
        found |= sf.coalesce(mark, sf.lit(False))
    extra = [name for name in frame.columns if name.startswith("_hit")]
    return frame.where(found).drop(*extra)


def deletion_order() -> list[Table]:
    """The tables in the order of deletion: those found through others first, those that traces come from last."""
    ends = {table.name for table in (*_FIRST, *_LAST, ERASURES)}
    return [*_FIRST, *(table for name, table in TABLES.items() if name not in ends), *_LAST]


def find_traces(
    spark: SparkSession,
    settings: Settings,
    dataset: str,
    users: Collection[str],
    reading: ReviewLineSettings,
    vector_words: int,
) -> Traces:
    """Find the traces of `users` in the current tables.

    They include requests that other users share, which the next run sends again. A vector stays while another user has
    the same text.

    Args:
        users: ids.
        vector_words: number of words after which the stage text_vectors truncates a review.
    """

    def table(contract: Table) -> DataFrame:
        uri = settings.table_uri(dataset, contract.name)
        found = table_exists(spark, uri)
        return read_table(spark, uri) if found else spark.createDataFrame([], spark_schema(contract))

    traces = Traces(users=frozenset(users))
    keys = traces.keys(spark)
    reviews, preferences = table(REVIEWS), table(PREFERENCES)
    own_reviews = rows_of_users(reviews, "user_id", keys)
    own_preferences = rows_of_users(preferences, "user_id", keys)
    others = reviews.join(keys, _hash("user_id") == keys["user_key"], "left_anti")
    written = own_reviews.select("title", "text").distinct().collect()
    had = own_reviews.select("item_id").distinct()
    titles = table(ITEMS).join(had, "item_id", "left_semi").where("title IS NOT NULL").select("title").distinct()
    lines = {line for row in own_preferences.select("preferences").collect() for line in row.preferences}
    requests = _requests(table(LLM_RESPONSES), written, lines, {row.title for row in titles.collect()}, reading)

    body = sf.coalesce(sf.nullif(sf.col("text"), sf.lit("")), "title")
    texts = {text_hash(line) for line in lines} - {
        row.hash
        for row in _hashes(preferences.join(keys, _hash("user_id") == keys["user_key"], "left_anti"), lines).collect()
    }
    bodies = own_reviews.select(body.alias("body")).distinct()
    alike = others.withColumn("body", body).join(bodies, "body", "left_semi")
    shared = alike.select("title", "text").distinct().collect()
    texts |= _vector_hashes(written, vector_words) - _vector_hashes(shared, vector_words)

    traces = replace(traces, requests=frozenset(requests), texts=frozenset(texts))
    benchmark = table(PREFERENCE_BENCHMARK)
    joined = _only_theirs(benchmark, traces)
    traces = replace(traces, texts=traces.texts | joined)
    named = traces.of_benchmark(benchmark).select(_hash("sample_id").alias("hash")).distinct().collect()
    return replace(traces, samples=frozenset(row.hash for row in named))


def _only_theirs(benchmark: DataFrame, traces: Traces) -> frozenset[str]:
    """Hashes of joined preferences that only the users' samples have; other samples may use them as controls."""
    keys = traces.keys(benchmark.sparkSession)
    read = rows_of_users(benchmark, "history_user_id", keys).where(sf.col("preference").contains(". "))
    own = read.select(_hash("preference").alias("hash"))
    others = benchmark.join(keys, _hash("history_user_id") == keys["user_key"], "left_anti")
    of_others = others.select(_hash("preference").alias("hash"))
    return frozenset(row.hash for row in own.subtract(of_others).collect())


def _requests(
    ledger: DataFrame, written: Iterable[Row], lines: set[str], titles: set[str], reading: ReviewLineSettings
) -> set[str]:
    """Keys of requests that contain the users' reviews, lines or titles."""
    words = min(_COMPARED_WORDS, reading.max_review_words)
    beginnings = {
        " ".join(text.split()[:words])
        for review in ((row.text or "").strip() or (row.title or "").strip() for row in written)
        for text in (review, reading.shown(review))
    } - {""}
    asked = sf.from_json("request", _REQUEST)
    content = sf.element_at(asked["messages"], -1)["content"]
    parsed = ledger.select("request_key", "prompt_name", "text", content.alias("said"), asked["prompt"].alias("listed"))
    # The review follows the first colon: "4 stars: ...".
    shown = sf.split(sf.regexp_replace("said", r"^[^:]*:\s*", ""), r"\s+")
    begun = parsed.withColumn("begun", sf.array_join(sf.slice(shown, 1, words), " "))
    of_reviews = begun.join(one_column(ledger.sparkSession, beginnings, "begun"), "begun", "left_semi").collect()
    lines = lines | {line for row in of_reviews for line in _lines_of(row.text)}
    verbs = tuple(f"{verb} " for verb in VERBS.values())
    bare = {" ".join(line.split()).removeprefix(verbs[0]).removeprefix(verbs[1]) for line in lines}
    folded = sf.split(sf.regexp_extract("said", r"\nNew: (.*)$", 1), "; ")
    prompt = load_title_prompt("title_likelihood")
    before = prompt.line.split("{title}")[0]
    starts = {" ".join(title.split()[:n]) for title in titles for n in range(1, len(title.split()) + 1)} | titles
    listed = sf.filter(sf.split("listed", "\n"), lambda one: one.startswith(before))
    named = sf.transform(listed, lambda one: sf.substr(one, sf.lit(len(before) + 1)))
    more = _all_among(parsed.where(sf.col("said").contains("\nNew: ")), folded, bare).union(
        _all_among(parsed.where(sf.size(named) > 1), named, starts)
    )
    return {row.request_key for row in of_reviews} | {row.request_key for row in more.collect()}


def _all_among(parsed: DataFrame, parts: Column, accepted: Collection[str]) -> DataFrame:
    """Keys of the requests whose parts are all accepted."""
    every = parsed.select("request_key", sf.explode(parts).alias("part"))
    other = every.join(one_column(parsed.sparkSession, accepted, "part"), "part", "left_anti")
    return every.select("request_key").distinct().join(other.select("request_key"), "request_key", "left_anti")


def _lines_of(answer: str | None) -> list[str]:
    """The lines in a model's answer about a review; none if it is unusable."""
    try:
        lines = json.loads(answer or "")
    except ValueError:
        return []
    values = lines.values() if isinstance(lines, dict) else ()
    return [line for value in values for line in (value if isinstance(value, list) else [value])]


def _vector_hashes(written: Iterable[Row], words: int) -> set[str]:
    return {text_hash(text) for row in written if (text := review_text(row.title, row.text, words))}


def _hashes(preferences: DataFrame, lines: Collection[str]) -> DataFrame:
    every = preferences.select(sf.explode("preferences").alias("line"))
    every = every.join(one_column(preferences.sparkSession, lines, "line"), "line", "left_semi")
    return every.select(_hash("line").alias("hash")).distinct()


def _hash(column: str) -> Column:
    return sf.sha2(column, 256)
