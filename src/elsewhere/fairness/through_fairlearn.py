"""fairlearn's mitigators as learners: decisions without chance, fitted numbers in the place of pickles."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import UserError, did_you_mean
from elsewhere.fairness.rates import CRITERIA, Criterion, binary_labels, codes_of, groups_of, read_beside
from elsewhere.fairness.regularised import as_prediction
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.task import Source

METHODS = ("threshold-optimizer", "exponentiated-gradient", "grid-search", "adversarial", "correlation-remover")
NAMES = {"parity": "demographic_parity", "opportunity": "true_positive_rate_parity", "odds": "equalized_odds"}


@dataclass
class FairlearnLearner(Learner[Examples, ClassPrediction]):
    """A mitigator of fairlearn over logistic regression (or, adversarial, a perceptron) on encoded inputs.

    Randomised mitigators decide by the larger probability. ``threshold-optimizer`` and ``correlation-remover`` need the group at
    prediction time too.

    Args:
        method: threshold-optimizer (Hardt et al. 2016), exponentiated-gradient and grid-search (Agarwal et al. 2018), adversarial (Zhang et al. 2018), correlation-remover.
        criterion: "parity", "opportunity" or "odds".
        group: column of people compared.
        epsilon: allowed violation of the reductions.
        rounds: most rounds of exponentiated-gradient, points of grid-search.
        alpha: strength of the adversary, or of the correlation remover (at most 1).
        C: of logistic regression.
        epochs, batch, learning_rate: of adversarial training.

    Raises:
        UserError: fairlearn is not installed.
    """

    method: Literal["threshold-optimizer", "exponentiated-gradient", "grid-search", "adversarial", "correlation-remover"] = "exponentiated-gradient"
    criterion: Criterion = "parity"
    group: str = "group"
    epsilon: float = 0.01
    rounds: int = 50
    alpha: float = 1.0
    C: float = 1.0
    epochs: int = 12
    batch: int = 512
    learning_rate: float = 1e-3

    @property
    def reads(self) -> tuple[str, ...]:
        return read_beside(self.group)

    def refuses(self, source: Source[Examples]) -> str | None:
        if self.method not in METHODS:
            return f"no method {self.method!r}{did_you_mean(self.method, METHODS)}"
        if self.criterion not in CRITERIA:
            return f"no criterion {self.criterion!r}{did_you_mean(self.criterion, CRITERIA)}"
        try:
            binary_labels(source.train, "fairlearn")
            groups_of(source.train, self.group)
        except UserError as error:
            return str(error)
        return None

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        try:
            import fairlearn  # noqa: F401
        except ImportError as error:
            raise UserError("this learner is fairlearn's: pip install 'elsewhere[fairness]'") from error
        if why := self.refuses(source):
            raise UserError(why)
        train = source.train
        self.encoder_ = Encoder().fit(train.inputs) if hasattr(train.inputs, "iloc") else None
        self.group_names_ = sorted(set(groups_of(train, self.group).tolist()))
        x, y, s = self.represent(train), binary_labels(train, "fairlearn"), groups_of(train, self.group)
        self.parts_: list[list[float]] = []  # logistic regressions: coefficients, then the intercept
        self.mix_: list[float] = []
        self.network_: Any = None
        self.rules_: dict[str, list[float]] = {}
        self.filter_: Array | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            {
                "threshold-optimizer": self._thresholds,
                "exponentiated-gradient": self._gradient,
                "grid-search": self._grid,
                "adversarial": self._adversarial,
                "correlation-remover": self._remover,
            }[self.method](x, y, s, run)
        return self

    def represent(self, data: Examples, run: Run = Run()) -> Array:
        """Return the encoded inputs [n, d]."""
        return self.encoder_.transform(data.inputs) if self.encoder_ is not None else np.asarray(as_matrix(data.inputs), float)

    def predict(self, data: Examples, run: Run = Run()) -> ClassPrediction:
        x = self.represent(data)
        if self.network_ is not None:
            from elsewhere.batching import in_batches

            return as_prediction(np.clip(in_batches(self.network_, x.astype(np.float32), run, output="mean").reshape(len(x), -1)[:, 0].astype(float), -25, 25))
        if self.filter_ is not None:
            x = x - self._coded(data) @ self.filter_
        scores = np.stack([x @ np.array(p[:-1]) + p[-1] for p in self.parts_], 1)
        if self.rules_:
            return as_prediction(self._by_group(scores[:, 0], groups_of(data, self.group)))
        if len(self.parts_) == 1:
            return as_prediction(np.clip(scores[:, 0], -25, 25))
        share = (scores > 0) @ np.array(self.mix_)  # of the mixture's classifiers that accept
        share = np.clip(share / max(sum(self.mix_), 1e-12), 1e-6, 1 - 1e-6)
        return as_prediction(np.log(share / (1 - share)))

    def _estimator(self) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=self.C, max_iter=1000)

    def _moment(self) -> Any:
        from fairlearn import reductions

        kind = {"parity": reductions.DemographicParity, "opportunity": reductions.TruePositiveRateParity, "odds": reductions.EqualizedOdds}[self.criterion]
        return kind(difference_bound=self.epsilon)

    def _keep(self, estimators: Any, mix: Any) -> None:
        for estimator, share in zip(estimators, mix, strict=True):
            if share <= 0:
                continue
            if hasattr(estimator, "coef_"):
                self.parts_.append([*map(float, estimator.coef_[0]), float(estimator.intercept_[0])])
            else:  # a round whose relabelled examples were all of one class
                constant = 25.0 if np.asarray(estimator.predict(np.zeros((1, 1))))[0] > 0.5 else -25.0
                self.parts_.append([*np.zeros(self._width).tolist(), constant])
            self.mix_.append(float(share))

    def _gradient(self, x: Array, y: Array, s: Array, run: Run) -> None:
        from fairlearn.reductions import ExponentiatedGradient

        self._width = x.shape[1]
        made = ExponentiatedGradient(self._estimator(), self._moment(), eps=self.epsilon, max_iter=self.rounds).fit(x, y, sensitive_features=s)
        self._keep(made.predictors_, [float(made.weights_.get(k, 0.0)) for k in range(len(made.predictors_))])

    def _grid(self, x: Array, y: Array, s: Array, run: Run) -> None:
        from fairlearn.reductions import GridSearch

        self._width = x.shape[1]
        made = GridSearch(self._estimator(), self._moment(), grid_size=self.rounds).fit(x, y, sensitive_features=s)
        self._keep([made.predictors_[made.best_idx_]], [1.0])

    def _thresholds(self, x: Array, y: Array, s: Array, run: Run) -> None:
        from fairlearn.postprocessing import ThresholdOptimizer

        base = self._estimator().fit(x, y)
        made = ThresholdOptimizer(estimator=base, constraints=NAMES[self.criterion], prefit=True, predict_method="decision_function").fit(x, y, sensitive_features=s)
        self._keep([base], [1.0])
        for name, rule in made.interpolated_thresholder_.interpolation_dict.items():
            told = [float(rule.get("p_ignore", 0.0)), float(rule.get("prediction_constant", 0.0))]
            for k in (0, 1):
                operation = rule[f"operation{k}"]
                told += [float(rule[f"p{k}"]), 1.0 if operation.operator == ">" else -1.0, float(np.clip(operation.threshold, -1e6, 1e6))]
            self.rules_[str(name)] = told

    def _by_group(self, score: Array, group: Array) -> Array:
        """Return the score whose sign is the optimizer's likelier decision: a mixture of two thresholds a group, made certain."""
        made = np.empty(len(score))
        for name in np.unique(group):
            if name not in self.rules_:
                raise UserError(f"group {name!r} is not in the source, which has {', '.join(self.group_names_)}")
            ignore, constant, *ops = self.rules_[str(name)]
            z = score[group == name]
            p = sum(ops[k] * (ops[k + 1] * (z - ops[k + 2]) > 0) for k in (0, 3))
            p = ignore * constant + (1 - ignore) * p
            made[group == name] = np.log(np.clip(p, 1e-6, 1 - 1e-6) / np.clip(1 - p, 1e-6, 1 - 1e-6))
        return made

    def _adversarial(self, x: Array, y: Array, s: Array, run: Run) -> None:
        import torch
        from fairlearn.adversarial import AdversarialFairnessClassifier
        from torch import nn

        from elsewhere.nn.building import build
        from elsewhere.nn.learners import first_of, seeded

        self.network_ = seeded(run, lambda: build("tapered-mlp", shape=[x.shape[1]], values=1))

        class Probability(nn.Module):
            def __init__(self, network: nn.Module) -> None:
                super().__init__()
                self.network = network

            def forward(self, inputs: Any) -> Any:
                return torch.sigmoid(first_of(self.network(inputs)))

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.integer("adversary"))
            AdversarialFairnessClassifier(
                backend="torch", predictor_model=Probability(self.network_), adversary_model=[16, "relu"], constraints="demographic_parity" if self.criterion == "parity" else "equalized_odds",
                learning_rate=self.learning_rate, alpha=self.alpha, epochs=self.epochs, batch_size=self.batch, shuffle=True, random_state=run.integer("batches"),
            ).fit(x.astype(np.float32), y, sensitive_features=s)  # fmt: skip
        self.network_.eval()

    def _remover(self, x: Array, y: Array, s: Array, run: Run) -> None:
        from fairlearn.preprocessing import CorrelationRemover

        codes = np.eye(len(self.group_names_))[np.searchsorted(np.array(self.group_names_), s)][:, 1:]
        k = codes.shape[1]
        joined = np.c_[codes, x]
        CorrelationRemover(sensitive_feature_ids=list(range(k)), alpha=self.alpha).fit(joined)
        self.center_ = codes.mean(0)
        self.filter_ = self.alpha * np.linalg.lstsq(codes - self.center_, x, rcond=None)[0]
        estimator = self._estimator().fit(x - (codes - self.center_) @ self.filter_, y)
        self._width = x.shape[1]
        self._keep([estimator], [1.0])

    def _coded(self, data: Examples) -> Array:
        return np.asarray(np.eye(len(self.group_names_))[codes_of(groups_of(data, self.group), self.group_names_)][:, 1:] - self.center_)
