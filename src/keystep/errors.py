"""What a user is meant to read when a run ends early."""


class InputError(ValueError):
    """Something the user gave us cannot be used.

    The message is one line that says what is wrong, where (file and value) and what to do about it. The command
    line prints it without a traceback and exits with status 2; library users may catch it as a ``ValueError``.
    """


class Interrupted(Exception):
    """A run was asked to stop (Ctrl-C, SIGTERM) and has saved its state; the message says how to go on."""


_TURNING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), *_TURNING])
"""What moves a terminal's cursor, colours its text or turns it around."""
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]


def plain(text: str) -> str:
    """A foreign text as a terminal or a page may show it: lines and tabs stay, controls do not."""
    return text.translate(_CONTROLS)


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
