"""A model that knows nothing of this project is trained and evaluated with defaults; what it defines is respected."""

import re
import subprocess
import sys
from types import SimpleNamespace

from torch import nn

from PADing.files import REPOSITORY
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.contract import ModelContract, architecture_of, contract_of
from tests.end_to_end.command_line import SMALL, results, run

PAGE = REPOSITORY / "docs" / "your_method.md"


class Foreign(nn.Module):
    find_unused_parameters = True

    def harmless_weights(self):
        return ("head.",)

    @classmethod
    def count_classes(cls, cfg):
        return 7


def test_a_foreign_model_has_defaults_for_what_it_does_not_define():
    contract = contract_of(Foreign())
    assert contract.training_recipe == "OneOptimizer" and not contract.built_on_host
    assert contract.explain_missing_weights(["a"], []) == contract.explain_wrong_shapes(["a"]) == ""
    assert contract.set_test_metadata({}) is None and contract.further_weights(None) == {}
    assert contract.find_unused_parameters and contract.harmless_weights() == ("head.",)


def test_a_class_answers_as_its_models_do():
    assert contract_of(Foreign).count_classes(None) == 7
    assert contract_of(MaskFormer).built_on_host and contract_of(None).training_recipe == "OneOptimizer"
    model = ModelContract()
    assert contract_of(model) is model


def test_an_unknown_architecture_is_none():
    def config(name):
        return SimpleNamespace(MODEL=SimpleNamespace(META_ARCHITECTURE=name))

    assert architecture_of(config("MaskFormer")) is MaskFormer and architecture_of(config("MaskFromer")) is None


def test_the_page_lists_every_item():
    page = PAGE.read_text(encoding="utf-8")
    items = [name for name in dir(ModelContract) if name[0] != "_"]
    assert len(items) > 10 and not [name for name in items if f"| `{name}" not in page]


def test_the_page_s_examples_run():
    """In a process of their own, because they register things."""
    program = f"""
import re
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY
from PADing.config import load_config
from PADing.modeling.pixel_decoder import BasePixelDecoder
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY
from PADing.modeling.transformer_decoder import MultiScaleMaskedTransformerDecoder
load_config("")
examples = re.findall(r"```python\\n(.*?)```", open({str(PAGE)!r}).read(), flags=re.S)
for example in examples:
    exec(example)
print(len(examples))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 7, done.stderr


def test_the_page_s_method_trains_and_passes_its_test(tmp_path):
    """Its three files, saved as the page says, in a folder of their own."""
    blocks = dict.fromkeys(("python", "yaml"))
    for kind in blocks:
        blocks[kind] = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "my_method.py").write_text(blocks["python"][0])
    (test,) = [block for block in blocks["python"] if "def test_" in block]
    (tmp_path / "test_my_method.py").write_text(test)
    config = blocks["yaml"][0].replace("configs/", f"{REPOSITORY}/configs/")
    (tmp_path / "my_method.yaml").write_text(config)
    make = ["python", REPOSITORY / "datasets" / "make_mini_coco.py", "--train", 4, "--val", 1, "--size", 64]
    run(make, "--output", tmp_path / "mini")
    where = {"cwd": tmp_path, "data": tmp_path}
    train = ["python", REPOSITORY / "train_net.py", "--config-file", "my_method.yaml", "--num-gpus", 0]
    run(train, *SMALL, "OUTPUT_DIR", tmp_path / "out", **where)
    assert {"panoptic_seg", "segm", "sem_seg"} <= set(results(tmp_path / "out")["mini_val_panoptic"])
    assert "1 passed" in run("python -m pytest -q test_my_method.py", **where)
