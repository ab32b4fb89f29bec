"""Losses, metrics, lists and codes of every recipe in the small world, to be compared bit for bit with a kept file.

    python tests/ray_jobs/golden_numbers.py    writes the file anew: only where a change of results is intended

Other processors add up in another order, so the file says on which kind it was written.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
KEPT = HERE / "golden_numbers.json"
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from odd_one_out import SMALL, family_histories, small_writer  # noqa: E402
from small_training import fit_vectors  # noqa: E402
from small_world import small_catalogue, small_histories  # noqa: E402

from infra.settings import RaySettings  # noqa: E402
from ray_jobs.data.batches import InMemoryExamples, make_batch  # noqa: E402
from ray_jobs.data.examples import evaluation_examples  # noqa: E402
from ray_jobs.denoiser.base import tiny_config  # noqa: E402
from ray_jobs.denoiser.tuning import TuningPlan  # noqa: E402
from ray_jobs.denoiser.windows import split_windows  # noqa: E402
from ray_jobs.evaluation.evaluator import evaluate  # noqa: E402
from ray_jobs.recipes import recipe_class, settings_class  # noqa: E402
from ray_jobs.tokenizers.base import FitContext  # noqa: E402
from ray_jobs.tokenizers.vectors import ArrayVectors  # noqa: E402
from ray_jobs.training.curves import epoch_losses  # noqa: E402
from ray_jobs.training.loop import fit  # noqa: E402
from ray_jobs.training.plan import Plan  # noqa: E402

GENERATIVE = {"width": 16, "heads": 2, "head_width": 8, "inner": 32, "layers": 1, "beams": 10}
RECOMMENDERS = {
    "popularity": ("popularity", {}),
    "sasrec": ("sasrec", {"width": 16}),
    "sasrec-two-phases": ("sasrec", {"width": 16, "phases": ({"name": "a"}, {"name": "b", "learning_rate": 1e-4})}),
    "sasrec-accumulate": ("sasrec", {"width": 16, "accumulate": 3, "loss": "bce"}),
    "bert4rec": ("bert4rec", {"width": 16}),
    "hstu": ("hstu", {"width": 16}),
    "tiger": ("tiger", {**GENERATIVE, "encoder_layers": 1}),
    "mendertok": ("mendertok", {**GENERATIVE, "swap_share": 0.5, "twin_share": 0.5, "alone_share": 0.5}),
    "menderemb": ("menderemb", GENERATIVE),
}
AUTOENCODER = {"levels": 2, "hidden": (16,), "epochs": 4, "batch_size": 40, "learning_rate": 1e-2}
AUTOENCODERS = ("rqvae", "fsq")
TOKENIZERS = {
    "rqvae": {**AUTOENCODER, "codebook_size": 6, "latent_dim": 4},
    "fsq": {**AUTOENCODER, "grid": (3, 3), "decoder_heads": 2},
    "rqkmeans": {"levels": 2, "codebook_size": 6},
    "balanced_kmeans": {"levels": 2, "codebook_size": 6},
    "itemindex": {},
}


def machine() -> str:
    """What the last bits depend on."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = (model or ["?"])[0].split(":")[-1].strip()
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {processor}"


def histories():
    """The small world's histories with times: a day or two between two items."""
    world = small_histories(40)
    times = tuple(86_400 * np.cumsum(1 + items % 2) for items in world.items)
    return replace(world, times=tuple(t.astype(np.int64) for t in times))


def recommender(name: str) -> dict:
    """Records of training, metrics and the lists of the test split."""
    torch.set_num_threads(1)
    recipe, given = RECOMMENDERS[name]
    settings = settings_class(recipe)(**{"epochs": 2, "batch_size": 32, "learning_rate": 5e-3, "seed": 3, **given})
    world = histories()
    plan = Plan(recipe, settings, small_catalogue(), None, evaluation_examples(world, "valid", settings.max_history))
    model = plan.build()
    records = []
    if model.trainable:
        examples = model.training_examples(world)
        model.prepare(examples)
        state = fit(model, InMemoryExamples(examples), InMemoryExamples(plan.valid))
        model.load_trained_state(state.best)
        records = [{k: v for k, v in record.items() if k != "seconds"} for record in state.records]
    else:
        model.fit_counts(world)
    ranked = evaluate(model, world)
    times = {"times": [[10, 20, 30], [40]], "asked_at": [50, 60]}
    batch = make_batch([[1, 7, 13], [20]], ["Find a kettle", ""], **times)
    items, scores = model.topk(batch, 5)
    return {
        "records": records,
        "metrics": [[r.split, r.condition, {k: float(v.mean()) for k, v in r.metrics().items()}] for r in ranked],
        "ranks": [r.ranks.tolist() for r in ranked],
        "lists": [r.lists[:5].tolist() for r in ranked],
        "asked": [items.tolist(), scores.tolist()],
    }


def tokenizer(name: str, home: str) -> dict:
    """Records of the fit, which may write below `home`, and the codes that come out."""
    torch.set_num_threads(1)
    recipe, settings = recipe_class(name, "tokenizer"), settings_class(name, "tokenizer")(**TOKENIZERS[name])
    rng = np.random.default_rng(1)
    vectors = (np.repeat(rng.normal(size=(6, 8)) * 3, 10, axis=0) + rng.normal(size=(60, 8))).astype(np.float32)
    training = np.arange(60) % 5 > 0
    if name in AUTOENCODERS:
        state = fit_vectors(recipe(settings), vectors[training])
        module = recipe(settings).build(vectors.shape[1])
        module.load_trained_state(state.trained)
        return {"records": epoch_losses(state.records), "codes": module.quantise(torch.from_numpy(vectors)).tolist()}
    context = FitContext(
        training=training, version="v", ray=RaySettings(), run_name="r", home=home, stage="semantic_ids",
        sequences=tuple(rng.permutation(60)[:6] for _ in range(20)),
    )  # fmt: skip
    fitted = recipe(settings).fit(ArrayVectors(vectors), [f"i{n:02d}" for n in range(60)], context)
    return {"records": fitted.records, "codes": np.asarray(fitted.codebook.codes).tolist()}


def denoiser() -> dict:
    """Records of a small causal model trained from chance, and the size of its weights."""
    torch.set_num_threads(1)
    settings = replace(SMALL, windows=60, epochs=2, tiny_epochs=2)
    people, writer = family_histories(40), small_writer()
    examples = tuple(writer.base_examples(split_windows(people, settings).tuning))
    plan = TuningPlan(tiny_config(writer.tokenizer, settings), settings, examples, writer.pad)
    learner = plan.build()
    state = fit(learner, *plan.sources(learner))
    return {
        "records": [{k: v for k, v in r.items() if k not in ("seconds", "phase")} for r in state.records],
        "weights": {name: float(tensor.abs().sum()) for name, tensor in state.current.items()},
    }


def everything() -> dict:
    """All of it by name, and the machine."""
    made = {f"recommender {name}": recommender(name) for name in RECOMMENDERS}
    made |= {f"tokenizer {name}": tokenizer(name, tempfile.mkdtemp()) for name in TOKENIZERS}
    return {"machine": machine(), **made, "denoiser": denoiser()}


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(made, sort_keys=True)}" for name, made in everything().items()]
    KEPT.write_text("{" + ",\n".join(lines) + "}\n")
