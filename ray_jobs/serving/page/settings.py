"""Settings of the page."""

from dataclasses import dataclass

from infra.errors import SettingError
from ray_jobs.serving.strangers import HERE

SECTION = "page"


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Settings under ``[stages.page]``; each is a flag of ``python -m ray_jobs.serving.page``, too.

    Args:
        alias: of the registered models; the versions it points at are shown.
        port: of the server, which listens on 127.0.0.1 only.
        hosts: names that it answers to (header Host); ``*`` stands for all.
        users: that the page offers at most.
        poll_s: an alias is looked at again when somebody asks so many seconds after the last look.
        retry_s: seconds until a version that failed to load is tried again.
    """

    alias: str = "champion"
    port: int = 8090
    hosts: tuple[str, ...] = HERE
    users: int = 50
    poll_s: float = 10.0
    retry_s: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise SettingError(f"{SECTION}.port is {self.port}: a number from 1 to 65535 is needed")
        for name in ("users", "poll_s", "retry_s"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: 0 or more is needed")
