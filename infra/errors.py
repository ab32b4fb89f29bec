"""Errors about settings and the machine."""


class SettingError(ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it and how to mend it."""


class DamagedFile(ValueError):
    """A file of ours is cut, empty or something else; the message names it and how to mend it."""
