"""Rules of requests: exactly the best of the allowed items come, whatever the recipe."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from small_training import SETTINGS
from small_world import CLUSTERS, PER_CLUSTER, small_catalogue

from infra.errors import SettingError
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.generative.tiger_decoder import TigerDecoderSettings
from ray_jobs.recipes.sequential.sasrec import SASRecSettings
from ray_jobs.recommenders.bundle import Bundle, load_bundle, save_bundle
from ray_jobs.recommenders.conditions import holds
from ray_jobs.recommenders.rules import Rules
from ray_jobs.registry.served import ServedRecommender
from ray_jobs.serving.answering import Job, LoadedVersion, answer
from ray_jobs.serving.parsing import RequestError, parse
from ray_jobs.stages.recommendations import RecommendationsSettings
from schemas.errors import DataError
from schemas.item_conditions import read_condition

ITEMS = pa.table(
    {
        "brand": pa.array(["Fender", None, "Gibson", "Fender"]),
        "categories": pa.array([["Music", "Guitars"], [], ["Music"], ["Guitars"]], pa.list_(pa.string())),
        "price": pa.array([20.0, 30.0, None, 80.0]),
    }
)


def catalogue():
    """Items whose price is their number, whose brand is that of their cluster."""
    numbers = np.arange(len(CLUSTERS) * PER_CLUSTER)
    attributes = {
        "brand": pa.array([CLUSTERS[number // PER_CLUSTER] for number in numbers]),
        "categories": pa.array([[f"kind {number % 2}"] for number in numbers], pa.list_(pa.string())),
        "price": pa.array(numbers.astype(float)),
    }
    return replace(small_catalogue(), attributes=pa.table(attributes))


def bundle(recipe):
    every = len(CLUSTERS) * PER_CLUSTER
    settings = {
        "sasrec": SASRecSettings(width=8, layers=1),
        "tiger": replace(SETTINGS, beams=every),
        "tiger_decoder": TigerDecoderSettings(width=16, heads=2, layers=1, beams=every),
    }[recipe]
    return Bundle(recipe_class(recipe)(settings, catalogue()).eval(), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('brand == "Fender"', [1, 0, 0, 1]),
        ('brand != "Fender"', [0, 0, 1, 0]),
        ('not brand == "Fender"', [0, 1, 1, 0]),
        ('brand in ["Gibson", "Ibanez"]', [0, 0, 1, 0]),
        ('"Guitars" in categories', [1, 0, 0, 1]),
        ('"Guitars" in categories and price <= 20', [1, 0, 0, 0]),
        ('price > 25 or brand == "Gibson"', [0, 1, 1, 1]),
        ("price >= 30 and price < 80", [0, 1, 0, 0]),
        ("price in (20, 80)", [1, 0, 0, 1]),
    ],
)
def test_a_condition_holds_for_these_items(text, expected):
    for rows in (ITEMS, pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)])):
        assert holds(read_condition(text), rows).astype(int).tolist() == expected


@pytest.mark.parametrize("recipe", ["sasrec", "tiger", "tiger_decoder"])
def test_the_best_of_the_allowed_items_come(recipe):
    model = bundle(recipe)
    histories = [["I00", "I11"], ["I20"], []]
    every = [[item for item, _ in row] for row in model.recommend(histories, [None] * 3, 30)]
    item_ids = model.catalogue.item_ids
    cases = [
        ({"where": ["price < 7"] * 3}, [set(item_ids[:7])] * 3),
        (
            {"where": ['brand == "tent"', "", "price > 27"]},
            [set(item_ids[10:15]), set(item_ids), set(item_ids[28:])],
        ),
        ({"allow": [["I43", "I02", "gone"], [], ["gone"]]}, [{"I43", "I02"}, set(item_ids), set()]),
        (
            {"allow": [list(item_ids[:9])] * 3, "deny": [["I01"], ["I02", "gone"], []], "where": ["price >= 1"] * 3},
            [set(item_ids[2:9]), set(item_ids[1:9]) - {"I02"}, set(item_ids[1:9])],
        ),
        ({"deny": None, "allow": None, "where": None}, [set(item_ids)] * 3),
    ]
    for given, allowed in cases:
        found = model.recommend(histories, [None] * 3, 6, **given)
        for row, may, order in zip(found, allowed, every, strict=True):
            assert [item for item, _ in row] == [item for item in order if item in may][:6], given


def test_as_many_items_come_as_are_wanted_and_allowed_with_few_beams():
    model = bundle("tiger")
    few = Bundle(recipe_class("tiger")(replace(SETTINGS, beams=10), catalogue()).eval(), {})
    few.recommender.load_state_dict(model.recommender.state_dict())
    for where, count in (
        ("price in (0, 2, 4, 6, 9, 12, 15, 18, 21, 24, 27, 29)", 10),
        ("price > 28", 1),
        ("price > 99", 0),
    ):
        (row,) = few.recommend([["I00"]], [None], 10, exclude_seen=False, where=[where])
        assert len({item for item, _ in row}) == count


def test_wrong_rules_are_refused():
    rules = Rules(catalogue())
    for given, told in (
        ({"where": ["price <"]}, "is no condition"),
        ({"where": [5]}, "where, position 0: 5 is no str"),
        ({"allow": ["I00"]}, "allow 0: 'I00' is no row of values"),
        ({"deny": [[1]]}, "deny 0, position 0: 1 is no str"),
        ({"deny": [[], []]}, "1 histories came with 2 deny"),
    ):
        with pytest.raises(DataError, match=told):
            rules.allowed(1, **given)
    with pytest.raises(DataError, match="knows no attributes of items: train it again"):
        Rules(small_catalogue()).allowed(1, where=["price < 5"])
    with pytest.raises(SettingError, match=r"recommendations\.where: 'price <' is no condition"):
        RecommendationsSettings(where="price <")


def test_a_stored_model_obeys_through_mlflow_and_the_server(tmp_path):
    save_bundle(tmp_path / "bundle", bundle("sasrec").recommender, {})
    served = ServedRecommender()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(tmp_path / "bundle")}))
    asked = {"history": [["I00"], ["I10"]], "where": ["price < 3", ""], "deny": [["I01"], []]}
    found = served.predict(None, pd.DataFrame(asked), {"k": 5})["item_ids"].tolist()
    assert set(found[0]) == {"I02"}
    assert len(found[1]) == 5

    live = LoadedVersion("penchant-tiny/1", load_bundle(tmp_path / "bundle"), 0.0)

    def ask(**body):
        (told,) = answer([Job(live, parse(json.dumps({"history": ["I00"], **body}).encode()))])
        return told

    assert set(ask(k=5, where='"kind 0" in categories and price < 7')["item_ids"]) == {"I02", "I04", "I11"}
    assert ask(k=5, allow=["I33"])["item_ids"] == ["I33"]
    wrong = ask(where="colour == 'red'")
    assert isinstance(wrong, RequestError)
    assert (wrong.field, wrong.status) == ("where", 422)
    for body in ({"where": "x" * 1_001}, {"allow": ["I00"] * 10_001}, {"deny": [1]}):
        with pytest.raises(RequestError) as refused:
            parse(json.dumps({"history": [], **body}).encode())
        assert refused.value.field.startswith(next(iter(body)))
