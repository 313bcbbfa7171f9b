"""Checks the weights that PADing's stage 2 starts from; messages say what to use instead."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from PADing.generation.convert import NEW_HEAD, OLD_HEAD
from PADing.meta_arch import ModelContract

OLD, NEW = f"{OLD_HEAD}.weight", f"{NEW_HEAD}.weight"
CONVERT = "python tools/preprocess_pretrained_weight.py --task_name panoptic|instance|semantic --input_file <file>"
HOW = (
    "Train stage 1 with train_net_pretrain.py (or take published weights of Mask2Former on the seen classes), convert "
    f"them with `{CONVERT}`, and name the converted file: MODEL.WEIGHTS <file>. "
)
ANYWAY = "To train on a segmenter with random weights anyway, set MODEL.MASK_FORMER.RANDOM_SEGMENTER True."


class StartingWeights(ModelContract):
    """The contract's items about weights, for a model that trains on a frozen segmenter."""

    segmenter_frozen: bool  # missing weights of the segmenter would stay random
    random_segmenter: bool  # and that is allowed

    @classmethod
    def explain_named_weights(cls, cfg: CfgNode) -> str:
        """Why ``MODEL.WEIGHTS`` cannot hold a segmenter, which a training needs; "" if it can."""
        if cfg.MODEL.MASK_FORMER.RANDOM_SEGMENTER:
            return ""
        return explain_name(cfg.MODEL.WEIGHTS)

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """Why the file cannot be used: only the generator's parameters may be missing; "" if it can."""
        assert isinstance(self, nn.Module)
        lacking = {name for name, _ in self.named_parameters()}.intersection(missing)
        held = {key.removeprefix("module.") for key in found}
        random = [key for key in lacking if key.startswith(("backbone.", "sem_seg_head."))]
        if self.random_segmenter:
            return ""
        if not held:
            return explain_name("") if self.segmenter_frozen else ""
        if not any(key.startswith("sem_seg_head.") for key in held):
            return f"MODEL.WEIGHTS holds no segmenter, which PADing needs; a backbone is not enough. {HOW}{ANYWAY}"
        if NEW in lacking and OLD in held:
            return (
                f"MODEL.WEIGHTS holds the segmenter of stage 1, but not PADing's classifier ({NEW}). Convert it first: "
                f"{CONVERT}, then use the converted file."
            )
        if NEW in lacking:
            return (
                f"MODEL.WEIGHTS belongs to another method: it holds neither PADing's classifier ({NEW}) nor that of "
                f"stage 1 ({OLD}). {HOW}"
            )
        if random and self.segmenter_frozen:
            shown = ", ".join(random[:3]) + (f" and {len(random) - 3} more" if len(random) > 3 else "")
            return f"MODEL.WEIGHTS lacks parts of the segmenter, which would stay random: {shown}. {HOW}{ANYWAY}"
        return ""

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """If only the class heads have other shapes, the file may be of stage 1, which has fewer classes."""
        if not all(key.startswith((OLD_HEAD, NEW_HEAD)) for key in keys):
            return ""
        return (
            "The file was trained with another number of classes. If it is of stage 1, convert it: "
            f"{CONVERT}. Otherwise choose the config of the file's split."
        )


def explain_name(weights: str) -> str:
    """Why stage 2 cannot start from a name in ``MODEL.WEIGHTS``; "" if the file itself must be checked."""
    if weights and not weights.startswith("detectron2://ImageNetPretrained/"):
        return ""
    what = f"{weights}, a backbone without a segmenter" if weights else "empty"
    return f"MODEL.WEIGHTS is {what}, but PADing trains on a frozen segmenter. {HOW}{ANYWAY}"
