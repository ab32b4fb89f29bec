import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_world import small_catalogue, small_histories

from infra.errors import UserError
from ray_jobs.recipes.generative.mendertok import MenderTok, MenderTokSettings
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.ensrec import EnsRec, EnsRecSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.rearec import ReaRec, ReaRecSettings
from ray_jobs.recipes.sequential.rpg import RPG, RPGSettings
from ray_jobs.recipes.sequential.sasrec import SASRec, SASRecSettings
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recommenders.bundle import load_bundle, read_provenance, save_bundle
from schemas.artifact_seal import seal_folder
from schemas.errors import DataError

SMALL = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "beams": 10}
HISTORIES = [["I00", "I12", "gone"], [], ["gone"], ["I55", "I01", "I02", "I03"]]
PREFERENCES = ["Find a tent", None, "Avoid noise", None]


def _model(name):
    torch.manual_seed(0)
    catalogue = small_catalogue()
    if name == "popularity":
        model = Popularity(PopularitySettings(), catalogue)
        model.fit_counts(small_histories())
        return model
    return {
        "sasrec": lambda: SASRec(SASRecSettings(width=16), catalogue),
        "ensrec": lambda: EnsRec(EnsRecSettings(width=16), catalogue),
        "rpg": lambda: RPG(RPGSettings(width=16, digits=8, components=16), catalogue),
        "rearec": lambda: ReaRec(ReaRecSettings(width=16, backbone="bert4rec"), catalogue),
        "tiger": lambda: Tiger(TigerSettings(**SMALL, encoder_layers=1), catalogue),
        "mendertok": lambda: MenderTok(MenderTokSettings(**SMALL), catalogue),
    }[name]()


@pytest.mark.parametrize("name", ["popularity", "sasrec", "ensrec", "rpg", "rearec", "tiger", "mendertok"])
def test_a_bundle_comes_back_as_it_was(name, tmp_path):
    model = _model(name).eval()
    save_bundle(tmp_path / "bundle", model, {"run_identity": "x"})
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.recipe == name
    assert bundle.settings == model.settings
    assert bundle.catalogue.item_ids == model.catalogue.item_ids
    assert bundle.provenance == {"run_identity": "x"} == read_provenance(tmp_path / "bundle")
    for tensor, again in zip(model.trained_state().values(), bundle.recommender.trained_state().values(), strict=True):
        torch.testing.assert_close(tensor, again, rtol=0, atol=0, equal_nan=True)
    answers = bundle.recommend(HISTORIES, PREFERENCES, 5)
    assert [len(answer) for answer in answers] == [5] * 4
    for history, answer in zip(HISTORIES, answers, strict=True):
        ids = [item for item, _ in answer]
        assert len(set(ids)) == 5
        assert not set(ids) & set(history), "seen items are left out"
        assert set(ids) <= set(model.catalogue.item_ids)
        assert [score for _, score in answer] == sorted((score for _, score in answer), reverse=True)
    if name == "popularity":
        everything = bundle.recommend(HISTORIES, PREFERENCES, 40)
        assert [len(answer) for answer in everything] == [28, 30, 30, 27], "all that is left, I55 is no item"


def test_a_clean_process_recommends_the_same(tmp_path):
    save_bundle(tmp_path / "bundle", _model("mendertok").eval(), {})
    expected = load_bundle(tmp_path / "bundle").recommend(HISTORIES, PREFERENCES, 5)
    code = (
        "import json, sys\n"
        "from ray_jobs.recommenders.bundle import load_bundle\n"
        "histories, preferences = json.loads(sys.argv[2])\n"
        "print(json.dumps(load_bundle(sys.argv[1]).recommend(histories, preferences, 5)))\n"
        "assert 'ray' not in sys.modules and 'mlflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bundle"), json.dumps([HISTORIES, PREFERENCES])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert [[item for item, _ in row] for row in answers] == [[item for item, _ in row] for row in expected]
    for row, same in zip(answers, expected, strict=True):
        assert [score for _, score in row] == pytest.approx([score for _, score in same], abs=1e-5)


def test_half_a_bundle_and_wrong_questions_are_refused(tmp_path):
    with pytest.raises(DataError, match="no complete model bundle"):
        load_bundle(tmp_path)
    assert read_provenance(tmp_path) is None
    save_bundle(tmp_path, _model("popularity"), {})
    bundle = load_bundle(tmp_path)
    with pytest.raises(DataError, match="2 histories came with 1 preferences"):
        bundle.recommend([[], []], [None], 5)
    with pytest.raises(DataError, match="k is 0"):
        bundle.recommend([[]], [None], 0)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(DataError, match="run the train stage first"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("cut", [lambda size: 0, lambda size: 40, lambda size: size - 3])
def test_a_file_of_a_bundle_that_is_cut_is_named(tmp_path, cut):
    save_bundle(tmp_path, _model("popularity"), {})
    for name in ("recipe.json", "weights.safetensors", "catalogue.parquet"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: cut(len(whole))])
        with pytest.raises(UserError, match=rf"{name.replace('.', '[.]')}.*train the model again"):
            load_bundle(tmp_path)
        (tmp_path / name).write_bytes(whole)
    load_bundle(tmp_path)


def test_weights_that_are_no_numbers_are_no_bundle(tmp_path):
    save_bundle(tmp_path, _model("sasrec"), {})
    weights = load_file(tmp_path / "weights.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[-1] = float("nan")
    save_file(weights, tmp_path / "weights.safetensors")
    seal_folder(tmp_path)
    with pytest.raises(DataError, match=f"weights.safetensors has values that are no numbers, e.g. in {name}"):
        load_bundle(tmp_path)
