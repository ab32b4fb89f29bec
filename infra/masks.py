"""Masks keys and passwords in every text that leaves a process.

`infra.settings.load_settings` registers the secrets of the settings and of the environment. From then on they are
masked in printed text and tracebacks, log records, reports between stages, and alerts, also where an endpoint repeats a
key in its answer or a library prints an address with a password.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST = 8
"""Shorter values are not masked everywhere, because they occur in words."""
NAMES = re.compile(
    r"(?i)passw|passphrase|secret|token(?!iz)|credential|(?<![a-z])sas(?![a-z])|authorization|connection[._-]?string|"
    r"(api|access|account|private|signing|encryption)[._-]?key(?![._-]?id)|(?<=[._-])(pwd|pass)$|(?<![a-z])auth$|cookies?$|"
    r"(?<!public)(?<!partition)(?<!primary)(?<!foreign)(?<!sort)(?<!cache)(?<!index)[._-]keys?$"
)
"""Names of settings, properties and variables with secret values."""
PLACES = re.compile(r"(?i)(path|file|url|uri|endpoint|provider|mode|class|impl|type)$")
"""Ends of such names whose values are not secret: they locate or describe the secret."""
_PASSWORDS = re.compile(r"(?i)passw|passphrase|(?<=[._-])(pwd|pass)$")
"""Names whose values are secret even if short."""
_COUNTED = re.compile(r"(?i)tokens$")
_KEYS = re.compile(r"(?=\D*\d)(?=[^a-zA-Z]*[a-zA-Z])[\w.+/=:,-]+")
"""Distinguishes keys from counts of tokens and from stop tokens."""
_LOCATION = re.compile(r"~?(/[a-z0-9._-]+){2,}/?|~?/\S*\.[a-z]{2,5}|https?://\S+")
_USERINFO = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,20}://)(?:[^\s/'\"<>]{1,400}|[^\s/@:'\"<>\[]{0,100}:(?!\d+/)[^\s@'\"<>]{1,400})@",
    re.IGNORECASE,
)
"""User and password in an address; the password may contain @ and slashes."""
_QUERY = re.compile(
    r"([?&;](?:[\w.%-]{0,40}(?:password|passwd|secret|token|api[._-]?key|access[._-]?key|account[._-]?key|credential|"
    r"signature)|key|sig|pwd|auth)=)([^&#;\s'\"<>]+)",
    re.IGNORECASE,
)
"""A key in the query of an address or in a connection string."""
_hidden: dict[str, None] = {}
_short: dict[str, re.Pattern[str]] = {}


def hide(values: Iterable[str]) -> None:
    """Mask these values from now on, also in their URL-, JSON- and repr-escaped forms."""
    for value in values:
        for line in value.splitlines():
            if len(line.strip()) >= SHORTEST:
                plain = line.strip()
                in_json = json.dumps(plain)[1:-1]
                forms = (plain, quote(plain, safe=""), in_json, json.dumps(in_json)[1:-1], repr(plain)[1:-1])
                _hidden.update(dict.fromkeys(forms))
    if _hidden:
        # The longest first, because one may be part of another.
        ordered = sorted(_hidden, key=len, reverse=True)
        _hidden.clear()
        _hidden.update(dict.fromkeys(ordered))
        _guard()


def hide_short(passwords: Iterable[str]) -> None:
    """Mask passwords too short for `hide`, as whole words.

    Plain words and numbers are masked only where they follow the name of a password.
    """
    for value in passwords:
        if value:
            is_word = len(value) < 4 or value.isalpha() or value.isdigit()
            before = r"((?:passw\w*|pwd|pass)\W{1,5})" if is_word else r"((?<!\w))"
            _short[value] = re.compile(rf"{before}{re.escape(value)}(?!\w)", re.IGNORECASE if is_word else 0)
    if _short:
        _guard()


def hidden() -> tuple[str, ...]:
    """The values masked now, for systems with their own masking."""
    return tuple(_hidden)


def masked(text: str) -> str:
    """`text` with hidden values masked, and users, passwords and keys in addresses."""
    text = without_hidden(text)
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}@", text))


def without_hidden(text: str) -> str:
    """`text` with hidden values masked; for texts of users, in which addresses stay."""
    for value in _hidden:
        if value in text:
            text = text.replace(value, MASK)
    for value, written in _short.items():
        if value in text:
            text = written.sub(rf"\1{MASK}", text)
    return text


def without_secrets(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the values of secret names masked, at any depth."""
    return {name: _without_secrets(str(name), value) for name, value in content.items()}


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_secrets(value)
    if isinstance(value, list | tuple):
        return [_without_secrets(name, one) for one in value]
    return MASK if _is_secret(name, value) else value


def secrets_in(content: Mapping[str, Any]) -> Iterator[str]:
    """Values of secret names, at any depth, and passwords and keys in addresses."""
    for name, value in _texts(content):
        if _is_secret(name, value):
            yield value
            if _COUNTED.search(name):
                yield from value.split(",")
        yield from passwords_of(value)
        yield from keys_of(value)


def short_passwords_in(content: Mapping[str, Any]) -> Iterator[str]:
    """Passwords that are too short for `hide`."""
    for name, value in _texts(content):
        if len(value.strip()) < SHORTEST and _PASSWORDS.search(name) and _is_secret(name, value):
            yield value.strip()


def _texts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text with its name, at any depth; values of a list have the list's name."""
    for name, value in content.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Mapping):
                yield from _texts(one)
            elif isinstance(one, list | tuple):
                yield from _texts({name: one})
            elif isinstance(one, str):
                yield str(name), one


def passwords_of(address: str) -> Iterator[str]:
    """Passwords in an address, as written and decoded."""
    for found in _USERINFO.finditer(address):
        password = found[0][len(found[1]) : -1].partition(":")[2]
        if password:
            yield password
            yield unquote(password)


def keys_of(address: str) -> Iterator[str]:
    """Keys in the query of an address or in a connection string, as written and decoded."""
    for found in _QUERY.finditer(address):
        yield found[2]
        yield unquote(found[2])


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not NAMES.search(name) or PLACES.search(name):
        return False
    if _COUNTED.search(name):
        return _KEYS.fullmatch(value) is not None
    return _LOCATION.fullmatch(value) is None


class _Masked:
    """A text stream that masks what is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the masked text."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the masked lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _guard() -> None:
    """Mask standard output, standard error and log records; called again for streams replaced since."""
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
            message = record.getMessage()
        except Exception:  # the handler reports the wrong call
            return record
        if (text := masked(message)) != message:
            record.msg, record.args = text, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = masked("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        return record

    masking.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masking)
