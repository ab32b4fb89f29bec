"""Bytes that a stage will read, an estimate that decides how its engine starts."""

from infra.errors import UserError
from schemas.addresses import bytes_below
from schemas.dataset import Dataset
from schemas.stage_request import StageRequest


def input_bytes(request: StageRequest, datasets_dir: str, tables: str) -> int | None:
    """Bytes of a Spark stage's input: landing files and known items, the tables of the request, or all tables.

    Args:
        datasets_dir: address of the registrations.
        tables: address of the data set's tables, without a trailing slash.

    Returns:
        None if unknown: the data set is not registered, or the storage does not respond.
    """
    addresses = [handoff.uri for handoff in request.inputs.values()] or [tables]
    try:
        if request.stage == "ingest":
            dataset = Dataset.load(datasets_dir, request.dataset)
            landing = (dataset.reviews, dataset.items, dataset.events)
            addresses = [name.replace("{partition}", request.partition) for name in landing if name]
            addresses.append(f"{tables}/items")
        return sum(map(bytes_below, addresses))
    except (UserError, ValueError, OSError):
        return None


def table_bytes(tables: str) -> int | None:
    """Bytes of all tables below an address; None if the storage does not respond."""
    try:
        return bytes_below(tables)
    except (ValueError, OSError):
        return None
