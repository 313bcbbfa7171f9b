"""D2Zero begins with the segmenter of stage 1: whatever fits is loaded, and one line says what is not."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers MaskFormer
from PADing.config import load_config
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import UserError

from .conftest import CONFIG, SMALL
from .test_switches import LEARNED, PLAIN

STAGE_1 = Path(CONFIG).with_name("panoptic-pretrain.yaml")
PREDICTOR = "sem_seg_head.predictor."


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    """(file, state dict) of a Mask2Former with outputs for all 22 classes, things and stuff, seen and unseen."""
    opts = [item for key, value in zip(SMALL[::2], SMALL[1::2], strict=True) if "D2ZERO" not in key
            for item in (key, value)]  # fmt: skip
    torch.manual_seed(4)
    model = build_model(load_config(STAGE_1, opts))
    file = tmp_path_factory.mktemp("stage_1") / "model_final.pth"
    torch.save({"model": model.state_dict(), "iteration": 1499}, file)
    return file, model.state_dict()


class Lines(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def load(model, file) -> list[str]:
    checkpointer = TrainingCheckpointer(model)
    lines = Lines()
    checkpointer.logger.addHandler(lines)
    try:
        checkpointer.resume_or_load(str(file), resume=False)
    finally:
        checkpointer.logger.removeHandler(lines)
    return lines.lines


CLASSIFIER = ["logit_scale", "fc_semantic", "transformer", "text_projection", "text_projection_2"]


@pytest.mark.parametrize(
    ("opts", "fresh"),
    [
        ([], CLASSIFIER),
        (PLAIN, [name for name in CLASSIFIER if name != "transformer"]),
        (LEARNED, [*CLASSIFIER[:-1], "background_embed"]),
        (["MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT", 0.5], CLASSIFIER),
    ],
    ids=["whole", "plain", "learned background", "unseen loss"],
)
def test_all_that_fits_is_loaded(model, stage_1, opts, fresh):
    file, weights = stage_1
    network = model(*opts)
    own = {key: value.clone() for key, value in network.state_dict().items()}
    (line,) = load(network, file)
    classifier = tuple(PREDICTOR + name for name in fresh)
    for key, value in network.state_dict().items():
        module = PREDICTOR + key.removeprefix(PREDICTOR).split(".")[0]
        expected = own if module in classifier or key.startswith("criterion.") else weights
        assert torch.equal(value, expected[key]), key
    left_out, started = line.removesuffix(".").split("; ")[1:]
    assert line.startswith("model_final.pth:")
    assert left_out == f"ignored in the file: {PREDICTOR}class_embed, criterion.empty_weight"
    assert started.removeprefix("not in the file, so started from scratch: ").split(", ") == list(classifier)


def test_weights_that_fit_are_loaded_without_a_word(model, tmp_path):
    network = model()
    torch.save({"model": network.state_dict()}, tmp_path / "same.pth")
    assert load(network, tmp_path / "same.pth") == []


def test_weights_under_a_wrappers_prefix(model, stage_1, tmp_path):
    """Trained by several processes with another program: the same line, without the prefix."""
    file, weights = stage_1
    torch.save({"model": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "model_final.pth")
    assert load(model(), tmp_path / "model_final.pth") == load(model(), file)


def test_a_backbone_alone_starts_the_segmenter_afresh(model, stage_1, tmp_path):
    backbone = {key: value for key, value in stage_1[1].items() if key.startswith("backbone.")}
    torch.save({"model": backbone}, tmp_path / "backbone.pth")
    (line,) = load(model(), tmp_path / "backbone.pth")
    assert line.endswith("started from scratch: sem_seg_head, criterion.") and "ignored in" not in line


def test_weights_of_padings_second_stage_are_refused(model, stage_1, tmp_path):
    """Converted or trained: most keys fit, and the run would end with status 0."""
    torch.save({"model": {**stage_1[1], "new_fc.weight": torch.zeros(3, 64)}}, tmp_path / "pading.pth")
    with pytest.raises(UserError, match="belongs to PADing"):
        load(model(), tmp_path / "pading.pth")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.STEM_OUT_CHANNELS", 32], r"backbone\..*\(64, "),
        (["MODEL.SEM_SEG_HEAD.MASK_DIM", 32], r"sem_seg_head\..*\(64, .* in the file, \(32, "),
        (["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 7], r"predictor.query_feat.weight: \(20, 64\).*\(7, 64\)"),
    ],
    ids=["backbone", "pixel decoder", "queries"],
)
def test_another_width_is_still_refused(model, stage_1, opts, message):
    with pytest.raises(UserError, match=f"(?s)does not fit the model.*{message}"):
        load(model(*opts), stage_1[0])
