"""The context encoder, which maps visible frames to latents."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from keystep.batch import SequenceBatch
from keystep.config import ModelConfig
from keystep.config.attention import AttentionPattern
from keystep.nn.bands import NAMES, HeldBands, Steady, attention_scope
from keystep.nn.blocks import CHUNK, Trunk
from keystep.nn.centring import centre, running_centre
from keystep.nn.context import SequenceContext, Whole
from keystep.nn.norm import ChannelNorm
from keystep.nn.places import Packing, lay_out
from keystep.nn.pooling import AttentivePooler, split_tokens


class Encoder(Trunk):
    """Normalise features, project them to D, pool the tokens of a slot, and run the blocks on the visible frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.depth, config.heads)
        self.centring, self.token_width = config.centring, config.token_width
        norm = nn.LayerNorm if config.input_norm == "layer" else ChannelNorm
        self.proj = nn.Sequential(norm(self.token_width), nn.Linear(self.token_width, config.dim))
        self.pooler: AttentivePooler | None = None
        if config.slot_tokens > 1:
            self.pooler = AttentivePooler(
                config.dim, config.slot_tokens, config.heads, config.pooler_depth, config.mlp_ratio
            )
        self.readout: nn.Module = nn.Identity()
        if config.readout_dim is not None:
            width = config.readout_dim
            self.readout = nn.Sequential(nn.Linear(config.dim, width), nn.GELU(), nn.LayerNorm(width))
        self.held = HeldBands(config) if config.held else None
        self.steady = Steady(config.tau) if config.tau is not None and "steady" in config.bands else None
        self.average = config.averaged_blocks
        self.around = nn.ModuleDict()
        """Attention scope -> projection of the band ``around`` to the width of the blocks."""
        if self.held is not None and config.input_around and "around" in config.bands:
            for pattern in filter(None, (config.attention, config.live_attention)):
                self.around[attention_scope(pattern)] = nn.Linear(
                    config.widths(pattern)["around"], config.dim, bias=False
                )

    def latents(self, batch: SequenceBatch, pattern: AttentionPattern) -> Tensor:
        """All bands of the latents of the valid frames, (B, T, D); exact zeros elsewhere."""
        held = self.held_bands(batch, pattern)
        learned = self.readout(self(batch, batch.valid, pattern, self.average, held))
        bands = self._concatenate(held, learned, Whole(lay_out(batch.valid, None, batch.starts)), pattern)
        return bands if bool(batch.valid.all()) else bands * batch.valid[..., None]

    def _concatenate(
        self, held: Mapping[str, Tensor], learned: Tensor, context: SequenceContext, pattern: AttentionPattern
    ) -> Tensor:
        steady = [] if self.steady is None else [self.steady(learned, context, pattern)]
        return torch.cat([*held.values(), *steady, learned], dim=2)

    @torch.no_grad()
    def held_bands(
        self,
        batch: SequenceBatch,
        pattern: AttentionPattern,
        visible: Tensor | None = None,
        names: Collection[str] = NAMES,
    ) -> dict[str, Tensor]:
        """Held bands at all frames, (B, T, width) each.

        Args:
            batch: the features.
            pattern: attention of the encoder.
            visible: (B, T) bool, the frames that they are computed from; None: all.
            names: the bands to compute.
        """
        if self.held is None:
            return {}
        context = Whole(lay_out(batch.valid, batch.segment_lengths, batch.starts))
        held: dict[str, Tensor] = self.held(batch.features, context, pattern, visible, names)
        return held

    def read(self, features: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """All bands of the latents of a context's frames: (B, N, D_in) -> (B, N, D)."""
        held = {} if self.held is None else self.held(features, context, pattern)
        learned = self.readout(self.run(features, context, pattern, self.average, held.get("around")))
        return self._concatenate(held, learned, context, pattern)

    def forward(
        self,
        batch: SequenceBatch,
        visible: Tensor,
        pattern: AttentionPattern,
        average: int = 1,
        held: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Block outputs at the visible frames, (B, T, dim); exact zeros elsewhere.

        Hidden frames are not computed: the visible ones are packed, keeping their positions.

        Args:
            batch: the features.
            visible: (B, T) bool; invalid frames are always excluded.
            pattern: attention of the blocks.
            average: average the outputs of this number of last blocks.
            held: `held_bands` of these visible frames, if already computed.
        """
        if held is None:
            held = self.held_bands(batch, pattern, visible, ["around"]) if self.around else {}
        packing = Packing(visible & batch.valid)
        context = Whole(packing.places(lay_out(batch.valid, batch.segment_lengths, batch.starts)))
        around = packing.pack(held["around"]) if self.around else None
        return packing.unpack(self.run(packing.pack(batch.features), context, pattern, average, around))

    def run(
        self,
        features: Tensor,
        context: SequenceContext,
        pattern: AttentionPattern,
        average: int = 1,
        around: Tensor | None = None,
    ) -> Tensor:
        """Block outputs of a context's frames: (B, N, D_in) -> (B, N, dim).

        around: (B, N, width) the band of that name, for encoders that use it.
        """
        x = self.project(features)
        if self.centring:
            x = self._centre(x, context, pattern)
        x = self.shift(x)
        if self.around:
            assert around is not None
            x = x + self.around[attention_scope(pattern)](around)
        return self.run_blocks(x, context, pattern, average)

    def _centre(self, x: Tensor, context: SequenceContext, pattern: AttentionPattern) -> Tensor:
        """Subtract the video's mean; the running mean unless attention is bidirectional."""
        if pattern.kind == "bidirectional":
            return centre(x, context.places.valid)
        real = context.clean(x)
        return context.state(
            "total",
            lambda: torch.zeros(len(x), x.shape[2], dtype=torch.float64, device=x.device),
            lambda total: running_centre(real, total, context.before),
        )

    def project(self, features: Tensor) -> Tensor:
        """Normalise, project and pool (B, N, D_in) to (B, N, D), without the bias.

        Centring follows the projection, which is equivalent by linearity and cheaper, because D is usually smaller than
        D_in. If a slot has several tokens, the pooled result is centred, because pooling weights may depend on the
        video.
        """
        if self.pooler is None:
            return self._project_tokens(features)
        if torch.is_grad_enabled() or features.device.type != "cpu":
            return self._pool(features)
        slots = max(1, CHUNK * self.token_width // features.shape[-1])
        parts = [self._pool(part) for part in torch.split(features, slots, dim=1)]
        return torch.cat(parts, dim=1)

    def _project_tokens(self, features: Tensor) -> Tensor:
        norm, linear = self.proj
        assert isinstance(linear, nn.Linear)
        return nn.functional.linear(norm(features), linear.weight)

    def _pool(self, features: Tensor) -> Tensor:
        assert self.pooler is not None
        out: Tensor = self.pooler(self._project_tokens(split_tokens(features, self.token_width)))
        return out

    def shift(self, x: Tensor) -> Tensor:
        """Add the bias of the projection, which `project` omits."""
        linear = self.proj[1]
        assert isinstance(linear, nn.Linear)
        return x + linear.bias
