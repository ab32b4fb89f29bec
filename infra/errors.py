"""Errors that a user can fix."""


class UserError(Exception):
    """An error that a user can fix; the message says what is wrong, where, and what to do.

    Entry points print only its message. Any other exception is a bug or a failure of the machine and keeps its
    traceback.
    """


class SettingError(UserError):
    """A setting is unknown, of the wrong type or out of range, or a needed program or service is missing."""


class DamagedFile(UserError):
    """A file of ours is truncated, empty or not what it should be."""


class StorageError(UserError):
    """An object store cannot be reached, or refuses."""
