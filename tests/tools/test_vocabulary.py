"""Words of one's own, on untrained models; wrong here means wrong names, or a model that is not restored."""

import time

import numpy as np
import pytest
import torch

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.embeddings import embedding_source, save_class_embeddings
from PADing.errors import UserError
from PADing.generation import new_classes
from PADing.inference import Predictor
from PADing.visualization import ImageDrawer
from PADing.visualization.image_files import read_rgb
from PADing.visualization.panoptic import UNSEEN_RGB

WIDTH, WORDS = 32, ("zebra", "lamp", "signal", "traffic light", "moss")


@pytest.fixture(scope="module")
def words(drawn, tmp_path_factory):
    """A file with vectors of new words, from the source of the drawn data's."""
    file = tmp_path_factory.mktemp("words") / "words.npz"
    vectors = np.random.RandomState(4).randn(len(WORDS), WIDTH).astype(np.float32)
    save_class_embeddings(file, WORDS, vectors, embedding_source(drawn.vectors)[0])
    return file


@pytest.fixture(scope="module")
def predictor(model_options):
    made: dict[str, Predictor] = {}

    def function(architecture: str) -> Predictor:
        if architecture not in made:
            (_, file), opts = model_options(architecture)
            made[architecture] = Predictor(load_config(file, opts))
        made[architecture].set_vocabulary(None)
        return made[architecture]

    return function


@pytest.fixture(scope="module")
def image(drawn):
    return read_rgb(drawn.images[0])


def tensors(result: dict) -> list:
    found = []
    if "panoptic_seg" in result:
        found += [result["panoptic_seg"][0], result["sem_seg"]]
    return [*found, *(result["instances"].get(key) for key in ("scores", "pred_classes", "pred_masks"))]


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_the_own_classes_come_back_bit_by_bit(predictor, words, image, architecture):
    model = predictor(architecture)
    before, metadata = model(image), model.metadata
    model.set_vocabulary("zebra; traffic light, signal", embeddings=words)
    assert not same(model(image), before)
    model.set_vocabulary(None)
    assert same(model(image), before) and model.metadata is metadata


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_classes_that_the_model_knows_keep_what_it_has_learned(predictor, image, architecture):
    """The whole vocabulary by name is the model; a synonym renames a class."""
    model = predictor(architecture)
    before, own = model(image), ClassSpace.of(model.metadata)
    space = model.set_vocabulary([*own.class_names[:-1], f"something new, {own.class_names[-1]}"])
    assert same(model(image), before)
    assert space.class_names == (*own.class_names[:-1], "something new")
    assert space.dataset_ids == own.dataset_ids and space.things == own.things and space.unseen == own.unseen


def test_results_and_metadata_are_those_of_the_vocabulary(predictor, words, image, drawn):
    """A known unseen thing, two new things, new stuff: things come first, ids are new, the kinds are as asked."""
    model = predictor("PADing")
    space = model.set_vocabulary(f"stuff: moss; zebra; {drawn.unseen[0]}; traffic light, signal", embeddings=words)
    assert space.class_names == ("zebra", drawn.unseen[0], "traffic light", "moss")
    assert space.things == {0, 1, 2} and space.unseen == {0, 1, 2, 3} and ClassSpace.of(model.metadata) == space
    own = ClassSpace.of(predictor("PADing").metadata)
    ids = [space.dataset_ids[i] for i in range(4)]
    assert ids[1] in own.dataset_ids.values() and ids[0] not in own.dataset_ids.values() and len(set(ids)) == 4
    model.set_vocabulary(f"stuff: moss; zebra; {drawn.unseen[0]}; traffic light, signal", embeddings=words)
    result = model(image)
    assert result["sem_seg"].shape[0] == 4
    _, segments = result["panoptic_seg"]
    assert segments and all(s["isthing"] == (s["category_id"] in space.things) for s in segments)
    drawer = ImageDrawer(model.metadata)
    said = drawer.describe(drawer.read(result))
    assert all(f"{space.names[s['category_id']]} (unseen)" in said for s in segments)


def test_stuff_is_stuff(predictor, words, image):
    model = predictor("PADing")
    model.set_vocabulary("stuff: moss, lamp", embeddings=words)
    result = model(image)
    assert all(not s["isthing"] for s in result["panoptic_seg"][1]) and len(result["instances"]) == 0


def test_the_own_classes_can_stay(predictor, words):
    model = predictor("PADing")
    own = ClassSpace.of(model.metadata)
    space = model.set_vocabulary("zebra; stuff: moss", keep_own=True, embeddings=words)
    assert set(space.class_names) == {*own.class_names, "zebra", "moss"}
    assert {space.names[i] for i in space.things} == {*(own.names[i] for i in own.things), "zebra"}
    rows = model.model._rows[0]
    kept = [space.class_names.index(name) for name in own.class_names]
    assert torch.equal(rows[[*kept, -1]], model.model.new_fc.weight.detach())


def test_new_rows_do_not_depend_on_the_order(predictor, words):
    model, found = predictor("PADing"), []
    for names in ("zebra; lamp; signal", "signal; zebra", "lamp; signal; zebra"):
        space = model.set_vocabulary(names, embeddings=words)
        weight, bias = model.model._rows
        row = space.class_names.index("zebra")
        found.append((weight[row], bias[row]))
    assert all(torch.equal(weight, found[0][0]) and torch.equal(bias, found[0][1]) for weight, bias in found[1:])


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_a_file_keeps_the_vocabulary(predictor, words, image, tmp_path, architecture, monkeypatch):
    model, file = predictor(architecture), tmp_path / "kept.npz"
    text = "zebra; traffic light, signal" + ("; stuff: moss" if architecture == "PADing" else "")
    space = model.set_vocabulary(text, embeddings=words)
    want = model(image)
    model.save_vocabulary(file)
    model.set_vocabulary(None)
    monkeypatch.setattr(new_classes, "RowFitter", None)  # nothing is fitted again
    assert model.set_vocabulary(file) == space and same(model(image), want)


def test_the_file_of_another_model_is_refused(predictor, words, image, tmp_path):
    model, file = predictor("PADing"), tmp_path / "kept.npz"
    model.set_vocabulary("zebra", embeddings=words)
    model.save_vocabulary(file)
    before = model(image)
    with torch.no_grad():
        model.model.new_fc.bias[0] += 1
    try:
        with pytest.raises(UserError, match="fitted for another model"):
            model.set_vocabulary(file)
    finally:
        with torch.no_grad():
            model.model.new_fc.bias[0] -= 1
    assert same(model(image), before), "the former vocabulary is in use"


def test_damaged_files_are_refused(predictor, words, tmp_path):
    model, file = predictor("PADing"), tmp_path / "kept.npz"
    model.set_vocabulary("zebra; lamp", embeddings=words)
    model.save_vocabulary(file)
    arrays = dict(np.load(file))
    changes = {
        "torn": None,
        "rows": {"state/rows": arrays["state/rows"][:1]},
        "types": {"state/rows": np.array(["a"])},
        "no model": {"state/model": np.zeros(3)},
        "names": {"entries": np.array(["zebra", "moss"])},
        "pickle": {"entries": np.array(["zebra", None], dtype=object)},
    }
    for name, change in changes.items():
        path = tmp_path / f"{name}.npz"
        if change is None:
            path.write_bytes(file.read_bytes()[:-300])
        else:
            np.savez(path, **{**arrays, **change})
        with pytest.raises(UserError, match=r"kept|read|damaged|another model"):
            model.set_vocabulary(path)


def test_only_vocabularies_are_replaced(predictor, words, drawn):
    model, before = predictor("PADing"), drawn.vectors.read_bytes()
    with pytest.raises(UserError, match="no vocabulary is in use"):
        model.save_vocabulary("kept.npz")
    model.set_vocabulary("zebra", embeddings=words)
    with pytest.raises(UserError, match="is no vocabulary, so it is not replaced"):
        model.save_vocabulary(drawn.vectors)
    assert drawn.vectors.read_bytes() == before


@pytest.mark.parametrize(
    "architecture, vocabulary, said",
    [
        ("MaskFormer", "zebra", "MaskFormer has a fixed output for each class"),
        ("D2Zero", "zebra; stuff: moss", "marks moss as stuff, but this model segments instances"),
        ("PADing", "plain disc, striped disc", "names 2 classes of the model: plain disc, striped disc"),
        ("PADing", "stone", "There is no vector of stone"),
        ("PADing", "", "has no class"),
    ],
)
def test_mistakes_are_refused(predictor, words, image, model_options, architecture, vocabulary, said):
    (_, file), opts = model_options(architecture)
    model = Predictor(load_config(file, opts)) if architecture == "MaskFormer" else predictor(architecture)
    before = model(image)
    with pytest.raises(UserError, match=said):
        model.set_vocabulary(vocabulary, embeddings=words)
    assert same(model(image), before)


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_a_thousand_names_are_swapped_in_under_a_second(predictor, words, tmp_path, architecture, monkeypatch):
    monkeypatch.setattr(new_classes.RowFitter, "fit", lambda self, embedding: torch.zeros(33))  # takes 20 s in all
    names, file = [f"word {i}" for i in range(1000)], tmp_path / "thousand.npz"
    vectors = np.random.RandomState(5).randn(1000, WIDTH).astype(np.float32)
    save_class_embeddings(file, names, vectors, embedding_source(words)[0])
    model = predictor(architecture)
    if architecture == "PADing":
        vocabulary = tmp_path / "kept.npz"
        model.set_vocabulary(file)
        model.save_vocabulary(vocabulary)
        file = vocabulary
    model.set_vocabulary(None)
    own = len(ClassSpace.of(model.metadata))
    start = time.perf_counter()
    assert len(model.set_vocabulary(file, keep_own=True)) == 1000 + own  # with classes that are to be protected
    assert time.perf_counter() - start < 1


def test_the_demo_draws_words_of_one_s_own(tool, model_options, words, drawn, tmp_path, capsys):
    (flag, file), opts = model_options("D2Zero")
    args = [flag, file, "--input", drawn.images[0], "--output", tmp_path / "a.png", "--num-gpus", "0"]
    args += ["--confidence-threshold", "0.01", "--vocabulary", "zebra; traffic light, signal"]
    further = ["--vocabulary-embeddings", words, "--save-vocabulary", tmp_path / "kept.npz"]
    demo = tool("demo/demo.py")
    assert demo.main([str(arg) for arg in [*args, *further, "--opts", *opts]]) == 0
    said = capsys.readouterr().out
    assert "zebra (unseen)" in said or "traffic light (unseen)" in said
    assert (read_rgb(tmp_path / "a.png") == UNSEEN_RGB).all(axis=2).any()
    args[-1] = str(tmp_path / "kept.npz")
    assert demo.main([str(arg) for arg in [*args, "--opts", *opts]]) == 0
    assert said.split("(unseen)")[0].split(": ")[-1] in capsys.readouterr().out
    assert demo.main([str(arg) for arg in [*args[:-2], "--keep-own-classes", "--opts", *opts]]) == 2
    assert "--keep-own-classes says more about a vocabulary" in capsys.readouterr().err
