"""Seeded damage: bytes, text, and the values of structured files."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from safetensors.torch import load

from keystep.persistence import DIGEST, _digest

WEIRD: tuple[Any, ...] = (
    *(None, True, False, "", " ", "x" * 300, [], {}, [[]], [None], 0, 1, -1, 0.5, -0.0, 7, 1e300, 1e-300),
    *(2**31, 2**63 - 1, 2**63, 10**23, -(2**63), 10**30, 10**400),
    *(
        "NaN",
        "1e999",
        "../../etc/passwd",
        "/dev/zero",
        "\x1b[31mred\x1b[0m",
        "\u202eback",
        "\ud800",
        "1/0",
        "1e99999999",
    ),
)
"""Values that a file of another program, an attacker or a slip may put anywhere."""
TOKENS = (b"NaN", b"Infinity", b"1e999", b"-1", b"9" * 400, b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\x1b[2J", b"null")
TOKENS += (
    b"[" * 500,
    b'{"a":' * 300,
    b"\r\n",
    b"\xe2\x80\xa8",
    b",",
    b"\t",
    b'"',
    b"&a [*a, *a]",
    b"!!python/object:os.system",
)


def mutated(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """The bytes of a file with one to four damages; ``other`` is a file to splice from."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_DAMAGES)(data, chance, other)
    return data


def _flip(data: bytes, chance: random.Random, other: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if found:
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def _flip_early(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Headers are where most of the meaning is."""
    head = _flip(data[:256], chance, other)
    return head + data[256:]


def _cut(data: bytes, chance: random.Random, other: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return chance.choice((data[:place], data[place:], data[:place] + data[place + chance.randrange(1, 64) :]))


def _insert(data: bytes, chance: random.Random, other: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(TOKENS) + data[place:]


def _splice(data: bytes, chance: random.Random, other: bytes) -> bytes:
    source = other or data
    start, length, place = chance.randrange(len(source) + 1), chance.randrange(1, 512), chance.randrange(len(data) + 1)
    part = source[start : start + length]
    return data[:place] + part + data[place + chance.choice((0, len(part))) :]


def _swap_lines(data: bytes, chance: random.Random, other: bytes) -> bytes:
    lines = data.split(b"\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _swap_words(data: bytes, chance: random.Random, other: bytes) -> bytes:
    words = data.split(b" ")
    first, second = chance.randrange(len(words)), chance.randrange(len(words))
    words[first], words[second] = words[second], words[first]
    return b" ".join(words)


def _number(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """One digit, wherever one is, becomes a large, negative or odd number."""
    places = [place for place, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if not places:
        return data
    place = chance.choice(places)
    number = chance.choice((b"-1", b"0", b"1e9", b"99999999999999999999", b"1.5", b"", b"1e400", b"0x10"))
    return data[:place] + number + data[place + 1 :]


def _extreme(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Four or eight bytes become a number of binary formats that is often not expected."""
    value, width = chance.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1)), chance.choice((4, 8))
    place = chance.randrange(min(len(data), chance.choice((64, 1024, 1 << 20))) + 1)
    return data[:place] + value.to_bytes(width, chance.choice(("little", "big"))) + data[place + width :]


_DAMAGES = (_flip, _flip, _flip_early, _cut, _insert, _splice, _swap_lines, _swap_words, _number, _extreme)


def changed(value: Any, chance: random.Random) -> Any:
    """JSON-like data with one to three values, names or places changed."""
    found = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(found))
        if not places:
            return deepcopy(chance.choice(WEIRD))
        holder, key = chance.choice(places)
        kind = chance.randrange(6)
        if kind <= 2:
            holder[key] = deepcopy(chance.choice(WEIRD))  # else later changes would be made in the constant
        elif kind == 3:
            del holder[key]
        elif kind == 4:
            other_holder, other_key = chance.choice(places)
            holder[key] = json.loads(json.dumps(other_holder[other_key])) if other_holder is not holder[key] else None
        else:
            holder[key] = [holder[key]] * chance.choice((1, 2, 50))
    return found


def _places(value: Any) -> Any:
    """(holder, key) of every value inside of lists and objects."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for key in range(len(value)):
            yield value, key
            yield from _places(value[key])


def nested(depth: int, chance: random.Random) -> bytes:
    """A value that many lists or objects deep."""
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + b"1" + closing * depth


def json_bytes(value: Any, chance: random.Random) -> bytes:
    """A file of JSON with its values changed, and now and then its bytes, or deep nesting."""
    if chance.random() < 0.02:
        return nested(chance.choice((70, 900, 100_000)), chance)
    data = json.dumps(changed(value, chance)).encode("utf-8", "surrogatepass")
    return mutated(data, chance) if chance.random() < 0.2 else data


def forged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header, and keystep's hash made to fit what it now holds."""
    changed_data = safetensors_bytes(data, chance)
    try:
        tensors = load(changed_data)
        length = int.from_bytes(changed_data[:8], "little")
        header = json.loads(changed_data[8 : 8 + length])
        record = {name: value for name, value in header["__metadata__"].items() if name != DIGEST}
        header["__metadata__"] = record | {DIGEST: _digest(tensors, record)}
    except Exception:  # no file that any hash would make whole
        return changed_data
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + changed_data[8 + length :]


def safetensors_bytes(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with the values of its header changed, records in its metadata included."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.get("__metadata__")
    kept = (metadata or {}).get(DIGEST)
    if metadata and chance.random() < 0.7:
        key = chance.choice(sorted(metadata))
        try:
            metadata[key] = json.dumps(changed(json.loads(metadata[key]), chance))
        except ValueError:
            metadata[key] = str(chance.choice(WEIRD))
    else:
        header = changed(header, chance)
    if kept is not None and isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"][DIGEST] = kept  # without it, another content is another valid file
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    size = len(text) if chance.random() < 0.9 else chance.choice((0, 2**40, 2**63, len(text) + 1))
    return size.to_bytes(8, "little") + text + rest


def npy_bytes(data: bytes, chance: random.Random) -> bytes:
    """A .npy file with another header of the same form."""
    length = int.from_bytes(data[8:10], "little")
    shape = chance.choice(
        ("(10, 10)", "(100000000000000000000000, 6)", "(-1, 6)", "()", "(0, 6)", "(6,)", "6", "(" * 400)
    )
    kind = chance.choice(
        ("'<f4'", "'<f8'", "'|O'", "'>f4'", "'<i8'", "'|S0'", "'<U5'", "[('a', '<f4')]", "'<f2'", "'x'")
    )
    text = f"{{'descr': {kind}, 'fortran_order': {chance.choice(('True', 'False', '2'))}, 'shape': {shape}, }}"
    header = text.encode().ljust(length - 1)[: length - 1] + b"\n" if chance.random() < 0.8 else text.encode() + b"\n"
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + length :]


def zip_bytes(data: bytes, chance: random.Random, inner: Any) -> bytes:
    """A zip archive in which one part is changed by ``inner`` and all checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(info.filename, archive.read(info)) for info in archive.infolist()]
        stored = archive.infolist()[0].compress_type
    place = chance.randrange(len(parts))
    name, content = parts[place]
    parts[place] = (name, inner(content, chance))
    if chance.random() < 0.1:
        del parts[place]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", stored) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return buffer.getvalue()


def _either(first: Callable[..., bytes], second: Callable[..., bytes]) -> Callable[[bytes, random.Random], bytes]:
    """One of two ways to damage a file."""
    return lambda data, chance: (first if chance.random() < 0.5 else second)(data, chance)


def _json(data: bytes, chance: random.Random) -> bytes:
    return json_bytes(json.loads(data), chance)


def _lines_of_json(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    lines[place] = json_bytes(json.loads(lines[place]), chance) + b"\n"
    return b"".join(lines)


JSON, LINES = _either(_json, mutated), _either(_lines_of_json, mutated)
SAFETENSORS, NPY = _either(safetensors_bytes, mutated), _either(npy_bytes, mutated)
NPZ = _either(partial(zip_bytes, inner=NPY), mutated)
TORCH = _either(partial(zip_bytes, inner=mutated), mutated)
