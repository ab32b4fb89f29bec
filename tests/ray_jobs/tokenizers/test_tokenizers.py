import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from small_training import fit_vectors, killed_after, numbers

from infra.errors import SettingError
from ray_jobs.recipes import recipe_class
from ray_jobs.recipes.tokenizers.rqvae import RQVAE, RQVAESettings, RQVAETokenizer, nearest_codes
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.collisions import counter_level, resolve, spread_last_codes
from ray_jobs.tokenizers.quality import quality_report
from ray_jobs.training.curves import epoch_losses
from schemas.errors import DataError

SMALL = RQVAESettings(
    levels=2, codebook_size=6, latent_dim=4, hidden=(16,), epochs=60, batch_size=40, learning_rate=1e-2
)


def planted_vectors(seed=0, clusters=6, per_cluster=20, width=12):
    """Clusters far apart, standardised; the cluster of row i is i // per_cluster."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, width)) * 4
    rows = np.repeat(centres, per_cluster, axis=0) + random.normal(size=(clusters * per_cluster, width))
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)


def trained(settings, vectors, **given):
    state = fit_vectors(RQVAETokenizer(settings), vectors, **given)
    model = RQVAE(vectors.shape[1], settings)
    model.load_trained_state(state.trained)
    return state, model


def purity(codes, clusters):
    """Share of pairs of rows of one cluster that have the same code."""
    same = codes[:, None] == codes[None, :]
    pairs = clusters[:, None] == clusters[None, :]
    np.fill_diagonal(pairs, False)
    return same[pairs].mean()


def collision_rate(codes):
    counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return float((counts[2][counts[1].reshape(-1)] > 1).mean())


class TestRQVAE:
    def test_the_losses_are_those_of_the_formula(self):
        torch.manual_seed(0)
        model = RQVAE(5, dataclasses.replace(SMALL, commitment=0.25))
        vectors = torch.randn(7, 5)
        for codebook in model.codebooks:
            torch.nn.init.normal_(codebook)
        losses = model(vectors)
        latent = model.encoder(vectors)
        first = model.codebooks[0][((latent[:, None] - model.codebooks[0]) ** 2).sum(2).argmin(1)]
        rest = latent - first
        second = model.codebooks[1][((rest[:, None] - model.codebooks[1]) ** 2).sum(2).argmin(1)]
        quantisation = 1.25 * (((latent - first) ** 2).mean() + ((rest - second) ** 2).mean())
        reconstruction = ((model.decoder(first + second) - vectors) ** 2).mean()
        assert torch.allclose(losses["quantisation"], quantisation)
        assert torch.allclose(losses["reconstruction"], reconstruction)
        assert torch.allclose(losses["loss"], quantisation + reconstruction)

    def test_gradients_go_straight_through_to_the_encoder_and_codes_learn_from_their_own_term(self):
        torch.manual_seed(0)
        model = RQVAE(5, dataclasses.replace(SMALL, commitment=0.0))
        for codebook in model.codebooks:
            torch.nn.init.normal_(codebook)
        losses = model(torch.randn(7, 5))
        encoder, codebooks = list(model.encoder.parameters()), list(model.codebooks)
        through = torch.autograd.grad(losses["reconstruction"], encoder, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in through)
        untouched = torch.autograd.grad(losses["reconstruction"], codebooks, retain_graph=True, allow_unused=True)
        assert untouched == (None, None)
        own = torch.autograd.grad(losses["quantisation"], codebooks, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in own)
        without_commitment = torch.autograd.grad(losses["quantisation"], encoder, allow_unused=True)
        assert all(gradient is None or gradient.abs().sum() == 0 for gradient in without_commitment)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_planted_clusters_come_out_as_first_codes(self, seed):
        vectors = planted_vectors(seed)
        clusters = np.arange(len(vectors)) // 20
        _, model = trained(dataclasses.replace(SMALL, seed=seed), vectors)
        codes = model.quantise(torch.from_numpy(vectors))
        decoded = model.reconstruct(codes)
        report = quality_report(codes.numpy().astype(np.int32), (6, 6), vectors, decoded.numpy())
        assert purity(codes[:, 0].numpy(), clusters) > 0.8
        assert purity(codes[:, 0].numpy(), np.random.default_rng(seed).permutation(clusters)) < 0.4, "the control"
        assert report["variance_explained"] > 0.6
        assert report["utilisation_0"] == 1

    def test_training_lowers_the_loss_and_is_the_same_twice(self):
        vectors = planted_vectors()
        first, model = trained(SMALL, vectors)
        second, again = trained(SMALL, vectors)
        assert numbers(first) == numbers(second)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert first.records[-1]["reconstruction"] < 0.7 * first.records[0]["reconstruction"]
        other, _ = trained(dataclasses.replace(SMALL, seed=1), vectors)
        assert epoch_losses(other.records) != epoch_losses(first.records)

    @pytest.mark.parametrize(("cut", "every_step"), [(75, False), (1, True), (61, True)])
    def test_a_run_resumed_from_a_checkpoint_ends_like_one_that_was_not(self, tmp_path, cut, every_step):
        vectors = planted_vectors()
        settings = dataclasses.replace(SMALL, checkpoint_every=25)
        whole, _ = trained(settings, vectors)
        stored = killed_after(cut, tmp_path, partial(trained, settings, vectors), due=lambda: every_step)
        assert (stored.epoch, stored.batch) == divmod(cut, 3)
        resumed = fit_vectors(RQVAETokenizer(settings), vectors, stored)
        assert numbers(resumed) == numbers(whole)
        assert all(torch.equal(resumed.trained[name], tensor) for name, tensor in whole.trained.items())

    def test_codes_that_nothing_uses_start_again_where_items_are(self):
        vectors = torch.from_numpy(planted_vectors())
        torch.manual_seed(0)
        model = RQVAE(vectors.shape[1], SMALL)
        model.start_codebooks(vectors, seed=0)
        with torch.no_grad():
            model.codebooks[0][2] = 1e3
        moved = model.restart_unused_codes(vectors, torch.Generator().manual_seed(0))
        assert 2 in moved[0].tolist()
        with torch.no_grad():
            used = nearest_codes(model.encoder(vectors), model.codebooks[0]).unique()
        assert 2 in used.tolist()
        assert len(model.restart_unused_codes(vectors, torch.Generator().manual_seed(0))[0]) == 0

    def test_more_codes_than_items(self):
        vectors = np.repeat(planted_vectors(clusters=3, per_cluster=1), 2, axis=0)
        _, model = trained(dataclasses.replace(SMALL, codebook_size=16, epochs=3), vectors)
        codes = model.quantise(torch.from_numpy(vectors))
        assert torch.equal(codes[::2], codes[1::2]), "equal vectors have equal codes"

    @pytest.mark.parametrize(("name", "value"), [("levels", 0), ("commitment", -1.0), ("learning_rate", 0.0)])
    def test_settings_out_of_range_are_named(self, name, value):
        with pytest.raises(SettingError, match=f"rqvae.{name} is"):
            RQVAESettings(**{name: value})


class TestCollisions:
    def test_equal_tuples_are_counted_from_zero_in_order_of_item_id(self):
        codes = np.array([[1, 1], [0, 2], [1, 1], [1, 1], [0, 3]], np.int32)
        unique, size = counter_level(["c", "x", "a", "b", "y"], codes, 4, "rqvae.collision_size")
        assert unique.tolist() == [[1, 1, 2], [0, 2, 0], [1, 1, 0], [1, 1, 1], [0, 3, 0]]
        assert size == 4

    def test_order_of_rows_changes_no_items_codes(self):
        random = np.random.default_rng(0)
        codes = random.integers(0, 3, size=(60, 2)).astype(np.int32)
        ids = [f"i{number}" for number in random.permutation(60)]
        unique, size = counter_level(ids, codes, 0, "s")
        order = random.permutation(60)
        again, _ = counter_level([ids[i] for i in order], codes[order], 0, "s")
        assert again.tolist() == unique[order].tolist()
        assert len({tuple(row) for row in unique.tolist()}) == 60
        largest = np.unique(codes, axis=0, return_counts=True)[1].max()
        assert unique[:, 2].max() == largest - 1
        assert size >= 2 * largest

    def test_a_level_that_is_too_small_is_refused_with_the_setting_to_raise(self):
        codes = np.zeros((5, 3), np.int32)
        with pytest.raises(SettingError, match=r"5 items, a among them.*rqvae\.collision_size is 4: raise it"):
            counter_level(["c", "a", "b", "d", "e"], codes, 4, "rqvae.collision_size")
        assert counter_level(["c", "a", "b", "d", "e"], codes, 5, "s")[0][:, 3].tolist() == [2, 0, 1, 3, 4]

    def test_each_policy_does_what_it_says(self):
        codes = np.array([[1, 1], [0, 2], [1, 1]], np.int32)

        def apply(policy, distances=None):
            return resolve(policy, ["c", "x", "a"], codes, distances, (2, 3), 4, "rqvae.collision_size")

        unique, sizes = apply("extra_level")
        assert unique.tolist() == [[1, 1, 1], [0, 2, 0], [1, 1, 0]]
        assert sizes == (2, 3, 4)
        kept, sizes = apply("list")
        assert kept.tolist() == codes.tolist()
        assert sizes == (2, 3)
        apart = np.array([[2, 0, 1], [9, 9, 0], [2, 1, 0]], np.float32)
        spread, sizes = apply("sinkhorn", lambda rows: apart[rows])
        assert spread.tolist() == [[1, 1], [0, 2], [1, 2]]
        assert sizes == (2, 3)
        equal, sizes = apply("sinkhorn", lambda rows: np.zeros((len(rows), 3), np.float32))
        assert equal[:, 2].tolist() == [1, 0, 0], "what no distance tells apart gets the extra level"
        assert sizes == (2, 3, 4)

    def test_a_policy_that_the_quantiser_lacks_is_refused_with_those_it_has(self):
        codes = np.zeros((2, 1), np.int32)
        with pytest.raises(SettingError, match=r"'sinkhorn' needs distances.*\(fsq\) has extra_level, list"):
            resolve("sinkhorn", ["a", "b"], codes, None, (1,), 0, "fsq.collision_size")
        with pytest.raises(SettingError, match=r"policy 'merge': .* has extra_level, sinkhorn, list"):
            resolve("merge", ["a", "b"], codes, lambda rows: np.ones((len(rows), 1)), (1,), 0, "rqvae.collision_size")

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_sinkhorn_separates_near_duplicates_and_no_others(self, seed):
        random = np.random.default_rng(seed)
        pairs = np.repeat(random.normal(size=(60, 6)), 2, axis=0)
        vectors = np.concatenate([pairs + 0.01 * random.normal(size=pairs.shape), random.normal(size=(30, 6))])
        vectors[1] = vectors[0]
        centres = random.normal(size=(32, 6))
        away = ((vectors[:, None] - centres) ** 2).sum(2).astype(np.float32)
        codes = np.column_stack([random.integers(0, 8, 150), away.argmin(1)]).astype(np.int32)
        codes[1:120:2, 0] = codes[:120:2, 0]
        calls = []
        spread = spread_last_codes(codes, lambda rows: calls.append(len(rows)) or away[rows])
        assert len(calls) <= 3, "a call, which may read a table, is for all groups of a round"
        assert collision_rate(codes) > 0.7
        assert spread[0].tolist() == spread[1].tolist(), "equal vectors stay equal"
        assert collision_rate(spread) == pytest.approx(2 / 150)
        assert (spread[:, 0] == codes[:, 0]).all()
        alone = ~np.isin(np.arange(150), np.flatnonzero([(codes == row).all(1).sum() > 1 for row in codes]))
        assert (spread[alone] == codes[alone]).all()
        again = spread_last_codes(codes, lambda rows: away[rows])
        assert (again == spread).all()
        moved = (spread != codes).any(1)
        shuffled = random.permuted(away[moved], axis=1)
        assert away[moved, spread[moved, 1]].mean() < 0.8 * shuffled.mean(), "items move to codes that are near"


class TestQuality:
    def test_use_and_collisions_by_hand(self):
        codes = np.array([[0, 0], [0, 0], [1, 2], [1, 3]], np.int32)
        vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
        report = quality_report(codes, (4, 4), vectors, vectors)
        assert report["utilisation_0"] == 0.5
        assert report["perplexity_0"] == pytest.approx(2)
        assert report["utilisation_1"] == 0.75
        assert report["perplexity_1"] == pytest.approx(np.exp(1.5 * np.log(2)))
        assert report["collision_rate"] == 0.5
        assert report["largest_collision"] == 2
        assert report["reconstruction_mse"] == 0
        assert report["dead_codes_0"] == 2
        assert report["variance_explained"] == report["neighbours_kept"] == 1
        assert report["neighbours_1"] == pytest.approx(1 / 3)
        assert report["neighbours_1_random"] == pytest.approx(4 / 12)
        assert report["neighbours_2_random"] == pytest.approx(2 / 12)
        assert "purity_1" not in report

    def test_codes_that_decode_to_nothing_are_judged_by_the_rest(self):
        vectors = planted_vectors()
        report = quality_report(np.arange(120, dtype=np.int32)[:, None] // 20, (6,), vectors)
        assert not {"reconstruction_mse", "variance_explained", "neighbours_kept"} & set(report)
        assert report["neighbours_1"] > 0.8

    def test_purity_by_hand(self):
        codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 1]], np.int32)
        categories = [("a", "x"), ("a", "x"), ("a", "y"), ("b",), (), ("b",)]
        report = quality_report(codes, (2, 2), planted_vectors()[:6], None, categories)
        assert report["purity_1"] == pytest.approx(4 / 5), "the item without a category does not count"
        assert report["purity_2"] == 1

    def test_codes_of_the_planted_clusters_are_purer_and_nearer_than_permuted_ones(self):
        vectors = planted_vectors()
        clusters = np.arange(120) // 20
        categories = [("all", f"c{cluster}") for cluster in clusters]
        codes = np.column_stack([clusters, np.arange(120) % 4]).astype(np.int32)
        report = quality_report(codes, (6, 4), vectors, None, categories)
        assert report["purity_1"] == 1
        assert report["purity_1_random"] < 0.45
        assert report["neighbours_1"] > 3 * report["neighbours_1_random"]
        assert report["neighbours_2"] < report["neighbours_1"]
        mixed = codes[np.random.default_rng(0).permutation(120)]
        control = quality_report(mixed, (6, 4), vectors, None, categories)
        assert control["purity_1"] < 0.45
        assert control["neighbours_1"] < 1.5 * control["neighbours_1_random"]

    def test_equal_vectors_do_not_push_out_each_other(self):
        vectors = np.repeat(planted_vectors(clusters=2, per_cluster=2), 20, axis=0)
        codes = np.repeat(np.arange(4), 20).astype(np.int32)[:, None]
        assert quality_report(codes, (4,), vectors)["neighbours_1"] == 1

    def test_reconstruction_against_the_mean_explains_nothing(self):
        vectors = planted_vectors()
        mean = np.broadcast_to(vectors.mean(0), vectors.shape)
        codes = np.arange(len(vectors), dtype=np.int32)[:, None]
        assert quality_report(codes, (len(vectors),), vectors, mean)["variance_explained"] == pytest.approx(0, abs=1e-6)

    def test_neighbours_are_lost_when_decoded_vectors_are_shuffled(self):
        vectors = planted_vectors()
        codes = np.arange(len(vectors), dtype=np.int32)[:, None]
        kept = quality_report(codes, (len(vectors),), vectors, vectors)["neighbours_kept"]
        shuffled = vectors[np.random.default_rng(0).permutation(len(vectors))]
        assert kept == 1
        assert quality_report(codes, (len(vectors),), vectors, shuffled)["neighbours_kept"] < 0.3


class TestCodebook:
    def build(self, **changes):
        given = {
            "item_ids": ["b", "a", "c"],
            "codes": np.array([[0, 1], [2, 1], [0, 0]]),
            "level_sizes": (3, 2),
            "version": "v",
            "collision_policy": "extra_level",
        }
        return Codebook(**given | changes)

    def test_its_table_is_all_it_needs(self):
        codebook = self.build(appended=np.array([False, True, False]))
        back = Codebook.from_table(codebook.to_table(), "v")
        assert back.item_ids == ["a", "b", "c"]
        assert back.codes.tolist() == [[2, 1], [0, 1], [0, 0]]
        assert back.appended.tolist() == [True, False, False]
        assert (back.level_sizes, back.collision_policy, back.ordered) == ((3, 2), "extra_level", True)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"codes": np.array([[0, 1], [2, 1], [0, 1]])}, "items b, c share the codes"),
            ({"codes": np.array([[0, 1], [1, 0], [0, 0]]), "ordered": False}, "items b, a share the codes"),
            ({"codes": np.array([[0, 1], [3, 1], [0, 0]])}, r"item a has code 3 at level 0, outside 0\.\.2"),
            ({"codes": np.array([[0, 1], [-1, 1], [0, 0]])}, "item a has code -1"),
            ({"item_ids": ["a", "a", "c"]}, "an item occurs twice"),
            ({"level_sizes": (3,)}, "do not fit codes of shape"),
        ],
    )
    def test_what_is_no_codebook_is_refused(self, changes, message):
        with pytest.raises(DataError, match=message):
            self.build(**changes)

    def test_unknown_versions_are_named(self):
        codebook = self.build()
        with pytest.raises(DataError, match=r"no codebook .w. .*there are: v"):
            Codebook.from_table(codebook.to_table(), "w")


def test_an_unknown_recipe_is_named():
    with pytest.raises(SettingError, match=r"tokenizer 'bpe' is none of .*rqvae"):
        recipe_class("bpe", "tokenizer")
