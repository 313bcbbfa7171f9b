"""demo/demo.py on small untrained models; wrong here means that users see wrong names, or nothing at all."""

import contextlib
import io
import json
import os
import shutil
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from PADing.config import load_config
from PADing.data.dataset_mappers import build_mapper
from PADing.data.mini_files import make_mini_coco
from PADing.inference import Predictor
from PADing.visualization import ImageDrawer, display_scale
from PADing.visualization.examples import found_segments
from PADing.visualization.image_files import read_rgb
from PADing.visualization.panoptic import UNSEEN_RGB, Segmentation

TASKS = {"panoptic": (), "instances": ("PANOPTIC_ON",), "semantic": ("PANOPTIC_ON", "INSTANCE_ON")}


@pytest.fixture(scope="module")
def demo(tool):
    module = tool("demo/demo.py")

    def run(*args):
        with mock.patch.dict(os.environ):  # without a kernel, the demo chooses plain PyTorch for its process
            return module.main([str(arg) for arg in args])

    return run


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("architecture", ["MaskFormer", "PADing", "D2Zero"])
def test_every_architecture_and_task_is_drawn(demo, drawn, model_options, tmp_path, capsys, architecture, task):
    """The one class that the weights prefer, an unseen one, is named as unseen, and something is drawn."""
    if architecture == "D2Zero" and task != "instances":
        pytest.skip("D2Zero segments instances only")
    config, opts = model_options(architecture)
    off = [] if architecture == "D2Zero" else [f"MODEL.MASK_FORMER.TEST.{key}" for key in TASKS[task]]
    opts = opts + [item for key in off for item in (key, "False")]
    image, output = drawn.images[0], tmp_path / "out" / "a.png"
    threshold = [] if task == "panoptic" else ["--confidence-threshold", "0.01"]
    args = [*config, "--input", image, "--output", output, "--num-gpus", "0", *threshold, "--opts", *opts]
    assert demo(*args) == 0
    said = capsys.readouterr().out
    if architecture != "D2Zero":
        assert f"{drawn.unseen[0]} (unseen)" in said
    assert f"-> {output}" in said
    before, after = read_rgb(image), read_rgb(output)
    assert after.shape == (6 * 64, 6 * 64, 3)  # small images are enlarged so that names can be read
    enlarged = cv2.resize(before, (384, 384), interpolation=cv2.INTER_LINEAR)
    assert (np.abs(enlarged.astype(int) - after).max(axis=2) > 20).mean() > 0.02
    if architecture != "D2Zero":
        assert (after == UNSEEN_RGB).all(axis=2).any(), "unseen classes are magenta"


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 700)])
@pytest.mark.parametrize("task", TASKS)
def test_strips_of_an_image(demo, model_options, tmp_path, size, task):
    """Such an image has less than a pixel left of its shorter side when the longer one is made to fit."""
    config, opts = model_options("MaskFormer")
    opts = opts + [item for key in TASKS[task] for item in (f"MODEL.MASK_FORMER.TEST.{key}", "False")]
    Image.fromarray(np.full((*size, 3), 90, dtype=np.uint8)).save(tmp_path / "strip.png")
    output = tmp_path / "out" / "strip.png"
    args = [*config, "--input", tmp_path / "strip.png", "--output", output, "--num-gpus", "0", "--opts", *opts]
    assert demo(*args) == 0
    scale = display_scale(*size)
    assert read_rgb(output).shape == (size[0] * scale, size[1] * scale, 3)


def test_an_image_beyond_memory_costs_only_itself(demo, drawn, model_options, tmp_path, capsys, monkeypatch):
    config, opts = model_options("MaskFormer")
    draw = ImageDrawer.draw

    def fail_first(self, image, seg):
        monkeypatch.setattr(ImageDrawer, "draw", draw)
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(ImageDrawer, "draw", fail_first)
    args = ["--input", *drawn.images, "--output", tmp_path / "out", "--num-gpus", "0"]
    assert demo(*config, *args, "--opts", *opts) == 2
    error = capsys.readouterr().err
    assert f"{drawn.images[0]} does not fit into memory" in error and "1 of 2 images were skipped" in error
    assert [p.name for p in (tmp_path / "out").iterdir()] == [drawn.images[1].name]


@pytest.mark.parametrize("threshold", ["1.5", "-0.1", "nan", "high"])
def test_thresholds_beyond_one_are_refused(demo, drawn, model_options, tmp_path, capsys, threshold):
    config, opts = model_options("MaskFormer")
    with pytest.raises(SystemExit) as stop:
        args = ["--input", drawn.images[0], "--output", tmp_path, "--confidence-threshold", threshold]
        demo(*config, *args, "--opts", *opts)
    assert stop.value.code == 2 and "a number from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_demo_answers_as_the_evaluation(drawn, model_options, channels):
    """Otherwise the drawings would not show what the metrics measure."""
    (_, file), opts = model_options("MaskFormer")
    cfg = load_config(file, [*opts, "INPUT.FORMAT", channels])
    predictor = Predictor(cfg)
    record = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]
    with torch.no_grad():
        want = predictor.model([build_mapper(cfg, is_train=False)(record)])[0]
    got = predictor(read_rgb(record["file_name"]))
    assert torch.equal(got["sem_seg"], want["sem_seg"])
    assert torch.equal(got["panoptic_seg"][0], want["panoptic_seg"][0])


def test_unreadable_images_are_listed_and_the_others_drawn(demo, drawn, model_options, tmp_path, capsys):
    config, opts = model_options("MaskFormer")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(drawn.images[0].read_bytes()[:300])
    inputs = [broken, tmp_path / "missing.jpg", str(drawn.images[0].parent / "*.jpg")]
    assert demo(*config, "--input", *inputs, "--output", tmp_path / "out", "--num-gpus", "0", "--opts", *opts) == 2
    error = capsys.readouterr().err
    assert f"Image {broken} cannot be read" in error and "missing.jpg does not exist" in error
    assert "2 of 4 images were skipped" in error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in drawn.images]


def test_video(demo, drawn, model_options, tmp_path):
    """Every frame is drawn, in order, in the size of the video."""
    config, opts = model_options("MaskFormer")
    source, target = tmp_path / "in.avi", tmp_path / "out.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (80, 64))
    moving = np.zeros((3, 64, 80, 3), dtype=np.uint8)
    for place, frame in enumerate(moving):
        frame[:, 20 + 20 * place : 40 + 20 * place] = 255  # a bar that moves to the right
        writer.write(frame)
    writer.release()
    assert demo(*config, "--video-input", source, "--output", target, "--num-gpus", "0", "--opts", *opts) == 0
    video = cv2.VideoCapture(str(target))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert video.get(cv2.CAP_PROP_FPS) == 5.0 and [f.shape for f in frames] == [(64, 80, 3)] * 3
    # Whatever the colors of the drawing, each frame shows through it.
    likeness = np.corrcoef([frame.mean(axis=2).ravel() for frame in (*frames, *moving)])[:3, 3:]
    assert likeness.argmax(axis=1).tolist() == [0, 1, 2]
    assert all(np.abs(drawn.astype(int) - frame).mean() > 5 for drawn, frame in zip(frames, moving, strict=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.avi", "out.avi"]


def _without(opts, key):
    index = opts.index(key)
    return opts[:index] + opts[index + 2 :]


@pytest.mark.parametrize(
    "change, said",
    [
        ("no weights", "MODEL.WEIGHTS is empty"),
        ("lost weights", "do not exist"),
        ("backbone only", "holds no segmenter"),
        ("no display", "--output"),
        ("no match", "No image matches"),
        ("over the input", "would replace images"),
        ("no video", "does not exist"),
        ("text as video", "cannot be opened"),
        ("webcam into a file", "--webcam shows a window"),
        ("no input", "Nothing to segment is named"),
        ("seed of an image", "--number and --seed are for drawn images"),
        ("no config", "the config that its model was trained with"),
    ],
)
def test_mistakes_are_answered(demo, drawn, model_options, tmp_path, capfd, monkeypatch, change, said):
    """One message that says what to do, and status 2, instead of a traceback or a crash of the window system."""
    config, opts = model_options("MaskFormer")
    what, output = ["--input", drawn.images[0]], ["--output", tmp_path / "out"]
    if change == "no weights":
        opts = _without(opts, "MODEL.WEIGHTS")
    elif change == "lost weights":
        opts = [*_without(opts, "MODEL.WEIGHTS"), "MODEL.WEIGHTS", str(tmp_path / "lost.pth")]
    elif change == "backbone only":
        state = torch.load(opts[-1], weights_only=True)["model"]
        state = {key: value for key, value in state.items() if key.startswith("backbone.")}
        torch.save({"model": state}, tmp_path / "backbone.pth")
        opts = [*_without(opts, "MODEL.WEIGHTS"), "MODEL.WEIGHTS", str(tmp_path / "backbone.pth")]
    elif change == "no display":
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        output = []
    elif change == "no match":
        what = ["--input", tmp_path / "*.jpg"]
    elif change == "over the input":
        mine = tmp_path / "mine.jpg"
        shutil.copy(drawn.images[0], mine)
        what, output = ["--input", mine], ["--output", tmp_path]
    elif change == "no video":
        what = ["--video-input", tmp_path / "none.mp4"]
    elif change == "text as video":
        (tmp_path / "text.mp4").write_text("not a video")
        what = ["--video-input", tmp_path / "text.mp4"]
    elif change == "webcam into a file":
        what = ["--webcam"]
    elif change == "no input":
        what = []
    elif change == "seed of an image":
        what += ["--seed", "3"]
    elif change == "no config":
        config = []
    assert demo(*config, *what, *output, "--num-gpus", "0", "--opts", *opts) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("error: ") == 1


@pytest.fixture(scope="module")
def examples(demo, tmp_path_factory):
    """The folder and the output of the demo without any input."""
    folder, said = tmp_path_factory.mktemp("demo") / "out", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert demo("--output", folder, "--number", "4", "--num-gpus", "0") == 0
    return folder, said.getvalue()


def test_without_an_input_the_model_of_the_package_shows_what_it_finds(examples):
    """Wrong here means that a newcomer sees a model that finds nothing, or a truth that is not that of the image."""
    folder, said = examples
    record = json.loads((folder / "demo.json").read_text())
    assert record["number"] == len(record["images"]) == 4
    for kind in ("seen", "unseen"):
        found, present = record["segments"][kind]["found"], record["segments"][kind]["present"]
        assert 0 < found <= present and f"{found} of {present} of {kind} classes" in said
    assert record["segments"]["seen"]["found"] >= record["segments"]["seen"]["present"] / 3  # 4 of 10 at first
    words = " ".join(image["ground truth"] for image in record["images"])
    assert words.count("(unseen)") > 0 and str(folder / "overview.png") in said
    for index in range(1, 5):
        assert read_rgb(folder / "images" / f"{index}.png").shape == (128, 128, 3)
        truth = record["images"][index - 1]["ground truth"]
        comparison = read_rgb(folder / "comparisons" / f"{index}.png")
        assert (comparison == UNSEEN_RGB).all(axis=2)[30:-30].any() or "(unseen)" not in truth
        assert read_rgb(folder / "predictions" / f"{index}.png").shape == (384, 384, 3)


def test_drawn_images_are_new_ones_and_the_same_each_time(examples, demo, tmp_path, capsys):
    """An image of the training would show what was learned by heart."""
    folder, _ = examples
    make_mini_coco(tmp_path / "mini", train=4, val=4, seed=0)
    known = [read_rgb(path).astype(int) for path in tmp_path.rglob("*.jpg")]
    for path in sorted((folder / "images").iterdir()):
        assert min(np.abs(read_rgb(path) - other).mean() for other in known) > 15
    again = tmp_path / "again"
    for seed, same in (("0", True), ("1", False)):  # the second call replaces the files of the first
        assert demo("--output", again, "--number", "1", "--seed", seed, "--num-gpus", "0") == 0
        for name in ("images/1.png", "comparisons/1.png"):
            assert ((again / name).read_bytes() == (folder / name).read_bytes()) == same


def test_files_of_the_user_are_not_replaced(demo, tmp_path, capsys):
    (tmp_path / "overview.png").write_text("a photograph")
    for output in (tmp_path, tmp_path / "overview.png", tmp_path / "new.jpg"):
        assert demo("--output", output) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["overview.png"]
    assert (tmp_path / "overview.png").read_text() == "a photograph"


def test_an_image_of_the_user_gets_a_note_on_what_the_model_knows(examples, demo, tmp_path, capsys):
    folder, _ = examples
    image = folder / "images" / "1.png"
    assert demo("--input", image, "--output", tmp_path / "drawn.png", "--num-gpus", "0") == 0
    said = capsys.readouterr()
    assert "drawn shapes only" in said.err
    assert json.loads((folder / "demo.json").read_text())["images"][0]["prediction"] in said.out
    assert (read_rgb(tmp_path / "drawn.png") == read_rgb(folder / "predictions" / "1.png")).all()


def test_found_segments_are_those_of_the_right_class_that_overlap_by_half():
    """Worked by hand: segment 1 is found; 2 has another class; 3 overlaps by exactly half."""
    truth = Segmentation(np.array([[1, 1, 1, 2, 2, 2, 3, 3]]), {1: 5, 2: 6, 3: 7})
    prediction = Segmentation(np.array([[9, 9, 0, 8, 8, 8, 7, 0]]), {9: 5, 8: 5, 7: 7})
    assert found_segments(truth, prediction) == {1}
