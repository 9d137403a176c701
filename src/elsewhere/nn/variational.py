"""Variational parts: Gaussian posteriors, their divergences, an autoencoder that gives them, and the losses of four encoders (spec 14, 2.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.nn.cnn import ConvDecoder, ConvEncoder, square


class Gaussian(NamedTuple):
    """Independent normal distributions: means and log variances [n, latent]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Draw one code each, so that gradients flow: μ + σ ε."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


class Coded(NamedTuple):
    """What an autoencoder gives: logits of pixels, and the posterior that the code was drawn from."""

    logits: Tensor
    posterior: Gaussian


def kl_to_normal(q: Gaussian) -> Tensor:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) summed over latents [n]: Σ ½ (μ² + σ² - 1 - ln σ²).

    Examples:
        >>> kl_to_normal(Gaussian(torch.ones(1, 2), torch.zeros(1, 2)))
        tensor([1.])
    """
    return 0.5 * (q.mean.square() + q.log_variance.exp() - 1 - q.log_variance).sum(1)


def reconstruction_loss(logits: Tensor, pictures: Tensor) -> Tensor:
    """Return the binary cross-entropy summed over pixels, mean over pictures (pixels in 0..1)."""
    return functional.binary_cross_entropy_with_logits(logits, pictures, reduction="sum") / len(pictures)


def beta_vae_loss(made: Coded, pictures: Tensor, beta: float) -> Tensor:
    """R + β · mean KL (Higgins et al. 2017)."""
    return reconstruction_loss(made.logits, pictures) + beta * kl_to_normal(made.posterior).mean()


def ada_gvae_loss(made: Coded, pictures: Tensor, beta: float) -> Tensor:
    """R + β · mean over pairs of Σ [K(first) + K(second)], K = σ² + μ² - 1 - ln σ² (Locatello et al. 2020, their code).

    K is twice the divergence and both pictures of a pair are summed, while R is a mean over pictures: β = 1 weighs the
    divergence like β = 4 in a bound per picture. Pairs are interleaved: first, second, first, second …
    """
    k = 2 * kl_to_normal(made.posterior)
    return reconstruction_loss(made.logits, pictures) + beta * (k[0::2] + k[1::2]).mean()


def changes(first: Gaussian, second: Gaussian) -> Tensor:
    """Return δ [pairs, latent], twice the divergence of the first posterior from the second: σ₀²/σ₁² + (μ₁ - μ₀)²/σ₁² - 1 + ln σ₁² - ln σ₀²."""
    return (first.log_variance - second.log_variance).exp() + (second.mean - first.mean).square() * (-second.log_variance).exp() - 1 + second.log_variance - first.log_variance


def shared_latents(first: Gaussian, second: Gaussian, changed: int | None = None) -> Tensor:
    """Return which latents a pair shares [pairs, latent]: those whose divergence is at most half way between the least and the largest.

    τ = (max δ + min δ) / 2 for each pair (Locatello et al. 2020, equation 6). With ``changed`` all but so many with the largest δ are shared.
    """
    delta = changes(first, second)
    if changed is not None:
        return (delta.argsort(1).argsort(1) < delta.shape[1] - changed).detach()
    threshold = (delta.amax(1, keepdim=True) + delta.amin(1, keepdim=True)) / 2
    return (delta <= threshold).detach()


def averaged_pairs(q: Gaussian, product: bool = False, changed: int | None = None) -> Gaussian:
    """Return the posteriors of interleaved pairs with shared latents averaged: means, and variances (Ada-GVAE).

    Gradients flow through the averages; which latents are shared is a hard choice without gradient. ``product`` takes the product of the two
    posteriors instead (Ada-ML-VAE): variance 2 v₁ v₂ / (v₁ + v₂), mean ½ variance (μ₁/v₁ + μ₂/v₂).
    """
    first, second = Gaussian(q.mean[0::2], q.log_variance[0::2]), Gaussian(q.mean[1::2], q.log_variance[1::2])
    shared = shared_latents(first, second, changed)
    v1, v2 = first.log_variance.exp(), second.log_variance.exp()
    variance = 2 * v1 * v2 / (v1 + v2) if product else (v1 + v2) / 2
    mean = 0.5 * variance * (first.mean / v1 + second.mean / v2) if product else (first.mean + second.mean) / 2
    parts = [Gaussian(torch.where(shared, mean, g.mean), torch.where(shared, variance.log(), g.log_variance)) for g in (first, second)]
    return Gaussian(*(torch.stack(two, 1).flatten(0, 1) for two in zip(*parts, strict=True)))


def slow_vae_loss(made: Coded, pictures: Tensor, beta: float, gamma: float, rate: float) -> Tensor:
    """2 R + β (C_N - H) + γ (C_L - H) (Klindt et al. 2021).

    H: mean entropy of the posteriors; C_N: their cross-entropy to the standard normal; C_L: mean over pairs of both directions'
    cross-entropy of one picture's posterior to a Laplace transition about the other's mean.
    """
    q = made.posterior
    entropy = (0.5 * (q.log_variance + math.log(2 * math.pi * math.e))).sum(1).mean()
    to_normal = (0.5 * (q.mean.square() + q.log_variance.exp()) + 0.5 * math.log(2 * math.pi)).sum(1).mean()
    move = q.mean[0::2] - q.mean[1::2]
    deviation = (0.5 * q.log_variance).exp()
    to_laplace = (laplace_cross_entropy(move, deviation[0::2], rate) + laplace_cross_entropy(-move, deviation[1::2], rate)).sum(1).mean()
    return 2 * reconstruction_loss(made.logits, pictures) + beta * (to_normal - entropy) + gamma * (to_laplace - entropy)


def laplace_cross_entropy(mean: Tensor, deviation: Tensor, rate: float) -> Tensor:
    """Return E[-ln Laplace(z; 0, 1/λ)] for z ~ N(m, σ²): -ln(λ/2) + λ σ √(2/π) exp(-m²/2σ²) + λ m (2Φ(m/σ) - 1).

    Examples:
        >>> round(laplace_cross_entropy(torch.tensor(0.0), torch.tensor(1.0), 2.0).item(), 4)  # 2 √(2/π)
        1.5958
    """
    spread = deviation * math.sqrt(2 / math.pi) * torch.exp(-mean.square() / (2 * deviation.square()))
    return -math.log(rate / 2) + rate * (spread + mean * torch.erf(mean / (deviation * math.sqrt(2))))


class Coder(nn.Module):
    """An ``encoder`` to mean and log variance side by side, and a ``decoder``: ``Coded`` of inputs."""

    encoder: nn.Module
    decoder: nn.Module

    def forward(self, x: Tensor, adapt: Callable[[Gaussian], Gaussian] | None = None) -> Coded:
        """Encode, adapt the posterior (Ada-GVAE averages pairs), draw, decode."""
        q = self.posterior(x)
        q = q if adapt is None else adapt(q)
        return Coded(self.decoder(q.sample()), q)

    def posterior(self, x: Tensor) -> Gaussian:
        return Gaussian(*self.encoder(x).chunk(2, 1))


class Vae(Coder):
    """A convolutional autoencoder with a Gaussian code: ``ConvEncoder`` and a layer to mean and log variance; ``ConvDecoder``.

    Weights Kaiming-normal, biases 0, as the reference of spec 14 has them.
    """

    def __init__(self, channels: int, side: int, latent: int) -> None:
        super().__init__()
        body = ConvEncoder(channels, side)
        self.encoder = nn.Sequential(body, nn.Linear(body.width, 2 * latent))
        self.decoder = ConvDecoder(latent, channels, side)
        self.width = latent
        kaiming(self)


class Contrast(nn.Module):
    """Permutation-contrastive learning: an encoder and the score of two pictures in a row (Hyvärinen & Morioka 2017; spec 14, 2.4).

    r(t, s) = -Σ |a h(t) + b h(s) + c| + Σ h(t)² + m, with h the first half of the encoder's outputs.
    """

    def __init__(self, channels: int, side: int, latent: int) -> None:
        super().__init__()
        body = ConvEncoder(channels, side)
        self.encoder = nn.Sequential(body, nn.Linear(body.width, 2 * latent))
        kaiming(self)
        self.a, self.b = nn.Parameter(torch.ones(latent)), nn.Parameter(-torch.ones(latent))
        self.c, self.m = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(()))
        self.width = latent

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores [2 pairs] of interleaved pairs: the true ones, then those with the first picture of the pair before."""
        h = self.posterior(x).mean
        before, now = h[0::2], h[1::2]
        return torch.cat([self.score(now, before), self.score(now, before.roll(1, 0))])

    def score(self, now: Tensor, before: Tensor) -> Tensor:
        out: Tensor = -(self.a * now + self.b * before + self.c).abs().sum(1) + now.square().sum(1) + self.m
        return out

    def posterior(self, x: Tensor) -> Gaussian:
        return Gaussian(*self.encoder(x).chunk(2, 1))


class MeanCode(nn.Module):
    """The mean of the posterior that a network gives: what is read off, never a sample."""

    def __init__(self, network: Coder | Contrast) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.network.posterior(x).mean
        return mean


def contrast_loss(scores: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of scores [2 pairs]: the first half true, the second not."""
    truth = torch.zeros_like(scores)
    truth[: len(scores) // 2] = 1
    return functional.binary_cross_entropy_with_logits(scores, truth)


def kaiming(module: nn.Module) -> None:
    """Set the weights of linear and convolutional layers Kaiming-normal and their biases to 0."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def vae(shape: Sequence[int], latent: int = 10) -> Vae:
    """Build a variational autoencoder."""
    return Vae(*square(shape), latent)


def contrast(shape: Sequence[int], latent: int = 10) -> Contrast:
    """Build the network of permutation-contrastive learning."""
    return Contrast(*square(shape), latent)
