"""How much a stage is about to read."""

import pytest

from schemas.addresses import bytes_below
from schemas.dataset import Dataset
from schemas.handoff import Handoff
from schemas.input_size import input_bytes
from schemas.stage_request import StageRequest


@pytest.fixture
def shop(tmp_path):
    for name, size in {"landing/reviews-2026-01-31.csv": 700, "landing/items.csv": 30, "tables/reviews/a": 5}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    files = {name: str(tmp_path / "landing" / f"{name}.csv") for name in ("reviews-{partition}", "items")}
    reviews, items = files.values()
    Dataset(name="shop", format="columns", reviews=reviews, items=items).save(str(tmp_path / "datasets"))
    return tmp_path


def size(folder, stage, **changes):
    request = StageRequest(**{"stage": stage, "dataset": "shop", "partition": "2026-01-31", **changes})
    return input_bytes(request, str(folder / "datasets"), str(folder / "tables"))


def test_ingest_reads_the_days_files_and_other_stages_what_they_are_given(shop):
    assert size(shop, "ingest") == 730
    given = Handoff(table="items", uri=str(shop / "landing"), version=0, rows=1, schema_hash="")
    assert size(shop, "sequences", inputs={"items": given}) == 730
    assert size(shop, "sequences") == 5, "without hand-offs, all tables of the data set"
    assert bytes_below(str(shop / "nothing")) == 0


def test_what_cannot_be_told_is_unknown_and_no_error(shop):
    assert size(shop, "ingest", dataset="other") is None
    away = Handoff(table="items", uri="unknown://x/items", version=0, rows=1, schema_hash="")
    assert size(shop, "sequences", inputs={"items": away}) is None
