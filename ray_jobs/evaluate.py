"""The work of `ray_jobs.stages.evaluate`: rank, publish per-user rows, log means, intervals and slices."""

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from infra.progress import Progress, phase
from infra.settings import Settings, load_settings
from ray_jobs.data.histories import Histories
from ray_jobs.data.settings import TrainingDataSettings, for_comparison_only, training_data_settings
from ray_jobs.data.tables import table_exists, table_version
from ray_jobs.data.training_data import TrainingData, read_training_data
from ray_jobs.data.waiting_rows import WaitingRows, waiting_rows
from ray_jobs.evaluation.evaluator import HISTORY, Ranked, evaluate_sampled, measured, slices_of
from ray_jobs.evaluation.exposure import popularity_percentiles
from ray_jobs.evaluation.measurements import Measured, compare, groups_of, require_same_units, to_rows
from ray_jobs.evaluation.metrics import ndcg, recall
from ray_jobs.evaluation.parts import USERS_PER_PART, Collected, Ranking
from ray_jobs.evaluation.slices import training_counts
from ray_jobs.evaluation.translation import Translation
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.registry import runs, versions
from ray_jobs.registry.provenance import EVALUATION_TAG, PROTOCOL_TAG
from ray_jobs.registry.results import counted, model_name
from ray_jobs.registry.trained import BASELINE, RECOMMENDER
from ray_jobs.stages.evaluate import STAGE, EvaluateSettings
from schemas.errors import DataError
from schemas.handoff import StageReport
from schemas.measurements import MEASUREMENTS, NEXT_ITEM
from schemas.model_versions import CHAMPION, CHAMPION_KEY, IDENTITY_TAG, PARTITION_TAG
from schemas.recipes import Need
from schemas.sections import stage_settings
from schemas.stage_request import StageRequest

CHAMPION_COVERAGE, UNKNOWN_TARGETS = "champion_coverage_10", "champion_unknown_targets"
CHAMPION_DATA = "champion_data_version"
"""Outputs about the champion besides ``champion``, its ``<name>/<version>``. `CHAMPION_DATA` is only set if it was
trained on another split, so that it may have learned what is held out here, and is not ranked."""
WORD_SHARES = ("success", "control", "halved")
ALL_ITEMS = "test.all_items"
"""Prefix of metrics of the published protocol."""


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate.

    Args:
        model: name in `measurements`, see `model_name`.
        role: task that trained it, or `CHAMPION`; empty for popularity, which ignores words.
        run_id: MLflow run that gets the numbers, if any.
        version: ``<name>/<version>`` of the champion.
    """

    model: str
    recommender: Recommender
    role: str = ""
    run_id: str = ""
    version: str = ""

    @property
    def label(self) -> str:
        """Prefix of its numbers."""
        return CHAMPION if self.version else self.recommender.name


def run(request: StageRequest) -> StageReport:
    """Evaluate the bundles in ``request.upstream`` and popularity, and publish per-user rows."""
    settings = load_settings()
    own = stage_settings(EvaluateSettings, settings, request)
    progress = Progress(settings.home, STAGE)
    progress.update(0, 1, "reading tables")
    data = read_training_data(settings, request, {Need.PREFERENCES})
    how = training_data_settings(settings, request)
    protocol = protocol_of(how, own)
    popularity = Popularity(PopularitySettings(), data.catalogue)
    popularity.fit_counts(data.histories)
    name = model_name("popularity", counted(request.dataset, request.partition), data.version)
    candidates = [Candidate(name, popularity), *_trained(request, data, own)]
    outputs: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        champion, trained_on = _champion(settings, request, data, Path(folder))
        if champion is not None and trained_on == data.version:
            candidates.append(champion)
        elif champion is not None:
            outputs |= {CHAMPION: champion.version, CHAMPION_DATA: trained_on or "as they are"}
    uri = settings.table_uri(request.dataset, MEASUREMENTS.name)
    before = table_version(uri) if table_exists(uri) else None
    counts: dict[str, float] = {"users": len(data.histories), "items": len(data.catalogue)}
    reference: dict[str, Measured] = {}
    rows = 0
    if any(candidate.run_id for candidate in candidates):
        runs.connect(settings)
    training = training_counts(data.histories, len(data.catalogue))
    with Ranking(data.histories, training, own.actors, own.cpus_per_actor) as ranking:
        for number, candidate in enumerate(candidates):

            def notify(done: int, note: str, number: int = number) -> None:
                total = len(data.histories)
                progress.update(number * total + done, len(candidates) * total, note)

            model = candidate.model
            partition = {"partition_date": request.partition_date(), "task": NEXT_ITEM, "model": model}
            with waiting_rows(MEASUREMENTS, partition, "unit_id") as waiting:
                results = rank_users(ranking, candidate, data, own, protocol, waiting, notify)
                handoff = waiting.publish(uri, request.identity())
            rows += handoff.rows
            found = [by_number(result, model, protocol) for result in results]
            if not reference:
                reference = {one.split: one for one in found}
                counts |= _targets(results)
            summary = summarise(results, found, reference)
            with phase(f"words and other protocols with {candidate.label}"):
                if not candidate.version:
                    summary |= other_protocols(ranking, candidate.recommender, data.histories, own)
                shares = word_shares(candidate, data, own)
            summary |= {f"test.words.{name}": round(value, 6) for name, value in shares.items()}
            outputs |= {f"{candidate.role}_words_{name}": f"{value:.6f}" for name, value in shares.items()}
            candidate.recommender.release()
            shown = {name: value for name, value in summary.items() if f".{HISTORY}." not in name}
            counts = {f"{candidate.label}.{name}": value for name, value in shown.items()} | counts
            if candidate.version:
                outputs |= beside_champion(candidate, results, data)
                counts["champion.unknown_targets"] = int(outputs[UNKNOWN_TARGETS])
            if candidate.run_id:
                logged = summary | slice_means(results)
                runs.log_metrics(candidate.run_id, [(name, value, 0) for name, value in logged.items()])
                runs.set_tags(candidate.run_id, {EVALUATION_TAG: json.dumps(asdict(own)), PROTOCOL_TAG: protocol})
                _log_lists(candidate, results)
    progress.update(1, 1, f"{len(candidates)} models")
    return StageReport(
        stage=STAGE,
        status="reused" if handoff.version == before else "done",
        handoffs={MEASUREMENTS.name: replace(handoff, rows=rows)},
        counts={**counts, "rows": rows},
        outputs={**outputs, "protocol": protocol},
    )


def rank_users(
    ranking: Ranking,
    candidate: Candidate,
    data: TrainingData,
    own: EvaluateSettings,
    protocol: str,
    waiting: WaitingRows,
    notify: Callable[[int, str], None],
) -> list[Ranked]:
    """The numbers of all users under every split and condition; their rows are added to `waiting` part by part.

    Raises:
        DataError: a split has no target that can be ranked.
    """
    recommender, collected = candidate.recommender, Collected()
    between = Translation.between(recommender.catalogue, data.catalogue) if candidate.version else None
    with phase(f"ranking with {candidate.label}") as ranked:
        for number, part in enumerate(ranking.parts(recommender, exclude_seen=own.exclude_seen, between=between), 1):
            waiting.add(to_rows(measured(part, candidate.model, data.histories, data.catalogue.item_ids, protocol)))
            collected.add(part)
            done = min(number * USERS_PER_PART, len(data.histories))
            notify(done, f"{recommender.name}, {done:,} users")
        results = collected.results()
        ranked["held-out items"] = sum(len(result.ranks) for result in results)
    if not all(len(result.ranks) for result in results):
        raise DataError(
            "no history has an item before and at its held-out position in both splits: three items are needed, "
            "and with training_data.split time an item on each side of both cuts"
        )
    return results


def by_number(result: Ranked, model: str, protocol: str) -> Measured:
    """NDCG@10 of each user, for comparisons within this stage: users and targets are numbers instead of ids."""
    return Measured(
        model=model,
        task=NEXT_ITEM,
        split=result.split,
        condition=result.condition,
        protocol=protocol,
        units=pa.array(result.examples.users),
        targets=pa.array(result.examples.targets),
        slices={},
        values={"ndcg_10": ndcg(result.ranks, 10)},
    )


def protocol_of(how: TrainingDataSettings, own: EvaluateSettings) -> str:
    """How targets are held out and what is ranked; values of two protocols do not compare."""
    ties = f" ties=shuffled-{how.ties_seed}" if how.ties == "shuffled" else ""
    return f"split={how.split}{ties} catalogue={how.catalogue} seen={'left out' if own.exclude_seen else 'ranked'}"


def _targets(results: Sequence[Ranked]) -> dict[str, float]:
    """Number of targets in their own history, and of targets at no training position."""
    counts = {f"{one.split}.targets_in_their_history": one.seen_targets for one in results}
    unmet = {f"{one.split}.unmet_targets": int((one.counts[one.examples.targets] == 0).sum()) for one in results}
    return {**counts, **unmet}


def _trained(request: StageRequest, data: TrainingData, own: EvaluateSettings) -> list[Candidate]:
    """The models that earlier tasks trained; warns if early stopping ranked by another protocol.

    Raises:
        DataError: there is none, or one was trained on another catalogue or on histories with other targets.
    """
    candidates: list[Candidate] = []
    for task in (RECOMMENDER, BASELINE):
        uri = request.upstream.get(f"{task}.bundle_uri")
        if not uri:
            continue
        bundle = load_bundle(uri)
        trained_on = bundle.provenance.get("data_version", "")
        if trained_on != data.version:
            raise DataError(
                f"the model in {uri} was trained on histories {trained_on or 'as they are'!r}, and these are "
                f"{data.version or 'as they are'!r}: what it trained on may be held out here; give both stages the "
                "same training_data settings"
            )
        if bundle.catalogue.item_ids != data.catalogue.item_ids:
            raise DataError(
                f"the model in {uri} was trained on {len(bundle.catalogue)} items that are not the "
                f"{len(data.catalogue)} items of the sequences of {request.partition}: train on these tables first"
            )
        model = model_name(bundle.recipe, bundle.provenance["run_identity"], data.version)
        if any(candidate.model == model for candidate in candidates):
            continue
        stopped_by = bundle.recommender.settings.validate_unseen
        if bundle.recommender.trainable and stopped_by != own.exclude_seen:
            warnings.warn(
                f"{STAGE}.exclude_seen is {own.exclude_seen}, and training of {bundle.recipe} stopped early with "
                f"{bundle.recipe}.validate_unseen {stopped_by}: its best epoch by one ranking is evaluated by another",
                stacklevel=2,
            )
        candidates.append(Candidate(model, bundle.recommender, task, request.upstream.get(f"{task}.mlflow_run_id", "")))
    if not candidates:
        raise DataError(
            f"no model to evaluate: --upstream names neither {RECOMMENDER}.bundle_uri nor {BASELINE}.bundle_uri; "
            "run the train stage first"
        )
    return candidates


def _champion(
    settings: Settings, request: StageRequest, data: TrainingData, folder: Path
) -> tuple[Candidate | None, str]:
    """The champion that the request names, and the version of the histories that it was trained on.

    None if it is of a newer day, whose training has seen what this day holds out; if it is the trained recommender; or
    if models of these histories are for comparison only.
    """
    reference = request.upstream.get(CHAMPION_KEY)
    if not reference or for_comparison_only(data.version):
        return None, ""
    found = versions.resolve(runs.connect(settings), reference)
    trained = request.upstream.get(f"{RECOMMENDER}.run_identity", "")
    if found.tags.get(PARTITION_TAG, "") > request.partition or found.tags.get(IDENTITY_TAG) == trained:
        return None, ""
    bundle = load_bundle(versions.download_bundle(found, folder))
    name = model_name(CHAMPION, reference, data.version)
    candidate = Candidate(name, bundle.recommender, CHAMPION, version=reference)
    return candidate, str(bundle.provenance.get("data_version", ""))


def beside_champion(candidate: Candidate, results: Sequence[Ranked], data: TrainingData) -> dict[str, str]:
    """Outputs about the champion for the register stage."""
    served = next(result for result in reversed(results) if result.split == "test")
    known = candidate.recommender.catalogue.index
    lacking = np.array([item not in known for item in data.catalogue.item_ids])
    return {
        CHAMPION: candidate.version,
        CHAMPION_COVERAGE: f"{served.exposure()['coverage_10']:.6f}",
        UNKNOWN_TARGETS: str(int(lacking[served.examples.targets].sum())),
    }


def other_protocols(
    ranking: Ranking, recommender: Recommender, histories: Histories, own: EvaluateSettings
) -> dict[str, float]:
    """Means under other protocols, each with its prefix: all items ranked, or ranked among sampled items."""
    found: dict[str, float] = {}
    if own.all_items and own.exclude_seen:
        collected = Collected()
        for part in ranking.parts(recommender, ("test",), exclude_seen=False, as_served=True):
            collected.add(part)
        (ranked,) = collected.results()
        found = {f"{ALL_ITEMS}.{name}": round(float(v.mean()), 6) for name, v in ranked.metrics().items()}
    if own.sampled_negatives:
        found |= means(evaluate_sampled(recommender, histories, negatives=own.sampled_negatives, seed=own.seed))
    return found


def word_shares(candidate: Candidate, data: TrainingData, own: EvaluateSettings) -> dict[str, float]:
    """The measures `WORD_SHARES` of how well the lists follow words; empty where the settings switch this off."""
    if not (candidate.role and own.word_users and own.words):
        return {}
    from ray_jobs.steering.word_following import measure_following

    histories = data.histories
    if candidate.version:
        histories = Translation.between(candidate.recommender.catalogue, data.catalogue).known(histories)
    found = measure_following(candidate.recommender, histories, own.word_users, own.words, own.seed)
    return {name: getattr(found, name) for name in WORD_SHARES}


def means(results: Sequence[Ranked]) -> dict[str, float]:
    """Means over users by name.

    Plain names (``test.ndcg_10``) are of the condition the model is served with; ``test.history.ndcg_10`` is of the
    history alone.
    """
    return {
        f"{label}.{name}": round(float(values.mean()), 6)
        for label, result in _labelled(results)
        for name, values in result.metrics().items()
    }


def _labelled(results: Sequence[Ranked]) -> list[tuple[str, Ranked]]:
    """Results as served with the split as label, and those of the history alone."""
    served = {result.split: result for result in results}
    alone = [(f"{result.split}.{HISTORY}", result) for result in results if result.condition == HISTORY]
    return [*((str(split), result) for split, result in served.items()), *alone]


def summarise(
    results: Sequence[Ranked], found: Sequence[Measured], reference: Mapping[str, Measured]
) -> dict[str, float]:
    """`means`; for NDCG@10 the interval and the paired difference to `reference` (popularity); and the exposure.

    Args:
        found: `results` per user, in the same order.
    """
    summary = means(results)
    for result, one in zip(results, found, strict=True):
        require_same_units(one, reference[one.split])
        own = one.intervals(["ndcg_10"])["ndcg_10"]
        gain = compare(one, reference[one.split], "ndcg_10")
        numbers = {
            "ndcg_10_low": own.low,
            "ndcg_10_high": own.high,
            "ndcg_10_gain": gain.difference.mean,
            "ndcg_10_gain_low": gain.difference.low,
            "ndcg_10_gain_high": gain.difference.high,
            "ndcg_10_gain_p": gain.p_value,
        }
        exposed = result.exposure()
        for label in (label for label, labelled in _labelled(results) if labelled is result):
            shown = numbers if label.endswith(HISTORY) else numbers | exposed
            summary |= {f"{label}.{name}": round(value, 6) for name, value in shown.items()}
    return summary


def slice_means(results: Sequence[Ranked]) -> dict[str, float]:
    """Means on the test split, as served, by slice."""
    served = next(one for one in reversed(results) if one.split == "test")
    values = {"recall_10": recall(served.ranks, 10), "ndcg_10": ndcg(served.ranks, 10)}
    shown: dict[str, float] = {}
    for kind, name, inside in groups_of(slices_of(served)):
        label = f"test.{kind}.{name}"
        shown[f"{label}.users"] = float(inside.sum())
        shown |= {f"{label}.{metric}": round(float(own[inside].mean()), 6) for metric, own in values.items()}
    return shown


def _log_lists(candidate: Candidate, results: Sequence[Ranked]) -> None:
    """Log a figure of the popularity of recommended items and targets."""
    from ray_jobs.registry.plots import list_popularity

    result = next(result for result in reversed(results) if result.split == "test")
    chosen = np.bincount(result.examples.targets, minlength=len(result.counts))
    shown = {candidate.recommender.name: result.places, "held-out targets": chosen}
    figure = list_popularity(popularity_percentiles(result.counts), shown)
    runs.log_figure(candidate.run_id, figure, "plots/recommended_popularity.png")
