"""Which entry of a weight file belongs to which entry of a model, when their names differ."""

import logging
import re

import torch

__all__ = ["align_and_update_state_dicts", "convert_basic_c2_names"]

# Applied in this order, to names in which "_" has become ".".
_C2_RULES = [
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
    (r"\bbn\.(s|gamma)$", "norm.weight"),
    (r"\bbn\.(bias|beta)$", "norm.bias"),
    (r"\bbn\.(rm|running\.mean)$", "norm.running_mean"),
    (r"\bbn\.(riv|running\.var)$", "norm.running_var"),
    (r"\bgn\.s$", "norm.weight"),
    (r"\bgn\.bias$", "norm.bias"),
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"\bbranch1\.", "shortcut."),
    (r"\bbranch2a\.", "conv1."),
    (r"\bbranch2b\.", "conv2."),
    (r"\bbranch2c\.", "conv3."),
]


def convert_basic_c2_names(original_keys: list[str]) -> list[str]:
    """Names of a ResNet in a Caffe2 file (``res2_0_branch2a_bn_s``) -> names here (``res2.0.conv1.norm.weight``)."""
    converted = []
    for key in original_keys:
        key = key.replace("_", ".")
        for pattern, replacement in _C2_RULES:
            key = re.sub(pattern, replacement, key)
        converted.append(key)
    return converted


def align_and_update_state_dicts(
    model_state_dict: dict[str, torch.Tensor], ckpt_state_dict: dict[str, torch.Tensor], c2_conversion: bool = True
) -> dict[str, torch.Tensor]:
    """Rename the entries of a file to the names of a model.

    An entry of the file matches an entry of the model when their names are equal, or when the model's name ends with
    "." and the file's name; the longest name in the file wins. So ``res2.0.conv1.weight`` fills
    ``backbone.res2.0.conv1.weight``.

    Args:
        model_state_dict: the model's own entries.
        ckpt_state_dict: the file's entries.
        c2_conversion: first translate names from Caffe2.

    Returns:
        The file's entries under the model's names. Entries without a match keep theirs, so that they are reported as
        unexpected; entries whose shape differs are left out with a warning.

    Raises:
        ValueError: one entry of the file matches several of the model, or Caffe2 names collide.
    """
    logger = logging.getLogger(__name__)
    originals = dict(zip(ckpt_state_dict, ckpt_state_dict, strict=True))
    if c2_conversion:
        names = convert_basic_c2_names(list(ckpt_state_dict))
        originals = dict(zip(names, ckpt_state_dict, strict=True))
        if len(originals) != len(ckpt_state_dict):
            raise ValueError("Several entries of the Caffe2 file get the same name after translation.")

    result: dict[str, torch.Tensor] = {}
    user: dict[str, str] = {}  # name in the file -> name in the model
    for model_key, model_value in model_state_dict.items():
        parts = model_key.split(".")
        # The longest suffix that the file has.
        key = next((s for i in range(len(parts)) if (s := ".".join(parts[i:])) in originals), None)
        if key is None:
            continue
        value = ckpt_state_dict[originals[key]]
        if tuple(value.shape) != tuple(model_value.shape):
            logger.warning(
                "Shape of %s in the checkpoint is %s, but shape of %s in the model is %s. %s will not be loaded. "
                "Please double check and see if this is desired.",
                originals[key], tuple(value.shape), model_key, tuple(model_value.shape), originals[key],
            )  # fmt: skip
            user.setdefault(key, model_key)
            continue
        if user.get(key) in result:
            raise ValueError(
                f"Cannot match one checkpoint key to multiple keys in the model: "
                f"{originals[key]} fits {user[key]} and {model_key}."
            )
        user[key] = model_key
        result[model_key] = value

    logger.info("%d of %d entries of the checkpoint match entries of the model.", len(result), len(ckpt_state_dict))
    for key, original in originals.items():
        if key in user:
            logger.debug("%s <- %s", user[key], original)
        else:
            result[key] = ckpt_state_dict[original]
    return result
