"""Runs the stage preference_benchmark: samples of five axes, and probes."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from infra.progress import Progress, phase
from infra.settings import load_settings
from pipelines.gates.ahead import load_ahead
from pipelines.landing.planted_world.truth import read_truth
from pipelines.language.histories import newest_items
from pipelines.publisher import Publisher
from pipelines.spark import stage_session
from pipelines.stages.preference_benchmark import STAGE, PreferenceBenchmarkSettings
from pipelines.steering.histories import SPLITS, History, read_histories
from pipelines.steering.personal import (
    choose_nearest,
    consolidation_samples,
    first_of_each,
    recommendation_samples,
    sentiment_samples,
)
from pipelines.steering.probes import attribute_probes, category_probes
from pipelines.steering.samples import Sample, at_most, benchmark_rows, label_entropy
from pipelines.steering.swapped import Target, like_pool, steering_samples, steering_targets, training_items
from pipelines.steering.vectors import Vectors
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.item_vectors import ITEM_VECTORS
from schemas.items import ITEMS
from schemas.preference_benchmark import COARSE, CONSOLIDATION, FINE, PREFERENCE_BENCHMARK, RECOMMENDATION, SENTIMENT
from schemas.preferences import PREFERENCES
from schemas.review_sentiments import REVIEW_SENTIMENTS
from schemas.sections import stage_settings
from schemas.sequences import SEQUENCES
from schemas.stage_request import StageRequest
from schemas.steering_probes import STEERING_PROBES
from schemas.table import Table
from schemas.text_vectors import TEXT_VECTORS, text_hash


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The tables of vectors, limited to one encoder."""

    spark: SparkSession
    encoder: str
    texts: DataFrame
    items: DataFrame

    def of_texts(self, texts: Iterable[str]) -> Vectors:
        """Vectors of preferences.

        Raises:
            DataError: one is missing.
        """
        return self._vectors(self.texts, TEXT_VECTORS, "content_hash", {text: text_hash(text) for text in texts})

    def of_items(self, items: Iterable[str]) -> Vectors:
        """Vectors of items.

        Raises:
            DataError: one is missing.
        """
        return self._vectors(self.items, ITEM_VECTORS, "item_id", {item: item for item in items})

    def _vectors(self, stored: DataFrame, table: Table, key: str, keys: Mapping[str, str]) -> Vectors:
        wanted = self.spark.createDataFrame(pa.table({key: pa.array(sorted(set(keys.values())), pa.string())}))
        found = stored.where(sf.col("encoder") == sf.lit(self.encoder)).join(wanted, key).select(key, "vector")
        rows = found.toArrow()
        place = {name: row for row, name in enumerate(rows[key].to_pylist())}
        names = sorted(keys)
        missing = [name for name in names if keys[name] not in place]
        if missing:
            raise DataError(
                f"table {table.name} has no vector of encoder {self.encoder!r} for {len(missing)} of {len(names)} "
                f"{'items' if table is ITEM_VECTORS else 'preferences'}, e.g. {missing[0]!r}; run the stage "
                f"{table.name!r} on the same inputs with that encoder"
            )
        flat = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        matrix = np.asarray(flat, dtype=np.float32).reshape(len(place), -1 if len(place) else 0)
        return Vectors(names, matrix[[place[keys[name]] for name in names]])


def benchmark(
    histories: Sequence[History],
    negative: Mapping[str, Iterable[int]],
    stored: Stored,
    chosen: PreferenceBenchmarkSettings,
) -> tuple[list[Sample], Counter[str]]:
    """Samples of all axes and splits.

    Args:
        histories: in the order of user ids.
        negative: positions with a negative review, by user.

    Returns:
        The samples, and the number of targets left out, by axis, split and reason.

    Raises:
        DataError: a preference or an item to be matched has no vector.
    """
    skipped: Counter[str] = Counter()

    def limited(axis: str, found: list[Sample], left_out: Mapping[str, int]) -> list[Sample]:
        kept, over = at_most(found, chosen.max_targets, chosen.seed)
        skipped.update({f"{axis}.{reason}": count for reason, count in (Counter(left_out) + over).items()})
        return kept

    wishes = limited(RECOMMENDATION, *recommendation_samples(histories))
    rejections = limited(SENTIMENT, *sentiment_samples(histories, negative))
    consolidation = limited(CONSOLIDATION, *consolidation_samples(histories))
    seen = training_items(histories) if chosen.unseen_targets else frozenset()
    targets: dict[str, list[Target]] = {}
    for split in SPLITS:
        targets[split], left_out = steering_targets(
            histories,
            split,
            most=chosen.max_targets,
            seed=chosen.seed,
            seen=frozenset() if split == "train" else seen,
        )
        skipped.update({f"{axis}.{split}.{reason}": n for axis in (FINE, COARSE) for reason, n in left_out.items()})
    pools = {split: like_pool(histories, split, most=chosen.max_pool, seed=chosen.seed) for split in SPLITS}
    candidates = {candidate.text for sample in (*wishes, *rejections) for candidate in sample.candidates}
    texts = stored.of_texts(candidates.union(*pools.values()))
    items = stored.of_items(
        {sample.target for sample in (*wishes, *rejections)}.union(
            target.item for of_split in targets.values() for target in of_split
        )
    )
    samples = [*choose_nearest(wishes, texts, items), *consolidation]
    sentiment, repeated = first_of_each(choose_nearest(rejections, texts, items))
    samples += sentiment
    skipped.update({f"{SENTIMENT}.{reason}": count for reason, count in repeated.items()})
    for split in SPLITS:
        swapped, without = steering_samples(
            split,
            targets[split],
            pools[split],
            texts,
            items,
            label_cap=chosen.coarse_label_cap,
            seed=chosen.seed,
        )
        for axis in (FINE, COARSE):
            samples += swapped[axis]
            skipped.update({f"{axis}.{split}.{reason}": count for reason, count in without[axis].items()})
    return samples, skipped


def sample_counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int | float]:
    """Rows per axis and split, the share whose preference occurs in training, and the entropy of labels.

    Args:
        rows: of the table preference_benchmark.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["axis"], row["split"]].append(row)
    counts: dict[str, int | float] = {}
    for (axis, split), group in sorted(groups.items()):
        counts[f"samples.{axis}.{split}"] = len(group)
        if split != "train":
            counts[f"seen_share.{axis}.{split}"] = round(sum(r["seen_in_training"] for r in group) / len(group), 6)
        if axis in (FINE, COARSE):
            entropy, share = label_entropy(row["target_item_id"] for row in group)
            counts[f"label_entropy.{axis}.{split}"] = round(entropy, 6)
            counts[f"label_entropy_share.{axis}.{split}"] = round(share, 6)
            counts[f"effective_labels.{axis}.{split}"] = round(math.exp(entropy), 3)
    return counts


def negative_positions(rows: Iterable[Mapping[str, Any]], histories: Sequence[History]) -> dict[str, list[int]]:
    """Positions of negative reviews by user.

    Args:
        rows: user_id, position and item_id of the negative rows of the table review_sentiments.

    Raises:
        DataError: the history has another item at a row's position.
    """
    items = {history.user_id: history.items for history in histories}
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        user, position = row["user_id"], row["position"]
        if items.get(user, ())[position : position + 1] != (row["item_id"],):
            raise DataError(
                f"table review_sentiments has item {row['item_id']!r} at position {position} of user {user!r}, where "
                "table sequences has another or none; run the stage 'review_sentiments' on these sequences"
            )
        found[user].append(position)
    return found


def _rows(frame: DataFrame, *columns: str) -> list[dict[str, Any]]:
    return frame.select(*columns).toArrow().to_pylist()


def run(request: StageRequest) -> StageReport:
    """Publish the tables preference_benchmark and steering_probes for the request's day.

    Raises:
        DataError: an input table or a vector is missing, or a result fails its gate.
    """
    settings = load_settings()
    chosen = stage_settings(PreferenceBenchmarkSettings, settings, request)
    truth = read_truth(Path(chosen.truth)) if chosen.truth else None
    load_ahead()
    spark = stage_session(request, settings)
    progress = Progress(settings.home, STAGE)
    with Publisher(spark, settings, request) as publisher:
        day = request.partition_date()
        progress.update(0, 3, "reading histories")
        sequences = _rows(publisher.read_day(SEQUENCES), "user_id", "item_ids", "valid_position", "test_position")
        if not sequences:
            raise DataError(f"{request.dataset} has no histories for {day}; run the stage 'sequences' for that day")
        known = publisher.read_day(PREFERENCES).where("status = 'ok'")
        columns = ("user_id", "position", "preferences", "sentiments", "evidence")
        histories = read_histories(sequences, _rows(known, *columns))
        judged = publisher.read_day(REVIEW_SENTIMENTS).where(sf.col("score") < sf.lit(chosen.negative_below))
        negative = negative_positions(_rows(judged, "user_id", "position", "item_id"), histories)
        progress.update(1, 3, f"{len(histories):,} histories")
        stored = Stored(
            spark=spark,
            encoder=request.upstream.get("item_vectors.encoder", chosen.encoder),
            texts=publisher.read(TEXT_VECTORS),
            items=publisher.read(ITEM_VECTORS),
        )
        with phase("making samples") as found:
            samples, skipped = benchmark(histories, negative, stored, chosen)
            rows = benchmark_rows(samples, histories, chosen.seed)
            found |= {"histories": len(histories), "samples": len(rows)}
        progress.update(2, 3, f"{len(rows):,} samples")
        publisher.publish(_frame(spark, rows, PREFERENCE_BENCHMARK), PREFERENCE_BENCHMARK)
        probes = category_probes(_categories(publisher.read(ITEMS), sequences, request), chosen.probe_min_items)
        if truth is not None:
            catalogue = {item for row in sequences for item in row["item_ids"]}
            own = attribute_probes(truth, catalogue, chosen.probe_min_items)
            named = {probe["probe"] for probe in own}
            probes = [*own, *(probe for probe in probes if probe["probe"] not in named)]
        publisher.publish(_frame(spark, probes, STEERING_PROBES), STEERING_PROBES)
        counts = {
            "histories": len(histories),
            "negative_reviews": sum(len(positions) for positions in negative.values()),
            **sample_counts(rows),
            **{f"skipped.{reason}": count for reason, count in sorted(skipped.items())},
            **{f"probes.{kind}": count for kind, count in sorted(Counter(p["kind"] for p in probes).items())},
            **publisher.warning_counts(),
        }
        handoffs = dict(publisher.handoffs)
    progress.update(3, 3, f"{len(rows):,} samples, {len(probes):,} probes")
    return StageReport(stage=STAGE, status="done", handoffs=handoffs, counts=counts)


def _frame(spark: SparkSession, rows: list[dict[str, Any]], table: Table) -> DataFrame:
    """`rows` as a Spark frame without the partition column."""
    schema = pa.schema([field for field in table.arrow_schema() if field.name not in table.partition_by])
    return spark.createDataFrame(pa.Table.from_pylist(rows, schema=schema))


def _categories(
    items: DataFrame, sequences: Iterable[Mapping[str, Any]], request: StageRequest
) -> dict[str, list[str]]:
    """The newest category path known on the request's day of every item of `sequences`."""
    newest = newest_items(items, request.partition_date())
    paths = {row["item_id"]: row["categories"] for row in _rows(newest, "item_id", "categories")}
    return {item: paths.get(item) or [] for row in sequences for item in row["item_ids"]}
