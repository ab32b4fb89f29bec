"""The tokenizer recipes by name; a new recipe is one file and one line here."""

from infra.errors import SettingError
from ray_jobs.tokenizers.base import Tokenizer
from ray_jobs.tokenizers.rqvae import RQVAETokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {RQVAETokenizer.name: RQVAETokenizer}


def tokenizer_class(name: str) -> type[Tokenizer]:
    """The tokenizer recipe called `name`.

    Raises:
        SettingError: there is none; the message lists those there are.
    """
    if name not in TOKENIZERS:
        raise SettingError(f"no tokenizer {name!r}; there are: {', '.join(sorted(TOKENIZERS))}")
    return TOKENIZERS[name]
