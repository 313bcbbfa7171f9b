"""TEST.DISTRACTORS on untrained models, and the table of the mini benchmark."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from minibench.__main__ import cli
from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.embeddings import embedding_source, save_class_embeddings
from PADing.data.mini import categories, class_embeddings, distractor_embeddings
from PADing.engine.distractors import distractor_problems, with_distractors
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.inference import Predictor


@pytest.fixture(scope="module")
def words(drawn, tmp_path_factory):
    """A file with two classes of the model and three distractors."""
    file = tmp_path_factory.mktemp("words") / "words.npz"
    names = [drawn.classes[0], "zebra", "lamp", drawn.classes[3], "moss"]
    own = np.load(drawn.vectors)["vectors"]
    vectors = np.stack([own[0], *np.random.RandomState(1).randn(2, 32), own[3], np.ones(32)])
    save_class_embeddings(file, names, vectors, embedding_source(drawn.vectors)[0])
    return str(file)


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_the_data_set_s_classes_keep_their_numbers(model_options, words, architecture):
    (_, file), opts = model_options(architecture)
    cfg = load_config(file, [*opts, "TEST.DISTRACTORS", words, "TEST.NUM_DISTRACTORS", 2])
    metadata = Predictor(load_config(file, opts)).metadata
    space = with_distractors(cfg, metadata).space
    own = ClassSpace.of(metadata)
    assert space.class_names == (*own.class_names, "zebra", "lamp")
    assert [space.dataset_ids[i] for i in range(len(own))] == [own.dataset_ids[i] for i in range(len(own))]
    assert space.things == {*own.things, len(own), len(own) + 1}


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_an_evaluation_says_how_many_there_were_and_leaves_the_model_as_it_was(
    model_options, words, tmp_path, architecture
):
    (_, file), opts = model_options(architecture)
    results, model = [], None
    for name, further in (("a", []), ("b", ["TEST.DISTRACTORS", words]), ("c", [])):
        cfg = load_config(file, [*opts, *further, "OUTPUT_DIR", str(tmp_path / name)])
        model = model or Predictor(cfg).model
        results.append(Trainer.test(cfg, model))
    assert str(results[0]) == str(results[2])
    assert results[1].pop("distractors") == {"classes": 3} and set(results[1]) == set(results[0])
    files = [(tmp_path / name / "inference" / "coco_instances_results.json").read_text() for name in "abc"]
    assert files[0] == files[2] != files[1]


@pytest.mark.parametrize(
    "architecture, change, said",
    [
        ("MaskFormer", {}, "has a fixed output for each class"),
        ("PADing", {"TEST.DISTRACTORS": "words.txt"}, "Name an .npz"),
        ("PADing", {"TEST.DISTRACTORS": "lost.npz"}, "do not exist"),
    ],
)
def test_mistakes_show_before_a_model_is_built(model_options, words, architecture, change, said):
    (_, file), opts = model_options(architecture)
    options = {"TEST.DISTRACTORS": words, **change}
    cfg = load_config(file, [*opts, *(item for pair in options.items() for item in pair)])
    assert said in " ".join(distractor_problems(cfg))


def test_too_few_names_are_refused(model_options, words):
    (_, file), opts = model_options("PADing")
    cfg = load_config(file, [*opts, "TEST.DISTRACTORS", words, "TEST.NUM_DISTRACTORS", 4])
    with pytest.raises(UserError, match="has 3 classes that the model does not know"):
        with_distractors(cfg, Predictor(load_config(file, opts)).metadata)


def test_distractors_of_the_mini_world():
    """Pairs of parts that are no class, with vectors of the same rotation: those that share a part are near a class."""
    found, vectors = distractor_embeddings(1000, 32, 0.0, 5)
    assert len({c.name for c in found}) == 1000 and not {c.name for c in found} & {c.name for c in categories()}
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(1000), abs=1e-5)
    classes = class_embeddings(32, 0.0, 5)
    likeness = vectors @ classes.T
    for row, distractor in zip(likeness, found, strict=True):
        for value, category in zip(row, categories(), strict=True):
            if distractor.parts[0] in category.parts and "word" not in distractor.name:
                assert value >= 1 / 3 - 1e-5  # one of three parts at least
    again, same = distractor_embeddings(10, 32, 0.0, 5)
    assert again == found[:10]
    with pytest.raises(UserError, match="must be 1 to 1500"):
        distractor_embeddings(1501, 32, 0.0, 5)


def test_the_table_of_a_run(model_options, drawn, tmp_path, capsys, monkeypatch):
    (_, file), opts = model_options("D2Zero")
    cfg = load_config(file, opts)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    (tmp_path / "model_final.pth").write_bytes(Path(cfg.MODEL.WEIGHTS).read_bytes())
    data = drawn.vectors.parents[1]
    args = ["distractors", str(tmp_path), "--data", str(data), "--numbers", "0,5", "--images", "1"]
    assert cli(args) == 0
    table = capsys.readouterr().out
    assert "| distractors | AP50 seen |" in table and "\n| 5 | " in table
    written = json.loads((tmp_path / "distractors" / "distractors.json").read_text())
    assert list(written) == ["0", "5"] and "segm" in written["5"]
    used = yaml.safe_load((tmp_path / "distractors" / "5" / "results.json").read_text())
    assert next(iter(used.values()))["distractors"] == {"classes": 5}
    assert cli([*args[:2], "--data", str(tmp_path)]) == 2 and "does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli([*args[:4], "--numbers", "ten"])
