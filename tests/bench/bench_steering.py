"""Can a model be steered by words? Planted worlds, where every preference has a right answer, under several seeds.

    python -m tests.bench.bench_steering --seeds 0,1,2

Grows a world per seed, runs the chain's stages on it (a scripted model without mistakes reads the reviews), builds the
preference benchmark, trains models with the same budget of epochs, and asks them the test split:

    default     MenderTok as it comes, with its dense head and the steering layer
    fused       MenderTok with preferences and with fusion, as published: no head, no layer
    unfused     MenderTok with preferences, without fusion (not by default)
    untold      MenderTok that never was given a preference, and is given none
    tiger       reads no text, and is given the preferences all the same

Finished stages are found again under --out, so that a run can be interrupted.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from infra.progress import Progress
from infra.settings import REPOSITORY, load_settings
from ray_jobs import item_vectors, review_sentiments, semantic_ids, text_vectors, train
from ray_jobs.data.day_states import input_partition
from ray_jobs.data.tables import input_table
from ray_jobs.evaluation.property_steering import steer_to_properties, summarise_properties
from ray_jobs.evaluation.steering import GIVEN, LATEST, NONE, RANDOM, answer, main_metric, read_pasts, summarise
from ray_jobs.recommenders.bundle import load_bundle
from schemas.handoff import read_report
from schemas.preference_benchmark import AXES
from schemas.stage_request import StageRequest
from tests.simulated.scripted_model import serving

DATASET, PARTITION = "steered", "2026-01-31"
READING = {"review_lines.max_users": 0, "review_lines.prompt": "review_opinions", "review_lines.topics": ["price"]}
FUSION = {
    "mendertok.fuse": ["fine_steering", "coarse_steering", "positive", "negative"],
    "mendertok.fuse_repeats": 1,
    "mendertok.alone_share": 0.3,
    "mendertok.twin_share": 0.5,
    "mendertok.preference_dropout": 0.2,
}
PUBLISHED = {"mendertok.dense": False, "steering.enabled": False}
ARMS = {
    "default": ("mendertok", {"mendertok.batch_size": 128, "mendertok.learning_rate": 2e-3}),
    "fused": ("mendertok", FUSION | PUBLISHED),
    "unfused": ("mendertok", {"mendertok.preference_dropout": 0.2} | PUBLISHED),
    "untold": ("mendertok", {"mendertok.preference_dropout": 1.0} | PUBLISHED),
    "tiger": ("tiger", {"steering.enabled": False}),
}


def environment(home: Path, llm: str) -> dict[str, str]:
    """Variables under which the stages of one world run."""
    return {
        "PENCHANT_HOME": str(home),
        "PENCHANT_SPARK__JARS_DIR": str(REPOSITORY / ".penchant" / "jars"),
        "PENCHANT_RAY__STORAGE": str(home / "ray"),
        "PENCHANT_MLFLOW__TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "PENCHANT_LLM__BASE_URL": llm,
        "PENCHANT_LLM__MODEL": "scripted",
        "PENCHANT_LLM__CONCURRENCY": "8",
        "PENCHANT_LLM__SCORING": "none",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }


def spark(stage: str, home: Path, overrides: dict) -> None:
    """Run a Spark stage in a process of its own, unless its report is there."""
    report = home / "reports" / f"{stage}.json"
    if read_report(str(report)) is None:
        given = ["--dataset", DATASET, "--partition", PARTITION, "--overrides", json.dumps(overrides)]
        command = [sys.executable, "-m", "pipelines.launch.stage", stage, *given, "--report-uri", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{stage}: {done.stdout[-3000:]}{done.stderr[-6000:]}")
    print(f"    {stage}: {dict(read_report(str(report)).counts)}", flush=True)


def request(stage: str, overrides: dict, recipe: str = "", **upstream: str) -> StageRequest:
    """A request for a Ray stage."""
    return StageRequest(
        stage=stage, dataset=DATASET, partition=PARTITION, recipe=recipe, overrides=overrides, upstream=upstream
    )


def prepare(home: Path, world: list[str]) -> str:
    """World, tables, codebook and benchmark; gives the codebook's version."""
    landing = home / "landing"
    if not (landing / "truth").exists():
        subprocess.run(
            [sys.executable, "-m", "pipelines.landing.planted_world", f"--out={landing}", *world], check=True
        )
        files = [f"--reviews={landing}/reviews.jsonl.gz", f"--items={landing}/meta.jsonl.gz"]
        subprocess.run([sys.executable, "-m", "pipelines.tools.register", f"--name={DATASET}", *files], check=True)
    with serving(landing / "truth") as llm:
        os.environ.update(environment(home, llm.base_url))
        for stage in ("ingest", "sequences", "preferences"):
            spark(stage, home, READING)
    item_vectors.run(request("item_vectors", {}))
    codebook = semantic_ids.run(request("semantic_ids", {}, "rqvae")).outputs["codebook"]
    text_vectors.run(request("text_vectors", {}))
    print(f"    sentiments: {dict(review_sentiments.run(request('review_sentiments', {})).counts)}", flush=True)
    spark("preference_benchmark", home, {"preference_benchmark.truth": str(landing / "truth")})
    return codebook


def judge(home: Path, bundle_uri: str, probe_users: int) -> dict:
    """Numbers of one model on the test split."""
    settings = load_settings()
    asked = request("steerability", {})
    samples = [r for r in input_partition(settings, asked, "preference_benchmark").to_pylist() if r["split"] == "test"]
    probes = input_table(settings, asked, "steering_probes").to_pylist()
    pasts = read_pasts(input_partition(settings, asked, "sequences"))
    bundle = load_bundle(bundle_uri)
    progress = Progress(settings.home, "bench_steering")
    results = summarise(answer(bundle, samples, pasts, notify=progress.update))
    steered = summarise_properties(steer_to_properties(bundle, probes, pasts, probe_users, notify=progress.update))
    return {
        "axes": {
            result.axis: {
                "samples": result.samples,
                **{name: found[main_metric(result.axis)].mean for name, found in result.conditions.items()},
                **{f"lift_over_{name}": lift.difference.mean for name, lift in result.lift.items()},
            }
            for result in results
        },
        "steered": {found.kind: vars(found) for found in steered},
    }


def run_seed(seed: int, out: Path, world: list[str], epochs: int, probe_users: int, arms: list[str]) -> dict:
    """The arms of one world."""
    home = out / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)  # MLflow without a server keeps artifacts below the working directory
    os.environ.update(environment(home, "http://127.0.0.1:9"))
    codebook = prepare(home, [*world, f"--seed={100 + seed}"])
    found = {}
    for arm in arms:
        recipe, overrides = ARMS[arm]
        given = {**overrides, f"{recipe}.epochs": epochs, f"{recipe}.seed": seed}
        report = train.run(request("train", given, recipe, **{"semantic_ids.codebook": codebook}))
        found[arm] = judge(home, report.outputs["bundle_uri"], probe_users)
        found[arm]["training"] = dict(report.counts)
        print(f"  seed {seed} {arm}: {json.dumps(found[arm])}", flush=True)
    return found


def table(by_seed: dict[int, dict]) -> str:
    """Mean and spread over seeds of each axis's main metric."""
    arms = list(next(iter(by_seed.values())))
    columns = [("fused", name) for name in (GIVEN, LATEST, RANDOM, NONE)]
    columns += [(arm, NONE if arm == "untold" else GIVEN) for arm in arms if arm != "fused"]
    heads = [f"{arm}, {name}" for arm, name in columns]
    lines = [f"| axis | metric | samples | {' | '.join(heads)} | seeds won over untold, random |"]
    lines.append("|---|" + "---|" * (len(heads) + 3))

    def spread(values: list[float | None]) -> str:
        return "" if None in values else f"{np.mean(values):.3f} ± {np.std(values):.3f}"

    for axis in AXES:
        rows = [found for found in by_seed.values() if axis in found["fused"]["axes"]]
        if len(rows) < len(by_seed):
            lines.append(f"| {axis} | | no samples |")
            continue
        fused = [row["fused"]["axes"][axis] for row in rows]
        untold = [row["untold"]["axes"][axis][NONE] for row in rows]
        won = sum(own[GIVEN] > other for own, other in zip(fused, untold, strict=True))
        control = sum(own[GIVEN] > own[RANDOM] for own in fused)
        cells = [spread([row[arm]["axes"][axis].get(name) for row in rows]) for arm, name in columns]
        samples = round(np.mean([own["samples"] for own in fused]))
        lines.append(
            f"| {axis} | {main_metric(axis)} | {samples} | {' | '.join(cells)} | {won}, {control} of {len(rows)} |"
        )
    for arm in (arm for arm in arms if arm == "tiger"):
        lifts = [
            abs(found[arm]["axes"][axis][f"lift_over_{name}"])
            for found in by_seed.values()
            for axis in found[arm]["axes"]
            for name in (NONE, RANDOM)
        ]
        lines += ["", f"Largest lift of {arm}, any axis, seed and control: {max(lifts)}"]
    lines += [
        "",
        f"| steering success | properties | {' | '.join(arms)} | fused, control |",
        "|---|" + "---|" * (len(arms) + 2),
    ]
    for kind in sorted(next(iter(by_seed.values()))["fused"]["steered"]):
        steered = {arm: [found[arm]["steered"][kind] for found in by_seed.values()] for arm in arms}
        cells = [spread([s["success"] for s in steered[arm]]) for arm in arms]
        cells.append(spread([s["control"] for s in steered["fused"]]))
        lines.append(f"| {kind} | {steered['fused'][0]['properties']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0", help="e.g. 0,1,2")
    parser.add_argument(
        "--arms", default="default,fused,untold,tiger", help=f"of {', '.join(ARMS)}; fused and untold needed"
    )
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--items", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--probe-users", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(".penchant/bench_steering"))
    given = parser.parse_args()
    world = [f"--users={given.users}", f"--items={given.items}"]
    by_seed = {
        seed: run_seed(seed, given.out.resolve(), world, given.epochs, given.probe_users, given.arms.split(","))
        for seed in map(int, given.seeds.split(","))
    }
    (given.out / "results.json").write_text(json.dumps(by_seed, indent=1))
    print(table(by_seed))


if __name__ == "__main__":
    main()
