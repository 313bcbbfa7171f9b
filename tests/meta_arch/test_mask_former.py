"""MaskFormer as a whole, small: it is built from a config, learns, and answers."""

from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances

import PADing.meta_arch  # noqa: F401  registers
from PADing.config import load_config
from PADing.errors import UserError

BASE = Path(__file__).resolve().parents[2] / "configs" / "Mask2Former.yaml"
HEAD, NODE = "MODEL.SEM_SEG_HEAD.", "MODEL.MASK_FORMER."
DATA = "test_mask_former"


def _cfg(*opts):
    metadata = MetadataCatalog.get(DATA)
    metadata.thing_dataset_id_to_contiguous_id = {1: 0, 2: 1}
    small = ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "MaskFormer", "DATASETS.TRAIN", (DATA,)]
    small += ["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.RESNETS.STRIDE_IN_1X1", False]
    small += [
        "MODEL.BACKBONE.FREEZE_AT",
        0,
        "VERSION",
        2,
        "MODEL.RESNETS.DEPTH",
        18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS",
        64,
        "MODEL.RESNETS.NORM",
        "BN",
    ]
    small += [HEAD + "CONVS_DIM", 32, HEAD + "MASK_DIM", 32, HEAD + "TRANSFORMER_ENC_LAYERS", 1]
    small += [HEAD + "TRANSFORMER_ENC_DIM_FEEDFORWARD", 64, HEAD + "NUM_CLASSES", 3, NODE + "HIDDEN_DIM", 32]
    small += [NODE + "DIM_FEEDFORWARD", 64, NODE + "DEC_LAYERS", 3, NODE + "NUM_OBJECT_QUERIES", 8]
    small += [NODE + "TRAIN_NUM_POINTS", 128, NODE + "TEST.PANOPTIC_ON", True, NODE + "TEST.INSTANCE_ON", True]
    return load_config(BASE, [*small, *opts])


def _batch():
    """Two images, each with a bright square of class 0 or 1 on a ground of class 2."""
    batch = []
    for label, (y, x) in enumerate([(8, 8), (24, 32)]):
        square = torch.zeros(64, 64, dtype=torch.bool)
        square[y : y + 24, x : x + 24] = True
        image = torch.full((3, 64, 64), 60.0)
        image[label, square] = 250.0
        instances = Instances((64, 64), gt_classes=torch.tensor([label, 2]), gt_masks=torch.stack([square, ~square]))
        batch.append({"image": image, "height": 64, "width": 64, "instances": instances})
    return batch


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_it_learns_a_batch_by_heart(amp):
    torch.manual_seed(0)
    model, batch = build_model(_cfg()).train(), _batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(40):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            losses = model(batch)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert len(losses) == 9 and totals[-1] < 0.4 * totals[0]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.no_grad():
        results = model(batch)
    for label, (result, record) in enumerate(zip(results, batch, strict=True)):
        square = record["instances"].gt_masks[0]
        assert (result["sem_seg"].argmax(0) == torch.where(square, label, 2)).float().mean() > 0.9
        best = result["instances"][result["instances"].scores.argmax().item()]
        assert best.pred_classes.item() == label, "the best instance is a thing, and the right one"
        assert best.pred_boxes.tensor.abs().max() == 0, "as Mask2Former publishes them"


def test_boxes_on_demand():
    torch.manual_seed(0)
    model = build_model(_cfg(NODE + "TEST.BOXES_FROM_MASKS", True)).eval()
    with torch.no_grad():
        instances = model(_batch())[0]["instances"]
    filled = instances.pred_masks.flatten(1).any(1)
    assert torch.equal(instances.pred_boxes.tensor.any(1), filled)


def test_without_deep_supervision():
    torch.manual_seed(0)
    model = build_model(_cfg(NODE + "DEEP_SUPERVISION", False)).train()
    assert set(model(_batch())) == {"loss_ce", "loss_mask", "loss_dice"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_follows_the_device_of_its_weights():
    """Inputs, targets and everything made on the way must come to the GPU by themselves; results equal the CPU's."""
    torch.manual_seed(0)
    model, batch = build_model(_cfg()), _batch()
    with torch.no_grad():
        want = model.eval()(batch)[0]["sem_seg"]
        got = model.to("cuda")(batch)[0]["sem_seg"]
    torch.testing.assert_close(got.cpu(), want, rtol=1e-3, atol=1e-3)
    sum(model.train()(batch).values()).backward()


def test_images_without_instances_are_refused():
    """Detectron2's own mapper gives such of panoptic and semantic data sets."""
    model = build_model(_cfg())
    with pytest.raises(UserError, match="INPUT.DATASET_MAPPER_NAME gives images without instances"):
        model([{key: value for key, value in sample.items() if key != "instances"} for sample in _batch()])
