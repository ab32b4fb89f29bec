import numpy as np
import pytest
import torch
from tiny_t5 import save_tiny_t5
from transformers import AutoModel, T5EncoderModel

from infra.errors import SettingError
from ray_jobs.encoders.text import load_text_encoder, require_text_encoder

TEXTS = ["guitar strings", "a set of strings for an acoustic guitar", "tea kettle", "", "guitar strings " * 200]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder("minilm-l6-v2")


@pytest.fixture(scope="module")
def local_t5(tmp_path_factory):
    return save_tiny_t5(tmp_path_factory.mktemp("tiny-t5"), ["guitar", "tea", "kettle"])


def test_vectors_are_the_models_unit_mean_over_real_tokens(minilm):
    vectors = minilm.encode(TEXTS)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = minilm.tokenizer(TEXTS[1], return_tensors="pt")
    mean = minilm.model(**alone).last_hidden_state[0].mean(0)
    assert np.allclose(vectors[1], (mean / mean.norm()).numpy(), atol=1e-5), "padding changed the vector"
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_order_and_repetition_change_nothing(minilm):
    vectors = minilm.encode(TEXTS)
    assert np.array_equal(vectors, minilm.encode(TEXTS))
    assert np.allclose(vectors[::-1], minilm.encode(TEXTS[::-1]), atol=1e-5)
    assert minilm.encode([]).shape == (0, 384)


def test_long_texts_are_cut_and_counted(minilm):
    assert minilm.count_tokens(["guitar strings", TEXTS[4]]) == [4, 402]
    _, mask = minilm.token_states([TEXTS[4]], 512)
    assert mask.shape == (1, minilm.max_length) == (1, 256)


def test_token_states_are_padded_to_the_longest_only(minilm):
    states, mask = minilm.token_states(["tea kettle", "guitar strings for a guitar"], 64)
    assert mask.sum(1).tolist() == minilm.count_tokens(["tea kettle", "guitar strings for a guitar"])
    assert states.shape == (2, int(mask.sum(1).max()), 384)
    assert (states[0, 4:] == 0).all()
    assert not states.requires_grad
    alone, _ = minilm.token_states(["tea kettle"], 64)
    assert torch.allclose(states[0, :4], alone[0], atol=1e-5)
    short, _ = minilm.token_states(["guitar strings for a guitar"], 3)
    assert short.shape[1] == 3
    weight = torch.nn.Parameter(torch.ones(384))
    (states @ weight).sum().backward()
    assert weight.grad is not None, "frozen states can feed a model that is trained"


def test_nothing_of_the_encoder_is_trainable(minilm):
    assert not any(parameter.requires_grad for parameter in minilm.model.parameters())
    assert not minilm.model.training


def test_a_folder_loads_as_the_hub_does_and_t5_is_its_encoder(local_t5):
    require_text_encoder(f"hub:{local_t5}")
    encoder = load_text_encoder(f"hub:{local_t5}")
    assert isinstance(encoder.model, T5EncoderModel)
    assert encoder.name == f"hub:{local_t5}"
    assert (encoder.dim, encoder.max_length) == (16, 512)
    states, mask = encoder.token_states(["guitar", "tea kettle tea"], 10)
    assert mask.tolist() == [[True, True, False, False], [True, True, True, True]]
    reference = AutoModel.from_pretrained(local_t5).encoder
    assert torch.allclose(states[1:], reference(torch.tensor([[4, 5, 4, 1]])).last_hidden_state, atol=1e-5)
    assert encoder.leading_tokens == 0
    assert encoder.encode(["guitar"]).shape == (1, 16)


def test_an_unreachable_hub_is_said_with_what_to_do():
    with pytest.raises(SettingError, match=r"'hub:google/flan-t5-small' could not be loaded .*HF_HUB_OFFLINE.*folder"):
        load_text_encoder("hub:google/flan-t5-small")
    with pytest.raises(SettingError, match="could not be loaded"):
        require_text_encoder("hub:google/flan-t5-small")


def test_an_unknown_name_is_refused():
    with pytest.raises(SettingError, match="no text encoder 'bert'; use 'minilm-l6-v2'"):
        load_text_encoder("bert")
