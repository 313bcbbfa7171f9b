"""Every tool that reads a config finds a method outside the repository, wherever it is started."""

import pytest

from tests.end_to_end.command_line import REPOSITORY, SMALL, run

METHOD = """
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.meta_arch import MaskFormer


def add_config(cfg):
    cfg.MODEL.MY_WEIGHT = 1.0


@META_ARCH_REGISTRY.register()
class MyMethod(MaskFormer):
    @classmethod
    def from_config(cls, cfg):
        assert cfg.MODEL.MY_WEIGHT == 2.0
        return super().from_config(cfg)
"""
CONFIG = f"""
_BASE_: {REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml"}
PLUGINS: my_method
MODEL: {{META_ARCHITECTURE: MyMethod, MY_WEIGHT: 2}}
"""


@pytest.mark.slow
def test_each_tool_finds_the_method(tmp_path):
    """Only train_net.py did: the others answered "cannot be imported. Run from the repository root"."""
    work = tmp_path / "work"
    (work / "my_method").mkdir(parents=True)
    (work / "my_method" / "__init__.py").write_text(METHOD)
    (work / "own.yaml").write_text(CONFIG)
    (tmp_path / "elsewhere").mkdir()
    python = ["python", REPOSITORY / "datasets" / "make_mini_coco.py", "--out", tmp_path / "mini"]
    run(python, "--train", 4, "--val", 1, "--size", 64)
    config = ["--config-file", work / "own.yaml", "--num-gpus", 0]

    def tool(path, *args, cwd):
        return run(["python", REPOSITORY / path, *config, *args], cwd=cwd, data=tmp_path)

    # From the folder of the method, and from a folder that has nothing to do with it: then it lies beside the config.
    tool("train_net.py", *SMALL, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path / "out", cwd=work)
    trained = [*SMALL, "MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth"]
    for cwd in (work, tmp_path / "elsewhere"):
        assert "model" in tool("tools/analyze_model.py", "--tasks", "parameter", "--opts", *SMALL, cwd=cwd)
    output = ["--number", 1, "--output", tmp_path / "drawn"]
    tool("tools/visualize_data.py", "--source", "annotation", *output, *SMALL, cwd=tmp_path / "elsewhere")
    tool("tools/visualize_predictions.py", *output, *trained, cwd=tmp_path / "elsewhere")
    images = ["--input", tmp_path / "mini" / "val", "--output", tmp_path / "demo", "--opts"]
    tool("demo/demo.py", *images, *trained, cwd=tmp_path / "elsewhere")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3 and len(list((tmp_path / "demo").iterdir())) == 1
