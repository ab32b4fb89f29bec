"""Checks of the headers Host and Origin: a server answers only requests that are addressed to it.

A web page can make a browser look up a name that resolves to this machine (DNS rebinding); Host is then that name. A
page can also post to this machine directly; Origin is then the page's name.
"""

import re
from collections.abc import Collection, Sequence

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
ANY_HOST = "*"
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s/?#@:,\[\]]+))(?::\d*)?", re.IGNORECASE)


def host_problem(given: Sequence[str], origins: Sequence[str], hosts: Collection[str]) -> str | None:
    """Why a request must be rejected, as a sentence; None if it may be answered.

    Args:
        given: values of its Host headers. Two are rejected, since two servers in a row may each read another one.
        origins: values of its Origin headers, if any.
        hosts: accepted names, with or without a port, IPv6 addresses with or without brackets; `ANY_HOST` accepts all.
    """
    if ANY_HOST in hosts:
        return None
    if len(given) > 1 or len(origins) > 1:
        return "A header Host or Origin is repeated"
    names = {host.lower() if host.count(":") > 1 and "[" not in host else _name_of(host) for host in hosts} - {None}
    checked = [("Host", host, host) for host in given or [""]]
    checked += [("Origin", origin, origin.partition("//")[2]) for origin in origins]
    for header, value, authority in checked:
        if _name_of(authority) not in names:
            return f"{header} {value[:100]!r} is none of the names that this server answers to: {', '.join(hosts)}"
    return None


def _name_of(authority: str) -> str | None:
    found = _AUTHORITY.fullmatch(authority.strip())
    return (found[1] or found[2]).lower() if found else None
