"""Requests of the kinds that once stopped the server, all at once, in their own process.

    python tests/bench/attackers.py <host:port> <seconds>

The attackers stand for other machines, so they run at the lowest priority there is: they get what the server and the
good clients leave of the processors. Each kind comes from its own address (127.0.0.2 and up). Prints one JSON line: by
kind, how often which status came ("closed" where the server ended the connection without one) and the slowest; and the
processor seconds of the attackers.
"""

import asyncio
import collections
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

MEGABYTE = 1 << 20
FAULTS = [
    {"history": ["i1"], "times": [10**30]},
    {"history": ["i1"], "asked_at": 10**30},
    {"history": ["i1"], "k": 10**9},
    {"history": ["i1"], "k": 1000},
    {"history": ["i1"], "strength": 1e308},
    {"history": ["i1"], "preference": "wood " * 799},
    {"history": ["i1"] * 100_000},
    {"history": [{"a": [[]] * 1000}]},
]


class Attack:
    def __init__(self, address: str, seconds: float) -> None:
        self.host, self.port = address.rsplit(":", 1)
        self.end = time.monotonic() + seconds
        self.seen: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        self.slowest: dict[str, float] = collections.defaultdict(float)

    async def one(self, kind: str, source: str, parts: list[bytes], gap: float = 0.0, patience: float = 60.0) -> None:
        """Send `parts`, `gap` seconds between two, and note what comes back."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_connection(self.host, int(self.port), local_addr=(source, 0))
                try:
                    answer = asyncio.ensure_future(reader.readline())
                    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
                    for part in parts:
                        if answer.done():
                            break
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(gap)
                    line = await answer
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            line = b"" if isinstance(error, OSError) else b"x no-answer"
        self.seen[kind][line.split()[1].decode() if line else "closed"] += 1
        self.slowest[kind] = max(self.slowest[kind], time.monotonic() - started)

    async def again(self, kind: str, number: int, parts: list[bytes], pause: float, at_once: int = 1, gap: float = 0):
        """`at_once` connections from one address that do so again and again until the end."""

        async def repeat() -> None:
            while time.monotonic() < self.end:
                await self.one(kind, f"127.0.0.{number}", parts, gap)
                await asyncio.sleep(pause)

        await asyncio.gather(*(repeat() for _ in range(at_once)))


def head(length: int, host: str = "127.0.0.1", path: str = "/recommend") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n".encode()


def whole(body: object, host: str = "127.0.0.1") -> list[bytes]:
    content = json.dumps(body).encode()
    return [head(len(content), host) + content]


def huge(megabytes: int) -> list[bytes]:
    start, end = b'{"history": [], "preference": "', b'"}'
    middle = [b"quiet wood " * (MEGABYTE // 11)] * megabytes
    return [head(len(start) + len(end) + sum(map(len, middle))) + start, *middle, end]


def chunked(megabytes: int) -> list[bytes]:
    start = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [start, *[b"%x\r\n" % MEGABYTE + b"[" * MEGABYTE + b"\r\n"] * megabytes, b"0\r\n\r\n"]


async def attack(address: str, seconds: float) -> Attack:
    found = Attack(address, seconds)
    good = whole({"history": ["i1", "i2"], "k": 10})
    await asyncio.gather(
        found.again("100 MB", 2, huge(100), 5),
        found.again("10 MB chunked", 3, chunked(10), 3),
        found.again("1 MB of brackets", 4, [head(MEGABYTE), b"[" * MEGABYTE], 1),
        found.again("half a body", 5, [head(1000) + b'{"history": ['], 0.5, at_once=300),
        found.again("half a head", 6, [b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "], 0.5, at_once=300),
        found.again("a byte a second", 7, [head(1000), *[b" "] * 1000], 0.5, at_once=40, gap=1.0),
        found.again("head without end", 8, [b"GET /health HTTP/1.1\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 200], 1),
        found.again("strange host", 9, whole({"history": []}, "evil.example"), 0.2),
        found.again("a list of 200", 10, whole([{"history": ["i1"], "k": 5}] * 200), 5),
        found.again("flood", 11, [b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], 0.5, at_once=200),
        *(found.again(f"fault {n}", 20 + n, whole(fault), 0.3) for n, fault in enumerate(FAULTS)),
        found.again("one good, alone", 12, good, 0.5),
    )
    return found


def stand_aside() -> None:
    """Take the lowest priority. Linux shares processors among sessions before it looks at priorities (autogroup)."""
    os.nice(19)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text("19")


def main() -> None:
    stand_aside()
    found = asyncio.run(attack(sys.argv[1], float(sys.argv[2])))
    slowest = {kind: round(seconds, 2) for kind, seconds in found.slowest.items()}
    print(json.dumps({"seen": found.seen, "slowest_s": slowest, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()
