"""The network of binary-interactions: encoder, autoregressive flow, and a transition prior with one network a latent (Lippe et al. 2023)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.causal.networks import pixels
from elsewhere.nn.cnn import square
from elsewhere.nn.variational import Gaussian


class Grouped(nn.Module):
    """Independent linear layers for each of g groups, as one batched product: [b, g, inputs] -> [b, g, outputs]."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class Autoregressive(nn.Module):
    """One block of the flow: activation norm, perhaps a linear map, an affine map whose scale and shift of a variable depend on those before it."""

    def __init__(self, n: int, hidden: int, linear: bool) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        self.map = OrthogonalLu(n) if linear else None
        self.first = nn.Linear(n, n * hidden)
        self.second = nn.Linear(n * hidden, 2 * n)
        with torch.no_grad():
            self.second.weight.mul_(0.01)
            self.second.bias.zero_()
        before = torch.arange(n)
        self.register_buffer("mask1", (before[:, None].repeat_interleave(hidden, 0) > before[None]).float(), persistent=False)
        upto = (before.repeat(2)[:, None] >= before.repeat_interleave(hidden)[None]).float()
        self.register_buffer("mask2", upto, persistent=False)
        self.limit = nn.Parameter(torch.zeros(n))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = (z + self.shift) * self.log_scale.exp()
        log_det = self.log_scale.sum().expand(len(z))
        if self.map is not None:
            z, more = self.map(z)
            log_det = log_det + more
        h = functional.silu(functional.linear(z, self.first.weight * self.mask1, self.first.bias))
        shift, scale = functional.linear(h, self.second.weight * self.mask2, self.second.bias).chunk(2, 1)
        c = 3 * torch.tanh(self.limit.exp() / 3)
        scale = torch.tanh(scale / c.clamp(min=1.0)) * c
        return (z + shift) * scale.exp(), log_det + scale.sum(1)


class OrthogonalLu(nn.Module):
    """A linear map that starts orthogonal, kept as P L U so that its determinant is a product."""

    def __init__(self, n: int) -> None:
        super().__init__()
        q, _ = torch.linalg.qr(torch.randn(n, n))
        p, lower, upper = torch.linalg.lu(q)
        diagonal = torch.diagonal(upper)
        self.register_buffer("p", p)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_size = nn.Parameter(diagonal.abs().log())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        eye = torch.eye(len(self.log_size), device=z.device)
        weight = self.p @ (self.lower.tril(-1) + eye) @ (self.upper.triu(1) + torch.diag(self.sign * self.log_size.exp()))
        return z @ weight.T, self.log_size.sum().expand(len(z))


class Told(NamedTuple):
    """What the prior says of the next step: means and log deviations [b, n], and the interaction logits [b, n]."""

    mean: Tensor
    log_deviation: Tensor
    interaction: Tensor


class TransitionPrior(nn.Module):
    """p(z_{t+1,i} | z_t, r) with one set of weights a latent, as grouped layers.

    a_i = MLP_i([r, z_t]), I_i = tanh(T a_i), and mean and log deviation = out_i [w_i z_{t,i} + ctx_i(z_t) + b_i I_i].
    """

    def __init__(self, n: int, action: int, hidden: int, sees_state: bool) -> None:
        super().__init__()
        self.n, self.sees_state = n, sees_state
        inputs = action + (n if sees_state else 0)
        self.interaction = nn.Sequential(Grouped(n, inputs, hidden), nn.SiLU(), Grouped(n, hidden, hidden), nn.SiLU(), Grouped(n, hidden, 1))
        self.own, self.touch = Grouped(n, 1, hidden), Grouped(n, 1, hidden)
        with torch.no_grad():
            self.touch.weight.zero_()
        self.context = nn.Sequential(Grouped(n, n, hidden), nn.Tanh(), Grouped(n, hidden, hidden))
        self.out = nn.Sequential(nn.SiLU(), Grouped(n, hidden, hidden), nn.SiLU(), Grouped(n, hidden, 2))

    def forward(self, z: Tensor, action: Tensor, temperature: Tensor | float) -> Told:
        each = z[:, None, :].expand(-1, self.n, -1)
        seen = torch.cat([action, z], 1) if self.sees_state else action
        a = self.interaction(seen[:, None, :].expand(-1, self.n, -1))
        made = self.out(self.own(z[:, :, None]) + self.context(each) + self.touch(torch.tanh(temperature * a)))
        return Told(made[..., 0], made[..., 1], a[..., 0])


class InteractionNetwork(nn.Module):
    """Encoder, decoder, flow and prior; forward gives the flowed mean code f(mean) of frames."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latents: int, action: int, hidden: int, sees_state: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.width = encoder, decoder, latents
        self.flow = nn.ModuleList(Autoregressive(latents, 16, k > 0) for k in range(4))
        self.prior = TransitionPrior(latents, action, hidden, sees_state)

    def posterior(self, x: Tensor) -> Gaussian:
        mean, log_deviation = self.encoder(x).chunk(2, 1)
        return Gaussian(mean, 2 * log_deviation.clamp(-6, 4))

    def flowed(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z) and ln |det ∂f/∂z| [b]."""
        total = torch.zeros(len(z), device=z.device)
        for block in self.flow:
            z, log_det = block(z)
            total = total + log_det
        return z, total

    def forward(self, x: Tensor) -> Tensor:
        return self.flowed(self.posterior(x).mean)[0]


def interactions(shape: Sequence[int], latents: int, action: int, hidden: int = 32, width: int = 512, channels: int = 32, sees_state: bool = True) -> InteractionNetwork:
    """Build the network of binary-interactions, for vectors (perceptrons 512-512 with SiLU) or pictures (three strided convolutions)."""
    if len(shape) != 3:
        d = math.prod(shape)
        encoder = nn.Sequential(nn.Linear(d, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * latents))
        decoder: nn.Module = nn.Sequential(nn.Linear(latents, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, d))
        return InteractionNetwork(encoder, decoder, latents, action, hidden, sees_state)
    colours, side = square(shape)
    sizes = [colours, channels, 2 * channels, 2 * channels]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Conv2d(a, b, 3, 2, padding=1), nn.SiLU()]
    rest = math.ceil(math.ceil(math.ceil(side / 2) / 2) / 2)
    encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(sizes[-1] * rest * rest, 256), nn.SiLU(), nn.Linear(256, 2 * latents))
    return InteractionNetwork(encoder, nn.Sequential(pixels(shape, latents), nn.Sigmoid()), latents, action, hidden, sees_state)
