"""Converts a file of another project's weights into one of this project, or the other way round."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from PADing.checkpoint_files import write_checkpoint
from PADing.conversion.backbones import resnet, swin
from PADing.conversion.mask2former import (
    CLASS_HEAD,
    from_transformers,
    from_zoo,
    to_transformers,
    transformers_config,
)
from PADing.conversion.reading import read_foreign_weights
from PADing.conversion.sizes import Sizes, check, head_sizes, resnet_sizes, swin_sizes
from PADing.errors import UserError
from PADing.files import explain_os_error, write_json
from PADing.safetensors_files import write_safetensors
from PADing.sharing.places import local_weights

logger = logging.getLogger(__name__)

Convert = Callable[[Mapping[str, Tensor], str], dict[str, Tensor]]
# Pixel values that the published backbones were trained with: RGB, ImageNet.
_IMAGENET: Sizes = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53], "MODEL.PIXEL_STD": [58.395, 57.12, 57.375], "INPUT.FORMAT": "RGB",
}  # fmt: skip
_SOURCES: dict[str, Convert] = {
    "torchvision-resnet": resnet, "timm-resnet": resnet, "swin": swin, "mask2former": from_zoo,
    "transformers": from_transformers,
}  # fmt: skip


def convert_to_ours(
    source: str,
    input_file: str | os.PathLike,
    output_file: str | os.PathLike,
    drop_class_head: bool = False,
    overwrite: bool = False,
) -> Sizes:
    """Convert another project's weights, and write them as a checkpoint for ``MODEL.WEIGHTS``.

    Args:
        source: "torchvision-resnet", "timm-resnet", "swin", "mask2former" or "transformers".
        input_file: the other project's file.
        output_file: the file to write, ``.pth`` or ``.safetensors``.
        drop_class_head: leave out the classifier, so that a training can start with other classes.
        overwrite: replace an existing output file; the input file is never replaced.

    Returns:
        config keys that the weights need, with their values.

    Raises:
        UserError: an unreadable file, weights of another network, an existing output file.
    """
    input_file, output_file = Path(input_file), Path(output_file)
    if output_file.suffix not in (".pth", ".safetensors"):
        raise UserError(f"--output {output_file}: write a .pth or a .safetensors file.")
    _check_output(input_file, output_file, overwrite)
    where = f"File {str(input_file)!r}"
    weights = _SOURCES[source](read_foreign_weights(input_file), where)
    sizes = _sizes(weights, where)
    if drop_class_head:
        weights = _without_class_head(weights, where)
    write_checkpoint(output_file, {"model": weights})
    logger.info("%s: %d weights of %s", output_file, len(weights), source)
    return sizes


def convert_to_transformers(
    input_file: str | os.PathLike, output_folder: str | os.PathLike, overwrite: bool = False
) -> None:
    """Write a MaskFormer as a folder for ``Mask2FormerForUniversalSegmentation.from_pretrained``.

    Args:
        input_file: a checkpoint of this project or of Mask2Former, with a Swin backbone; or a shared model.
        output_folder: gets ``config.json`` and ``model.safetensors``; classes are numbered.
        overwrite: replace these files.

    Raises:
        UserError: an unreadable file, another model than a MaskFormer on Swin, existing files.
    """
    folder, path = Path(output_folder), Path(local_weights(os.fspath(input_file)))
    where = f"File {str(path)!r}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file. Name a folder for --to transformers.")
    for name in ("model.safetensors", "config.json"):
        _check_output(path, folder / name, overwrite)
    weights = read_foreign_weights(path)
    own = [name for name in weights if not name.startswith(("backbone.", "sem_seg_head.", "criterion."))]
    if own:
        raise UserError(f"{where} cannot be converted: {own[0]} belongs to a method, which transformers does not have.")
    converted = to_transformers(weights, where)
    config = transformers_config(weights, where)
    check(weights, {**swin_sizes(weights, where), **head_sizes(weights, where)}, where)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(explain_os_error(folder, error)) from error
    write_safetensors(folder / "model.safetensors", converted)
    write_json(folder / "config.json", config, indent=2)


def _sizes(weights: Mapping[str, Tensor], where: str) -> Sizes:
    """The sizes of the network, after a check that the weights are all of it."""
    sizes: Sizes = {}
    resnet_like = any(name.startswith("backbone.stem.") for name in weights)
    with_head = any(name.startswith("sem_seg_head.") for name in weights)
    if resnet_like:
        sizes |= resnet_sizes(weights, where)
    elif "backbone.patch_embed.proj.weight" in weights:
        sizes |= swin_sizes(weights, where)
    elif with_head:  # of the zoo, on a backbone of another project: nothing to check it by
        return head_sizes(weights, where)
    if with_head:
        sizes |= head_sizes(weights, where)
    absent = () if with_head else tuple(f"backbone.norm{i}." for i in range(len(sizes.get("MODEL.SWIN.DEPTHS", ()))))
    check(weights, sizes, where, absent)
    return sizes if with_head else {**sizes, **_IMAGENET}


def _without_class_head(weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    dropped = [name for name in weights if name.startswith(CLASS_HEAD)]
    if not dropped:
        raise UserError(f"{where} has no class head, so leave out --drop-class-head.")
    logger.info("Dropped the class head: %s. A training starts with a new one.", ", ".join(dropped))
    return {name: value for name, value in weights.items() if name not in dropped}


def _check_output(source: Path, output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if source.exists() and os.path.samefile(source, output):
        raise UserError(f"Input and output are the same file, {output}. Choose another --output.")
    if not output.is_file():
        raise UserError(f"--output {output} is a folder. Name a file.")
    if not overwrite:
        raise UserError(f"{output} exists. Choose another --output, or add --overwrite to replace it.")


def as_overrides(sizes: Mapping[str, Any]) -> str:
    """Config keys as they are written at the end of a command line."""
    shown = {key: repr(value).replace(" ", "") if isinstance(value, list) else value for key, value in sizes.items()}
    return " ".join(f"{key} {value}" for key, value in shown.items())
