"""tools/analyze_model.py from the command line to what it prints."""

import pytest
from detectron2.modeling import build_model

from PADing.config import load_config


@pytest.fixture(scope="module")
def analyze(tool):
    return tool("tools/analyze_model.py")


@pytest.mark.parametrize("architecture", ["MaskFormer", "PADing", "D2Zero"])
def test_command(analyze, drawn, model_options, capsys, architecture):
    """Every model can be counted, on images of its evaluation set, on the CPU and without weights."""
    (_, file), opts = model_options(architecture)
    args = ["--tasks", "flop", "activation", "parameter", "structure", "--config-file", file, "--num-inputs", "1"]
    assert analyze.main([*args, *opts[:-2]]) == 0
    text = capsys.readouterr().out
    model = build_model(load_config(file, opts))
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters / 1e6:.1f}M" in text
    assert f"{architecture}(" in text  # the structure
    assert "an image of 64 x 64" in text and "Total, in million activations" in text
    operators = text.split("Mean by operator, in G multiply-adds: ")[1].splitlines()[0]
    assert {"conv", "linear", "scaled_dot_product_attention", "grid_sampler"} <= set(operators.replace(",", "").split())
