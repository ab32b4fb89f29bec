"""Whom a server answers: requests that were meant for it, by their headers Host and Origin.

A page of the web can lead a browser to a name of its own that resolves to this machine (DNS rebinding): the browser
then sends the page's name as Host. A page can also post to this machine's own name: its name is then the Origin.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

HERE = ("127.0.0.1", "localhost", "::1")
EVERY = "*"


def stranger(host: str, origin: str | None, hosts: Collection[str]) -> str | None:
    """Why a request is not answered, as a sentence; None where it is.

    Args:
        origin: None where the request has no such header.
        hosts: names that are answered to; `EVERY` among them stands for all.
    """
    if EVERY in hosts:
        return None
    for header, value, authority in (("Host", host, host), ("Origin", origin, (origin or "").partition("//")[2])):
        if value is not None and _name_of(authority) not in hosts:
            return f"{header} {value[:100]!r} is none of the names that this server answers to: {', '.join(hosts)}"
    return None


def _name_of(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None
