"""Runs of one shape without gradients: nothing is left to do but to say where tensors lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headgate import native
from headgate.engines.cpu.engine import NO_STREAMS, Job, Run
from headgate.engines.cpu.weights import instruction_set


class Repeated:
    """Layers one on another, from given states or from those of the first call.

    Raises ValueError where a call needs more than addresses: values that torch computes ahead, an
    input whose units are apart, or layers of different widths.
    """

    def __init__(self, jobs: Sequence[Job], x: Tensor) -> None:
        runs, begun, seen = [], [], x
        for job in jobs:
            runs.append(Run(job, seen, kept=False))
            begun.append(runs[-1].forward())
            seen = begun[-1][1][0]
        widths = {tuple(s.shape[1] for s in run.states) for run in runs}
        if len(widths) > 1 or runs[0].x is not x or any(run.fixed for run in runs):
            raise ValueError("repeated: expected layers of one width and values that are given")
        self.forms = [run.form for run in runs]  # a binding lives no longer than its loop
        self.bindings = [call[0] for call, _ in begun]
        self.initial = [run.states for run in runs]
        self.starts = [[s.data_ptr() for s in run.states] for run in runs]
        self.output_shape = seen.shape
        self.shapes = [(len(jobs), x.shape[1], width) for width in next(iter(widths))]
        self.strides = [x.shape[1] * width * x.element_size() for width in next(iter(widths))]

    def __call__(
        self,
        x: Tensor,
        families: Sequence[Sequence[Tensor]],
        initial: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output (T, N, H), and the final states (layers, N, width), as ``initial`` are."""
        finals = tuple([x.new_empty(shape) for shape in self.shapes])
        ends = [t.data_ptr() for t in finals]
        calls, held, starts_of = [], [], self.starts
        if initial is not None:
            held = [t.contiguous() for t in initial]
            begin = [(t.data_ptr(), stride) for t, stride in zip(held, self.strides, strict=True)]
            starts_of = [[at + k * by for at, by in begin] for k in range(len(self.starts))]
        for binding, starts, own in zip(self.bindings, starts_of, families, strict=True):
            output = x.new_empty(self.output_shape)
            addresses = [x.data_ptr(), output.data_ptr(), 0, *starts]
            held.append(x)
            for family in own:
                whole = family.contiguous()
                held.append(whole)
                addresses.append(whole.data_ptr())
            calls.append((binding, addresses + ends, 0, 0, 0, NO_STREAMS))
            x = output
            ends = [end + stride for end, stride in zip(ends, self.strides, strict=True)]
        run = native.extension.run  # type: ignore[union-attr]
        run(instruction_set()[0], calls, torch.get_num_threads(), True)
        return x, finals
