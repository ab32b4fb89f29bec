"""Which fields of a request an endpoint accepts; "OpenAI-compatible" endpoints differ in them.

Every run begins with the usual fields. The first refusal of a field replaces it for the rest of the run; when no
replacement is left, the stage fails and names the setting that helps.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from infra.settings import LLMSettings
from pipelines.language.requests import ChatRequest

CHAT_PATH = "/chat/completions"
LIMITS = ("max_tokens", "max_completion_tokens")
OPTIONAL = ("temperature", "seed")
SCORING = ("echo", "logprobs")
FORMAT = "response_format"
FORMATS = ("json_schema", "json_object", "prompt")

_REFUSAL_STATUS = frozenset({400, 404, 415, 422, 501})
_REFUSES = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra_forbidden|"
    r"extra inputs|invalid parameter|unavailable|not available|not implemented|cannot find field|no endpoints found|"
    r"only the default|invalid schema|deprecated|no longer|(?:cannot|can't|may not) be (?:set|used|specified)"
    r"(?! (?:above|below|higher|lower|greater|less|larger|smaller|to\b))|n[o']t accept(?! (?:values?|more|numbers?)\b)"
)
_OUT_OF_RANGE = re.compile(r"\bmust be\b|invalid value|only (?:allows?|accepts?)|can(?:no|')t be set|n[o']t accept")
_TOO_LONG = re.compile(r"context.length|maximum context|too large|too long|exceed")
_FORMAT_WORDS = re.compile(r"response.?format|json.?schema|json.?object|structured.output|\bgrammar\b|\bguided")
# A refused schema, where the error names no field.
_REFUSES_SCHEMAS = re.compile(r"\bschemas?\b[^.]{0,40}support|support[^.]{0,40}\bschemas?\b")
_READ = 4000


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Which fields are sent.

    Args:
        limit: name of the field that limits an answer's tokens.
        without: fields to omit.
        form: how the schema is requested: as ``json_schema``, as ``json_object`` with the schema in the prompt, or in
            the ``prompt`` only. The answer is checked in any case.
    """

    limit: str = LIMITS[0]
    without: tuple[str, ...] = ()
    form: str = FORMATS[0]

    @classmethod
    def of(cls, llm: LLMSettings) -> "Dialect":
        """The dialect that a run begins with; ``llm.extra_body`` may set the limit's name and the schema's form."""
        limit = LIMITS[llm.extra_body.get(LIMITS[1]) is not None]
        given = llm.extra_body.get(FORMAT, {})
        kind = "prompt" if given is None else given.get("type") if isinstance(given, Mapping) else None
        return cls(limit=limit, form=kind if kind in FORMATS else FORMATS[0])

    @classmethod
    def from_json(cls, text: str) -> "Dialect":
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "without": tuple(values["without"])})

    def to_json(self) -> str:
        """JSON for the transfer between driver and executors."""
        return json.dumps(asdict(self))

    def after_refusal(self, field: str, llm: LLMSettings) -> "Dialect | None":
        """The dialect with the replacement of `field`, or None if there is none."""
        if llm.extra_body.get(field) is not None:
            return None
        if field == LIMITS[0] == self.limit:
            return replace(self, limit=LIMITS[1])
        if field in OPTIONAL and field not in self.without:
            return replace(self, without=(*self.without, field))
        if field == FORMAT and self.form != FORMATS[-1]:
            return replace(self, form=FORMATS[FORMATS.index(self.form) + 1])
        return None


def body_of(request: ChatRequest, llm: LLMSettings, dialect: Dialect | None = None) -> dict[str, Any]:
    """The body to send; ``llm.extra_body`` overrides its fields, and removes those it sets to null."""
    dialect = dialect or Dialect.of(llm)
    body = {
        "model": llm.model,
        "messages": list(request.messages),
        dialect.limit: request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    if request.schema is not None:
        body |= _asking_for(request, request.schema, dialect.form)
    body = {name: value for name, value in body.items() if name not in dialect.without}
    return with_extra(body, llm)


def with_extra(body: Mapping[str, Any], llm: LLMSettings) -> dict[str, Any]:
    """`body` updated with ``llm.extra_body``, without the fields that it sets to null."""
    left_out = {name for name, value in llm.extra_body.items() if value is None}
    return {name: value for name, value in (dict(body) | llm.extra_body).items() if name not in left_out}


def _asking_for(request: ChatRequest, schema: Mapping[str, Any], form: str) -> dict[str, Any]:
    if form == "json_schema":
        named = {"name": request.prompt_name, "schema": schema, "strict": True}
        return {FORMAT: {"type": form, form: named}}
    wish = "Answer with one JSON object that fulfils this JSON schema, and with nothing else: " + json.dumps(schema)
    first, *others = request.messages
    if first["role"] == "system":
        messages = [{"role": "system", "content": f"{first['content']}\n{wish}"}, *others]
    else:
        messages = [{"role": "system", "content": wish}, first, *others]
    return {"messages": messages} if form == "prompt" else {"messages": messages, FORMAT: {"type": form}}


def refused_field(status: int, error: Any, sent: Collection[str]) -> str | None:
    """The field of a request that the endpoint refuses, by its error, or None.

    Args:
        error: the reply's ``error``, with ``message``, ``param`` and others.
        sent: the request's fields.
    """
    if status not in _REFUSAL_STATUS:
        return None
    text = (error if isinstance(error, str) else json.dumps(error, default=str))[:_READ].lower()
    if _TOO_LONG.search(text):
        return None
    refuses, out_of_range = _REFUSES.search(text), _OUT_OF_RANGE.search(text)
    param = error.get("param") if isinstance(error, Mapping) else None
    named = re.split(r"[.\[]", param)[0] if isinstance(param, str) else None
    found: list[tuple[int, str]] = []
    for field in (FORMAT, *LIMITS, *OPTIONAL, *SCORING):
        if field not in sent or not (refuses or (out_of_range and field not in LIMITS)):
            continue
        mentioned = (_FORMAT_WORDS if field == FORMAT else re.compile(rf"\b{field}\b")).search(text)
        if named == field:
            return field
        if mentioned and not named:
            found.append((mentioned.start(), field))
    if not found and not named and FORMAT in sent and refuses and _REFUSES_SCHEMAS.search(text):
        return FORMAT
    return min(found)[1] if found else None


def remedy(llm: LLMSettings, field: str, reason: str) -> str:
    """The message for a refused field without a replacement: which setting helps."""
    if llm.extra_body.get(field) is not None:
        return f"{llm.base_url} does not take {field}, which llm.extra_body sets: take it out there ({reason})"
    if field in LIMITS:
        wanted = f'set llm.extra_body to the field that it takes, e.g. {{"{field}": null, "max_length": 200}}'
    else:
        wanted = f'set llm.extra_body to {{"{field}": null}}, which leaves it out'
    return f"{llm.base_url} takes neither {field} nor its usual replacements: {wanted} ({reason})"
