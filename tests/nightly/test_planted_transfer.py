"""Codes for a domain that the tokenizer has not seen: a fixed grid keeps items apart where learned centres do not.

RecGPT's reason for finite scalar quantisation. Items of two domains say different things with the same words; both
tokenizers learn on the first domain, with as many codes per level. What they do not show: neither gives the other
domain's vectors back (explained variance below .3), and RQ-VAE gives those of its own back better.
"""

import numpy as np
import torch
from small_training import fit_vectors

from ray_jobs.recipes.tokenizers.fsq import FSQSettings, FSQTokenizer
from ray_jobs.recipes.tokenizers.rqvae import RQVAESettings, RQVAETokenizer

SEEDS = (0, 1, 2)
WIDTH, WORDS, GROUPS, PER_GROUP = 32, 60, 12, 40
BUDGET = {"levels": 4, "epochs": 150, "batch_size": 64, "learning_rate": 3e-3}
FSQ = FSQSettings(**BUDGET, grid=(4, 4, 4), decoder_heads=4, decoder_layers=1)
RQVAE = RQVAESettings(**BUDGET, codebook_size=64, latent_dim=16, hidden=(64,))


def domain(words, rng):
    """Vectors float32[items, WIDTH], each the mean of four of its group's six words and noise; and the groups."""
    rows, groups = [], np.repeat(np.arange(GROUPS), PER_GROUP)
    for _ in range(GROUPS):
        own = rng.choice(WORDS, 6, replace=False)
        for _ in range(PER_GROUP):
            said = rng.choice(own, 4, replace=False)
            rows.append(2 * words[said].mean(0) + 0.15 * rng.normal(size=WIDTH))
    return np.array(rows, dtype=np.float32), groups


def distinct(codes):
    """Share of items with codes that no earlier item has."""
    return len({tuple(row) for row in codes.tolist()}) / len(codes)


def kept_together(codes, groups):
    """Share of an item's nearest others, by the number of equal codes, that are of its group."""
    apart = (codes[:, None] != codes[None]).sum(2).astype(float)
    np.fill_diagonal(apart, np.inf)
    nearest = apart == apart.min(1, keepdims=True)
    same = groups[:, None] == groups[None]
    return float(((nearest & same).sum(1) / nearest.sum(1)).mean())


def test_a_fixed_grid_tells_items_of_an_unseen_domain_apart():
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        words = rng.normal(size=(WORDS, WIDTH))
        seen, _ = domain(words, rng)
        unseen, groups = domain(words, rng)
        mean, scale = seen.mean(0), seen.std(0)
        kept, together = {}, {}
        for recipe in (FSQTokenizer(FSQ), RQVAETokenizer(RQVAE)):
            torch.manual_seed(seed)
            module = recipe.build(WIDTH)
            module.load_trained_state(fit_vectors(recipe, (seen - mean) / scale).trained)
            with torch.no_grad():
                own, other = (
                    module.eval().quantise(torch.from_numpy((x - mean) / scale)).numpy() for x in (seen, unseen)
                )
            kept[recipe.name] = distinct(other) / distinct(own)
            together[recipe.name] = kept_together(other, groups)
        assert kept["fsq"] > 0.97, kept
        assert kept["rqvae"] < 0.85, kept
        assert together["fsq"] > together["rqvae"] > 2 / GROUPS, together
