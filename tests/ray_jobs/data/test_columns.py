"""A new column is one declaration: it goes from `sequences` to a loss, through files, and from a request to a model."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from serving.small_versions import bundle_of
from small_world import small_catalogue

from ray_jobs.data.batches import InMemoryExamples, collate, make_batch, to_batch
from ray_jobs.data.example_tables import from_table, to_table
from ray_jobs.data.examples import examples_at, join_examples, training_examples
from ray_jobs.data.histories import read_histories
from ray_jobs.data.streamed_examples import write_examples
from ray_jobs.recommenders.requests import in_catalogue
from ray_jobs.registry.model import signature
from ray_jobs.registry.served import ServedRecommender
from ray_jobs.serving.answering import Job, LoadedVersion, answer
from ray_jobs.serving.parsing import RequestError, parse
from schemas.columns import COLUMNS, HISTORY, ExampleColumn, FromRequest, requested
from schemas.errors import DataError

STARS = ExampleColumn(
    name="stars",
    kind="float32",
    along=HISTORY,
    source="ratings",
    request=FromRequest(name="ratings", meaning="rating", low=1, high=5),
)
QUERY = ExampleColumn(
    name="query", kind="text", default="", request=FromRequest(name="query", meaning="search query", most=80)
)
PICTURE = ExampleColumn(
    name="picture", kind="float32", width=3, request=FromRequest(name="picture", meaning="number of an image vector")
)
CANDIDATES = ExampleColumn(
    name="candidates",
    kind="item",
    along="candidates",
    pad=-1,
    request=FromRequest(name="candidates", meaning="item id", most=5),
)
OFFERED = ExampleColumn(
    name="offered", kind="bool", along="candidates", request=FromRequest(name="offered", meaning="truth value")
)
NEW = (STARS, QUERY, PICTURE, CANDIDATES, OFFERED)
NAMES = [column.name for column in NEW]


@pytest.fixture
def declared(monkeypatch):
    for column in NEW:
        monkeypatch.setitem(COLUMNS, column.name, column)


def _histories(users=9):
    ids, rng = small_catalogue().item_ids, np.random.default_rng(0)
    rows = [
        {
            "user_id": f"u{user}",
            "item_ids": rng.choice(ids, 6).tolist(),
            "ratings": (rng.integers(2, 11, 6) / 2).tolist(),
            "occurred_at": [dt.datetime.fromtimestamp(1000 * user + n, dt.UTC) for n in range(6)],
            "valid_position": 4,
            "test_position": 5,
        }
        for user in range(users)
    ]
    return rows, read_histories(pa.Table.from_pylist(rows), small_catalogue())


def _examples():
    """Of each training position; what no table has is drawn."""
    rows, histories = _histories()
    examples = training_examples(histories, 2, True)
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, len(examples))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return rows, examples.with_columns(
        {"candidates": offsets},
        query=tuple(f"query {n}" for n in range(len(examples))),
        picture=rng.normal(size=(len(examples), 3)).astype(np.float32),
        candidates=rng.integers(30, size=offsets[-1]),
        offered=rng.random(offsets[-1]) < 0.5,
    )


def _rows(batch):
    """Every example with all its columns, without padding."""
    axes = {name: COLUMNS[name].along for name in batch.columns}
    return [
        {
            name: values[n]
            if isinstance(values, tuple)
            else values[n, : batch.sizes[axes[name]][n]].tolist()
            if axes[name]
            else values[n].tolist()
            for name, values in batch.columns.items()
        }
        for n in range(len(batch))
    ]


def _sorted(batches):
    return sorted((row for batch in batches for row in _rows(batch)), key=lambda row: row["query"])


def test_a_column_is_read_sliced_joined_padded_and_moved(declared):
    rows, examples = _examples()
    user, position = int(examples.users[4]), int(examples.positions[4])
    whole = _rows(to_batch(examples))
    assert whole[4]["stars"] == rows[user]["ratings"][max(0, position - 2) : position]
    chosen = np.array([7, 0, 4])
    batch = collate(examples, chosen)
    assert _rows(batch) == [whole[n] for n in chosen]
    assert set(NAMES) <= set(batch.columns)
    assert batch.columns["stars"].shape == batch.history.shape
    assert batch.columns["picture"].shape == (3, 3)
    assert (batch.columns["candidates"] >= 0).sum(1).tolist() == batch.sizes["candidates"].tolist()
    moved = batch.to(torch.device("meta"))
    assert {moved.columns[name].device.type for name in NAMES if name != "query"} == {"meta"}
    assert _rows(batch.rows(1, 3)) == [whole[0], whole[4]]
    parts = [examples.at(np.arange(5)), examples.at(np.arange(5, len(examples)))]
    assert _rows(to_batch(join_examples(parts))) == whole
    _, histories = _histories()
    plain = examples_at(histories, [(0, 1)], 5)
    both = join_examples([plain, examples])
    assert both.columns["query"] == ("", *examples.columns["query"]), "its default where a part lacks it"
    assert "picture" not in both.columns, "a column without a default is left out then"
    assert _rows(to_batch(both))[1]["stars"] == whole[0]["stars"]


def test_what_was_streamed_to_files_comes_back(declared, ray_session, tmp_path):
    _, examples = _examples()
    whole = _rows(to_batch(examples))
    assert _rows(to_batch(from_table(to_table(examples)))) == whole
    parts = [examples.at(np.arange(9)), examples.at(np.arange(9, 27))]
    source = write_examples(str(tmp_path / "examples"), parts, files=2, seed=0)
    expected = _sorted(InMemoryExamples(examples).batches(6, None))
    assert _sorted(source.batches(6, 1)) == expected
    assert len(expected) == len(whole) == 27


def test_the_signature_names_it(declared):
    inputs = {column["name"]: column for column in json.loads(signature().to_dict()["inputs"])}
    own = ["history", "preference", "known", "times", "asked_at", "allow", "deny", "where"]
    assert list(inputs) == [*own, *(c.request.name for c in NEW)]
    assert inputs["query"] == {"type": "string", "name": "query", "required": False}
    kinds = {name: inputs[name]["items"] for name in ("ratings", "picture", "candidates", "offered")}
    assert kinds == {
        "ratings": {"type": "double"},
        "picture": {"type": "double"},
        "candidates": {"type": "string"},
        "offered": {"type": "boolean"},
    }


GIVEN = {
    "history": ["i1", "gone", "i3"],
    "ratings": [1.5, 4.0, 5.0],
    "query": "kettle",
    "picture": [0.5, -1.0, 2.0],
    "candidates": ["i5", "gone", "i4"],
    "offered": [True, False, False],
}


@pytest.fixture
def heard(monkeypatch):
    """A served model, and the batches that it is asked with."""
    bundle, batches = bundle_of(1), []
    model = ServedRecommender()
    model._bundle = bundle
    topk = bundle.recommender.topk
    monkeypatch.setattr(bundle.recommender, "topk", lambda batch, *rest: (batches.append(batch), topk(batch, *rest))[1])
    return model, batches


def test_a_request_brings_it_to_the_model_whichever_way_it_comes(declared, heard):
    model, batches = heard
    model.predict(None, pd.DataFrame([GIVEN]))
    (served,) = answer([Job(LoadedVersion("m/1", model._bundle, 0.0), parse(json.dumps(GIVEN).encode()))])
    assert served["item_ids"]
    index = model._bundle.catalogue.index
    expected = make_batch(
        [[index["i1"], index["i3"]]],
        [""],
        stars=[[1.5, 5.0]],
        query=["kettle"],
        picture=[[0.5, -1.0, 2.0]],
        candidates=[[index["i5"], index["i4"]]],
        offered=[[True, False]],
    )
    assert len(batches) == 2
    for batch in batches:
        (found,) = _rows(batch)
        assert found == {**_rows(expected)[0], "strength": 1.0, "asked_at": found["asked_at"]}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"ratings": [1.0, 2.0, 6.0]}, "ratings.2", "less than or equal to 5"),
        ({"ratings": [1.0]}, "ratings", "1 ratings came for 3 items of the history"),
        ({"query": "x" * 81}, "query", "at most 80"),
        ({"picture": [0.5]}, "picture", "at least 3"),
        ({"candidates": ["i1"] * 6}, "candidates", "at most 5"),
        ({"offered": [True, False]}, "offered", "2 offered came for 3 items of the candidates"),
        ({"offered": [1, 0, 0]}, "offered.0", "valid boolean"),
    ],
)
def test_its_bounds_hold_in_the_server_and_in_mlflows_interface(declared, heard, changes, field, words):
    with pytest.raises(RequestError) as refused:
        parse(json.dumps(GIVEN | changes).encode())
    assert refused.value.field == field
    assert words in refused.value.problem
    if field.partition(".")[0] not in ("query", "candidates"):  # sizes of a request are the server's concern
        with pytest.raises(DataError, match=field.partition(".")[0].replace("ratings", "ratings|stars")):
            heard[0].predict(None, pd.DataFrame([GIVEN | changes]))


TIED = ExampleColumn(name="tied", kind="bool", along=HISTORY, source="tied_with_previous")
TIES = ExampleColumn(name="ties", kind="float32", along=HISTORY, source="tied_with_previous")


def test_two_columns_of_one_source_each_have_its_values_in_their_own_type(monkeypatch):
    for column in (TIED, TIES):
        monkeypatch.setitem(COLUMNS, column.name, column)
    rows, _ = _histories()
    table = pa.Table.from_pylist([row | {"tied_with_previous": [False, True] * 3} for row in rows])
    histories = read_histories(table, small_catalogue())
    (tied,), (ties,) = (histories.part(2, 3).values(column) for column in (TIED, TIES))
    assert (tied.dtype, ties.dtype) == (np.bool_, np.float32)
    assert tied.tolist() == ties.tolist() == [0, 1] * 3


BOUGHT = ExampleColumn(name="bought", kind="item", default=-1, request=FromRequest(name="bought", meaning="item id"))
DEALS = ExampleColumn(name="deals", kind="bool", default=False, request=FromRequest(name="deals", meaning="truth"))
ACTION = ExampleColumn(name="action", kind="int64", default=7, request=FromRequest(name="action", meaning="action"))
LOOK = ExampleColumn(name="look", kind="float32", width=2, default=0.5, request=FromRequest(name="look", meaning="x"))


def test_a_request_without_a_column_has_its_default(monkeypatch, heard):
    model, batches = heard
    for column in (BOUGHT, DEALS, ACTION, LOOK):
        monkeypatch.setitem(COLUMNS, column.name, column)
    model.predict(None, pd.DataFrame([{"history": ["i1"]}]))
    answer([Job(LoadedVersion("m/1", model._bundle, 0.0), parse(b'{"history": ["i1"]}'))])
    assert len(batches) == 2
    for batch in batches:
        (found,) = _rows(batch)
        wanted = {"bought": -1, "deals": False, "action": 7, "look": [0.5, 0.5]}
        assert {name: found[name] for name in wanted} == wanted
    given = {"bought": ["i2", None], "deals": [True, None], "action": [1, None], "look": [[0, 1], None]}
    found = in_catalogue({HISTORY: [["i1"], []], **given}, model._bundle.catalogue.index, 2)
    at = model._bundle.catalogue.index["i2"]
    assert list(found["bought"]) == [at, -1]
    assert [found[name].tolist() for name in ("deals", "action", "look")] == [[1, 0], [1, 7], [[0, 1], [0.5, 0.5]]]


def test_a_parameter_of_the_model_is_one_value_for_all_rows(monkeypatch, heard):
    model, batches = heard
    field = FromRequest(name="country", meaning="country", parameter=True)
    monkeypatch.setitem(COLUMNS, "place", ExampleColumn(name="place", kind="text", default="xx", request=field))
    frame = pd.DataFrame([{"history": ["i1"]}, {"history": ["i2"]}])
    model.predict(None, frame, {"country": "de", "strength": 0.5})
    model.predict(None, frame)
    assert [batch.columns["place"] for batch in batches] == [("de", "de"), ("xx", "xx")]
    assert [batch.columns["strength"].tolist() for batch in batches] == [[0.5, 0.5], [1.0, 1.0]]
    assert json.loads(signature().to_dict()["params"])[-1]["name"] == "country"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "float32", "source": "rating"}, "sequences has no column 'rating' .* it has item_ids, occurred_at, "),
        ({"kind": "int64", "source": "length"}, "no column 'length' with a value for each item"),
        ({"kind": "text", "source": "item_ids"}, "'item_ids' gives single values of kind item"),
        ({"kind": "int64", "source": "ratings"}, "'ratings' gives single values of kind float32"),
        ({"kind": "float32", "source": "ratings", "width": 2}, "'ratings' gives single values"),
        ({"kind": "float32", "source": "ratings", "along": "candidates"}, "along 'history' or at the target"),
        ({"kind": "float32", "along": HISTORY, "default": 0.0, "required": True}, "a required column needs a source"),
        ({"kind": "int64", "required": True}, "or a default for a single value"),
        (
            {"kind": "item", "default": -1, "request": FromRequest(name="x", meaning="id", parameter=True)},
            "a parameter is a number, bool or text with a default",
        ),
    ],
)
def test_a_declaration_that_cannot_be_read_is_refused(given, words):
    with pytest.raises(ValueError, match=f"column new: .*{words}"):
        ExampleColumn(name="new", **given)


def test_declarations_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="column q: a text is a single value"):
        ExampleColumn(name="q", kind="text", along=HISTORY)
    with pytest.raises(ValueError, match="column q: items have no width"):
        ExampleColumn(name="q", kind="item", width=3)


def test_a_second_column_of_an_axis_needs_the_first(monkeypatch):
    monkeypatch.setitem(COLUMNS, "offered", OFFERED)
    with pytest.raises(ValueError, match="column offered: declare the column candidates"):
        requested()
    monkeypatch.setitem(COLUMNS, "candidates", CANDIDATES)
    assert {"offered", "candidates"} <= {column.name for column, _ in requested()}
