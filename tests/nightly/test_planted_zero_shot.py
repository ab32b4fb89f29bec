"""A model that is trained on one catalogue and asked on another one; see `test_planted_recommenders`.

What it needs: pieces of the text vector that mean something alone. Where a rotation mixes them, product codes carry
over no better than those of RQ-VAE, and hardly better than the last item's neighbours. On the catalogue that it was
trained on, RQ-VAE is the better tokenizer in either space.
"""

from dataclasses import replace

import numpy as np
import planted_worlds as worlds
import pytest
import torch
from small_training import fit_vectors
from test_planted_recommenders import SEEDS, SMALL, assert_better, one_thread, popularity, score  # noqa: F401

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.recipes.generative.recgpt import RecGPT, RecGPTSettings
from ray_jobs.recipes.tokenizers.fsq import FSQSettings, FSQTokenizer
from ray_jobs.recipes.tokenizers.rqvae import RQVAESettings, RQVAETokenizer
from ray_jobs.recommenders.another_catalogue import on_another_catalogue
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.reproduction.baselines import NearestToLast
from ray_jobs.semantic_ids import Result, of_another_catalogue
from ray_jobs.tokenizers.autoencoder import AutoencoderQuantiser
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.stored import StoredTokenizer
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.loop import fit

SHAPE = SMALL | {"max_history": 8, "heads": 2, "inner": 64, "dropout": 0.1, "patience": 10}
QUICK, DEEP = {**SHAPE, "layers": 1, "epochs": 24}, {**SHAPE, "layers": 2, "epochs": 40}
BUDGET = {"levels": 4, "epochs": 100, "batch_size": 64, "learning_rate": 3e-3, "collisions": "list"}
FSQ = FSQTokenizer(FSQSettings(**BUDGET, grid=(4, 4, 4), decoder_heads=4, decoder_layers=1))
RQVAE = RQVAETokenizer(RQVAESettings(**BUDGET, codebook_size=64, latent_dim=16, hidden=(64,)))


class PlantedEncoder:
    """Knows the vectors of the planted texts."""

    name, dim = "planted", 32

    def __init__(self):
        self.known = {}

    def to(self, device):
        return self

    def encode(self, texts):
        return np.stack([self.known[text] for text in texts])


@pytest.fixture
def encoder(monkeypatch):
    made = PlantedEncoder()
    monkeypatch.setattr("ray_jobs.recipes.generative.recgpt.load_text_encoder", lambda name: made)
    return made


def tokenized(recipe, catalogue, vectors, seed):
    """The codebook that `recipe` makes of a catalogue, with its tokenizer."""
    mean, scale = vectors.mean(0), vectors.std(0)
    torch.manual_seed(seed)
    module = recipe.build(vectors.shape[1])
    module.load_trained_state(fit_vectors(recipe, (vectors - mean) / scale).trained)
    quantiser = AutoencoderQuantiser(module, mean, scale)
    codes = quantiser.encode(vectors)
    book = Codebook(list(catalogue.item_ids), codes, quantiser.level_sizes, recipe.name, "list")
    return Result(
        book,
        StoredTokenizer(
            recipe=recipe.name,
            settings=recipe.settings,
            encoder="planted",
            quantised_levels=codes.shape[1],
            quantiser=quantiser,
        ),
    )


def with_codes(catalogue, book):
    return catalogue.with_codes(dict(zip(book.item_ids, book.codes.tolist(), strict=True)), book.level_sizes)


def asked(recipe, settings, world, encoder):
    """NDCG@10 on the test split of the second catalogue after training on the first."""
    (own, vectors, histories), (other, others, foreign) = world
    for catalogue, found in ((own, vectors), (other, others)):
        encoder.known.update(zip(catalogue.texts, found, strict=True))
    known = tokenized(recipe, own, vectors, settings.seed)
    torch.manual_seed(settings.seed)
    model = RecGPT(settings, with_codes(own, known.codebook))
    valid = InMemoryExamples(evaluation_examples(histories, "valid", settings.max_history))
    model.load_trained_state(fit(model, InMemoryExamples(model.training_examples(histories)), valid).best)
    book = of_another_catalogue(known, list(other.item_ids), ArrayVectors(others))
    return score(on_another_catalogue(model, with_codes(other, book)), foreign)


def test_recgpt_carries_what_it_learned_to_a_catalogue_that_it_has_not_seen(encoder):
    better, learned, turned, nearest, popular = [], [], [], [], []
    for seed in SEEDS:
        world, settings = worlds.two_catalogues(seed), RecGPTSettings(**QUICK, seed=seed)
        better.append(asked(FSQ, settings, world, encoder))
        learned.append(asked(RQVAE, settings, world, encoder))
        turned.append(asked(FSQ, settings, worlds.two_catalogues(seed, turned=True), encoder))
        catalogue, vectors, histories = world[1]
        nearest.append(score(NearestToLast(RecipeSettings(), catalogue, torch.from_numpy(vectors)), histories))
        popular.append(popularity(histories, catalogue))
    for worse in (learned, turned, nearest, popular):
        assert_better(better, worse, 0.05)


def test_recgpt_needs_the_later_codes_of_an_item_for_its_earlier_ones(encoder):
    better, causal = [], []
    for seed in SEEDS:
        world, settings = worlds.two_catalogues(seed), RecGPTSettings(**DEEP, seed=seed)
        better.append(asked(FSQ, settings, world, encoder))
        causal.append(asked(FSQ, replace(settings, attends="token"), world, encoder))
    assert_better(better, causal, 0.04)
