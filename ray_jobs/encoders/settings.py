"""Names of text encoders, and the settings of a stage that encodes texts; no engine is loaded here."""

from dataclasses import dataclass
from typing import ClassVar

from infra.errors import SettingError

PACKAGED = "minilm-l6-v2"
HUB_PREFIX = "hub:"


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """Settings of a stage that encodes texts.

    Args:
        encoder: text encoder, see `ray_jobs.encoders.text.load_text_encoder`.
        encoders: how many copies of it run side by side.
        batch_size: texts per call.
        commit_rows: texts after which vectors are made durable, so that a crash loses no more than these.
    """

    section: ClassVar[str]

    encoder: str = PACKAGED
    encoders: int = 1
    batch_size: int = 64
    commit_rows: int = 50_000

    def __post_init__(self) -> None:
        for name in ("encoders", "batch_size", "commit_rows"):
            if getattr(self, name) < 1:
                raise SettingError(f"{self.section}.{name} is {getattr(self, name)}; it must be at least 1")
