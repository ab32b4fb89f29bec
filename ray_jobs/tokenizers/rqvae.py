"""RQ-VAE: an autoencoder whose latent vector is a sum of one code per level, each coding what the levels before left.

Sizes and losses follow TIGER (Rajput et al. 2023, "Recommender Systems with Generative Retrieval") and the semantic
ids of preference discerning (Paischer et al. 2024): k-means start of each level on the residuals of the untrained
encoder, squared error of reconstruction, codebook and commitment terms, straight-through gradients. Ours: codes that no
training item uses start again at badly coded residuals, and inputs are standardised on training items only.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from infra.errors import SettingError
from ray_jobs.tokenizers.base import FitContext, Fitted, Floats
from ray_jobs.tokenizers.codebook import Codebook
from ray_jobs.tokenizers.collisions import EXTRA_LEVEL, counter_level

_ROWS_AT_ONCE = 16_384
_KMEANS_ROWS = 50_000


@dataclass(frozen=True, kw_only=True)
class RQVAESettings:
    """Settings of the recipe.

    Args:
        levels: codes per item, the collision level left out.
        codebook_size: codes per level; a fifth of the catalogue or less, else items have few neighbours in a code.
        latent_dim: width of the latent vector and of the codes.
        hidden: widths of the encoder's hidden layers, mirrored by the decoder.
        commitment: weight of the commitment term (beta).
        epochs, batch_size, learning_rate, weight_decay: of AdamW; the batch is per worker.
        restart_every: epochs between restarts of unused codes; 0 never restarts. None in the last fifth of training.
        collision_size: vocabulary of the extra level; 0 chooses it from the largest collision.
        checkpoint_every: epochs between checkpoints.
        seed: of weights, order, k-means and restarts.
    """

    levels: int = 3
    codebook_size: int = 256
    latent_dim: int = 32
    hidden: tuple[int, ...] = (256, 128)
    commitment: float = 0.25
    epochs: int = 400
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    restart_every: int = 20
    collision_size: int = 0
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("levels", "codebook_size", "latent_dim", "epochs", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"rqvae.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("commitment", "weight_decay", "restart_every", "collision_size"):
            if getattr(self, name) < 0:
                raise SettingError(f"rqvae.{name} is {getattr(self, name)}; it must not be negative")
        if self.learning_rate <= 0:
            raise SettingError(f"rqvae.learning_rate is {self.learning_rate}; it must be above 0")


class RQVAE(nn.Module):
    """Encoder, codebooks and decoder over standardised vectors."""

    def __init__(self, input_dim: int, settings: RQVAESettings) -> None:
        super().__init__()
        self.commitment = settings.commitment
        widths = (input_dim, *settings.hidden, settings.latent_dim)
        self.encoder = _perceptron(widths)
        self.decoder = _perceptron(widths[::-1])
        shape = (settings.codebook_size, settings.latent_dim)
        self.codebooks = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(settings.levels))

    def forward(self, vectors: Tensor) -> dict[str, Tensor]:
        """Losses on a batch, float[B, D]: ``loss`` and its parts ``reconstruction`` and ``quantisation``."""
        latent = self.encoder(vectors)
        residual, quantised = latent, torch.zeros_like(latent)
        quantisation = latent.new_zeros(())
        for codebook in self.codebooks:
            code = codebook[nearest_codes(residual.detach(), codebook.detach())]
            quantisation = quantisation + functional.mse_loss(code, residual.detach())
            quantisation = quantisation + self.commitment * functional.mse_loss(residual, code.detach())
            quantised = quantised + code
            residual = residual - code
        straight_through = latent + (quantised - latent).detach()
        reconstruction = functional.mse_loss(self.decoder(straight_through), vectors)
        return {
            "loss": reconstruction + quantisation,
            "reconstruction": reconstruction,
            "quantisation": quantisation,
        }

    @torch.no_grad()
    def quantise(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int64[N, levels] and what they decode to, float[N, D], of float[N, D]."""
        codes, decoded = [], []
        for rows in vectors.split(_ROWS_AT_ONCE):
            residual = self.encoder(rows)
            quantised = torch.zeros_like(residual)
            picked = []
            for codebook in self.codebooks:
                picked.append(nearest_codes(residual, codebook))
                quantised = quantised + codebook[picked[-1]]
                residual = residual - codebook[picked[-1]]
            codes.append(torch.stack(picked, dim=1))
            decoded.append(self.decoder(quantised))
        return torch.cat(codes), torch.cat(decoded)

    @torch.no_grad()
    def start_codebooks(self, vectors: Tensor, seed: int) -> None:
        """Set every level to k-means centres of the residuals of `vectors` float[N, D] under the present encoder.

        With fewer distinct residuals than codes the codes left over start at residuals drawn at random.
        """
        residual = torch.cat([self.encoder(rows) for rows in vectors.split(_ROWS_AT_ONCE)])
        random = np.random.default_rng(seed)
        if len(residual) > _KMEANS_ROWS:
            residual = residual[torch.from_numpy(np.sort(random.permutation(len(residual))[:_KMEANS_ROWS]))]
        for codebook in self.codebooks:
            rows = residual.cpu().numpy()
            clusters = min(len(codebook), len(np.unique(rows.round(4), axis=0)))
            centres = KMeans(clusters, n_init=1, random_state=seed).fit(rows).cluster_centers_
            spare = rows[random.integers(len(rows), size=len(codebook) - clusters)]
            codebook.copy_(torch.from_numpy(np.concatenate([centres, spare]).astype(np.float32)))
            residual = residual - codebook[nearest_codes(residual, codebook)]

    @torch.no_grad()
    def restart_unused_codes(self, vectors: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Move codes that no row of `vectors` uses onto residuals, badly coded ones more likely.

        Args:
            generator: a generator on the CPU.

        Returns:
            Per level the indices of the codes that were moved.
        """
        residual = torch.cat([self.encoder(rows) for rows in vectors.split(_ROWS_AT_ONCE)])
        moved = []
        for codebook in self.codebooks:
            codes = nearest_codes(residual, codebook)
            unused = (torch.bincount(codes, minlength=len(codebook)) == 0).nonzero().squeeze(1)
            after = residual - codebook[codes]
            if len(unused):
                errors = after.square().sum(1).cpu().double() + 1e-12
                drawn = torch.multinomial(errors, len(unused), len(unused) > len(errors), generator=generator)
                codebook[unused] = residual[drawn.to(residual.device)]
                after = residual - codebook[nearest_codes(residual, codebook)]
            moved.append(unused)
            residual = after
        return moved


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code nearest to each vector, int64[N]; of equally near ones the lowest."""
    distances = codebook.square().sum(1) - 2 * vectors @ codebook.T
    return distances.argmin(dim=1)


def _perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def standardisation(vectors: Floats) -> tuple[Floats, Floats]:
    """Mean and scale per dimension; the scale of a constant dimension is 1."""
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)


class RQVAETokenizer:
    """The recipe ``rqvae``: an `RQVAE` trained on Ray Train, and a counter as the last level against collisions."""

    name: ClassVar[str] = "rqvae"
    settings_class: ClassVar[type[RQVAESettings]] = RQVAESettings

    def __init__(self, settings: RQVAESettings) -> None:
        self.settings = settings

    def fit(self, vectors: Floats, item_ids: list[str], context: FitContext) -> Fitted:
        """Train on the items of ``context.training``, give codes to all.

        Raises:
            SettingError: the cluster is too small, a setting does not fit the catalogue, or the run's name belongs
                to a finished run with other settings or vectors.
        """
        from ray_jobs.tokenizers.rqvae_training import train

        mean, scale = standardisation(vectors[context.training])
        inputs = (vectors - mean) / scale
        trained = train(self.settings, inputs[context.training], context)
        model = RQVAE(vectors.shape[1], self.settings)
        model.load_state_dict(trained.model)
        codes, decoded = model.quantise(torch.from_numpy(inputs))
        quantised: npt.NDArray[np.int32] = codes.numpy().astype(np.int32)
        unique, collision_size = counter_level(
            item_ids, quantised, self.settings.collision_size, "rqvae.collision_size"
        )
        return Fitted(
            codebook=Codebook(
                item_ids=item_ids,
                codes=unique,
                level_sizes=(*(len(codebook) for codebook in model.codebooks), collision_size),
                version=context.version,
                collision_policy=EXTRA_LEVEL,
            ),
            quantised_levels=self.settings.levels,
            reconstructions=decoded.numpy() * scale + mean,
            records=trained.records,
            reused=trained.reused,
        )
