import pytest
import torch

from keystep.errors import InputError
from keystep.extraction.backbone import Picture
from keystep.extraction.backbones.colours import Colours
from keystep.extraction.backbones.preprocessing import preprocessing

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PICTURES = [
    # ViT, SigLIP: squeezed
    ({"size": {"height": 224, "width": 192}, "resample": 3}, (224, 192, None, "bicubic")),
    # early ViT files, and early CLIP files
    ({"size": 224, "resample": 2}, (224, 224, None, "bilinear")),
    ({"size": 224, "do_center_crop": True, "crop_size": 224, "resample": 3}, (224, 224, 224, "bicubic")),
    # CLIP, DINOv2, VideoMAE
    (
        {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
        (224, 224, 256, "bilinear"),
    ),
    # ConvNeXt and ResNet
    ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, (224, 224, 256, "bicubic")),
    ({"size": {"shortest_edge": 384}, "crop_pct": 1.0, "resample": 3}, (384, 384, None, "bicubic")),
    # no crop: one size for all all the same
    ({"size": {"shortest_edge": 64}, "do_center_crop": False, "crop_size": 60}, (64, 64, 64, "bilinear")),
    ({"size": {"height": 60, "width": 60}, "do_center_crop": True, "crop_size": 60}, (60, 60, None, "bilinear")),
]


@pytest.mark.parametrize(("settings", "expected"), PICTURES)
def test_sizes_are_read_in_every_published_form(settings: dict, expected: tuple) -> None:
    height, width, short, interpolation = expected
    picture, _ = preprocessing(settings | HALF, "a test")
    assert picture == Picture(height=height, width=width, short=short, interpolation=interpolation)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        (HALF, -1.0, 1.0),
        (HALF | {"rescale_factor": 1 / 127.5, "offset": True}, -3.0, 1.0),  # ViViT: to -1..1 first
        (HALF | {"do_normalize": False}, 0.0, 1.0),
        ({"image_mean": 100, "image_std": 50, "do_rescale": False}, -2.0, 3.1),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 255.0),
    ],
)
def test_colours_are_scaled_as_the_settings_say(settings: dict, low: float, high: float) -> None:
    _, colours = preprocessing({"size": 8} | settings, "a test")
    ends = torch.tensor([0, 255], dtype=torch.uint8)[None, :, None, None, None].expand(1, 2, 1, 1, 3)
    torch.testing.assert_close(colours(ends)[0, :, :, 0, 0], torch.tensor([[low] * 3, [high] * 3]))


def test_each_colour_has_its_own_numbers() -> None:
    _, colours = preprocessing({"size": 8, "image_mean": [0.1, 0.2, 0.4], "image_std": [1, 2, 4]}, "a test")
    assert colours == Colours(mean=pytest.approx((25.5, 51.0, 102.0)), deviation=pytest.approx((255, 510, 1020)))


REFUSED = [
    ({}, "'size'"),
    ({"size": {"height": 8}}, "'width'"),
    ({"size": 8, "do_center_crop": True}, "'crop_size'"),
    ({"size": 8, "resample": 0}, "resample 0 is not supported"),
    ({"size": 8, "resample": "bilinear"}, "resample 'bilinear' is not supported"),
    ({"size": 8, "do_flip_channel_order": True}, "do_flip_channel_order is not supported"),
    ({"size": 8, "do_pad": True}, "do_pad is not supported"),
    ({"size": 8, "do_resize": False}, "do_resize is false"),
    ({"size": 8, "image_mean": [0.5, 0.5]}, "invalid size, crop_size, image_mean"),
    ({"size": 8, "image_std": "wide"}, "invalid size, crop_size, image_mean"),
    ({"size": {"height": 9, "width": 9}, "do_center_crop": True, "crop_size": 8}, "before cropping is not supported"),
    ({"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": 9}, "cannot be cropped to 9 x 9"),
]


@pytest.mark.parametrize(("settings", "line"), REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line(settings: dict, line: str) -> None:
    with pytest.raises(InputError, match=line) as info:
        preprocessing(HALF | settings, "a test")
    assert "\n" not in str(info.value)


def test_colours_that_are_not_given_are_refused() -> None:
    with pytest.raises(InputError, match="'image_mean'"):
        preprocessing({"size": 8}, "a test")
