from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from headgate.training import make_loss

Y = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
P = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
VALID = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)


def mean(loss, prediction, targets, valid=None):
    total, count = loss(prediction, targets, valid)
    return total / count


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
        ("huber", functional.huber_loss),
    ],
)
def test_all_valid_is_torchs_mean_and_some_valid_is_the_mean_of_those(name, theirs) -> None:
    loss = make_loss(name)
    torch.testing.assert_close(mean(loss, P, Y), theirs(P, Y))
    torch.testing.assert_close(mean(loss, P, Y, VALID), theirs(P[VALID], Y[VALID]))
    single = torch.rand(3, 5, 2) > 0.5
    torch.testing.assert_close(mean(loss, P, Y, single), theirs(P[single], Y[single]))


def test_huber_takes_its_delta() -> None:
    expected = functional.huber_loss(P, Y, delta=0.3)
    torch.testing.assert_close(mean(make_loss("huber", delta=0.3), P, Y), expected)


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 0.0]])
def test_cross_entropy_is_torchs_weighted_mean_over_valid_steps(weights) -> None:
    scores, labels = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    loss = make_loss("cross_entropy", class_weights=weights)
    w = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(scores[VALID], labels[VALID], weight=w)
    torch.testing.assert_close(mean(loss, scores, labels, VALID), expected, check_dtype=False)
    one_a_row = functional.cross_entropy(scores[:, 0], labels[:, 0], weight=w)
    got = mean(loss, scores[:, 0], labels[:, 0])
    torch.testing.assert_close(got, one_a_row, check_dtype=False)


def test_pinball_weighs_under_and_over_by_the_quantile() -> None:
    loss = make_loss("pinball", quantiles=[0.1, 0.9])
    prediction = torch.tensor([[[0.0, 0.0], [3.0, 3.0]]])
    targets = torch.tensor([[1.0, 1.0]])
    expected = (0.1 * 1 + 0.9 * 1 + 0.9 * 2 + 0.1 * 2) / 4
    assert float(mean(loss, prediction, targets)) == pytest.approx(expected)


def test_median_pinball_is_half_the_absolute_error() -> None:
    half = mean(make_loss("pinball", quantiles=[0.5]), P.unsqueeze(-1), Y, VALID)
    torch.testing.assert_close(2 * half, mean(make_loss("mae"), P, Y, VALID))


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "pinball", "cross_entropy"])
def test_what_is_not_valid_may_be_nan(name) -> None:
    loss = make_loss(name, **({"quantiles": [0.3, 0.6]} if name == "pinball" else {}))
    classes = name == "cross_entropy"
    targets = torch.randint(4, (3, 5)) if classes else Y[..., 0].clone()
    shape = {"pinball": (3, 5, 2), "cross_entropy": (3, 5, 4)}.get(name, (3, 5))
    clean = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    poisoned = clean.detach().clone()
    poisoned[~VALID] = torch.nan
    poisoned.requires_grad_()
    expected = mean(loss, clean, targets, VALID)
    expected.backward()
    targets[~VALID] = -7 if classes else torch.nan
    got = mean(loss, poisoned, targets, VALID)
    got.backward()
    assert got == expected
    assert poisoned.grad is not None
    assert torch.equal(poisoned.grad, clean.grad)  # pyright: ignore[reportArgumentType]


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"mse: expected a prediction .*\(3, 5\), got \(3, 5, 1\)"):
        make_loss("mse")(P[..., :1], Y[..., 0], None)
    with pytest.raises(ValueError, match=r"pinball: expected a prediction \(3, 5, 2, 3\)"):
        make_loss("pinball", quantiles=[0.1, 0.5, 0.9])(P, Y, None)
    with pytest.raises(ValueError, match="say which quantiles"):
        make_loss("pinball")
    with pytest.raises(ValueError, match="quantiles between 0 and 1"):
        make_loss("pinball", quantiles=[10, 90])
    with pytest.raises(ValueError, match="expected one of mse, mae, huber"):
        make_loss("rmse")
    weighted = make_loss("cross_entropy", class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="expected 4 class weights"):
        weighted(torch.randn(3, 4), torch.zeros(3, dtype=torch.int64), None)
    with pytest.raises(ValueError, match="valid with the targets' leading axes"):
        make_loss("mse")(P, Y, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="delta above 0"):
        make_loss("huber", delta=0)
