"""Rivals of the dataset derivative: other ways to say what each training example is worth. High is good, as pyDVL has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.explain.dataset_derivative import DatasetDerivative

BLOCK = 256  # judged examples at a time


def retrained(fit: Callable[[Array, Array, Array], Callable[[Array], Array]], x: Array, y: Array, judge: tuple[Array, Array], loss: Callable[[Array, Array], float]) -> Array:
    """Return what leaving each example out costs the judge, by n trainings: the truth, for small n.

    Args:
        fit: (features, labels, sample_weight) -> a function that predicts.
        loss: (predicted, labels) -> a number, lower is better.

    Examples:
        >>> mean = lambda x, y, w: (lambda v: np.full(len(v), np.average(y, weights=w)))
        >>> x, y = np.zeros((3, 1)), np.array([0.0, 0.0, 3.0])
        >>> retrained(mean, x, y, (x, np.zeros(3)), lambda p, u: float(np.square(p - u).sum())).tolist()  # the odd one hurts
        [3.75, 3.75, -3.0]
    """
    v, u = judge
    whole = loss(fit(x, y, np.ones(len(y)))(v), u)
    values = np.empty(len(y))
    for i in range(len(y)):
        weight = np.ones(len(y))
        weight[i] = 0
        values[i] = loss(fit(x, y, weight)(v), u) - whole
    return values


def influence(d: DatasetDerivative, judge: tuple[Array, Array]) -> Array:
    """Return minus the influence of each example's weight on the judge's loss (Koh & Liang 2017): for squared error it is the dataset derivative on a validation set."""
    return -np.asarray(d.gradient(judge))


def removal(d: DatasetDerivative, judge: tuple[Array, Array]) -> Array:
    """Return what leaving each example out costs the judge, in closed form: what ``retrained`` gives for ridge regression."""
    return d.removal_effect(judge)


def residual(d: DatasetDerivative) -> Array:
    """Return minus the squared leave-one-out residual: trivial, and for uniform label noise better than the derivative."""
    return -np.asarray(np.square(d.leave_one_out().residuals).sum(1))


def margin(d: DatasetDerivative) -> Array:
    """Return the leave-one-out output of an example's own class minus the largest other."""
    return d.to_frame()["margin"].to_numpy()


def knn_shapley(x: Array, y: Array, judge: tuple[Array, Array], neighbours: int = 5) -> Array:
    """Return the Shapley value of each example for a k-nearest-neighbour classifier, exactly (Jia et al. 2019, theorem 1).

    Neighbours sorted near to far: u_n = 1[y_n = y] / n, u_i = u_{i+1} + (1[y_i = y] - 1[y_{i+1} = y]) / K · min(K, i) / i; mean over
    the judge's examples, in blocks.

    Examples:
        >>> x, y = np.array([[0.0], [1.0], [5.0]]), np.array([1, 1, 0])
        >>> knn_shapley(x, y, (np.array([[0.1]]), np.array([1])), neighbours=1).round(3).tolist()
        [0.5, 0.5, 0.0]
    """
    v, u = judge
    n, total = len(x), np.zeros(len(x))
    if not 1 <= neighbours <= n:
        raise UserError(f"neighbours must lie between 1 and {n}, the number of examples, not {neighbours}")
    place = np.arange(1, n)
    share = np.minimum(neighbours, place) / place / neighbours
    square = np.square(x).sum(1)
    for start in range(0, len(v), BLOCK):
        part = v[start : start + BLOCK]
        order = np.argsort(square - 2 * part @ x.T, axis=1, kind="stable")
        same = (y[order] == u[start : start + BLOCK, None]).astype(float)
        steps = np.diff(same, axis=1) * -share
        value = np.empty_like(same)
        value[:, -1] = same[:, -1] / n
        value[:, :-1] = value[:, -1:] + np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        total += np.bincount(order.ravel(), value.ravel(), minlength=n)
    return total / len(v)


def confident_learning(labels: Array, probabilities: Array) -> tuple[Array, Array]:
    """Return cleanlab's label quality [n], and whether it finds a label issue [n] (Northcutt et al. 2021), of out-of-sample probabilities [n, classes].

    Raises:
        UserError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise UserError("confident learning is cleanlab's: pip install 'elsewhere[bench]'") from error
    return np.asarray(get_label_quality_scores(labels, probabilities)), np.asarray(find_label_issues(labels, probabilities))


def softmax_regression_checkpoints(x: Array, y: Array, steps: int = 100, every: int = 10) -> list[tuple[float, Array]]:
    """Return (learning rate · steps since the last, weights [d + 1, classes]) of softmax regression by gradient descent at the rate 1/L, from zero: what TracIn and running means look at."""
    from scipy.special import softmax

    z, one_hot = np.c_[x, np.ones(len(x))], np.eye(int(y.max()) + 1)[y]
    w = np.zeros((z.shape[1], one_hot.shape[1]))
    rate = 2 * len(z) / float(np.linalg.norm(z, 2)) ** 2  # the loss' Hessian is at most half of ZᵀZ / n
    found = []
    for step in range(1, steps + 1):
        w = w - rate * z.T @ (softmax(z @ w, axis=1) - one_hot) / len(z)
        if step % every == 0:
            found.append((rate * every, w))
    return found


def tracin(x: Array, y: Array, judge: tuple[Array, Array], checkpoints: list[tuple[float, Array]]) -> Array:
    """Return TracIn on the last layer, Σ_checkpoints η ⟨z_i, z_v⟩ ⟨r_i, r_v⟩ summed over the judge (Pruthi et al. 2020): examples of large value lowered its loss."""
    from scipy.special import softmax

    v, u = judge
    z, zv, one_hot = np.c_[x, np.ones(len(x))], np.c_[v, np.ones(len(v))], np.eye(checkpoints[0][1].shape[1])
    value = np.zeros(len(x))
    for rate, w in checkpoints:
        r, rv = one_hot[y] - softmax(z @ w, axis=1), one_hot[u] - softmax(zv @ w, axis=1)
        value += rate * ((z @ (zv.T @ rv)) * r).sum(1)
    return value


def trak(x: Array, y: Array, judge: tuple[Array, Array], weights: Array, project: int = 512, seed: int = 0, damping: float = 1e-3) -> Array:
    """Return TRAK of one model, (1 - p_i) φ_i (ΦᵀΦ)⁻¹ Σ_v φ_v, φ the projected gradient of the margin log p/(1-p) of the own class (Park et al. 2023).

    Args:
        weights: of the softmax regression [d + 1, classes].
        project: Rademacher projection to so many numbers, where the gradients have more.
        damping: of ΦᵀΦ, times its mean diagonal.
    """
    from scipy.special import softmax

    v, u = judge
    rng = np.random.default_rng(seed)
    classes = weights.shape[1]
    size = (x.shape[1] + 1) * classes
    signs = rng.choice(np.array([-1.0, 1.0]), size=(x.shape[1] + 1, classes, project)) / project**0.5 if size > project else None

    def slopes(features: Array, labels: Array) -> tuple[Array, Array]:
        z = np.c_[features, np.ones(len(features))]
        p = softmax(z @ weights, axis=1)
        own = p[np.arange(len(p)), labels]
        # ∂ log(p/(1-p)) / ∂ logits: 1 for the own class, minus the shares of the others among themselves
        others = np.where(np.eye(classes, dtype=bool)[labels], 0.0, p)
        pull = np.eye(classes)[labels] - others / np.maximum(others.sum(1, keepdims=True), 1e-12)
        flat = np.einsum("nd,nc->ndc", z, pull)
        return (flat.reshape(len(z), -1) if signs is None else np.tensordot(flat, signs, 2)), own

    phi, own = slopes(x, y)
    judged, _ = slopes(v, u)
    gram = phi.T @ phi
    gram += damping * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray((1 - own) * (phi @ np.linalg.solve(gram, judged.sum(0))))


def learnt_weights(x: Array, y: Array, judge: tuple[Array, Array], steps: int = 200, batch: int = 100, rate: float = 0.5, seed: int = 0) -> Array:
    """Return the weights that meta-reweighting gives examples, mean over steps (Ren et al. 2018, for ridge's model): w_i ∝ max(⟨Z_iᵀ Vᵀ E_v, E_i⟩, 0) at W_t, W by SGD."""
    rng = np.random.default_rng(seed)
    z, v, one_hot = np.c_[x, np.ones(len(x))], np.c_[judge[0], np.ones(len(judge[0]))], np.eye(int(max(y.max(), judge[1].max())) + 1)
    w, total, seen = np.zeros((z.shape[1], len(one_hot))), np.zeros(len(x)), np.zeros(len(x))
    size = rate / np.square(z).sum(1).mean()
    for _ in range(steps):
        rows = rng.integers(len(z), size=min(batch, len(z)))
        e, ev = one_hot[y[rows]] - z[rows] @ w, one_hot[judge[1]] - v @ w
        pull = np.maximum(((z[rows] @ (v.T @ ev)) * e).sum(1), 0)
        weight = pull / pull.sum() if pull.sum() > 0 else np.full(len(rows), 1 / len(rows))
        w += size * z[rows].T @ (weight[:, None] * e)
        np.add.at(total, rows, weight * len(rows))
        np.add.at(seen, rows, 1)
    return total / np.maximum(seen, 1)


def closeness_weights(x: Array, y: Array, steps: int = 100, epsilon: float = 0.05) -> Array:
    """Return w_i ∝ p̄_i (1 - p̄_i) + ε, p̄ the running mean of the own class's probability (threshold closeness, Chang et al. 2017), scaled to mean 1."""
    from scipy.special import softmax

    z = np.c_[x, np.ones(len(x))]
    means = np.mean([softmax(z @ w, axis=1)[np.arange(len(y)), y] for _, w in softmax_regression_checkpoints(x, y, steps)], axis=0)
    weight = means * (1 - means) + epsilon
    return np.asarray(weight / weight.mean())


def every_value(x: Array, y: Array, judge: tuple[Array, Array], ridge: float | str = "loo") -> dict[str, Callable[[], Array]]:
    """Return each way of valuing examples by name, ready to be timed: the derivative on left-out and on judged examples, and its rivals."""
    from scipy.special import softmax
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    def fitted() -> DatasetDerivative:
        return DatasetDerivative(ridge=ridge).fit(x, y)  # type: ignore[arg-type]

    def by_regression() -> Array:
        p = cross_val_predict(LogisticRegression(max_iter=200), x, y, cv=5, method="predict_proba")
        return confident_learning(y, p)[0]

    return {
        "derivative, left out": lambda: -np.asarray(fitted().gradient()),
        "derivative, judged": lambda: influence(fitted(), judge),
        "removal": lambda: removal(fitted(), judge),
        "residual": lambda: residual(fitted()),
        "margin": lambda: margin(fitted()),
        "k-NN Shapley": lambda: knn_shapley(x, y, judge),
        "TracIn": lambda: tracin(x, y, judge, softmax_regression_checkpoints(x, y)),
        "TRAK": lambda: trak(x, y, judge, softmax_regression_checkpoints(x, y)[-1][1]),
        "learnt weights": lambda: learnt_weights(x, y, judge),
        "closeness": lambda: closeness_weights(x, y),
        "confident learning, left out": lambda: confident_learning(y, softmax(3 * fitted().leave_one_out().predictions, axis=1))[0],
        "confident learning, 5 folds": by_regression,
    }
