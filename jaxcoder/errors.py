"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake in a user's file, config or command.

    The message is one line: the file, key or row; the value found; what was expected; the remedy.
    Entry points print it without a stack trace and exit with status 2. It never holds note text.
    """
