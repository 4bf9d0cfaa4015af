"""A watch on gradients: a warning when those of the recurrent weights vanish or explode."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from statistics import median

from torch import Tensor, nn

from headgate.nn.initialise import recurrent_families
from headgate.nn.stack import Stack

VANISHED = 1e-7
"""Of the weights' norm: about float32's resolution, so an update of that size is rounded away."""
CONTRAST = 1e-3
"""Of the relative gradient outside the layers: where all are as small, the fit has converged."""
PATIENCE = 10
"""Updates in a row; a single batch may hold nothing to learn."""
EXPLODED = 1e3
"""Times what is usual: batches differ by a factor of ten or so, explosions by powers of it."""
REMEMBERED = 50
"""Updates of which the running median is taken."""
LEAST = 5
"""Updates before there is a median to speak of."""


class GradientWarning(UserWarning):
    """The recurrent weights' gradient vanishes or explodes; the message says what to try."""


class GradientWatch:
    """Looks at every update's gradient before it is clipped, and warns once of either.

        vanished:  ‖g‖ / ‖R‖ < 1e-7, and under a thousandth of ‖o‖ / ‖O‖, in 10 updates in a row
        exploded:  ‖g‖ not finite; or ‖g‖ / ‖R‖ > 1 and above 1000 times ‖o‖ / ‖O‖ or its own
                   running median over 50 updates

    R are all matrices that multiply a state in Headgate's layers and torch's (all parameters where
    the model has no such layer) and g their gradient; O are the parameters outside these layers,
    such as a linear layer behind, and o their gradient. Scaling the loss changes neither ratio.
    """

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter]) -> None:
        recurrent, inside = _recurrent(model)
        self.watched = [p for p in parameters if id(p) in recurrent]
        self.name = "recurrent weights" if self.watched else "parameters"
        self.outside = [p for p in parameters if id(p) not in inside] if self.watched else []
        self.watched = self.watched or parameters
        self.norms: deque[float] = deque(maxlen=REMEMBERED)
        self.small = 0
        self.warned: set[str] = set()

    def look(self, where: str) -> None:
        """`where` is the epoch and batch, as the warning says them."""
        size = _norm(self.watched)
        if not size:  # weights that begin at zero
            return
        norm = _norm([p.grad for p in self.watched]) / size
        around = math.nan  # compares as neither larger nor smaller
        if self.outside:
            around = _norm([p.grad for p in self.outside]) / (_norm(self.outside) or 1.0)
        usual = median(self.norms) if len(self.norms) >= LEAST else math.inf
        if not math.isfinite(norm) or (norm > 1 and norm > EXPLODED * min(usual, around)):
            self._exploded(norm, size, where)
        self.norms.append(norm)
        small = norm < VANISHED and not norm >= CONTRAST * around
        self.small = self.small + 1 if small else 0
        if self.small == PATIENCE:
            self._vanished(norm, size, where)

    def _exploded(self, norm: float, size: float, where: str) -> None:
        usual = f", {median(self.norms) * size:.3g} on the median before" if self.norms else ""
        self._warn(
            "exploded",
            f"{where}: the gradient of the {self.name} has norm {norm * size:.3g} beside weights "
            f"of {size:.3g}{usual}: it explodes. Try gradient_clip (1 is usual), a smaller "
            "learning_rate, orthogonal recurrent initial weights, layer_norm, or a shorter "
            "truncated_bptt",
        )

    def _vanished(self, norm: float, size: float, where: str) -> None:
        self._warn(
            "vanished",
            f"{where}: the gradient of the {self.name} has norm {norm * size:.3g} beside weights "
            f"of {size:.3g}, and was as small in {PATIENCE} updates in a row: it vanishes, and "
            "they no longer learn. Try a gated cell (lstm, gru) with a forget bias of 1, "
            "orthogonal recurrent initial weights, scaled inputs, layer_norm, or shorter sequences",
        )

    def _warn(self, what: str, text: str) -> None:
        if what not in self.warned:
            self.warned.add(what)
            warnings.warn(f"fit, {text}.", GradientWarning, stacklevel=2)


def _recurrent(model: nn.Module) -> tuple[set[int], set[int]]:
    """Which parameters multiply a state in the recurrent layers, and which are in these at all."""
    multiply: set[int] = set()
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, Stack):
            families = recurrent_families(module.program)
            names = {b.parameter for b in module.blocks() if b.family in families}
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            names = {name for name, _ in module.named_parameters() if "weight_hh" in name}
        else:
            continue
        inside |= {id(p) for p in module.parameters()}
        multiply |= {id(getattr(module, name)) for name in names}
    return multiply, inside


def _norm(tensors: Sequence[Tensor | None]) -> float:
    return float(nn.utils.get_total_norm([each for each in tensors if each is not None]))
