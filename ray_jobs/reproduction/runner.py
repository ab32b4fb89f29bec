"""Trains and evaluates one experiment; what was done before is not done again."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra.settings import RaySettings
from infra.state import named, replaced, write_json
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, evaluation_examples
from ray_jobs.data.histories import Histories
from ray_jobs.data.ties import shuffle_history_ties
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.reproduction.baselines import RandomOrder
from ray_jobs.reproduction.ensembles import Ensemble, choose
from ray_jobs.reproduction.experiments import (
    LEAKY_POPULARITY,
    RANDOM,
    TOKENIZER,
    TOKENIZER_SETTINGS,
    EnsembleExperiment,
    Experiment,
    module_of,
)
from ray_jobs.reproduction.identity import code_hash, data_hash
from ray_jobs.reproduction.measures import Measures, facts_of, measure
from ray_jobs.reproduction.results import Result, ranks_path, read_result
from ray_jobs.reproduction.usage import UsageLog, own_usage, read_usage
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.loop import TrainState
from ray_jobs.training.plan import Plan
from ray_jobs.training.ray_train import train
from schemas.errors import DataError
from schemas.run_identity import RunIdentity, config_hash


class Runner:
    """Experiments of one data set on the connected Ray cluster.

    Args:
        home: results and vectors lie in its folder ``reproduction``.
    """

    def __init__(self, home: str, ray: RaySettings, catalogue: Catalogue, histories: Histories) -> None:
        self.folder = Path(home) / "reproduction"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home, self.ray, self.catalogue, self.histories = home, ray, catalogue, histories

    def content(self, experiment: Experiment) -> dict[str, Any]:
        """Everything that the experiment's result depends on."""
        data = data_hash(self.catalogue, self.histories, experiment.reads_texts, experiment.reads_preferences)
        return {**experiment.content(), "data": data, "code": code_hash(experiment.modules)}

    def identity(self, experiment: Experiment) -> RunIdentity:
        """The same experiment on the same data by the same code is trained once, and goes on where it was cut."""
        content = config_hash(self.content(experiment))
        return RunIdentity(dag="reproduce", partition=experiment.dataset, recipe=experiment.label, config_hash=content)

    def result_path(self, experiment: Experiment) -> Path:
        """Where the experiment's result lies once there is one."""
        return self.folder / f"{self.identity(experiment).key()}.json"

    def result(self, experiment: Experiment) -> Result | None:
        """The result of an experiment that was finished, in this call or an earlier one."""
        path = self.result_path(experiment)
        return read_result(path) if path.exists() else None

    def run(self, experiment: Experiment, budget_s: float | None) -> Result | None:
        """Train for at most `budget_s` seconds more, and evaluate if that was enough; None when it was not."""
        done = self.result(experiment)
        if done is not None:
            return done
        if isinstance(experiment, EnsembleExperiment):
            return self._ensemble(experiment, budget_s)
        recommender, state, finished = self._trained(experiment, budget_s)
        if not finished:
            return None
        if state.best:
            self._keep_weights(experiment, state.best)
        started, before = time.monotonic(), time.process_time()
        measured = self._measured(experiment, recommender)
        used = read_usage(self._usage_path(experiment))
        trained_s = sum(usage.processor_s for usage in used) if used or not recommender.trainable else None
        return self._keep(
            experiment,
            measured,
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            valid_ndcg_10=round(max(0.0, state.best_score), 6),
            parameters=sum(p.numel() for p in recommender.parameters() if p.requires_grad),
            seconds=round(sum(record["seconds"] for record in state.records) + time.monotonic() - started, 1),
            records=state.records,
            machines=sorted({usage.machine for usage in used} | {own_usage().machine}),
            processor_s=_sum((trained_s, time.process_time() - before)),
            peak_mb=_largest(usage.peak_mb for usage in used),
            gpu_peak_mb=_largest(usage.gpu_peak_mb for usage in used),
        )

    def _ensemble(self, experiment: EnsembleExperiment, budget_s: float | None) -> Result | None:
        """Train what is not trained, choose the weights, and evaluate; costs are those of all members together."""
        until = None if budget_s is None else time.monotonic() + budget_s
        done = []
        for member in experiment.members:
            left = None if until is None else max(1.0, until - time.monotonic())
            done.append(self.run(member, left))
        results = [result for result in done if result is not None]
        if len(results) < len(done):
            return None
        started, before = time.monotonic(), time.process_time()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        members = [self.finished(member).to(device) for member in experiment.members]
        reach = max(member.settings.max_history for member in members)
        choice = choose(members, evaluation_examples(self._histories(experiment), "valid", reach))
        measured = self._measured(experiment, Ensemble(members, choice))
        labels = [member.label for member in experiment.members]
        return self._keep(
            experiment,
            measured,
            epochs=0,
            best_epoch=0,
            valid_ndcg_10=round(choice.score, 6),
            parameters=sum(result.parameters for result in results),
            seconds=round(sum(result.seconds for result in results) + time.monotonic() - started, 1),
            records=[],
            machines=sorted({machine for result in results for machine in result.machines} | {own_usage().machine}),
            processor_s=_sum((*(result.processor_s for result in results), time.process_time() - before)),
            peak_mb=_largest(result.peak_mb for result in results),
            gpu_peak_mb=_largest(result.gpu_peak_mb for result in results),
            members={
                "form": choice.form,
                "weights": dict(zip(labels, choice.weights, strict=True)),
                "alone": dict(zip(labels, choice.alone, strict=True)),
            },
        )

    def _keep(self, experiment: Experiment, measured: Measures, **more: Any) -> Result:
        """Write the result."""
        result = Result(
            dataset=experiment.dataset,
            label=experiment.label,
            seed=experiment.settings.seed,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            content=self.content(experiment),
            scale=experiment.scale,
            overrides=experiment.overrides,
            threads=self.ray.cpus_per_worker,
            ties=experiment.ties,
            facts=facts_of(self.catalogue, self._histories(experiment)),
            metrics=measured.metrics,
            known=measured.known,
            request_ms=measured.request_ms,
            tied_scores=measured.tied_scores,
            **more,
        )
        write_json(self.result_path(experiment), vars(result), default=str)
        return result

    def finished(self, experiment: Experiment) -> Recommender:
        """The recommender of a finished experiment, from its kept weights; trained again if they are gone."""
        path = self._weights_path(experiment)
        if not path.exists():
            return self._trained(experiment, None)[0]
        recommender = recipe_class(experiment.recipe)(experiment.settings, self._catalogue(experiment))
        with named(path, "delete it; the next run takes the weights from the training run, or trains again"):
            recommender.load_trained_state(torch.load(path, map_location="cpu", weights_only=True))
        return recommender

    def _usage_path(self, experiment: Experiment) -> Path:
        return self.result_path(experiment).with_suffix(".usage.jsonl")

    def _keep_weights(self, experiment: Experiment, weights: Mapping[str, Tensor]) -> None:
        """Keep the best weights beside the result, from which an ensemble is made without training."""
        with replaced(self._weights_path(experiment)) as beside:
            torch.save(dict(weights), beside)

    def _weights_path(self, experiment: Experiment) -> Path:
        return self.result_path(experiment).with_suffix(".pt")

    def _catalogue(self, experiment: Experiment) -> Catalogue:
        """With codes, where the recipe needs them."""
        if not experiment.needs_codes:
            return self.catalogue
        return self._coded(experiment.dataset, self._histories(experiment))

    def _histories(self, experiment: Experiment) -> Histories:
        if experiment.ties == "as_is":
            return self.histories
        if self.histories.times is None:
            raise DataError(
                f"{experiment.dataset} has no times, so that its ties are not known: add the file "
                f"{experiment.dataset}_times.txt[.gz], or take --ties as_is"
            )
        return shuffle_history_ties(self.histories, experiment.settings.seed)

    def _trained(self, experiment: Experiment, budget_s: float | None) -> tuple[Recommender, TrainState, bool]:
        started = time.monotonic()
        histories = self._histories(experiment)
        catalogue = self._catalogue(experiment)
        kind = RandomOrder if experiment.label == RANDOM else recipe_class(experiment.recipe)
        recommender = kind(experiment.settings, catalogue)
        if not recommender.trainable:
            recommender.fit_counts(self._counted(experiment))
            return recommender, TrainState(finished=True), True
        plan = Plan(
            experiment.recipe,
            experiment.settings,
            catalogue,
            recommender.training_examples(histories),
            self._validation(experiment),
        )
        left = None if budget_s is None else max(1.0, budget_s - (time.monotonic() - started))
        outcome = train(
            plan,
            self.ray,
            run_name=self.identity(experiment).key(),
            home=self.home,
            stage=f"reproduce_{experiment.label}",
            hook=UsageLog(str(self._usage_path(experiment).resolve())),
            time_budget_s=left,
        )
        trained = plan.build()
        if outcome.state.finished:
            trained.load_trained_state(outcome.state.best)
        return trained, outcome.state, outcome.state.finished

    def _counted(self, experiment: Experiment) -> Histories:
        """The histories whose positions popularity counts: those of training, or all of them for the leaky row."""
        histories = self._histories(experiment)
        if experiment.label != LEAKY_POPULARITY:
            return histories
        nowhere = np.full(len(histories), -1, dtype=np.int64)
        return replace(histories, valid_position=nowhere, test_position=nowhere)

    def _validation(self, experiment: Experiment) -> Examples:
        """The validation split of some users, the same for every model and seed."""
        histories, reach, wanted = (
            self._histories(experiment),
            experiment.settings.max_history,
            experiment.validation_users,
        )
        everybody = evaluation_examples(histories, "valid", reach)
        if not 0 < wanted < len(histories):
            return everybody
        users = np.sort(np.random.default_rng(0).permutation(len(histories))[:wanted])
        return everybody.at(np.flatnonzero(np.isin(everybody.users, users)))

    def _measured(self, experiment: Experiment, recommender: Recommender) -> Measures:
        """Evaluate on the test split under both protocols, and keep the ranks."""
        recommender.to("cuda" if torch.cuda.is_available() else "cpu")
        found = measure(recommender, self._histories(experiment))
        for protocol, ranks in found.ranks.items():
            np.save(ranks_path(self.result_path(experiment), protocol), ranks)
        return found

    def _coded(self, dataset: str, histories: Histories) -> Catalogue:
        """The catalogue with the codes of its texts, which are kept on disk: where they lie, no encoder is needed."""
        item_ids, texts = list(self.catalogue.item_ids), list(self.catalogue.texts)
        training = histories.interacted(len(item_ids))
        content = {"items": item_ids, "texts": texts, "training": training.tolist(), "encoder": PACKAGED}
        content |= {**TOKENIZER_SETTINGS, "code": code_hash((f"recipes.{module_of(TOKENIZER, 'tokenizer')}",))}
        name = f"reproduce--{dataset}--{TOKENIZER}--{config_hash(content)}"
        path = self.folder / f"{name}.npz"
        if not path.exists():
            kind = recipe_class(TOKENIZER, "tokenizer")
            book = (
                kind(settings_class(TOKENIZER, "tokenizer")(**TOKENIZER_SETTINGS))
                .fit(
                    ArrayVectors(load_text_encoder(PACKAGED).encode(texts)),
                    item_ids,
                    FitContext(
                        training=training,
                        version=name,
                        ray=self.ray,
                        run_name=name,
                        home=self.home,
                        stage="reproduce_tokenizer",
                    ),
                )
                .codebook
            )
            assert list(book.item_ids) == item_ids, "a codebook keeps the order of the items it was given"
            with replaced(path) as beside, beside.open("wb") as file:
                np.savez(file, codes=book.codes, level_sizes=np.array(book.level_sizes))
        with np.load(path) as kept:
            codes = dict(zip(item_ids, kept["codes"].tolist(), strict=True))
            return self.catalogue.with_codes(codes, kept["level_sizes"].tolist())


def _sum(parts: Iterable[float | None]) -> float | None:
    """Rounded; None if a part is not known."""
    known = list(parts)
    return None if None in known else round(sum(part for part in known if part is not None), 1)


def _largest(parts: Iterable[float | None]) -> float | None:
    """Of those that are known; None if none is."""
    return max((part for part in parts if part is not None), default=None)
