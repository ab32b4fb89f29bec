"""What ProRec learns beside codes: the vectors of its targets."""

from dataclasses import replace

import pytest
import torch
from small_world import small_catalogue
from torch.nn import functional

from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.generative.prorec import ProRec
from ray_jobs.recipes.generative.settings import ProRecSettings, TigerSettings
from ray_jobs.recipes.generative.tiger import Tiger
from schemas.errors import DataError

SMALL = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "encoder_layers": 1}


def prorec(catalogue=None, **given):
    torch.manual_seed(0)
    return ProRec(ProRecSettings(**SMALL, **given), catalogue or small_catalogue()).eval()


def some_batch():
    return make_batch([[1, 7], [2], [3, 9]], ["", "", ""], targets=[4, 11, 4])


def test_distillation_is_the_mean_of_the_whole_and_of_both_parts():
    model, batch = prorec(distill_temperature=0.5), some_batch()
    states = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.more_losses(states, batch)["distill"]
        mapped, vectors = model.to_vectors(states.mean(1)), model.vectors[[4, 11]]
        expected = []
        for part in (slice(None), slice(0, 6), slice(6, 12)):
            queries, keys = (
                functional.normalize(mapped[:, part], dim=-1),
                functional.normalize(vectors[:, part], dim=-1),
            )
            # Rows 0 and 2 have the same target, which is no negative of itself.
            expected.append(functional.cross_entropy(queries @ keys.T / 0.5, torch.tensor([0, 1, 0])))
    assert torch.allclose(found, torch.stack(expected).mean())


def test_the_loss_says_its_parts_and_without_weight_it_is_tigers():
    model, batch = prorec(distill_weight=0.5), some_batch()
    losses = model.loss(batch)
    assert torch.allclose(losses["loss"], losses["codes"] + losses["distill"])
    assert torch.allclose(prorec(distill_weight=1.0).loss(batch)["distill"], 2 * losses["distill"])
    plain = prorec(replace(small_catalogue(), vectors={}), distill_weight=0.0)
    torch.manual_seed(0)
    tiger = Tiger(TigerSettings(**SMALL), small_catalogue()).eval()
    assert set(plain.loss(batch)) == {"loss"}
    assert torch.equal(plain.loss(batch)["loss"], tiger.loss(batch)["loss"])


def test_without_vectors_it_is_refused():
    with pytest.raises(DataError, match="prorec needs fused_vectors: run the stage semantic_ids"):
        prorec(replace(small_catalogue(), vectors={}))
