"""Errors of the language stages that need a person."""

from collections.abc import Sequence

from infra.errors import UserError
from infra.masks import masked
from pipelines.language.requests import Answer


class EndpointError(UserError):
    """The endpoint answers nothing until a person acts: no quota, a wrong key, no such model.

    Args:
        answers: those received so far, parallel to the requests; None for the others.
    """

    def __init__(self, message: str, answers: Sequence[Answer | None] = ()) -> None:
        super().__init__(masked(message))
        self.answers = list(answers)


class QuotaExhausted(EndpointError):
    """The account at the endpoint has no credit left."""


class ScoringUnavailable(EndpointError):
    """The endpoint gives no log-probabilities of a given text."""


class TooManyBadAnswers(UserError):
    """More answers are refused, truncated, malformed or missing than the stage allows."""


class BudgetExhausted(UserError):
    """A run has spent its budget; its answers are kept, and the next run continues."""
