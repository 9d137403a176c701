"""Group heads fitted again on shuffled groups: how much of a measure of treatment chance alone would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elsewhere.data import Array

SHUFFLES = 200
RIDGE = 4.0  # over n: about the shrinkage of logistic regression with C = 1 near the null


def shuffled_groups(
    s: Array,
    unit: Array | None,
    times: int,
    rng: np.random.Generator,
) -> Array:
    """Return the groups as they are, then ``times`` shuffles of them [1 + times, n].

    Groups go to units as a whole where every unit has one group: rows of one person are not
    exchangeable with those of another. Otherwise rows are shuffled.

    Args:
        s: group codes [n].
        unit: which person or writer a row belongs to [n], where rows are not independent.
        times: number of shuffles.
        rng: source of chance.

    Returns:
        Codes [1 + times, n].

    Examples:
        >>> s, who = np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "b"])
        >>> made = shuffled_groups(s, who, 50, np.random.default_rng(0))
        >>> made.shape, bool((made[:, 0] == made[:, 1]).all())
        ((51, 4), True)
    """
    at, members = np.arange(len(s)), s
    if unit is not None:
        _, first, codes = np.unique(unit, return_index=True, return_inverse=True)
        if (s[first][codes] == s).all():
            at, members = codes, s[first]
    return np.stack([s, *(rng.permutation(members)[at] for _ in range(times))])


def discriminants(z: Array, groups: Array) -> Array:
    """Return the weights of the linear discriminant of each grouping [k, d].

    With means m₀, m₁ of the groups and their shares π: w = S⁻¹ δ, δ = m₁ - m₀, S the pooled
    covariance plus 4 I / n. All groupings share one Cholesky factor of the total covariance
    T: S = T - π₀ π₁ δ δᵀ, inverted by Sherman and Morrison (Hastie, Tibshirani & Friedman,
    The Elements of Statistical Learning, 4.3).

    Args:
        z: features [n, d], standardised.
        groups: codes 0 and 1 [k, n].

    Returns:
        Weights of the log-odds of the second group.

    Examples:
        >>> z = np.array([[-1.0], [-1.0], [1.0], [1.0]])
        >>> w = discriminants(z, np.array([[0, 0, 1, 1], [1, 1, 0, 0]]))
        >>> bool(w[0, 0] > 0), np.allclose(w[0], -w[1])
        (True, True)
    """
    from scipy.linalg import cho_factor, cho_solve

    n, d = z.shape
    ones = groups.sum(1)[:, None]
    second = groups @ z / ones
    first = (z.sum(0) - groups @ z) / (n - ones)
    centred = z - z.mean(0)
    total = centred.T @ centred / n + RIDGE / n * np.eye(d)
    apart, shares = second - first, ones / n
    solved = cho_solve(cho_factor(total), apart.T).T
    explained = (shares * (1 - shares)) * (solved * apart).sum(1, keepdims=True)
    return np.asarray(solved / np.maximum(1 - explained, 1e-6))


def cut_at_share(g: Array, s: Array) -> float:
    """Return the score above which as many people lie as are of the second group.

    At log-odds 0 the head of a shuffled group would predict nobody to be of a smaller group: it
    would split nobody, gain nothing, and make any gain of the real group look significant.

    Examples:
        >>> cut_at_share(np.array([0.0, 1.0, 2.0, 4.0]), np.array([0, 0, 1, 0]))
        3.0
    """
    first = len(s) - int(s.sum())
    around = np.partition(g, [first - 1, first])[first - 1 : first + 1]
    return float(around.mean())


@dataclass(frozen=True)
class GroupHeads:
    """One group head for the groups as they are (number 0) and one for each shuffle of them.

    Args:
        weights: of the heads [k, d].
        z_fit, z_test: standardised features [n, d] that they were fitted on, and others [m, d].
        s_fit, s_test: the groups, as they are and shuffled [k, n] and [k, m].
    """

    weights: Array
    z_fit: Array
    z_test: Array
    s_fit: Array
    s_test: Array

    def __len__(self) -> int:
        return len(self.weights)

    def scores(self, k: int) -> tuple[Array, Array]:
        """Return the scores of head ``k`` on both parts [n] and [m].

        Log-odds of the second group, shifted: above 0 are as many people of the first part as are
        of that group, and these are predicted to be of it.
        """
        g, v = self.z_fit @ self.weights[k], self.z_test @ self.weights[k]
        cut = cut_at_share(g, self.s_fit[k])
        return g - cut, v - cut

    def areas(self) -> Array:
        """Return the area under the curve [k] of each head on the second part."""
        return np.array([area(self.scores(k)[1], self.s_test[k]) for k in range(len(self))])


def group_heads(
    z: tuple[Array, Array],
    s: tuple[Array, Array],
    unit: tuple[Array | None, Array | None] = (None, None),
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> GroupHeads:
    """Return group heads on frozen features, fitted on one part: as the groups are, and shuffled.

    If groups are random with respect to features and decisions, the first head cannot be told from
    the others: any statistic of it has its permutation distribution from them. This needs features
    that were not trained on the groups of these parts.

    Args:
        z: features of the part to fit on [n, d] and of the part to judge on [m, d].
        s: group codes 0 and 1 of both.
        unit: units of both, where rows are not independent.
        shuffles: how many.
        seed: of the shuffles.

    Returns:
        The heads, number 0 for the groups as they are.

    Examples:
        >>> rng = np.random.default_rng(0); s = rng.integers(2, size=400)
        >>> z = rng.normal(size=(400, 3)) + s[:, None]
        >>> areas = group_heads((z[:200], z[200:]), (s[:200], s[200:]), shuffles=20).areas()
        >>> bool(areas[0] > 0.8 > areas[1:].max())
        True
    """
    rng = np.random.default_rng(seed)
    mean, deviation = z[0].mean(0), z[0].std(0)
    deviation = np.where(deviation > 1e-12, deviation, 1)
    fit, test = ((np.asarray(part, float) - mean) / deviation for part in z)
    groups = [shuffled_groups(s[k], unit[k], shuffles, rng) for k in (0, 1)]
    return GroupHeads(discriminants(fit, groups[0]), fit, test, groups[0], groups[1])


def area(scores: Array, s: Array) -> float:
    """Return the area under the curve (Mann and Whitney); NaN where a group is absent.

    Examples:
        >>> area(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
        0.875
    """
    from scipy.stats import rankdata

    n1 = int(s.sum())
    n0 = len(s) - n1
    if not n0 or not n1:
        return float("nan")
    return float((rankdata(scores)[s == 1].sum() - n1 * (n1 + 1) / 2) / (n0 * n1))
