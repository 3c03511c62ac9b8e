"""The errors that a user can cause, and mend."""

import click


class LoadError(click.ClickException):
    """Ends the load with one plain message and exit code 1; for machines, with an `event`."""

    event = "failed"


class NotThere(LoadError):
    """A path that was given does not exist."""

    event = "not_there"


class NothingToLoad(LoadError):
    """What lies there is nothing that a load takes."""

    event = "nothing_to_load"


class FileRefused(Exception):
    """One file cannot be loaded; the others can. The message says why and what to do."""


class Unread(FileRefused):
    """One file could not be read this time; nothing is known to be wrong with its bytes."""
