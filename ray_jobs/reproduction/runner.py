"""Trains and evaluates one experiment; what was done before is not done again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.settings import RaySettings
from infra.state import read_json, replaced, write_json
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import Examples, evaluation_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.evaluation.metrics import bootstrap_each
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.base import Recommender
from ray_jobs.reproduction.experiments import LEAKY_POPULARITY, TOKENIZER, TOKENIZER_SETTINGS, Experiment
from ray_jobs.reproduction.identity import code_hash, data_hash
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.loop import TrainState
from ray_jobs.training.plan import Plan
from ray_jobs.training.ray_train import train
from schemas.run_identity import RunIdentity, config_hash


@dataclass(frozen=True)
class Result:
    """What an experiment came to, as it is kept on disk.

    Args:
        metrics: per protocol (``raw`` ranks every item, ``unseen`` leaves out the history's) and metric the mean over
            test users with its 95 % bootstrap interval, three numbers.
        seconds: of all epochs, in whatever slices they were trained, and of the evaluation.
        device: what trained it.
    """

    dataset: str
    label: str
    seed: int
    metrics: Mapping[str, Mapping[str, list[float]]]
    epochs: int
    best_epoch: int
    valid_ndcg_10: float
    parameters: int
    seconds: float
    device: str
    content: Mapping[str, Any]
    records: list[dict[str, float]]


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
        data = data_hash(self.catalogue, self.histories, texts=experiment.reads_texts)
        return {**experiment.content(), "data": data, "code": code_hash(experiment.families)}

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
        if not path.exists():
            return None
        return read_json(path, "delete it; the experiment is then evaluated again", lambda raw: Result(**raw))

    def run(self, experiment: Experiment, budget_s: float | None) -> Result | None:
        """Train for at most `budget_s` seconds more, and evaluate if that was enough; None when it was not."""
        done = self.result(experiment)
        if done is not None:
            return done
        recommender, state, finished = self._trained(experiment, budget_s)
        if not finished:
            return None
        started = time.monotonic()
        metrics = self._evaluated(experiment, recommender)
        spent = sum(record["seconds"] for record in state.records) + time.monotonic() - started
        result = Result(
            dataset=experiment.dataset,
            label=experiment.label,
            seed=experiment.settings.seed,
            metrics=metrics,
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            valid_ndcg_10=round(max(0.0, state.best_score), 6),
            parameters=sum(p.numel() for p in recommender.parameters() if p.requires_grad),
            seconds=round(spent, 1),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            content=self.content(experiment),
            records=state.records,
        )
        path = self.result_path(experiment)
        write_json(path, vars(result), default=str)
        return result

    def _trained(self, experiment: Experiment, budget_s: float | None) -> tuple[Recommender, TrainState, bool]:
        started = time.monotonic()
        catalogue = self._coded(experiment.dataset) if experiment.needs_codes else self.catalogue
        recommender = recipe_class(experiment.recipe)(experiment.settings, catalogue)
        if not recommender.trainable:
            recommender.fit_counts(self._counted(experiment))
            return recommender, TrainState(finished=True), True
        plan = Plan(
            experiment.recipe,
            experiment.settings,
            catalogue,
            recommender.training_examples(self.histories),
            self._validation(experiment),
        )
        left = None if budget_s is None else max(1.0, budget_s - (time.monotonic() - started))
        outcome = train(
            plan,
            self.ray,
            run_name=self.identity(experiment).key(),
            home=self.home,
            stage=f"reproduce_{experiment.label}",
            time_budget_s=left,
        )
        trained = plan.build()
        if outcome.state.finished:
            trained.load_trained_state(outcome.state.best)
        return trained, outcome.state, outcome.state.finished

    def _counted(self, experiment: Experiment) -> Histories:
        """The histories whose positions popularity counts: those of training, or all of them for the leaky row."""
        if experiment.label != LEAKY_POPULARITY:
            return self.histories
        nowhere = np.full(len(self.histories), -1, dtype=np.int64)
        return replace(self.histories, valid_position=nowhere, test_position=nowhere)

    def _validation(self, experiment: Experiment) -> Examples:
        """The validation split of some users, the same for every model and seed."""
        reach, wanted = experiment.settings.max_history, experiment.validation_users
        if not 0 < wanted < len(self.histories):
            return evaluation_examples(self.histories, "valid", reach)
        users = np.sort(np.random.default_rng(0).permutation(len(self.histories))[:wanted])
        everybody = evaluation_examples(self.histories, "valid", reach)
        return everybody.at(np.flatnonzero(np.isin(everybody.users, users)))

    def _evaluated(self, experiment: Experiment, recommender: Recommender) -> dict[str, dict[str, list[float]]]:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        recommender.to(device)
        metrics: dict[str, dict[str, list[float]]] = {}
        for protocol, unseen in (("raw", False), ("unseen", True)):
            (ranked,) = evaluate(recommender, self.histories, ("test",), exclude_seen=unseen)
            np.save(self.result_path(experiment).with_suffix(f".{protocol}.npy"), ranked.ranks)
            intervals = bootstrap_each(ranked.metrics())
            metrics[protocol] = {
                name: [round(value, 5) for value in (found.mean, found.low, found.high)]
                for name, found in intervals.items()
            }
            metrics[protocol] |= {name: [round(value, 5)] * 3 for name, value in ranked.exposure().items()}
        return metrics

    def _coded(self, dataset: str) -> Catalogue:
        """The catalogue with the codes of its texts, which are kept on disk: where they lie, no encoder is needed."""
        item_ids, texts = list(self.catalogue.item_ids), list(self.catalogue.texts)
        training = np.zeros(len(item_ids), dtype=bool)
        for user in range(len(self.histories)):
            training[self.histories.training_items(user)] = True
        content = {"items": item_ids, "texts": texts, "training": training.tolist(), "encoder": PACKAGED}
        content |= {**TOKENIZER_SETTINGS, "code": code_hash(("tokenizers",))}
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
