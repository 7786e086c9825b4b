"""Soft pruning: train and prune in one run, without fine-tuning afterwards.

The schedule of SSM (Rakshith et al. 2022, https://arxiv.org/abs/2211.01814), **reconstructed** after soft filter
pruning (He et al. 2018, https://arxiv.org/abs/1808.06866), because SSM's text was not available to us: after each epoch
filters are ranked anew and those to go are set to zero, but trained on, so that they may recover and others go in their
place. In the last part of the training the choice is frozen and they stay at zero. Cutting them then changes nothing.

What is set to zero while a filter may recover is a choice (`edgeprune.train.zeros.recoverable`). Ours, "scales": scale
and offset of its normalisation, in every layer that a residual sum ties to it; its weights are left, so that filters
are ranked by what they are, and one that comes back is the one it was. "weights" is soft filter pruning's: there
normalisation divides by the deviation of a constant, and a filter that recovers is thrown far off. Gradients do not
flow through a ReLU at zero: it is momentum, which is kept, that moves a filter off it. Frozen filters lose every
number, also those they are read with, because some activations make another number of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from edgeprune.channels import ChannelMap
from edgeprune.plan import PruningPlan
from edgeprune.program import Program
from edgeprune.train.order import Zero
from edgeprune.train.zeros import everything, recoverable, set_to_zero

Action = Literal["none", "zero", "freeze", "hold"]
_FUZZ = 1e-9


def action(share: float, epoch_ended: bool, frozen: bool, freeze_last: float) -> Action:
    """What is to be done after a step.

    Args:
        share: of the training that is over, 0 to 1.
        epoch_ended: the step was an epoch's last.
        frozen: the choice of filters is frozen already.
        freeze_last: in what last share of the training it is to be, 0 to 1.

    Returns:
        "none"; "zero": choose anew and set to zero; "freeze": the same, for good; "hold": set what was chosen to zero.
    """
    if frozen:
        return "hold"
    if share >= 1 - freeze_last - _FUZZ:
        return "freeze"
    return "zero" if epoch_ended else "none"


class SoftPruning:
    """A `Companion` that prunes softly.

    Args:
        choose: network, on any device -> which filters are to stay.
        channel_map: of the network.
        program: of the network.
        freeze_last: in what last share of the training the choice is frozen, 0 to 1.
        zero: what of a filter is set to zero while it may recover.

    Attributes:
        plan: the last choice; None before the first.
        frozen: whether it will stay so.
    """

    def __init__(
        self,
        choose: Callable[[nn.Module], PruningPlan],
        channel_map: ChannelMap,
        program: Program,
        freeze_last: float,
        zero: Zero = "scales",
    ) -> None:
        self._choose, self._map, self._program = choose, channel_map, program
        self._freeze_last, self._zero = freeze_last, zero
        self.plan: PruningPlan | None = None
        self.frozen = False
        self._all: dict[str, Tensor] = {}
        self._changed = 0

    def stepped(self, module: nn.Module, share: float, epoch_ended: bool) -> None:
        """A step is done: choose, or set to zero, if it is time."""
        act = action(share, epoch_ended, self.frozen, self._freeze_last)
        if act in ("zero", "freeze"):
            chosen = self._choose(module)
            self._changed = _new_ones(self.plan, chosen)
            self.plan, self.frozen, self._all = chosen, act == "freeze", {}
        if self.frozen:
            self.settle(module)
        elif act == "zero" and self.plan is not None:
            numbers = recoverable(self._map, self._program, self.plan.keep, self._zero)
            set_to_zero(module, _moved_to(module, numbers))

    def settle(self, module: nn.Module) -> None:
        """Set everything to zero, in a network, that belongs to the filters which go."""
        if self.plan is not None and not self._all:
            self._all = _moved_to(module, everything(self._map, self.plan.keep))
        set_to_zero(module, self._all)

    def row(self) -> Mapping[str, Any]:
        """How many filters are at zero, how many of them were not after the last epoch, and whether this is final."""
        if self.plan is None:
            return {}
        zero = sum(self.plan.sizes[name] - len(kept) for name, kept in self.plan.keep.items())
        found = {"filters_at_zero": zero, "new_ones": self._changed, "frozen": self.frozen}
        self._changed = 0
        return {**found, "macs_kept": self.plan.macs_kept}

    def to_json(self) -> Mapping[str, Any]:
        """The last choice, and whether it is frozen."""
        plan = None if self.plan is None else self.plan.to_json()
        return {"plan": plan, "frozen": self.frozen, "changed": self._changed}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Go on from what `to_json` gave."""
        plan = document["plan"]
        self.plan = None if plan is None else PruningPlan.from_json(plan)
        self.frozen, self._changed = bool(document["frozen"]), int(document["changed"])
        self._all = {}


def _moved_to(module: nn.Module, numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = next(module.parameters()).device
    return {name: mask.to(device) for name, mask in numbers.items()}


def _new_ones(before: PruningPlan | None, after: PruningPlan) -> int:
    """How many filters go that did not go before."""
    kept = {} if before is None else before.keep
    return sum(len(set(kept.get(name, range(after.sizes[name]))) - set(stays)) for name, stays in after.keep.items())
