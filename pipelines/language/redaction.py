"""Removes personal data from a text before it is sent to a language model.

E-mail addresses and telephone numbers (by Google's rules, package phonenumbers) are found anywhere. Names are found
after a title (``Mrs. Doe``), in an introduction (``my name is Jane``) and in a signature at the end (``- Jane D.``);
other names stay.
"""

import re

import phonenumbers

from infra.errors import SettingError

EMAIL, PHONE, NAME = "email", "phone", "name"
KINDS = (EMAIL, PHONE, NAME)

# All patterns take linear time: no backtracking into a run of characters, and bounded white space.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+")
_CAPITALISED = r"[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)?"
_NAMES = (
    re.compile(rf"\b(?:Mr|Mrs|Ms|Miss)\.? ({_CAPITALISED}(?: {_CAPITALISED})?)"),
    # A single name after these is often a brand.
    re.compile(rf"\b(?:Dr|Prof)\.? ({_CAPITALISED} {_CAPITALISED})"),
    re.compile(rf"\b[Mm]y name(?: is|'s) ({_CAPITALISED}(?: {_CAPITALISED})?)"),
    re.compile(
        rf"(?:^|[.!?\n]\s{{0,3}})[-\u2013\u2014~]{{1,2}}\s?({_CAPITALISED}(?: (?:{_CAPITALISED}|[A-Z]\.?))?)\s{{0,3}}$"
    ),
    re.compile(
        r"(?:[Rr]egards|[Ss]incerely|[Cc]heers|[Tt]hanks|[Tt]hank you),\s{1,3}"
        rf"({_CAPITALISED}(?: (?:{_CAPITALISED}|[A-Z]\.?))?)\s{{0,3}}[.!]?\s{{0,3}}$"
    ),
)


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Raise a `SettingError` if one of `kinds` is unknown."""
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise SettingError(f"review_lines.redact has {', '.join(sorted(unknown))}; use some of {', '.join(KINDS)}")


def redact(text: str, kinds: tuple[str, ...], region: str = "US") -> str:
    """`text` with ``[email]``, ``[phone]`` and ``[name]`` in place of personal data.

    Args:
        kinds: some of `KINDS`.
        region: country whose national telephone numbers are recognised; international ones always are.
    """
    if EMAIL in kinds:
        text = _EMAIL.sub("[email]", text)
    if PHONE in kinds:
        found = list(phonenumbers.PhoneNumberMatcher(text, region))
        for match in reversed(found):
            text = f"{text[: match.start]}[phone]{text[match.end :]}"
    if NAME in kinds:
        for pattern in _NAMES:
            text = pattern.sub(lambda m: m.group(0).replace(m.group(1), "[name]"), text)
    return text
