"""Matches the entries of a weight file with those of a model when their names differ."""

import logging
import re
from collections import defaultdict

import torch

logger = logging.getLogger(__name__)

# In Caffe2's names, once "_" has become ".": an expression and what it becomes, in this order.
_TRANSLATION = {
    r"\.w$": ".weight",
    r"\.b$": ".bias",
    r"\bbn\.(s|gamma)$": "norm.weight",
    r"\bbn\.(bias|beta)$": "norm.bias",
    r"\bbn\.(rm|running\.mean)$": "norm.running_mean",
    r"\bbn\.(riv|running\.var)$": "norm.running_var",
    r"\bgn\.s$": "norm.weight",
    r"\bgn\.bias$": "norm.bias",
    r"^res\.conv1\.norm\.": "conv1.norm.",
    r"^conv1\.": "stem.conv1.",
    r"\bbranch1\.": "shortcut.",
    r"\bbranch2a\.": "conv1.",
    r"\bbranch2b\.": "conv2.",
    r"\bbranch2c\.": "conv3.",
}


def convert_basic_c2_names(original_keys: list[str]) -> list[str]:
    """Caffe2's names of a ResNet's entries in PyTorch's form: ``res2_0_branch2a_w`` is ``res2.0.conv1.weight``."""
    names = [key.replace("_", ".") for key in original_keys]
    for expression, replacement in _TRANSLATION.items():
        names = [re.sub(expression, replacement, name) for name in names]
    return names


def align_and_update_state_dicts(
    model_state_dict: dict[str, torch.Tensor], ckpt_state_dict: dict[str, torch.Tensor], c2_conversion: bool = True
) -> dict[str, torch.Tensor]:
    """Give the entries of a file the names that a model has for them; with ``c2_conversion`` from Caffe2's names.

    An entry fits where the model's name is its own, or ends with a dot and its own; of several, the longest one fits.
    So ``res2.0.conv1.weight`` goes to ``backbone.res2.0.conv1.weight``. An entry whose shape differs is left out, with
    a warning; one that fits nowhere stays as it is; ValueError for one that fits in several places.
    """
    names = convert_basic_c2_names(list(ckpt_state_dict)) if c2_conversion else list(ckpt_state_dict)
    in_file = dict(zip(names, ckpt_state_dict.items(), strict=True))
    if len(in_file) < len(names):
        raise ValueError("two entries of the Caffe2 file have the same name once translated")

    places: dict[str, list[str]] = defaultdict(list)
    for place in model_state_dict:
        levels = place.split(".")
        endings = (".".join(levels[start:]) for start in range(len(levels)))  # the longest first
        fitting = next((ending for ending in endings if ending in in_file), None)
        if fitting is not None:
            places[fitting].append(place)

    result = {}
    for name, (original, value) in in_file.items():
        fits = [place for place in places[name] if model_state_dict[place].shape == value.shape]
        if len(fits) > 1:
            raise ValueError(f"{original} of the file fits multiple keys of the model: {', '.join(fits)}")
        if fits or not places[name]:
            result[fits[0] if fits else original] = value
            continue
        shapes = {place: tuple(model_state_dict[place].shape) for place in places[name]}
        logger.warning("%s is left out: its shape is %s, but the model has %s", original, tuple(value.shape), shapes)
    return result
