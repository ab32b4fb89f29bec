from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from infra.errors import SettingError
from ray_jobs import register
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.recipes.generative.menderemb import MenderEmb, MenderEmbSettings
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recommenders.bundle import load_bundle
from ray_jobs.registry import runs, versions
from ray_jobs.registry.judging import choose
from ray_jobs.registry.results import read_results, results_of_version
from ray_jobs.registry.settings import PromotionSettings
from ray_jobs.train import start_from
from ray_jobs.training.plan import Plan
from ray_jobs.training.warm_start import carry_over
from schemas.errors import DataError
from schemas.recipes import RECIPES, Need, learned_vectors

NAME = "penchant-tiny"
SETTINGS = SASRecSettings(max_history=6, width=8, layers=1, evaluation_batch_size=5, seed=7)
TABLE = 31 * 8


def _catalogue(items):
    return Catalogue(tuple(items), tuple(f"Title of {item}" for item in items), tuple(items))


def _sasrec(items, settings=SETTINGS):
    torch.manual_seed(settings.seed)
    return SASRec(settings, _catalogue(items))


def _coded(codes, settings):
    catalogue = _catalogue([f"i{n}" for n in range(len(codes))])
    sizes = [max(column) + 1 for column in zip(*codes, strict=True)]
    return Tiger(settings, catalogue.with_codes({f"i{n}": code for n, code in enumerate(codes)}, sizes))


def test_a_run_begins_with_a_registered_version_and_a_retry_with_the_same(registered, request_of):
    world, request, report = registered
    old = load_bundle(request.upstream["train_recommender.bundle_uri"]).recommender
    items = ["a0", *old.catalogue.item_ids[5:], "z9"]
    plan = Plan("sasrec", replace(SETTINGS, warm_start=f"models:/{NAME}@champion"), _catalogue(items), None, None)
    run_id = runs.find_or_start(world.settings, request_of(generation=9), "again", {})
    plan, begun = start_from(world.settings, request_of(), "", plan, plan.build(), run_id, plan.settings.warm_start)
    assert begun["version"] == f"{NAME}/{report.outputs['version']}"
    assert begun["items"] == 25
    model, untrained = plan.build(), replace(plan, start=None).build()
    for row, item in enumerate(items):
        source = old.items.weight[1 + old.catalogue.index[item]] if item in old.catalogue.index else None
        expected = untrained.items.weight[1 + row] if source is None else source
        assert torch.equal(model.items.weight[1 + row], expected)
    rest = [name for name in old.state_dict() if name != "items.weight"]
    assert all(torch.equal(model.state_dict()[name], old.state_dict()[name]) for name in rest)
    assert begun["numbers"] == begun["of_numbers"] - 2 * 8
    assert begun["left"] == []

    client = MlflowClient()
    assert client.get_run(run_id).data.tags["penchant.warm_start"] == begun["version"]
    client.delete_registered_model_alias(NAME, "champion")
    again = start_from(world.settings, request_of(), "", plan, plan.build(), run_id, plan.settings.warm_start)
    assert again[1] == begun, "an alias that moved moves no retry"


def test_a_model_that_was_trained_on_what_is_held_out_is_refused(registered, request_of):
    world, _, _ = registered
    plan = Plan("sasrec", SETTINGS, _catalogue(["a0"]), None, None)
    client = MlflowClient()
    for changes, version, said in (
        ({"partition": "2026-01-30"}, "", r"trained on 2026-01-31, .* test items of 2026-01-30: name a version"),
        ({}, "ties-shuffled-0", "histories 'as they are', and this run's are 'ties-shuffled-0'"),
    ):
        run_id = runs.find_or_start(world.settings, request_of(**changes, generation=9), "again", {})
        with pytest.raises(DataError, match=said):
            start_from(world.settings, request_of(**changes), version, plan, plan.build(), run_id, f"{NAME}/1")
        assert "penchant.warm_start" not in client.get_run(run_id).data.tags


def test_a_version_says_what_it_began_with(registered):
    world, request, _ = registered
    bundle = load_bundle(request.upstream["train_recommender.bundle_uri"])
    began = replace(bundle, provenance={"warm_start": {"version": "penchant-tiny/1"}})
    everything = read_results(world.settings, request)
    choice = choose(everything, request.upstream, PromotionSettings())
    own, _ = results_of_version(everything, choice.trained.identity, request, "")
    content = SimpleNamespace(
        results=own, partition=request.partition, recipe=bundle.recipe, codebook="", dataset=request.dataset
    )
    run = MlflowClient().get_run(choice.trained.run_id)
    assert register._tags(request, choice, content, began, run)["penchant.warm_start"] == "penchant-tiny/1"
    assert "penchant.warm_start" not in register._tags(request, choice, content, bundle, run)


def test_what_does_not_fit_stays_as_it_was_and_is_named():
    old, new = _sasrec(["a", "b"]), _sasrec(["b", "c"], replace(SETTINGS, max_history=9))
    carried = carry_over(old, new)
    assert carried.left == ("positions.weight",)
    assert torch.equal(carried.tensors["positions.weight"], new.positions.weight)
    assert carried.numbers[0] == carried.numbers[1] - 9 * 8 - 8, "all but the positions and the new item"
    new.load_trained_state(carried.tensors)


@pytest.mark.parametrize("name", [name for name, entry in RECIPES.items() if entry.kind == "recommender"])
def test_every_recipe_says_which_of_its_tensors_go_by_item(name):
    all_settings = {field.name for field in fields(settings_class(name))}

    def shapes(items):
        ids = [f"i{n}" for n in range(items)]
        codes = {i: (n % 7, n // 7) for n, i in enumerate(ids)}
        settings = settings_class(name)(**({"dense": True} if "dense" in all_settings else {}))
        learned = {key: np.ones((items, 6), np.float32) for key in learned_vectors(Need)}
        model = recipe_class(name)(settings, replace(_catalogue(ids).with_codes(codes, [7, 7]), vectors=learned))
        return {key: tensor.shape for key, tensor in model.trained_state().items()}, model

    (few, model), (many, _) = shapes(23), shapes(29)
    by_item = {key for key in few if few[key] != many[key]}
    assert by_item == {*model.item_rows, *model.computed}
    assert not model.computed & {*model.item_rows}


def test_what_is_computed_from_the_catalogue_is_computed_anew():
    """A title's vector goes neither by row nor by item: titles change, too."""
    settings = MenderEmbSettings(width=16, heads=2, head_width=8, inner=32, layers=1)

    def model(ids):
        catalogue = Catalogue(tuple(ids), tuple(f"Title {n} of {i}" for n, i in enumerate(ids)), tuple(ids))
        return MenderEmb(settings, catalogue.with_codes({i: (n,) for n, i in enumerate("abcd")}, [4]))

    old, new = model("abc"), model("bcd")
    first = old._title_vectors().clone()
    new.load_trained_state(carry_over(old, new).tensors)
    assert torch.equal(new.projection.weight, old.projection.weight)
    assert torch.allclose(new._title_vectors(), model("bcd")._title_vectors())
    assert not torch.allclose(new._title_vectors(), first, atol=1e-3)


def test_what_cannot_begin_is_refused():
    with pytest.raises(DataError, match="names a model of recipe popularity, and sasrec is to be trained"):
        carry_over(Popularity(SETTINGS, _catalogue("ab")), _sasrec("ab"))
    with pytest.raises(DataError, match=r"none of the .* tensors of the old model .* this sasrec"):
        carry_over(_sasrec("ab", replace(SETTINGS, width=16)), _sasrec("ab"))
    settings = TigerSettings(width=16, heads=2, head_width=8, inner=32, layers=1, encoder_layers=1)
    old, same = _coded([(0, 1), (1, 0)], settings), _coded([(0, 1), (1, 0)], settings)
    assert carry_over(old, same).items == 2
    with pytest.raises(DataError, match=r"other semantic ids, e\.g\. 'i1'"):
        carry_over(old, _coded([(0, 1), (1, 1)], settings))
    with pytest.raises(DataError, match=r"other semantic ids of levels \(2, 2\)"):
        carry_over(old, _coded([(0, 2), (1, 0)], settings))


def test_a_version_that_is_not_there_is_named_with_those_that_are(registered):
    client = MlflowClient()
    assert str(versions.resolve(client, f"{NAME}/1").version) == "1"
    for reference in (f"{NAME}/7", f"{NAME}@nobody", "models:/other/1"):
        with pytest.raises(SettingError, match=rf"no model version '{reference}'; it has: {NAME} \['challenger'"):
            versions.resolve(client, reference)
    for reference in ("penchant", "penchant@", "/3"):
        with pytest.raises(SettingError, match="write <name>/<version> or <name>@<alias>"):
            versions.resolve(client, reference)
