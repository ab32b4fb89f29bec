"""Paths and errors of an OpenAI-compatible endpoint, shared by online calls and batch files."""

from collections.abc import Mapping
from typing import Any

from infra.masks import masked
from infra.settings import LLMSettings
from pipelines.language.errors import EndpointError, QuotaExhausted
from pipelines.language.replies import clean
from pipelines.language.requests import FAILED, REFUSED

QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked", "content_blocked"}
)
FILTER_WORDS = ("moderation", "flagged", "content filter", "content_filter", "content policy", "content management")
MOST_QUOTED = 160
RETRIED_STATUS = frozenset({408, 409, 425, 429})


class RowFailed(Exception):
    """This request failed for good; others may succeed."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(masked(reason))
        self.status = status


class Forbidden(RowFailed):
    """The endpoint forbids this request (403): the key is wrong, or the content is filtered."""


def error_of(body: Any) -> Any:
    """The ``error`` of a reply; some endpoints wrap it in a list, some send its fields directly."""
    if isinstance(body, list) and body:
        body = body[0]
    return body.get("error") or body if isinstance(body, dict) else body


def judge(llm: LLMSettings, status: int, error: Any) -> str:
    """The reason why the endpoint did not answer, if a retry may help.

    Args:
        status: HTTP status, or 0.
        error: the reply's ``error``: ``code``, ``type`` and ``message``.

    Raises:
        EndpointError: no request can succeed until a person acts.
        RowFailed: this request cannot succeed; `Forbidden` if the key may be at fault.
    """
    fields = error if isinstance(error, Mapping) else {}
    code = clean(masked(str(fields.get("code") or "")))[:100]
    message = clean(masked(str(fields.get("message") or error or "")))[:MOST_QUOTED]
    reason = f"HTTP {status} {code}: {message}" if status else f"{code}: {message}"
    if status == 402 or {code, str(fields.get("type") or "")} & QUOTA_CODES:
        raise QuotaExhausted(
            f"{llm.base_url}: the account's quota is used up ({message}): "
            "add credit or change llm.base_url, then run the stage again; answers received so far are kept"
        )
    if status == 401:
        raise EndpointError(f"{llm.base_url} refuses the key in llm.api_key ({reason})")
    if code in FILTER_CODES or (status == 403 and any(word in str(error).lower() for word in FILTER_WORDS)):
        raise RowFailed(REFUSED, reason)
    if status == 403:
        raise Forbidden(REFUSED, reason)
    if status == 404:
        raise EndpointError(f"{llm.base_url} has no model {llm.model!r} or no such path ({reason})")
    if status and status not in RETRIED_STATUS and status < 500:
        raise RowFailed(FAILED, reason)
    return reason
