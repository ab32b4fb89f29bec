"""What every quantiser must keep: balance, no leak, equal reruns, codes that stay when items are appended."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from small_training import fit_vectors

from infra.errors import SettingError
from infra.settings import RaySettings
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.tokenizers.balanced_kmeans import (
    BalancedKMeansSettings,
    BalancedKMeansTokenizer,
    balanced_assignment,
)
from ray_jobs.recipes.tokenizers.fsq import FSQSettings, FSQTokenizer
from ray_jobs.recipes.tokenizers.rqkmeans import RQKMeansTokenizer
from ray_jobs.recipes.tokenizers.rqvae import RQVAESettings
from ray_jobs.recipes.tokenizers.settings import RQKMeansSettings
from ray_jobs.tokenizers.autoencoder import AutoencoderQuantiser
from ray_jobs.tokenizers.base import FitContext
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.joining import join, make_codebook
from ray_jobs.tokenizers.kmeans import nearest, squared_distances
from ray_jobs.tokenizers.residual import ResidualQuantiser
from ray_jobs.tokenizers.stored import StoredTokenizer, load, save
from ray_jobs.tokenizers.vectors import ArrayVectors, standardisation, take
from schemas.errors import DataError

PRODUCT = FSQSettings(
    levels=2, grid=(4, 4, 3), decoder_heads=2, decoder_layers=1, epochs=30, batch_size=40, learning_rate=1e-2
)
RESIDUAL = dataclasses.replace(PRODUCT, form="residual", hidden=(32,))
RQKMEANS = RQKMeansSettings(levels=2, codebook_size=6)
BALANCED = BalancedKMeansSettings(levels=2, codebook_size=6)
KMEANS = {"rqkmeans": (RQKMeansTokenizer, RQKMEANS), "balanced_kmeans": (BalancedKMeansTokenizer, BALANCED)}


def mixture(seed=0, clusters=6, per_cluster=20, width=12):
    random = np.random.default_rng(seed)
    rows = np.repeat(random.normal(size=(clusters, width)) * 4, per_cluster, axis=0)
    return (rows + random.normal(size=rows.shape) + 3).astype(np.float32)


class Blocks:
    """Vectors as a stream gives them: block by block, in an order of its own."""

    streamed = True

    def __init__(self, array, size=32, seed=5):
        self.array, self.size, self.shape = array, size, array.shape
        self.order = np.random.default_rng(seed).permutation(len(array))

    def blocks(self, only=None):
        order = self.order if only is None else self.order[only[self.order]]
        for start in range(0, len(order), self.size):
            rows = order[start : start + self.size]
            yield rows, self.array[rows]


def explained(vectors, decoded):
    return 1 - np.square(vectors - decoded).sum() / np.square(vectors - vectors.mean(0)).sum()


def trained(settings, vectors, training=None):
    """The quantiser of a recipe that learns by gradients, trained here on the training rows."""
    source, marked = ArrayVectors(vectors), np.ones(len(vectors), bool) if training is None else training
    mean, scale = standardisation(source, marked)
    recipe = recipe_class(settings.section, "tokenizer")(settings)
    state = fit_vectors(recipe, (vectors[marked] - mean) / scale)
    module = recipe.build(vectors.shape[1])
    module.load_trained_state(state.trained)
    return AutoencoderQuantiser(module, mean, scale)


def context_of(training):
    return FitContext(training=training, version="v", ray=RaySettings(), run_name="r", home="h", stage="s")


def codebook_of(name, vectors, training, ids, source=ArrayVectors):
    kind, settings = KMEANS[name]
    held = source(vectors)
    quantiser, codes, _ = kind(settings).fit_levels(held, training)
    return quantiser, make_codebook(codes, ids, held, quantiser, settings, context_of(training))


class TestBalancedAssignment:
    @pytest.mark.parametrize(("items", "clusters"), [(60, 6), (61, 6), (200, 16), (5, 8), (7, 1)])
    def test_every_place_is_taken_and_the_sum_of_costs_is_near_the_least(self, items, clusters):
        random = np.random.default_rng(items)
        costs = random.random((items, clusters)).astype(np.float32)
        capacities = np.full(clusters, items // clusters)
        capacities[: items % clusters] += 1
        owners, _ = balanced_assignment(costs, capacities)
        assert np.bincount(owners, minlength=clusters).tolist() == capacities.tolist()
        places = np.repeat(costs, capacities, axis=1)
        least = places[linear_sum_assignment(places)].sum()
        cost = costs[np.arange(items), owners].sum()
        at_random = costs[np.arange(items), random.permutation(owners)].sum()
        assert cost <= least + 0.02 * items * costs.std() + 1e-4
        if clusters > 1:
            assert cost < at_random

    def test_equal_rows_end_and_give_the_same_twice(self):
        costs = np.repeat(np.random.default_rng(0).random((1, 5)), 50, axis=0).astype(np.float32)
        owners, _ = balanced_assignment(costs, np.full(5, 10))
        assert np.bincount(owners).tolist() == [10] * 5
        assert owners.tolist() == balanced_assignment(costs, np.full(5, 10))[0].tolist()

    def test_nobody_gets_what_the_others_left(self):
        centres = np.array([[0.0], [10.0]], np.float32)
        rows = np.array([[0.0], [1.0], [4.0], [3.0]], np.float32)
        owners, _ = balanced_assignment(squared_distances(rows, centres), np.array([2, 2]))
        assert owners.tolist() == [0, 0, 1, 1]


class TestBalancedKMeans:
    @pytest.mark.parametrize("source", [ArrayVectors, Blocks])
    @pytest.mark.parametrize("items", [120, 113])
    def test_sizes_differ_by_at_most_one_at_every_level(self, source, items):
        vectors, training = mixture()[:items], np.ones(items, bool)
        _, codes, _ = BalancedKMeansTokenizer(BALANCED).fit_levels(source(vectors), training)
        _, unbalanced, _ = RQKMeansTokenizer(RQKMEANS).fit_levels(source(vectors), training)
        spread = [np.ptp(np.bincount(level, minlength=6)) for level in codes.T]
        assert max(spread) <= 1
        assert max(np.ptp(np.bincount(level, minlength=6)) for level in unbalanced.T) > 1, "the control"


class TestKMeans:
    @pytest.mark.parametrize("name", KMEANS)
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_codes_explain_more_than_random_ones_streamed_or_not(self, name, seed):
        kind, settings = KMEANS[name]
        settings = dataclasses.replace(settings, seed=seed, sample_per_code=10)
        vectors, training = mixture(seed), np.ones(120, bool)
        shares = {}
        for source in (ArrayVectors, Blocks):
            quantiser, codes, records = kind(settings).fit_levels(source(vectors), training)
            shares[source] = explained(vectors, quantiser.decode(codes))
            assert records[1]["loss"] < records[0]["loss"]
        shuffled = np.random.default_rng(seed).permutation(codes)
        assert explained(vectors, quantiser.decode(shuffled)) < 0.1, "the control"
        assert min(shares.values()) > 0.7
        assert abs(shares[ArrayVectors] - shares[Blocks]) < 0.1

    @pytest.mark.parametrize("name", KMEANS)
    def test_a_second_fit_gives_the_same_codes_and_another_seed_others(self, name):
        kind, settings = KMEANS[name]
        settings = dataclasses.replace(settings, sample_per_code=10)
        vectors, training = mixture(), np.ones(120, bool)
        for source in (ArrayVectors, Blocks):
            first, again, other = (
                kind(dataclasses.replace(settings, seed=seed)).fit_levels(source(vectors), training)[1]
                for seed in (0, 0, 1)
            )
            assert (first == again).all()
            assert (first != other).any()

    def test_standardised_and_projected_vectors_come_back_in_their_units(self):
        settings = dataclasses.replace(RQKMEANS, levels=3, codebook_size=16, standardise=True, pca=8)
        vectors, training = mixture() * np.arange(1, 13, dtype=np.float32), np.ones(120, bool)
        quantiser, codes, _ = RQKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors), training)
        assert quantiser.basis.shape == (12, 8)
        assert np.allclose(quantiser.basis.T @ quantiser.basis, np.eye(8), atol=1e-5)
        assert explained(vectors, quantiser.decode(codes)) > 0.8
        assert (quantiser.encode(vectors) == codes).all()

    def test_more_codes_than_items(self):
        vectors = np.repeat(mixture(clusters=3, per_cluster=1), 2, axis=0)
        settings = dataclasses.replace(RQKMEANS, codebook_size=16)
        quantiser, codes, _ = RQKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors), np.ones(6, bool))
        assert (codes[::2] == codes[1::2]).all(), "equal vectors have equal codes"
        assert np.allclose(quantiser.decode(codes), vectors, atol=1e-4)

    def test_distances_are_those_to_the_last_level(self):
        vectors, training = mixture(), np.ones(120, bool)
        quantiser, codes, _ = RQKMeansTokenizer(RQKMEANS).fit_levels(ArrayVectors(vectors), training)
        distances = quantiser.last_level_distances(vectors, codes)
        assert distances.shape == (120, 6)
        assert (distances.argmin(1) == codes[:, 1]).all()
        by_hand = np.square(vectors[7] - quantiser.centres[0][codes[7, 0]] - quantiser.centres[1][3]).sum()
        assert distances[7, 3] == pytest.approx(by_hand, rel=1e-4)


class TestFSQ:
    @pytest.mark.parametrize("settings", [PRODUCT, RESIDUAL], ids=["product", "residual"])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_codes_explain_more_than_random_ones(self, settings, seed):
        vectors = mixture(seed)
        quantiser = trained(dataclasses.replace(settings, seed=seed), vectors)
        codes = quantiser.encode(vectors)
        assert quantiser.level_sizes == (48, 48)
        assert codes.min() >= 0
        assert codes.max() < 48
        assert explained(vectors, quantiser.decode(codes)) > 0.5
        shuffled = np.random.default_rng(seed).permutation(codes)
        assert explained(vectors, quantiser.decode(shuffled)) < 0.1, "the control"

    @pytest.mark.parametrize("grid", [(8, 8, 8, 6, 5), (4, 4), (7, 5, 5), (3,)])
    def test_a_code_is_a_cell_of_the_grid_and_back(self, grid):
        module = FSQTokenizer(dataclasses.replace(PRODUCT, grid=grid)).build(12)
        every = torch.arange(module.level_sizes[0])
        cells = module.grid.implicit_codebook
        assert len(cells.unique(dim=0)) == np.prod(grid)
        assert torch.equal(module.grid.codes_to_indices(cells).long(), every)
        chunks, codes = module.quantised(torch.randn(50, 12) * 3)
        assert torch.equal(module.grid.indices_to_codes(codes), chunks), "the decoder sees what the codes say"
        assert codes.max() < np.prod(grid)

    def test_gradients_go_straight_through_the_rounding(self):
        for settings in (PRODUCT, RESIDUAL):
            module = FSQTokenizer(settings).build(12)
            module(torch.randn(16, 12))["loss"].backward()
            before = module.grid.project_in if settings.form == "product" else module.encoder[0]
            assert before.weight.grad.abs().sum() > 0

    def test_vectors_that_cannot_be_cut_are_refused(self):
        with pytest.raises(SettingError, match=r"13 dimensions cannot be cut into fsq\.levels=2"):
            FSQTokenizer(PRODUCT).build(13)
        assert FSQTokenizer(RESIDUAL).build(13).level_sizes == (48, 48)

    @pytest.mark.parametrize("grid", [(), (8, 2), (256, 256, 257)])
    def test_grids_that_are_none_are_refused(self, grid):
        with pytest.raises(SettingError, match=r"fsq\.grid"):
            FSQSettings(grid=grid)


class TestNoLeak:
    @pytest.mark.parametrize(("name", "source"), itertools.product(KMEANS, [ArrayVectors, Blocks]))
    def test_poisoned_vectors_outside_training_change_no_training_items_codes(self, name, source):
        vectors = mixture()
        training = np.arange(120) % 3 > 0
        ids = [f"i{number:03d}" for number in range(120)]
        _, clean = codebook_of(name, vectors, training, ids, source)
        poisoned = vectors.copy()
        poisoned[~training] = vectors[1] * (1 + 1e-3 * np.arange(40)[:, None])
        _, planted = codebook_of(name, poisoned.astype(np.float32), training, ids, source)
        assert (planted.codes[training] == clean.codes[training]).all()
        assert (planted.codes[~training] != clean.codes[~training]).any()
        _, leaked = codebook_of(name, poisoned.astype(np.float32), np.ones(120, bool), ids, source)
        assert (leaked.codes[training] != clean.codes[training]).any(), "the control: fitted on all, it shows"

    @pytest.mark.parametrize("settings", [PRODUCT, RESIDUAL], ids=["product", "residual"])
    def test_nor_do_they_change_what_learns_by_gradients(self, settings):
        settings = dataclasses.replace(settings, epochs=2)
        vectors, training = mixture(), np.arange(120) % 3 > 0
        clean = trained(settings, vectors, training).encode(vectors[training])
        poisoned = np.where(training[:, None], vectors, 50).astype(np.float32)
        assert (trained(settings, poisoned, training).encode(vectors[training]) == clean).all()
        assert (trained(settings, poisoned).encode(vectors[training]) != clean).any(), "the control"


class TestAppending:
    def fitted(self, collision_size=0, policy="extra_level"):
        vectors, ids = mixture(), [f"i{number:03d}" for number in range(120)]
        settings = dataclasses.replace(RQKMEANS, collision_size=collision_size, collisions=policy)
        quantiser, codes, _ = RQKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors), np.ones(120, bool))
        context = context_of(np.ones(120, bool))
        return quantiser, vectors, make_codebook(codes, ids, ArrayVectors(vectors), quantiser, settings, context)

    def test_counters_go_on_where_they_stopped_in_order_of_item_id(self):
        quantiser, vectors, codebook = self.fitted()
        names = ["z", "a", "m"]
        joined = join(codebook, names, quantiser.encode(vectors[[7, 7, 7]]), None, "s")
        assert (joined[:, :2] == codebook.codes[7, :2]).all()
        there = codebook.codes[(codebook.codes[:, :2] == codebook.codes[7, :2]).all(1), 2]
        following = there.max() + 1
        assert joined[:, 2].tolist() == [following + 2, following, following + 1]
        later = dataclasses.replace(
            codebook,
            item_ids=codebook.item_ids + names,
            codes=np.concatenate([codebook.codes, joined]),
            appended=np.arange(123) >= 120,
        )
        assert (later.codes[: len(codebook)] == codebook.codes).all()
        again = join(later, ["b"], quantiser.encode(vectors[[7]]), None, "s")
        assert again[0, 2] == following + 3

    def test_a_full_level_is_refused_with_the_setting_to_raise(self):
        quantiser, vectors, codebook = self.fitted()
        room = codebook.level_sizes[-1]
        names = [f"n{number:03d}" for number in range(room)]
        with pytest.raises(SettingError, match=r"codebook v is full at its last level: n\d+ would .*raise s \(0"):
            join(codebook, names, quantiser.encode(np.repeat(vectors[:1], room, axis=0)), None, "s")

    def test_a_list_takes_equal_tuples(self):
        quantiser, vectors, codebook = self.fitted(policy="extra_level")
        alike = Codebook(
            item_ids=["a", "b"],
            codes=codebook.codes[[0, 0], :2],
            level_sizes=(6, 6),
            version="v",
            collision_policy="list",
        )
        assert join(alike, ["c"], quantiser.encode(vectors[:1]), None, "s").tolist() == [alike.codes[0].tolist()]
        with pytest.raises(DataError, match="items a, b share the codes"):
            dataclasses.replace(alike, collision_policy="extra_level")

    def test_unique_tuples_take_the_nearest_code_that_is_free(self):
        there = Codebook(
            item_ids=["a", "b"],
            codes=np.array([[0, 1], [0, 2]]),
            level_sizes=(2, 4),
            version="v",
            collision_policy="sinkhorn",
        )
        distances = np.array([[5, 0, 1, 2], [5, 0, 1, 2], [5, 0, 1, 2]], np.float32)
        wanted = np.array([[0, 1], [0, 1], [1, 1]], np.int32)
        joined = join(there, ["d", "c", "e"], wanted, lambda rows: distances[rows], "s")
        assert joined.tolist() == [[0, 0], [0, 3], [1, 1]]
        calls = []
        many = Codebook([f"k{n}" for n in range(40)], np.array([[n, 1] for n in range(40)]), (40, 4), "v", "sinkhorn")
        joined = join(
            many,
            [f"j{n}" for n in range(40)],
            many.codes.astype(np.int32),
            lambda rows: calls.append(len(rows)) or np.tile(distances[:1], (len(rows), 1)),
            "s",
        )
        assert joined.tolist() == [[n, 2] for n in range(40)]
        assert calls == [40], "vectors may be streamed: one pass for all"
        with pytest.raises(SettingError, match=r"no code left for h .*behind the codes \[0\]"):
            join(there, ["f", "g", "h"], np.array([[0, 1]] * 3, np.int32), lambda rows: distances[rows], "s")


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("rqkmeans", dataclasses.replace(RQKMEANS, pca=4)),
        ("balanced_kmeans", BALANCED),
        ("fsq", dataclasses.replace(PRODUCT, epochs=1)),
        ("fsq", dataclasses.replace(RESIDUAL, epochs=1)),
        ("rqvae", RQVAESettings(codebook_size=6, latent_dim=4, hidden=(16,), epochs=1)),
    ],
)
def test_a_stored_quantiser_gives_the_same_codes(recipe, settings, tmp_path):
    vectors = mixture()
    if recipe in KMEANS:
        quantiser = KMEANS[recipe][0](settings).fit_levels(ArrayVectors(vectors), np.ones(120, bool))[0]
    else:
        quantiser = trained(settings, vectors)
    assert load(str(tmp_path)) is None
    levels = len(quantiser.level_sizes)
    save(
        str(tmp_path),
        StoredTokenizer(recipe=recipe, settings=settings, encoder="e", quantised_levels=levels, quantiser=quantiser),
    )
    back = load(str(tmp_path))
    assert (back.recipe, back.settings, back.encoder, back.quantised_levels) == (recipe, settings, "e", levels)
    new = mixture(seed=9)
    codes = quantiser.encode(new)
    assert (back.quantiser.encode(new) == codes).all()
    assert np.array_equal(back.quantiser.decode(codes), quantiser.decode(codes))
    assert back.quantiser.level_sizes == quantiser.level_sizes
    assert isinstance(recipe_class(recipe, "tokenizer")(settings).settings, type(settings))


def test_blocks_and_arrays_say_the_same():
    vectors, marked = mixture(), np.arange(120) % 3 > 0
    for ours, theirs in zip(
        standardisation(ArrayVectors(vectors), marked), standardisation(Blocks(vectors), marked), strict=True
    ):
        assert np.allclose(ours, theirs, atol=1e-5)
    mean, scale = standardisation(ArrayVectors(vectors), marked)
    assert np.allclose(mean, vectors[marked].mean(0), atol=1e-5)
    assert np.allclose(scale, vectors[marked].std(0), atol=1e-5)
    rows = np.array([5, 2, 77])
    assert np.array_equal(take(Blocks(vectors), rows), vectors[rows])


def test_equally_near_centres_give_the_lowest():
    centres = np.array([[1.0], [-1.0], [1.0]], np.float32)
    assert nearest(np.array([[0.0], [2.0], [-3.0]], np.float32), centres).tolist() == [0, 0, 1]
    quantiser = ResidualQuantiser(np.zeros(1, np.float32), np.ones(1, np.float32), None, (centres,))
    assert quantiser.encode(np.empty((0, 1), np.float32)).shape == (0, 1)
