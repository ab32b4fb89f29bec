"""The recipes that can be asked for by name, and what the orchestrator must prepare for each."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method that fills a stage.

    Args:
        needs_codes: the recommender generates semantic ids, so item vectors and a codebook come first.
    """

    name: str
    summary: str
    needs_codes: bool = False


TOKENIZERS = {"rqvae": Recipe(name="rqvae", summary="residual-quantised autoencoder over item vectors")}

RECOMMENDERS = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mendertok",
            summary="text encoder over preference and titles, decoder over semantic ids",
            needs_codes=True,
        ),
        Recipe(name="tiger", summary="encoder-decoder over semantic ids, no text", needs_codes=True),
        Recipe(name="sasrec", summary="self-attention over item ids, the baseline"),
        Recipe(name="popularity", summary="counts of the training positions"),
    )
}
