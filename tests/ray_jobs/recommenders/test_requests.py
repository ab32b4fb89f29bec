"""Numbers of requests: one place bounds them, whichever way they come."""

import tracemalloc
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from serving.small_versions import bundle_of
from spoken_to import Deaf, speechless, spoken_to

from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes import settings_class
from ray_jobs.recipes.generative import menderemb
from ray_jobs.recipes.generative.menderemb import MenderEmb
from ray_jobs.recipes.generative.mendertok import MenderTok
from ray_jobs.recommenders.bundle import Bundle
from ray_jobs.recommenders.requests import items_wanted, numbers, strengths
from ray_jobs.registry.served import ServedRecommender
from ray_jobs.serving.answering import Job, LoadedVersion, answer
from ray_jobs.serving.parsing import RecommendRequest, RequestError, parse
from schemas.columns import COLUMNS, EARLIEST, LATEST, MOST_ITEMS
from schemas.errors import DataError

NO_SECONDS = [10**30, -(10**30), 2**63, LATEST + 1, EARLIEST - 1, 1.5, float("nan"), float("inf"), "5", None, True]
NO_COUNTS = [0, -1, 2.5, float("nan"), "7", None, True]
NO_STRENGTHS = [-0.1, 10.1, 10**400, 1e308, float("nan"), float("inf"), "1", None, True]


@pytest.fixture
def served():
    model = ServedRecommender()
    model._bundle = bundle_of(1)
    return model


@pytest.mark.parametrize("wrong", NO_SECONDS)
def test_what_is_no_second_is_refused_by_place(wrong):
    with pytest.raises(DataError, match=r"times of history 3, position 1: .* is no second since 1970") as error:
        numbers(COLUMNS["times"], [5, wrong], "times of history 3")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("values", [[], [5, LATEST], [EARLIEST, -1], [5.0, 6], np.array([5, 6]), [np.int64(5)]])
def test_seconds_become_int64(values):
    found = numbers(COLUMNS["times"], values, "times")
    assert (found.dtype, found.tolist()) == (np.int64, [int(value) for value in values])


def test_seconds_beyond_the_bound_are_found_in_arrays_too():
    with pytest.raises(DataError, match="position 1"):
        numbers(COLUMNS["times"], np.array([5, 2**62]), "times")
    with pytest.raises(DataError, match="position 0"):
        numbers(COLUMNS["times"], np.array([2**63], dtype=np.uint64), "times")


@pytest.mark.parametrize("wrong", NO_COUNTS)
def test_what_is_no_count_is_refused(wrong):
    with pytest.raises(DataError, match=r"k is .*: a whole number of at least 1 is needed"):
        items_wanted(wrong, 5)


@pytest.mark.parametrize("wrong", NO_STRENGTHS)
def test_what_is_no_strength_is_refused(wrong):
    for strength in ([1.0, wrong], wrong):
        with pytest.raises(DataError, match="strength is "):
            strengths(strength, 2)


@pytest.mark.parametrize("k", [10**9, 10**30, np.int64(2**62)])
def test_a_list_is_bounded_by_the_catalogue_whoever_asks(served, k):
    tracemalloc.start()
    try:
        (answer,) = served._bundle.recommend([["i1"]], [None], k)
        frame = served.predict(None, pd.DataFrame({"history": [["i1"]]}), {"k": k})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(answer) == len(frame["item_ids"][0]) == 11
    assert peak < 2**20


def test_mlflows_interface_names_row_and_number(served):
    frame = pd.DataFrame({"history": [["i1"], ["i2"]], "times": [[1], [10**30]], "asked_at": [1, 2]})
    with pytest.raises(DataError, match="times of history 1, position 0"):
        served.predict(None, frame)
    for wrong in (10**30, 1e30, "now"):
        with pytest.raises(DataError, match="asked_at, position 1"):
            served.predict(None, frame.assign(times=[[1], [1]], asked_at=pd.Series([1, wrong], dtype=object)))
    for params in ({"k": 0}, {"strength": float("nan")}, {"strength": 11}):
        with pytest.raises(DataError, match=f"{next(iter(params))} is "):
            served.predict(None, frame[["history"]], params)
    for missing in ([1, None], [1, float("nan")], [1, pd.NA]):
        now = frame.assign(times=[[1], [1]], asked_at=pd.Series(missing, dtype=object))
        assert len(served.predict(None, now)) == 2, "what is missing is now"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"history": ["a"], "times": [1000000000000000000000000000000]}', "times.0"),
        (b'{"history": ["a"], "asked_at": -9223372036854775809}', "asked_at"),
        (b'{"history": ["a"], "k": 1000000000}', "k"),
        (b'{"history": ["a"], "strength": 1e309}', "strength"),
        (b'{"history": ["a"], "strength": NaN}', "strength"),
        (b'{"history": [' + b",".join([b'"a"'] * (MOST_ITEMS + 1)) + b"]}", "history"),
        (b'{"history": [' + b",".join([b"7"] * MOST_ITEMS) + b"]}", "history.0"),
        (b'{"history": [], "' + b"x" * 10_000 + b'": 1}', "x" * 60),
    ],
)
def test_a_server_refuses_the_same_before_any_model_hears_of_it(body, field):
    with pytest.raises(RequestError) as refused:
        parse(body)
    assert refused.value.field == field
    assert len(str(refused.value)) < 300
    assert isinstance(refused.value.status, int)


def test_a_sentence_is_read_to_its_end_or_refused(monkeypatch):
    """Words are the pieces of this encoder, which reads 64 with the two at the ends."""
    speechless(monkeypatch)
    served = ServedRecommender()
    served._bundle = spoken_to()
    whole, long = "quiet " * 62, "quiet " * 63
    assert served._bundle.truncation(whole) is None
    assert served._bundle.truncation(long) == "65 word pieces are more than the 64 that the model reads"
    assert spoken_to(steers=False).truncation(long) is None, "where nothing reads sentences, none is too long"
    frame = pd.DataFrame({"history": [["i00"]] * 2, "preference": [whole, long]})
    with pytest.raises(DataError, match="row 1, column 'preference': 65 word pieces"):
        served.predict(None, frame)
    assert len(served.predict(None, frame.rename(columns={"preference": "known"}))) == 2, "the table's is cut"
    asks = [RecommendRequest({"history": ("i00",), "preference": text}) for text in (whole, long)]
    good, refused = answer([Job(LoadedVersion("m/1", served._bundle, 0.0), ask) for ask in asks])
    assert good["item_ids"]
    assert (refused.field, refused.status) == ("preference", 422)


@pytest.mark.parametrize("kind", [MenderTok, MenderEmb])
def test_a_recipe_that_reads_sentences_itself_says_how_much(kind):
    items = tuple(f"i{n}" for n in range(12))
    titles = tuple(f"Title {n}" for n in range(12))
    codes = np.stack([np.arange(12) // 4, np.arange(12) % 4], axis=1)
    sizes = {"width": 8, "layers": 1, "heads": 1, "head_width": 8, "inner": 8}
    torch.manual_seed(0)
    model = kind(settings_class(kind.name)(**sizes), Catalogue(items, titles, titles, codes, (3, 4))).eval()
    encoder, most = model.preference_encoder
    if kind is MenderTok:
        (head, *_) = model.pieces([], "quiet " * (most - 2))
        assert encoder.count_tokens([head.text]) == [model.settings.text_length], "what stands around it fits, too"
    else:
        assert most == encoder.max_length
    bundle = Bundle(model, {})
    assert bundle.truncation("quiet " * (most - 2)) is None
    assert f"{most + 1} word pieces" in bundle.truncation("quiet " * (most - 1))


def test_ever_new_sentences_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(menderemb, "KEPT_SENTENCES", 3)
    model = SimpleNamespace(_preferences={}, _prepared=False, device=torch.device("cpu"), text_encoder=Deaf())
    model.text_encoder.to = lambda device: None
    for n in range(20):
        rows = MenderEmb._preference_vectors(model, [f"sentence {n}", "", "always"])
        assert rows.shape == (3, 2)
        assert len(model._preferences) <= 3 + 2


def test_a_decimal_is_no_number_of_a_request():
    with pytest.raises(DataError, match="k is Decimal"):
        items_wanted(Decimal(3), 5)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"histories": None}, "histories: None is no row"),
        ({"histories": [["i1"], None]}, "history 1: None is no row"),
        ({"histories": [["i1"], "i2"]}, "history 1: 'i2' is no row"),
        ({"histories": [["i1"], ["i2", ["i3"]]]}, r"history 1, position 1: \['i3'\] is no str"),
        ({"preferences": [None, 5]}, "preferences, position 1: 5 is no str"),
        ({"preferences": float("nan")}, "preferences: nan is no row"),
        ({"known": [None]}, "2 histories came with 1 known"),
        ({"known": [None, float("nan")]}, "known, position 1: nan is no str"),
        ({"times": [[1], None]}, "times of history 1: None is no row"),
        ({"times": [[1], 7]}, "times of history 1: 7 is no row"),
        ({"times": [[1], np.array([[1]])]}, "times of history 1: .* is no row"),
        ({"times": [[1], []]}, "times do not fit"),
        ({"times": 5}, "times: 5 is no row"),
        ({"asked_at": 5}, "asked_at: 5 is no row"),
        ({"asked_at": np.array(5)}, "asked_at: .* is no row"),
        ({"strength": np.array(11.0)}, "strength is "),
        ({"strength": np.ones((2, 2))}, "strength is "),
        ({"strength": np.ones(2, np.complex64)}, "strength is "),
    ],
)
def test_an_argument_of_the_wrong_form_is_refused_by_its_name(served, wrong, named):
    asked = {"histories": [["i1"], ["i2"]], "preferences": [None, None], "k": 1} | wrong
    with pytest.raises(DataError, match=named) as error:
        served._bundle.recommend(**asked)
    assert len(str(error.value)) <= 300


def test_a_strength_in_an_array_without_dimensions_is_a_number(served):
    assert strengths(np.array(1.5), 2) == [1.5, 1.5]
    assert served._bundle.recommend([["i1"]], [None], 1, strength=np.array(1.0))
