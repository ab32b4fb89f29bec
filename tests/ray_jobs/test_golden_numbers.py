"""No change of the house may change a result: losses, metrics, lists and codes are those of the kept file."""

import json

import golden_numbers
import pytest

from ray_jobs.encoders.text import load_text_encoder

KEPT = json.loads(golden_numbers.KEPT.read_text())
SAME = KEPT["machine"] == golden_numbers.machine()


def compare(found, kept, where):
    """Equal to the last bit on the kind of machine that wrote the file; elsewhere losses and metrics are close."""
    if SAME:
        assert found == kept, where
    elif isinstance(kept, dict):
        assert set(found) == set(kept), where
        for name, value in kept.items():
            compare(found[name], value, f"{where}.{name}")
    elif where.endswith(("records", "metrics")):
        for one, other in zip(found, kept, strict=True):
            compare(one, other, where.removesuffix("s"))
    elif isinstance(kept, float):
        # A target that changes place with a near-equal one moves a mean over forty users by about this much.
        assert found == pytest.approx(kept, rel=0.02, abs=0.03), where


def check(made, name):
    compare(json.loads(json.dumps(made)), KEPT[name], name)


@pytest.fixture(scope="module", autouse=True)
def _encoder_is_imported():
    """What the first text encoder of a process imports is no recipe's own time."""
    load_text_encoder("minilm-l6-v2")


@pytest.mark.parametrize("name", golden_numbers.RECOMMENDERS)
def test_recommender(name):
    check(golden_numbers.recommender(name), f"recommender {name}")


@pytest.mark.parametrize("name", golden_numbers.TOKENIZERS)
def test_tokenizer(name, tmp_path):
    check(golden_numbers.tokenizer(name, str(tmp_path)), f"tokenizer {name}")


def test_denoiser():
    check(golden_numbers.denoiser(), "denoiser")
