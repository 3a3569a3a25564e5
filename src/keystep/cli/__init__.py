"""The command line. Nothing below it is imported before a command runs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from keystep.errors import InputError, Interrupted, one_line, plain
from keystep.stopping import handling_stops, raise_interrupt


def main() -> None:
    """Run a command."""
    from keystep.cli.commands import app

    guarded(app)


def guarded(work: Callable[[], object]) -> None:
    """Do work for the shell: what the user can mend is one line on standard error and exit status 2."""
    try:
        with handling_stops(raise_interrupt):
            try:
                work()
            finally:
                sys.stdout.flush()  # here, where an error can be told
    except Interrupted as stop:
        print(plain(f"keystep: {stop}"), file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:  # what can go on says so itself, by Interrupted
        print("keystep: stopped", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        print(plain(f"keystep: error: {error}"), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our lines has enough
        _drop_output()
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error):  # torch has no class for it on the CPU
            raise
        print(
            plain(f"keystep: error: not enough memory: {one_line(error) or 'give a smaller model or batch'}"),
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _drop_output()
        print(plain(f"keystep: error: {place}{error.strerror or error}"), file=sys.stderr)
        sys.exit(2)


def _drop_output() -> None:
    """Let what standard output does not take go nowhere, or Python would complain once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
