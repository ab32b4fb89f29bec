"""RQ-VAE: an autoencoder whose latent vector is a sum of one code vector per level, each for the previous residual.

Sizes and losses follow TIGER (Rajput et al. 2023, "Recommender Systems with Generative Retrieval") and the semantic
ids of preference discerning (Paischer et al. 2024): k-means initialisation of each level on the residuals of the
untrained encoder, squared error of reconstruction, codebook and commitment losses, straight-through gradients. Our
additions: codes without training items restart at residuals with large errors, and inputs are standardised with the
training items.

vector-quantize-pytorch's ResidualVQ initialises and replaces codes from single batches; here both use all training
items and separate random generators, so that a resumed run ends like an uninterrupted one.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.recipes.tokenizers.settings import RQVAESettings
from ray_jobs.tokenizers.autoencoder import (
    ROWS_AT_ONCE,
    Autoencoder,
    AutoencoderTokenizer,
    VectorSource,
)
from ray_jobs.training.linear import linear, perceptron

_KMEANS_ROWS = 50_000
_NO_RESTART_AFTER = 0.8


class RQVAE(Autoencoder):
    """Encoder, codebooks and decoder over standardised vectors."""

    def __init__(self, input_dim: int, settings: RQVAESettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.commitment = settings.commitment
        self.level_sizes = (settings.codebook_size,) * settings.levels
        widths = (input_dim, *settings.hidden, settings.latent_dim)
        self.encoder = perceptron(widths)
        self.decoder = perceptron(widths[::-1])
        shape = (settings.codebook_size, settings.latent_dim)
        self.codebooks = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in range(settings.levels))

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """Losses on vectors float[B, D]: ``loss`` and its parts ``reconstruction`` and ``quantisation``."""
        latent = self.encoder(batch)
        residual, quantised = latent, torch.zeros_like(latent)
        quantisation = latent.new_zeros(())
        for codebook in self.codebooks:
            code = codebook.index_select(0, nearest_codes(residual.detach(), codebook.detach()))
            quantisation = quantisation + functional.mse_loss(code, residual.detach())
            quantisation = quantisation + self.commitment * functional.mse_loss(residual, code.detach())
            quantised = quantised + code
            residual = residual - code
        straight_through = latent + (quantised - latent).detach()
        reconstruction = functional.mse_loss(self.decoder(straight_through), batch)
        return {
            "loss": reconstruction + quantisation,
            "reconstruction": reconstruction,
            "quantisation": quantisation,
        }

    def quantise_batch(self, vectors: Tensor) -> Tensor:
        """See `Autoencoder.quantise`."""
        residual, picked = self.encoder(vectors), []
        for codebook in self.codebooks:
            picked.append(nearest_codes(residual, codebook))
            residual = residual - codebook[picked[-1]]
        return torch.stack(picked, dim=1)

    def reconstruct_batch(self, codes: Tensor) -> Tensor:
        """See `Autoencoder.reconstruct`."""
        quantised = sum(codebook[picked] for codebook, picked in zip(self.codebooks, codes.T, strict=True))
        return self.decoder(quantised)

    def last_level_distances(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """See `ray_jobs.tokenizers.base.Quantiser.last_level_distances`."""
        residual = self.encoder(vectors)
        for codebook, picked in zip(self.codebooks[:-1], codes.T, strict=False):
            residual = residual - codebook[picked]
        return torch.cdist(residual, self.codebooks[-1]).square()

    def epoch_begins(self, epoch: int, source: VectorSource) -> bool:  # type: ignore[override]
        """Start the codebooks before the first epoch."""
        if epoch > 1:
            return False
        self.start_codebooks(source.sample, self.settings.seed)
        return True

    def epoch_ends(  # type: ignore[override]
        self, epoch: int, source: VectorSource, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        """Restart unused codes every ``restart_every`` epochs."""
        settings = self.settings
        due = settings.restart_every > 0 and epoch % settings.restart_every == 0
        if not due or epoch > _NO_RESTART_AFTER * settings.epochs:
            return {}
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 - epoch) % 2**63)
        moved = self.restart_unused_codes(source.sample, generator)
        for codebook, codes in zip(self.codebooks, moved, strict=True):
            for moments in optimizer.state[codebook].values():
                if moments.shape == codebook.shape:
                    moments[codes] = 0
        return {"restarted_codes": sum(len(codes) for codes in moved)}

    @torch.no_grad()
    def start_codebooks(self, vectors: Tensor, seed: int) -> None:
        """Set every level to k-means centres of the residuals of `vectors` float[N, D].

        With fewer distinct residuals than codes, the remaining codes start at random residuals.
        """
        from sklearn.cluster import KMeans

        residual = torch.cat([self.encoder(rows) for rows in vectors.split(ROWS_AT_ONCE)])
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
        """Move codes that no row of `vectors` uses to residuals, drawn in proportion to their error.

        Args:
            generator: on the CPU.

        Returns:
            Per level the indices of the moved codes.
        """
        residual = torch.cat([self.encoder(rows) for rows in vectors.split(ROWS_AT_ONCE)])
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
    """Index of the nearest code of each vector, int64[N]; the lowest one in a tie."""
    distances = linear(-2 * vectors, codebook, codebook.square().sum(1))
    if distances.device.type != "cpu":
        return distances.argmin(dim=1)
    return torch.from_numpy(distances.detach().numpy().argmin(axis=1))  # torch's own takes eight times as long


class RQVAETokenizer(AutoencoderTokenizer):
    """The recipe ``rqvae``: an `RQVAE` trained on Ray Train."""

    name: ClassVar[str] = "rqvae"
    settings: RQVAESettings

    def build(self, width: int) -> RQVAE:
        """See `AutoencoderTokenizer.build`."""
        return RQVAE(width, self.settings)
