"""Published backbones by name, from torchvision and timm; weights from a local file or from their hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.nn.cnn import picture

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEADS = ("fc", "classifier", "heads", "head")


def weights_file(weights: str | None) -> dict[str, str]:
    """Return ``{"weights": path}`` where a learner's field ``weights`` names a file or a folder."""
    return {} if weights in (None, "default") else {"weights": str(weights)}


class Backbone(nn.Module):
    """A published network without its head: pictures [n, 1 or 3, h, w] in 0..1 -> features [n, width].

    Grey pictures are repeated in three channels, resized to ``side`` (bilinear) if given, and standardised with the
    mean and deviation that the weights were trained with.
    """

    def __init__(self, network: nn.Module, width: int, side: int | None, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.network, self.width, self.side = network, width, side
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.side is not None and x.shape[-2:] != (self.side, self.side):
            x = interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        out: Tensor = self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.deviation)
        return out.flatten(1)


def torchvision(name: str, shape: Sequence[int], side: int | None = None, weights: str | None = None) -> Backbone:
    """Build a torchvision backbone.

    Args:
        name: as ``torchvision.models.list_models()`` has it.
        shape: of one picture, 1 or 3 channels.
        side: pictures are resized to it; default: as they are, or what the network is made for.
        weights: a safetensors file of a state dict (the head's entries are left out); "default": torchvision's own,
            downloaded or from its cache; None: random.
    """
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise UserError(f"torchvision has no model {name!r}{did_you_mean(name, known)}")
    _channels(shape)
    try:
        network = models.get_model(name, weights="DEFAULT" if weights == "default" else None)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the weights of torchvision's {name} cannot be fetched: {one_line(error, 120)}; give weights=path.safetensors") from error
    width = _cut(network, name)
    if weights not in (None, "default"):
        load_weights(network, str(weights), name)
    return Backbone(network, width, side or getattr(network, "image_size", None), IMAGENET_MEAN, IMAGENET_DEVIATION)


def timm(name: str, shape: Sequence[int], side: int | None = None, weights: str | None = None) -> Backbone:
    """Build a timm backbone; arguments as for ``torchvision``, "default": the hub's weights, downloaded or from its cache."""
    try:
        import timm as library
    except ImportError as error:
        raise UserError("timm is not installed: pip install 'elsewhere[vision]'") from error
    if not library.is_model(name):
        raise UserError(f"timm has no model {name!r}{did_you_mean(name, library.list_models())}")
    _channels(shape)
    fixed = library.get_pretrained_cfg(name)
    size = side if side is not None else fixed.input_size[-1] if fixed is not None and fixed.fixed_input_size else None
    told: dict[str, Any] = {"img_size": size} if fixed is not None and fixed.fixed_input_size else {}
    try:
        network = library.create_model(name, pretrained=weights == "default", num_classes=0, **told)
    except (OSError, RuntimeError) as error:
        raise UserError(f"the weights of timm's {name} cannot be fetched: {one_line(error, 120)}; give weights=path.safetensors") from error
    if weights not in (None, "default"):
        load_weights(network, str(weights), name)
    mean, deviation = network.pretrained_cfg.get("mean", IMAGENET_MEAN), network.pretrained_cfg.get("std", IMAGENET_DEVIATION)
    return Backbone(network, int(network.num_features if not hasattr(network, "head_hidden_size") else network.head_hidden_size), size, mean, deviation)


def load_weights(network: nn.Module, path: str | os.PathLike[str], name: str) -> None:
    """Fill a network from a safetensors file (or a hub's folder that holds ``model.safetensors``).

    Entries of a head, wrappers' prefixes (``module.``, ``model.``) and counters are passed over; every weight of the network
    must be there with its shape.
    """
    place = Path(path)
    place = place / "model.safetensors" if place.is_dir() else place
    if place.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise UserError(f"{place} is a pickle, which is not read; convert it: safetensors.torch.save_file(torch.load('{place.name}', weights_only=True), 'weights.safetensors')")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given = load_file(place)
    except FileNotFoundError as error:
        raise UserError(f"there are no weights at {place}") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{place} is no safetensors file: {one_line(error, 80)}") from error
    wanted = network.state_dict()
    found = _matched(given, wanted)
    needed = [k for k in wanted if not k.endswith("num_batches_tracked")]
    if missing := [k for k in needed if k not in found]:
        raise UserError(f"{place} does not fit {name}: {len(missing)} of {len(needed)} weights are missing or have another shape, first {missing[0]}")
    network.load_state_dict(found, strict=False)


def _matched(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ("", "module.", "model.", "backbone.", "body.network."):
        found = {k: given[prefix + k] for k in wanted if prefix + k in given and given[prefix + k].shape == wanted[k].shape}
        if found:
            return found
    return {}


def _cut(network: nn.Module, name: str) -> int:
    """Take the last linear layer out of a torchvision network and return the width of what is left."""
    for head in _HEADS:
        part = getattr(network, head, None)
        if isinstance(part, nn.Linear):
            setattr(network, head, nn.Identity())
            return part.in_features
        if isinstance(part, nn.Sequential):
            last = [(k, m) for k, m in part.named_children() if isinstance(m, nn.Linear)]
            if last:
                part._modules[last[-1][0]] = nn.Identity()
                return last[-1][1].in_features
    raise UserError(f"torchvision's {name} has no linear head to replace: it is no classifier of pictures")


def _channels(shape: Sequence[int]) -> None:
    if picture(shape)[0] not in (1, 3):
        raise UserError(f"a backbone needs pictures with 1 or 3 channels, not {shape[0]}")
