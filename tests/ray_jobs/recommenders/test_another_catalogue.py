"""A trained recommender with other items: nothing but the items changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_world import small_catalogue

from ray_jobs.data.batches import make_batch
from ray_jobs.recipes.generative.recgpt import RecGPT, RecGPTSettings
from ray_jobs.recipes.generative.settings import TigerDecoderSettings
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.generative.tiger_decoder import TigerDecoder
from ray_jobs.recipes.sequential.rpg import RPG, RPGSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.tokenizers.fsq import FSQSettings, FSQTokenizer
from ray_jobs.recommenders.another_catalogue import bundle_on, on_another_catalogue
from ray_jobs.recommenders.bundle import load_bundle, save_bundle
from ray_jobs.semantic_ids import Result, of_another_catalogue
from ray_jobs.tokenizers.autoencoder import AutoencoderQuantiser
from ray_jobs.tokenizers.joining import make_codebook
from ray_jobs.tokenizers.stored import StoredTokenizer
from ray_jobs.tokenizers.vectors import ArrayVectors
from schemas.errors import DataError

ORDER = np.random.default_rng(0).permutation(30)[:20]
SHAPE = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "beams": 30}
MODELS = {
    "recgpt": (RecGPT, RecGPTSettings(width=16, layers=1, heads=2, inner=32, max_history=8)),
    "tiger": (Tiger, TigerSettings(**SHAPE, encoder_layers=1)),
    "rpg": (RPG, RPGSettings(width=16, layers=1, digits=4, codebook_size=8, components=16, max_history=8)),
}


def elsewhere():
    """Twenty of the thirty items in another order, under ids that the others have in the first catalogue."""
    one = small_catalogue()
    return replace(
        one,
        item_ids=one.item_ids[:20],
        titles=tuple(one.titles[item] for item in ORDER),
        texts=tuple(one.texts[item] for item in ORDER),
        codes=one.codes[ORDER],
        vectors={name: vectors[ORDER] for name, vectors in one.vectors.items()},
    )


def trained(name):
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    model = kind(settings, small_catalogue()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if name == "rpg":
        model.assign_codes()  # as training does, which also fits its quantiser
    return model


@pytest.mark.parametrize("name", MODELS)
def test_an_item_has_the_score_that_it_had_in_the_first_catalogue(name):
    model, places = trained(name), [4, 0, 11]
    own, other = make_batch([[int(ORDER[place]) for place in places]], [""]), make_batch([places], [""])
    asked = on_another_catalogue(model, elsewhere())
    with torch.no_grad():
        scores = [
            one.log_probabilities(batch) if name == "tiger" else one.scores(batch)
            for one, batch in ((model, own), (asked, other))
        ]
        torch.testing.assert_close(scores[1], scores[0][:, ORDER], rtol=1e-4, atol=1e-4)
        assert torch.equal(asked.topk(other, 5)[0], scores[1].topk(5).indices)
    assert len(set(scores[1][0].tolist())) > 10


def test_a_registered_model_answers_with_the_items_of_the_other_catalogue(tmp_path):
    model, catalogue = trained("recgpt"), elsewhere()
    model.encode_texts()
    save_bundle(tmp_path / "first", model, {"codebook": "fsq-1", "dataset": "shop"})
    asked = bundle_on(load_bundle(tmp_path / "first"), catalogue)
    assert asked.provenance["dataset"] == "shop"
    history = [catalogue.item_ids[place] for place in (4, 0, 11)]
    ((*found,),) = asked.recommend([history], [None], 20)
    with torch.no_grad():
        scores = model.scores(make_batch([[int(ORDER[place]) for place in (4, 0, 11)]], [""]))[0, ORDER]
    assert len(found) == 17, "the history is left out"
    for item, score in found:
        assert score == pytest.approx(float(scores[catalogue.index[item]]), abs=1e-4)
    save_bundle(tmp_path / "second", asked.recommender, asked.provenance)
    again = load_bundle(tmp_path / "second").recommend([history], [None], 20)
    assert [item for item, _ in again[0]] == [item for item, _ in found]


def test_what_was_learned_for_single_items_is_not_read():
    settings = TigerDecoderSettings(**SHAPE, dense=True)
    scores = []
    for shift in (0.0, 5.0):
        torch.manual_seed(0)
        model = TigerDecoder(settings, small_catalogue()).eval()
        torch.nn.init.normal_(model.dense.text_map[-1].weight)
        model.dense.items.weight.data += shift
        torch.manual_seed(int(shift))
        asked = on_another_catalogue(model, elsewhere())
        with torch.no_grad():
            scores.append(asked.log_probabilities(make_batch([[4, 0, 11]], [""])))
    assert torch.equal(*scores)
    assert scores[0].std() > 0.01


def test_recipes_of_ids_and_codes_of_other_levels_are_refused():
    with pytest.raises(DataError, match="recipe sasrec knows items by their ids"):
        on_another_catalogue(SASRec(SASRecSettings(width=16), small_catalogue()), elsewhere())
    with pytest.raises(DataError, match=r"recgpt .* levels \(6, 5\), .* have \(6, 9\): make them by the tokenizer"):
        on_another_catalogue(trained("recgpt"), replace(elsewhere(), level_sizes=(6, 9)))
    with pytest.raises(DataError, match=r"levels \(6, 5\), and those of the other catalogue have none"):
        on_another_catalogue(trained("recgpt"), replace(elsewhere(), codes=None, level_sizes=()))


@pytest.mark.parametrize("collisions", ["list", "extra_level"])
def test_codes_of_another_catalogue_depend_on_its_vectors_alone(collisions):
    settings = FSQSettings(levels=2, grid=(3,), decoder_heads=1, decoder_layers=1, collisions=collisions)
    recipe, vectors = FSQTokenizer(settings), np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    torch.manual_seed(0)
    quantiser = AutoencoderQuantiser(recipe.build(4), vectors.mean(0), vectors.std(0))
    ids, codes = list(small_catalogue().item_ids), quantiser.encode(vectors)
    book = make_codebook(codes, ids, ArrayVectors(vectors), quantiser, settings, FakeContext())
    known = Result(
        book,
        StoredTokenizer(recipe="fsq", settings=settings, encoder="e", quantised_levels=2, quantiser=quantiser),
    )
    other = of_another_catalogue(known, ids[:20], ArrayVectors(vectors[ORDER]))
    assert other.item_ids == ids[:20], "the same names for other items"
    assert other.level_sizes == book.level_sizes
    np.testing.assert_array_equal(other.codes[:, :2], codes[ORDER])
    if collisions == "extra_level":
        firsts = {tuple(row) for row in other.codes[other.codes[:, 2] == 0, :2].tolist()}
        assert firsts == {tuple(row) for row in codes[ORDER].tolist()}, "each tuple is counted from 0"
    assert len(known.codebook) == 30


class FakeContext:
    training, version = np.ones(30, bool), "fsq-1"
