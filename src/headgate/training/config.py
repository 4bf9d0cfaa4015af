"""What a fit is told: one frozen model, every field of which changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Sgd(Settings):
    """Gradient descent: v = momentum·v + g, p = p − rate·v (Sutskever et al. 2013)."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last update's velocity that is kept."""
    nesterov: bool = False
    """Look ahead along the velocity; needs momentum."""


class RmsProp(Settings):
    """p = p − rate·g / (√E[g²] + epsilon) (Tieleman & Hinton 2012)."""

    kind: Literal["rmsprop"] = "rmsprop"
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root, so that a small gradient does not give a large update."""


class Adam(Settings):
    """p = p − rate·m̂ / (√v̂ + epsilon) (Kingma & Ba 2015)."""

    kind: Literal["adam"] = "adam"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running mean of gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root, so that a small gradient does not give a large update."""


class AdamW(Adam):
    """Adam with p = p − rate·weight_decay·p beside it (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"  # pyright: ignore[reportIncompatibleVariableOverride]
    weight_decay: float = Field(default=0.01, ge=0)
    """Share of every parameter that one unit of learning rate takes away."""


class Lbfgs(Settings):
    """Limited-memory BFGS (strong Wolfe line search); one step an epoch, over all its batches."""

    kind: Literal["lbfgs"] = "lbfgs"
    iterations: int = Field(default=20, ge=1)
    """Iterations of one step."""
    history: int = Field(default=10, ge=1)
    """Pairs of changes that stand for the curvature."""


class Constant(Settings):
    """The same rate throughout."""

    kind: Literal["none"] = "none"


class Piecewise(Settings):
    """rate · factor^⌊epoch / period⌋."""

    kind: Literal["piecewise"] = "piecewise"
    period: int = Field(default=10, ge=1)
    """Epochs between drops."""
    factor: float = Field(default=0.1, gt=0)
    """What each drop multiplies the rate by."""


class Exponential(Settings):
    """rate · factor^epoch."""

    kind: Literal["exponential"] = "exponential"
    factor: float = Field(default=0.95, gt=0)
    """What each epoch multiplies the rate by."""


class Cosine(Settings):
    """Half a cosine from the rate to final · rate over all epochs (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end, as a share of the learning rate."""


class Polynomial(Settings):
    """rate · (1 − epoch / epochs)^power."""

    kind: Literal["polynomial"] = "polynomial"
    power: float = Field(default=1.0, gt=0)
    """1 is a straight line."""


class Cyclical(Settings):
    """Up and down between low · rate and rate, a triangle every period (Smith 2017)."""

    kind: Literal["cyclical"] = "cyclical"
    period: int = Field(default=10, ge=2)
    """Epochs of one triangle."""
    low: float = Field(default=0.1, ge=0, le=1)
    """The lowest rate, as a share of the learning rate."""


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Optimizer = Annotated[
    Sgd | RmsProp | Adam | AdamW | Lbfgs, Field(discriminator="kind"), BeforeValidator(_named)
]
Schedule = Annotated[
    Constant | Piecewise | Exponential | Cosine | Polynomial | Cyclical,
    Field(discriminator="kind"),
    BeforeValidator(_named),
]
Factors = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

RATES = {"sgd": 0.01, "rmsprop": 0.001, "adam": 0.001, "adamw": 0.001, "lbfgs": 1.0}


class FitConfig(Settings):
    """How `fit` trains and when it stops.

    The *watched* loss is the validation loss where there is validation, else the training loss.
    """

    epochs: int = Field(default=100, ge=1)
    """Passes over the data, at most."""
    optimizer: Optimizer = Adam()
    """sgd, rmsprop, adam, adamw or lbfgs; or a table with `kind` and its settings."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Size of an update before the schedule; none: sgd 0.01, lbfgs 1, all others 0.001."""
    schedule: Schedule = Constant()
    """none, piecewise, exponential, cosine, polynomial or cyclical; or a table with `kind`."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Epochs in which the rate rises linearly to its full size; the schedule begins after them."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest gradient let through, in units of loss per unit of parameter; none: no limit."""
    clip_method: Literal["norm", "global-norm", "value"] = "global-norm"
    """What the limit holds for: each tensor's norm, the norm of all together, or each element."""
    l2: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """L2 penalty: l2·p is added to every gradient, after clipping; reported losses leave it out."""
    learning_rate_factors: Factors = {}
    """Multiplies the *update* of a family ("W") or of one gate ("b.f", which goes before "b")."""
    l2_factors: Factors = {}
    """Multiplies the L2 penalty of a family or of one gate; {"b": 0} leaves biases free."""
    truncated_bptt: int | None = Field(default=None, ge=1)
    """Steps of one piece: each is an update, and the state is carried on without its gradient."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Seconds of training, at most; looked at after every batch. Resumed fits count on."""
    patience: int | None = Field(default=None, ge=1)
    """Validations in a row without a better loss after which to stop."""
    min_delta: float = Field(default=0.0, ge=0)
    """How much lower, in units of the loss, a validation is to count as better for `patience`."""
    loss_threshold: float | None = None
    """Stop when the watched loss is at or under this."""
    tolerance: float | None = Field(default=None, gt=0)
    """Stop when the watched loss changes by less than this share of itself."""
    keep: Literal["best", "last"] = "best"
    """Which weights the model ends with: of the lowest validation loss, or the last.

    Without validation there is no best, and the last are kept.
    """
    validation_every: int = Field(default=1, ge=1)
    """Epochs from one validation to the next."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs from one checkpoint to the next; the last epoch always writes one."""
    watch_gradients: bool = False
    """Warn when the gradient of the recurrent weights vanishes or explodes, with what to try."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Fixes the order of batches and all random numbers of the fit, not the initial weights."""

    if TYPE_CHECKING:  # an optimiser or schedule may be given by its name

        def __init__(self, **fields: Any) -> None: ...

    @model_validator(mode="after")
    def _together(self) -> FitConfig:
        kind = self.optimizer.kind
        if (
            isinstance(self.optimizer, Sgd)
            and self.optimizer.nesterov
            and not self.optimizer.momentum
        ):
            raise ValueError("nesterov looks ahead along the velocity: give momentum above 0")
        if kind == "lbfgs":
            for name in ("gradient_clip", "truncated_bptt", "learning_rate_factors"):
                if getattr(self, name):
                    raise ValueError(
                        f"lbfgs minimises one function along lines, which {name} would change "
                        f"under it: leave {name} out, or take adam"
                    )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) must be less than epochs ({self.epochs})"
            )
        return self

    @property
    def rate(self) -> float:
        """The learning rate before the schedule."""
        return RATES[self.optimizer.kind] if self.learning_rate is None else self.learning_rate

    def identity(self) -> dict[str, Any]:
        """What must be equal for a resumed fit to continue the same numbers: all but the limits."""
        limits = {"max_seconds", "patience", "min_delta", "loss_threshold", "tolerance"}
        if self.schedule.kind not in ("cosine", "polynomial"):
            limits.add("epochs")
        beside = {"checkpoint_every", "watch_gradients"}
        return self.model_dump(mode="json", exclude=limits | beside)
