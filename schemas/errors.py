"""Errors that a user can act on. Their messages name what is wrong, where, and how to mend it."""


class DataError(ValueError):
    """Input data, a table or a landing file is not what a stage needs."""


class GateFailed(DataError):
    """A quality gate with severity ``fail`` did not hold; nothing downstream may run."""
