"""A network that is written once gives the same numbers over whole videos, on streams and in steps of fixed size."""

import pytest
import torch
from torch import Tensor, nn

from keystep.config.attention import AttentionPattern
from keystep.export.buffers import FixedBuffers, Rotations, WholeGraph
from keystep.nn.context import Cached, Memory, SequenceContext, Whole
from keystep.nn.places import Places

WIDTH = 8


class Recurrent(nn.Module):
    """All that a context offers: attention, neighbours, and a gated memory that is updated frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.mix = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.initial = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor, context: SequenceContext) -> Tensor:
        """(B, n, D) -> (B, n, D)"""

        def update(memory: Tensor) -> tuple[Tensor, Tensor]:
            seen = []
            for frame in range(x.shape[1]):
                gate = self.gate(torch.cat([memory, x[:, frame]], dim=-1)).sigmoid()
                after = gate * memory + (1 - gate) * x[:, frame]
                valid = context.places.valid
                memory = after if valid is None else torch.where(valid[:, frame, None], after, memory)
                seen.append(memory)
            return torch.stack(seen, dim=1), memory

        recurrent = context.state("memory", lambda: self.initial.expand(len(x), WIDTH), update)
        past = context.around("past", context.clean(x), 3, 0)[:, : x.shape[1]]
        heads = x.unflatten(-1, (2, WIDTH // 2)).transpose(1, 2)
        turned = context.rotary(WIDTH // 2)(heads)
        near = context.attend("near", turned, turned, heads, AttentionPattern(kind="causal", window=5))
        far = context.attend("far", turned, turned, heads, AttentionPattern(kind="causal", window=20), stride=3)
        attended = (near + far).transpose(1, 2).flatten(2)
        return self.mix(torch.cat([recurrent, past, attended], dim=-1))  # type: ignore[no-any-return]


@pytest.fixture
def network() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent().requires_grad_(False)


def offline(network: Recurrent, x: Tensor) -> Tensor:
    return network(x, Whole(Places(torch.arange(x.shape[1]).expand(x.shape[:2]))))


@pytest.mark.parametrize("size", [1, 4, 40])
def test_any_named_state_is_carried_by_streams_and_steps(network: Recurrent, size: int) -> None:
    x = torch.randn(2, 40, WIDTH)
    expected = offline(network, x)
    memory, frame, state = Memory(), torch.zeros(2, dtype=torch.int64), None
    streamed, stepped, rotations = [], [], Rotations()
    for start in range(0, 40, size):
        piece = x[:, start : start + size]
        context = Cached(memory, (start, start), (size, size), size, x.device)
        streamed.append(network(piece, context))
        memory = context.remembered
        buffers = FixedBuffers(frame, size, rotations, state)
        stepped.append(network(piece, buffers))
        state, frame = buffers.after, frame + size
    torch.testing.assert_close(torch.cat(streamed, 1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(stepped, 1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(x[:1], WholeGraph(40, rotations)), expected[:1], atol=1e-5, rtol=0)


def test_a_stream_that_begins_anew_begins_with_the_initial_state(network: Recurrent) -> None:
    x, rotations = torch.randn(2, 24, WIDTH), Rotations()
    first = Cached(Memory(), (0, 0), (12, 12), 12, x.device)
    network(x[:, :12], first)
    second = Cached(first.remembered.without([1]), (12, 0), (12, 12), 12, x.device)
    streamed = network(x[:, 12:], second)
    buffers = FixedBuffers(torch.zeros(2, dtype=torch.int64), 12, rotations)
    network(x[:, :12], buffers)
    stepped = network(x[:, 12:], FixedBuffers(torch.tensor([12, 0]), 12, rotations, buffers.after))
    for found in (streamed, stepped):
        torch.testing.assert_close(found[0], offline(network, x)[0, 12:], atol=1e-5, rtol=0)
        torch.testing.assert_close(found[1], offline(network, x[1:, 12:])[0], atol=1e-5, rtol=0)


def test_streams_that_take_different_numbers_of_frames_keep_their_own_past(network: Recurrent) -> None:
    x = torch.randn(2, 30, WIDTH)
    memory, frames, got = Memory(), [0, 0], [[], []]
    for counts in ((5, 2), (0, 7), (7, 7), (1, 3)):
        piece = torch.stack(
            [nn.functional.pad(x[r, frames[r] : frames[r] + n], (0, 0, 0, 7 - n)) for r, n in enumerate(counts)]
        )
        context = Cached(memory, frames, counts, 7, x.device)
        out = network(piece, context)
        memory = context.remembered
        for row, count in enumerate(counts):
            got[row].append(out[row, :count])
            frames[row] += count
    for row in range(2):
        found = torch.cat(got[row])
        torch.testing.assert_close(found, offline(network, x[row : row + 1])[0, : len(found)], atol=1e-5, rtol=0)
