"""Project what the language model would cost for all reviews, from a run on some users.

Requests and tokens come from the ledger (`llm_responses`), the reviews behind them from the users of that run. Measure
on a data set's first partition: later ones request only what is new. Tokens are those of the measured model; another
tokenizer differs by some tens of percent, and a reasoning model puts out many times as many.

The figures for a day assume that each new review is of another user: it is read, refolds at most one summary, and the
titles near it are scored again. So the day is an upper bound. Requests that grow with the catalogue (descriptions of
items, the likelihood of a title alone) are sent once an item and left out. Batches cost less, but titles cannot be
scored in batches.
"""

import argparse
import datetime as dt
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from infra.commands.terminal import command
from infra.settings import Settings, load_settings
from pipelines.language.prompts import load_title_prompt
from pipelines.language.review_settings import ReviewLineSettings
from pipelines.stages.denoised_sequences import DenoisedSequencesSettings
from pipelines.stages.review_summaries import ReviewSummariesSettings
from schemas.errors import DataError
from schemas.names import DATASET, DAY
from schemas.sections import stage_settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

READ, FOLD, SCORE = "preferences", "review_summaries", "denoised_sequences"
_TOKENS = ("tokens_in", "constant", "tokens_out")


def prompts_of(settings: Settings) -> dict[str, str]:
    """Names of the stages' prompts.

    Raises:
        SettingError: a setting of one of the stages is wrong.
    """
    return {
        READ: stage_settings(ReviewLineSettings, settings).prompt,
        FOLD: stage_settings(ReviewSummariesSettings, settings).prompt,
        SCORE: stage_settings(DenoisedSequencesSettings, settings).prompt,
    }


def measure(spark: "SparkSession", settings: Settings, dataset: str, day: dt.date) -> "dict[str, Row]":
    """Requests of each stage up to `day`, with the newest model and version of its prompt.

    Returns:
        By stage: model, requests, reviews, and means per request of tokens_in, tokens_out and constant (the part of
        tokens_in that is equal in every request: system text and examples, by their share of the characters).

    Raises:
        DataError: a table is missing, or no user has requests on `day`.
    """
    from pyspark.sql import Row
    from pyspark.sql import functions as sf

    from pipelines.day_states import read_day
    from pipelines.delta_tables import read_table

    def table(name: str) -> "DataFrame":
        return read_table(spark, settings.table_uri(dataset, name))

    prompts = prompts_of(settings)
    bare = load_title_prompt(prompts[SCORE]).render((), "").prompt
    alone = sf.get_json_object("request", "$.prompt").eqNullSafe(bare)
    turns = sf.from_json(sf.get_json_object("request", "$.messages"), "array<struct<content:string>>")["content"]
    changing = sf.coalesce(sf.length(sf.element_at(turns, -1)) / sf.length(sf.array_join(turns, "")), sf.lit(1))
    sent = table("llm_responses").where((sf.col("partition_date") <= sf.lit(day)) & ~alone)
    requests = sf.count_distinct("request_key")
    rows = sent.groupBy("prompt_name", "prompt_version", "model").agg(
        requests.alias("requests"),
        (sf.sum("prompt_tokens") / requests).alias("tokens_in"),
        (sf.sum(sf.col("prompt_tokens") * (1 - changing)) / requests).alias("constant"),
        (sf.sum("completion_tokens") / requests).alias("tokens_out"),
        sf.max("answered_at").alias("at"),
    )
    newest = {row.prompt_name: row for row in rows.orderBy("at").collect()}
    found = {}
    for stage in (stage for stage, prompt in prompts.items() if prompt in newest):
        of_day = read_day(spark, settings.table_uri(dataset, SCORE if stage == SCORE else READ), day)
        size = sf.size("item_ids") if stage == SCORE else sf.lit(1)
        reviews = of_day.where("status != 'not_asked'").agg(sf.sum(size).alias("n")).collect()[0].n
        if reviews:
            found[stage] = Row(**newest[prompts[stage]].asDict(), reviews=reviews)
    if not found:
        raise DataError(f"{dataset}: no user has requests on {day}; give the --partition of such a run")
    return found


def projection(
    found: "Mapping[str, Row]", reviews: Mapping[str, float], prices: Mapping[str, tuple[float, float]], discount: float
) -> list[str]:
    """Lines of a table: requests, millions of tokens and costs for `reviews`, per stage and in total."""
    costs = [f"{name}{mode}" for name in prices for mode in ("", ", batch")]
    lines = [_row("stage", ["requests", "M tokens in", "constant", "M tokens out", *costs])]
    total = [0.0] * (4 + len(costs))
    for stage, row in found.items():
        requests = row.requests / row.reviews * reviews[stage]
        values = [requests, *(requests * row[name] / 1e6 for name in _TOKENS)]
        for price_in, price_out in prices.values():
            cost = values[1] * price_in + values[3] * price_out
            values += [cost, cost if stage == SCORE else cost * (1 - discount)]
        total = [a + b for a, b in zip(total, values, strict=True)]
        lines.append(_row(stage, values))
    return [*lines, _row("total", total)]


def _row(first: str, cells: Sequence[str | float]) -> str:
    shown = (c if isinstance(c, str) else f"{c:,.2f}" if c < 1000 else f"{c:,.0f}" for c in cells)
    return f"  {first:<20}" + "".join(f"{cell:>15}" for cell in shown)


def report(spark: "SparkSession", settings: Settings, given: argparse.Namespace, day: dt.date) -> str:
    """The measured figures, and the projected costs of a first pass and of a day."""
    from pyspark.sql import functions as sf

    from pipelines.day_states import read_day

    new = given.new_reviews_per_day
    found = measure(spark, settings, given.dataset, day)
    positions = read_day(spark, settings.table_uri(given.dataset, READ), day)
    mean = (sf.count("*") / sf.count_distinct("user_id")).alias("mean")
    each = given.reviews_per_user or positions.agg(mean).collect()[0]["mean"]
    near = min(each, stage_settings(DenoisedSequencesSettings, settings).context + 1)
    # A new review folds its chunk once, however few chunks the first pass has.
    folds = new * _per_review(found, READ) / (_per_review(found, FOLD) or 1.0)
    prices = dict(given.price) or {"profile": (settings.llm.price_in, settings.llm.price_out)}
    tables = [
        f"Per request, in tokens of {', '.join(sorted({row.model for row in found.values()}))}",
        _row("stage", ["requests", "per review", "tokens in", "constant", "tokens out"]),
        *(_row(s, [r.requests, r.requests / r.reviews, *(r[name] for name in _TOKENS)]) for s, r in found.items()),
        "  constant: equal beginning of all prompts; cheaper where prompts are cached, which these costs ignore",
        f"\nFirst pass: {given.users:,} users of {each:.1f} reviews",
        *projection(found, dict.fromkeys(found, given.users * each), prices, given.batch_discount),
        f"\nA day of {new:,} new reviews, at most",
        *projection(found, {READ: new, FOLD: folds, SCORE: new * near}, prices, given.batch_discount),
    ]
    return "\n".join(tables)


def _per_review(found: "Mapping[str, Row]", stage: str) -> float:
    return found[stage].requests / found[stage].reviews if stage in found else 0.0


def price(text: str) -> tuple[str, tuple[float, float]]:
    """Parse ``small=0.05:0.40``: a name with its prices of tokens in and out."""
    if not (found := re.fullmatch(r"(.+)=([\d.]+):([\d.]+)", text)):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=IN:OUT, e.g. small=0.05:0.40")
    return found[1], (float(found[2]), float(found[3]))


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, project and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=DATASET, required=True, help="name of the registered data set")
    parser.add_argument("--partition", type=DAY, required=True, help="day of the measured run, e.g. 2026-01-31")
    parser.add_argument("--users", type=int, required=True, help="users to project to")
    parser.add_argument("--reviews-per-user", type=float, help="default: the mean of the data set's histories")
    parser.add_argument("--new-reviews-per-day", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--price", type=price, action="append", default=[], help="NAME=IN:OUT per million; repeatable")
    parser.add_argument("--batch-discount", type=float, default=0.5, help="share that a batch is cheaper by")
    given = parser.parse_args(argv)
    settings, day = load_settings(), dt.date.fromisoformat(given.partition)
    load_title_prompt(prompts_of(settings)[SCORE])
    from pipelines.spark import tool_session

    with tool_session("cost_projection", settings, given.dataset) as spark:
        text = report(spark, settings, given, day)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
