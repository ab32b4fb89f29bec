"""Output of commands: errors in one line, and readers such as ``head`` that close the pipe early."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from infra.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

WRONG = 2
"""Exit status for wrong arguments."""


class Parser(argparse.ArgumentParser):
    """Exits with one line and status 2 if an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """Exit with `message`."""
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(WRONG)


def command(main: Callable[P, T]) -> Callable[P, T]:
    """`main`, but a user error ends it with one line and status 2."""
    path = Path(main.__code__.co_filename)
    name = path.parent.name if path.stem == "__main__" else path.stem

    @wraps(main)
    def run(*given: P.args, **named: P.kwargs) -> T:
        try:
            return main(*given, **named)
        except UserError as error:
            sys.stderr.write(f"{name}: {error}\n")
            raise SystemExit(WRONG) from error

    return run


def say(lines: Iterable[str]) -> None:
    """Print `lines`; a closed pipe is not an error."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Discard the buffer, or flushing it at exit raises again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
