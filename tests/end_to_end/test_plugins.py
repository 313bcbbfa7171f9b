"""Every tool that reads a config finds a plug-in outside the repository, in whatever folder it is started."""

import json
import shutil
from types import SimpleNamespace

import pytest

from tests.end_to_end.command_line import REPOSITORY, SMALL, results, run

# A method, keys, a recipe, a mapper, an evaluator and data sets, in one file that the repository knows nothing about.
PLUGIN = """
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY

import PADing
from PADing.data.dataset_mappers import MAPPER_REGISTRY, COCOPanopticNewBaselineDatasetMapper
from PADing.engine.recipes import TRAINING_RECIPE_REGISTRY, OneOptimizer
from PADing.evaluation.build import EVALUATOR_REGISTRY
from PADing.meta_arch import MaskFormer


def add_config(cfg):
    cfg.MODEL.MY_WEIGHT = 1.0
    print(f"my_plugin meets {PADing.__file__}")


@META_ARCH_REGISTRY.register()
class MyMethod(MaskFormer):
    @classmethod
    def from_config(cls, cfg):
        assert cfg.MODEL.MY_WEIGHT == 2.0
        return super().from_config(cfg)


@TRAINING_RECIPE_REGISTRY.register()
class MyRecipe(OneOptimizer):
    def step(self, model, batch, data_time):
        super().step(model, batch, data_time)
        print("my recipe has updated the model")


@MAPPER_REGISTRY.register("my_mapper")
class MyMapper(COCOPanopticNewBaselineDatasetMapper):
    def __call__(self, record):
        print("my_mapper maps")
        return super().__call__(record)


class Counting(DatasetEvaluator):
    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {"counted": {"images": self.images}}


EVALUATOR_REGISTRY.register("my_type")({"PANOPTIC_ON": lambda cfg, data_set, folder: Counting()})

for part in ("train", "val"):
    for kind in ("panoptic", "instance"):
        name, shipped = f"my_{part}_{kind}", f"mini_{part}_{kind}"
        DatasetCatalog.register(name, partial(DatasetCatalog.get, shipped))
        metadata = {key: value for key, value in MetadataCatalog.get(shipped).as_dict().items() if key != "name"}
        MetadataCatalog.get(name).set(**{**metadata, "evaluator_type": "my_type"})
"""
CONFIG = f"""
_BASE_: {REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml"}
PLUGINS: my_plugin
MODEL: {{META_ARCHITECTURE: MyMethod, MY_WEIGHT: 2}}
INPUT: {{DATASET_MAPPER_NAME: my_mapper}}
DATASETS: {{TRAIN: [my_train_panoptic], TEST: [my_val_panoptic]}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The plug-in beside its config, data, the weights of one iteration of training, and a folder far from all."""
    top = tmp_path_factory.mktemp("plugin")
    work, elsewhere = top / "work", top / "elsewhere"
    (work / "my_plugin").mkdir(parents=True)
    (work / "my_plugin" / "__init__.py").write_text(PLUGIN)
    (work / "own.yaml").write_text(CONFIG)
    elsewhere.mkdir()
    make = ["python", REPOSITORY / "datasets" / "make_mini_coco.py", "--out", top / "mini"]
    run(make, "--train", 4, "--val", 1, "--size", 64)
    (top / "results.json").write_text(json.dumps([]))

    def start(tool, *args, cwd=elsewhere, **options):
        command = ["python", "-m", tool] if "/" not in tool and "." in tool[:-3] else ["python", REPOSITORY / tool]
        return run(command, *args, cwd=cwd, data=top, **options)

    config = ["--config-file", work / "own.yaml"]
    opts = [*SMALL, "SOLVER.RECIPE", "MyRecipe", "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", top / "out"]
    log = start("train_net.py", *config, "--num-gpus", 0, *opts)
    weights = top / "out" / "model_final.pth"
    return SimpleNamespace(top=top, work=work, start=start, config=config, log=log, weights=weights)


def test_training_and_evaluation(place):
    """The plug-in's mapper reads, its recipe trains, its evaluator counts, and its data set names the result."""
    assert "my_mapper maps" in place.log and place.log.count("my recipe has updated the model") == 1
    assert results(place.top / "out") == {"my_val_panoptic": {"counted": {"images": 1}}}


COMMANDS = {
    "train_net_pretrain.py": ["{config}", "--num-gpus", "0", "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", "{out}"],
    "train_net.py": ["{config}", "--num-gpus", "0", "--eval-only", "{trained}", "OUTPUT_DIR", "{out}"],
    "demo/demo.py": ["{config}", "--input", "{data}/mini/val", "--output", "{out}", "--opts", "{trained}"],
    "tools/analyze_model.py": ["--tasks", "parameter", "{config}"],
    "tools/visualize_data.py": ["{config}", "--source", "dataloader", "--number", "1", "--output", "{out}"],
    "tools/visualize_predictions.py": ["{config}", "--output", "{out}", "{trained}"],
    "tools/visualize_json_results.py": [
        "--plugins", "my_plugin", "--dataset", "my_val_instance", "--input", "{data}/results.json", "--output", "{out}",
    ],
    "PADing.data.verify": ["--config", "{data}/work/own.yaml"],
}  # fmt: skip


@pytest.mark.parametrize("tool", COMMANDS)
def test_each_tool_finds_the_plugin(place, tmp_path, tool):
    """Only train_net.py did: the others answered "cannot be imported. Run from the repository root"."""
    given = {"{config}": place.config, "{trained}": ["MODEL.WEIGHTS", place.weights]}
    words = []
    for word in COMMANDS[tool]:
        words += given[word] if word in given else [word.format(data=place.top, out=tmp_path / "out")]
    # Without a config, a plug-in lies in the current folder.
    where = {"cwd": place.work} if "--plugins" in words else {}
    small = SMALL if "{config}" in COMMANDS[tool] else []
    said = place.start(tool, *words, *small, **where)
    if "{out}" in COMMANDS[tool]:
        assert any((tmp_path / "out").iterdir())
    if tool == "PADing.data.verify":
        assert "train yes  evaluate yes" in said


def test_the_mini_benchmark_lists_a_method_from_elsewhere(place, tmp_path):
    shutil.copytree(REPOSITORY / "examples" / "ridge", tmp_path / "ridge")
    assert "ridge" in place.start("tools/minibench.py", "list", "--plugins", tmp_path / "ridge")


@pytest.mark.slow
def test_two_processes(place, tmp_path):
    """Each process of a job imports the plug-in by itself."""
    opts = [*SMALL, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path]
    place.start("train_net.py", *place.config, "--num-gpus", 2, "MODEL.DEVICE", "cpu", *opts)
    assert results(tmp_path) == {"my_val_panoptic": {"counted": {"images": 1}}}


def test_a_package_that_is_installed_elsewhere(place, tmp_path):
    """As after ``pip install``: nothing of the repository lies beside the packages."""
    for package in ("PADing", "d2zero", "baselines"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    data = ["DATASETS.SPLIT_FILES", REPOSITORY / "datasets" / "splits" / "mini.yaml"]
    data += ["DATASETS.TRAIN", "mini_train_panoptic", "DATASETS.TEST", "mini_val_panoptic"]
    args = ["--tasks", "parameter", *place.config, *SMALL, *data]
    said = place.start("tools/analyze_model.py", *args, packages=tmp_path)
    assert f"my_plugin meets {tmp_path}" in said and "model" in said
