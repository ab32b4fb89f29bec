"""Errors about data that a user can fix, and the length of messages."""

from infra.errors import UserError

LONGEST_MESSAGE = 1_000
"""Characters of a message."""
LONGEST_DETAIL = 300
"""Characters of a message about one landed row or file."""


def bounded(message: str, limit: int = LONGEST_MESSAGE) -> str:
    """`message` cut to at most `limit` characters in its middle, so that both ends can be read."""
    if len(message) <= limit:
        return message
    end = limit // 3
    return f"{message[: limit - end - 5]} ... {message[-end:]}"


class DataError(UserError):
    """Input data, a table or a landing file is not what a stage needs. The message is cut to `LONGEST_MESSAGE`."""

    def __init__(self, message: object = "") -> None:
        super().__init__(bounded(str(message)))


class GateFailed(DataError):
    """A quality gate with severity ``fail`` failed; nothing downstream may run."""
