"""Keys and passwords are taken out of every text that leaves a process.

Whoever reads the settings (`infra.settings.load_settings`) has what is secret in them, and in the environment, hidden
from then on: in what is printed, tracebacks included, in log records, in what passes between stages, in alerts. An
endpoint that repeats a key in its answer, or a library that prints an address with a password in it, tells nobody.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
SHORTEST = 8
"""Shorter values are no keys; they would be found in words."""
NAMES = re.compile(
    r"(?i)passw|passphrase|secret|token(?!iz)|api[._-]?key|access[._-]?key|account[._-]?key|credential|\bsas\b"
)
"""What settings, properties and variables with a secret are called."""
PLACES = re.compile(r"(?i)(path|file|url|uri|endpoint|provider|mode|tokens|class|impl|type)$")
"""How such names end where the value is no secret but says where or what it is."""
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@'\"<>]{1,400}@", re.IGNORECASE)
_hidden: dict[str, None] = {}


def hide(values: Iterable[str]) -> None:
    """Have `masked` leave these values out, in whatever way they are usually written, and guard what is printed."""
    for value in values:
        for line in value.splitlines():
            if len(line.strip()) >= SHORTEST:
                plain = line.strip()
                in_json = json.dumps(plain)[1:-1]
                forms = (plain, quote(plain, safe=""), in_json, json.dumps(in_json)[1:-1], repr(plain)[1:-1])
                _hidden.update(dict.fromkeys(forms))
    if _hidden:
        # The longest first: one may be part of another.
        ordered = sorted(_hidden, key=len, reverse=True)
        _hidden.clear()
        _hidden.update(dict.fromkeys(ordered))
        _guard()


def hidden() -> tuple[str, ...]:
    """What is left out now, for systems that mask by themselves."""
    return tuple(_hidden)


def masked(text: str) -> str:
    """`text` without what is hidden, and without the names and passwords of addresses."""
    text = without_hidden(text)
    return _USERINFO.sub(rf"\1{MASK}@", text) if "://" in text else text


def without_hidden(text: str) -> str:
    """`text` without what is hidden: for what is somebody's own words, in which an address may stand."""
    for value in _hidden:
        if value in text:
            text = text.replace(value, MASK)
    return text


def without_secrets(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with a mask for each value whose name says that it is secret, at any depth."""
    return {
        name: without_secrets(value) if isinstance(value, Mapping) else MASK if _is_secret(str(name), value) else value
        for name, value in content.items()
    }


def secrets_in(content: Mapping[str, Any]) -> Iterator[str]:
    """Values whose name says that they are secret, at any depth, and passwords in addresses."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from secrets_in(value)
        elif isinstance(value, str):
            if _is_secret(str(name), value):
                yield value
            yield from passwords_of(value)


def passwords_of(address: str) -> Iterator[str]:
    """The password in an address, as it is written there and as it is sent."""
    if "://" in address and "@" in address:
        try:
            password = urlsplit(address).password
        except ValueError:
            return
        if password:
            yield password
            yield unquote(password)


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not NAMES.search(name) or PLACES.search(name):
        return False
    return not value.startswith(("/", "~/", "http://", "https://"))


class _Masked:
    """A text stream that leaves out what is hidden; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without what is hidden."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them without what is hidden."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _guard() -> None:
    """Let nothing hidden out by print, traceback or log record; once for each stream, whoever has put it there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Masked):
            setattr(sys, name, _Masked(stream))
    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return

    def masking(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        try:
            said = record.getMessage()
        except Exception:  # whoever handles the record tells of the wrong call
            return record
        if (told := masked(said)) != said:
            record.msg, record.args = told, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = masked("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        return record

    masking.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masking)


def secrets_of_environment() -> Iterator[str]:
    """What variables of this process hold that are called secrets."""
    return secrets_in(os.environ)
