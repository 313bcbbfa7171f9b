"""The weights that a backbone starts from by itself: timm's are downloaded, or a file (``MODEL.TIMM``)."""

import importlib
import logging
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from PADing.conversion.reading import read_foreign_weights
from PADing.errors import UserError
from PADing.modeling import TimmBackbone
from PADing.modeling.backbone.timm_models import pretrained_cfg, prune, timm_library
from PADing.sharing.places import local_weights

logger = logging.getLogger(__name__)

OWN = "backbone.model."  # before timm's names, in checkpoints of this project
_COUNTER = "num_batches_tracked"  # of batch norms; older files lack it


def load_backbone_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Load what ``MODEL.TIMM.WEIGHTS`` or ``PRETRAINED`` names into the backbone of ``model``, if it is timm's.

    Another backbone may have ``load_pretrained(cfg)``, which loads its own weights.

    Raises:
        UserError: the file is unreadable or of another model; the download fails.
    """
    backbone, node = getattr(model, "backbone", None), cfg.MODEL.TIMM
    if backbone is not None and hasattr(backbone, "load_pretrained"):
        backbone.load_pretrained(cfg)
        return
    if not isinstance(backbone, TimmBackbone) or not (node.PRETRAINED or node.WEIGHTS):
        return
    if node.WEIGHTS:
        path = local_weights(node.WEIGHTS)
        whole = timm_library().create_model(node.NAME, num_classes=0, **backbone.plan.arguments)
        given = read_foreign_weights(path, "Weights (MODEL.TIMM.WEIGHTS)")
        _load(whole, given, set(backbone.model.state_dict()), f"Weights {path!r} (MODEL.TIMM.WEIGHTS)", node.NAME)
        source = path
    else:
        whole = _downloaded(node.NAME, backbone.plan.arguments)
        source = str(pretrained_cfg(node.NAME).hf_hub_id or pretrained_cfg(node.NAME).url)
    prune(whole, backbone.plan)
    backbone.model.load_state_dict(whole.state_dict())
    logger.info("The backbone, timm's %s, starts from %s.", node.NAME, source)


def _downloaded(name: str, arguments: dict[str, Any]) -> nn.Module:
    known = pretrained_cfg(name)
    try:
        return timm_library().create_model(name, pretrained=True, num_classes=0, **arguments)
    except Exception as error:  # of the hub, of HTTP clients, of the file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        place = f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else known.url
        cure = f"Connect; or get the file from {place} on another machine, and name it: MODEL.TIMM.WEIGHTS FILE."
        raise UserError(
            f"MODEL.TIMM.PRETRAINED: the weights of timm's {name} cannot be downloaded: {reason} "
            f"({type(error).__name__}). {cure}"
        ) from error


def _load(whole: nn.Module, weights: dict[str, Tensor], needed: set[str], where: str, name: str) -> None:
    """Load a file's weights into a whole model; UserError unless it has all that are ``needed``."""
    own = {key.removeprefix(OWN): value for key, value in weights.items() if key.startswith(OWN)}
    try:
        converted = own or _published(whole, dict(weights))
        shapes = {key: value.shape for key, value in whole.state_dict().items()}
        wrong = [key for key in converted if key in needed and converted[key].shape != shapes[key]]
    except Exception as error:  # timm's converters take any file for one of theirs
        raise UserError(f"{where} are not those of timm's {name}: {type(error).__name__}, {error}.") from error
    missing = sorted(key for key in needed if key not in converted and not key.endswith(_COUNTER))
    if missing:
        lacking = f"{len(missing)} of {len(needed)} weights are missing, such as {missing[0]}"
        raise UserError(f"{where} are not those of timm's {name}: {lacking}. Check MODEL.TIMM.NAME.")
    if wrong:
        has, needs = tuple(converted[wrong[0]].shape), tuple(shapes[wrong[0]])
        raise UserError(f"{where} do not fit timm's {name}: {wrong[0]} is {has} in the file, {needs} in the model.")
    whole.load_state_dict({key: converted[key] for key in needed if key in converted}, strict=False)
    unused = sorted({key.partition(".")[0] for key in converted if key not in shapes})
    if unused:
        logger.info("%s: ignored in the file: %s.", where, ", ".join(unused[:8]))


def _published(whole: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with timm's names: its modules of models know the published files that have others."""
    module = importlib.import_module(type(whole).__module__)
    convert = getattr(module, "checkpoint_filter_fn", getattr(module, "_filter_fn", None))
    if convert is None:
        return weights
    try:
        return convert(weights, whole)
    except TypeError:  # some take the weights alone
        return convert(weights)
