"""Learners on pictures: a small convolutional network, a published backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from torch import nn

from elsewhere.closed import OneOf
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.nn.augmentation import Augment, augmented
from elsewhere.nn.backbones import weights_file
from elsewhere.nn.building import build
from elsewhere.nn.learners import NetworkLearner
from elsewhere.run import Run
from elsewhere.task import Source

Network = Annotated[str, OneOf("auto", catalogue="networks")]


@dataclass
class Cnn(NetworkLearner):
    """A small convolutional network.

    The defaults are made for a laptop; ``width=64, stride=1`` is DomainBed's network for digits.

    Args:
        architecture: "small-cnn": four 3×3 convolutions and the mean over the picture, which forgets where things are; "encoder":
            strided convolutions and a layer that sees every place (the CNN of spec 14); any other network of the catalogue. "auto" takes
            the first for classes, the second for numbers.
        width: of small-cnn: channels of the first convolution, the others have twice as many.
        stride: of small-cnn's first convolution; 2 costs a quarter.
        augment: what is done to training pictures: "none", "flip", "crop" (with flip), "colour", "randaugment" or "augmix" (with crop and flip).

    Examples:
        >>> import numpy as np
        >>> data = Examples(np.zeros((4, 1, 28, 28), np.float32), np.arange(4) % 2, classes=("even", "odd"))
        >>> Cnn(steps=2).fit(Source(data)).represent(data).shape
        (4, 32)
    """

    architecture: Network = "auto"
    width: int = 16
    stride: int = 2
    augment: Augment = "none"
    steps: int = 800
    learning_rate: float = 5e-3

    def network(self, data: Examples) -> nn.Module:
        name = self.architecture if self.architecture != "auto" else "encoder" if data.classes is None else "small-cnn"
        options: dict[str, Any] = {"width": self.width, "stride": self.stride} if name == "small-cnn" else {}
        made: nn.Module = build(name, like=data, **options)
        return made

    def training_loss(self, network: Any, batch: Any) -> Any:
        return super().training_loss(network, batch._replace(inputs=augmented(batch.inputs, self.augment)))


@dataclass
class CoordConv(Cnn):
    """The strided convolutional network with two more channels, the coordinates (Liu et al. 2018)."""

    architecture: Network = "coordconv"
    learning_rate: float = 5e-4


@dataclass
class CoordinateMlp(Cnn):
    """A perceptron on each pixel's value and place, averaged over the picture (spec 14, 2.4)."""

    architecture: Network = "coordinate-mlp"
    learning_rate: float = 5e-4


@dataclass
class RotationEquivariant(Cnn):
    """A convolutional network whose features are the same for a picture and its quarter turns (Cohen & Welling 2016)."""

    architecture: Network = "rotation-equivariant"
    learning_rate: float = 5e-4


@dataclass
class SpatialTransformer(Cnn):
    """A network that first says an affine map and samples the picture on it (Jaderberg et al. 2015)."""

    architecture: Network = "spatial-transformer"
    learning_rate: float = 5e-4


@dataclass
class FineTune(NetworkLearner):
    """A published backbone with a new head, trained whole or the head alone (spec 01, 2.2).

    Args:
        backbone: "torchvision:NAME" or "timm:NAME" (or any network of the catalogue).
        weights: a safetensors file, "default" for the hub's, None: random.
        side: pictures are resized to it.
        part: what is trained: "all", or "head" with the backbone frozen.
        augment: as for ``Cnn``.
        train_mode: with ``part="head"``, leave the backbone in training mode, as the assay's reference does: its batch statistics move.

    Examples:
        >>> import numpy as np
        >>> data = Examples(np.zeros((4, 1, 32, 32), np.float32), np.arange(4) % 2, classes=("even", "odd"))
        >>> FineTune(backbone="vit", part="head", steps=1).fit(Source(data)).predict(data).classes().shape
        (4,)
    """

    backbone: Network = "torchvision:resnet18"
    weights: str | None = None
    side: int | None = None
    part: Literal["all", "head"] = "all"
    train_mode: bool = False
    augment: Augment = "none"
    steps: int = 500
    learning_rate: float = 5e-4

    @property
    def files(self) -> Mapping[str, str]:
        return weights_file(self.weights)

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

    def training_loss(self, network: Any, batch: Any) -> Any:
        if self.part == "head" and not self.train_mode:
            network.body.eval()
        return super().training_loss(network, batch._replace(inputs=augmented(batch.inputs, self.augment)))
