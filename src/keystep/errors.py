"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message is one line that says what is wrong, where (file and value) and what to do about it. The command
    line prints it without a traceback and exits with status 2; library users may catch it as a ``ValueError``.
    """
