"""Errors about data that a person can mend, and how long a message may be."""

from infra.errors import UserError

LONGEST_MESSAGE = 1_000
"""Some messages list several things; what they quote of a file is bounded where it is read."""
LONGEST_DETAIL = 300
"""Of what is said of one row or file that was landed."""


def bounded(message: str, limit: int = LONGEST_MESSAGE) -> str:
    """A message of at most `limit` characters: what is too much goes from its middle, so that both ends can be read."""
    if len(message) <= limit:
        return message
    end = limit // 3
    return f"{message[: limit - end - 5]} ... {message[-end:]}"


class DataError(UserError):
    """Input data, a table or a landing file is not what a stage needs. The message is bounded, whatever it quotes."""

    def __init__(self, message: object = "") -> None:
        super().__init__(bounded(str(message)))


class GateFailed(DataError):
    """A quality gate with severity ``fail`` did not hold; nothing downstream may run."""
