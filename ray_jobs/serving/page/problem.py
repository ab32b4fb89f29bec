"""What is wrong with a request of the page; loads nothing."""


class Problem(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP.
        field: of the request that is wrong; "" for the whole.
    """

    def __init__(self, status: int, problem: str, field: str = "") -> None:
        super().__init__(problem)
        self.status, self.problem, self.field = status, problem, field
