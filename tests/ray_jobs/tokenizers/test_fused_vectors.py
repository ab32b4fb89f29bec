"""The parts of fused vectors: known ones stay, others are guessed from texts, whoever else is there."""

import numpy as np
import pytest
import torch

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.histories import Histories
from ray_jobs.data.rows import Rows
from ray_jobs.recipes.tokenizers.settings import RQKMeansSettings
from ray_jobs.tokenizers import fusion, stored
from ray_jobs.tokenizers.alignment import aligned, alignment_plan
from ray_jobs.tokenizers.fused_vectors import renumbered
from ray_jobs.tokenizers.settings import AlignmentSettings
from ray_jobs.tokenizers.stored import StoredTokenizer
from ray_jobs.training.loop import fit

ITEMS, WIDTH, TEXTS = 40, 6, 12


def world(noise=0.0):
    """Texts, and collaborative vectors that are linear in them but for the noise; the last ten items are new."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(ITEMS, TEXTS)) + 3
    vectors = texts @ rng.normal(size=(TEXTS, WIDTH)) + noise * rng.normal(size=(ITEMS, WIDTH))
    known = vectors.copy()
    known[30:] = 0
    return texts.astype(np.float32), vectors.astype(np.float32), known.astype(np.float32)


def cosines(one, other):
    return (fusion.unit(one) * fusion.unit(other)).sum(1)


@pytest.fixture(scope="module")
def alignment():
    """The fusion, the aligned vectors of all items, and the state of its training."""
    texts, _, known = world()
    rng = np.random.default_rng(1)
    met = fusion.has_one(known)
    rows = Rows.of([rng.permutation(int(met.sum()))[:5] for _ in range(30)])
    own = AlignmentSettings(heads=1, epochs=20, learning_rate=1e-2, layers=1, batch_size=16)
    plan = alignment_plan(own, Histories.of_training(rows), texts[met], known[met])
    module = plan.build()
    state = fit(module, InMemoryExamples(plan.examples))
    made, vectors = aligned(state.trained)
    there = known.copy()
    there[met] = vectors
    return made, there, state


def test_who_is_known_keeps_its_vector_and_who_is_new_gets_one_from_its_text():
    texts, vectors, known = world()
    made = fusion.join("concatenated", texts, known)
    collaborative, text = made.parts(texts, known)
    assert np.array_equal(collaborative[:30], fusion.unit(known)[:30])
    assert np.array_equal(text, fusion.unit(texts))
    # Unit vectors are not linear in the texts, so it is a guess.
    assert cosines(collaborative[30:], vectors[30:]).min() > 0.9
    alone, none = made.parts(texts[35:36], known[35:36]), fusion.join("only", texts, known).parts(texts, known)[1]
    assert np.allclose(alone[0], collaborative[35:36], atol=1e-6)
    assert none.shape == (ITEMS, 0)


def test_a_text_that_says_nothing_moves_nobody_far_from_the_mean():
    _, vectors, known = world()
    nothing = np.random.default_rng(5).normal(size=(ITEMS, TEXTS)).astype(np.float32)
    made = fusion.join("concatenated", nothing, known)
    guessed = (nothing - made.mean) @ made.weights
    assert np.abs(guessed).mean() < 0.5 * np.abs(fusion.unit(vectors[:30]) - made.offset).mean()


def test_alignment_brings_both_vectors_of_an_item_together_and_keeps_the_recommender_learning(alignment):
    (texts, _, _), (made, there, state) = world(), alignment
    first, last = state.records[0], state.records[-1]
    assert last["contrast"] < 0.7 * first["contrast"]
    assert last["loss"] - last["contrast"] < first["loss"] - first["contrast"]
    collaborative, text = made.parts(texts, there)
    own = cosines(collaborative[:30], text[:30]).mean()
    assert own > 0.1 + cosines(collaborative[:30], np.roll(text[:30], 1, axis=0)).mean()
    assert np.array_equal(collaborative[30:], text[30:]), "a new item has its adapted text in both places"


@pytest.mark.parametrize("kind", ["only", "concatenated", "fused"])
def test_a_stored_fusion_gives_new_items_the_same_vectors(kind, tmp_path, alignment):
    texts, _, known = world()
    made, there = alignment[:2] if kind == "fused" else (fusion.join(kind, texts, known), known)
    tokenizer = StoredTokenizer(
        recipe="rqkmeans", settings=RQKMeansSettings(), encoder="minilm-l6-v2", quantised_levels=3, quantiser=None,
        fusion=made, teacher="sasrec-0",
    )  # fmt: skip
    stored.save(str(tmp_path / "t"), tokenizer)
    back = stored.load(str(tmp_path / "t"))
    assert (back.collaborative, back.teacher) == (kind, "sasrec-0")
    for one, other in zip(made.parts(texts, there), back.fusion.parts(texts, there), strict=True):
        assert np.array_equal(one, other)


def test_rows_are_renumbered_among_the_items_that_stay():
    rows = Rows.of([[0, 2, 1], [1], [3, 3]])
    found = renumbered(rows, np.array([True, False, True, True]))
    assert [row.tolist() for row in found] == [[0, 1], [], [2, 2]]


def test_an_adapter_begins_centred():
    texts, _, known = world()
    plan = alignment_plan(AlignmentSettings(heads=1), Histories.of_training(Rows.of([[0, 1]])), texts, known + 1)
    with torch.no_grad():
        mapped = plan.build().adapter.map(torch.from_numpy(texts))
    assert mapped.mean(0).abs().max() < 1e-4
