"""A small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from elsewhere.errors import UserError
from elsewhere.nn.cnn import picture


class VisionTransformer(nn.Module):
    """Patches as tokens, learnt positions, pre-norm blocks, the mean token: [n, channels, height, width] -> [n, width].

    Dosovitskiy et al. 2021, with mean pooling instead of a class token (Beyer et al. 2022).
    """

    def __init__(self, shape: Sequence[int], patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        channels, height, wide = picture(shape)
        if height % patch or wide % patch:
            raise UserError(f"a patch of {patch} does not divide pictures of {height} × {wide}")
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (wide // patch), width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.width = nn.LayerNorm(width), width

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.norm(self.blocks(tokens)).mean(1)
        return out


def vit(shape: Sequence[int], patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4) -> VisionTransformer:
    """Build the body of a small vision transformer."""
    return VisionTransformer(shape, patch, width, depth, heads)
