"""Errors that a person can mend, and those about settings and the machine."""


class UserError(Exception):
    """What a person can mend; the message names what is wrong, where, and how to mend it.

    Entry points print its message alone. Any other exception, a `ValueError` of a library too, is a bug or a failure
    of the machine, and keeps its traceback.
    """


class SettingError(UserError):
    """A setting is unknown, of the wrong type or out of range; the message names it and how to mend it."""


class DamagedFile(UserError):
    """A file of ours is cut, empty or something else; the message names it and how to mend it."""
