"""Graph-relational domain adaptation: neighbours are aligned, not everybody."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from elsewhere.adapt.adversaries import Adversarial
from elsewhere.adapt.domain_graph import DomainGraph, graph_for, sampled
from elsewhere.adapt.domains import DomainBatch, domain_names, features_by_domain, parted
from elsewhere.batching import on_device
from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import train


@dataclass
class GraphRelational(Adversarial):
    """A discriminator tells from two encodings whether their domains are linked; the encoder, which is told the domain, prevents it (Xu et al. 2022).

    With d = D(e), s_uvk = d_uk · d_vk and l_uv the mean over k of BCE(s_uvk, A_uv):

    L_D = N/2 · [mean l_uv over linked pairs + mean l_uv over unlinked pairs];  the network minimises L_F - λ L_D, D minimises L_D.

    The two halves are part of the method: with them the equilibrium is s = 0, which a dot product can express. The factor N is the
    reference's, so that published values of ``weight`` hold. What is reached is not that all domains look alike, but that links cannot be
    told: neighbours are aligned, strangers need not be.

    Args:
        weight: λ.
        signed: s = dᵀ diag(+1 … -1 …) d' + b instead of the dot product (spec 08, equation 4): a complete graph needs it.
        self_pairs: "exclude", or "unlinked": two examples of one domain count as an unlinked pair.
        sample: domains whose pairs enter a step's loss; None: all pairs.
        discriminator_outputs: n_d.
        pairing: "independent": the k-th examples of two domains are drawn apart. "same-rows" draws the same rows of every domain, as a
            loader that indexes all of them alike does: where a file lists the classes in one order in each domain (DG-15 does), pairs then agree in class and
            tell the discriminator the labels that nobody may know. It is here to reproduce that, not to be used.
        graph: of the domains, where the source has none: "chain", "complete", a CSV of edges, a ``DomainGraph``.

    Examples:
        >>> from elsewhere.adapt.graph_tasks import spirals
        >>> task = spirals(num_domains=8, num_sources=3)
        >>> learner = GraphRelational(steps=5, sample=None).fit(task.source)
        >>> learner.predict(task.domains[-1].load().unlabelled()).classes().shape
        (100,)
    """

    weight: float = 0.5
    discriminator_rate: float = 3e-4
    discriminator_width: int = 64
    discriminator_depth: int = 5
    betas: tuple[float, float] = (0.9, 0.999)
    unlabelled: bool = True
    steps: int = 2000
    batch: int = 10
    learning_rate: float = 3e-4
    schedule: Literal["constant", "cosine", "stepwise", "halving"] = "halving"
    width: int | None = 64
    conditioning: Literal["none", "graph", "laplacian", "positions"] = "graph"
    signed: bool = False
    self_pairs: Literal["exclude", "unlinked"] = "exclude"
    sample: int | None = 10
    discriminator_outputs: int = 2
    pairing: Literal["independent", "same-rows"] = "independent"

    @property
    def pairs_rows(self) -> bool:  # type: ignore[override]
        return self.pairing == "same-rows"

    def refuses(self, source: Source[Examples]) -> str | None:
        if not source.unlabelled:
            return "it needs unlabelled data of other domains, which this task does not grant"
        try:
            names = domain_names(source)
            graph = graph_for(self.graph, source, names)
        except UserError as error:
            return str(error)
        if not graph.adjacency.any():
            return "the domain graph has no linked pair; use erm (source-only)"
        if graph.complete_graph and not (self.signed and self.self_pairs == "unlinked"):
            return "in a complete graph of domains a dot product aligns nothing: set signed=true and self_pairs=unlinked (it then acts as dann), or use dann"
        return None

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        if self.self_pairs not in ("exclude", "unlinked"):
            raise UserError(f"self_pairs must be exclude or unlinked, not {self.self_pairs!r}")
        if self.pairing not in ("independent", "same-rows"):
            raise UserError(f"pairing must be independent or same-rows, not {self.pairing!r}")
        if reason := self.refuses(source):
            raise UserError(reason)
        names = domain_names(source)
        graph = graph_for(self.graph, source, names)
        classes, labels = source.train.classes, source.train.labels
        if classes is not None and labels is not None and (absent := [str(c) for k, c in enumerate(classes) if not (np.asarray(labels) == k).any()]):
            raise UserError(f"class {absent[0]!r} is missing in all sources")
        _warn_of_strays(graph, source)
        at = np.array([graph.at[n] for n in names])
        self.adjacency_ = graph.adjacency[np.ix_(at, at)]
        if self.sample is not None and not self.sample >= 2:
            raise UserError(f"sample must be at least 2 domains, not {self.sample}")
        self._still = True
        fitted = super().fit(source, run)
        if self.weight:
            self.auc_ = self._auc(source, run)
            run.log(self.steps, **{"discriminator auc": self.auc_})
        return fitted

    def drawn(self, step: int, run: Run) -> Tensor | None:
        if self.sample is None or self.sample >= len(self.adjacency_):
            return None
        return torch.from_numpy(sampled(self.adjacency_, self.sample, run.rng(f"pairs {step}")))

    def _train(self, stepper: Any, draw: Any, held: Examples | None, run: Run) -> None:
        """Train; loss and accuracy by source domain are logged on the way."""

        def evaluate() -> dict[str, float]:
            told = {} if held is None else {"validation loss": self.mean_loss(held, run)}
            device = next(self.network_.parameters()).device
            batch = on_device(draw(self.steps), device)
            with torch.no_grad():
                made = self.network_(batch.inputs)
                each = self.by_domain(made, batch)
            told |= {f"loss in source {e}": float(v) for e, v in enumerate(each)}
            if self.classes_ is not None:
                right = (made.logits.argmax(1) == batch.labels).float()
                told |= {f"accuracy in source {e}": float(part.mean()) for e, part in enumerate(parted(right, batch.domain))}
            return told

        train(stepper, draw, run, steps=self.steps, evaluate=evaluate, patience=self.patience)

    def opponent(self, width: int) -> nn.Module:
        return PairDiscriminator(self.perceptron(width, self.discriminator_outputs), self.discriminator_outputs, self.signed)

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        adjacency = torch.from_numpy(self.adjacency_).to(features[0].device)
        codes = opponent(torch.stack(features))  # [N, b, n_d]
        return relation_loss(codes, adjacency, batch.sample, opponent.signs, opponent.bias, self.self_pairs == "unlinked")

    def moved(self, step: int, value: float) -> None:
        still = len(self.adjacency_) * float(np.log(2))
        self._still = self._still and abs(value - still) < 1e-3
        if self._still and step == -(-self.steps // 10) and step >= 10:
            warnings.warn("the discriminator has not moved in the first tenth of the training: nothing is being aligned", UserWarning, stacklevel=2)

    def discriminator_auc(self) -> float:
        """Return how well links were told at the end of training, on pairs drawn anew: 0.5 is aligned as far as the graph demands."""
        if not hasattr(self, "auc_"):
            raise UserError("there is no discriminator: the learner is not fitted, or its weight is 0")
        return self.auc_

    def _auc(self, source: Source[Examples], run: Run) -> float:
        from elsewhere.metrics.classification import area_under_roc

        draw, _ = self.draw(source, run)
        scores, truth = [], []
        u, v = np.triu_indices(len(self.adjacency_), 1)
        with torch.no_grad():
            for step in range(self.steps, self.steps + 5):
                _, features = features_by_domain(self.network_, draw(step))
                codes = self.adversary(torch.stack(features))
                logits = link_logits(codes, self.adversary.signs, self.adversary.bias)
                scores.append(logits[u, v].flatten().numpy())
                truth.append(np.repeat(self.adjacency_[u, v] > 0, logits.shape[2]))
        linked = np.concatenate(truth)
        return float("nan") if linked.all() else float(area_under_roc(np.concatenate(scores), linked).value)


class PairDiscriminator(nn.Module):
    """Codes d [.., n_d] of encodings; with ``signed`` half of the coordinates count negative and a bias is learned."""

    def __init__(self, inner: nn.Module, outputs: int, signed: bool) -> None:
        super().__init__()
        if signed and outputs % 2:
            raise UserError(f"a signed discriminator needs an even number of outputs, not {outputs}")
        self.inner = inner
        self.bias: Any = nn.Parameter(torch.zeros(())) if signed else None
        self.register_buffer("signs", torch.tensor([1.0, -1.0]).repeat_interleave(outputs // 2) if signed else None)
        self.signs: Any

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x.flatten(0, -2)).logits
        return made.view(*x.shape[:-1], -1)


def link_logits(codes: Tensor, signs: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return s_uvk = d_uk · d_vk, the k-th examples of two domains paired: [N, N, b] of codes [N, b, n_d]."""
    other = codes if signs is None else codes * signs
    logits = torch.einsum("ukd,vkd->uvk", other, codes)
    return logits if bias is None else logits + bias


def relation_loss(codes: Tensor, adjacency: Tensor, sample: Tensor | None = None, signs: Tensor | None = None, bias: Tensor | None = None, self_pairs: bool = False) -> Tensor:
    """Return L_D = N/2 [mean over linked pairs + mean over unlinked pairs] of BCE(s_uvk, A_uv) (spec 08, equation 2).

    Args:
        codes: d [N, b, n_d].
        adjacency: A [N, N] in [0, 1]; above 0 is linked, the value is the soft label.
        sample: the domains whose pairs count; None: all. A sample without linked or without unlinked pairs counts the other half twice.
        signs: of the coordinates, for the signed form.
        bias: of the signed form.
        self_pairs: two examples of one domain are an unlinked pair too.

    Examples:
        >>> a = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> round(relation_loss(torch.zeros(3, 4, 2), a).item() / 3, 4)  # nothing is told: log 2
        0.6931
    """
    n = len(codes)
    if sample is not None:
        codes, adjacency = codes[sample], adjacency[sample][:, sample]
    logits = link_logits(codes, signs, bias)
    each = softplus(logits).mean(2) - adjacency * logits.mean(2)
    off = 1 - torch.eye(len(codes), device=codes.device)
    linked = (adjacency > 0).to(codes.dtype) * off
    unlinked = off - linked
    total, count = (unlinked * each).sum(), unlinked.sum()
    if self_pairs:
        own = ((codes if signs is None else codes * signs) * codes.roll(1, 1)).sum(2)
        own = own if bias is None else own + bias
        # an unordered pair stands twice in the matrix, a domain with itself once: count it twice as well
        total, count = total + 2 * softplus(own).mean(1).sum(), count + 2 * len(codes)
    halves = [(linked * each).sum() / linked.sum().clamp(min=1), total / count.clamp(min=1)]
    present = [bool(linked.any()), bool(count > 0)]
    if all(present):
        return n / 2 * (halves[0] + halves[1])
    return n * halves[0 if present[0] else 1]


def alignment_gap(conditional: Array, adjacency: Array) -> float:
    """Return H(πᵀAπ) - E[H(α(e)ᵀ A α(e'))] ≥ 0 in nats, 0 where no discriminator of any kind could tell links (spec 08, 2.6).

    Args:
        conditional: p(e | u) [N, M] over M discrete (or binned) encodings.
        adjacency: A [N, N].

    Examples:
        >>> chain = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        >>> met = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])  # the middle is the mean of both ends
        >>> round(abs(alignment_gap(met, chain)), 6), alignment_gap(np.eye(3), chain) > 0.5
        (0.0, True)
    """
    p = np.asarray(conditional, float)
    joint = p / len(p)
    mass = joint.sum(0)
    used = mass > 0
    alpha = (joint[:, used] / mass[used]).T  # [M, N]
    told = alpha @ adjacency @ alpha.T
    pi = np.full(len(p), 1 / len(p))
    return float(_entropy(pi @ adjacency @ pi) - mass[used] @ _entropy(told) @ mass[used])


def _entropy(p: Any) -> Any:
    q = np.clip(np.asarray(p, float), 1e-15, 1 - 1e-15)
    return -(q * np.log(q) + (1 - q) * np.log(1 - q))


def _warn_of_strays(graph: DomainGraph, source: Source[Examples]) -> None:
    """Warn of domains that no link ties to a labelled one."""
    names = domain_names(source)
    labelled = names[: len(names) - len(source.unlabelled)]
    strays = [n for n, h in zip(graph.names, graph.hops(labelled), strict=True) if h < 0 and n in source.unlabelled]
    if strays:
        warnings.warn(f"no link leads from a source to {', '.join(strays[:8])}{' …' if len(strays) > 8 else ''}: nothing ties them to labels", UserWarning, stacklevel=3)
