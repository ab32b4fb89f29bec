"""How commands speak to a person: what is wrong is said in one line, and a reader may leave early."""

import argparse
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

WRONG = 2
"""Exit status of a command that was given something wrong."""


class Parser(argparse.ArgumentParser):
    """Ends with one line and status 2 where an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with `message`."""
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(WRONG)


def say(lines: Iterable[str]) -> None:
    """Print `lines`; nothing is wrong where the reader, such as ``head``, has seen enough."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere instead of into a second error at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
