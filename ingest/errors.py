"""The errors that a user can cause, and mend."""

import click


class LoadError(click.ClickException):
    """Ends the load with one plain message and exit code 1."""


class FileRefused(Exception):
    """One file cannot be loaded; the others can. The message says why and what to do."""
