"""What the learners of this room share: a causal model behind the usual names, and a report of assumptions."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from elsewhere.causal.codecs import NetworkCodec
from elsewhere.causal.data import Environments
from elsewhere.causal.metrics import mean_correlation
from elsewhere.causal.model import CausalModel, LinearCodec, Mechanisms
from elsewhere.causal.predictions import Latents, Outcomes
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.data import Array, Data
from elsewhere.errors import NotOffered, UserError
from elsewhere.learner import Learner
from elsewhere.run import Run

if TYPE_CHECKING:
    import pandas as pd

D = TypeVar("D", bound=Data)
STATES = ("checked", "failed", "untestable", "measured")
DRAWN = 4000  # latents that are decoded where a distribution has no closed form


def assumed(assumption: str, state: str, detail: str = "") -> dict[str, str]:
    """Return one assumption of a method, what became of it on the data (checked, failed, untestable; measured), and the number behind."""
    assert state in STATES
    return {"assumption": assumption, "state": state, "detail": detail}


class CausalLearner(Learner[D, Any], Generic[D]):
    """A learner whose ``fit`` leaves ``model_`` (a ``CausalModel``; None where the method finds no graph) and ``assumptions_``."""

    holds: ClassVar[tuple[type, ...]] = (CausalModel, LinearCodec, Mechanisms, NetworkCodec, Gaussian)
    no_graph: ClassVar[str] = ""  # why there is no graph, for methods that find none

    model_: CausalModel | None
    assumptions_: list[dict[str, str]]

    # --- the model's own names ---

    @property
    def model(self) -> CausalModel:
        """The causal model; raises ``NotOffered`` where the method identifies none."""
        found = self.__dict__.get("model_")
        if found is None:
            raise NotOffered(self.no_graph or f"{type(self).__name__} is not fitted")
        return found

    @property
    def graph(self) -> Array:
        """Adjacency [n, n] of the latents: [i, j] is True where i → j."""
        return self.model.graph

    @property
    def mechanisms(self) -> Mechanisms:
        """The structural equations of the latents."""
        return self.model.mechanisms

    def to_networkx(self) -> Any:
        """Return the graph as a ``networkx.DiGraph``."""
        return self.model.to_networkx()

    def encode(self, x: Any) -> Array:
        """Return the latents [N, n] of observations."""
        return self.model.encode(x)

    def decode(self, z: Array) -> Array:
        """Return observations of latents [N, n]."""
        return self.model.decode(z)

    def do(self, what: Any, size: int = 1000, seed: int = 0, strength: float = 1.0) -> Array:
        """Draw observations under interventions; see ``CausalModel.do``."""
        return self.model.do(what, size, seed, strength)

    def sample(self, size: int = 1000, seed: int = 0) -> Array:
        """Draw observations where nothing is done."""
        return self.model.sample(size, seed)

    def report(self, data: Any = None) -> pd.DataFrame:
        """Return the assumptions: checked, failed or untestable, with what was seen; and the MCC where the truth is attached to the source or to ``data``."""
        import pandas as pd

        told = [*self.assumptions_]
        if data is not None:
            told = [a for a in told if a["state"] != "measured"] + measured(self, data)
        return pd.DataFrame(told, columns=["assumption", "state", "detail"])

    # --- the contracts ---

    def represent(self, data: D, run: Run = Run()) -> Array:
        """Return the latents [N, n]."""
        return self.encode(observations(data))

    def predict(self, data: Any, run: Run = Run()) -> Any:
        """Return ``Latents`` of observations, or ``Outcomes`` of ``Interventions``."""
        if isinstance(data, Interventions):
            return self.outcomes(data)
        return Latents(self.represent(data, run), names=self.model_.latents if self.model_ is not None else ())

    def outcomes(self, asked: Interventions) -> Outcomes:
        """Return what is observed under each question."""
        if self.__dict__.get("model_") is None:
            return Outcomes(None, asked, self.no_graph)
        if asked.of == "latents":
            return Outcomes(None, asked, f"{type(self).__name__} knows no true latents: read them out (read-out:encoder=…)")
        return answered(self.model, asked, self.__dict__.get("features_") or ())

    def beside(self) -> Mapping[str, bytes]:
        """Return files for people beside a saved model: the graph as CSV and JSON, the report."""
        found = {"report.json": json.dumps(self.assumptions_, indent=1).encode()}
        model = self.__dict__.get("model_")
        if model is not None:
            import pandas as pd

            buffer = io.StringIO()
            pd.DataFrame(model.mechanisms.weights, index=list(model.latents), columns=list(model.latents)).to_csv(buffer)
            edges = [{"from": model.latents[i], "to": model.latents[j], "weight": float(model.mechanisms.weights[i, j])} for i, j in np.argwhere(model.graph)]
            found |= {"graph.csv": buffer.getvalue().encode(), "graph.json": json.dumps({"latents": list(model.latents), "edges": edges}, indent=1).encode()}
        return found


def observations(data: Any) -> Any:
    """Return the observations x [N, …] of any data of this room, or an array as it is."""
    x = data.inputs if hasattr(data, "inputs") else data
    if x is None:
        raise UserError("these data hold questions and no observations to encode")
    return x


def answered(model: CausalModel, asked: Interventions, features: Sequence[str] = (), size: int = DRAWN) -> Outcomes:
    """Return the model's answers: normal distributions where the codec is linear, rows that are drawn and decoded else."""
    strength: list[float] = np.asarray(asked.strength, float).tolist()
    if not model.hard:
        return Outcomes(None, asked, "soft interventions identify no latent alone: do(…) is not defined")
    if isinstance(model.codec, LinearCodec):
        return Outcomes(tuple(model.moments_of(list(asked.do), strength)), asked, features=tuple(features))
    z = model.do_latents(list(asked.do), size, asked.seed, strength)
    return Outcomes(tuple(model.decode(one).reshape(size, -1) for one in z), asked, features=tuple(features))


def measured(learner: Any, data: Any) -> list[dict[str, str]]:
    """Return the MCC of a fitted learner's latents with the truth attached to observational data, if there is any."""
    truth = getattr(data, "latents", None)
    if truth is None or not isinstance(data, Environments):
        return []
    rows = np.flatnonzero(np.asarray(data.environment) == 0)
    if len(rows) < 4:
        return []
    z = learner.represent(data.take(rows))
    shape = "" if z.shape[1] == truth.shape[1] else f"; {truth.shape[1]} true latents against {z.shape[1]}: the matrix of correlations is rectangular"
    return [assumed("mean correlation with the true latents (MCC)", "measured", f"{mean_correlation(np.asarray(truth)[rows], z):.3f}{shape}")]


def checked_environments(data: Environments, latents: int | None, per_environment: int = 10) -> int:
    """Return the number of latents, or raise where environments and latents do not fit together (spec 05, 10)."""
    names = list(data.names)
    counts = np.bincount(np.asarray(data.environment), minlength=len(names))
    told = ", ".join(f"{n} {c:,}" for n, c in list(zip(names, counts, strict=True))[:12]) + (", …" if len(names) > 12 else "")
    if not counts[0]:
        raise UserError(f"no row is observational (environment 0, {names[0]!r}): the method compares every intervention with where nothing was done; there are: {told}")
    n = len(names) - 1 if latents is None else latents
    if twice := sorted({a for a in names if names.count(a) > 1}):
        raise UserError(f"environment {twice[0]!r} is there twice: unlabelled duplicates of one intervention must be merged into one; there are: {told}")
    if len(names) - 1 != n:
        more = "fewer" if len(names) - 1 < n else "more"
        hint = "name each latent's intervention once" if more == "fewer" else "merge environments that act on the same latent (unlabelled duplicates), or leave some away"
        raise UserError(f"{len(names) - 1} interventional environments for {n} latents, {more} than one each: {hint}; there are: {told}")
    if (few := [k for k, c in enumerate(counts) if c < per_environment * n]) and per_environment:
        raise UserError(f"environment {names[few[0]]!r} has {counts[few[0]]} observations, fewer than {per_environment} a latent ({per_environment * n}); there are: {told}")
    return n


def checked_columns(data: Environments) -> None:
    """Raise where a feature is constant or holds what is no number, naming it and the environment."""
    x = data.inputs
    if np.ndim(x) != 2:
        return
    names = data.features or [f"x{k + 1}" for k in range(np.shape(x)[1])]
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for e, name in enumerate(data.names):  # one environment at a time: x may be a memory map
        block = np.asarray(data.of(e))
        if not len(block):
            continue
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise UserError(f"feature {names[column]!r} has {int(bad[:, column].sum())} missing or infinite values in environment {name!r}, first in its row {row}")
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
    still = np.flatnonzero(low == high)
    if len(still):
        raise UserError(f"feature {names[still[0]]!r} is constant: leave it out")
