"""Does SASRec learn more from histories that the denoiser corrected than from the raw ones?

A planted world goes through ingest, sequences and denoised_sequences against the flawless scripted model, which is not
told of the held-out positions (or, with ``--endpoint embedded``, against the endpoint of the environment's settings).
SASRec is then trained, by the loop that Ray Train's workers run, on versions of the same histories that differ before
the validation target only:

    raw               as bought
    stage, cap N      as the stage corrects them, with at most N edits per history (0: no limit)
     removed          the same positions are left out instead
     sampled          the same positions get one of the 20 best items by co-occurrence, by chance
     not held out     without the edits that put in what the user buys in a held-out position; shows what these do
     random           as many random positions get random items: the control
    TF-IDF            no language model: the positions least like the rest by TF-IDF of item texts, and the items that
                      were bought most with the rest
    truth             every noise position holds the item that the taste would have chosen, where the catalogue has it

Judged are users whose test target is no noise, over the full catalogue: first with each version's own history as
input, as evaluation and serving would have it, then with the raw history as everybody's input, which leaves only what
was learnt. Spreads are standard deviations over training seeds; intervals are 95 % paired bootstraps over users of the
difference to raw, averaged over seeds. In the table of edits "held out" counts those that put in what the user buys in
a held-out position, and "kinds" is the number of equally frequent items that would be as diverse as those put in.

    python -m tests.bench.bench_corrections --users 1200 --items 200 --seeds 3
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import SparkSession

import tests.conftest  # noqa: F401  environment variables of all tests
from infra.settings import Settings, SparkSettings, load_settings
from pipelines import delta_tables, denoised_sequences
from pipelines.landing.planted_world import WorldSettings
from pipelines.language.noise import mark
from pipelines.language.replacements import suggest_replacements
from pipelines.recovery.baselines import cosine_scores
from pipelines.recovery.noise import scored_positions
from pipelines.spark import spark_session
from pipelines.stages.denoised_sequences import PERCENTILE, DenoisedSequencesSettings
from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue, read_catalogue
from ray_jobs.data.corrections import replace_suspects
from ray_jobs.data.histories import Histories, read_histories
from ray_jobs.data.tables import read_table
from ray_jobs.data.training_data import TrainingData
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.evaluation.metrics import bootstrap, per_user
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.train import make_plan
from ray_jobs.training.loop import fit
from schemas.handoff import StageReport
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest
from tests.pipelines.language.planted_chain import Chain, run_chain

RAW = "raw"
METRICS = ("recall_10", "ndcg_10")
INPUTS = ("own history", "raw history")
# By (user, position) the item to put there; None leaves the position out.
Edits = Mapping[tuple[str, int], str | None]
SAMPLED = 20


class CappedStage:
    """The stage denoised_sequences with a cap of its own; what it asked before comes from the ledger."""

    __name__ = "pipelines.denoised_sequences"

    def __init__(self, max_edits: int) -> None:
        self.max_edits = max_edits

    def run(self, request: StageRequest) -> StageReport:
        overrides = {**request.overrides, "denoised_sequences.max_edits": self.max_edits}
        self.report = denoised_sequences.run(replace(request, overrides=overrides))
        return self.report

    def table(self) -> pa.Table:
        handoff = self.report.handoffs["denoised_sequences"]
        return read_table(handoff.uri, handoff.version)


def edited(sequences: pa.Table, edits: Edits) -> pa.Table:
    """What `read_histories` reads of `sequences`, edited; targets move with what is left out before them."""
    rows = sequences.select(["user_id", "item_ids", "valid_position", "test_position"])
    found = []
    for row in rows.to_pylist():
        items = [edits.get((row["user_id"], position), item) for position, item in enumerate(row["item_ids"])]
        row["item_ids"] = [item for item in items if item is not None]
        for name in ("valid_position", "test_position"):
            if row[name] is not None:
                row[name] -= items.count(None)
        found.append(row)
    return pa.Table.from_pylist(found, rows.schema)


def differing(sequences: pa.Table, version: pa.Table) -> Edits:
    columns = (sequences["user_id"], sequences["item_ids"], version["item_ids"])
    pairs = zip(*(column.to_pylist() for column in columns), strict=True)
    return {
        (user, position): after
        for user, old, new in pairs
        for position, (before, after) in enumerate(zip(old, new, strict=True))
        if before != after
    }


def true_edits(chain: Chain, catalogue: Catalogue) -> Edits:
    return {
        (user, position): true.meant
        for user, history in chain.warehouse.histories.items()
        for position, true in enumerate(history.truth[: history.end])
        if true.is_noise and true.meant in catalogue.index
    }


def random_edits(chain: Chain, catalogue: Catalogue, count: int, seed: int) -> Edits:
    """Any open position, any item that the user has in none."""
    rng = random.Random(f"bench_corrections/{seed}")
    histories = chain.warehouse.histories
    places = [(user, position) for user in sorted(histories) for position in range(histories[user].end)]
    edits: dict[tuple[str, int], str] = {}
    owned = {user: {true.item_id for true in history.truth[: history.end]} for user, history in histories.items()}
    for user, position in rng.sample(places, count):
        item = rng.choice([item for item in catalogue.item_ids if item not in owned[user]])
        owned[user].add(item)
        edits[user, position] = item
    return edits


def sampled_edits(spark: SparkSession, sequences_uri: str, places: Edits, seed: int) -> Edits:
    rng = random.Random(f"bench_corrections/sampled/{seed}")
    suspects = spark.createDataFrame(sorted(places), "user_id string, position int")
    ranked = suggest_replacements(delta_tables.read_table(spark, sequences_uri), suspects, SAMPLED).collect()
    candidates: dict[tuple[str, int], list[str]] = {}
    for row in sorted(ranked):
        candidates.setdefault((row.user_id, row.position), []).append(row.replacement)
    return {place: rng.choice(items) for place, items in candidates.items()}


def tfidf_edits(spark: SparkSession, chain: Chain, sequences_uri: str, share: float) -> Edits:
    positions = scored_positions(chain.warehouse.denoised, chain.warehouse.histories)
    scores = cosine_scores(positions, chain.warehouse.histories, chain.warehouse.texts)
    rows = [(p.user_id, p.position, score, 0.0) for p, score in zip(positions, scores, strict=True)]
    scored = spark.createDataFrame(rows, "user_id string, position int, score double, uncertainty double")
    marked, _ = mark(scored, DenoisedSequencesSettings(rule=PERCENTILE, suspect_share=share, max_edits=0))
    sequences = delta_tables.read_table(spark, sequences_uri)
    found = suggest_replacements(sequences, marked.where("suspect").select("user_id", "position"))
    return {(row.user_id, row.position): row.replacement for row in found.collect()}


def quality(chain: Chain, edits: Edits) -> dict[str, Any]:
    """What is true of edits, by the truth; shares of edits; recall is of noise in open positions."""
    histories, size = chain.warehouse.histories, max(1, len(edits))
    assert all(position < histories[user].end for user, position in edits), "held-out targets are never edited"
    noise = sum(true.is_noise for history in histories.values() for true in history.truth[: history.end])
    hits = suits = meant = 0
    for (user, position), item in edits.items():
        true = histories[user].truth[position]
        hits += true.is_noise
        if item is not None:
            meant += true.meant == item
            suits += chain.truth.match(true.taste, item) > 0
    counts = np.array(list(Counter(item for item in edits.values() if item is not None).values()))
    shares = counts / counts.sum()
    return {
        "edits": len(edits),
        "precision": hits / size,
        "recall": hits / max(1, noise),
        "suits": suits / size,
        "meant": meant / size,
        "held out": sum(is_held_out(chain, user, item) for (user, _), item in edits.items()),
        "kinds": float(np.exp(-(shares * np.log(shares)).sum())) if len(counts) else 0.0,
    }


def is_held_out(chain: Chain, user: str, item: str | None) -> bool:
    history = chain.warehouse.histories[user]
    return item in {later.item_id for later in history.truth[history.end :]}


def ranked(recommender: Any, inputs: Mapping[str, Histories], judged: set[str]) -> dict[str, dict[str, Any]]:
    """Per input the metrics of every judged user, in the order of users."""
    found = {}
    for name, histories in inputs.items():
        result = evaluate(recommender, histories, ("test",))[0]
        kept = [histories.user_ids[int(user)] in judged for user in result.examples.users]
        found[name] = per_user(result.ranks[kept])
    return found


def trained(catalogue: Catalogue, histories: Histories, settings: SASRecSettings) -> tuple[SASRec, int]:
    plan = make_plan("sasrec", SASRec(settings, catalogue), TrainingData(catalogue, histories, ""))
    recommender: Any = plan.build()
    state = fit(recommender, InMemoryExamples(plan.train), InMemoryExamples(plan.valid))
    recommender.load_trained_state(state.best)
    return recommender, state.best_epoch


def run_world(given: argparse.Namespace, root: Path) -> tuple[Chain, pa.Table, Catalogue, dict[str, Edits]]:
    """The chain's tables, and the edits of every version of the histories."""
    jars = load_settings().spark.jars_dir
    spark = spark_session("bench", Settings(home=str(root), spark=SparkSettings(driver_memory="1g", jars_dir=jars)))
    stages = [CappedStage(cap) for cap in given.max_edits]
    world = WorldSettings(users=given.users, items=given.items, noise=given.noise, seed=given.world_seed)
    chain = run_chain(
        spark,
        jars,
        root,
        world,
        stages,
        scripted=given.endpoint == "scripted",
        foresees=False,
        denoised_sequences__contexts=given.contexts,
        denoised_sequences__candidates=given.candidates,
    )
    uri = chain.stages["sequences"].handoffs["sequences"].uri
    sequences = read_table(uri)
    catalogue = read_catalogue(sequences, read_table(chain.stages["ingest"].handoffs["items"].uri))
    versions: dict[str, Edits] = {RAW: {}}
    for stage in stages:
        name = f"stage, cap {stage.max_edits}"
        corrected = replace_suspects(sequences, stage.table())
        edits = differing(sequences, corrected)
        assert edited(sequences, edits)["item_ids"].equals(corrected["item_ids"])
        versions[name] = edits
    versions[f"{name}, removed"] = dict.fromkeys(edits)
    versions[f"{name}, sampled"] = sampled_edits(spark, uri, edits, given.world_seed)
    versions[f"{name}, not held out"] = {p: item for p, item in edits.items() if not is_held_out(chain, p[0], item)}
    versions[f"{name}, random"] = random_edits(chain, catalogue, len(edits), given.world_seed)
    versions["TF-IDF"] = tfidf_edits(spark, chain, uri, given.tfidf_share)
    versions["truth"] = true_edits(chain, catalogue)
    spark.stop()
    return chain, sequences, catalogue, versions


def measure(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    started = time.monotonic()
    chain, sequences, catalogue, versions = run_world(given, root)
    histories = {name: read_histories(edited(sequences, edits), catalogue) for name, edits in versions.items()}
    judged = {
        user
        for user, history in chain.warehouse.histories.items()
        if history.end < len(history.truth) and not history.truth[-1].is_noise
    }
    print(
        f"{len(histories[RAW])} histories of {sum(map(len, histories[RAW].items))} positions, {len(catalogue)} items, "
        f"{len(judged)} users judged; HTTP calls {dict(chain.calls)}; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    popularity = Popularity(PopularitySettings(), catalogue)
    popularity.fit_counts(histories[RAW])
    baseline = ranked(popularity, {INPUTS[0]: histories[RAW]}, judged)[INPUTS[0]]
    report: dict[str, Any] = {
        "settings": {name: value for name, value in vars(given).items() if name != "out"},
        "judged": len(judged),
        "edits": {name: quality(chain, edits) for name, edits in versions.items()},
        "popularity": {metric: float(baseline[metric].mean()) for metric in METRICS},
    }
    settings = stage_settings(SASRecSettings, chain.settings)
    if given.epochs:
        settings = replace(settings, epochs=given.epochs)
    every: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in histories}
    best_epochs: dict[str, list[int]] = {name: [] for name in histories}
    for seed in range(given.seeds):
        for name, own in histories.items():
            recommender, epoch = trained(catalogue, own, replace(settings, seed=seed))
            every[name].append(ranked(recommender, dict(zip(INPUTS, (own, histories[RAW]), strict=True)), judged))
            best_epochs[name].append(epoch)
        print(f"seed {seed} trained; {time.monotonic() - started:.0f} s", flush=True)
    report["best_epochs"] = best_epochs
    report["results"] = {side: compare(every, side) for side in INPUTS}
    report["seconds"] = round(time.monotonic() - started)
    return report


def compare(every: Mapping[str, list[dict[str, dict[str, Any]]]], side: str) -> dict[str, Any]:
    """Per version and metric: each seed's mean, and what it is above raw."""
    found: dict[str, Any] = {}
    for name, seeds in every.items():
        found[name] = {}
        for metric in METRICS:
            values = np.stack([seed[side][metric] for seed in seeds])
            above = values - np.stack([seed[side][metric] for seed in every[RAW]])
            interval = bootstrap(above.mean(axis=0))
            found[name][metric] = {
                "seeds": values.mean(axis=1).tolist(),
                "above_raw": [interval.mean, interval.low, interval.high],
                "above_raw_seeds": above.mean(axis=1).tolist(),
            }
    return found


def render(report: Mapping[str, Any]) -> str:
    names = ("edits", "precision", "recall", "suits", "meant", "held out", "kinds")
    lines = ["", f"{'Edits':28}" + "".join(f"{name:>12}" for name in names)]
    for version, values in report["edits"].items():
        cells = [values[name] for name in names]
        lines.append(f"{version:28}" + "".join(f"{c:>12.3f}" if isinstance(c, float) else f"{c:>12}" for c in cells))
    for side, versions in report["results"].items():
        lines += ["", f"{'Input: ' + side:28}" + "".join(f"{m:>17}{'above raw':>27}" for m in METRICS)]
        if side == INPUTS[0]:
            lines.append(f"{'popularity':28}" + f"{'':27}".join(f"{report['popularity'][m]:>17.4f}" for m in METRICS))
        for version, values in versions.items():
            line = f"{version:28}"
            for metric in METRICS:
                means = values[metric]["seeds"]
                spread = statistics.stdev(means) if len(means) > 1 else 0.0
                middle, low, high = values[metric]["above_raw"]
                gap = "" if version == RAW else f"{middle:+.4f} [{low:+.4f}, {high:+.4f}]"
                line += f"{statistics.fmean(means):>9.4f} ±{spread:.4f}{gap:>27}"
            lines.append(line)
    return "\n".join([*lines, f"\n{report['seconds']} s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1200)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.2, help="share of noise positions (default 0.2)")
    parser.add_argument("--world-seed", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3, help="training runs per version (default 3)")
    parser.add_argument("--epochs", type=int, default=0, help="of SASRec; the profile's by default")
    parser.add_argument("--contexts", type=int, default=3, help="denoised_sequences.contexts (default 3)")
    parser.add_argument("--candidates", type=int, default=5, help="denoised_sequences.candidates (default 5)")
    parser.add_argument("--max-edits", type=int, nargs="+", default=[2, 0], help="caps to compare (default 2 and 0)")
    parser.add_argument("--tfidf-share", type=float, default=0.1, help="share that TF-IDF edits (default 0.1)")
    parser.add_argument("--endpoint", choices=("scripted", "embedded"), default="scripted")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    given = parser.parse_args()
    # Nobody answers there: a benchmark leaves no runs in a person's MLflow.
    os.environ["PENCHANT_MLFLOW__TRACKING_URI"] = "http://127.0.0.1:9"
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as root:
        report = measure(given, Path(root))
    print(render(report))
    if given.out:
        given.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
