"""The client of the serving benches, in its own process: threads that send one request after another.

    python tests/bench/load_client.py <host:port> <mlflow|ray> <threads> <seconds> <items>

Prints one JSON line: sorted durations in milliseconds, processor seconds of the client, failures, answers by version,
and answers whose titles are not all of the version that they name. Durations leave out the first second.
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
    report = {
        "took_ms": sorted(round(1000 * duration, 1) for moment, duration, _, _ in found if moment >= start + WARM_S),
        "cpu_s": time.process_time(),
        "requests": len(found),
        "failures": len(failures),
        "first_failures": failures[:3],
        "versions": collections.Counter(version for _, _, version, _ in found),
        "mixed": sum(mixed for _, _, _, mixed in found),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
