"""Networks that score people, and training that keeps groups' mean scores alike (Lohaus et al. 2022, regularisers 2 and 3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.batching import batches, in_batches, taker
from elsewhere.closed import OneOf
from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import UserError
from elsewhere.fairness.rates import CRITERIA, Criterion, binary_labels, codes_of, group_column, groups_of, read_beside
from elsewhere.nn.augmentation import Augment, augmented
from elsewhere.nn.backbones import weights_file
from elsewhere.nn.building import build
from elsewhere.nn.learners import NetworkLearner, first_of, seeded
from elsewhere.optimisers import adam
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Source
from elsewhere.training import Descent, train

VALIDATION_SHARE = 0.2
MISSED = 0.05  # share of batches without one group, from which on it is told


def disparity_regulariser(scores: Tensor, group: Tensor, kind: Literal["squared", "absolute"] = "squared", condition: Tensor | None = None) -> Tensor:
    """Return R = (mean σ(f) in one group - mean σ(f) in the other)², or |…|; of more groups the mean over pairs; 0 with no gradient where a group is absent.

    Differentiable, for any training loop.

    Args:
        scores: logits f [b].
        group: codes [b].
        kind: "squared" is the paper's regulariser (2), "absolute" its (3).
        condition: a mask [b]: only these count (those labelled 1, for equal opportunity).

    Examples:
        >>> f = torch.tensor([100.0, -100.0, 100.0, 100.0])
        >>> float(disparity_regulariser(f, torch.tensor([0, 0, 1, 1])))
        0.25
    """
    if kind not in ("squared", "absolute"):
        raise UserError(f"kind must be squared or absolute, not {kind!r}")
    p = torch.sigmoid(scores)
    inside = torch.ones_like(p, dtype=torch.bool) if condition is None else condition.bool()
    codes = group[inside].long()
    if not len(codes):
        return scores.sum() * 0
    present = torch.unique(codes)
    if len(present) < 2:
        return scores.sum() * 0
    means = torch.stack([p[inside][codes == k].mean() for k in present])
    first, second = torch.triu_indices(len(means), len(means), 1)
    apart = means[first] - means[second]
    return (apart.square() if kind == "squared" else apart.abs()).mean()


class GroupBatch(NamedTuple):
    """A minibatch: inputs [b, ...], labels [b], weights [b] or None, group codes [b]."""

    inputs: Tensor
    labels: Tensor
    weight: Tensor | None
    group: Tensor


@dataclass
class GroupNetwork(NetworkLearner):
    """What networks that score people share: a body, linear outputs on it, and the group at training time only.

    Args:
        backbone: any network of the catalogue; "auto": 64 and 32 units for tables, two convolutions for small pictures.
        group: the column of people compared; two values, or more.
        stratified: each batch keeps the overall shares of the groups.
        best_epoch: keep the epoch with the largest average precision on the validation part; else the last one.
        weights: of a published backbone.
        frozen: only the outputs are trained, not the body.
        augment: what is done to training pictures: "none", "flip", "crop" (with flip), "colour", "randaugment" or "augmix".
        missing: what becomes of people whose group is missing: an error, "drop" (they are not trained on), or a group of their own.
    """

    backbone: Annotated[str, OneOf("auto", catalogue="networks")] = "auto"
    group: str = "group"
    stratified: bool = True
    best_epoch: bool = False
    weights: str | None = None
    frozen: bool = False
    augment: Augment = "none"
    missing: Literal["error", "drop", "own group"] = "error"
    steps: int = 470
    batch: int = 512
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "stepwise", "halving", "plateau"] = "constant"  # type: ignore[assignment]

    @property
    def files(self) -> Mapping[str, str]:
        return weights_file(self.weights)

    @property
    def outputs_wanted(self) -> int:
        """How many linear outputs the network has."""
        return 1

    @property
    def needs_group(self) -> bool:
        """Whether training makes use of the group."""
        return True

    @property
    def reads(self) -> tuple[str, ...]:
        return read_beside(self.group)

    def refuses(self, source: Source[Examples]) -> str | None:
        try:
            labels = binary_labels(source.train, self.name)
            if not self.needs_group:
                return None
            known = self._known(source.train)
            labels, told = np.asarray(known.labels), groups_of(known, self.group, "own group" if self.missing == "own group" else "error")
        except UserError as error:
            return str(error)
        codes = np.unique(told, return_inverse=True)[1]
        if codes.max() == 1 and ((codes == labels).all() or (codes != labels).all()):
            return f"the group {self.group!r} is the label itself: nothing is left to compare"
        return None

    @property
    def validates(self) -> bool:
        return False  # it looks at a validation part of its own

    @property
    def name(self) -> str:
        return type(self).__name__

    def network(self, data: Examples) -> nn.Module:
        name = self.backbone if self.backbone != "auto" else "pooled-cnn" if np.ndim(data.inputs) == 4 and data.inputs.shape[2] <= 64 else "encoder" if np.ndim(data.inputs) == 4 else "tapered-mlp"
        options: dict[str, Any] = {} if self.weights is None else {"weights": self.weights}
        made: Any = build(name, shape=[int(s) for s in data.inputs.shape[1:]], values=self.outputs_wanted, **options)
        if self.frozen:
            made.body.requires_grad_(False)
        network: nn.Module = made
        return network

    def training_loss(self, network: Any, batch: Any) -> Tensor:
        if self.frozen:
            network.body.eval()  # its batch statistics stay as they are
        return self.loss(network, batch if self.augment == "none" else batch._replace(inputs=augmented(batch.inputs, self.augment)))

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        if why := self.refuses(source):
            raise UserError(why)
        if self.needs_group:
            source = Source(self._known(source.train), None if source.validation is None else self._known(source.validation))
        self.groups_ = sorted(set(self._told(source.train).tolist()))
        held = source.validation
        if held is None:
            out = held_out(source.train, VALIDATION_SHARE, run.rng("validation"))
            source, held = Source(source.train.take(~out), source.train.take(out)), source.train.take(out)
        data, _ = self.prepared(Source(source.train), run)
        codes = self.codes(source.train)
        self.shares_ = (np.bincount(codes, minlength=len(self.groups_)) / len(codes)).tolist()
        self.network_ = seeded(run, lambda: self.network(data))
        self._missed = 0
        seen, group = self._seen(held, run), self.codes(held)
        kind = Plateau if self.schedule == "plateau" else Descent
        stepper = kind(self.network_, self.training_loss, adam(self.learning_rate, self.weight_decay), self.scheduler(), self.clip, self.accumulate, self.average)
        train(
            stepper,
            self._batches(data, codes, run),
            run,
            steps=self.steps,
            evaluate=lambda: self._evaluated(seen, group, run, stepper),
            every=max(1, min(self.steps, -(-len(data) // self.batch))),
            patience=(self.patience or self.steps) if self.best_epoch or self.patience else None,
        )
        self.finished(held, run)
        if self._missed > MISSED * self.steps:
            warnings.warn(f"{self._missed} of {self.steps} batches lacked a group and were not regularised; use stratified=true or a larger batch", UserWarning, stacklevel=2)
        return self

    def finished(self, held: Examples, run: Run) -> None:
        """Do what follows training, on the validation part."""

    def scheduler(self) -> Any:
        return None if self.schedule == "plateau" else super().scheduler()

    def codes(self, data: Examples) -> Array:
        """Return group codes [n] in the order of the source's sorted names."""
        return codes_of(self._told(data), self.groups_)

    def _told(self, data: Examples) -> Array:
        """Return the groups [n]; one for all where they are not known and not needed."""
        try:
            return groups_of(data, self.group, "own group" if self.missing == "own group" else "error")
        except UserError:
            if self.needs_group:
                raise
            return np.full(len(data), "all")

    def _known(self, data: Examples) -> Examples:
        """Return the people to train on: those whose group is known, where others are dropped."""
        if self.missing != "drop":
            return data
        values = group_column(data, self.group)
        if values is None:
            return data
        return data.take(np.array([v is not None and v == v for v in values.tolist()]))

    def _batches(self, data: Examples, codes: Array, run: Run) -> Callable[[int], GroupBatch]:
        group, labels = torch.as_tensor(codes), torch.as_tensor(np.asarray(data.labels)).long()
        given = optional_column(data, "weight")
        weight = None if given is None else torch.as_tensor(np.asarray(given, np.float32))
        if not self.stratified:
            plain = batches(data, run, self.batch)

            def draw(step: int) -> GroupBatch:
                made = plain(step)
                return GroupBatch(made.inputs, made.labels, made.weight, group[made.rows])

            return draw
        take, rows = taker(data.inputs), stratified_order(codes, run, self.batch)

        def drawn(step: int) -> GroupBatch:
            at = rows(step)
            return GroupBatch(take(at), labels[at], None if weight is None else weight[at], group[at])

        return drawn

    def _evaluated(self, seen: Examples, group: Array, run: Run, stepper: Descent) -> dict[str, float]:
        """Return 1 - average precision of the score, by which the best epoch is kept, and the validation loss, by which a plateau is seen."""
        made = in_batches(self.network_, seen.inputs, run, output="mean")
        outputs = made.reshape(len(made), -1)
        labels = np.asarray(seen.labels)
        batch: Any = GroupBatch(torch.empty(0), torch.as_tensor(labels).long(), None, torch.as_tensor(group))
        loss = float(self.loss(lambda _: torch.from_numpy(outputs), batch))
        if isinstance(stepper, Plateau):
            stepper.plateau_.step(loss)
        return {"1 - average precision": 1 - average_precision(labels, outputs[:, 0]), "validation loss": loss}

    def scores(self, data: Examples, run: Run = Run()) -> Array:
        """Return all outputs as logits [n, outputs], clipped to ± 25."""
        made = in_batches(self.network_, self._seen(data, run).inputs, run, output="mean")
        return np.clip(made.reshape(len(made), -1).astype(float), -25, 25)

    def predict(self, data: Examples, run: Run = Run()) -> ClassPrediction:
        return as_prediction(self.scores(data, run)[:, 0])

    def outputs(self, x: Tensor) -> Tensor:
        f = first_of(self.network_(x)).reshape(len(x), -1)[:, :1]
        return torch.cat([torch.zeros_like(f), f], 1)


class Plateau(Descent):
    """Descent whose learning rate falls to a tenth after 15 evaluations without a lower validation loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plateau_ = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser_, factor=0.1, patience=15)

    def parts(self) -> Any:
        return {**super().parts(), "plateau_": self.plateau_}


@dataclass
class ParityRegularised(GroupNetwork):
    """A network whose training adds λ R, the difference of the groups' mean scores (Lohaus et al. 2022): L = BCE(f, y) + λ R.

    Args:
        penalty: λ; 0 is the unconstrained network.
        kind: "squared" or "absolute".
        criterion: "parity"; "opportunity", on those labelled 1; "odds", on both labels.

    Examples:
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=60)
        >>> data = Examples(rng.normal(size=(60, 3)) + y[:, None], y, {"group": np.where(rng.random(60) < 0.5, "f", "m")}, classes=("no", "yes"))
        >>> ParityRegularised(penalty=5.0, steps=5).fit(Source(data)).predict(data).classes().shape
        (60,)
    """

    penalty: float = 5.0
    kind: Literal["squared", "absolute"] = "squared"
    criterion: Criterion = "parity"

    @property
    def needs_group(self) -> bool:
        return self.penalty > 0

    def refuses(self, source: Source[Examples]) -> str | None:
        if self.criterion not in CRITERIA or self.kind not in ("squared", "absolute") or self.penalty < 0:
            return f"criterion must be one of {', '.join(CRITERIA)}, kind squared or absolute, penalty at least 0; not {self.criterion!r}, {self.kind!r}, {self.penalty}"
        return super().refuses(source)

    def loss(self, network: Any, batch: Any) -> Tensor:
        f = first_of(network(batch.inputs)).reshape(-1)
        each = functional.binary_cross_entropy_with_logits(f, batch.labels.float(), reduction="none")
        fit = each.mean() if batch.weight is None else (each * batch.weight / self.weight_mean_).mean()
        return fit + self.penalty * self.regulariser(f, batch) if self.penalty else fit

    def regulariser(self, f: Tensor, batch: Any) -> Tensor:
        conditions = {"parity": [None], "opportunity": [batch.labels == 1], "odds": [batch.labels == 1, batch.labels == 0]}[self.criterion]
        if len(torch.unique(batch.group)) < len(self.groups_):
            self._missed = getattr(self, "_missed", 0) + 1
            if len(torch.unique(batch.group)) < 2:
                return f.sum() * 0
        return torch.stack([disparity_regulariser(f, batch.group, self.kind, c) for c in conditions]).mean()


def stratified_order(codes: Array, run: Run, size: int) -> Callable[[int], Tensor]:
    """Return step -> rows, epochs without replacement in which each batch keeps the groups' overall shares (to within one).

    Examples:
        >>> rows = stratified_order(np.repeat([0, 1], [75, 25]), Run(), 20)
        >>> [int((rows(k) >= 75).sum()) for k in range(5)]
        [5, 5, 5, 5, 5]
    """
    n, kept = len(codes), dict[int, Tensor]()

    def epoch(number: int) -> Tensor:
        if number not in kept:
            while len(kept) > 1:
                kept.pop(min(kept))
            rng = run.rng(f"batches {number}")
            place = np.empty(n)
            for k in np.unique(codes):
                mine = rng.permutation(np.flatnonzero(codes == k))
                place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
            kept[number] = torch.from_numpy(np.lexsort((rng.random(n), place)))
        return kept[number]

    def rows(step: int) -> Tensor:
        start, end = step * size, (step + 1) * size
        return torch.cat([epoch(e)[max(start - e * n, 0) : end - e * n] for e in range(start // n, (end - 1) // n + 1)])

    return rows


def average_precision(labels: Array, scores: Array) -> float:
    """Return Σ (R_k - R_{k-1}) P_k over thresholds, as scikit-learn defines it; the share of label 1 where there is one label only."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if 0 < labels.sum() < len(labels) else float(labels.mean())


def as_prediction(f: Array) -> ClassPrediction:
    """Return the prediction of logits [n] of the second class; 0 is the first class, as the rule is f > 0."""
    return ClassPrediction(logits=np.c_[np.zeros(len(f)), f])


def merged_prediction(h: Array, space: str) -> ClassPrediction:
    """Return the prediction of a merged score [n], whose sign decides: in probabilities h + ½ is the nearest thing to one (not calibrated)."""
    if space == "logit":
        return as_prediction(h)
    p = np.clip(h + 0.5, 1e-6, 1 - 1e-6)
    return as_prediction(np.log(p / (1 - p)))
