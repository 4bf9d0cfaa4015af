from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from headgate.tasks.distributions import OUTPUTS, Output, Point, Quantiles
from headgate.training.losses import Huber

LEVELS = [0.05, 0.3, 0.5, 0.9, 0.99]
DENSITIES = ["gaussian", "student_t", "negative_binomial", "poisson"]
SCALES = [1.0, 40.0, torch.tensor([[0.5], [7.0], [300.0]], dtype=torch.float64)]


def raw_for(output: Output, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """Raw outputs for targets (3, 2)."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(3, 2 * output.parameters, generator=generator, dtype=dtype)


def targets_for(name: str, scale=1.0) -> torch.Tensor:
    targets = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 7.0]], dtype=torch.float64) * scale
    return targets.floor() if OUTPUTS[name]().counts else targets - 2 * scale


def scipys(name: str, raw: torch.Tensor, scale):
    """The frozen scipy distribution (3, 2), from the equations of the docstrings."""
    output = OUTPUTS[name]()
    r = raw.double().detach().numpy().reshape(3, 2, output.parameters)
    scale = np.asarray(scale, dtype=np.float64)
    soft = np.logaddexp(0, r) + 1e-4
    if name == "gaussian":
        return stats.norm(r[..., 0] * scale, soft[..., 1] * scale)
    if name == "student_t":
        return stats.t(2 + soft[..., 2], r[..., 0] * scale, soft[..., 1] * scale)
    mean = soft[..., 0] * scale
    if name == "poisson":
        return stats.poisson(mean)
    alpha = soft[..., 1] / np.sqrt(scale)
    return stats.nbinom(1 / alpha, 1 / (1 + alpha * mean))


def log_density(theirs, values: np.ndarray) -> np.ndarray:
    return theirs.logpmf(values) if hasattr(theirs.dist, "pmf") else theirs.logpdf(values)


@pytest.mark.parametrize("scale", SCALES, ids=["one", "forty", "each"])
@pytest.mark.parametrize("name", DENSITIES)
def test_loss_mean_and_quantiles_are_scipys(name, scale) -> None:
    output = OUTPUTS[name]()
    raw, targets = raw_for(output), targets_for(name, scale)
    theirs = scipys(name, raw, scale)
    total, count = output.loss(raw, targets, None, scale)
    assert float(count) == 6
    assert float(total) == pytest.approx(-log_density(theirs, targets.numpy()).sum(), rel=1e-9)
    np.testing.assert_allclose(output.mean(raw, scale), theirs.mean(), rtol=1e-9)
    expected = np.stack([theirs.ppf(level) for level in LEVELS], -1)
    found = output.quantiles(raw, LEVELS, scale)
    assert found.shape == (3, 2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    backwards = output.quantiles(raw, LEVELS[::-1], scale)
    assert torch.equal(backwards, found.flip(-1))


def test_the_negative_binomial_spreads_as_it_says() -> None:
    raw = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    mean = OUTPUTS["negative_binomial"]().mean(raw, 9.0)
    alpha = (np.log1p(np.exp(-0.5)) + 1e-4) / 3
    assert float(mean) == pytest.approx(9 * (np.log1p(np.e) + 1e-4))
    draws = OUTPUTS["negative_binomial"]().sample(raw.expand(200_000, 2), None, 9.0)
    assert float(draws.var()) == pytest.approx(float(mean + alpha * mean**2), rel=0.03)


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("name", DENSITIES)
def test_samples_follow_the_distribution_and_the_generator(name, scale) -> None:
    output = OUTPUTS[name]()
    raw = raw_for(output, 5)
    many = raw.expand(50_000, *raw.shape)
    draws = output.sample(many, torch.Generator().manual_seed(1), scale)
    assert draws.shape == (50_000, 3, 2)
    again = output.sample(many, torch.Generator().manual_seed(1), scale)
    other = output.sample(many, torch.Generator().manual_seed(2), scale)
    assert torch.equal(draws, again)
    assert not torch.equal(draws, other)
    theirs = scipys(name, raw, scale)
    values = np.linspace(theirs.ppf(0.02), theirs.ppf(0.98), 5)
    for value in values:
        shares = (draws <= torch.as_tensor(value)).double().mean(0)
        np.testing.assert_allclose(shares, theirs.cdf(value), atol=0.01)
    if name != "student_t":  # whose second moment converges slowly at few degrees of freedom
        error = theirs.std() / np.sqrt(50_000)
        assert (np.abs(draws.mean(0).numpy() - theirs.mean()) < 5 * error).all()


def test_samples_without_a_generator_follow_torchs_seed() -> None:
    output = OUTPUTS["student_t"]()
    raw = raw_for(output)
    torch.manual_seed(4)
    first, second = output.sample(raw), output.sample(raw)
    torch.manual_seed(4)
    assert torch.equal(first, output.sample(raw))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*DENSITIES, "quantiles"])
def test_loss_and_gradient_are_finite_at_extremes(name, dtype) -> None:
    output = OUTPUTS[name]()
    corners = torch.cartesian_prod(*[torch.tensor([-50.0, -14.0, 0.0, 50.0])] * output.parameters)
    corners = corners.reshape(-1, output.parameters).to(dtype)
    for target in (0.0, 1.0, 1e6):
        for scale in (1e-3, 1.0, 1e5):
            raw = corners.clone().requires_grad_()
            targets = torch.full((len(raw), 1), target, dtype=dtype)
            total, _ = output.loss(raw, targets, None, scale)
            total.backward()
            assert torch.isfinite(total)
            assert raw.grad is not None
            assert torch.isfinite(raw.grad).all()
            assert torch.isfinite(output.mean(raw.detach(), scale)).all()
            assert torch.isfinite(output.quantiles(raw, [0.1, 0.9], scale)).all()


def test_the_loss_of_large_counts_is_exact_in_float32() -> None:
    for name in ("poisson", "negative_binomial"):
        output = OUTPUTS[name]()
        # in float32 the lgammas, near 1e6 here, would leave nothing of the loss but noise
        raw = torch.tensor([[0.5413, -9.0][: output.parameters]])
        targets = torch.tensor([[100_300.0]])
        total, _ = output.loss(raw, targets, None, 1e5)
        expected, _ = output.loss(raw.double(), targets.double(), None, 1e5)
        assert total.dtype == torch.float32
        assert float(total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_not_valid_may_be_nan_and_has_no_gradient(name) -> None:
    output = OUTPUTS[name]()
    targets = targets_for(name, 4.0)
    scale = torch.full((3, 1), 4.0, dtype=torch.float64)
    rows = torch.tensor([True, False, True])
    single = torch.tensor([[True, False], [False, False], [True, True]])
    for valid in (rows, single):
        clean = raw_for(output).requires_grad_()
        where = valid if valid.ndim == 2 else valid[:, None].expand(3, 2)
        parts = clean.reshape(3, 2, -1)[where].reshape(-1, output.parameters)
        expected, number = output.loss(parts, targets[where][:, None], None, 4.0)
        poisoned_raw = clean.detach().clone().reshape(3, 2, -1)
        poisoned_raw[~where] = torch.nan
        poisoned_raw = poisoned_raw.reshape(3, -1).requires_grad_()
        poisoned, shares = targets.clone(), scale.clone()
        poisoned[~where], shares[1] = torch.nan, torch.nan
        total, count = output.loss(poisoned_raw, poisoned, valid, shares)
        torch.testing.assert_close((total, count), (expected, number))
        expected.backward()
        total.backward()
        torch.testing.assert_close(poisoned_raw.grad, clean.grad)
        assert clean.grad is not None
        assert (clean.grad.reshape(3, 2, -1)[~where] == 0).all()


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_valid_is_a_loss_of_zero(name) -> None:
    output = OUTPUTS[name]()
    raw = raw_for(output).requires_grad_()
    nothing = torch.zeros(3, dtype=torch.bool)
    total, count = output.loss(raw, torch.full((3, 2), torch.nan), nothing)
    total.backward()
    assert (total.item(), count.item()) == (0, 0)
    assert raw.grad is not None
    assert not raw.grad.any()


@pytest.mark.parametrize("name", DENSITIES)
def test_fitting_finds_the_distribution_of_the_data(name) -> None:
    output = OUTPUTS[name]()
    truth = torch.tensor([[1.5, 0.3, 0.5][: output.parameters]], dtype=torch.float64)
    data = output.sample(truth.expand(20_000, -1), torch.Generator().manual_seed(0), 5.0)
    raw = torch.zeros_like(truth).requires_grad_()
    optimizer = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total, count = output.loss(raw.expand(20_000, -1), data, None, 5.0)
        (total / count).backward()
        return total / count

    optimizer.step(closure)
    torch.testing.assert_close(raw.detach(), truth, atol=0.15, rtol=0)


def test_point_is_its_loss_and_nothing_more() -> None:
    raw, targets = raw_for(Point()), targets_for("point")
    for output, error in (
        (Point(), (3 * raw - targets).square()),
        (Point("mae"), (3 * raw - targets).abs()),
        (Point(Huber(0.1)), None),
    ):
        total, count = output.loss(raw, targets, None, 3.0)
        expected = Huber(0.1)(3 * raw, targets, None)[0] if error is None else error.sum()
        torch.testing.assert_close((float(total), float(count)), (float(expected), 6.0))
        assert torch.equal(output.mean(raw, 3.0), 3 * raw)
    with pytest.raises(ValueError, match="sample: a point output says nothing about chance"):
        Point().sample(raw)
    with pytest.raises(ValueError, match="quantiles: a point output has none"):
        Point().quantiles(raw, [0.5])


def test_quantiles_between_the_levels_are_linear_and_never_cross() -> None:
    output = Quantiles([0.1, 0.5, 0.9])
    raw = torch.tensor([[10.0, 0.0, 4.0, 1.0, 2.0, 3.0]])  # the first target's cross
    found = output.quantiles(raw, [0.1, 0.3, 0.5, 0.6, 0.9], 2.0)
    expected = torch.tensor([[[0.0, 4.0, 8.0, 11.0, 20.0], [2.0, 3.0, 4.0, 4.5, 6.0]]])
    torch.testing.assert_close(found, expected)
    each = torch.tensor([[2.0]])
    torch.testing.assert_close(output.quantiles(raw, [0.3], each), expected[..., 1:2])
    for level in (0.05, 0.95):
        with pytest.raises(ValueError, match=r"expected levels from 0.1 to 0.9, .* got \[0.5, 0"):
            output.quantiles(raw, [0.5, level])


def test_quantile_samples_and_their_mean_are_of_the_interpolated_distribution() -> None:
    output = Quantiles([0.1, 0.5, 0.9])
    raw = torch.tensor([[0.0, 1.0, 5.0]], dtype=torch.float64)
    # ∫: 0.1 flat at 0, 0.4 around 0.5, 0.4 around 3, 0.1 flat at 5
    assert float(output.mean(raw, 2.0)) == pytest.approx(2 * (0.4 * 0.5 + 0.4 * 3 + 0.1 * 5))
    draws = output.sample(raw.expand(100_000, 3), torch.Generator().manual_seed(0), 2.0) / 2
    assert float(draws.mean()) == pytest.approx(1.9, abs=0.03)
    for value, share in ((0.0, 0.1), (0.5, 0.3), (1.0, 0.5), (3.0, 0.7), (5 - 1e-9, 0.9)):
        assert float((draws <= value).double().mean()) == pytest.approx(share, abs=0.01)
    alone = Quantiles([0.5])
    assert alone.sample(raw[:, 1:2]).item() == alone.mean(raw[:, 1:2]).item() == 1


def test_crossed_quantiles_have_the_mean_of_sorted_ones() -> None:
    output = Quantiles([0.1, 0.5, 0.9, 0.95])
    raw = torch.tensor([[3.0, -1.0, 8.0, 2.0]], dtype=torch.float64)
    draws = output.sample(raw.expand(100_000, 4), torch.Generator().manual_seed(0))
    assert float(output.mean(raw)) == pytest.approx(float(draws.mean()), abs=0.03)


def test_only_counts_say_that_they_are() -> None:
    kinds = {name: OUTPUTS[name]() for name in OUTPUTS}
    assert {name for name in kinds if kinds[name].counts} == {"negative_binomial", "poisson"}
    assert [kinds[name].parameters for name in OUTPUTS] == [1, 3, 2, 3, 2, 1]
    assert Quantiles([0.2, 0.8]).parameters == 2


def test_errors_say_what_was_expected() -> None:
    gaussian, targets = OUTPUTS["gaussian"](), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"Gaussian: expected .* multiple of 2, .* got \(3, 5\)"):
        gaussian.mean(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"Gaussian.loss: expected .*\(3, 2\), .* got \(3, 2\)"):
        gaussian.loss(torch.zeros(3, 2), targets)
    with pytest.raises(ValueError, match=r"Gaussian.loss: expected valid .*\(3, 2\), got \(2,\)"):
        gaussian.loss(torch.zeros(3, 4), targets, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected scales above 0, got one of 0"):
        gaussian.loss(torch.zeros(3, 4), targets, None, torch.tensor([[1.0], [0.0], [2.0]]))
    with pytest.raises(ValueError, match="expected levels between 0 and 1"):
        gaussian.quantiles(torch.zeros(3, 4), [0.5, 1.0])
    for levels in ([], [10, 90], [[0.1]]):
        with pytest.raises(ValueError, match="expected levels between 0 and 1"):
            OUTPUTS["quantiles"](levels)
    with pytest.raises(ValueError, match=r"expected increasing levels, got \[0.9, 0.1\]"):
        Quantiles([0.9, 0.1])
    with pytest.raises(ValueError, match="loss: expected one of"):
        OUTPUTS["point"]("rmse")
