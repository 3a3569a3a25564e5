"""Colours are told apart, by colour-blind eyes too, and what is written in them can be read."""

from itertools import combinations

import numpy as np
import pytest

from keystep.evals.palette import BACKGROUND, DISTINCT, Palette, contrast, ink_on, rgb

SEEN = {  # Machado, Oliveira, Fernandes 2009, on linear RGB
    "normal": np.eye(3),
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
LMS += [[0.0883024619, 0.2817188376, 0.6299787005]]
OKLAB = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
OKLAB += [[0.0259040371, 0.7827717662, -0.808675766]]


def oklab(colour: str, eyes: str) -> np.ndarray:
    """(3,) OKLab of a colour as those eyes see it (Ottosson 2020)."""
    share = np.array(rgb(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEN[eyes]) @ linear, 0, 1)
    return np.array(OKLAB) @ np.cbrt(np.array(LMS) @ seen)


def nearest(colours: tuple[str, ...], eyes: str) -> float:
    """The smallest distance of two of them."""
    places = [oklab(colour, eyes) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(places, 2))


@pytest.mark.parametrize(("count", "normal", "colour_blind"), [(8, 0.22, 0.13), (12, 0.14, 0.09), (20, 0.10, 0.065)])
def test_the_first_colours_lie_far_apart_for_all_eyes(count: int, normal: float, colour_blind: float) -> None:
    assert nearest(DISTINCT[:count], "normal") > normal
    assert min(nearest(DISTINCT[:count], eyes) for eyes in SEEN) > colour_blind


def test_no_colour_is_taken_for_the_grey_of_the_background() -> None:
    apart = {colour: min(nearest((colour, BACKGROUND), eyes) for eyes in SEEN) for colour in DISTINCT}
    assert min(apart.values()) > 0.06 and min(apart[colour] for colour in DISTINCT[:8]) > 0.12


def test_numbers_on_segments_can_be_read() -> None:
    assert all(contrast(colour, ink_on(colour)) > 4.5 for colour in (*DISTINCT, BACKGROUND))
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#777777") == 1


def test_sixty_classes_have_their_own_colours_and_the_first_twenty_the_distinct_ones() -> None:
    palette = Palette([f"step {index}" for index in range(200)])
    assert tuple(palette.colour(index) for index in range(20)) == DISTINCT
    assert len({palette.colour(index) for index in range(60)}) == 60


def test_a_class_keeps_its_colour_whatever_else_a_picture_takes_as_background() -> None:
    classes = ["background", "cut", "rest", "tie"]
    everywhere, judged = Palette(classes), Palette(classes, ["rest"])
    assert judged.colour(2) == BACKGROUND != everywhere.colour(2)
    assert all(judged.colour(index) == everywhere.colour(index) for index in (0, 1, 3))


def test_background_is_grey_whether_the_protocol_or_its_name_says_so_and_no_class_is_white() -> None:
    palette = Palette(["SIL", "cut", "rest"], ["rest"])
    assert palette.colour(0) == palette.colour(2) == BACKGROUND and palette.colour(1) == DISTINCT[0]
    assert palette.colour(-100) == "#ffffff"
    assert palette.paint(np.array([1, -100])).tolist() == [[list(rgb(DISTINCT[0])), [255, 255, 255]]]
