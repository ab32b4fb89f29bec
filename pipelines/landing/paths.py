"""Where the landing files of a day lie."""

from pathlib import Path

from pipelines.landing.text_files import parts
from schemas.errors import DataError


def landing_path(pattern: str, partition: str, dataset: str) -> str:
    """The path of a partition's file.

    Raises:
        DataError: a local file is not there, or has a name that readers skip; the message says what to do.
    """
    path = pattern.replace("{partition}", partition)
    if "://" in path:
        return path
    if not Path(path).exists():
        raise DataError(
            f"data set {dataset}: no file {path}; deliver it, or register the data set again (penchant register)"
        )
    parts(Path(path))
    return path
