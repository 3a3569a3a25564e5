"""Colours of classes and of families of rows, shared by all pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue from 0 to 1."""

DISTINCT = (
    *("#22bb99", "#aa4477", "#0077cc", "#ee7700", "#005500", "#dddd22", "#bb99ff", "#442288", "#996600", "#770055"),
    *("#44ee99", "#55eeff", "#8888bb", "#ff99cc", "#eeaa00", "#7733aa", "#cc6666", "#992233", "#6688ff", "#bb9966"),
)
"""The first 8, then 12, then all 20 colours maximise the distance (OKLab) between each other and from the background
grey under normal vision, protanopia and deuteranopia, at medium lightness and chroma. The first eight are at least 0.22
(normal) and 0.13 (colour-blind) apart. Segments show their class number too, so colour is never the only cue.
"""
BACKGROUND, UNLABELLED = "#d4d4d4", "#ffffff"
BACKGROUND_NAMES = ("background", "bg", "sil", "null", "idle")
"""Names of classes that are drawn in grey even if the protocol does not list them as background."""
FAMILY_COLOURS = {
    "raw": "#4d4d4d",
    "control": "#d98200",
    "untrained": "#b3548d",
    "reconstruction": "#0f8a66",
    "learned": "#0072b2",
    "oracle": "#8c8c8c",
}


class Palette:
    """A colour for each class, which depends on the list of classes only: the same in every picture of a data set.

    By class id, the first 20 classes get distinct colours, the next 40 get lighter and darker shades of them, and
    further classes repeat. Background classes are grey; ids that are not a class are white.

    Args:
        classes: names by class id.
        background: names of background classes, in addition to `BACKGROUND_NAMES`.
    """

    def __init__(self, classes: Sequence[str], background: Collection[str] = ()) -> None:
        self.classes = classes
        steps = [index for index, name in enumerate(classes) if name.lower() not in BACKGROUND_NAMES]
        self.colours = dict.fromkeys(range(len(classes)), BACKGROUND)
        self.colours |= {index: _shade(rank) for rank, index in enumerate(steps) if classes[index] not in background}

    def colour(self, label: int) -> str:
        """``#rrggbb`` of a class id."""
        return self.colours.get(label, UNLABELLED)

    def paint(self, ids: np.ndarray) -> np.ndarray:
        """(T,) class ids -> (1, T, 3) uint8."""
        labels, place = np.unique(ids, return_inverse=True)
        colours = np.array([rgb(self.colour(label)) for label in labels.tolist()], np.uint8).reshape(-1, 3)
        return colours[place.reshape(1, -1)]

    def present(self, lines: Sequence[np.ndarray]) -> list[int]:
        """Class ids that occur in ``lines``, in order of first occurrence."""
        found = [np.unique(ids, return_index=True) for ids in lines]
        return list(dict.fromkeys(label for labels, first in found for label in labels[np.argsort(first)].tolist()))


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast with the colour."""
    return "#000000" if contrast(colour, "#000000") > contrast(colour, "#ffffff") else "#ffffff"


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours from 1 to 21 (WCAG 2); 4.5 is enough for text."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    share = np.array(rgb(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _shade(rank: int) -> str:
    colour = np.array(rgb(DISTINCT[rank % len(DISTINCT)])) / 255
    turn = rank // len(DISTINCT) % 3
    shade = (colour, 0.5 * colour + 0.5, 0.6 * colour)[turn]
    return "#" + bytes(np.rint(255 * shade).astype(np.uint8)).hex()
