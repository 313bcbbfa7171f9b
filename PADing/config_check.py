"""Checks the values of a config: each key by the table of rules, then the keys that must fit together.

A method adds rules for its own keys with ``CONFIG_RULES``, a list of ``Rule`` and ``Joint``, in its module.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import getitem

from detectron2.config import CfgNode

from PADing.config_rules import RULES, Rule
from PADing.config_values import leaves
from PADing.plugins import imported_methods


@dataclass(frozen=True)
class Joint:
    """Keys that must fit together, for one use of a config: "model", "train" or "test".

    ``problems(cfg)`` gives a sentence with full keys for each misfit. The sentence is left out if one of its keys is
    wrong by itself.
    """

    needed_for: str
    problems: Callable[[CfgNode], Iterable[str]]


def value_problems(cfg: CfgNode, uses: Collection[str]) -> list[str]:
    """One sentence for each wrong value that ``uses`` ("model", "train", "test") read: what is wrong, what to set."""
    found = {key: f"{key} is {value!r}. Set finite numbers." for key, value in leaves(cfg) if not _finite(key, value)}
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
        with suppress(TypeError, ZeroDivisionError):  # of a wrong value, which is reported already
            for problem in joint.problems(cfg) if joint.needed_for in uses else ():
                problems += [] if any(key in problem for key in found) else [problem]
    return problems


def _holds(rule: Rule, value) -> bool:
    try:
        return rule.allowed.holds(value)
    except TypeError:  # None or text in place of a number
        return False


def value_at(node: CfgNode, key: str):
    """The value of a key such as ``SOLVER.BASE_LR``."""
    return reduce(getitem, key.split("."), node)


def _finite(key: str, value) -> bool:
    if isinstance(value, list | tuple):
        return all(_finite(key, item) for item in value)
    infinite_norm = key == "SOLVER.CLIP_GRADIENTS.NORM_TYPE" and value == math.inf
    return not isinstance(value, float) or math.isfinite(value) or infinite_norm


# ---- keys that must fit together


def multiple(key: str, of: str | int, when: Callable[[CfgNode], bool] = lambda cfg: True) -> Joint:
    """Rule: the value of ``key`` is a multiple of a number or of another key's value."""

    def problems(cfg: CfgNode) -> Iterator[str]:
        value, divisor = value_at(cfg, key), of if isinstance(of, int) else value_at(cfg, of)
        if when(cfg) and value % divisor:
            yield f"{key} is {value}. Set a multiple of {divisor}{'' if isinstance(of, int) else f' ({of})'}."

    return Joint("model", problems)


def _group_normed(cfg: CfgNode) -> bool:
    head = cfg.MODEL.SEM_SEG_HEAD
    return head.NORM == "GN" or head.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder"


def _encodes(cfg: CfgNode) -> bool:
    return cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME != "BasePixelDecoder"


def _backbone(cfg: CfgNode) -> Iterator[str]:
    name, nets, swin = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS, cfg.MODEL.SWIN
    needed = {"RES2_OUT_CHANNELS": 64, "NUM_GROUPS": 1, "RES5_DILATION": 1}
    wrong = {key: value for key, value in needed.items() if nets[key] != value}
    if name == "build_resnet_backbone" and nets.DEPTH < 50 and wrong:
        found = ", ".join(f"MODEL.RESNETS.{key} is {nets[key]}" for key in wrong)
        right = ", ".join(f"MODEL.RESNETS.{key} {value}" for key, value in wrong.items())
        yield f"{found}. Set {right} for MODEL.RESNETS.DEPTH {nets.DEPTH}, or a DEPTH from 50."
    if name == "TimmBackbone" and cfg.MODEL.WEIGHTS.startswith("detectron2://ImageNetPretrained/"):
        cure = "Set MODEL.WEIGHTS '' (MODEL.TIMM.PRETRAINED True downloads timm's weights)."
        yield f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS}, a ResNet's, but MODEL.BACKBONE.NAME is TimmBackbone. {cure}"
    depths, heads = swin.DEPTHS, swin.NUM_HEADS
    widths = [swin.EMBED_DIM * 2**i for i in range(len(depths))]
    if name == "D2SwinTransformer" and len(depths) != len(heads):
        yield f"MODEL.SWIN.NUM_HEADS is {heads}. Set {len(depths)} values, as many as MODEL.SWIN.DEPTHS."
    elif name == "D2SwinTransformer" and any(width % number for width, number in zip(widths, heads, strict=True)):
        yield f"MODEL.SWIN.NUM_HEADS is {heads}. Set divisors of the stages' widths {widths}."


def _head(cfg: CfgNode) -> Iterator[str]:
    head, node = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    section = {"build_resnet_backbone": "RESNETS", "D2SwinTransformer": "SWIN"}.get(cfg.MODEL.BACKBONE.NAME)
    made = cfg.MODEL[section].OUT_FEATURES if section else head.IN_FEATURES
    absent = [name for name in head.IN_FEATURES if name not in made]
    encoded = head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES
    if absent:
        cure = f"Add it to MODEL.{section}.OUT_FEATURES, now {list(made)}."
        yield f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {', '.join(absent)}, which the backbone does not give. {cure}"
    elif head.PIXEL_DECODER_NAME == "MSDeformAttnPixelDecoder" and not set(encoded) <= set(head.IN_FEATURES):
        cure = f"Set some of MODEL.SEM_SEG_HEAD.IN_FEATURES, {list(head.IN_FEATURES)}."
        yield f"MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES is {encoded}. {cure}"
    decoder, scales = node.TRANSFORMER_DECODER_NAME, "multi_scale_pixel_decoder"
    several = decoder.startswith("MultiScaleMasked")  # your own decoder may take either
    misfit = several != (node.TRANSFORMER_IN_FEATURE == scales) and (several or decoder == "StandardTransformerDecoder")
    if misfit and head.NAME == "MaskFormerHead":
        wanted = repr(scales) if several else "'transformer_encoder' or a map of the backbone such as 'res5'"
        found = repr(node.TRANSFORMER_IN_FEATURE)
        yield f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {found}. Set {wanted} for {decoder}."


def _test(cfg: CfgNode) -> Iterator[str]:
    test = cfg.MODEL.MASK_FORMER.TEST
    if not (test.SEMANTIC_ON or test.INSTANCE_ON or test.PANOPTIC_ON):
        yield "MODEL.MASK_FORMER.TEST has SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON all False. Set one of them True."
    if len(cfg.DATASETS.TEST) > 1 and cfg.TEST.EXPECTED_RESULTS:
        yield "TEST.EXPECTED_RESULTS is for one data set. Set it to [], or DATASETS.TEST to a single name."


def _input(cfg: CfgNode) -> Iterator[str]:
    low, high, sizes, crop = cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP
    if low > high:
        yield f"INPUT.MIN_SCALE is {low}. Set a number up to INPUT.MAX_SCALE, which is {high}."
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(sizes) != 2:
        yield f"INPUT.MIN_SIZE_TRAIN is {sizes}. Set (smallest, largest) for INPUT.MIN_SIZE_TRAIN_SAMPLING range."
    wanted = "shares up to 1" if crop.TYPE.startswith("relative") else "whole numbers of pixels"
    fits = max(crop.SIZE) <= 1 if crop.TYPE.startswith("relative") else all(isinstance(n, int) for n in crop.SIZE)
    if crop.ENABLED and not fits:
        yield f"INPUT.CROP.SIZE is {crop.SIZE}. Set {wanted} for INPUT.CROP.TYPE {crop.TYPE}."


def _solver(cfg: CfgNode) -> Iterator[str]:
    solver = cfg.SOLVER
    base, end, steps, last = solver.BASE_LR, solver.BASE_LR_END, solver.STEPS, solver.MAX_ITER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not (0 < base and end <= base):
        cure = "WarmupCosineLR falls from BASE_LR to BASE_LR_END: set BASE_LR above 0, and BASE_LR_END up to it."
        yield f"SOLVER.BASE_LR_END is {end} and SOLVER.BASE_LR {base}. {cure}"
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and any(step <= 0 or step == last for step in steps):
        cure = "so set steps above 0 and below MAX_ITER (those above MAX_ITER are left out)."
        yield f"SOLVER.STEPS is {steps} and SOLVER.MAX_ITER {last}. The rate falls at each step, {cure}"
    if solver.OPTIMIZER == "SGD" and solver.NESTEROV and solver.MOMENTUM <= 0:
        yield "SOLVER.NESTEROV is True, but SOLVER.MOMENTUM 0. Set MOMENTUM above 0, or NESTEROV False."


JOINTS = [
    multiple("MODEL.MASK_FORMER.HIDDEN_DIM", "MODEL.MASK_FORMER.NHEADS"),
    multiple("MODEL.MASK_FORMER.HIDDEN_DIM", 4),  # sines and cosines for rows and columns
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", "MODEL.MASK_FORMER.NHEADS", _encodes),
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", 4, lambda cfg: _encodes(cfg) and not _group_normed(cfg)),
    multiple("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, _group_normed),  # groups of GN
    *(Joint("model", problems) for problems in (_backbone, _head)),
    Joint("test", _test),
    *(Joint("train", problems) for problems in (_input, _solver)),
]
