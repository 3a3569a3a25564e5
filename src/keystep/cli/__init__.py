"""The command line. Commands import what they need when they run, so that ``--help`` is fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from keystep.errors import InputError, Interrupted, one_line, plain
from keystep.stopping import handling_stops, raise_interrupt


def main() -> None:
    """Run the command line."""
    from keystep.cli.commands import app

    def work() -> None:
        if "" in sys.argv[1:]:  # it would be the current folder
            raise InputError("an empty argument; is a variable of the shell not set?")
        app()

    guarded(work)


def guarded(work: Callable[[], object]) -> None:
    """Call ``work`` and turn its exceptions into one line on standard error and an exit status.

    The exit status is 2 for errors that the user can fix, 130 after an interrupt, and 141 after a broken pipe.
    """
    try:
        with handling_stops(raise_interrupt):
            try:
                work()
            finally:
                sys.stdout.flush()  # here, where an error can still be reported
    except Interrupted as stop:
        print(plain(f"keystep: {stop}"), file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if end.code == 130:  # typer takes KeyboardInterrupt for itself, without a word
            print("keystep: stopped", file=sys.stderr)
        raise
    except KeyboardInterrupt:  # work that can be resumed raises Interrupted instead
        print("keystep: stopped", file=sys.stderr)
        sys.exit(130)
    except InputError as error:
        print(plain(f"keystep: error: {error}"), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has closed it
        _drop_output()
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(
            error
        ):  # on the CPU, torch raises a plain RuntimeError
            raise
        print(
            plain(f"keystep: error: not enough memory: {one_line(error) or 'use a smaller model or batch'}"),
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _drop_output()
        print(plain(f"keystep: error: {place}{error.strerror or error}"), file=sys.stderr)
        sys.exit(2)


def _drop_output() -> None:
    """Redirect standard output to the null device if it cannot be flushed; else Python would fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
