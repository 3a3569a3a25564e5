import pytest
import torch
from torch import Tensor

from keystep.nn.rope import RotaryTables, Variant, rotary_tables, rotate


def random_heads(frames: int, width: int) -> Tensor:
    """(2, 3, frames, width), laid out as the blocks do: heads inside frames."""
    return torch.randn(2, frames, 3, width, generator=torch.Generator().manual_seed(0)).transpose(1, 2)


def at(*frames: int) -> Tensor:
    return torch.tensor([frames, frames])


def by_complex_numbers(x: Tensor, positions: Tensor) -> Tensor:
    """Every pair times exp(i * position * base ** (-2j / d)), in double precision."""
    width = x.shape[-1]
    rates = torch.tensor([10000.0 ** (-2 * j / width) for j in range(width // 2)], dtype=torch.float64)
    turn = torch.exp(1j * positions.double()[:, None, :, None] * rates)
    z = torch.complex(x[..., 0::2].double(), x[..., 1::2].double()) * turn
    return torch.stack([z.real, z.imag], dim=-1).flatten(-2).float()


def by_the_letter(x: list[float], first: int, second: int) -> list[float]:
    """OFFICIAL.md 1.3 for one head of one token, number by number."""
    width = len(x)
    c1 = 2 * ((width // 2) // 2)
    c2 = 2 * ((width - c1) // 2)
    out = list(x)
    for offset, c, p in ((0, c1, first), (c1, c2, second)):
        theta = [p * 10000.0 ** (-2 * i / c) for i in range(c // 2)]
        for m in range(c):
            angle = torch.tensor(theta[m % (c // 2)], dtype=torch.float64)
            partner = -x[offset + m + 1] if m % 2 == 0 else x[offset + m - 1]
            out[offset + m] = x[offset + m] * float(angle.cos()) + partner * float(angle.sin())
    return out


@pytest.mark.parametrize("width", [8, 64, 88])
def test_relative_rotation_equals_complex_multiplication(width: int) -> None:
    positions = torch.tensor([[0, 1, 2, 77, 3600], [5, 6, 7, 8, 1_000_000]])
    x = random_heads(5, width)
    torch.testing.assert_close(
        rotate(x, rotary_tables(positions, width)), by_complex_numbers(x, positions), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("width", [8, 15, 18, 64, 88])
@pytest.mark.parametrize("by_segment", [False, True])
def test_the_tiled_variant_is_the_published_one_to_the_letter(width: int, by_segment: bool) -> None:
    frames, segments, inside = at(0, 1, 9, 200), at(0, 0, 1, 3), at(0, 1, 2, 40)
    x = random_heads(4, width)
    tables = rotary_tables(frames, width, "tiled", *((segments, inside) if by_segment else ()))
    out = rotate(x, tables)
    pairs = list(zip(*((segments, inside) if by_segment else (frames, frames)), strict=True))
    for row, (first, second) in enumerate(pairs):
        for head in range(3):
            for token in range(4):
                expected = by_the_letter(x[row, head, token].tolist(), int(first[token]), int(second[token]))
                torch.testing.assert_close(out[row, head, token], torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("width", [64, 15])
def test_scores_depend_on_distances_only(width: int) -> None:
    query, key = random_heads(6, width), random_heads(6, width).flip(0)
    positions = at(0, 1, 5, 40, 300, 511)

    def scores(shift: int) -> Tensor:
        tables = rotary_tables(positions + shift, width)
        return rotate(query, tables) @ rotate(key, tables).transpose(-1, -2) / width**0.5

    for shift in (1, 3600, 1_000_000):
        assert float((scores(0) - scores(shift)).abs().max()) < 1e-4


def test_scores_by_segment_depend_on_both_distances_only() -> None:
    query, key = random_heads(4, 32), random_heads(4, 32).flip(0)
    segments, inside = at(0, 1, 1, 3), at(4, 0, 9, 2)

    def scores(by_segments: int, by_frames: int) -> Tensor:
        tables = rotary_tables(segments, 32, "relative", segments + by_segments, inside + by_frames)
        return rotate(query, tables) @ rotate(key, tables).transpose(-1, -2)

    torch.testing.assert_close(scores(0, 0), scores(1000, 7), atol=1e-4, rtol=0)
    assert float((scores(0, 0)[0] - rotated_scores_without_segments(query, key, inside)[0]).abs().max()) > 1e-2


def rotated_scores_without_segments(query: Tensor, key: Tensor, frames: Tensor) -> Tensor:
    tables = rotary_tables(frames, 32)
    return rotate(query, tables) @ rotate(key, tables).transpose(-1, -2)


@pytest.mark.parametrize("width", [8, 15, 64])
def test_lengths_are_kept(width: int) -> None:
    x = random_heads(3, width)
    out = rotate(x, rotary_tables(at(1, 1000, 1_000_000), width))
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=1e-6)


def test_position_zero_turns_nothing() -> None:
    for variant in ("relative", "tiled"):
        x = random_heads(1, 18)
        assert torch.equal(rotate(x, rotary_tables(at(0), 18, variant)), x)  # type: ignore[arg-type]


def test_low_precision_inputs_keep_neighbouring_positions_apart() -> None:
    x = torch.ones(2, 1, 2, 64, dtype=torch.bfloat16)  # bfloat16 cannot tell 3600 from 3601
    out = rotate(x, rotary_tables(at(3600, 3601), 64))
    assert out.dtype == torch.bfloat16
    assert float((out[:, :, 0] - out[:, :, 1]).abs().max()) > 0.5
    torch.testing.assert_close(out.float(), by_complex_numbers(x.float(), at(3600, 3601)), atol=8e-3, rtol=0)


@pytest.mark.parametrize("variant", ["relative", "tiled"])
@pytest.mark.parametrize("width", [8, 15])
def test_gradients_are_the_derivatives(variant: Variant, width: int) -> None:
    x = random_heads(3, width).double().requires_grad_()
    tables = rotary_tables(at(0, 3, 50), width, variant)
    assert torch.autograd.gradcheck(lambda y: rotate(y, tables), x)


def test_tables_of_some_tokens_are_those_of_all_tokens_at_their_places() -> None:
    every, some = (
        rotary_tables(positions, 16, "tiled") for positions in (torch.arange(9)[None], torch.tensor([[2, 7]]))
    )
    assert every.mirror is not None and some.mirror is not None
    picked = RotaryTables(every.turn[:, :, [2, 7]], every.mirror[:, :, [2, 7]])
    for found, wanted in ((some.turn, picked.turn), (some.mirror, picked.mirror)):
        assert found is not None
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)  # cosines of two shapes: kernels may differ
