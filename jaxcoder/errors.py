"""Exceptions that end a command with one line: mistakes of a user, and storage that fails."""


class UserError(Exception):
    """A mistake in a user's file, config or command.

    The message is one line: the file, key or row; the value found; what was expected; the remedy.
    Entry points print it without a stack trace and exit with status 2. It never holds note text.
    """


class StorageError(Exception):
    """Storage that failed, and not by the user's doing: the same command may well go on.

    The message is as that of `UserError`; the status is 1, after which supervisors try again.

    Attributes:
      alone: whether other processes of the run go on; this one then ends without waiting for them.
    """

    def __init__(self, message: str, *, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone
