"""Checks that a machine can run Penchant. Standard library only: it runs before anything is installed.

`python3 -m infra.doctor` prints each problem with its remedy, and exits with 1 if there are any.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

JAVA_VERSIONS = (17, 21)
MEMORY_GIB = 8


def java_problem() -> str | None:
    """What is wrong with Java, or None."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    wanted = "install a Java 17 runtime (on Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
    if not java or not os.path.exists(java):
        where = f"JAVA_HOME={home} has no bin/java" if home else "no java on PATH"
        return f"Spark needs Java and there is {where}: {wanted}."
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', text)
    if not match or int(match.group(1)) not in JAVA_VERSIONS:
        found = match.group(1) if match else "an unknown version"
        return f"Spark 4.2 runs on Java {' or '.join(map(str, JAVA_VERSIONS))}, {java} is {found}: {wanted}."
    return None


def python_problem() -> str | None:
    """What is wrong with this Python, or None."""
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return None
    return f"Python {sys.version.split()[0]} runs this; use 3.11 or 3.12 (make PYTHON=python3.11 ...)."


def memory_problem() -> str | None:
    """What is wrong with the machine's memory, or None; also None if it cannot be read."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return None
    if total >= MEMORY_GIB:
        return None
    return f"the machine has {total:.0f} GiB of memory, the demo needs {MEMORY_GIB}: use a larger one."


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_problems(ports: Mapping[str, int]) -> list[str]:
    """One sentence for each of `ports`, by the variable that sets it, that is in use."""
    return [
        f"port {port} is busy: stop what listens there, or choose another with {variable}=<port>."
        for variable, port in ports.items()
        if not port_is_free(port)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the problems of this machine."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    problems = [problem for problem in (python_problem(), java_problem(), memory_problem()) if problem]
    for problem in problems:
        print(f"penchant: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
