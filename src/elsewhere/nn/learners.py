"""Learners that train a network: what they share, ``mlp``, and any torch module."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.batching import Batch, batches, in_batches
from elsewhere.data import Array, Examples
from elsewhere.encoding import Encoder
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.nn.building import build
from elsewhere.nn.layers import UpTo, pooled
from elsewhere.prediction import ClassPrediction, ValuePrediction
from elsewhere.run import Run
from elsewhere.splitting import few_shot, held_out
from elsewhere.task import Source
from elsewhere.training import Descent, adam, cosine, halving, stepwise, train

Prediction = ClassPrediction | ValuePrediction
VALIDATION_SHARE = 0.1


@dataclass
class NetworkLearner(Learner[Examples, Prediction]):
    """What every learner over a network shares; a subclass writes ``network``.

    A table is encoded and vectors are centred and scaled by the source; pictures stay in 0..1. Classes are learnt by
    cross-entropy, numbers by squared error after standardising; weights of examples count.

    Args:
        steps: of training.
        batch: examples a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW, decoupled.
        schedule: of the learning rate; "halving" halves it smoothly every 1,000 steps.
        clip: largest norm of the gradient.
        accumulate: the batch goes through in so many parts.
        average: decay of a moving average of the weights, which is kept; 1: their plain mean.
        patience: stop after so many of 20 evaluations without a lower validation loss; the source's validation part, else a tenth of it.
        samples: labels a class that are used (few-shot); None: all.
    """

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "stepwise", "halving"] = "cosine"
    clip: float | None = None
    accumulate: int = 1
    average: float | None = None
    patience: int | None = None
    samples: int | None = None

    @property
    def preparation(self) -> tuple[Any, ...]:
        """The fields that ``prepared`` depends on."""
        return (self.samples,)

    @property
    def validates(self) -> bool:
        """Whether its training looks at validation data."""
        return self.patience is not None

    def network(self, data: Examples) -> nn.Module:
        """Return the network to train on prepared data; called with torch's randomness seeded."""
        raise NotImplementedError(f"{type(self).__name__} has no network")

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        data, held = self.prepared(source, run)
        self.network_ = seeded(run, lambda: self.network(data))
        train(
            Descent(self.network_, self.training_loss, adam(self.learning_rate, self.weight_decay), self.scheduler(), self.clip, self.accumulate, self.average),
            batches(data, run, self.batch),
            run,
            steps=self.steps,
            evaluate=None if held is None else lambda: {"validation loss": self.mean_loss(held, run)},
            patience=self.patience,
        )
        return self

    def training_loss(self, network: Any, batch: Batch) -> Tensor:
        """Return the loss that is descended: the one that is judged, of what training does to a batch (augmentation, say)."""
        return self.loss(network, batch)

    def loss(self, network: Any, batch: Batch) -> Tensor:
        """Return cross-entropy or squared error, weighted by the examples' weights."""
        return self.losses(network(batch.inputs), batch).mean()

    def losses(self, made: Any, batch: Batch) -> Tensor:
        """Return the loss of each example [b] for what the network made of the batch, times its weight."""
        if self.classes_ is not None:
            each = functional.cross_entropy(first_of(made), batch.labels, reduction="none")
        else:
            wanted = (batch.labels - torch.as_tensor(self.label_mean_, device=batch.labels.device)) / self.label_deviation_
            each = (first_of(made).reshape(wanted.shape) - wanted).square()
            each = each if each.ndim == 1 else each.mean(1)  # several numbers an example
        return each if batch.weight is None else each * batch.weight / self.weight_mean_

    def scheduler(self) -> Any:
        """Return what makes the schedule of an optimiser, or None."""
        return {"constant": None, "cosine": cosine(self.steps), "stepwise": stepwise(self.steps), "halving": halving()}[self.schedule]

    def prepared(self, source: Source[Examples], run: Run) -> tuple[Examples, Examples | None]:
        """Learn encoding and scales on the source; return its prepared part to train on, and one to stop by if ``patience`` is set."""
        vars(self).pop("network_", None)
        data, held = few_shot(source.train, self.samples, run), source.validation
        if data.labels is None:
            raise UserError("the source has no labels to fit")
        if self.validates and held is None:
            out = held_out(data, VALIDATION_SHARE, run.rng("validation"))
            if not out.any() or out.all():
                raise UserError(f"{type(self).__name__} stops by validation data, and {len(data)} examples are too few to hold a tenth out; leave patience away")
            data, held = data.take(~out), data.take(out)
        self.classes_ = None if data.classes is None else len(data.classes)
        self.encoder_ = Encoder().fit(data.inputs) if hasattr(data.inputs, "iloc") else None
        self.label_mean_: Any
        self.label_mean_, self.label_deviation_ = (0.0, 1.0) if self.classes_ is not None else label_scales(np.asarray(data.labels, float))
        weight = data.columns.get("weight")
        self.weight_mean_ = 1.0 if weight is None else float(np.mean(weight))
        self.center_, self.spread_ = self.scales(self.raw(data.inputs, run))
        return self._seen(data, run), None if not self.validates or held is None else self._seen(held, run)

    def raw(self, inputs: Any, run: Run) -> Any:
        """Return inputs as numbers [n, ...], a table encoded."""
        return self.encoder_.transform(inputs) if self.encoder_ is not None else inputs

    def scales(self, x: Any) -> tuple[Any, float]:
        """Return the mean of each column and one deviation for all: a column that hardly varies at home must not explode elsewhere."""
        if x.ndim != 2:
            return None, 1.0
        center = np.asarray(x, np.float64).mean(0)
        spread = float(np.sqrt(np.asarray(x, np.float64).var(0).mean()))
        return center.astype(np.float32), spread if spread > 0 else 1.0

    def inputs(self, inputs: Any, run: Run) -> Any:
        """Return inputs as the network sees them."""
        x = self.raw(inputs, run)
        if x.ndim == 2 and self.center_ is not None:
            x = ((np.asarray(x, np.float32) - self.center_) / self.spread_).astype(np.float32)
        if list(x.shape[1:]) != list(self._shape(x)):
            raise UserError(f"inputs have shape {list(x.shape[1:])}; this model was fitted on {list(self._shape(x))}")
        return x

    def _shape(self, x: Any) -> list[int]:
        built = getattr(getattr(self, "network_", None), "built", None)
        return list(x.shape[1:]) if built is None else built["shape"]

    def predict(self, data: Examples, run: Run = Run()) -> Prediction:
        made = in_batches(_First(self.network_), self._seen(data, run).inputs, run, output=None)
        if self.classes_ is not None:
            return ClassPrediction(logits=made)
        mean = made.reshape(len(made), *np.shape(self.label_mean_)).astype(float)
        return ValuePrediction(mean * self.label_deviation_ + self.label_mean_)

    def outputs(self, x: Tensor) -> Tensor:
        """Return logits or means of inputs as tensors, with gradients by the inputs: what attacks ask."""
        return first_of(self.network_(x))

    def represent(self, data: Examples, run: Run = Run(), layer: str | None = None) -> Array:
        """Return the features before the head, or the output of a layer by name: [n, d]."""
        x = self._seen(data, run).inputs
        if layer is not None:
            return in_batches(UpTo(self.network_, layer), x, run, output=None)
        return in_batches(_Before(self.network_), x, run, output=None)

    def _seen(self, data: Examples, run: Run) -> Examples:
        return Examples(self.inputs(data.inputs, run), data.labels, data.columns, data.classes)

    def mean_loss(self, held: Examples, run: Run) -> float:
        """Return the loss of the network on prepared data."""
        made = in_batches(_First(self.network_), held.inputs, run, output=None)
        labels = torch.as_tensor(np.asarray(held.labels))
        batch = Batch(torch.empty(0), labels.long() if self.classes_ is not None else labels.float(), None, torch.empty(0))
        return float(self.loss(lambda _: torch.from_numpy(made), batch))


def label_scales(labels: Array) -> tuple[Any, float]:
    """Return what is taken from numbers to be learnt, and divided by: the mean (one a column), and one deviation for all columns, so that squared errors keep their weights."""
    deviation = float(np.sqrt(labels.var(0).mean()))
    mean: Any = float(labels.mean()) if labels.ndim == 1 else labels.mean(0).astype(np.float32)
    return mean, deviation if deviation > 0 else 1.0


class _First(nn.Module):
    """A network's logits or means: what it gives, or the first of what it gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return first_of(self.network(x))


class _Before(nn.Module):
    """A network's features as a module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return before(self.network, x)


def before(network: nn.Module, x: Tensor) -> Tensor:
    """Return a network's features [n, d]: what it names so, else what its last linear layer sees."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])) if linear else None
    made = network(x)
    if handle is not None:
        handle.remove()
    if hasattr(made, "features"):
        features: Tensor = made.features
        return features
    return pooled(seen[-1] if seen else made)


def first_of(made: Any) -> Tensor:
    """Return logits or means of what a network gave: a tensor, or the first of several."""
    found: Tensor = made if isinstance(made, Tensor) else made[0]
    return found


def seeded(run: Run, make: Any) -> Any:
    """Return ``make()`` under the run's own stream for initial weights; torch's global randomness is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.integer("init"))
        return make()


@dataclass
class Mlp(NetworkLearner):
    """A multilayer perceptron with ReLU, on tables, vectors and flattened pictures.

    Args:
        width: units of a hidden layer.
        depth: hidden layers.
        dropout: share of units left out in training.

    Examples:
        >>> data = Examples(np.eye(4), np.arange(4) % 2, classes=("even", "odd"))
        >>> Mlp(steps=5).fit(Source(data)).predict(data).probabilities().shape
        (4, 2)
    """

    width: int = 128
    depth: int = 2
    dropout: float = 0.0

    def network(self, data: Examples) -> nn.Module:
        made: nn.Module = build("mlp", like=data, width=self.width, depth=self.depth, dropout=self.dropout)
        return made

    @staticmethod
    def fit_many(learners: Sequence[Any], sources: Sequence[Any], runs: Sequence[Run]) -> Sequence[Any]:
        """Train all whose shapes agree as one stacked network; see ``elsewhere.nn.stacked``."""
        from elsewhere.nn.stacked import fit_stacked

        return fit_stacked(learners, sources, runs)


@dataclass
class Module(NetworkLearner):
    """Any torch module as a learner; ``wrap(module)`` makes it. Each fit trains a copy, from the weights it has.

    It gives logits [n, classes] (or values [n] or [n, 1]) for inputs [n, ...], or a tuple that begins with them. A
    module made by ``elsewhere.nn.build`` can be saved; any other needs ``save`` and ``load`` of its own.

    Examples:
        >>> data = Examples(np.eye(4), np.arange(4) % 2, classes=("even", "odd"))
        >>> Module(module=nn.Linear(4, 2), steps=5).fit(Source(data)).represent(data).shape
        (4, 4)
    """

    module: Any = None

    def network(self, data: Examples) -> nn.Module:
        if not isinstance(self.module, nn.Module):
            raise UserError(f"module must be a torch module, not {type(self.module).__name__}")
        return copy.deepcopy(self.module)


def stackable(learner: NetworkLearner) -> bool:
    """Whether nothing in its training needs a loop of its own."""
    plain = learner.clip is None and learner.patience is None and learner.average is None and learner.accumulate == 1
    return plain and not getattr(learner, "dropout", 0.0)
