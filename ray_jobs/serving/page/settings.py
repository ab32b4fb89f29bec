"""Settings of the page."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero, NonNegative, Port
from ray_jobs.serving.host_check import LOCAL_HOSTS

SECTION = "page"


@dataclass(frozen=True, kw_only=True)
class PageSettings(Bounded):
    """Settings under ``[stages.page]``; each is a flag of ``penchant page``, too.

    Args:
        alias: alias of the registered model versions that are shown.
        port: port to listen on, at 127.0.0.1 only.
        hosts: accepted host names (header Host); ``*`` accepts all.
        users: maximum number of users to choose from.
        poll_s: seconds until a request checks the alias again.
        retry_s: seconds until a version that failed to load is tried again.
    """

    section: ClassVar[str] = SECTION

    alias: str = "champion"
    port: Port = 8090
    hosts: tuple[str, ...] = LOCAL_HOSTS
    users: CountOrZero = 50
    poll_s: NonNegative = 10.0
    retry_s: NonNegative = 300.0
