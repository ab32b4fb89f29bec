from dataclasses import replace
from functools import partial

import pytest
import torch
from small_training import fit_two, small_fit, small_plan

from ray_jobs.data.batches import make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.icsrec import ICSRecSettings


def test_compiled_losses_are_those_of_the_plain_recipe(monkeypatch):
    compiled = []
    real = torch.compile

    def compile_without_a_compiler(module, **given):
        compiled.append(given)
        return real(module, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", compile_without_a_compiler)
    plain, _ = fit_two(epochs=1)
    state, _ = fit_two(epochs=1, compile=True)
    assert compiled == [{"dynamic": True}]
    assert state.records[0]["loss"] == pytest.approx(plain.records[0]["loss"], rel=1e-6)


def test_a_compiled_contrast_draws_what_the_plain_one_draws(monkeypatch):
    settings = ICSRecSettings(width=16, layers=1, dropout=0.0, intents=6, epochs=1, batch_size=32)
    plain = small_fit(small_plan(settings, "icsrec"))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    state = small_fit(small_plan(replace(settings, compile=True), "icsrec"))
    for name in ("next_item", "coarse", "fine"):
        assert state.records[0][name] == pytest.approx(plain.records[0][name], rel=1e-5)


def test_a_compiled_search_finds_what_the_plain_one_finds():
    codes = torch.cartesian_prod(torch.arange(8), torch.arange(8), torch.arange(4))[::2]
    names = tuple(f"i{n}" for n in range(len(codes)))
    torch.manual_seed(0)
    sizes = TigerSettings(width=16, heads=2, head_width=8, inner=16, layers=1, encoder_layers=1, max_history=8)
    model = Tiger(sizes, Catalogue(names, names, names, codes.numpy(), (8, 8, 4))).eval()
    batches = [make_batch([list(range(3, 3 + length))], [""]) for length in (8, 1, 0)]
    plain = [model.topk(batch, 5, exclude) for batch in batches for exclude in (None, batch.history)]
    model.settings = replace(sizes, compile_search=True)
    fast = [model.topk(batch, 5, exclude) for batch in batches for exclude in (None, batch.history)]
    for (items, scores), (same, close) in zip(plain, fast, strict=True):
        assert torch.equal(items, same)
        assert torch.allclose(scores, close, atol=1e-5)
