from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import engine, peak_memory, rows
from benchmarks.loops import STEPS, loop
from benchmarks.rows import ASKED_FOR, ROWS
from benchmarks.subjects import CELLS, fresh_inputs, inputs, layer, operations
from benchmarks.timing import Measurement, at_least, at_most, compare, take_turns

TINY = (3, 2, 4, 6)
IN_PROCESS = [name for name in ROWS if name not in {*ASKED_FOR, "memory"}]


def test_every_row_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "MATRIX", 8)
    file = tmp_path / "table.json"
    shape = ",".join(map(str, TINY))
    options = ["--shapes", shape, "--seconds", "0", "--json", str(file)]
    threads = torch.get_num_threads()
    try:
        engine.main(["--only", *IN_PROCESS, "--threads", "1", *options])
    finally:
        torch.set_num_threads(threads)
    written = json.loads(file.read_text())
    assert {row["row"] for row in written["rows"]} == set(IN_PROCESS)
    for row in written["rows"]:
        assert row["ratio"] > 0
        assert row["met"] is not None
        assert row["shape"] in (list(TINY), [])
    assert written["versions"]["torch"] == torch.__version__
    assert written["machine"]["cores"] >= 1
    assert "met?" in capsys.readouterr().out


def test_ratios_are_speeds_where_at_least_and_times_where_at_most() -> None:
    def work(size: int) -> None:
        sum(range(size))

    calls = (lambda: work(200_000)), {"less": lambda: work(50_000), "more": lambda: work(400_000)}
    speed = compare("", (), *calls, 0.05, at_least(1))
    share = compare("", (), *calls, 0.05, at_most(1))
    assert speed.peer == share.peer == "less"
    assert speed.ratio is not None
    assert share.ratio is not None
    assert speed.ratio < 0.6 < 1.7 < share.ratio
    assert not speed.met
    assert not share.met
    assert compare("", (), *calls, 0.05, at_most(1), scale=0.01).met
    assert Measurement("", skipped="no reason").met is None


def test_subject_and_peer_take_turns() -> None:
    order: list[str] = []
    take_turns([lambda: order.append("a"), lambda: order.append("b")], 1e-4, single=True)
    assert order[:2] == ["a", "b"]
    assert order == ["a", "b"] * (len(order) // 2)


@pytest.mark.parametrize("cell", CELLS)
def test_the_torch_loops_are_the_cells(cell: str) -> None:
    module = layer(CELLS[cell], TINY)
    x = inputs(TINY)
    with torch.no_grad():
        output, states = module(x)
        expected, finals = loop(STEPS[cell], module)(x)
    torch.testing.assert_close(output, expected)
    for state, final in zip(states, finals, strict=True):
        torch.testing.assert_close(state, final)


def test_operations_count_the_products() -> None:
    T, N, I, H = TINY
    assert operations(layer("lstm", TINY), TINY) == 3 * 2 * T * N * 4 * H * (I + H)


def test_no_two_fresh_inputs_share_a_shape() -> None:
    unseen = fresh_inputs(TINY)
    shapes = [tuple(next(unseen).shape) for _ in range(50)]
    assert len(set(shapes)) == 50


@pytest.mark.skipif(not peak_memory.available(), reason="/proc/self/clear_refs is Linux's")
def test_peak_memory_grows_with_what_a_step_keeps() -> None:
    assert peak_memory.measure("torch", (100, 16, 64, 64), 1) > 100 * 16 * 64 * 4


def test_a_shape_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        engine.main(["--shapes", "1,2,3"])
    assert "T,N,I,H such as 100,32,64,64" in capsys.readouterr().err
