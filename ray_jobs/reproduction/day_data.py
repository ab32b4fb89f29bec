"""Read the histories of a data set's day, as training does, so that recipes can be compared on a user's own data."""

from infra.settings import Settings
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.data.histories import Histories
from ray_jobs.data.training_data import read_training_data
from schemas.recipes import Need
from schemas.stage_request import StageRequest

AT = "@"
"""Between the name of a registered data set and the day: ``shop@2026-01-31``."""


def read_day(settings: Settings, name: str) -> tuple[Catalogue, Histories]:
    """Items and histories of `name`, split leave-one-out, with the day's preferences if there are any.

    Raises:
        DataError: the data set has no such day; the message names the stage to run.
    """
    dataset, _, day = name.partition(AT)
    request = StageRequest(stage="reproduce", dataset=dataset, partition=day)
    data = read_training_data(settings, request, {Need.PREFERENCES})
    return data.catalogue, data.histories
