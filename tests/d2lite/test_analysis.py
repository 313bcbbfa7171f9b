"""What a model costs, counted by hand."""

import pytest
import torch
from detectron2.utils.analysis import FlopCountAnalysis, parameter_count_table


def test_operations_and_parameters_are_counted():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)

        def forward(self, batched_inputs):
            images = torch.stack([x["image"] for x in batched_inputs])
            return [{"sem_seg": y} for y in self.conv(images)]

    model = Model().eval()
    flops = FlopCountAnalysis(model, [{"image": torch.zeros(3, 10, 12), "height": 10, "file_name": "a.jpg"}])
    assert flops.total() == 10 * 12 * 8 * 3 * 9
    assert "0.2K" in parameter_count_table(model) or "216" in parameter_count_table(model)


def test_outputs_that_are_not_tensors_cannot_be_counted():
    """The genuine package refuses them; counting here what fails there would hide a defect of ours."""

    class Named(torch.nn.Module):
        def forward(self, batched_inputs):
            return [{"sem_seg": x["image"] @ x["image"].mT, "name": "a"} for x in batched_inputs]

    with pytest.raises(ValueError, match="cannot be traced"):
        FlopCountAnalysis(Named(), [{"image": torch.zeros(3, 4, 5)}]).total()
