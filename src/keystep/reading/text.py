"""Text, JSON, YAML and CSV, with bounds on size and depth."""

from __future__ import annotations

import csv
import json
import math
import stat
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import yaml

from keystep.errors import InputError, one_line, plain, quoted
from keystep.reading.shards import located

MOST_TEXT = 512 << 20
"""Bytes of a text file: the labels of 10,000 hours have fewer."""
MOST_JSON = 64 << 20
MOST_YAML = 128 << 10
"""Bytes of a settings file: the parser needs seconds for more."""
DEPTH = 64
"""How deep lists and objects may be nested; keystep's own files need 8."""
MOST_NODES = 100_000
"""Values in a YAML file once its aliases are written out."""
LARGEST = 2**63 - 1
MOST_NAME = 200
"""Bytes of a file's name, which leaves room for its ending."""


def check_regular(path: Path, most: int | None = None) -> int:
    """Refuse what is no plain file before it is opened: reading a pipe or a device may never end.

    Returns:
        Its size in bytes.

    Raises:
        InputError: nothing there, a folder, pipe or device, or more than ``most`` bytes.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # the second: a name with a zero byte
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise InputError(f"{path}: cannot be read: {kind}, not a regular file")
    if most is not None and found.st_size > most:
        raise InputError(f"{path}: {found.st_size:,} bytes; such files have at most {most:,}")
    return found.st_size


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        InputError: no such file, no regular one, a larger one, or one that is not UTF-8.
    """
    place = located(path)
    size = check_regular(path, most) if place is None else min(place.size, most + 1)
    try:
        with (path if place is None else place.shard).open("rb") as file:
            if place is not None:
                file.seek(place.start)
            data = file.read(size + (place is None))  # more would allocate as much for each of many small files
            data += file.read(most + 1 - len(data)) if len(data) > size else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > most:  # a file that grows, or says that it is empty, as those in /proc do
        raise InputError(f"{path}: more than {most:,} bytes; such files have at most so many")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start}); save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blanks around them; empty lines are allowed only at the end.

    A byte order mark is dropped, and lines may end as on any system. (``str.splitlines`` would also split at characters
    such as U+2028 inside a name.)
    """
    lines = [line.strip() for line in read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line:
            raise InputError(f"{path}, line {number}: empty line in the middle; remove it")
    return lines


def is_file_name(name: object) -> TypeGuard[str]:
    """Whether a text from a file may become the name of one: no way out of its folder, no control, not too long."""
    if not isinstance(name, str) or plain(name) != name or "\n" in name or "\t" in name:
        return False
    return 0 < len(name.encode()) <= MOST_NAME and Path(name).name == name


def whole_number(text: str, digits: int = 9) -> int | None:
    """The number that a text of so many ASCII digits at most writes; None for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each row of a CSV file that is not blank.

    Raises:
        InputError: what `read_text` raises, or a cell that never ends.
    """
    reader = csv.reader(StringIO(read_text(path), newline=""))
    try:
        return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV file: {error}") from error


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(names of the columns, (line number, cell of each column) of each row) of a CSV file; missing cells are empty.

    Raises:
        InputError: what `read_rows` raises, or a name that two columns have.
    """
    rows = read_rows(path)
    names = [cell.strip() for cell in rows[0][1]] if rows else []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: two columns are called {quoted(twice)}")
    padded = ((number, [*row, *[""] * len(names)]) for number, row in rows[1:])
    return names, [(number, dict(zip(names, row, strict=False))) for number, row in padded]


def parse_json(text: str, *, nan: Any = ...) -> Any:
    """A JSON value whose numbers are finite, whose names are given once, and whose depth is bounded.

    Args:
        nan: what to read for a bare NaN or Infinity, which is no JSON and by default refused.

    Raises:
        ValueError: anything else; the message says what.
    """
    try:
        data = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_constant if nan is ... else lambda _: nan,
            parse_int=_whole,
        )
    except RecursionError as error:
        raise ValueError(f"nested more than {DEPTH} deep") from error
    _check_plain(data)
    return data


def read_json(path: Path, most: int = MOST_JSON, *, nan: Any = ...) -> dict[str, Any]:
    """The object in a JSON file; ``nan`` as for `parse_json`.

    Raises:
        InputError: what `read_text` raises, no JSON (see `parse_json`), or another value than an object.
    """
    text = read_text(path, most)
    try:
        data = parse_json(text, nan=nan)
    except ValueError as error:
        raise InputError(f"{path}: unreadable: no JSON: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, found {type(data).__name__}")
    return data


def parse_yaml(text: str) -> Any:
    """A YAML value of bounded depth and size, aliases written out; names are given once.

    Raises:
        ValueError: anything else; the message says what.
    """
    try:
        data = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError(" ".join(str(error).split())) from error  # the last four: what a wrong tag makes of a value
    _check_plain(data)
    return data


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts: an alias costs as much as what it stands for."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node with all below it."""
        alias, before = self.check_event(yaml.AliasEvent), self._nodes
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        if self._depth > DEPTH:
            raise yaml.YAMLError(f"nested more than {DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias inside of what it stands for")
        self._nodes += self._sizes.get(id(node), 0) if alias else 0
        if self._nodes > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES:,} values, aliases written out")
        if not alias:
            self._sizes[id(node)] = self._nodes - before
            _check_names(node)
        return node


def _check_names(node: yaml.Node | None) -> None:
    """Refuse a mapping that gives a name twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise yaml.YAMLError(f"the name {quoted(twice)} is given twice")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {quoted(next(name for name in names if names.count(name) > 1))} is given twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"the number {quoted(text)} is too large")
    return int(text)


def _check_plain(data: Any) -> None:
    """Refuse deep nesting, numbers of more than 64 bits, and text that is no Unicode (halves of letters)."""
    level = [data]
    for _ in range(DEPTH):
        below = list[Any]()
        for value in level:
            if type(value) is float:  # most of what large files hold
                if not math.isfinite(value):
                    raise ValueError("a number that is too large, or none")
            elif isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list | tuple | set):
                below += value
            elif isinstance(value, str):
                _check_letters(value)
            elif isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(f"the number {quoted(value)} is too large")
        if not below:
            return
        level = below
    raise ValueError(f"nested more than {DEPTH} deep")


def _check_letters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{quoted(text)} is no text (letter {error.start})") from error
