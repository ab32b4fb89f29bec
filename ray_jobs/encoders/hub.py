"""Names of models on a hub or in a folder, and errors of loading them."""

import contextlib
from collections.abc import Iterator

from infra.errors import SettingError
from ray_jobs.encoders.settings import HUB_PREFIX


def resolve(name: str) -> tuple[str, str | None]:
    """Repository or folder, and revision, of ``hub:<repository or folder>[@<revision>]``."""
    source, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    return source, revision or None


@contextlib.contextmanager
def loading(model: str, packaged: str) -> Iterator[None]:
    """Turn the errors of transformers for unavailable files into a SettingError.

    Args:
        model: what the message calls the model.
        packaged: value of the setting that needs no network.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{model} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0]}). Check the name, that "
            "the model hub can be reached from here (HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN for gated models, a proxy) "
            f"or that HF_HOME holds a copy; 'hub:<folder>' loads a local folder and {packaged!r} needs no network"
        ) from error
