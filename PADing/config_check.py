"""Checks the values of a config: each key by the table of rules, then the keys that must fit together.

A method adds rules for its own keys as ``CONFIG_RULES``, a list of ``Rule`` and ``Joint``, in the module that its YAML
names under ``PLUGINS``.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from detectron2.config import CfgNode

from PADing.config_rules import RULES, Rule
from PADing.plugins import imported_methods

__all__ = ["Joint", "multiple", "value_at", "value_problems"]


@dataclass(frozen=True)
class Joint:
    """Keys that must fit together, for one use of a config: "model", "train" or "test".

    ``problem(cfg)`` is "" when they do, else a sentence that names the keys in full; it is left out when one of them is
    wrong by itself.
    """

    needed_for: str
    problem: Callable[[CfgNode], str]


def value_problems(cfg: CfgNode, uses: Collection[str]) -> list[str]:
    """What is wrong with the values of a config, a sentence each that names key, value and what to set instead.

    Args:
        uses: what the config is used for, any of "model", "train", "test"; other keys are not looked at.
    """
    found = {key: f"{key} is {value!r}. Set finite numbers." for key, value in _leaves(cfg) if not _finite(key, value)}
    own = [rule for module in imported_methods(cfg.PLUGINS) for rule in getattr(module, "CONFIG_RULES", ())]
    for rule in (*RULES, *(rule for rule in own if isinstance(rule, Rule))):
        if set(uses).isdisjoint(rule.needed_for.split()):
            continue
        for key in rule.full_keys():
            value = value_at(cfg, key)
            if key not in found and not _holds(rule, value):
                found[key] = f"{key} is {value!r}. Set {rule.allowed.words}{rule.note and f' ({rule.note})'}."
    problems = list(found.values())
    for joint in (*JOINTS, *(rule for rule in own if isinstance(rule, Joint))):
        try:
            problem = joint.problem(cfg) if joint.needed_for in uses else ""
        except (TypeError, ZeroDivisionError):  # a value that is named already
            continue
        if problem and not any(key in problem for key in found):
            problems.append(problem)
    return problems


def _holds(rule: Rule, value) -> bool:
    try:
        return rule.allowed.holds(value)
    except TypeError:  # None or text where a number belongs
        return False


def value_at(node: CfgNode, key: str):
    """The value of a key such as ``SOLVER.BASE_LR``."""
    return reduce(getitem, key.split("."), node)


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _finite(key: str, value) -> bool:
    if isinstance(value, list | tuple):
        return all(_finite(key, item) for item in value)
    infinite_norm = key == "SOLVER.CLIP_GRADIENTS.NORM_TYPE" and value == math.inf
    return not isinstance(value, float) or math.isfinite(value) or infinite_norm


# ---- keys that must fit together


def multiple(key: str, of: str | int, when: Callable[[CfgNode], bool] = lambda cfg: True) -> Joint:
    """The value of ``key`` is a multiple of a number or of another key's value."""

    def problem(cfg: CfgNode) -> str:
        value, divisor = value_at(cfg, key), of if isinstance(of, int) else value_at(cfg, of)
        source = "" if isinstance(of, int) else f" ({of})"
        return f"{key} is {value}. Set a multiple of {divisor}{source}." if when(cfg) and value % divisor else ""

    return Joint("model", problem)


def _group_normed(cfg: CfgNode) -> bool:
    head = cfg.MODEL.SEM_SEG_HEAD
    return head.NORM == "GN" or head.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder"


def _encodes(cfg: CfgNode) -> bool:
    return cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME != "BasePixelDecoder"


def _shallow_resnet(cfg: CfgNode) -> str:
    nets = cfg.MODEL.RESNETS
    needed = {"RES2_OUT_CHANNELS": 64, "NUM_GROUPS": 1, "RES5_DILATION": 1}
    wrong = {key: value for key, value in needed.items() if nets[key] != value}
    if cfg.MODEL.BACKBONE.NAME != "build_resnet_backbone" or nets.DEPTH >= 50 or not wrong:
        return ""
    found = ", ".join(f"MODEL.RESNETS.{key} is {nets[key]}" for key in wrong)
    right = ", ".join(f"MODEL.RESNETS.{key} {value}" for key, value in wrong.items())
    return f"{found}. Set {right} for MODEL.RESNETS.DEPTH {nets.DEPTH}, or a DEPTH from 50."


def _swin(cfg: CfgNode) -> str:
    depths, heads = cfg.MODEL.SWIN.DEPTHS, cfg.MODEL.SWIN.NUM_HEADS
    widths = [cfg.MODEL.SWIN.EMBED_DIM * 2**i for i in range(len(depths))]
    if cfg.MODEL.BACKBONE.NAME != "D2SwinTransformer":
        return ""
    if len(depths) != len(heads):
        return f"MODEL.SWIN.NUM_HEADS is {heads}. Set {len(depths)} values, as many as MODEL.SWIN.DEPTHS."
    if any(width % number for width, number in zip(widths, heads, strict=True)):
        return f"MODEL.SWIN.NUM_HEADS is {heads}. Set divisors of the stages' widths {widths}."
    return ""


def _feature_maps(cfg: CfgNode) -> str:
    head = cfg.MODEL.SEM_SEG_HEAD
    section = {"build_resnet_backbone": "RESNETS", "D2SwinTransformer": "SWIN"}.get(cfg.MODEL.BACKBONE.NAME)
    made = cfg.MODEL[section].OUT_FEATURES if section else head.IN_FEATURES
    absent = [name for name in head.IN_FEATURES if name not in made]
    if absent:
        return (
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {', '.join(absent)}, which the backbone does not give. Add it to "
            f"MODEL.{section}.OUT_FEATURES, now {list(made)}."
        )
    encoded = head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES
    if head.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder" and not set(encoded) <= set(head.IN_FEATURES):
        return (
            f"MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES is {encoded}. Set some of "
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES, {list(head.IN_FEATURES)}."
        )
    return ""


def _decoder_input(cfg: CfgNode) -> str:
    node, scales = cfg.MODEL.MASK_FORMER, "multi_scale_pixel_decoder"
    several = node.TRANSFORMER_DECODER_NAME.startswith("MultiScaleMasked")
    if several == (node.TRANSFORMER_IN_FEATURE == scales) or cfg.MODEL.SEM_SEG_HEAD.NAME != "MaskFormerHead":
        return ""
    if not several and node.TRANSFORMER_DECODER_NAME != "StandardTransformerDecoder":
        return ""  # somebody's own, which may take either
    wanted = repr(scales) if several else "'transformer_encoder' or a map of the backbone such as 'res5'"
    return (
        f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {node.TRANSFORMER_IN_FEATURE!r}. Set {wanted} for "
        f"{node.TRANSFORMER_DECODER_NAME}."
    )


def _one_result(cfg: CfgNode) -> str:
    test = cfg.MODEL.MASK_FORMER.TEST
    if test.SEMANTIC_ON or test.INSTANCE_ON or test.PANOPTIC_ON:
        return ""
    return "MODEL.MASK_FORMER.TEST has SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON all False. Set one of them True."


def _expected_of_one_set(cfg: CfgNode) -> str:
    if len(cfg.DATASETS.TEST) < 2 or not cfg.TEST.EXPECTED_RESULTS:
        return ""
    return "TEST.EXPECTED_RESULTS is for one data set. Set it to [], or DATASETS.TEST to a single name."


def _scales(cfg: CfgNode) -> str:
    low, high = cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE
    return "" if low <= high else f"INPUT.MIN_SCALE is {low}. Set a number up to INPUT.MAX_SCALE, which is {high}."


def _range_of_sizes(cfg: CfgNode) -> str:
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "choice" or len(sizes) == 2:
        return ""
    return f"INPUT.MIN_SIZE_TRAIN is {sizes}. Set (smallest, largest) for INPUT.MIN_SIZE_TRAIN_SAMPLING range."


def _crop(cfg: CfgNode) -> str:
    crop = cfg.INPUT.CROP
    if crop.TYPE.startswith("relative"):
        fits, wanted = max(crop.SIZE) <= 1, "shares up to 1"
    else:
        fits, wanted = all(isinstance(side, int) for side in crop.SIZE), "whole numbers of pixels"
    if fits or not crop.ENABLED:
        return ""
    return f"INPUT.CROP.SIZE is {crop.SIZE}. Set {wanted} for INPUT.CROP.TYPE {crop.TYPE}."


def _cosine(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupCosineLR" or 0 < solver.BASE_LR and solver.BASE_LR_END <= solver.BASE_LR:
        return ""
    return (
        f"SOLVER.BASE_LR_END is {solver.BASE_LR_END} and SOLVER.BASE_LR {solver.BASE_LR}. WarmupCosineLR falls from "
        "BASE_LR to BASE_LR_END: set BASE_LR above 0, and BASE_LR_END up to it."
    )


def _steps(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    reached = [step for step in solver.STEPS if step <= solver.MAX_ITER]
    if solver.LR_SCHEDULER_NAME != "WarmupMultiStepLR" or all(0 < step < solver.MAX_ITER for step in reached):
        return ""
    return (
        f"SOLVER.STEPS is {solver.STEPS} and SOLVER.MAX_ITER {solver.MAX_ITER}. The rate falls at each step, so set "
        "steps above 0 and below MAX_ITER (those above MAX_ITER are left out)."
    )


def _nesterov(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    if solver.OPTIMIZER != "SGD" or not solver.NESTEROV or solver.MOMENTUM > 0:
        return ""
    return "SOLVER.NESTEROV is True, but SOLVER.MOMENTUM 0. Set MOMENTUM above 0, or NESTEROV False."


JOINTS = [
    multiple("MODEL.MASK_FORMER.HIDDEN_DIM", "MODEL.MASK_FORMER.NHEADS"),
    multiple("MODEL.MASK_FORMER.HIDDEN_DIM", 4),  # sines and cosines for rows and columns
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", "MODEL.MASK_FORMER.NHEADS", _encodes),
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", 4, lambda cfg: _encodes(cfg) and not _group_normed(cfg)),
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, _group_normed),  # groups of GN
    *(Joint("model", problem) for problem in (_shallow_resnet, _swin, _feature_maps, _decoder_input)),
    *(Joint("test", problem) for problem in (_one_result, _expected_of_one_set)),
    *(Joint("train", problem) for problem in (_scales, _range_of_sizes, _crop, _cosine, _steps, _nesterov)),
]
