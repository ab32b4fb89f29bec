"""Settings of the page."""

from dataclasses import dataclass
from typing import ClassVar

from infra.bounds import Bounded, CountOrZero, NonNegative, Port
from ray_jobs.serving.strangers import HERE

SECTION = "page"


@dataclass(frozen=True, kw_only=True)
class PageSettings(Bounded):
    """Settings under ``[stages.page]``; each is a flag of ``penchant page``, too.

    Args:
        alias: of the registered models; the versions it points at are shown.
        port: of the server, which listens on 127.0.0.1 only.
        hosts: names that it answers to (header Host); ``*`` stands for all.
        users: that the page offers at most.
        poll_s: an alias is looked at again when somebody asks so many seconds after the last look.
        retry_s: seconds until a version that failed to load is tried again.
    """

    section: ClassVar[str] = SECTION

    alias: str = "champion"
    port: Port = 8090
    hosts: tuple[str, ...] = HERE
    users: CountOrZero = 50
    poll_s: NonNegative = 10.0
    retry_s: NonNegative = 300.0
