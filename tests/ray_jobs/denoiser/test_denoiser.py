import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_one_out import SMALL, TITLES, family_histories, load_adapter, small_writer, untrained
from ray import cloudpickle
from safetensors.torch import load_file
from small_training import killed_after

from infra.errors import SettingError
from infra.settings import RaySettings
from ray_jobs.denoiser import quality
from ray_jobs.denoiser.base import load_base, load_tokenizer, save_base
from ray_jobs.denoiser.cooccurrence import Cooccurrence
from ray_jobs.denoiser.detect import Suspicion, edits, suspicions
from ray_jobs.denoiser.lora import add_adapter, save_adapter
from ray_jobs.denoiser.replace import TitleTable, replacements
from ray_jobs.denoiser.tuning import TuningPlan
from ray_jobs.denoiser.tuning_data import collate
from ray_jobs.denoiser.windows import split_windows
from ray_jobs.training.loop import fit
from ray_jobs.training.ray_train import train


def fitted(plan, learner=None, **given):
    """What `plan` trains (`learner` instead of the one that it builds), and the state after the last epoch."""
    learner = learner or plan.build()
    return learner, fit(learner, *plan.sources(learner), **given)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A base in a folder, the same with a tuned adapter, and the data of both."""
    torch.set_num_threads(2)
    histories, writer = family_histories(), small_writer()
    split = split_windows(histories, SMALL)
    config = untrained(writer).config
    base, _ = fitted(TuningPlan(config, SMALL, tuple(writer.base_examples(split.tuning)), writer.pad))
    folder = tmp_path_factory.mktemp("denoiser")
    save_base(folder / "base", base.model, writer.tokenizer)
    plan = TuningPlan(f"hub:{folder / 'base'}", SMALL, tuple(writer.tuning_examples(split.tuning)), writer.pad)
    learner, state = fitted(plan)
    save_adapter(folder / "adapter", learner.model)
    return folder, learner.model, state, writer, split, histories


def test_the_adapter_alone_is_trained_and_only_on_queries_and_values(tuned):
    folder, model, state, _, _, _ = tuned
    width, layers = SMALL.tiny_width, SMALL.tiny_layers
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == layers * 2 * SMALL.lora_rank * (width + width) == 4096
    assert {name.split("self_attn.")[1].split(".")[0] for name in trained} == {"q_proj", "v_proj"}
    assert set(state.current) == set(trained)
    before = load_base(f"hub:{folder / 'base'}").state_dict()
    after = {name.replace(".base_layer", ""): p for name, p in model.get_base_model().state_dict().items()}
    assert set(before) <= set(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == 4096


def test_a_reloaded_adapter_gives_the_same_scores(tuned):
    folder, model, _, writer, split, _ = tuned
    lists = [window.items for window in split.heldout]
    again = load_adapter(f"hub:{folder / 'base'}", folder / "adapter")
    before, after = suspicions(model, writer, lists), suspicions(again, writer, lists)
    assert len(before) == len(split.heldout)
    for mine, theirs in zip(before, after, strict=True):
        assert np.array_equal(mine.mean, theirs.mean)


def test_tuning_finds_what_the_base_cannot(tuned):
    _, model, state, writer, split, histories = tuned
    after = quality.of_model(model, writer, histories, split.heldout)
    with model.disable_adapter():
        before = quality.of_model(model, writer, histories, split.heldout)
    others = quality.of_baselines(histories, split.tuning_users, len(TITLES), split.heldout, 0)
    assert state.records[-1]["loss"] < state.records[0]["loss"]
    assert after["auc"] > 0.75
    assert after["auc"] > max(before["auc"], others["random"]["auc"]) + 0.1
    assert after["ap"] > before["ap"]
    assert after["hit_1_sure"] >= after["hit_1_unsure"]
    assert others["cooccurrence"]["auc"] > 0.6


def test_scores_with_a_shared_prompt_are_those_of_whole_sequences(tuned):
    _, model, _, writer, split, _ = tuned
    windows = split.heldout[:7]
    found = suspicions(model, writer, [window.items for window in windows])
    model.eval()
    for window, one in zip(windows, found, strict=True):
        for place, item in enumerate(window.items):
            prompt, title = writer.prompt(window.items), writer.title_ids[item]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + title])).logits[0, len(prompt) - 1 : -1]
            logs = logits.log_softmax(-1).gather(1, torch.tensor(title)[:, None])[:, 0]
            assert one.total[place] == pytest.approx(float(logs.sum()), abs=1e-4)
            assert one.mean[place] == pytest.approx(float(logs.mean()), abs=1e-4)
            assert one.first[place] == pytest.approx(float(logs[0]), abs=1e-4)


def test_replacements_are_catalogue_items_that_the_user_does_not_have(tuned):
    _, model, _, writer, split, histories = tuned
    table = TitleTable(model, writer)
    windows = split.heldout[:20]
    taken = [quality.taken_items(histories, window) for window in windows]
    asked = [(window.items, window.position) for window in windows]
    answers = replacements(model, writer, table, asked, taken)
    assert len(answers) == 20
    for answer, has in zip(answers, taken, strict=True):
        assert 0 <= answer.item < len(TITLES)
        assert answer.item not in has
        assert answer.grounded == (answer.generated != TITLES[answer.item])
    exact = table.ground(TITLES[4], writer.title_ids[4], {1, 2})
    assert (exact.item, exact.grounded) == (4, False)
    elsewhere = table.ground(TITLES[4], writer.title_ids[4], {4})
    assert elsewhere.item != 4
    assert elsewhere.grounded
    alone = table.ground("no such title", writer.title_ids[7], set())
    assert (alone.item, alone.grounded) == (7, True), "the state of a title's own tokens is nearest to itself"
    assert table.ground("", [], set(range(len(TITLES))) - {5}).item == 5


def _said(*logs):
    return Suspicion(*(np.array(logs, dtype=np.float64),) * 3)


def test_edits_are_few_above_the_percentile_and_not_where_the_model_is_unsure():
    found = [_said(-1.0, -9.0, -2.0), _said(-3.0, -3.0, -3.0), _said(-9.0, -9.0, -1.5)]
    settings = replace(SMALL, threshold_percentile=0.6, max_edits=2)
    assert edits(found, settings) == [[0, 2], [], [2]]
    assert edits(found, replace(settings, max_edits=1)) == [[0], [], [2]]
    assert edits(found, replace(settings, max_uncertainty=0.1)) == [[], [], [2]]
    assert edits(found, replace(settings, threshold_percentile=1.0)) == [[], [], []]
    assert found[1].uncertainty == pytest.approx(1.0)
    assert found[2].uncertainty < 0.1
    assert edits([], settings) == []
    tie = Suspicion(np.array([-1.0, -2.0]), np.array([-2.0, -2.0]), np.array([-0.5, -0.5]))
    assert tie.scores(replace(settings, score="first_token")).tolist() == [-0.5, -0.5]


def test_cooccurrence_by_hand():
    histories = family_histories(3)
    company = Cooccurrence(histories, [0, 1, 2], len(TITLES))
    have = np.zeros((3, len(TITLES)))
    for user in range(3):
        have[user, histories.training_items(user)] = 1
    norms = np.maximum(np.linalg.norm(have, axis=0), 1)
    cosine = have.T @ have / norms / norms[:, None]
    np.fill_diagonal(cosine, 0)
    items = [0, 12, 3]
    expected = [-sum(cosine[i, j] for j in items) / 2 for i in items]
    assert company.scores(items) == pytest.approx(expected)
    others = histories.training_items(0)[1:].tolist()
    best = company.replacement(others, set(others))
    assert cosine[others].sum(0)[best] == max(
        cosine[others].sum(0)[item] for item in range(len(TITLES)) if item not in others
    )


def test_gradients_of_small_passes_add_up_to_those_of_one():
    writer = small_writer()
    windows = split_windows(family_histories(40), replace(SMALL, windows=16)).tuning
    examples = writer.tuning_examples(windows)
    states = []
    for micro in (16, 3):
        settings = replace(SMALL, epochs=2, micro_batch_size=micro, lora_dropout=0.0)
        plan = TuningPlan("hub:x", settings, tuple(examples), writer.pad)
        states.append(fitted(plan, plan.learner(add_adapter(untrained(writer), settings)))[1])
    for name, tensor in states[0].current.items():
        assert torch.allclose(tensor, states[1].current[name], atol=1e-4)
    assert states[0].step == states[1].step == 2
    batch = collate(examples, writer.pad)
    assert batch.ids.shape[0] == 16


@pytest.mark.nightly
def test_a_worker_killed_in_mid_run_resumes_to_the_uninterrupted_result(ray_session, tmp_path):
    torch.set_num_threads(1)
    settings = replace(SMALL, epochs=3, windows=48)
    writer = small_writer(settings)
    windows = split_windows(family_histories(60), settings).tuning
    save_base(tmp_path / "base", untrained(writer), writer.tokenizer)
    plan = TuningPlan(f"hub:{tmp_path / 'base'}", settings, tuple(writer.tuning_examples(windows)), writer.pad)
    _, expected = fitted(plan)
    marker = tmp_path / "killed"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def kill_once(state):
        if state.epoch == 2 and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    outcome = train(
        plan,
        RaySettings(storage=str(tmp_path / "runs")),
        run_name="killed-once",
        home=str(tmp_path),
        stage="tune_denoiser",
        hook=kill_once,
    )
    assert marker.exists()
    assert outcome.state.step == expected.step == 9
    assert [record["loss"] for record in outcome.state.records] == [record["loss"] for record in expected.records]
    assert all(torch.equal(expected.current[name], outcome.state.current[name]) for name in expected.current)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_state_goes_on_where_it_was(tmp_path, cut):
    writer = small_writer()
    settings = replace(SMALL, epochs=2, windows=32, lora_dropout=0.1)
    examples = writer.tuning_examples(split_windows(family_histories(60), settings).tuning)
    plan = TuningPlan("hub:x", settings, tuple(examples), writer.pad)

    def learner():
        return plan.learner(add_adapter(untrained(writer), settings))

    _, whole = fitted(plan, learner())
    assert whole.step == 4, "the cuts are inside an epoch and at its end"

    state = killed_after(cut, tmp_path, partial(fitted, plan, learner()))
    _, resumed = fitted(plan, learner(), state=state)
    assert [r["loss"] for r in resumed.records] == [r["loss"] for r in whole.records]
    assert all(torch.equal(whole.trained[name], resumed.trained[name]) for name in whole.trained)
    restored = learner()
    restored.load_trained_state(whole.trained)
    model = restored.model
    assert all(torch.equal(p, whole.trained[name]) for name, p in model.named_parameters() if p.requires_grad)


def test_a_hub_that_cannot_be_reached_is_said_with_the_setting(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    for load in (load_tokenizer, load_base):
        with pytest.raises(SettingError, match=r"tune_denoiser.base='hub:some/model' could not be loaded"):
            load("hub:some/model")
        with pytest.raises(SettingError, match="needs no network"):
            load(f"hub:{tmp_path}")
    with pytest.raises(SettingError, match="use 'tiny', 'hub:<repo id>'"):
        load_base("llama")


def test_a_base_without_the_named_layers_is_refused():
    writer = small_writer()
    with pytest.raises(SettingError, match="its linear layers are called down_proj, gate_proj, k_proj"):
        add_adapter(untrained(writer), replace(SMALL, target_modules=("c_attn",)))
