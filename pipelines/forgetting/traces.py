"""What is a user's beside the rows that bear the id: requests to language models, answers, vectors, benchmark texts.

Everything is kept as a hash, because conditions of a DELETE stand in the table's log. Traces are read from the user's
reviews and preferences, so these two tables are emptied last and a broken run can be gone on with.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as sf

from infra.settings import Settings
from pipelines.delta_tables import read_table, spark_schema, table_exists
from pipelines.forgetting.requests import is_of, mentions
from pipelines.language.prompts import load_title_prompt
from pipelines.language.reading import ReviewLineSettings
from pipelines.language.validation import VERBS
from schemas.erasures import ERASURES
from schemas.items import ITEMS
from schemas.llm_responses import LLM_RESPONSES
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
    """Hashes by which rows are known.

    Args:
        users: keys of the users.
        requests: ledger keys of requests made of their words or their histories.
        texts: hashes of texts that nobody else has written.
        samples: hashes of the names of benchmark samples about them or with their words.
    """

    users: frozenset[str]
    requests: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()

    def condition(self, table: Table) -> Column | None:
        """Which rows of `table` are to go; None where a table holds nothing of users."""
        match table.name:
            case LLM_RESPONSES.name:
                return _among(sf.col("request_key"), self.requests)
            case TEXT_VECTORS.name:
                return _among(sf.col("content_hash"), self.texts)
            case PREFERENCE_EVALUATIONS.name:
                return _among(_hash("sample_id"), self.samples) | mentions("sample_id", self.users)
            case PREFERENCE_BENCHMARK.name:
                return self.of_benchmark()
            case QUARANTINE.name:
                return mentions("raw", self.users) | mentions("row_key", self.users)
        return is_of("user_id", self.users) if "user_id" in table.column_names() else None

    def of_benchmark(self) -> Column:
        """Which rows of the preference benchmark read their histories or say their words."""
        found = is_of("history_user_id", self.users) | mentions("sample_id", self.users)
        for name in _TEXTS:
            found |= _among(_hash(name), self.texts)
        return found


def in_order() -> list[Table]:
    """Tables as they are emptied: what is found through others first, what traces are read from last."""
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
    """Look for what is of `users` in the tables as they are now.

    Requests and answers that others would have in the very same words are found, too: the next run asks once more. A
    vector stays while somebody else's text has it.

    Args:
        users: keys.
        vector_words: words after which the stage text_vectors cuts a review.
    """

    def table(contract: Table) -> DataFrame:
        uri = settings.table_uri(dataset, contract.name)
        found = table_exists(spark, uri)
        return read_table(spark, uri) if found else spark.createDataFrame([], spark_schema(contract))

    theirs = is_of("user_id", users)
    reviews, preferences = table(REVIEWS), table(PREFERENCES)
    written = reviews.where(theirs).select("title", "text").distinct().collect()
    had = reviews.where(theirs).select("item_id").distinct()
    titles = table(ITEMS).join(had, "item_id", "left_semi").where("title IS NOT NULL").select("title").distinct()
    lines = {line for row in preferences.where(theirs).select("preferences").collect() for line in row.preferences}
    requests = _requests(table(LLM_RESPONSES), written, lines, {row.title for row in titles.collect()}, reading)

    body = sf.coalesce(sf.nullif(sf.col("text"), sf.lit("")), "title")
    texts = {text_hash(line) for line in lines} - {
        row.hash for row in _hashes(preferences.where(~theirs), lines).collect()
    }
    bodies = reviews.where(theirs).select(body.alias("body")).distinct()
    others = reviews.where(~theirs).withColumn("body", body)
    shared = others.join(bodies, "body", "left_semi").select("title", "text").distinct().collect()
    texts |= _vector_hashes(written, vector_words) - _vector_hashes(shared, vector_words)

    traces = Traces(users=frozenset(users), requests=frozenset(requests), texts=frozenset(texts))
    benchmark = table(PREFERENCE_BENCHMARK)
    joined = _only_theirs(benchmark, traces)
    traces = Traces(**{**vars(traces), "texts": traces.texts | joined})
    named = benchmark.where(traces.of_benchmark()).select(_hash("sample_id").alias("hash")).distinct().collect()
    return Traces(**{**vars(traces), "samples": frozenset(row.hash for row in named)})


def _only_theirs(benchmark: DataFrame, traces: Traces) -> frozenset[str]:
    """Joined preferences of their samples, which stand as a control on samples of others."""
    theirs = is_of("history_user_id", traces.users) & sf.col("preference").contains(". ")
    own = benchmark.where(theirs).select(_hash("preference").alias("hash"))
    of_others = benchmark.where(~is_of("history_user_id", traces.users)).select(_hash("preference").alias("hash"))
    return frozenset(row.hash for row in own.subtract(of_others).collect())


def _requests(
    ledger: DataFrame, written: Iterable[Row], lines: set[str], titles: set[str], reading: ReviewLineSettings
) -> set[str]:
    """Keys of requests that show their reviews, fold their lines, or list their titles."""
    words = min(_COMPARED_WORDS, reading.max_review_words)
    beginnings = {
        " ".join(text.split()[:words])
        for review in ((row.text or "").strip() or (row.title or "").strip() for row in written)
        for text in (review, reading.shown(review))
    } - {""}
    asked = sf.from_json("request", _REQUEST)
    content = sf.element_at(asked["messages"], -1)["content"]
    parsed = ledger.select("request_key", "prompt_name", "text", content.alias("said"), asked["prompt"].alias("listed"))
    # What was shown follows the first colon: "4 stars: ...".
    shown = sf.split(sf.regexp_replace("said", r"^[^:]*:\s*", ""), r"\s+")
    of_reviews = parsed.where(_within(sf.array_join(sf.slice(shown, 1, words), " "), beginnings)).collect()
    lines = lines | {line for row in of_reviews for line in _lines_of(row.text)}
    verbs = tuple(f"{verb} " for verb in VERBS.values())
    bare = {" ".join(line.split()).removeprefix(verbs[0]).removeprefix(verbs[1]) for line in lines}
    folded = sf.split(sf.regexp_extract("said", r"\nNew: (.*)$", 1), "; ")
    prompt = load_title_prompt("title_likelihood")
    before = prompt.line.split("{title}")[0]
    starts = {" ".join(title.split()[:n]) for title in titles for n in range(1, len(title.split()) + 1)} | titles
    listed = sf.filter(sf.split("listed", "\n"), lambda one: one.startswith(before))
    named = sf.transform(listed, lambda one: sf.substr(one, sf.lit(len(before) + 1)))
    more = parsed.where(
        (sf.col("said").contains("\nNew: ") & sf.forall(folded, lambda one: _within(one, bare)))
        | ((sf.size(named) > 1) & sf.forall(named, lambda one: _within(one, starts)))
    )
    return {row.request_key for row in of_reviews} | {row.request_key for row in more.collect()}


def _lines_of(answer: str | None) -> list[str]:
    """Lines that a model gave for a review; none from an answer of no use."""
    try:
        said = json.loads(answer or "")
    except ValueError:
        return []
    values = said.values() if isinstance(said, dict) else ()
    return [line for value in values for line in (value if isinstance(value, list) else [value])]


def _vector_hashes(written: Iterable[Row], words: int) -> set[str]:
    return {text_hash(text) for row in written if (text := review_text(row.title, row.text, words))}


def _hashes(preferences: DataFrame, lines: Collection[str]) -> DataFrame:
    every = preferences.select(sf.explode("preferences").alias("line")).where(_within(sf.col("line"), lines))
    return every.select(_hash("line").alias("hash")).distinct()


def _hash(column: str) -> Column:
    return sf.sha2(column, 256)


def _within(value: Column, accepted: Collection[str]) -> Column:
    return value.isin(sorted(accepted)) if accepted else sf.lit(False)


def _among(value: Column, hashes: Collection[str]) -> Column:
    return sf.coalesce(_within(value, hashes), sf.lit(False))
