"""The computation that is exported: from a batch of images to tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError, did_you_mean
from PADing.export import results

# --outputs -> the names of its tensors
OUTPUTS: dict[str, tuple[str, ...]] = {
    "raw": ("class_logits", "mask_logits"),
    "semantic": ("semantic_labels",),
    "semantic-scores": ("semantic_scores",),
    "instance": ("instance_scores", "instance_labels", "instance_boxes", "instance_masks"),
    "panoptic": ("panoptic_map", "panoptic_labels"),
}
# The switch that an output needs, and its config key.
SWITCHES = {
    "semantic": ("semantic_on", "SEMANTIC_ON"),
    "semantic-scores": ("semantic_on", "SEMANTIC_ON"),
    "instance": ("instance_on", "INSTANCE_ON"),
    "panoptic": ("panoptic_on", "PANOPTIC_ON"),
}
INPUT = "images"
# The coarsest maps need two rows and columns, for programs of torch.export.
LEAST_SIDE = 33


class Program(nn.Module):
    """A model in evaluation mode as a function of one tensor.

    Args:
        model: a ``SegmenterBase``.
        outputs: some of ``OUTPUTS``.

    Raises:
        UserError: unknown outputs, outputs that the model does not compute, or a model of another kind.
    """

    def __init__(self, model: Any, outputs: Sequence[str]):
        super().__init__()
        check_outputs(model, outputs)
        self.model, self.outputs = model, tuple(dict.fromkeys(outputs))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the output tensors, in their order."""
        return tuple(name for output in self.outputs for name in OUTPUTS[output])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) float32 on the scale 0..255 to the tensors ``names``; results have the images' size.

        As in the model's own inference, images are normalised and padded, and masks are resized and cropped.
        """
        model = self.model
        height, width = images.shape[-2:]
        multiple = max(model.size_divisibility, 1)
        rows, columns = ((side + multiple - 1) // multiple * multiple for side in (height, width))
        padded = F.pad((images - model.pixel_mean) / model.pixel_std, (0, columns - width, 0, rows - height))
        class_logits, mask_logits = model.predict(ImageList(padded, []))
        masks: Tensor | None = None
        if self.outputs != ("raw",):
            masks = F.interpolate(mask_logits, size=(rows, columns), mode="bilinear", align_corners=False)
            # Not slices, whose ends torch.export compares with the size and so fixes the size.
            for axis, side in ((2, height), (3, width)):
                masks = masks.index_select(axis, torch.arange(side, device=masks.device))
        found: list[Tensor] = []
        for output in self.outputs:
            if masks is None or output == "raw":
                found += class_logits, mask_logits
            else:
                found += self._results(output, class_logits, masks)
        return tuple(found)

    def _results(self, output: str, class_logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        if output == "instance":
            return results.instances(class_logits, masks, model.instance_rule(), model.boxes_from_masks)
        if output == "panoptic":
            thresholds = model.object_mask_threshold, model.overlap_threshold
            return results.panoptic(class_logits, masks, model.things, *thresholds)
        scores = results.semantic_scores(class_logits, masks)
        return (scores,) if output == "semantic-scores" else (scores.argmax(1).int(),)

    def eager(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, computed by PyTorch with this project's compiled kernels."""
        with torch.no_grad():
            return dict(zip(self.names, self(images), strict=True))


def check_outputs(model: Any, outputs: Sequence[str]) -> None:
    """UserError: unknown outputs, a model that cannot be exported, or outputs that it does not compute."""
    if not outputs:
        raise UserError(f"No outputs are named. Choose some of {', '.join(OUTPUTS)}.")
    for name in outputs:
        if name not in OUTPUTS:
            hint = did_you_mean(name, OUTPUTS) or f" (there are {', '.join(OUTPUTS)})"
            raise UserError(f"--outputs: {name!r} does not exist{hint}.")
    kind = type(model).__name__
    needs: tuple[str, ...] = ("predict", "instance_rule", "size_divisibility", "pixel_mean", "pixel_std")
    missing = [name for name in needs if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"{kind} says nothing about exports: it has no {', '.join(missing)}. Inherit MaskFormer or SegmenterBase "
            "of PADing.meta_arch, and override predict(images) if it classifies in another way (docs/your_method.md)."
        )
    if getattr(model, "second_classifier", None) is not None:
        cure = "Set MODEL.SECOND_CLASSIFIER.NAME ''."
        raise UserError(f"This {kind} has a second classifier, which exported models cannot run. {cure}")
    for name in outputs:
        switch, key = SWITCHES.get(name, ("", ""))
        if switch and not getattr(model, switch):
            raise UserError(
                f"--outputs {name}: this {kind} does not compute such results. If it should, add "
                f"MODEL.MASK_FORMER.TEST.{key} True."
            )


def own_results(model: Any) -> list[str]:
    """All outputs but ``raw`` that a model's own inference computes."""
    return [name for name in ("semantic-scores", "instance", "panoptic") if getattr(model, SWITCHES[name][0])]
