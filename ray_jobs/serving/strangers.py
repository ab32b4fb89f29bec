"""Whom a server answers: requests that were meant for it, by their headers Host and Origin.

A page of the web can lead a browser to a name of its own that resolves to this machine (DNS rebinding): the browser
then sends the page's name as Host. A page can also post to this machine's own name: its name is then the Origin.
"""

import re
from collections.abc import Collection, Sequence

HERE = ("127.0.0.1", "localhost", "::1")
EVERY = "*"
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s/?#@:,\[\]]+))(?::\d*)?", re.IGNORECASE)


def stranger(given: Sequence[str], origins: Sequence[str], hosts: Collection[str]) -> str | None:
    """Why a request is not answered, as a sentence; None where it is.

    Args:
        given: the values of its headers Host. Of two, what stands before and behind may read different ones.
        origins: the values of its headers Origin, if any.
        hosts: names that are answered to, with a port or without, addresses of version 6 in brackets or not; `EVERY`
            among them stands for all.
    """
    if EVERY in hosts:
        return None
    if len(given) > 1 or len(origins) > 1:
        return "A header Host or Origin stands twice"
    names = {host.lower() if host.count(":") > 1 and "[" not in host else _name_of(host) for host in hosts} - {None}
    asked = [("Host", host, host) for host in given or [""]]
    asked += [("Origin", origin, origin.partition("//")[2]) for origin in origins]
    for header, value, authority in asked:
        if _name_of(authority) not in names:
            return f"{header} {value[:100]!r} is none of the names that this server answers to: {', '.join(hosts)}"
    return None


def _name_of(authority: str) -> str | None:
    found = _AUTHORITY.fullmatch(authority.strip())
    return (found[1] or found[2]).lower() if found else None
