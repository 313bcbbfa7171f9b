"""MaskFormer as a whole, small: it is built from a config, learns, and answers."""

import pytest
import torch
from detectron2.modeling import build_model

from PADing.errors import UserError
from tests.meta_arch.small import NODE, small_batch, small_config


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_it_learns_a_batch_by_heart(amp):
    torch.manual_seed(0)
    model, batch = build_model(small_config()).train(), small_batch()
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
    model = build_model(small_config(NODE + "TEST.BOXES_FROM_MASKS", True)).eval()
    with torch.no_grad():
        instances = model(small_batch())[0]["instances"]
    filled = instances.pred_masks.flatten(1).any(1)
    assert torch.equal(instances.pred_boxes.tensor.any(1), filled)


def test_without_deep_supervision():
    torch.manual_seed(0)
    model = build_model(small_config(NODE + "DEEP_SUPERVISION", False)).train()
    assert set(model(small_batch())) == {"loss_ce", "loss_mask", "loss_dice"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_follows_the_device_of_its_weights():
    """Inputs, targets and everything made on the way must come to the GPU by themselves; results equal the CPU's."""
    torch.manual_seed(0)
    model, batch = build_model(small_config()), small_batch()
    with torch.no_grad():
        want = model.eval()(batch)[0]["sem_seg"]
        got = model.to("cuda")(batch)[0]["sem_seg"]
    torch.testing.assert_close(got.cpu(), want, rtol=1e-3, atol=1e-3)
    sum(model.train()(batch).values()).backward()


def test_images_without_instances_are_refused():
    """Detectron2's own mapper gives such of panoptic and semantic data sets."""
    model = build_model(small_config())
    with pytest.raises(UserError, match="INPUT.DATASET_MAPPER_NAME returns images without instances"):
        model([{key: value for key, value in sample.items() if key != "instances"} for sample in small_batch()])


def test_results_are_the_same_where_gradients_are_on():
    """A notebook or a service may forget torch.no_grad()."""
    torch.manual_seed(0)
    model, batch = build_model(small_config()).eval(), small_batch()
    with torch.no_grad():
        wanted = model(batch)[0]
    found = model(batch)[0]
    assert torch.equal(found["sem_seg"], wanted["sem_seg"])
    assert torch.equal(found["panoptic_seg"][0], wanted["panoptic_seg"][0])
    assert found["panoptic_seg"][1] == wanted["panoptic_seg"][1]
    for name, values in wanted["instances"].get_fields().items():
        pair = [getattr(one, "tensor", one) for one in (found["instances"].get(name), values)]
        assert torch.equal(*pair) and not pair[0].requires_grad, name
    assert all(loss.requires_grad for loss in model.train()(batch).values())
