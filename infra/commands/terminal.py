"""Output of commands: errors in one line, and readers such as ``head`` that close the pipe early."""

import argparse
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

WRONG = 2
"""Exit status for wrong arguments."""


class Parser(argparse.ArgumentParser):
    """Exits with one line and status 2 if an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with `message`."""
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(WRONG)


def say(lines: Iterable[str]) -> None:
    """Print `lines`; a closed pipe is not an error."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Discard the buffer, or flushing it at exit raises again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
