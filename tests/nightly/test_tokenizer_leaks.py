"""No tokenizer may learn from items that occur at no training position; each is fitted thrice, on Ray where it asks."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import ray
from held_out import vector_leaks

from infra.settings import load_settings
from ray_jobs.cluster import connect
from ray_jobs.recipes import recipe_class, settings_class
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.vectors import ArrayVectors
from schemas.recipes import of_kind


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    connect()
    yield
    ray.shutdown()


@pytest.mark.parametrize("recipe", sorted(of_kind("tokenizer")))
def test_codes_of_training_items_do_not_depend_on_the_others(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("PENCHANT_HOME", str(tmp_path))
    monkeypatch.setenv("PENCHANT_RAY__STORAGE", str(tmp_path / "ray_results"))
    settings = load_settings()
    rng = np.random.default_rng(0)
    vectors = (np.repeat(rng.normal(size=(8, 64)) * 4, 10, axis=0) + rng.normal(size=(80, 64))).astype(np.float32)
    training = np.arange(80) % 4 > 0
    kind = recipe_class(recipe, "tokenizer")
    runs = count()

    def fit(given):
        own = settings_class(recipe, "tokenizer")()
        if hasattr(own, "epochs"):
            own = replace(own, epochs=5)
        context = FitContext(
            training=training,
            version="v",
            ray=settings.ray,
            run_name=f"{recipe}-{next(runs)}",
            home=settings.home,
            stage="semantic_ids",
        )
        fitted = kind(own).fit(ArrayVectors(given), [f"i{n:02}" for n in range(80)], context)
        codes = fitted.codebook.codes[training][:, : fitted.quantised_levels]
        return {"codes": codes} | (
            {"reconstructions": fitted.quantiser.decode(codes)} if fitted.quantiser is not None else {}
        )

    assert vector_leaks(fit, vectors, training) == []
