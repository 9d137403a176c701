"""Learners on pictures: a small convolutional network, a published backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import nn

from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.nn.building import build
from elsewhere.nn.learners import NetworkLearner
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class Cnn(NetworkLearner):
    """A small convolutional network: four 3×3 convolutions and a linear head on the mean over the picture.

    The defaults are made for a laptop; ``width=64, stride=1`` is DomainBed's network for digits.

    Args:
        width: channels of the first convolution; the others have twice as many.
        stride: of the first convolution; 2 costs a quarter.

    Examples:
        >>> import numpy as np
        >>> data = Examples(np.zeros((4, 1, 28, 28), np.float32), np.arange(4) % 2, classes=("even", "odd"))
        >>> Cnn(steps=2).fit(Source(data)).represent(data).shape
        (4, 32)
    """

    width: int = 16
    stride: int = 2
    steps: int = 800
    learning_rate: float = 5e-3

    def network(self, data: Examples) -> nn.Module:
        made: nn.Module = build("small-cnn", like=data, width=self.width, stride=self.stride)
        return made


@dataclass
class FineTune(NetworkLearner):
    """A published backbone with a new head, trained whole or the head alone (spec 01, 2.2).

    Args:
        backbone: "torchvision:NAME" or "timm:NAME" (or any network of the catalogue).
        weights: a safetensors file, "default" for the hub's, None: random.
        side: pictures are resized to it.
        part: what is trained: "all", or "head" with the backbone frozen.
        train_mode: with ``part="head"``, leave the backbone in training mode, as the assay's reference does: its batch statistics move.

    Examples:
        >>> import numpy as np
        >>> data = Examples(np.zeros((4, 1, 32, 32), np.float32), np.arange(4) % 2, classes=("even", "odd"))
        >>> FineTune(backbone="vit", part="head", steps=1).fit(Source(data)).predict(data).classes().shape
        (4,)
    """

    backbone: str = "torchvision:resnet18"
    weights: str | None = None
    side: int | None = None
    part: Literal["all", "head"] = "all"
    train_mode: bool = False
    steps: int = 500
    learning_rate: float = 5e-4

    def network(self, data: Examples) -> nn.Module:
        options: dict[str, Any] = {k: v for k, v in (("weights", self.weights), ("side", self.side)) if v is not None}
        made: nn.Module = build(self.backbone, like=data, **options)
        if self.part == "head":
            for p in made.body.parameters():
                p.requires_grad_(False)
        return made

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        if self.train_mode and self.part == "all":
            raise UserError("train_mode is for part='head': a network trained whole is in training mode anyway")
        return super().fit(source, run)

    def loss(self, network: Any, batch: Any) -> Any:
        if self.part == "head" and not self.train_mode:
            network.body.eval()
        return super().loss(network, batch)
