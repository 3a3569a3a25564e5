"""What a user is meant to read when a run ends early."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message is one line that says what is wrong, where (file and value) and what to do about it. The command
    line prints it without a traceback and exits with status 2; library users may catch it as a ``ValueError``.
    """


class Interrupted(Exception):
    """A run was asked to stop (Ctrl-C, SIGTERM) and has saved its state; the message says how to go on."""


def quoted(value: object, limit: int = 80) -> str:
    """A foreign value for a message: escaped, on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a number of thousands of digits, or very deep nesting
        return f"a {type(value).__name__} too long to print"
    return text if len(text) <= limit else f"{text[:limit]}..."


def named(name: str) -> str:
    """A foreign name for a message: as it is where it is short and plain, else `quoted`."""
    return name if name.isprintable() and len(name) <= 80 else quoted(name)


def one_line(text: object, limit: int = 300) -> str:
    """A foreign message as one line without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text).strip()[:limit])
