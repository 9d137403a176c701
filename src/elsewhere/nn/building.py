"""Networks by name with JSON arguments: what a saved model keeps beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from elsewhere import catalogue
from elsewhere.data import Examples
from elsewhere.errors import UserError, did_you_mean, one_line


class Outputs(NamedTuple):
    """What a classifier gives: logits [n, classes] and the features [n, width] that its head sees."""

    logits: Tensor
    features: Tensor


class Values(NamedTuple):
    """What a regressor gives: means [n], or [n, values], and the features [n, width] that its head sees."""

    mean: Tensor
    features: Tensor


def head_of(width: int, outputs: int, hidden: int = 0) -> nn.Module:
    """Return a linear head, or one with ``hidden`` layers of ReLU before it, as wide as the features."""
    layers = [part for _ in range(hidden) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, outputs)) if hidden else nn.Linear(width, outputs)


class Classifier(nn.Module):
    """A body and a head, linear if nothing is said: ``Outputs`` of inputs [n, ...]."""

    def __init__(self, body: nn.Module, classes: int, hidden: int = 0) -> None:
        super().__init__()
        self.body, self.head = body, head_of(width_of(body), classes, hidden)

    def forward(self, x: Tensor) -> Outputs:
        features = self.body(x)
        return Outputs(self.head(features), features)


class Regressor(nn.Module):
    """A body and a head, linear if nothing is said: ``Values`` of inputs [n, ...]."""

    def __init__(self, body: nn.Module, values: int | None = None, hidden: int = 0) -> None:
        super().__init__()
        self.body, self.head, self.values = body, head_of(width_of(body), values or 1, hidden), values

    def forward(self, x: Tensor) -> Values:
        features = self.body(x)
        mean = self.head(features)
        return Values(mean if self.values else mean[:, 0], features)


def classifier(body: nn.Module, classes: int) -> Classifier:
    """Put a linear head for so many classes on a body, which says its ``width``."""
    return Classifier(body, classes)


def regressor(body: nn.Module, values: int | None = None) -> Regressor:
    """Put a linear head for one number (or so many ``values``) on a body, which says its ``width``."""
    return Regressor(body, values)


def width_of(body: nn.Module) -> int:
    """Return how many features a body gives."""
    width = getattr(body, "width", None)
    if not isinstance(width, int):
        raise UserError(f"{type(body).__name__} does not say its width: set body.width to the number of features it gives")
    return width


def build(
    name: str, like: Examples | None = None, *, shape: Sequence[int] | None = None, classes: int | None = None, values: int | None = None, head: bool = True, hidden: int = 0, **options: Any
) -> Any:
    """Make a network by name: ``mlp``, ``small-cnn``, ``encoder``, ``decoder``, ``vit``, ``torchvision:NAME`` or ``timm:NAME``.

    Args:
        name: in the catalogue, or a family of backbones and the name it has there.
        like: examples to read ``shape`` and ``classes`` from.
        shape: of one input, [d] or [channels, height, width].
        classes: number of classes; None: one number (regression).
        values: so many numbers an example instead of one.
        head: False gives the body alone, features [n, width].
        hidden: layers of the head before its last.
        options: of the builder; JSON values.

    Raises:
        UserError: no such network, or an option it does not take.

    Examples:
        >>> import torch
        >>> network = build("small-cnn", shape=[1, 28, 28], classes=10, width=8)
        >>> network(torch.zeros(2, 1, 28, 28)).logits.shape
        torch.Size([2, 10])
        >>> network.built["name"]
        'small-cnn'
    """
    if like is not None:
        shape = shape or [int(s) for s in like.inputs.shape[1:]]
        classes = classes if classes is not None or like.classes is None else len(like.classes)
        if classes is None and like.labels is not None and np.ndim(like.labels) == 2:
            values = values or int(like.labels.shape[1])
    if shape is None:
        raise UserError(f"network {name!r} needs the shape of an input")
    body = _body(name, [int(s) for s in shape], options)
    network: nn.Module = body if not head else Regressor(body, values, hidden) if classes is None else Classifier(body, classes, hidden)
    kept = {k: v for k, v in options.items() if k != "weights"}  # saved weights take the place of those it began with
    network.built = {"name": name, "shape": [int(s) for s in shape], "classes": classes, "head": head, **({"values": values} if values else {}), **({"hidden": hidden} if hidden else {}), **kept}
    return network


def _body(name: str, shape: list[int], options: dict[str, Any]) -> nn.Module:
    family, _, inner = name.partition(":")
    known = catalogue.entries("networks")
    if family not in known or bool(inner) != (family in ("torchvision", "timm")):
        raise UserError(f"no network {name!r}{did_you_mean(name, [k if k not in ('torchvision', 'timm') else f'{k}:NAME' for k in known])}")
    make = catalogue.get("networks", family)
    try:
        body: nn.Module = make(inner, shape, **options) if inner else make(shape, **options)
    except TypeError as error:
        raise UserError(f"network {name!r}: {one_line(error)}") from error
    return body
