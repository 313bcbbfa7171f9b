"""Which weights PADing's two stages can start from, and the messages for all others."""

from collections.abc import Collection, Sequence

from PADing.generation.convert import NEW_HEAD, OLD_HEAD

SEGMENTER = ("backbone.", "sem_seg_head.")
CONVERT = "python tools/preprocess_pretrained_weight.py --task_name panoptic|instance|semantic --input_file <file>"
HOW = (
    "Train stage 1 with train_net_pretrain.py (or take published weights of Mask2Former on the seen classes), convert "
    f"them with `{CONVERT}`, and name the file that this writes: MODEL.WEIGHTS <file>. "
)
ANYWAY = "To train on a segmenter with random weights all the same, set MODEL.MASK_FORMER.RANDOM_SEGMENTER True."
BACKBONES = "detectron2://ImageNetPretrained/"


def explain_name(weights: str) -> str:
    """Why a second stage cannot start from what ``MODEL.WEIGHTS`` names; "" where only the file can tell."""
    if weights and not weights.startswith(BACKBONES):
        return ""
    what = f"{weights}, a backbone without a segmenter" if weights else "empty"
    return f"MODEL.WEIGHTS is {what}, but PADing trains on a frozen segmenter. {HOW}{ANYWAY}"


def explain_unfit_weights(missing: Collection[str], found: Collection[str], training: bool) -> str:
    """Why a PADing cannot go on with what a file holds; "" if it can.

    Args:
        missing: parameters of the model that the file does not hold. found: keys of the file; empty: there is no file.
        training: whether the segmenter is frozen, so that what is missing would stay random.
    """
    old, new = f"{OLD_HEAD}.weight", f"{NEW_HEAD}.weight"
    found = {key.removeprefix("module.") for key in found}
    if not found:
        return explain_name("") if training else ""
    if not any(key.startswith("sem_seg_head.") for key in found):
        return f"MODEL.WEIGHTS holds no segmenter, which PADing needs: no backbone alone is enough. {HOW}{ANYWAY}"
    if new in missing and old in found:
        return (
            f"MODEL.WEIGHTS holds the segmenter of stage 1, but not PADing's classifier ({new}). Convert it first: "
            f"{CONVERT}, then use the file that this writes."
        )
    if new in missing:
        return (
            f"MODEL.WEIGHTS belongs to another method: it holds neither PADing's classifier ({new}) nor that of stage "
            f"1 ({old}). {HOW}"
        )
    random = [key for key in missing if key.startswith(SEGMENTER)]
    if random and training:
        shown = ", ".join(random[:3]) + (f" and {len(random) - 3} more" if len(random) > 3 else "")
        return f"MODEL.WEIGHTS lacks parts of the segmenter, which would stay random: {shown}. {HOW}{ANYWAY}"
    return ""


def explain_wrong_class_count(keys: Sequence[str]) -> str:
    """Advice when the class heads alone have another shape than in the file; "" for other ``keys``."""
    if not all(key.startswith((OLD_HEAD, NEW_HEAD)) for key in keys):
        return ""
    return (
        "The file was trained with another number of classes. Weights of stage 1 become weights of stage 2 with: "
        f"{CONVERT}. Otherwise choose the config of the file's split."
    )
