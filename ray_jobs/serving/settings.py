"""Settings of the server."""

from dataclasses import dataclass, field
from typing import ClassVar

from infra.bounds import Bounded, Count, CountOrZero, NonNegative, Port, Positive
from infra.errors import SettingError
from ray_jobs.serving.strangers import HERE

SECTION = "serving"


@dataclass(frozen=True, kw_only=True)
class ServingSettings(Bounded):
    """Settings under ``[stages.serving]``; each is a flag of ``penchant serve``, too.

    Args:
        alias: of the registered model; the version it points at is served.
        host: address that is listened on; the default is reached from this machine only.
        port: of the server.
        replicas: copies of the model that answer at once.
        cpus_per_replica: cores that each one takes.
        max_batch_size: requests that go through the model together at most.
        batch_wait_ms: longest that a request waits for others to join it.
        queue: requests that a replica holds, batched or waiting; more are answered with 503.
        per_client: requests of one address at once, more are answered with 429; 0 for any number, as behind a proxy of
            your own.
        hosts: names that the server answers to (header Host); ``*`` stands for all.
        token: that requests must bring as ``Authorization: Bearer <token>``; "" for none. No flag: give it in the
            environment, as PENCHANT_STAGES__SERVING__TOKEN.
        most_bytes: of a request's body.
        read_s: seconds that the head of a request may take to arrive, and again its body.
        poll_s: seconds between two looks at the alias.
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
    queue: int = 256
    per_client: CountOrZero = 64
    hosts: tuple[str, ...] = HERE
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
            raise SettingError(f"{SECTION}.hosts is {list(self.hosts)}: at least one name is needed, * for all")
        if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise SettingError(f"{SECTION}.token has characters that no header can carry: use letters and digits")
