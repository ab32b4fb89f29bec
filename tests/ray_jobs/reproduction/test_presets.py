"""The presets of every scale, cut down: each builds, takes a step and ranks on a CPU, in the small world."""

from dataclasses import asdict, fields

import pytest
from small_world import small_catalogue, small_histories

from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes import settings_class
from ray_jobs.reproduction.experiments import DEFAULTS, RECIPES, SCALES, make_experiment, recipe_of
from ray_jobs.training.loop import Hooks, fit
from ray_jobs.training.plan import Plan

SMALL = {
    "width": 8, "inner": 8, "head_width": 8, "layers": 1, "encoder_layers": 1, "negatives": 8, "batch_size": 16,
    "beams": 10, "evaluation_batch_size": 64,
}  # fmt: skip


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != DEFAULTS])
@pytest.mark.parametrize("label", [label for label in RECIPES if recipe_of(label) != "popularity"])
def test_a_preset_builds_takes_a_step_and_ranks(label, scale):
    known = {field.name for field in fields(settings_class(recipe_of(label)))}
    cut = {f"{label}.{name}": value for name, value in SMALL.items() if name in known}
    experiment = make_experiment("beauty", label, 0, scale, cut)
    preset = {name: value for name, value in SCALES[scale][label].items() if name not in SMALL}
    assert preset.items() <= asdict(experiment.settings).items()
    histories = small_histories()
    valid = evaluation_examples(histories, "valid", experiment.settings.max_history)
    plan = Plan(experiment.recipe, experiment.settings, small_catalogue(), (), valid)
    module = plan.build()
    plan = Plan(experiment.recipe, experiment.settings, plan.catalogue, module.training_examples(histories), valid)
    sources = plan.sources(module)
    state = fit(module, *sources, hooks=Hooks(stop=lambda: True))
    assert (state.step, state.epoch) == (1, 0)
    assert 0 < state.sums["loss"] < 1e4
    assert 0 <= module.judge(sources[1]) <= 1
