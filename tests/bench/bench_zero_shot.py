"""RecGPT on a benchmark file that it was not trained on, beside what needs no training.

    python -m tests.bench.bench_zero_shot <folder> --learn beauty --ask toys --epochs 8

Trains a tokenizer and RecGPT on the sequences of one file, and ranks the test targets of another one by NDCG@10 and
recall@10 with a model that has seen its texts only. Beside it: the cosine to the last item's text, a random order, and
popularity, which counts the training positions of the other file and so has seen more than the model. ``--tokenizers``
takes the codes of RQ-VAE too. Also printed: the same model on the file that it was trained on, the share of codes
of the other file that no item of the first one has, and the share of items with codes of their own.

Seed 0, Beauty to Toys, on one core: random .0003, popularity .0049, cosine .0279; RecGPT with codes of FSQ .0013 after
20 epochs and .0012 after 50 (on Beauty itself .0041 and .0075), with codes of RQ-VAE .0016 after 20 (.0080).

One process without Ray; text vectors are kept in ``--vectors``, because encoding takes minutes.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ray_jobs.data.batches import InMemoryExamples
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.examples import evaluation_examples
from ray_jobs.data.histories import Histories
from ray_jobs.encoders.settings import PACKAGED
from ray_jobs.encoders.text import load_text_encoder
from ray_jobs.evaluation.evaluator import evaluate
from ray_jobs.recipes.generative.recgpt import RecGPT, RecGPTSettings
from ray_jobs.recipes.sequential.popularity import Popularity
from ray_jobs.recipes.sequential.settings import PopularitySettings
from ray_jobs.recipes.tokenizers.fsq import FSQSettings, FSQTokenizer
from ray_jobs.recipes.tokenizers.rqvae import RQVAESettings, RQVAETokenizer
from ray_jobs.recommenders.another_catalogue import on_another_catalogue
from ray_jobs.recommenders.base import Recommender
from ray_jobs.recommenders.settings import RecipeSettings
from ray_jobs.reproduction.baselines import NearestToLast, RandomOrder
from ray_jobs.reproduction.benchmark_data import read_benchmark
from ray_jobs.tokenizers.autoencoder import AutoencoderQuantiser, AutoencoderTokenizer
from ray_jobs.tokenizers.autoencoder_training import VectorPlan
from ray_jobs.tokenizers.vectors import ArrayVectors, standardisation
from ray_jobs.training.loop import fit

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
TOKENIZING = {"levels": 4, "epochs": 30, "batch_size": 256, "learning_rate": 1e-3}
SHAPE = {"width": 64, "layers": 2, "heads": 2, "inner": 256, "max_history": 10, "batch_size": 256, "dropout": 0.2}
VALIDATION_USERS = 2_000


def recipe_of(name: str, grid: tuple[int, ...]) -> AutoencoderTokenizer:
    """With as many codes per level."""
    if name == "fsq":
        return FSQTokenizer(FSQSettings(**TOKENIZING, grid=grid, decoder_heads=4, decoder_layers=1))
    return RQVAETokenizer(RQVAESettings(**TOKENIZING, codebook_size=math.prod(grid)))


def vectors_of(catalogue: Catalogue, kept: Path) -> Floats:
    """The catalogue's text vectors, from the file `kept` if it is there."""
    if not kept.exists():
        np.save(kept, load_text_encoder(PACKAGED).encode(catalogue.texts))
    found: Floats = np.load(kept)
    return found


def tokenizer(recipe: AutoencoderTokenizer, vectors: Floats, training: npt.NDArray[np.bool_]) -> AutoencoderQuantiser:
    """Trained on the items at training positions."""
    mean, scale = standardisation(ArrayVectors(vectors), training)
    plan = VectorPlan(recipe, (vectors[training] - mean) / scale)
    module = plan.build()
    module.load_trained_state(fit(module, *plan.sources(module)).trained)
    return AutoencoderQuantiser(module, mean, scale)


def with_codes(catalogue: Catalogue, codes: Codes, quantiser: AutoencoderQuantiser) -> Catalogue:
    return replace(catalogue, codes=codes.astype(np.int64), level_sizes=quantiser.level_sizes)


def with_texts(model: RecGPT, vectors: Floats) -> RecGPT:
    model.texts.copy_(torch.from_numpy(vectors))
    return model


def trained(settings: RecGPTSettings, catalogue: Catalogue, vectors: Floats, histories: Histories) -> RecGPT:
    torch.manual_seed(settings.seed)
    model = with_texts(RecGPT(settings, catalogue), vectors)
    valid = evaluation_examples(histories, "valid", settings.max_history)
    few = np.random.default_rng(0).permutation(len(valid))[:VALIDATION_USERS]
    state = fit(model, InMemoryExamples(model.training_examples(histories)), InMemoryExamples(valid.at(np.sort(few))))
    model.load_trained_state(state.best)
    return model


def show(name: str, model: Recommender, histories: Histories) -> None:
    (ranked,) = evaluate(model, histories, ("test",))
    found = {metric: float(values.mean()) for metric, values in ranked.metrics().items()}
    print(f"{name} | {found['ndcg_10']:.4f} | {found['recall_10']:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the benchmark files, see ray_jobs.reproduction.benchmark_data")
    parser.add_argument("--learn", default="beauty")
    parser.add_argument("--ask", default="toys")
    parser.add_argument("--tokenizers", nargs="+", choices=["fsq", "rqvae"], default=["fsq"])
    parser.add_argument("--grid", nargs="+", type=int, default=[4, 4, 4], help="see fsq.grid; RQ-VAE has as many codes")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=Path, default=Path(), help="folder for the text vectors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    print(f"{vars(given)}\ntorch {torch.__version__}\nmodel on {given.ask} | NDCG@10 | recall@10")
    (own, histories), (other, foreign) = (read_benchmark(given.folder, name) for name in (given.learn, given.ask))
    vectors, others = (
        vectors_of(catalogue, given.vectors / f"{name}.{PACKAGED}.npy")
        for name, catalogue in ((given.learn, own), (given.ask, other))
    )
    plain = RecipeSettings(seed=given.seed)
    popularity = Popularity(PopularitySettings(), other)
    popularity.fit_counts(foreign)
    show("random order", RandomOrder(plain, other), foreign)
    show("popularity of its own training positions", popularity, foreign)
    show("cosine to the last item", NearestToLast(plain, other, torch.from_numpy(others)), foreign)
    schedule = {"epochs": given.epochs, "evaluate_every": max(1, given.epochs // 3), "learning_rate": 3e-3}
    settings = RecGPTSettings(**SHAPE, **schedule, seed=given.seed)
    for name in given.tokenizers:
        torch.manual_seed(given.seed)
        quantiser = tokenizer(recipe_of(name, tuple(given.grid)), vectors, histories.interacted(len(own)))
        codes, asked = quantiser.encode(vectors), quantiser.encode(others)
        known = [np.isin(asked[:, level], codes[:, level]) for level in range(codes.shape[1])]
        apart = [len(np.unique(found, axis=0)) / len(found) for found in (codes, asked)]
        print(
            f"{name}: {1 - np.mean(known):.3f} of the codes are new, distinct tuples {apart[0]:.3f}, {apart[1]:.3f}",
            flush=True,
        )
        model = trained(settings, with_codes(own, codes, quantiser), vectors, histories)
        there = on_another_catalogue(model, with_codes(other, asked, quantiser))
        assert isinstance(there, RecGPT)
        show(f"recgpt, {name}, trained on {given.learn}", with_texts(there, others), foreign)
        show(f"recgpt, {name}, on {given.learn} itself", model, histories)
    print(f"{time.process_time() - began:.0f} processor seconds")


if __name__ == "__main__":
    main()
