"""Tokenizers beside their peers: seconds to the same error of reconstruction, on the same vectors.

    python -m tests.bench.bench_tokenizers --parts rqkmeans rqvae --items 12101 100000 --threads 1
    python -m tests.bench.bench_tokenizers --small

rqkmeans  The recipe's fit with the codes of all items, after 5, 10 and 25 iterations, against faiss's ResidualQuantizer
          with as many levels and codes, trained and applied: as faiss has it by default (dimensions added step by step,
          a beam of five), the same with a beam of one, which assigns as the recipe does, and plain k-means level by
          level with a beam of one. For each peer: the recipe's least time among those whose error is no larger than
          the peer's times 1.005.
rqvae     The recipe's training against the same encoder, decoder, optimiser and batches around
          vector-quantize-pytorch's ResidualVQ with its k-means start and its replacement of dead codes. Epochs in
          turns; the clock stands still while errors are measured on all vectors. Each line is an error that both
          reached, with the seconds until then (the start of the codebooks included), interpolated between epochs.
          "a step": the ratio of epochs alone.

The error is the squared distance from vector to reconstruction, relative to the variance of the vectors. Vectors are
planted, three levels of clusters with noise in a spectrum that decays like that of text vectors, of length one; or
those of an .npy file. Rounds are in turns in one process; ratios are of pairs, medians with the middle half in
brackets. ``--clock cpu`` counts processor time, for a machine that does other work as well.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ

from ray_jobs.recipes.tokenizers.rqkmeans import RQKMeansTokenizer
from ray_jobs.recipes.tokenizers.rqvae import RQVAE
from ray_jobs.recipes.tokenizers.settings import RQKMeansSettings, RQVAESettings
from ray_jobs.tokenizers.autoencoder_training import InMemory
from ray_jobs.tokenizers.vectors import ArrayVectors
from ray_jobs.training.engine import Engine
from ray_jobs.training.workers import SINGLE_WORKER
from tests.bench.bench_decoding import spread

Floats = npt.NDArray[np.float32]
WIDTH = 384
CLUSTERS = (30, 600, 8000)
ITERATIONS = (5, 10, 25)
CLOSE = 1.005
now = time.perf_counter


def planted_vectors(items: int, seed: int) -> Floats:
    """float32[items, WIDTH] of length one; items are unevenly spread over clusters within clusters."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, WIDTH + 1) ** -0.5
    vectors = 0.7 * rng.normal(size=(items, WIDTH)) * spectrum
    for level, clusters in enumerate(CLUSTERS):
        centres = rng.normal(size=(clusters, WIDTH)) * spectrum
        vectors += 0.8**level * centres[(rng.random(items) ** 1.5 * clusters).astype(int)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def error_of(vectors: Floats, reconstructed: Floats) -> float:
    return float(np.square(vectors - reconstructed).sum() / np.square(vectors - vectors.mean(0)).sum())


def timed(call: Callable[[], Floats], vectors: Floats) -> tuple[float, float]:
    """Seconds and error of a call that gives reconstructions; decoding is counted on both sides."""
    started = now()
    reconstructed = call()
    return now() - started, error_of(vectors, reconstructed)


def recipe(vectors: Floats, settings: RQKMeansSettings) -> Floats:
    fitted, codes, _ = RQKMeansTokenizer(settings).fit_levels(ArrayVectors(vectors), np.ones(len(vectors), bool))
    return fitted.decode(codes)


def peer(vectors: Floats, settings: RQKMeansSettings, beam: int, progressive: bool) -> Floats:
    quantizer = faiss.ResidualQuantizer(WIDTH, settings.levels, int(np.log2(settings.codebook_size)))
    quantizer.max_beam_size = beam
    kind = faiss.ResidualQuantizer
    quantizer.train_type = kind.Train_progressive_dim if progressive else kind.Train_default
    quantizer.train(vectors)
    decoded: Floats = quantizer.decode(quantizer.compute_codes(vectors))
    return decoded


PEERS = {"as by default": (5, True), "beam of one": (1, True), "plain, beam of one": (1, False)}


def part_rqkmeans(given: argparse.Namespace, vectors: Floats) -> None:
    print(f"\n## rqkmeans against faiss's ResidualQuantizer: {len(vectors)} vectors")
    settings = RQKMeansSettings(codebook_size=given.codes)
    recipe(vectors, replace(settings, iterations=1))
    ours: dict[int, list[tuple[float, float]]] = {count: [] for count in ITERATIONS}
    theirs: dict[str, list[tuple[float, float]]] = {name: [] for name in PEERS}
    for _ in range(given.repeats):
        for count, found in ours.items():
            found.append(timed(lambda count=count: recipe(vectors, replace(settings, iterations=count)), vectors))
        for name, kind in PEERS.items():
            theirs[name].append(timed(lambda kind=kind: peer(vectors, settings, *kind), vectors))
    print("fit | seconds | error")
    for name, found in [(f"recipe, {count} iterations", ours[count]) for count in ITERATIONS] + list(theirs.items()):
        print(f"{name} | {spread([seconds for seconds, _ in found], digits=2)} | {found[0][1]:.4f}")
    print("peer | iterations of the recipe | its error, relative | times as fast")
    for name, found in theirs.items():
        error = found[0][1]
        enough = [count for count in ITERATIONS if ours[count][0][1] <= CLOSE * error]
        count = min(enough, default=max(ITERATIONS))
        ratios = [other / own for (own, _), (other, _) in zip(ours[count], found, strict=True)]
        print(f"{name} | {count} | {ours[count][0][1] / error:.3f} | {spread(ratios, digits=2)}", flush=True)


def plain_layers(widths: tuple[int, ...]) -> nn.Sequential:
    """torch's own linear layers, as a user of the peer writes them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Peer(nn.Module):
    """The recipe's autoencoder around ResidualVQ."""

    def __init__(self, settings: RQVAESettings) -> None:
        super().__init__()
        widths = (WIDTH, *settings.hidden, settings.latent_dim)
        self.encoder, self.decoder = plain_layers(widths), plain_layers(widths[::-1])
        self.quantizer = ResidualVQ(
            dim=settings.latent_dim,
            num_quantizers=settings.levels,
            codebook_size=settings.codebook_size,
            kmeans_init=True,
            commitment_weight=settings.commitment,
            threshold_ema_dead_code=2,
        )

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions float[B, D] and the loss."""
        quantised, _, commitment = self.quantizer(self.encoder(batch))
        rebuilt = self.decoder(quantised)
        return rebuilt, functional.mse_loss(rebuilt, batch) + commitment.sum()


class Training:
    """One side: seconds so far and errors, epoch by epoch."""

    def __init__(self, source: InMemory, settings: RQVAESettings) -> None:
        self.source, self.settings = source, settings
        self.seconds, self.curve = 0.0, [(0.0, 1.0)]
        self.epochs: list[float] = []

    def run(self, epoch: int) -> None:
        started = now()
        self.train(epoch)
        self.epochs.append(now() - started)
        self.seconds += self.epochs[-1]
        vectors = self.source.sample
        with torch.no_grad():
            self.curve.append((self.seconds, error_of(vectors.numpy(), self.rebuilt(vectors).numpy())))

    def train(self, epoch: int) -> None:
        raise NotImplementedError

    def rebuilt(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError

    def until(self, error: float) -> float:
        """Seconds until that error was first reached."""
        for (earlier, above), (later, below) in itertools.pairwise(self.curve):
            if below <= error:
                return later if above <= error else earlier + (later - earlier) * (above - error) / (above - below)
        raise AssertionError(error)

    @property
    def best(self) -> float:
        return min(error for _, error in self.curve)


class Ours(Training):
    """The recipe."""

    def __init__(self, source: InMemory, settings: RQVAESettings) -> None:
        super().__init__(source, settings)
        self.model = RQVAE(WIDTH, settings)
        started = now()
        self.model.epoch_begins(1, source)
        self.seconds = now() - started
        names = frozenset(name for name, _ in self.model.named_parameters())
        self.engine = Engine(self.model, self.model.phases()[0], names, SINGLE_WORKER)

    def train(self, epoch: int) -> None:
        for batch in self.source.batches(self.settings.batch_size, epoch):
            self.engine.step(batch, self.settings.learning_rate)
        self.model.epoch_ends(epoch, self.source, self.engine.optimizer)

    def rebuilt(self, vectors: Tensor) -> Tensor:
        return self.model.reconstruct(self.model.quantise(vectors))


class Theirs(Training):
    """The peer."""

    def __init__(self, source: InMemory, settings: RQVAESettings) -> None:
        super().__init__(source, settings)
        self.model = Peer(settings)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def train(self, epoch: int) -> None:
        self.model.train()
        for batch in self.source.batches(self.settings.batch_size, epoch):
            self.optimizer.zero_grad()
            self.model(batch)[1].backward()
            self.optimizer.step()

    def rebuilt(self, vectors: Tensor) -> Tensor:
        self.model.eval()
        return torch.cat([self.model(rows)[0] for rows in vectors.split(16_384)])


def part_rqvae(given: argparse.Namespace, vectors: Floats) -> None:
    import sklearn.cluster  # noqa: F401  (its import is not the start of the codebooks)

    print(f"\n## rqvae against vector-quantize-pytorch's ResidualVQ: {len(vectors)} vectors, {given.epochs} epochs")
    source = InMemory(torch.from_numpy((vectors - vectors.mean(0)) / vectors.std(0)))
    pairs = []
    for seed in range(given.seed, given.seed + given.repeats):
        settings = RQVAESettings(epochs=given.epochs, codebook_size=given.codes, seed=seed)
        sides: list[Training] = []
        for kind in (Ours, Theirs):
            torch.manual_seed(seed)
            sides.append(kind(source, settings))
        for epoch in range(1, given.epochs + 1):
            for side in sides:
                side.run(epoch)
        pairs.append(sides)
    print(
        f"errors at the end: ours {[f'{a.best:.4f}' for a, _ in pairs]}, theirs {[f'{b.best:.4f}' for _, b in pairs]}"
    )
    print("error | seconds ours | theirs | times as fast")
    reached = max(side.best for sides in pairs for side in sides)
    for error in (reached * 1.2, reached * 1.05, reached * 1.01, reached):
        mine, other = ([side.until(error) for side in half] for half in zip(*pairs, strict=True))
        ratios = [b / a for a, b in zip(mine, other, strict=True)]
        print(f"{error:.4f} | {spread(mine, digits=2)} | {spread(other, digits=2)} | {spread(ratios, digits=2)}")
    steps = [b / a for ours, theirs in pairs for a, b in zip(ours.epochs[1:], theirs.epochs[1:], strict=True)]
    print(f"a step | | | {spread(steps, digits=2)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"rqkmeans": part_rqkmeans, "rqvae": part_rqvae}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--items", nargs="+", type=int, default=[12_101, 100_000])
    parser.add_argument("--vectors", type=Path, help=f"an .npy file of float32[N, {WIDTH}] instead of planted ones")
    parser.add_argument("--codes", type=int, default=256, help="of a level, a power of two")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="3,000 items, 64 codes, 10 epochs")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: seconds of all threads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.small:
        given.items, given.codes, given.epochs = [3000], 64, 10
    if given.clock == "cpu":
        globals()["now"] = time.process_time
    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    print(f"{vars(given)}\ntorch {torch.__version__}, faiss {faiss.__version__}")
    catalogues = [planted_vectors(items, given.seed) for items in given.items]
    if given.vectors is not None:
        catalogues = [np.ascontiguousarray(np.load(given.vectors), dtype=np.float32)]
    for vectors in catalogues:
        for name in given.parts:
            parts[name](given, vectors)


if __name__ == "__main__":
    main()
