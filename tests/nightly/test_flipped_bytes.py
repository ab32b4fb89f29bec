"""A flipped bit at forty places and more of every kind of file that a home keeps: refused or equal, never other.

Registrations and profiles are not among them: people edit those by hand, so that nothing can tell an edit from damage.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from odd_one_out import load_adapter
from planted_warehouse import IDENTITY
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf
from ray.train import Checkpoint
from small_training import small_fit, small_plan
from small_world import small_catalogue, small_histories
from test_damage import sweep

from infra.settings import RaySettings
from pipelines.damaged_files import damage_named
from pipelines.delta_tables import append_rows, read_table, write_partition
from ray_jobs.data.examples import training_examples
from ray_jobs.data.streamed_examples import write_examples
from ray_jobs.data.tables import publish
from ray_jobs.data.tables import read_table as read_arrow
from ray_jobs.denoiser.base import load_base, save_base, tiny_config, tiny_model, tiny_tokenizer
from ray_jobs.denoiser.lora import add_adapter, save_adapter
from ray_jobs.denoiser.settings import DenoiserSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.tokenizers.rqkmeans import RQKMeansTokenizer
from ray_jobs.recipes.tokenizers.settings import RQKMeansSettings
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.tokenizers import stored
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.ray_train import load_state, save_state
from schemas.handoff import Handoff, StageReport, read_report, write_report
from schemas.item_vectors import ITEM_VECTORS
from schemas.quarantine import QUARANTINE

PLACES = 60


def all_hold(folder: Path, read: Callable[[], Any], places: int = PLACES, pattern: str = "*") -> None:
    """Sweep every file below `folder`; `read` gives something that can be compared."""
    paths = [path for path in sorted(folder.rglob(pattern)) if path.is_file()]
    assert paths
    for path in paths:
        found = sweep(path, read, places)
        assert not found["other"], (path.name, found)
        assert not found["wordy"], (path.name, found)


def test_tables_of_tensor_jobs(tmp_path: Path) -> None:
    uri = str(tmp_path / "item_vectors")
    for day in range(3):
        rows = pa.table(
            {
                "item_id": pa.array([f"i{n:03}" for n in range(300)], pa.string()),
                "content_hash": pa.array([str(n * n) for n in range(300)], pa.string()),
                "vector": pa.array(np.full((300, 4), day, np.float32).tolist(), pa.list_(pa.float32())),
            }
        )
        publish(rows, ITEM_VECTORS, uri, {"encoder": f"e{day % 2}"}, IDENTITY)

    def read() -> list[Any]:
        rows = read_arrow(uri, filters=[("item_id", "<", "i250")])
        return rows.sort_by([("encoder", "ascending"), ("item_id", "ascending")]).to_pylist()

    all_hold(Path(uri), read)


def test_tables_of_spark_without_hadoops_sums(spark: SparkSession, tmp_path: Path) -> None:
    uri = str(tmp_path / "quarantine")
    frame = spark.range(40).select(
        sf.concat(sf.lit("r"), "id").alias("row_key"),
        sf.lit("bad_date").alias("reason"),
        sf.lit("d").alias("detail"),
        sf.concat(sf.lit("line "), sf.col("id") * 7).alias("raw"),
    )
    day = sf.to_date(sf.lit("2026-01-01"))
    rows = frame.select(sf.lit("ingest").alias("stage"), "*", day.alias("partition_date"))
    append_rows(spark, rows, QUARANTINE, uri, IDENTITY)
    where = {"partition_date": dt.date(2026, 1, 1), "stage": "ingest"}
    write_partition(spark, rows.where("row_key <> 'r3'"), QUARANTINE, uri, where, IDENTITY)
    for path in list(Path(uri).rglob(".*.crc")):
        path.unlink()

    def read() -> list[Any]:
        with damage_named(spark):
            return read_table(spark, uri).where("row_key < 'r38'").orderBy("row_key").toArrow().to_pylist()

    all_hold(Path(uri), read, 40)
    all_hold(Path(uri), lambda: read_arrow(uri).sort_by("row_key").to_pylist(), 200)


def _said(content: Any) -> str:
    torch.set_printoptions(profile="full")
    return str(content)


def test_bundles_tokenizers_and_reports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = save_bundle(tmp_path / "bundle", SASRec(SASRecSettings(width=16), small_catalogue()).eval(), {"a": 1})

    def of_bundle() -> Any:
        loaded = load_bundle(bundle)
        weights = {name: tensor.tolist() for name, tensor in loaded.recommender.trained_state().items()}
        return loaded.catalogue.texts, loaded.catalogue.item_ids, loaded.settings, loaded.provenance, str(weights)

    all_hold(bundle, of_bundle)

    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    settings = RQKMeansSettings(levels=2, codebook_size=6)
    home = str(tmp_path / "home")
    fitting = FitContext(
        training=np.ones(60, bool), version="v", ray=RaySettings(), run_name="r", home=home, stage="semantic_ids"
    )
    fitted = RQKMeansTokenizer(settings).fit(ArrayVectors(vectors), [f"i{n}" for n in range(60)], fitting)
    one = stored.StoredTokenizer(
        recipe="rqkmeans", settings=settings, encoder="e", quantised_levels=2, quantiser=fitted.quantiser
    )
    stored.save(str(tmp_path / "tokenizer"), one)

    def of_tokenizer() -> Any:
        loaded = stored.load(str(tmp_path / "tokenizer"))
        assert loaded is not None
        assert loaded.quantiser is not None
        tensors = {name: np.asarray(value).tolist() for name, value in loaded.quantiser.tensors().items()}
        return loaded.recipe, loaded.settings, loaded.encoder, str(tensors)

    all_hold(tmp_path / "tokenizer", of_tokenizer)

    handoff = Handoff(table="items", uri="/w/items", version=3, rows=7, schema_hash="b")
    report = StageReport(stage="ingest", status="done", handoffs={"items": handoff}, counts={"rows": 7})
    write_report(str(tmp_path / "reports" / "r.json"), report)
    all_hold(tmp_path / "reports", lambda: read_report(str(tmp_path / "reports" / "r.json")), 400)


def test_adapters_and_bases(tmp_path: Path) -> None:
    settings = DenoiserSettings()
    tokenizer = tiny_tokenizer(["a tent", "a lamp and a kettle"], 300)
    save_base(tmp_path / "base", tiny_model(tiny_config(tokenizer, settings), 0), tokenizer)
    save_adapter(tmp_path / "adapter", add_adapter(load_base(f"hub:{tmp_path / 'base'}"), settings))

    def read() -> Any:
        model = load_adapter(f"hub:{tmp_path / 'base'}", tmp_path / "adapter")
        return {name: tensor.sum().item() for name, tensor in model.state_dict().items()}

    all_hold(tmp_path / "adapter", read, 40)
    all_hold(tmp_path / "base", read, 40)


def test_training_states_and_streamed_examples(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    save_state(tmp_path / "state", small_fit(small_plan()))
    checkpoint = Checkpoint.from_directory(tmp_path / "state")
    all_hold(tmp_path / "state", lambda: _said(vars(load_state(checkpoint))))

    folder = tmp_path / "examples"
    examples = training_examples(small_histories(), 20, True)

    def read() -> Any:
        source = write_examples(str(folder), [examples], 2, 0)
        return source.rows, source.preferences

    read()
    all_hold(folder, read)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_cut_file_is_refused_like_a_flipped_one(tmp_path: Path, size: int) -> None:
    from schemas.errors import DataError

    bundle = save_bundle(tmp_path / "bundle", SASRec(SASRecSettings(width=16), small_catalogue()).eval(), {"a": 1})
    for path in sorted(bundle.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            load_bundle(bundle)
        path.write_bytes(whole)
