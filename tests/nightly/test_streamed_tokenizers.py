"""Every quantiser on vectors that Ray Data streams: as good as in memory, the same twice, blind to what is held out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
from planted_warehouse import IDENTITY

from infra.errors import UserError
from infra.settings import load_settings
from ray_jobs.cluster import connect
from ray_jobs.data.tables import upsert
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.semantic_ids import _streamed
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors, DatasetVectors, take
from schemas.item_vectors import ITEM_VECTORS
from schemas.stage_request import StageRequest
from schemas.table_seal import MARK, NAME

TRAINED = {"epochs": 15, "batch_size": 16, "learning_rate": 1e-2, "hidden": (32,)}
SETTINGS = {
    "rqkmeans": {"levels": 2, "codebook_size": 6},
    "balanced_kmeans": {"levels": 2, "codebook_size": 6},
    "fsq": {"form": "residual", "levels": 2, "grid": (4, 4), **TRAINED},
    "rqvae": {"levels": 2, "codebook_size": 6, "latent_dim": 4, **TRAINED},
}
TRAINING = np.arange(120) % 4 > 0


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    connect()
    yield
    ray.shutdown()


def mixture():
    random = np.random.default_rng(0)
    rows = np.repeat(random.normal(size=(6, 12)) * 4, 20, axis=0) + random.normal(size=(120, 12))
    return rows.astype(np.float32)


def streamed(array):
    order = np.random.default_rng(1).permutation(len(array))
    blocks = [pa.table({"row": part, "vector": list(array[part])}) for part in np.array_split(order, 4)]
    return DatasetVectors(ray.data.from_arrow(blocks), array.shape)


@pytest.mark.parametrize("recipe", SETTINGS)
def test_a_streamed_fit_is_as_good_as_one_in_memory_and_does_not_leak(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    monkeypatch.setenv("PENCHANT_RAY__STORAGE", str(tmp_path / "ray_results"))
    settings, kind = load_settings(), recipe_class(recipe, "tokenizer")

    def fit(vectors, name):
        context = FitContext(
            training=TRAINING, version="v", ray=settings.ray, run_name=name, home=settings.home, stage="semantic_ids"
        )
        return kind(settings_class(recipe, "tokenizer")(**SETTINGS[recipe])).fit(
            vectors, [f"i{n:03}" for n in range(120)], context
        )

    def explained(fitted):
        decoded = fitted.quantiser.decode(fitted.codebook.codes[:, : fitted.quantised_levels])
        seen = vectors[TRAINING]
        return 1 - np.square(seen - decoded[TRAINING]).sum() / np.square(seen - seen.mean(0)).sum()

    vectors = mixture()
    held, first = fit(ArrayVectors(vectors), "held"), fit(streamed(vectors), "first")
    assert explained(first) > 0.5
    assert abs(explained(first) - explained(held)) < 0.15
    poisoned = np.where(TRAINING[:, None], vectors, np.float32(30))
    again = fit(streamed(poisoned), "again")
    assert again.records == first.records
    assert (again.codebook.codes[TRAINING] == first.codebook.codes[TRAINING]).all()
    if recipe in ("rqvae", "fsq"):
        assert fit(streamed(poisoned), "first").reused, "its training items are those of the first run"
        with pytest.raises(UserError, match="other settings or data"):
            fit(streamed(vectors + np.float32(1)), "first")


def test_vectors_are_streamed_from_their_table_and_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    settings, vectors = load_settings(), mixture()
    ids = [f"i{n:03}" for n in range(120)]
    uri = settings.table_uri("shop", "item_vectors")
    for encoder, some in (("a/b", ids[:70]), ("a/b", ids[70:]), ("other", ids)):
        rows = pa.table(
            {
                "item_id": some,
                "content_hash": some,
                "vector": pa.array([vectors[ids.index(item)] for item in some], pa.list_(pa.float32())),
            }
        )
        upsert(rows, ITEM_VECTORS, uri, {"encoder": encoder}, IDENTITY)
    request = StageRequest(stage="semantic_ids", dataset="shop", partition="2026-01-31")
    known = pa.array(ids[5:])
    read = take(_streamed(settings, request, "a/b", known), np.arange(115))
    assert (read == vectors[5:]).all()
    for name in (NAME, MARK):
        Path(uri, name).unlink()
    path = max(Path(uri).rglob("encoder=a*/*.parquet"))
    path.write_bytes(path.read_bytes()[:4] + b"\xff" * 60 + path.read_bytes()[64:])
    with pytest.raises(Exception, match=r"item_vectors at .* is damaged .*Restore that file"):
        take(_streamed(settings, request, "a/b", known), np.arange(115))
