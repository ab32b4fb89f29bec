"""Names of text encoders, and the settings of stages that encode texts; no engine is loaded here."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from infra.bounds import Bounded, Count, brief

PACKAGED = "minilm-l6-v2"
HUB_PREFIX = "hub:"


def _known(name: str) -> str:
    if name != PACKAGED and not name.startswith(HUB_PREFIX):
        raise ValueError(f"no text encoder {brief(name)}; use '{PACKAGED}' or 'hub:<repo id>'")
    return name


Encoder = Annotated[str, AfterValidator(_known)]
"""Name of a text encoder, see `ray_jobs.encoders.text.load_text_encoder`."""


@dataclass(frozen=True, kw_only=True)
class EncodingSettings(Bounded):
    """Settings of a stage that encodes texts.

    Args:
        encoder: text encoder, see `ray_jobs.encoders.text.load_text_encoder`.
        encoders: number of copies of the encoder that run in parallel.
        batch_size: texts per call.
        commit_rows: number of texts after which vectors are committed; a crash loses no more than that.
    """

    encoder: Encoder = PACKAGED
    encoders: Count = 1
    batch_size: Count = 64
    commit_rows: Count = 50_000
