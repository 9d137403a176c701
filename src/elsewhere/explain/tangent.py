"""Networks linearised at their weights, and the dataset derivative of the output-coupled form (spec 13, 2.7; Achille et al., CVPR 2021)."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explain.judging import Loss, slopes
from elsewhere.explain.rows import Targets
from elsewhere.identity import digest
from elsewhere.nn.learners import before, first_of

Layers = Literal["penultimate", "last", "all"] | Sequence[str]
STORED_UP_TO = 200_000_000  # numbers of the projection kept at once; a larger one is applied direction by direction, as jvps
RIDGES = np.logspace(-6, 3, 30)


def parameters_of(network: nn.Module, layers: Layers) -> dict[str, Tensor]:
    """Return the parameters of "last" (the last linear layer), "all", or of the layers named.

    Examples:
        >>> list(parameters_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), "last"))
        ['2.weight', '2.bias']
    """
    every = {name: p.detach() for name, p in network.named_parameters()}
    if layers == "all":
        return every
    if layers == "last":
        linear = [name for name, m in network.named_modules() if isinstance(m, nn.Linear)]
        if not linear:
            raise UserError(f"{type(network).__name__} has no linear layer: name layers")
        layers = linear[-1:]
    known = dict(network.named_modules())
    for name in layers:
        if name not in known:
            raise UserError(f"the network has no layer {name!r}{did_you_mean(name, known)}")
    return {k: p for k, p in every.items() if any(not n or k.startswith(f"{n}.") for n in layers)}


def direction(parameters: Mapping[str, Tensor], seed: int, k: int, project: int) -> dict[str, Tensor]:
    """Return the k-th random direction over parameters: signs over √project, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + k)
    total = sum(p.numel() for p in parameters.values())
    signs = (torch.randint(0, 2, (total,), generator=generator, dtype=torch.int8).float() * 2 - 1) / project**0.5
    found, at = {}, 0
    for name, p in parameters.items():
        found[name] = signs[at : at + p.numel()].view(p.shape).to(p)
        at += p.numel()
    return found


class Linearised(nn.Module):
    """A network linearised at its weights: f(x; w₀) + ∇_w f(x; w₀) · Δ, by one forward-mode pass (``torch.func.jvp``).

    Args:
        network: in evaluation mode from then on.
        layers: whose parameters move.

    Examples:
        >>> net = nn.Linear(2, 1); line = Linearised(net, "all"); x = torch.ones(1, 2)
        >>> line.move({k: torch.ones_like(p) for k, p in net.named_parameters()})
        >>> bool(torch.isclose(line(x) - net(x), torch.tensor(3.0)))  # linear already: Δ·(x, 1)
        True
    """

    def __init__(self, network: nn.Module, layers: Layers = "all") -> None:
        super().__init__()
        self.network = network.eval()
        self.parameters_ = parameters_of(network, "last" if layers == "penultimate" else layers)
        self.delta = nn.ParameterDict({_key(k): nn.Parameter(torch.zeros_like(p)) for k, p in self.parameters_.items()})
        for p in network.parameters():
            p.requires_grad_(False)

    def move(self, delta: Mapping[str, Tensor]) -> None:
        """Set Δ."""
        for name, value in delta.items():
            self.delta[_key(name)].data.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        out, moved = torch.func.jvp(lambda p: self._outputs(p, x), (self.parameters_,), ({k: self.delta[_key(k)] for k in self.parameters_},))
        made: Tensor = out + moved
        return made

    def _outputs(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        made = first_of(torch.func.functional_call(self.network, dict(parameters), (x,)))
        return made if made.ndim == 2 else made[:, None]


def _key(name: str) -> str:
    return name.replace(".", "\u00b7")  # a ParameterDict takes no dots


def leaky(network: nn.Module, slope: float = 0.1) -> nn.Module:
    """Return a copy with leaky ReLU in the place of ReLU, as linear-quadratic fine-tuning has it: linearised units that were off still move."""
    made = copy.deepcopy(network)
    for parent in made.modules():
        for name, child in parent.named_children():
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.LeakyReLU(slope))
    return made


def jacobians(network: nn.Module, x: Tensor, layers: Layers = "last", project: int | None = None, seed: int = 0, chunk: int = 32) -> tuple[Tensor, Tensor]:
    """Return outputs [n, outputs] and their Jacobians [n, outputs, parameters] by the parameters of some layers, perhaps projected to ``project`` numbers.

    The projection is a seeded Rademacher matrix over √project; Jacobians come from ``torch.func.vmap(jacrev)`` in chunks. Where the
    projection would take more than STORED_UP_TO numbers it is applied direction by direction as Jacobian-vector products.

    Examples:
        >>> out, j = jacobians(nn.Linear(3, 2), torch.ones(5, 3), "all")
        >>> tuple(out.shape), tuple(j.shape)
        ((5, 2), (5, 2, 8))
    """
    network = network.eval()
    given = parameters_of(network, layers)
    total = sum(p.numel() for p in given.values())
    line = Linearised(copy.deepcopy(network), layers)
    stored = project is None or total * project <= STORED_UP_TO
    matrix = None
    if project is not None and stored:
        matrix = torch.stack([_flat(direction(given, seed, k, project)) for k in range(project)], 1)
    outs, found = [], []
    for part in x.split(chunk):
        with torch.no_grad():
            outs.append(line._outputs(given, part))
        if stored:
            each = torch.func.vmap(torch.func.jacrev(lambda p, one: line._outputs(p, one[None])[0]), (None, 0))(given, part)
            j = torch.cat([v.flatten(2) for v in each.values()], 2)
            found.append((j if matrix is None else j @ matrix.to(j)).detach())
        else:
            assert project is not None
            columns = [torch.func.jvp(lambda p, part=part: line._outputs(p, part), (given,), (direction(given, seed, k, project),))[1] for k in range(project)]
            found.append(torch.stack(columns, 2).detach())
    return torch.cat(outs), torch.cat(found)


def _flat(parameters: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([p.flatten() for p in parameters.values()])


@dataclass(frozen=True)
class Features:
    """What ``linearise`` made: features [n, d] (or Jacobians [n, outputs, d]), memory-mapped where a folder is given; outputs [n, outputs]; ids [n]; and how."""

    array: Array
    outputs: Array
    ids: Array
    about: Mapping[str, Any]


def linearise(network: nn.Module, loader: Any, layers: Layers = "penultimate", project: int | None = None, folder: str | os.PathLike[str] | None = None, seed: int = 0) -> Features:
    """Return what the dataset derivative stands on: penultimate features, or (projected) Jacobians of layers, of every example of a loader.

    Args:
        network: any torch or timm module of inputs; gives outputs [b, outputs], or a tuple that begins with them.
        loader: tensors [b, ...] or tuples that begin with them, in a fixed order; ids are their places.
        layers: "penultimate" (what the last linear layer sees), "last", "all", or names of layers.
        project: Jacobians to so many numbers.
        folder: keeps a memory-mapped ``.npy`` and a JSON header with hashes of weights and inputs; read again where both agree.

    Examples:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> linearise(net, torch.zeros(10, 2, 4)).array.shape  # a loader of 10 batches of 2
        (20, 8)
    """
    weights = digest([[k, float(v.double().sum()), float(v.double().square().sum())] for k, v in network.state_dict().items()])
    about = {"network": type(network).__name__, "weights": weights, "layers": layers if isinstance(layers, str) else list(layers), "project": project, "seed": seed}
    if folder is not None:
        about["order"] = digest([[list(b.shape), float(b.double().sum()), float((b.double().flatten(1).sum(1) * torch.arange(1, len(b) + 1)).sum())] for b in _batches(loader)])
        kept = Path(folder) / f"{digest(about)}.npy"
        if not kept.with_suffix(".json").exists():
            array, outputs = _computed(network, loader, layers, project, seed)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, array)
            np.save(kept.with_suffix(".outputs.npy"), outputs)
            kept.with_suffix(".json").write_text(json.dumps(about))
        array, outputs = np.load(kept, mmap_mode="r"), np.load(kept.with_suffix(".outputs.npy"))
    else:
        array, outputs = _computed(network, loader, layers, project, seed)
    return Features(array, outputs, np.arange(len(array)), about)


def _computed(network: nn.Module, loader: Any, layers: Layers, project: int | None, seed: int) -> tuple[Array, Array]:
    made, outs = [], []
    for batch in _batches(loader):
        if layers == "penultimate":
            with torch.no_grad():
                outs.append(first_of(network.eval()(batch)))
                made.append(before(network, batch))
        else:
            out, j = jacobians(network, batch, layers, project, seed)
            outs.append(out)
            made.append(j)
    return torch.cat(made).numpy(), torch.cat(outs).numpy()


def _batches(loader: Any) -> Iterator[Tensor]:
    for batch in loader:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch


class TangentDerivative:
    """The dataset derivative where outputs share parameters: J_i [outputs, P], A = Σ α_i J_iᵀJ_i + λ I, H_i = J_i A⁻¹ J_iᵀ (spec 13, 2.7).

    Args:
        ridge: λ, or "loo".
        dual: solve among examples instead of parameters; None: where that is smaller. Exact: Jacobians are turned into the axes of their Gram matrix.

    Examples:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)); x = torch.randn(20, 4)
        >>> out, j = jacobians(net, x, "all")
        >>> TangentDerivative(ridge=1.0).fit(j, np.arange(20) % 3, out).gradient().shape
        (20,)
    """

    def __init__(self, ridge: float | Literal["loo"] = "loo", dual: bool | None = None) -> None:
        self.ridge, self.dual = ridge, dual

    def fit(self, given: Any, labels: Any, offsets: Any = None, sample_weight: Any = None, classes: Any = None) -> Self:
        """Fit on Jacobians [n, outputs, P], labels as ``DatasetDerivative`` takes them, and what the network gives before it moves, [n, outputs]."""
        j = torch.as_tensor(np.asarray(given), dtype=torch.float64)
        if j.ndim != 3:
            raise UserError(f"Jacobians have shape {tuple(j.shape)}; expected [n, outputs, parameters]")
        self.targets_ = Targets.of(labels, classes)
        if len(j) != len(self.targets_) or j.shape[1] != self.targets_.outputs:
            raise UserError(f"Jacobians of {len(j)} examples and {j.shape[1]} outputs do not fit {len(self.targets_)} labels of {self.targets_.outputs}")
        self.axes_ = _axes(j) if (j.shape[0] * j.shape[1] < j.shape[2] if self.dual is None else self.dual) else None
        self.jacobian_ = j if self.axes_ is None else j @ self.axes_
        self.weight_ = torch.ones(len(j), dtype=torch.float64) if sample_weight is None else torch.as_tensor(np.asarray(sample_weight), dtype=torch.float64)
        wanted = self.targets_.part(slice(None), torch.float64)
        self.wanted_ = wanted if offsets is None else wanted - torch.as_tensor(np.asarray(offsets), dtype=torch.float64)
        if self.ridge == "loo":
            scale = float(self.jacobian_.square().sum((1, 2)).mean())
            errors = []
            for ridge in RIDGES * scale:
                self._solve(float(ridge))
                errors.append(float(self.residuals_.square().sum()))
            self._solve(float(RIDGES[int(np.argmin(errors))] * scale))
        else:
            self._solve(float(self.ridge))
        return self

    def _solve(self, ridge: float) -> None:
        j, alpha = self.jacobian_, self.weight_
        if ridge <= 0:
            raise UserError(f"ridge must be above 0, not {ridge:g}")
        self.ridge_ = ridge
        a = torch.einsum("icp,icq->pq", alpha[:, None, None] * j, j) + ridge * torch.eye(j.shape[2], dtype=torch.float64)
        self.inverse_ = torch.cholesky_inverse(torch.linalg.cholesky(a))
        self.moved_ = self.inverse_ @ torch.einsum("icp,ic->p", alpha[:, None, None] * j, self.wanted_)
        self.errors_ = self.wanted_ - j @ self.moved_
        self.leverage_ = j @ self.inverse_ @ j.transpose(1, 2)
        self.system_ = torch.eye(j.shape[1], dtype=torch.float64) - alpha[:, None, None] * self.leverage_
        self.residuals_ = torch.linalg.solve(self.system_, self.errors_)

    def coefficients(self) -> Array:
        """Return how the (projected) parameters move, [P]."""
        moved = self.moved_ if self.axes_ is None else self.axes_ @ self.moved_
        return moved.numpy()

    def decision_function(self, given: Any, offsets: Any = None) -> Array:
        """Return f⁰ + J w [m, outputs] of other Jacobians."""
        made = self._turned(given) @ self.moved_
        return (made if offsets is None else made + torch.as_tensor(np.asarray(offsets), dtype=torch.float64)).numpy()

    def leave_one_out(self) -> Array:
        """Return the predictions [n, outputs] of each example when it is left out."""
        return (self.targets_.part(slice(None), torch.float64) - self.residuals_).numpy()

    def gradient(self, judge: Any = "leave-one-out", loss: Loss = "squared") -> Array:
        """Return the derivative [n] of the leave-one-out loss, or of the loss on (Jacobians, labels, offsets) that judge, by the weight of each example.

        g_j = ⟨J_j C Σ_i u_i, E_j⟩ + tr(J_j M J_jᵀ) - U_jᵀ H_j R_j,  u_i = J_iᵀU_i,  U_i = (I - α_i H_i)⁻¹ G_i,  M = C (Σ α_i r_i u_iᵀ) C.
        """
        j = self.jacobian_
        if isinstance(judge, str):
            wanted = self.targets_.part(slice(None), torch.float64)
            u = torch.linalg.solve(self.system_, slopes(loss, wanted - self.residuals_, wanted))
            r_down, u_down = torch.einsum("icp,ic->ip", j, self.residuals_), torch.einsum("icp,ic->ip", j, u)
            m = self.inverse_ @ ((self.weight_[:, None] * r_down).T @ u_down) @ self.inverse_
            first = torch.einsum("ic,ic->i", j @ (self.inverse_ @ u_down.sum(0)), self.errors_)
            second = torch.einsum("icp,pq,icq->i", j, m, j)
            third = torch.einsum("ic,icd,id->i", u, self.leverage_, self.residuals_)
            return (first + second - third).numpy()
        v, labels, *rest = judge
        turned = self._turned(v)
        told = Targets.of(np.asarray(labels), self.targets_.classes if np.ndim(labels) == 1 else None).part(slice(None), torch.float64)
        offset = torch.as_tensor(np.asarray(rest[0]), dtype=torch.float64) if rest and rest[0] is not None else 0.0
        s = self.inverse_ @ torch.einsum("icp,ic->p", turned, slopes(loss, turned @ self.moved_ + offset, told))
        return torch.einsum("ic,ic->i", j @ s, self.errors_).numpy()

    def _turned(self, given: Any) -> Tensor:
        j = torch.as_tensor(np.asarray(given), dtype=torch.float64)
        return j if self.axes_ is None else j @ self.axes_


def _axes(j: Tensor) -> Tensor:
    """Return the directions [P, r] among parameters that the rows of all Jacobians span: the dual, as a change of axes."""
    flat = j.flatten(0, 1)
    level, vectors = torch.linalg.eigh(flat @ flat.T)
    kept = level > level.max() * 1e-13
    return flat.T @ (vectors[:, kept] / level[kept].sqrt())
