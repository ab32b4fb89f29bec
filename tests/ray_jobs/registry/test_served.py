import numpy as np
import pandas as pd
import pytest
import torch

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.sequential.hstu import HSTU, HSTUSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.bundle import save_bundle
from ray_jobs.registry.served import ServedRecommender
from schemas.errors import DataError


class Context:
    def __init__(self, path):
        self.artifacts = {"bundle": str(path)}


@pytest.fixture
def model(tmp_path):
    catalogue = Catalogue(("a", "b", "c"), ("Title a", "Title b", "Title c"), ("a", "b", "c"))
    recommender = Popularity(PopularitySettings(), catalogue)
    recommender.counts[:] = recommender.counts.new_tensor([3, 5, 1])
    served = ServedRecommender()
    served.load_context(context=Context(save_bundle(tmp_path / "bundle", recommender, {})))
    return served


def test_one_row_out_per_row_in(model):
    frame = pd.DataFrame({"history": [["b"], [], np.array(["zzz", "a"])]}, index=[7, 3, 5])
    answer = model.predict(None, frame)
    assert answer.index.tolist() == [7, 3, 5]
    assert answer["item_ids"].tolist() == [["a", "c"], ["b", "a", "c"], ["b", "c"]]
    assert answer["titles"].tolist()[0] == ["Title a", "Title c"]
    assert answer["scores"].tolist()[1] == [5.0, 3.0, 1.0]
    seen = model.predict(None, frame, {"k": 1, "exclude_seen": False})
    assert seen["item_ids"].tolist() == [["b"], ["b"], ["b"]]


def test_every_way_to_give_no_preference(model):
    frame = pd.DataFrame({"history": [["b"]] * 5, "preference": [None, float("nan"), pd.NA, " ", "I like c"]})
    assert model.predict(None, frame)["item_ids"].tolist() == [["a", "c"]] * 5


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ({"histories": [["a"]]}, "no column 'history'.*it has: histories"),
        ({"history": [["a"], "b"]}, "row 1, column 'history': 'b' is a str"),
        ({"history": [["a"], ["b", 7]]}, "row 1, column 'history', position 1: 7 is a int"),
        ({"history": [["a"]], "preference": [3]}, "row 0, column 'preference': 3 is a int"),
        ({"history": [["a"], ["b"]], "times": [[5], [5, 6]]}, "row 1, column 'times': give the second"),
    ],
)
def test_wrong_input_is_named(model, frame, words):
    with pytest.raises(DataError, match=words):
        model.predict(None, pd.DataFrame(frame))


def test_a_recipe_that_reads_times_is_given_those_of_the_items_it_knows(tmp_path):
    catalogue = Catalogue(("a", "b", "c"), ("a", "b", "c"), ("a", "b", "c"))
    torch.manual_seed(0)
    recommender = HSTU(HSTUSettings(max_history=2, width=8, layers=1), catalogue).eval()
    recommender.biases[0].by_time.data.normal_(std=5.0)
    served = ServedRecommender()
    served.load_context(context=Context(save_bundle(tmp_path / "bundle", recommender, {})))
    frame = pd.DataFrame({"history": [["a", "zzz", "b", "a"]], "times": [[1, 2, 3, 400]], "asked_at": [90_000]})
    wanted = {"k": 3, "exclude_seen": False}
    batch = make_batch([[1, 0]], [""], times=[[3, 400]], asked_at=[90_000])
    _, expected = recommender.topk(batch, 3)
    assert served.predict(None, frame, wanted)["scores"][0] == pytest.approx(expected[0].tolist(), abs=1e-6)
    later = served.predict(None, frame.assign(asked_at=[90_000_000]), wanted)["scores"][0]
    assert later != pytest.approx(expected[0].tolist(), abs=1e-4)
    with pytest.raises(DataError, match="hstu needs the times"):
        served.predict(None, frame[["history"]])


def test_k_below_one(model):
    with pytest.raises(DataError, match="k is 0"):
        model.predict(None, pd.DataFrame({"history": [["a"]]}), {"k": 0})
