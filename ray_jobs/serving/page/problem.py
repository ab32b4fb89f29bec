"""Errors of the page; imports nothing."""


class Problem(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        field: the wrong field of the request; "" for the whole.
    """

    def __init__(self, status: int, problem: str, field: str = "") -> None:
        super().__init__(problem)
        self.status, self.problem, self.field = status, problem, field
