"""Settings of the server."""

from dataclasses import dataclass

from infra.errors import SettingError

SECTION = "serving"


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Settings under ``[stages.serving]``; each is a flag of ``python -m ray_jobs.serving``, too.

    Args:
        alias: of the registered model; the version it points at is served.
        host: address that is listened on; the default is reached from this machine only.
        port: of the server.
        replicas: copies of the model that answer at once.
        cpus_per_replica: cores that each one takes.
        max_batch_size: requests that go through the model together at most.
        batch_wait_ms: longest that a request waits for others to join it.
        queue: requests that a replica holds, batched or waiting; more wait in Serve's proxy.
        poll_s: seconds between two looks at the alias.
        retry_s: seconds until a version that failed to load is tried again.
    """

    alias: str = "champion"
    host: str = "127.0.0.1"
    port: int = 8100
    replicas: int = 1
    cpus_per_replica: float = 1.0
    max_batch_size: int = 16
    batch_wait_ms: float = 2.0
    queue: int = 256
    poll_s: float = 10.0
    retry_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("port", "replicas", "max_batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: at least 1 is needed")
        for name in ("cpus_per_replica", "poll_s"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: more than 0 is needed")
        for name in ("batch_wait_ms", "retry_s"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{SECTION}.{name} is {getattr(self, name)}: 0 or more is needed")
        if self.queue < self.max_batch_size:
            raise SettingError(
                f"{SECTION}.queue is {self.queue}, below {SECTION}.max_batch_size {self.max_batch_size}: no batch "
                "would ever be full; raise it"
            )
