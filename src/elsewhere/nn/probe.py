"""A linear head on frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.batching import in_batches
from elsewhere.closed import OneOf
from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.identity import content_key
from elsewhere.nn.backbones import weights_file
from elsewhere.nn.building import build
from elsewhere.nn.layers import UpTo
from elsewhere.nn.learners import NetworkLearner, first_of
from elsewhere.run import Run
from elsewhere.task import Source

_STATE_KEYS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # frozen networks, hashed once


def _state_key(network: nn.Module) -> str:
    if network not in _STATE_KEYS:
        _STATE_KEYS[network] = content_key(dict(network.state_dict()))
    return _STATE_KEYS[network]


def halved(features: Array) -> Array:
    """Return features as float16, which keeps three digits in half the space; as they are where a value is too large for it.

    Examples:
        >>> halved(np.ones(2, np.float32)).dtype, halved(np.array([1e6], np.float32)).dtype
        (dtype('float16'), dtype('float32'))
    """
    fits = not len(features) or float(np.abs(features).max()) < float(np.finfo(np.float16).max)
    return features.astype(np.float16) if fits else features


@dataclass
class LinearProbe(NetworkLearner):
    """A linear head on features that are not trained (spec 01, 2.2: "new linear head only"), computed once per backbone and domain.

    Features are centred and scaled by the source; the head is trained as in ``mlp``. The backbone is in evaluation mode.

    Args:
        backbone: "inputs" (as they are, a table encoded), or a network by name: "random-conv", "torchvision:NAME", "timm:NAME".
        weights: of a backbone: a safetensors file, or "default" for its hub's.
        side: pictures are resized to it for a backbone.
        layer: of a backbone, by name, instead of its last features.
        components: so many principal components of the features, of the source.

    Examples:
        >>> x = Examples(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2, classes=("a", "b"))
        >>> LinearProbe(steps=5).fit(Source(x)).represent(x).shape
        (40, 3)
    """

    revision: ClassVar[int] = 2  # features are kept as float16

    backbone: Annotated[str, OneOf("inputs", catalogue="networks")] = "inputs"
    weights: str | None = None
    side: int | None = None
    layer: str | None = None
    components: int | None = None
    steps: int = 500
    learning_rate: float = 1e-2

    @property
    def files(self) -> Mapping[str, str]:
        return weights_file(self.weights)

    @property
    def preparation(self) -> tuple[Any, ...]:
        return (self.samples, self.backbone, self.weights, self.side, self.layer, self.components)

    def network(self, data: Examples) -> nn.Module:
        made: nn.Module = build("mlp", like=data, depth=0)
        return made

    def prepared(self, source: Source[Examples], run: Run) -> tuple[Examples, Examples | None]:
        self.backbone_ = None if self.backbone == "inputs" else self._backbone(source.train.inputs)
        self.directions_: Array | None = None
        return super().prepared(source, run)

    def scales(self, x: Any) -> tuple[Any, float]:
        if self.components is not None:
            self._components(x)
        return super().scales(self._projected(x))

    def inputs(self, inputs: Any, run: Run) -> Any:
        raw = self.raw(inputs, run)
        wanted = len(self.center_) if self.directions_ is None else len(self.directions_)
        if raw.shape[1] != wanted:
            raise UserError(f"inputs give {raw.shape[1]} features; this model was fitted on {wanted}")
        x = self._projected(raw)
        return ((x - self.center_) / self.spread_).astype(np.float32)

    def raw(self, inputs: Any, run: Run) -> Any:
        """Return the features before projection and scaling, [n, d]."""
        x = super().raw(inputs, run)
        if self.backbone_ is None:
            return np.asarray(x).reshape(len(x), -1) if x.dtype != np.uint8 else np.asarray(x, np.float32).reshape(len(x), -1) / 255
        network = self.backbone_ if self.layer is None else UpTo(self.backbone_, self.layer)
        key = ["features", self.backbone_.built, self._weights_key, self.layer, content_key(x), run.precision]
        return run.cached(key, lambda: halved(in_batches(network, x, run, output=None)))

    def outputs(self, x: Tensor) -> Tensor:
        network = nn.Flatten() if self.backbone_ is None else self.backbone_ if self.layer is None else UpTo(self.backbone_, self.layer)
        features = network.to(x.device).eval()(x)
        if self.directions_ is not None:
            features = features @ torch.as_tensor(self.directions_, device=x.device)
        return first_of(self.network_((features - torch.as_tensor(self.center_, device=x.device)) / self.spread_))

    def represent(self, data: Examples, run: Run = Run(), layer: str | None = None) -> Array:
        """Return the features that the head sees, [n, d]."""
        return np.asarray(self.inputs(data.inputs, run))

    @staticmethod
    def fit_many(learners: Sequence[Any], sources: Sequence[Any], runs: Sequence[Run]) -> Sequence[Any]:
        """Train all heads whose shapes agree as one; see ``elsewhere.nn.stacked``."""
        from elsewhere.nn.stacked import fit_stacked

        return fit_stacked(learners, sources, runs)

    @property
    def _weights_key(self) -> str:
        """A key of the backbone's weights; a loaded model may have outlived their file."""
        return _state_key(self.backbone_) if self.files else str(self.weights)

    def _backbone(self, inputs: Any) -> Any:
        if hasattr(inputs, "iloc"):
            raise UserError(f"backbone {self.backbone!r} needs pictures, and the inputs are a table; leave backbone away")
        options: dict[str, Any] = {k: v for k, v in (("weights", self.weights), ("side", self.side)) if v is not None}
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # an untrained backbone is the same one for every seed
            return build(self.backbone, shape=list(inputs.shape[1:]), head=False, **options)

    def _components(self, x: Any) -> None:
        x = np.asarray(x, np.float64)
        most = min(x.shape)
        if not 1 <= (self.components or 0) <= most:
            raise UserError(f"components must lie between 1 and {most}, the smaller of examples and features, not {self.components}")
        _, _, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
        self.directions_ = directions[: self.components].T.astype(np.float32)

    def _projected(self, x: Any) -> Any:
        return x if self.directions_ is None else np.asarray(x, np.float32) @ self.directions_
