"""XML that anybody may have written: no DTD, so no entities; bounded in size and depth."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from keystep.errors import InputError, one_line
from keystep.reading import check_regular

MOST_XML = 256 << 20
DEPTH = 64


def parse_xml(path: Path, root: str) -> ElementTree.Element:
    """The root element of a file, which has to be called ``root``.

    Raises:
        InputError: no such file, no XML, one with a document type (which may define entities that grow), another root,
            or nesting more than 64 deep.
    """
    check_regular(path, MOST_XML)
    try:
        data = path.read_bytes()
        _check(data)
        found = ElementTree.fromstring(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, expat.ExpatError, ElementTree.ParseError) as error:
        raise InputError(f"{path}: not an XML file that is read: {one_line(error)}") from error
    if found.tag != root:
        raise InputError(f"{path}: expected <{root}>, found <{one_line(found.tag, 80)}>")
    return found


def _check(data: bytes) -> None:
    """Go through the file once, before any of it is kept.

    Raises:
        ValueError: a document type, or deep nesting. Also what the parser raises.
    """
    parser, depth = expat.ParserCreate(), 0

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type (<!DOCTYPE ...>); remove that line")

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} deep")

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser.StartDoctypeDeclHandler, parser.StartElementHandler, parser.EndElementHandler = refuse, enter, leave
    parser.Parse(data, True)
