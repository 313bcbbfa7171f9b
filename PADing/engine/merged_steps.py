"""Optimizers that update all parameters with equal settings together.

Published checkpoints have one parameter group for each parameter. PyTorch updates group after group, so hundreds of
groups cost hundreds of small steps. These classes keep the groups, for checkpoints and schedulers, and merge them for
a step.
"""

from collections.abc import Mapping
from typing import Any

import torch


class MergedSteps(torch.optim.Optimizer):
    """Mixed into an optimizer of PyTorch, before it: ``class AdamW(MergedSteps, torch.optim.AdamW)``.

    On a CPU the step is fused: one pass over the parameters. It differs from that of separate groups by rounding.
    """

    def step(self, closure=None):
        """One update, see ``torch.optim.Optimizer.step``."""
        groups = self.param_groups
        self.param_groups = merged(groups, self.state)
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups


def merged(groups: list[dict[str, Any]], state: Mapping[torch.Tensor, dict]) -> list[dict[str, Any]]:
    """Groups with equal settings as one, in the order of their first parameters, without parameters that do not step.

    ``state``: the optimizer's. Fused steps need all parameters of a group to have one, or none.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for group in groups:
        settings = {name: value for name, value in group.items() if name not in ("params", "fused", "foreach")}
        values = tuple((name, _hashable(value)) for name, value in sorted(settings.items()))
        for parameter in group["params"]:
            if parameter.grad is not None:
                key = (parameter.device, parameter.dtype, bool(state.get(parameter)), values)
                choice: dict[str, Any] = {"fused": _can_fuse(parameter), "foreach": None, "params": []}
                found.setdefault(key, {**settings, **choice})["params"].append(parameter)
    return list(found.values())


def _can_fuse(parameter: torch.Tensor) -> bool | None:
    # On a GPU, fused steps need their counters there, which those in checkpoints of other programs are not.
    return True if parameter.device.type == "cpu" and parameter.is_floating_point() else None


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class AdamW(MergedSteps, torch.optim.AdamW):
    """``torch.optim.AdamW`` with merged steps."""


class Adam(MergedSteps, torch.optim.Adam):
    """``torch.optim.Adam`` with merged steps."""


class SGD(MergedSteps, torch.optim.SGD):
    """``torch.optim.SGD`` with merged steps."""
