"""The parser of a command: what is wrong is said in one line."""

import argparse
import sys
from typing import NoReturn

WRONG = 2
"""Exit status of a command that was given something wrong."""


class Parser(argparse.ArgumentParser):
    """Ends with one line and status 2 where an argument is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with `message`."""
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(WRONG)
