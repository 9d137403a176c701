"""A network that is told where an example comes from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from elsewhere.nn.building import build, width_of


class Conditioned(nn.Module):
    """e = E(x, z): a = ReLU(Lin(x)), c = ReLU(Lin(ReLU(Lin(z)))), three layers of ReLU on [a, c], one linear layer (Xu et al. 2022).

    The place z of the domain stands in the last ``embedding`` columns of vectors, or channels of pictures. Any network of the
    catalogue may read x first.

    Args:
        shape: of one input with z.
        embedding: numbers of z.
        width: of e; the joined layers are twice as wide.
        inner: the network that reads x; "none": one linear layer.
    """

    def __init__(self, shape: Sequence[int], embedding: int = 2, width: int = 64, inner: str = "none") -> None:
        super().__init__()
        self.embedding, self.width = embedding, width
        own = [int(shape[0]) - embedding, *(int(s) for s in shape[1:])]
        self.inner: nn.Module = nn.Flatten() if inner == "none" else build(inner, shape=own, head=False)
        read = torch.Size(own).numel() if inner == "none" else width_of(self.inner)
        self.first = nn.Linear(read, width)
        self.place = nn.Sequential(nn.Linear(embedding, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        joined = [layer for _ in range(3) for layer in (nn.Linear(2 * width, 2 * width), nn.ReLU())]
        self.joined = nn.Sequential(*joined, nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        own, z = x[:, : -self.embedding], x[:, -self.embedding :]
        z = z.flatten(2)[:, :, 0] if z.ndim > 2 else z
        out: Tensor = self.joined(torch.cat([relu(self.first(self.inner(own))), self.place(z)], 1))
        return out


def conditioned(shape: Sequence[int], embedding: int = 2, width: int = 64, inner: str = "none") -> Conditioned:
    """Build the body of a network that is told the domain."""
    return Conditioned(shape, embedding, width, inner)
