"""Errors of the language stages that a person must act on."""

from collections.abc import Sequence

from infra.errors import UserError
from infra.masks import masked
from pipelines.language.requests import Answer


class EndpointError(UserError):
    """The endpoint will answer nothing until a person does something: no quota, a wrong key, no such model.

    Args:
        answers: what had been answered when it came out, parallel to the requests; None where not asked.
    """

    def __init__(self, message: str, answers: Sequence[Answer | None] = ()) -> None:
        super().__init__(masked(message))
        self.answers = list(answers)


class QuotaExhausted(EndpointError):
    """The account behind the endpoint has no credit left; waiting does not help."""


class ScoringUnavailable(EndpointError):
    """The endpoint gives no log-probabilities of a given text."""


class TooManyBadAnswers(UserError):
    """More answers were refused, truncated, malformed or missing than the stage allows."""


class BudgetExhausted(UserError):
    """A run has spent what it may; its answers are kept, and the next run goes on from there."""
