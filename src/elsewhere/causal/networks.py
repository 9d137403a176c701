"""The networks of this room, made by name with JSON arguments: encoders of vectors and pictures, and what each method adds to them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.nn.cnn import ConvDecoder, ConvEncoder, square
from elsewhere.nn.variational import Coder, Gaussian, Vae


class LeakyMlp(nn.Module):
    """``depth`` hidden layers of ``width`` units with LeakyReLU on flattened inputs, then a linear layer: [n, ...] -> [n, outputs]. ``residual`` adds what a hidden layer saw."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, slope: float = 0.2, residual: bool = False) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last, self.slope, self.residual, self.width = nn.Linear(sizes[-1], outputs), slope, residual, outputs

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for k, layer in enumerate(self.layers):
            made = functional.leaky_relu(layer(h), self.slope)
            h = made + h if self.residual and k else made
        out: Tensor = self.last(h)
        return out


class ConvCode(nn.Module):
    """The strided convolutional encoder and a linear layer: pictures -> [n, outputs]."""

    def __init__(self, channels: int, side: int, outputs: int) -> None:
        super().__init__()
        self.body = ConvEncoder(channels, side)
        self.last, self.width = nn.Linear(self.body.width, outputs), outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(x))
        return out


class KeypointCode(nn.Module):
    """Three convolutions, the mean place of each map by a spatial softmax, and a linear layer: an object moved is a code moved (spec 05, 6.7, "try to move it")."""

    def __init__(self, channels: int, side: int, outputs: int, maps: int = 16, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 5, 2, padding=2), nn.ReLU(), nn.Conv2d(width, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, maps, 1))
        rows = (side + 1) // 2
        place = (torch.arange(rows) + 0.5) / rows - 0.5
        self.register_buffer("place", place, persistent=False)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.last, self.width = nn.Linear(3 * maps, outputs), outputs

    def forward(self, x: Tensor) -> Tensor:
        maps = self.body(x)
        weight = torch.softmax((self.sharpness * maps).flatten(2), 2).view_as(maps)
        across, down = (weight.sum(2) * self.place).sum(2), (weight.sum(3) * self.place).sum(2)
        out: Tensor = self.last(torch.cat([across, down, maps.mean((2, 3))], 1))
        return out


def code(shape: Sequence[int], outputs: int, width: int = 512, depth: int = 1, slope: float = 0.2, residual: bool = False, architecture: str = "auto") -> nn.Module:
    """Build an encoder of vectors (a perceptron with LeakyReLU) or of square pictures (convolutions; "keypoints": by places)."""
    if len(shape) == 3:
        channels, side = square(shape)
        return KeypointCode(channels, side, outputs) if architecture == "keypoints" else ConvCode(channels, side, outputs)
    return LeakyMlp(math.prod(shape), outputs, width, depth, slope, residual)


def keypoints(shape: Sequence[int], width: int = 256) -> KeypointCode:
    """Build an encoder by places as the body of any network: features [n, width]."""
    channels, side = square(shape)
    return KeypointCode(channels, side, width)


def pixels(shape: Sequence[int], latents: int) -> ConvDecoder:
    """Build the decoder of pictures of a shape from codes [n, latents]: logits of pixels."""
    channels, side = square(shape)
    return ConvDecoder(latents, channels, side)


# --- contrastive interventional (B) -----------------------------------------------------------------------------------


class InterventionalOdds(nn.Module):
    """h(x), and the log-odds that x is observational rather than of environment m (Buchholz et al. 2023).

    logit_m(x) = β_m + γ_m z_m + (λ_m z_m)² - (B_m: z)², z = h(x), B = diag(s) (I - A ∘ offdiag). With ``soft`` the target keeps causes of its own in its
    environment: z_m is replaced by (I - A' ∘ offdiag)_m: z.
    """

    def __init__(self, encoder: nn.Module, latents: int, soft: bool = False) -> None:
        super().__init__()
        self.encoder, self.width = encoder, latents
        self.bias, self.slope = nn.Parameter(torch.zeros(latents)), nn.Parameter(torch.ones(latents))
        self.curve, self.scale = nn.Parameter(torch.ones(latents)), nn.Parameter(torch.ones(latents))
        self.edges = nn.Parameter(torch.zeros(latents, latents))
        self.kept = nn.Parameter(torch.zeros(latents, latents)) if soft else None

    def adjacency(self) -> Tensor:
        """Return A without its diagonal: A[m, j] is the effect of latent j on latent m."""
        return self.edges - torch.diag_embed(torch.diagonal(self.edges))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x)
        return out

    def odds(self, z: Tensor, m: Tensor) -> Tensor:
        """Return the logits [b] of codes z [b, n] for environments m [b] (0 for the first in which something was done)."""
        rows = self.scale[:, None] * (torch.eye(self.width, device=z.device) - self.adjacency())
        own = z.gather(1, m[:, None])[:, 0]
        if self.kept is not None:
            own = own - ((self.kept - torch.diag_embed(torch.diagonal(self.kept)))[m] * z).sum(1)
        return self.bias[m] + self.slope[m] * own + (self.curve[m] * own).square() - (rows[m] * z).sum(1).square()


def interventional_odds(shape: Sequence[int], latents: int, width: int = 512, depth: int = 1, residual: bool = False, architecture: str = "auto", soft: bool = False) -> InterventionalOdds:
    """Build the network of contrastive-interventional."""
    return InterventionalOdds(code(shape, latents, width, depth, 0.2, residual, architecture), latents, soft)


def acyclicity(a: Tensor) -> Tensor:
    """Return tr exp(A ∘ A) - n, which is 0 where A has no cycle (Zheng et al. 2018).

    Examples:
        >>> round(acyclicity(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).item(), 6)
        0.0
    """
    return torch.trace(torch.linalg.matrix_exp(a * a)) - len(a)


# --- variational autoencoders of vectors (baselines, D, G) ----------------------------------------------------------------


class VectorVae(Coder):
    """A perceptron to mean and log variance, and one back: ``Coded`` of vectors [n, d]; what it decodes are means, not logits."""

    def __init__(self, inputs: int, latents: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = LeakyMlp(inputs, 2 * latents, width, depth)
        self.decoder = LeakyMlp(latents, inputs, width, depth)
        self.width = latents


def autoencoder(shape: Sequence[int], latents: int, width: int = 128, depth: int = 2, architecture: str = "auto") -> nn.Module:
    """Build an autoencoder with a Gaussian code, of vectors or of square pictures (the one of the image room; "keypoints": an encoder of places)."""
    if len(shape) != 3:
        return VectorVae(math.prod(shape), latents, width, depth)
    channels, side = square(shape)
    made = Vae(channels, side, latents)
    if architecture == "keypoints":
        made.encoder = nn.Sequential(KeypointCode(channels, side, 2 * latents))
        with torch.no_grad():
            made.encoder[0].last.bias[latents:] = -3.0
    return made


class IdentifiableVae(nn.Module):
    """q(z | x, u), a prior N(μ(u), diag σ²(u)) and a decoder of fixed or learnt variance (Khemakhem et al. 2020)."""

    def __init__(self, inputs: int, environments: int, latents: int, width: int, depth: int, learn_variance: bool) -> None:
        super().__init__()
        self.encoder = LeakyMlp(inputs + environments, 2 * latents, width, depth, 0.1)
        self.prior = nn.Linear(environments, 2 * latents)
        self.decoder = LeakyMlp(latents, inputs, width, depth, 0.1)
        self.log_variance = nn.Parameter(torch.tensor(-10.0 if not learn_variance else 0.0), requires_grad=learn_variance)
        self.width, self.environments = latents, environments

    def posterior(self, x: Tensor, u: Tensor) -> Gaussian:
        return Gaussian(*self.encoder(torch.cat([x, u], 1)).chunk(2, 1))

    def given(self, u: Tensor) -> Gaussian:
        return Gaussian(*self.prior(u).chunk(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return mean codes of x beside which u stands, [n, d + environments]."""
        cut = x.shape[1] - self.environments
        return self.posterior(x[:, :cut], x[:, cut:]).mean


def identifiable_vae(shape: Sequence[int], environments: int, latents: int, width: int = 512, depth: int = 6, learn_variance: bool = False) -> IdentifiableVae:
    """Build the network of iVAE; ``shape`` is that of x alone."""
    return IdentifiableVae(math.prod(shape), environments, latents, width, depth, learn_variance)


# --- views (E) --------------------------------------------------------------------------------------------------------


class ViewEncoders(nn.Module):
    """One encoder a view, or one for all: views -> codes. ``bound`` puts codes through a sigmoid scaled by a learnt bound."""

    def __init__(self, encoders: Sequence[nn.Module], shared: bool, outputs: Sequence[int], bound: bool) -> None:
        super().__init__()
        self.encoders, self.shared, self.width = nn.ModuleList(encoders), shared, sum(outputs)
        self.bound = nn.Parameter(torch.ones(())) if bound else None

    def code(self, view: int, x: Tensor) -> Tensor:
        made: Tensor = self.encoders[0 if self.shared else view](x)
        return made if self.bound is None else torch.sigmoid(made) * self.bound

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        if self.shared:
            sizes = [len(x) for x in views]
            return list(self.code(0, torch.cat(list(views))).split(sizes))
        return [self.code(k, x) for k, x in enumerate(views)]


def view_encoders(
    shape: Sequence[int], shapes: Sequence[Sequence[int]], outputs: Sequence[int], shared: bool = False, width: int = 50, depth: int = 4, bound: bool = False, architecture: str = "auto"
) -> ViewEncoders:
    """Build the encoders of views: perceptrons 10, ``width`` … 10 times the outputs wide (Yao et al. 2024), or convolutions.

    Args:
        shape: of the first view.
        shapes: of each view.
        outputs: size of each view's code.
        shared: one encoder for all views.
        width: units of a hidden layer for each number of the code; the first and the last hidden layer have 10.
        depth: hidden layers between those.
        bound: codes in a learnt box.
        architecture: of pictures: "auto" or "keypoints".
    """

    def one(k: int) -> nn.Module:
        if len(shapes[k]) == 3:
            return code(shapes[k], outputs[k], architecture=architecture)
        sizes = [math.prod(shapes[k]), 10 * outputs[k], *[width * outputs[k]] * depth, 10 * outputs[k]]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.01)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs[k]))

    return ViewEncoders([one(k) for k in range(1 if shared else len(shapes))], shared, outputs, bound)


# --- actions (C) ------------------------------------------------------------------------------------------------------


class LinearInActions(nn.Module):
    """An autoencoder whose code is standardised over the batch (running moments when it is asked): forward gives the code."""

    def __init__(self, inputs: int, latents: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder = LeakyMlp(inputs, latents, width, depth)
        self.standard = nn.BatchNorm1d(latents, affine=False)
        self.decoder = LeakyMlp(latents, inputs, width, depth)
        self.width = latents

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.standard(self.encoder(x))
        return out


def linear_in_actions(shape: Sequence[int], latents: int, width: int = 128, depth: int = 2) -> LinearInActions:
    """Build the autoencoder of intervention-extrapolation."""
    return LinearInActions(math.prod(shape), latents, width, depth)


class AdditiveOutcome(nn.Module):
    """ν(φ) + ψ(v̂) of the two halves of its input: [n, 2k] -> [n, 1]."""

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        self.half, self.width = inputs // 2, 1
        self.of_code, self.of_rest = LeakyMlp(self.half, 1, width, 2), LeakyMlp(self.half, 1, width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.of_code(x[:, : self.half]) + self.of_rest(x[:, self.half :])
        return out


def additive_outcome(shape: Sequence[int], width: int = 64) -> AdditiveOutcome:
    """Build the additive regression of intervention-extrapolation."""
    return AdditiveOutcome(math.prod(shape), width)
