"""Mixed precision: where autocast is on, in which type, and whether gradients are scaled."""

import logging

import torch
from detectron2.config import CfgNode

from PADing.errors import UserError

logger = logging.getLogger(__name__)


class Scaler(torch.amp.GradScaler):
    """A gradient scaler that also accepts the empty state of one that was switched off."""

    def load_state_dict(self, state_dict: dict) -> None:
        """As in the base class; an empty state changes nothing."""
        if state_dict:
            super().load_state_dict(state_dict)


class Precision:
    """The ``SOLVER.AMP`` section for one device.

    float16 on a GPU needs gradient scaling. bfloat16 has float32's range and needs none; the CPU always uses it. With
    ``ENABLED False`` both members do nothing, so callers need no branch.

    Attributes:
        scaler: one scaler for all optimizers of a recipe.
    """

    def __init__(self, cfg: CfgNode, device: torch.device):
        amp = cfg.SOLVER.AMP
        types = {"float16": torch.float16, "bfloat16": torch.bfloat16}
        if amp.PRECISION not in types:
            raise UserError(f"SOLVER.AMP.PRECISION is {amp.PRECISION!r}, but must be 'float16' or 'bfloat16'.")
        self.device_type = device.type
        self.enabled = amp.ENABLED
        self.dtype = types[amp.PRECISION]
        if self.enabled and device.type == "cpu" and self.dtype == torch.float16:
            self.dtype = torch.bfloat16
            logger.info("Mixed precision on the CPU uses bfloat16. SOLVER.AMP.ENABLED False trains in float32.")
        needs_scaling = self.enabled and self.dtype == torch.float16
        self.scaler = Scaler(device.type if needs_scaling else "cpu", enabled=needs_scaling)

    def autocast(self) -> torch.autocast:
        """The context in which a forward pass runs."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled)
