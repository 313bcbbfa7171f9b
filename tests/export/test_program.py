"""What may be exported, and that the export is of the model's own inference."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from PADing.errors import UserError
from PADing.export import files
from PADing.export.check import Difference, differences
from PADing.export.program import OUTPUTS, Program
from PADing.export.run import check_own_results


def test_results_are_those_of_the_models_own_inference(tiny):
    check_own_results(tiny)


class _Shifted:
    """Methods that change something where an export does not see it."""

    @staticmethod
    def infer(model):
        own = model.infer
        model.infer = lambda classes, *rest: own(classes + torch.eye(6)[2] * 3, *rest)

    @staticmethod
    def semantic_inference(model):
        own = model.semantic_inference
        model.semantic_inference = lambda *inputs: own(*inputs) * 1.01

    @staticmethod
    def panoptic_inference(model):
        own = model.panoptic_inference
        model.panoptic_inference = lambda *inputs: (own(*inputs)[0] + 1, own(*inputs)[1])

    @staticmethod
    def instance_inference(model):
        own = model.instance_inference
        model.instance_inference = lambda *inputs: own(*inputs)[:3]


@pytest.mark.parametrize("part", ["infer", "semantic_inference", "panoptic_inference", "instance_inference"])
def test_a_method_that_changes_results_elsewhere_is_refused(tiny, part):
    """Otherwise the file would silently be of another method."""
    getattr(_Shifted, part)(tiny)
    with pytest.raises(UserError, match=r"computes other results .* do so in predict\(images\)"):
        check_own_results(tiny)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "No outputs are named"),
        (["panoptc"], "did you mean panoptic"),
        (["raw", "everything"], "there are raw, semantic"),
        (["instance"], r"does not compute such results. If it should, add MODEL.MASK_FORMER.TEST.INSTANCE_ON True"),
    ],
)
def test_outputs_that_cannot_be(tiny, outputs, message):
    tiny.instance_on = False
    with pytest.raises(UserError, match=message):
        Program(tiny, outputs)


def test_another_architecture_learns_what_it_lacks():
    with pytest.raises(UserError, match="Linear says nothing about exports: it has no predict, instance_rule"):
        Program(nn.Linear(1, 1), ["raw"])


def test_numbers_made_of_values_are_named(tiny):
    predict = tiny.predict
    tiny.predict = lambda images: predict(images) if images.tensor.sum().item() > 0 else None
    with pytest.raises(UserError, match="Tiny cannot be exported: .* must use tensor operations"):
        files.trace(Program(tiny, ["raw"]), "gather", 512)


def test_the_same_outputs_twice_are_one(tiny):
    assert Program(tiny, ["raw", "semantic", "raw"]).names == (*OUTPUTS["raw"], *OUTPUTS["semantic"])


# ---- comparison


def test_errors_are_the_largest_ones_and_nan_never_passes():
    wanted = {"class_logits": torch.tensor([1.0, float("-inf"), 2.0])}
    found = {"class_logits": torch.tensor([1.00002, float("-inf"), 2.0])}
    (difference,) = differences(wanted, found).values()
    assert difference.error == pytest.approx(2e-5, rel=0.01) and difference.passes(1e-4)
    assert not difference.passes(1e-5) and "2.0e-05" in str(difference)
    found["class_logits"][2] = float("nan")
    assert not differences(wanted, found)["class_logits"].passes(1.0)


def test_other_shapes_names_and_types_are_refused():
    wanted = {"panoptic_map": torch.zeros(1, 2, 2, dtype=torch.int32)}
    for found in (
        {},
        {"panoptic_map": torch.zeros(1, 2, 3, dtype=torch.int32)},
        {"panoptic_map": torch.zeros(1, 2, 2)},
    ):
        with pytest.raises(UserError, match="Output panoptic_map is"):
            differences(wanted, found)


def test_a_share_of_discrete_elements_may_differ():
    assert Difference(differing=1, total=5).passes(1e-4) and not Difference(differing=2, total=5).passes(1e-4)
    assert Difference(differing=10, total=10_000).passes(1e-4)
    assert str(Difference(differing=2, total=5)) == "2 of 5 elements differ"


def test_instances_with_equal_scores_may_change_places():
    scores = torch.tensor([[0.9, 0.5, 0.5 - 1e-6, 0.1, 0.05]])
    wanted = {"instance_scores": scores, "instance_labels": torch.tensor([[1, 2, 3, 4, 5]])}
    swapped = {"instance_scores": scores, "instance_labels": torch.tensor([[1, 3, 2, 4, 6]])}
    assert differences(wanted, swapped)["instance_labels"] == Difference(differing=0, total=2)
    swapped["instance_labels"][0, 0] = 7
    assert differences(wanted, swapped)["instance_labels"].differing == 1


def test_missing_packages_are_named_with_the_command(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(files, "importlib", SimpleNamespace(import_module=absent))
    with pytest.raises(UserError, match=r'onnx, onnxscript, onnxruntime, .* pip install "pading\[export\]"'):
        files.check_packages()
