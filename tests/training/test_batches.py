from __future__ import annotations

import pytest
import torch

from headgate.training import ArrayBatches, Batch


def order(batches: ArrayBatches, k: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(v) for batch in batches.epoch(k, generator) for v in batch.inputs[:, 0, 0]]


X = torch.arange(7.0)[:, None, None].expand(7, 3, 1)


def test_never_once_and_every_epoch() -> None:
    never = ArrayBatches(X, X, batch_size=2, shuffle="never")
    once = ArrayBatches(X, X, batch_size=2, shuffle="once")
    every = ArrayBatches(X, X, batch_size=2, shuffle="every-epoch")
    assert len(never) == 4
    assert order(never, 0) == order(never, 3) == list(range(7))
    assert order(once, 0) == order(once, 3) != list(range(7))
    assert order(once, 0) != order(once, 0, seed=5)
    assert order(every, 3) == order(every, 3) != order(every, 2)
    assert order(every, 3) != order(every, 3, seed=5)
    assert sorted(order(every, 3)) == list(range(7))


def test_ragged_rows_are_padded_and_their_padding_is_not_valid() -> None:
    rows = [torch.ones(n, 2) for n in (3, 1, 4)]
    targets = [torch.ones(n) for n in (3, 1, 4)]
    ragged = ArrayBatches(rows, targets, shuffle="never")
    (batch,) = ragged.epoch(0, torch.Generator())
    assert batch.inputs.shape == (3, 4, 2)
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [3, 1, 4]
    assert batch.valid is not None
    assert batch.valid.sum(1).tolist() == [3, 1, 4]


def test_one_target_a_row_counts_whatever_the_lengths() -> None:
    rows = [torch.ones(n, 2) for n in (3, 1, 4)]
    for targets in (torch.zeros(3), torch.zeros(3, 4), [0.0, 1.0, 2.0], [0, 1, 2]):
        (batch,) = ArrayBatches(rows, targets, shuffle="never").epoch(0, torch.Generator())
        assert batch.valid is not None
        assert batch.valid.tolist() == [True] * 3


def test_inputs_past_a_rows_end_are_zero_so_that_any_layer_may_see_them() -> None:
    inputs = torch.full((2, 3, 1), torch.nan)
    inputs[0, :2], inputs[1, :1] = 1.0, 1.0
    batch = Batch(inputs, torch.zeros(2, 3, 1), torch.tensor([2, 1]))
    assert batch.inputs[..., 0].tolist() == [[1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_shares_hold_every_row_once_and_are_never_empty(world: int) -> None:
    batch = Batch(X, X, torch.tensor([3, 2, 1, 3, 0, 1, 2]))
    shares = [batch.share(rank, world) for rank in range(world)]
    assert all(len(share) >= 1 for share in shares)
    assert batch.valid is not None
    assert sum(int(s.valid.sum()) for s in shares if s.valid is not None) == int(batch.valid.sum())
    rows = sorted(
        float(v) for s in shares if s.valid is not None and s.valid.any() for v in s.inputs[:, 0, 0]
    )
    assert set(rows) >= {0.0, 1.0, 2.0, 3.0, 5.0, 6.0}


def test_pieces_cut_inputs_targets_lengths_and_valid_alike() -> None:
    batch = Batch(X[:2], X[:2], torch.tensor([3, 1]))
    first, second = batch.pieces(2)
    assert first.inputs.shape == (2, 2, 1)
    assert second.inputs.shape == (2, 1, 1)
    assert first.lengths is not None
    assert second.lengths is not None
    assert (first.lengths.tolist(), second.lengths.tolist()) == ([2, 1], [1, 0])
    assert second.valid is not None
    assert second.valid.tolist() == [[True], [False]]


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"one target a step .* valid=torch.ones"):
        Batch(X, torch.zeros(7, 5), torch.ones(7))
    with pytest.raises(ValueError, match="expected shuffle never, once or every-epoch"):
        ArrayBatches(X, X, shuffle="sometimes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="expected targets of 7 rows as inputs, got 3"):
        ArrayBatches(X, X[:3])
    with pytest.raises(ValueError, match="at least one row, got none"):
        ArrayBatches(X[:0], X[:0])
    with pytest.raises(ValueError, match="row 1 has 2 steps and 3 targets"):
        ArrayBatches([X[0], X[1, :2]], [X[0], X[1]])
    with pytest.raises(ValueError, match="batch_size of at least 1"):
        ArrayBatches(X, X, batch_size=-1)
    with pytest.raises(ValueError, match="truncated_bptt: expected inputs"):
        list(Batch(X, torch.zeros(7)).pieces(2))
