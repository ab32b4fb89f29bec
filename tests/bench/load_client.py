"""A client of the serving bench, in a process of its own: threads that ask one after another, on kept connections.

    python tests/bench/load_client.py <host:port> <mlflow|ray> <threads> <seconds> <items>

Prints one JSON line: requests a second, p50 and p99 in milliseconds, failures, answers by version, and answers whose
titles are not all of the version that they name. The first second is not counted, except for failures and versions.
"""

import collections
import http.client
import json
import random
import sys
import threading
import time

K, WARM_S = 10, 1.0


def question(kind: str, draw: random.Random, items: int) -> tuple[str, str]:
    history = [f"i{draw.randrange(items)}" for _ in range(draw.randint(5, 20))]
    if kind == "ray":
        return "/recommend", json.dumps({"history": history, "k": K})
    return "/invocations", json.dumps({"inputs": [{"history": history}], "params": {"k": K}})


def ask_on(number: int, kind: str, items: int, address: str, end: float, found: list, failures: list) -> None:
    draw = random.Random(number)
    connection = http.client.HTTPConnection(address, timeout=60)
    while time.monotonic() < end:
        path, body = question(kind, draw, items)
        started = time.monotonic()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = json.loads(response.read())
            answer = content if kind == "ray" else content["predictions"][0]
            version, titles = answer.get("model_version", ""), answer["titles"]
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            failures.append(f"{type(error).__name__}: {error}")
            connection.close()
            continue
        if response.status != 200 or len(titles) != K:
            failures.append(f"status {response.status}, {len(titles)} titles")
        number_of = version.rpartition("/")[2]
        mixed = bool(number_of) and not all(title.endswith(f"version {number_of}") for title in titles)
        found.append((started, time.monotonic() - started, version, mixed))


def main() -> None:
    address, kind, threads, seconds, items = sys.argv[1:]
    found: list = []
    failures: list = []
    start = time.monotonic()
    end = start + WARM_S + float(seconds)
    running = [
        threading.Thread(target=ask_on, args=(n, kind, int(items), address, end, found, failures))
        for n in range(int(threads))
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    took = sorted(duration for moment, duration, _, _ in found if moment >= start + WARM_S)
    report = {
        "requests": len(found),
        "per_s": len(took) / float(seconds),
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[int(len(took) * 0.99)],
        "slowest_ms": 1000 * took[-1],
        "failures": len(failures),
        "first_failures": failures[:3],
        "versions": collections.Counter(version for _, _, version, _ in found),
        "mixed": sum(mixed for _, _, _, mixed in found),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
