"""What a network's outputs mean: a value, quantiles, or the parameters of a density.

A kind of output reads, for K targets of P parameters each, raw outputs (…, K·P): first the P
parameters of the first target, then those of the second. Everything it returns is in units of
`scale`, which is 1 or holds a positive number for each series, (…, 1): DeepAR's item scale, such as
the mean of a count series (Salinas, Flunkert, Gasthaus & Januschowski 2020, §3.3). Means, spreads
and quantiles are multiplied by it, so that a network sees numbers near 1 however large the series.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor, distributions
from torch.nn import functional

from headgate.training.losses import Loss, Pinball, make_loss

D = TypeVar("D", bound=distributions.Distribution)

FLOOR = 1e-4
"""Least spread, rate and dispersion before scaling, and how far a Student t's df stays above 2."""


def _positive(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + FLOOR


def _scale(scale: Tensor | float, values: Tensor) -> Tensor:
    return torch.as_tensor(scale, dtype=values.dtype, device=values.device)


def _random(generator: torch.Generator | None) -> np.random.Generator:
    """A generator of NumPy's seeded by torch's, whose gamma distribution takes no generator."""
    device = generator.device if generator else None
    seed = torch.randint(2**63 - 1, (), generator=generator, device=device)
    return np.random.default_rng(int(seed))


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy()


def _column(values: Tensor) -> np.ndarray:
    """(…, K, 1), to meet levels (Q,)."""
    return _numpy(values)[..., np.newaxis]


def _levels(levels: Sequence[float]) -> np.ndarray:
    found = np.asarray(levels, dtype=np.float64)
    if found.ndim != 1 or not found.size or not ((found > 0) & (found < 1)).all():
        raise ValueError(
            f"quantiles: expected levels between 0 and 1, such as [0.1, 0.5, 0.9]; got {levels!r}"
        )
    return found


class Output(ABC):
    """One kind of output; `loss` is a loss of `headgate.training` over the raw outputs.

    `parameters` is their number for each target. `counts` says that the targets must be whole
    numbers of at least 0, in the series' own unit; whoever reads the series checks that.
    """

    parameters: int = 1
    counts: ClassVar[bool] = False

    def loss(
        self,
        raw: Tensor,
        targets: Tensor,
        valid: Tensor | None = None,
        scale: Tensor | float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """(total, count) over the valid of the targets (…, K); minus log density for a density.

        What is not valid may hold NaN, in any argument, and its gradient is zero. Raises ValueError
        where the shapes do not match or a valid target's scale is not positive.
        """
        values = self._by_target(raw)
        if values.shape[:-1] != targets.shape:
            raise ValueError(
                f"{type(self).__name__}.loss: expected raw outputs for targets "
                f"{tuple(targets.shape)}, the last axis times {self.parameters}; got "
                f"{tuple(raw.shape)}; give the network {self.parameters} outputs for each target"
            )
        scale = _scale(scale, values).expand(targets.shape)
        if valid is not None:
            if valid.shape != targets.shape[: valid.ndim]:
                raise ValueError(
                    f"{type(self).__name__}.loss: expected valid with the targets' leading axes "
                    f"{tuple(targets.shape)}, got {tuple(valid.shape)}; one entry a row, a step "
                    "or a target"
                )
            values, targets, scale = values[valid], targets[valid], scale[valid]
        if not bool((scale > 0).all()):
            raise ValueError(
                f"{type(self).__name__}.loss: expected scales above 0, got one of "
                f"{float(scale.min())}; take 1 for a series of zeros"
            )
        total, count = self._loss(values, targets, scale)
        return total.to(raw.dtype), count

    @abstractmethod
    def mean(self, raw: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """The expected value (…, K), differentiable."""

    @abstractmethod
    def quantiles(
        self, raw: Tensor, levels: Sequence[float], scale: Tensor | float = 1.0
    ) -> Tensor:
        """The quantile (…, K, Q) at each of Q levels, increasing with the level; no gradient."""

    @abstractmethod
    def sample(
        self, raw: Tensor, generator: torch.Generator | None = None, scale: Tensor | float = 1.0
    ) -> Tensor:
        """One random value (…, K) for each target, independent of each other; no gradient."""

    @abstractmethod
    def _loss(self, values: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """`loss` where all targets (…) are valid, with values (…, P) and scale (…)."""

    def _by_target(self, raw: Tensor) -> Tensor:
        """Raw outputs (…, K·P) as (…, K, P)."""
        if raw.shape[-1] % self.parameters:
            raise ValueError(
                f"{type(self).__name__}: expected raw outputs whose last axis is a multiple of "
                f"{self.parameters}, the parameters of a target; got {tuple(raw.shape)}"
            )
        return raw.unflatten(-1, (-1, self.parameters))


class Point(Output):
    """A value and nothing about its error: raw·scale, judged by a loss of that name, or one given.

    With "mse" the value estimates the mean, with "mae" the median. `quantiles` and `sample` raise
    ValueError.
    """

    def __init__(self, loss: str | Loss = "mse") -> None:
        self.criterion = make_loss(loss)

    def mean(self, raw: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return raw * _scale(scale, raw)

    def quantiles(
        self, raw: Tensor, levels: Sequence[float], scale: Tensor | float = 1.0
    ) -> Tensor:
        raise ValueError(
            "quantiles: a point output has none; choose 'quantiles' or a distribution as the "
            "output, or calibrate intervals around the values (headgate.tasks.conformal)"
        )

    def sample(
        self, raw: Tensor, generator: torch.Generator | None = None, scale: Tensor | float = 1.0
    ) -> Tensor:
        raise ValueError(
            "sample: a point output says nothing about chance; choose 'quantiles' or a "
            "distribution, such as 'gaussian', as the output"
        )

    def _loss(self, values: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return self.criterion(values.squeeze(-1) * scale, targets, None)


class Quantiles(Output):
    """The values of the quantile function at given levels, by pinball loss, without a density.

        loss = max(q·e, (q − 1)·e) with e = y − raw_q·scale, averaged over levels and targets

    After Koenker & Bassett (1978). Values that cross are sorted when they are read (Chernozhukov,
    Fernández-Val & Galichon 2010), not in the loss. Between the levels the quantile function is
    linear; beyond the outermost, `quantiles` refuses, and `mean` and `sample` hold it flat, so they
    see no tails there.
    """

    def __init__(self, levels: Sequence[float] = (0.1, 0.5, 0.9)) -> None:
        found = _levels(levels)
        if not (np.diff(found) > 0).all():
            raise ValueError(f"quantiles: expected increasing levels, got {levels!r}")
        self.levels = tuple(found.tolist())
        self.parameters = len(self.levels)

    def mean(self, raw: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """∫ of the quantile function over 0 … 1, flat beyond the outermost levels (…, K)."""
        edges = np.concatenate([[0.0], self.levels, [1.0]])
        weights = (edges[2:] - edges[:-2]) / 2
        weights[0] += self.levels[0] / 2
        weights[-1] += (1 - self.levels[-1]) / 2
        return self._sorted(raw) @ raw.new_tensor(weights) * _scale(scale, raw)

    def quantiles(
        self, raw: Tensor, levels: Sequence[float], scale: Tensor | float = 1.0
    ) -> Tensor:
        """Linear between the levels; raises ValueError for one outside them."""
        wanted = _levels(levels)
        if wanted.min() < self.levels[0] or wanted.max() > self.levels[-1]:
            raise ValueError(
                f"quantiles: expected levels from {self.levels[0]:g} to {self.levels[-1]:g}, "
                f"between which the output was trained; got {list(levels)}; fit it with wider ones"
            )
        at = raw.new_tensor(wanted).expand(*self._by_target(raw).shape[:-1], wanted.size)
        return self._interpolate(raw, at) * _scale(scale, raw).unsqueeze(-1)

    @torch.no_grad()
    def sample(
        self, raw: Tensor, generator: torch.Generator | None = None, scale: Tensor | float = 1.0
    ) -> Tensor:
        """The quantile at a uniformly random level: inverse transform sampling."""
        shape = self._by_target(raw).shape[:-1]
        at = raw.new_tensor(_random(generator).random((*shape, 1)))
        return self._interpolate(raw, at).squeeze(-1) * _scale(scale, raw)

    def _sorted(self, raw: Tensor) -> Tensor:
        return self._by_target(raw).sort(-1).values

    def _interpolate(self, raw: Tensor, at: Tensor) -> Tensor:
        """The quantile function at levels (…, K, L)."""
        values = self._sorted(raw)
        levels = raw.new_tensor(self.levels)
        above = torch.searchsorted(levels, at.contiguous()).clamp(max=len(levels) - 1)
        below = (above - 1).clamp(min=0)
        width = (levels[above] - levels[below]).clamp(min=torch.finfo(raw.dtype).tiny)
        share = ((at - levels[below]) / width).clamp(0, 1)
        return values.gather(-1, below).lerp(values.gather(-1, above), share)

    def _loss(self, values: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return Pinball(self.levels)(values * scale.unsqueeze(-1), targets, None)


class _Density(Output, Generic[D]):
    """Outputs that are the parameters of a density of torch.distributions.

    Everything is computed in float64, whatever the network's dtype: in float32 the small
    differences of large lgammas that make a count's log density are noise, and so is a squared
    error far out in a narrow Gaussian. Losses, means and quantiles come back in the network's.
    """

    @abstractmethod
    def _density(self, values: Tensor, scale: Tensor) -> D:
        """The distributions (…, K) with parameters (…, K, P) and scales (…, K)."""

    @abstractmethod
    def _ppf(self, density: D, levels: np.ndarray) -> np.ndarray:
        """Its quantiles (…, K, Q) at levels (Q,)."""

    @abstractmethod
    def _draw(self, density: D, random: np.random.Generator) -> np.ndarray:
        """One value (…, K) of each."""

    def mean(self, raw: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        return self._read(raw, scale).mean.to(raw.dtype)

    @torch.no_grad()
    def quantiles(
        self, raw: Tensor, levels: Sequence[float], scale: Tensor | float = 1.0
    ) -> Tensor:
        return raw.new_tensor(self._ppf(self._read(raw, scale), _levels(levels)))

    @torch.no_grad()
    def sample(
        self, raw: Tensor, generator: torch.Generator | None = None, scale: Tensor | float = 1.0
    ) -> Tensor:
        return raw.new_tensor(self._draw(self._read(raw, scale), _random(generator)))

    def _by_target(self, raw: Tensor) -> Tensor:
        return super()._by_target(raw).double()

    def _read(self, raw: Tensor, scale: Tensor | float) -> D:
        values = self._by_target(raw)
        return self._density(values, _scale(scale, values))

    def _loss(self, values: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        losses = -self._density(values, scale).log_prob(targets.double())
        return losses.sum(), torch.tensor(float(losses.numel()), dtype=torch.float64)


class Gaussian(_Density[distributions.Normal]):
    """Parameters raw = (m, s), with scale ν (Salinas et al. 2020, §3.1).

    p(y) = exp(−(y − μ)²/2σ²)/(√(2π)·σ),  μ = ν·m,  σ = ν·(log(1 + eˢ) + 1e-4)
    """

    parameters = 2

    def _density(self, values: Tensor, scale: Tensor) -> distributions.Normal:
        mean, spread = values.unbind(-1)
        return distributions.Normal(mean * scale, _positive(spread) * scale, validate_args=False)

    def _ppf(self, density: distributions.Normal, levels: np.ndarray) -> np.ndarray:
        return _column(density.loc) + _column(density.scale) * special.ndtri(levels)

    def _draw(self, density: distributions.Normal, random: np.random.Generator) -> np.ndarray:
        return random.normal(_numpy(density.loc), _numpy(density.scale))


class StudentT(_Density[distributions.StudentT]):
    """Heavier tails than a Gaussian's; parameters raw = (m, s, d), with scale ν.

        p(y) = Γ((k + 1)/2)/(Γ(k/2)·√(kπ)·σ) · (1 + z²/k)^(−(k + 1)/2),  z = (y − μ)/σ,
        μ = ν·m,  σ = ν·(log(1 + eˢ) + 1e-4),  k = 2 + log(1 + eᵈ) + 1e-4

    More than two degrees of freedom k, so that the variance σ²·k/(k − 2) is finite; the location
    and scale as in Salinas et al. (2020), the density after Student (1908).
    """

    parameters = 3

    def _density(self, values: Tensor, scale: Tensor) -> distributions.StudentT:
        mean, spread, df = values.unbind(-1)
        return distributions.StudentT(
            2 + _positive(df), mean * scale, _positive(spread) * scale, validate_args=False
        )

    def _ppf(self, density: distributions.StudentT, levels: np.ndarray) -> np.ndarray:
        standard = special.stdtrit(_column(density.df), levels)
        return _column(density.loc) + _column(density.scale) * standard

    def _draw(self, density: distributions.StudentT, random: np.random.Generator) -> np.ndarray:
        standard = random.standard_t(_numpy(density.df))
        return _numpy(density.loc) + _numpy(density.scale) * standard


class NegativeBinomial(_Density[distributions.NegativeBinomial]):
    """Counts that spread more than a Poisson's; parameters raw = (m, a), with scale ν.

        p(y) = Γ(y + 1/α)/(Γ(y + 1)·Γ(1/α)) · (1/(1 + αμ))^(1/α) · (αμ/(1 + αμ))^y,
        μ = ν·(log(1 + eᵐ) + 1e-4),  α = (log(1 + eᵃ) + 1e-4)/√ν

    with mean μ and variance μ + αμ² (Salinas et al. 2020, §3.1 and §3.3).
    """

    parameters = 2
    counts = True

    def _density(self, values: Tensor, scale: Tensor) -> distributions.NegativeBinomial:
        mean = _positive(values[..., 0]) * scale
        dispersion = _positive(values[..., 1]) / scale.sqrt()
        return distributions.NegativeBinomial(
            1 / dispersion, logits=(dispersion * mean).log(), validate_args=False
        )

    def _ppf(self, density: distributions.NegativeBinomial, levels: np.ndarray) -> np.ndarray:
        return stats.nbinom.ppf(
            levels, _column(density.total_count), _column((-density.logits).sigmoid())
        )

    def _draw(
        self, density: distributions.NegativeBinomial, random: np.random.Generator
    ) -> np.ndarray:
        return random.negative_binomial(
            _numpy(density.total_count), _numpy((-density.logits).sigmoid())
        )


class Poisson(_Density[distributions.Poisson]):
    """Counts whose variance is their mean μ; parameter raw = m, with scale ν.

    p(y) = e^(−μ)·μ^y/y!,  μ = ν·(log(1 + eᵐ) + 1e-4)
    """

    counts = True

    def _density(self, values: Tensor, scale: Tensor) -> distributions.Poisson:
        return distributions.Poisson(_positive(values[..., 0]) * scale, validate_args=False)

    def _ppf(self, density: distributions.Poisson, levels: np.ndarray) -> np.ndarray:
        return stats.poisson.ppf(levels, _column(density.rate))

    def _draw(self, density: distributions.Poisson, random: np.random.Generator) -> np.ndarray:
        return random.poisson(_numpy(density.rate))


OUTPUTS: dict[str, Callable[..., Output]] = {
    "point": Point,
    "quantiles": Quantiles,
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
}
