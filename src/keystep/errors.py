"""What a user is meant to read when a run ends early."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message is one line that says what is wrong, where (file and value) and what to do about it. The command
    line prints it without a traceback and exits with status 2; library users may catch it as a ``ValueError``.
    """


class Interrupted(Exception):
    """A run was asked to stop (Ctrl-C, SIGTERM) and has saved its state; the message says how to go on."""
