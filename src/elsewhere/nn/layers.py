"""What a network computes on the way, by the name of a layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from elsewhere.errors import UserError, did_you_mean


def layer_output(network: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Return the output of a named layer, averaged over positions: [n, d].

    Args:
        network: any module.
        layer: as ``network.named_modules()`` calls it: ``"body.layers.3"``, ``"body.network.layer3"``.
        x: inputs [n, ...].

    Raises:
        UserError: no such layer, or it is not reached.

    Examples:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        >>> layer_output(net, "1", torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4])
    """
    known = dict(network.named_modules())
    if layer not in known or not layer:
        raise UserError(f"no layer {layer!r}{did_you_mean(layer, [k for k in known if k])}")
    seen: list[Any] = []
    handle = known[layer].register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        network(x)
    finally:
        handle.remove()
    if not seen:
        raise UserError(f"layer {layer!r} is not reached when the network runs")
    return pooled(seen[-1])


class UpTo(nn.Module):
    """A network up to a named layer, as a module of its own."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, x: Tensor) -> Tensor:
        return layer_output(self.network, self.layer, x)


def pooled(output: Any) -> Tensor:
    """Return [n, d] of a layer's output: pictures [n, d, h, w] and tokens [n, t, d] are averaged over positions."""
    value: Tensor = output.features if hasattr(output, "features") else output[0] if isinstance(output, (tuple, list)) else output
    if value.ndim == 4:
        return value.mean((2, 3))
    return value.mean(1) if value.ndim == 3 else value.flatten(1)
