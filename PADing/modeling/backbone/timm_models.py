"""Models of timm: their names, what they expect of images, and which feature maps they give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from PADing.errors import UserError, did_you_mean
from PADing.torchvision_users import import_with_torchvision

STRIDES = (4, 8, 16, 32)  # of res2 to res5
# Arguments for images of any size. A model that knows none of them may take any size anyway.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


def timm_library() -> ModuleType:
    """The package ``timm``, imported on first use, because that takes seconds; UserError if it cannot be."""
    return import_with_torchvision("timm")


def pretrained_cfg(name: str) -> Any:
    """What timm knows of a model and its weights (``mean``, ``std``, ``input_size``, ``has_weights``, ``license``).

    Args:
        name: an architecture or one with a tag, such as ``convnext_tiny.fb_in1k``.

    Raises:
        UserError: timm has no such model, or no such tag.
    """
    timm = timm_library()
    architecture, _, tag = name.partition(".")
    if not name or not timm.is_model(architecture):
        known = timm.list_models()
        hint = did_you_mean(architecture, known) or ". Names are such as resnet50, convnext_tiny, vit_base_patch16_224"
        raise UserError(f"MODEL.TIMM.NAME is {name!r}, which timm {timm.__version__} does not have{hint}.")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        known = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        there = f"There are: {', '.join(known)}." if known else "It has none."
        raise UserError(f"MODEL.TIMM.NAME is {name!r}, but timm's {architecture} has no tag {tag!r}. {there}") from None


def pixel_values(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that a model expects, red, green, blue, on the scale 0..255; UserError as above."""
    known = pretrained_cfg(name)
    return [round(255 * x, 3) for x in known.mean], [round(255 * x, 3) for x in known.std]


@dataclass(frozen=True)
class Plan:
    """How to build a model of timm and what it gives.

    Attributes:
        arguments: for ``timm.create_model``.
        indices: of the intermediate features to take.
        strides: of these features in the image that the model sees.
        channels: of these features.
        plain: all features have one stride, as those of a ViT.
        norm: the model's last norm applies to the features.
        multiple: sides of the image that the model sees are multiples of it.
        fixed: the only side of images that the model takes; 0: it takes other sizes.
    """

    arguments: dict[str, Any]
    indices: list[int]
    strides: list[int]
    channels: list[int]
    plain: bool
    norm: bool
    multiple: int
    fixed: int

    @property
    def patch(self) -> int:
        """The stride of a plain model."""
        return self.strides[-1]


def make_plan(name: str, out_indices: Sequence[int], drop_path: float, image_size: int) -> Plan:
    """Find out what a model gives, by runs without numbers (on the device ``meta``).

    Args:
        name: see ``pretrained_cfg``.
        out_indices: of timm's features; empty: those of strides 4 to 32, or the last one of a plain model.
        drop_path: rate of stochastic depth.
        image_size: side of the images that a model of a fixed size is built for; 0: the one that timm names.

    Raises:
        UserError: the model gives no feature maps, or none of these strides, or has no stochastic depth.
    """
    side = image_size or int(pretrained_cfg(name).input_size[-1])
    arguments = {"drop_path_rate": drop_path} if drop_path else {}
    model, chosen = _first_that_builds(name, arguments, _ANY_SIZE)
    strides = _strides(name, model)
    plain = len(set(strides)) == 1
    indices = _indices(name, strides, out_indices, plain)
    unit = strides[0] * max(32 // _power(strides[0]), 1) if plain else max(32, *strides)
    for multiple in (unit, side) if side % unit == 0 else (unit,):
        if maps := _try(model, (multiple, 2 * multiple), strides, indices, plain):
            break
    else:  # for images of one size
        unit = strides[0] if plain else unit
        side = max(side // unit, 1) * unit if image_size else side
        model, chosen = _first_that_builds(name, arguments, ({"img_size": side}, {}))
        multiple = 0
        maps = _try(model, (side, side), strides, indices, plain)
        if maps is None:
            wanted = f"No image size that was tried works: multiples of {unit}, and {side}."
            raise UserError(f"MODEL.TIMM.NAME is {name!r}, which gives no feature maps here. {wanted} Choose another.")
    return Plan(
        arguments={**arguments, **chosen}, indices=indices, strides=[strides[i] for i in indices],
        channels=[x.shape[1] for x in maps[0]], plain=plain, norm=maps[1], multiple=multiple,
        fixed=0 if multiple else side,
    )  # fmt: skip


def build(name: str, plan: Plan) -> nn.Module:
    """A model with random weights, without the parts behind the last feature map that is taken."""
    model = timm_library().create_model(name, num_classes=0, **plan.arguments)
    prune(model, plan)
    return model


def prune(model: Any, plan: Plan) -> None:
    """Remove the parts of a whole model that the features do not need, in place."""
    if hasattr(model, "prune_intermediate_layers"):
        model.prune_intermediate_layers(plan.indices, prune_norm=not plan.norm, prune_head=True)


def features(model: Any, x: Tensor, indices: list[int], norm: bool) -> list[Tensor]:
    """Feature maps (B, C, H / stride, W / stride) of normalised images (B, 3, H, W)."""
    options = {"norm": True} if norm else {}
    return model.forward_intermediates(x, indices=indices, output_fmt="NCHW", intermediates_only=True, **options)


def stage_modules(model: Any) -> list[str]:
    """The name of the module that gives each of timm's features, such as ``stages.0``."""
    info = model.feature_info
    return [entry["module"] for entry in (info if isinstance(info, list) else info.info)]


def nearest_level(stride: int) -> int:
    """The one of ``STRIDES`` that is nearest to a stride, in steps of 2: 16 for 14."""
    return min(max(_power(stride), STRIDES[0]), STRIDES[-1])


def _power(stride: int) -> int:
    return 2 ** round(math.log2(stride))


def _first_that_builds(name: str, arguments: dict, choices: Sequence[dict]) -> tuple[nn.Module, dict]:
    """A model on the device ``meta`` with the first of the ``choices`` of further arguments that it has."""
    create = timm_library().create_model
    for chosen in choices:
        try:
            with torch.device("meta"):
                return create(name, num_classes=0, **arguments, **chosen).eval(), chosen
        except TypeError as error:
            reason = error
    if "drop_path_rate" in str(reason):
        problem = f"but {name} has no stochastic depth. Set MODEL.TIMM.DROP_PATH 0."
        raise UserError(f"MODEL.TIMM.DROP_PATH is {arguments['drop_path_rate']}, {problem}")
    raise UserError(f"MODEL.TIMM.NAME is {name!r}, which timm cannot build here: {reason}.")


def _strides(name: str, model: Any) -> list[int]:
    info = getattr(model, "feature_info", None)
    if not info or not hasattr(model, "forward_intermediates"):
        cure = "Choose a model that can be built with features_only: timm.list_models() names all."
        raise UserError(f"MODEL.TIMM.NAME is {name!r}, which gives no feature maps. {cure}")
    return [int(entry["reduction"]) for entry in (info if isinstance(info, list) else info.info)]


def _indices(name: str, strides: list[int], out_indices: Sequence[int], plain: bool) -> list[int]:
    last = {stride: index for index, stride in enumerate(strides)}
    chosen = [index + len(strides) if index < 0 else index for index in out_indices]
    shown = f"timm's {name} has the features 0 to {len(strides) - 1}, of strides {strides}"
    if plain:
        shown = f"timm's {name} has the features 0 to {len(strides) - 1}, all of stride {strides[0]}"
    if any(not 0 <= index < len(strides) for index in chosen):
        raise UserError(f"MODEL.TIMM.OUT_INDICES is {list(out_indices)}, but {shown}.")
    if plain:
        chosen = chosen or [len(strides) - 1]
        if len(chosen) not in (1, 4) or sorted(chosen) != chosen:
            cure = "Set one index, or four that ascend, for res2 to res5."
            raise UserError(f"MODEL.TIMM.OUT_INDICES is {list(out_indices)}, and {shown}. {cure}")
        return chosen
    chosen = chosen or [last[stride] for stride in STRIDES if stride in last]
    taken = [strides[index] for index in chosen]
    if not taken or not set(taken) <= set(STRIDES) or sorted(set(taken)) != taken:
        cure = "Set indices of different strides of 4, 8, 16 and 32, in this order."
        raise UserError(f"MODEL.TIMM.OUT_INDICES is {list(out_indices)}, and {shown}. {cure}")
    return chosen


def _try(
    model: Any, size: tuple[int, int], strides: list[int], indices: list[int], plain: bool
) -> tuple[list[Tensor], bool] | None:
    """Features of an image of this size, and whether the last norm was applied; None if the model refuses it."""
    wanted = [tuple(length // strides[i] for length in size) for i in indices]
    for norm in (True, False) if plain else (False,):
        try:
            with torch.no_grad():
                maps = features(model, torch.empty(1, 3, *size, device="meta"), indices, norm)
        except Exception:  # models assert, or fail in an operator
            continue
        if [tuple(x.shape[-2:]) for x in maps] == wanted:
            return maps, norm
    return None
