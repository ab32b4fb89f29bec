"""Settings of the server."""

from dataclasses import dataclass, field
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Port, Positive
from infra.errors import SettingError
from ray_jobs.serving.host_check import LOCAL_HOSTS

SECTION = "serving"


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Bounded):
    """Settings under ``[stages.serving]``; each is a flag of ``penchant serve``, too.

    Args:
        alias: alias of the registered model version that is served.
        host: address to listen on; the default accepts connections from this machine only.
        port: port to listen on.
        replicas: number of copies of the model.
        cpus_per_replica: cores reserved for each replica.
        max_batch_size: maximum number of requests in a batch.
        batch_wait_ms: milliseconds that a batch that is not full waits for more requests.
        queue: concurrent requests per replica, waiting ones included; more get 503.
        per_client: concurrent requests per address, more get 429; 0 for no limit, e.g. behind your own proxy.
        hosts: accepted host names (header Host); ``*`` accepts all.
        token: required as ``Authorization: Bearer <token>``; "" for none. No flag: set it in the environment, as
            PENCHANT_STAGES__SERVING__TOKEN.
        most_bytes: maximum size of a request's body.
        read_s: maximum seconds for the head of a request to arrive, and again for its body.
        poll_s: seconds between two checks of the alias.
        retry_s: seconds until a version that failed to load is tried again.
    """

    section: ClassVar[str] = SECTION

    alias: str = "champion"
    host: str = "127.0.0.1"
    port: Port = 8100
    replicas: Count = 1
    cpus_per_replica: Positive = 1.0
    max_batch_size: Count = 16
    batch_wait_ms: NonNegative = 2.0
    queue: Count = 256
    per_client: CountOrZero = 64
    hosts: tuple[str, ...] = LOCAL_HOSTS
    token: str = field(default="", repr=False)
    most_bytes: Count = 1 << 20
    read_s: Positive = 10.0
    poll_s: Positive = 10.0
    retry_s: NonNegative = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queue < self.max_batch_size:
            raise SettingError(
                f"{SECTION}.queue is {self.queue}, below {SECTION}.max_batch_size {self.max_batch_size}: no batch "
                "would ever be full; raise it"
            )
        if not all(self.hosts) or not self.hosts:
            raise SettingError(f"{SECTION}.hosts is {list(self.hosts)}: at least one name is needed, * accepts all")
        if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise SettingError(f"{SECTION}.token has characters that a header cannot contain: use letters and digits")
