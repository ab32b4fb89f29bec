"""The life of every recipe of the index, in the small world: trained, killed and gone on with, stored, loaded in
another process behind MLflow's interface, and trained on from there on a day with new items.
"""

import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from small_training import killed_after, numbers
from small_world import PER_CLUSTER, small_catalogue, small_histories

from infra.settings import REPOSITORY
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.training.loop import fit
from ray_jobs.training.plan import Plan
from ray_jobs.training.warm_start import carry_over
from schemas.recipes import of_kind

RECIPES = tuple(of_kind("recommender"))
SMALL = {
    "width": 8, "inner": 8, "head_width": 8, "heads": 1, "layers": 1, "encoder_layers": 1, "text_width": 8,
    "batch_size": 32, "beams": 10, "epochs": 2, "text_epochs": 2, "evaluate_every": 1, "codes": 4, "codebook_size": 4,
    "hidden": (8,),
}  # fmt: skip
REQUESTS = ([["I00", "I12"], ["I30"], []], [[1_700_000_000, 1_700_086_400], [1_700_000_000], []])
# Answers of all bundles in a folder by MLflow's interface, in a process that has only what loading brings.
ELSEWHERE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import pandas as pd
from ray_jobs.registry.served import ServedRecommender
histories, times = json.loads(sys.argv[2])
for folder in sorted(Path(sys.argv[1]).iterdir()):
    served = ServedRecommender()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(folder)}))
    rows = pd.DataFrame({"history": histories, "times": times, "asked_at": [1_701_000_000] * len(histories)})
    found = served.predict(None, rows, {"k": 5})
    print(json.dumps([folder.name, found["item_ids"].tolist(), found["scores"].tolist()]))
"""


def day(items_per_cluster):
    """Catalogue and histories of a day on which each cluster has so many items; the first ones are the same."""
    whole, walks = small_catalogue(), small_histories()
    here = [row for row in range(len(whole)) if row % PER_CLUSTER < items_per_cluster]
    catalogue = Catalogue(
        item_ids=tuple(whole.item_ids[row] for row in here),
        titles=tuple(whole.titles[row] for row in here),
        texts=tuple(whole.texts[row] for row in here),
        codes=whole.codes[here],
        level_sizes=whole.level_sizes,
        vectors={name: vectors[here] for name, vectors in whole.vectors.items()},
    )
    number = {row: place for place, row in enumerate(here)}
    items = tuple(
        np.array([number.get(int(row), number[int(row) - int(row) % PER_CLUSTER]) for row in walk])
        for walk in walks.items
    )
    times = tuple(1_700_000_000 + 86_400 * np.arange(len(walk)) for walk in items)
    return catalogue, replace(walks, items=items, times=times)


def plan_of(recipe, catalogue, histories):
    kind, known = settings_class(recipe), {field.name for field in fields(settings_class(recipe))}
    settings = kind(**{name: value for name, value in SMALL.items() if name in known})
    bare = Plan(recipe, settings, catalogue, None, None)
    return replace(
        bare, train=bare.build().training_examples(histories), valid=evaluation_examples(histories, "valid", 20)
    )


def trained(plan, **given):
    module = plan.build()
    return fit(module, *plan.sources(module), **given)


def losses(state):
    return [record["loss"] for record in state.records]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder for a bundle of each recipe."""
    return tmp_path_factory.mktemp("bundles")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_lives_through_a_kill_and_a_day_with_new_items(recipe, stored, tmp_path):
    catalogue, histories = day(items_per_cluster=PER_CLUSTER - 1)
    if not recipe_class(recipe).trainable:
        model = recipe_class(recipe)(settings_class(recipe)(), catalogue)
        model.fit_counts(histories)
        save_bundle(stored / recipe, model, {})
        return
    plan = plan_of(recipe, catalogue, histories)
    whole = trained(plan)
    cut = killed_after(whole.step // 2, tmp_path, lambda **given: trained(plan, **given))
    assert 0 < cut.step < whole.step
    resumed = trained(plan, state=cut)
    if recipe == "mendertok":  # A sentence's vector depends in its last bits on those encoded with it.
        assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    else:
        assert numbers(resumed) == numbers(whole)
        assert all(torch.equal(resumed.best[name], tensor) for name, tensor in whole.best.items())

    model = plan.build()
    model.load_trained_state(whole.best)
    save_bundle(stored / recipe, model, {})

    later = plan_of(recipe, *day(items_per_cluster=PER_CLUSTER))
    fresh = later.build()
    carried = carry_over(load_bundle(stored / recipe).recommender, fresh)
    assert (carried.items, carried.left) == (len(catalogue), ())
    continued = trained(replace(later, start=carried.tensors))
    assert continued.step == whole.step
    assert np.isfinite(losses(continued)).all()


def test_every_recipe_answers_the_same_in_another_process(stored):
    """After the tests of all recipes, in the order of this file."""
    histories, times = REQUESTS
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(stored), json.dumps(REQUESTS)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = {name: (items, scores) for name, items, scores in map(json.loads, done.stdout.splitlines())}
    assert set(told) == {folder.name for folder in stored.iterdir()}
    for name, (items, scores) in told.items():
        here = load_bundle(stored / name).recommend(
            histories, [None] * len(histories), 5, times=times, asked_at=[1_701_000_000] * len(histories)
        )
        assert [[item for item, _ in row] for row in here] == items, name
        flat = [score for row in here for _, score in row]
        assert flat == pytest.approx([score for row in scores for score in row], abs=1e-5), name
        assert all(len(set(row)) == 5 for row in items), name
