"""Linear causal disentanglement from one intervention on each latent (spec 05, A)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from elsewhere.causal import linear
from elsewhere.causal.data import Environments
from elsewhere.causal.learning import CausalLearner, assumed, checked_columns, checked_environments, measured
from elsewhere.causal.model import CausalModel, LinearCodec
from elsewhere.causal.moments import Moments
from elsewhere.causal.questions import Interventions
from elsewhere.errors import UserError
from elsewhere.run import Run
from elsewhere.task import Source

LIMIT = 4.0  # times √(n/N): the third eigenvalue above which linear mixing of single targets is doubted


@dataclass
class LinearInterventional(CausalLearner[Environments]):
    """Find latents, graph and mechanisms from covariances and means of environments, in closed form (spec 05, A).

    Assumes a linear injective mixing and, besides the observational environment, one that intervenes on each latent, which one unknown. With hard
    interventions latents are identified up to order and scale, with their graph; with soft ones up to their ancestors. Latent m is the one that
    environment m acts on; latents have unit variance and mean 0 where nothing is done.

    Args:
        latents: how many; default: as many as interventional environments.
        interventions: "hard" cut their target from its causes, "soft" change how it depends on them.
        shifts: use what interventions do to means.
        evidence: of who is before whom: "score", "change" or "both".
        search: improve the order by its likelihood.
        rule: "tests", or the "reference"'s thresholds over all orders, to compare with.
        scores: "gaussian" in closed form, or "network": sliced score matching, for latents that are far from normal.

    Raises:
        UserError: environments and latents do not fit together, x has too small a rank, or an environment differs in nothing.

    Examples:
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> world = linear_gaussian_world(3, 6, shifts=True)
        >>> model = LinearInterventional().fit(Source(world.environments(2000, np.random.default_rng(0))))
        >>> model.do(("env_1", "env_2"), size=5).shape, model.graph.shape
        ((5, 6), (3, 3))
    """

    revision: ClassVar[int] = 1
    answers: ClassVar[tuple[type, ...]] = (Interventions,)

    latents: int | None = None
    interventions: Literal["hard", "soft"] = "hard"
    shifts: bool = True
    evidence: Literal["both", "score", "change"] = "both"
    search: bool = True
    rule: Literal["tests", "reference"] = "tests"
    scores: Literal["gaussian", "network"] = "gaussian"

    @property
    def accepts(self) -> type:
        return Environments

    def refuses(self, source: Source[Any]) -> str | None:
        try:
            self._check(source.train)
        except UserError as error:
            return str(error)
        return None

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        data = source.train
        n = self._check(data)
        x = data.inputs if np.ndim(data.inputs) == 2 else np.asarray(data.inputs).reshape(len(data), -1)
        moments = Moments.of(x, data.environment, n + 1)
        self.features_ = list(data.features) if data.features is not None else []
        _check_rank(moments, data, n)
        s = linear.scores(moments, n, self.shifts, self._shrinkage(x, data, n))
        if self.scores == "network":
            s = self._network_scores(s, x, data, moments, run)
        self.assumptions_ = [*_assumptions(s, data.names, n, self.interventions), *_environment_checks(s, data.names)]
        hard = self.interventions == "hard"
        found = linear.solve(s, self.rule, self.evidence, self.search, hard)
        decoder = np.linalg.pinv(found.encoder)
        codec = LinearCodec(found.encoder, decoder, moments.mean[0], _residual(moments, found.encoder, decoder))
        names = tuple(f"z{k + 1}" for k in range(n))
        own = np.r_[-1, np.arange(n)]
        self.model_ = CausalModel(names, tuple(map(str, data.names)), codec, found.mechanisms, own, np.r_[0.0, found.means], np.r_[0.0, found.variances], hard)
        self.before_, self.order_ = found.before, [int(k) for k in found.order]
        self.third_ = linear.third_eigenvalues(s)
        self.limit_ = _limit(s, n)
        self.assumptions_ += measured(self, data)
        return self

    def _check(self, data: Environments) -> int:
        n = checked_environments(data, self.latents)
        checked_columns(data)
        if self.rule == "reference" and n > linear.REFERENCE_UP_TO:
            raise UserError(f"rule='reference' looks at all orders of the latents, and {n} have {n}!: at most {linear.REFERENCE_UP_TO}; rule='tests' has no such limit")
        width = int(np.prod(np.shape(data.inputs)[1:]))
        if width < n:
            raise UserError(f"x has {width} columns, fewer than the {n} latents: a linear mixing of them cannot be undone")
        return n

    def _shrinkage(self, x: Any, data: Environments, n: int) -> float:
        if len(x) >= x.shape[1]:
            return 0.0
        warnings.warn(f"x has {x.shape[1]:,} columns and {len(x):,} rows: covariances are shrunk (Ledoit & Wolf); collect more rows, or fewer columns", UserWarning, stacklevel=3)
        basis = np.linalg.svd(np.asarray(x, float) - np.asarray(x, float).mean(0), full_matrices=False)[2][:n].T
        return linear.ledoit_wolf(np.asarray(x, float)[np.asarray(data.environment) == 0] @ basis)

    def _network_scores(self, s: linear.Scores, x: Any, data: Environments, moments: Moments, run: Run) -> linear.Scores:
        from elsewhere.causal.score_matching import score_differences

        return score_differences(s, [(np.asarray(data.of(e), float).reshape(-1, x.shape[1]) - moments.mean[0]) @ s.basis for e in range(len(data.names))], run)


def _check_rank(moments: Moments, data: Environments, n: int) -> None:
    """Raise where the observations of an environment vary in fewer directions than there are latents."""
    basis, values = linear.support(moments, n)
    rank = int((values > values[0] * 1e-10).sum())
    if rank < n:
        raise UserError(f"x has rank {rank} over all environments but latents={n}: it cannot hold so many variables")
    inside = np.einsum("di,mde,ej->mij", basis, moments.covariance, basis, optimize=True)
    for k, name in enumerate(data.names):
        value = np.linalg.eigvalsh(inside[k])
        found = int((value > value[-1] * 1e-10).sum())
        if found < n:
            raise UserError(f"x has rank {found} in environment {str(name)!r} but latents={n}: its covariance is singular; leave a redundant latent away, or look at what that environment holds still")


def _limit(s: linear.Scores, n: int) -> float:
    return LIMIT * float(np.sqrt(n / np.median(s.count)))


def _assumptions(s: linear.Scores, names: tuple[str, ...], n: int, interventions: str) -> list[dict[str, str]]:
    """Return the assumptions of the method with what the data say of them; warn where linear mixing of single targets is doubted."""
    third, limit = linear.third_eigenvalues(s), _limit(s, n)
    middle = float(np.median(third)) if len(third) else 0.0
    said = f"median third eigenvalue {middle:.3f}, at most {limit:.3f} expected; largest in {names[int(third.argmax()) + 1]!r}: {third.max():.3f}"
    failed = n > 2 and middle > limit
    if failed:
        warnings.warn(
            f"linear mixing and interventions on one latent each are doubtful ({said}): look at what each environment does, or use contrastive-interventional",
            UserWarning,
            stacklevel=4,
        )
    testable = "untestable" if n <= 2 else "failed" if failed else "checked"
    soft = "targets keep their causes: latents are mixed with their ancestors" if interventions == "soft" else "assumed; soft ones would leave latents mixed with their ancestors"
    return [
        assumed("the mixing is linear and each environment acts on one latent (rank of the change at most 2)", testable, said if n > 2 else "two latents leave no third eigenvalue"),
        assumed("every latent is acted on by exactly one environment", "untestable", f"{n} environments for {n} latents; unlabelled duplicates would have to be merged"),
        assumed("interventions are " + interventions, "untestable", soft),
        assumed("no noise beside the latents", "untestable", "variance outside the latents' directions is kept as a residual"),
    ]


def _environment_checks(s: linear.Scores, names: tuple[str, ...]) -> list[dict[str, str]]:
    """Return that every environment differs from the observational one, or raise with the name of one that does not."""
    change, doubt = linear.largest_eigenvalues(s), linear.same_as_observational(s)
    if (doubt > linear.LEVEL).any():
        k = int(doubt.argmax())
        raise UserError(
            f"environment {str(names[k + 1])!r} looks observational: the largest eigenvalue of its change is {change[k]:.3f}, no more than chance makes (p = {doubt[k]:.3f}): leave it away"
        )
    weakest = int(change.argmin())
    return [assumed("every environment differs from the observational one", "checked", f"weakest: {names[weakest + 1]!r}, largest eigenvalue of its change {change[weakest]:.3f}")]


def _residual(moments: Moments, encoder: Any, decoder: Any) -> Any:
    """Return the covariance of what the latents leave of x where nothing is done; None where it is nothing."""
    rest = np.eye(decoder.shape[0]) - decoder @ encoder
    left = rest @ moments.covariance[0] @ rest.T
    return left if np.trace(left) > 1e-9 * np.trace(moments.covariance[0]) else None
