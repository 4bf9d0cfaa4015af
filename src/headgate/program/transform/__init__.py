"""Transformations Program → Program: options of a layer that are valid for every cell.

Each is a function of its own in this package; ``transform`` applies those that are asked for.
The result is a Program as any other: it prints, it serialises, and values keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.program.program import Program
from headgate.program.transform.activations import clip_preactivation as _clip_preactivation
from headgate.program.transform.activations import replace_activations
from headgate.program.transform.dropout import recurrent_dropout as _recurrent_dropout
from headgate.program.transform.dropout import variational_dropout as _variational_dropout
from headgate.program.transform.normalise import GAIN
from headgate.program.transform.normalise import layer_norm as _layer_norm
from headgate.program.transform.rewrite import check_rate
from headgate.program.transform.states import clip_state as _clip_state
from headgate.program.transform.states import zoneout as _zoneout

__all__ = ["GAIN", "transform"]


def transform(
    program: Program,
    *,
    state_activation: str | None = None,
    gate_activation: str | None = None,
    activations: Mapping[str, str] | None = None,
    clip_state: float | Mapping[str, float] | None = None,
    clip_preactivation: float | None = None,
    layer_norm: bool = False,
    recurrent_dropout: float = 0.0,
    variational_dropout: float = 0.0,
    zoneout: float | Mapping[str, float] = 0.0,
) -> Program:
    """The Program with these options built into its equations.

    Whatever the order of the arguments, they are applied from the inside of a step outwards:

    1. ``variational_dropout``: one mask a sequence on the previous states where matrices read
       them, R·(m ∘ h) (Gal & Ghahramani 2016); Keras's ``recurrent_dropout``.
    2. ``layer_norm``: each family's products of one vector, all blocks together, become
       gain ∘ (W·v − mean) / sqrt(variance + 1e-5) (Ba, Kiros & Hinton 2016). The gains of family W
       are a new vector family ``gain_W`` (``GAIN + "W"``), which starts at one.
    3. ``clip_preactivation``: arguments of activations limited to ± the bound (ONNX).
    4. ``state_activation``, ``gate_activation``: the function in place of every tanh, of every
       sigmoid; ``activations``: by the name of a value, ``{"o": "hard_sigmoid"}``, before the two
       others. Names: tanh, sigmoid, relu, softsign, hard_sigmoid, identity.
    5. ``recurrent_dropout``: a fresh mask each step on what is added to a memory,
       f ∘ c + m ∘ (i ∘ g) (Semeniuta, Severyn & Barth 2016).
    6. ``clip_state``: next values of states limited to ± the bound, one for all or
       ``{state: bound}``; all that reads them in this step sees the clipped value.
    7. ``zoneout``: each unit of a state keeps its old value with this rate, one for all or
       ``{state: rate}`` (Krueger et al. 2017). The state's name stays with its final next value.

    Gradients of clips pass inside and at both edges. Masks are drawn in training; in evaluation
    each is its expectation, so that dropout disappears and zoneout mixes old and new.

    Raises ProgramError, saying why, for an unknown name, a rate outside [0, 1), a bound that is
    not positive, and an option that makes no sense for the cell.
    """
    if check_rate(program, "variational_dropout", variational_dropout):
        program = _variational_dropout(program, variational_dropout)
    if layer_norm:
        program = _layer_norm(program)
    if clip_preactivation is not None:
        program = _clip_preactivation(program, clip_preactivation)
    program = replace_activations(program, state_activation, gate_activation, activations)
    if check_rate(program, "recurrent_dropout", recurrent_dropout):
        program = _recurrent_dropout(program, recurrent_dropout)
    if clip_state is not None:
        program = _clip_state(program, clip_state)
    return _zoneout(program, zoneout)
