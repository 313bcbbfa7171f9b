"""The tool writes files that models can read by name, and says what is wrong otherwise."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from PADing.data.embeddings import load_class_embeddings
from PADing.data.splits import load_split

REPOSITORY = Path(__file__).resolve().parents[2]
SPLITS = REPOSITORY / "datasets" / "splits"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("class_embeddings", REPOSITORY / "tools" / "class_embeddings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_words_of_a_split(tool, tmp_path):
    """Every class of the split gets its vector, stuff included."""
    split = load_split(SPLITS / "coco_panoptic_119_14.yaml")
    words = sorted({word for name in (*split.seen, *split.unseen) for word in name.replace("-", " ").split()})
    vectors = {word: np.random.default_rng(i).normal(size=5).round(4) for i, word in enumerate(words)}
    text = "\n".join(f"{word} {' '.join(map(str, vector))}" for word, vector in vectors.items())
    (tmp_path / "glove.txt").write_text(text + "\n")
    output = tmp_path / "deep" / "v.npz"
    args = ["words", "--file", str(tmp_path / "glove.txt"), "--split", split.file, "--output", str(output)]
    assert tool.main(args) == 0
    loaded = load_class_embeddings(output, ["tree-merged", "cow"]).numpy()
    assert np.allclose(loaded[0], (vectors["tree"] + vectors["merged"]) / 2, atol=1e-6)
    assert np.allclose(loaded[1], vectors["cow"], atol=1e-6)
    assert tool.main([*args, "--text", "tree-merged=tree"]) == 0
    assert np.allclose(load_class_embeddings(output, ["tree-merged"]).numpy()[0], vectors["tree"], atol=1e-6)


def test_txt_matrix_to_npz(tool, tmp_path):
    """The shipped word-vector file, converted with the order of its split, gives the same numbers by name."""
    split = SPLITS / "coco_zsi_48_17.yaml"
    source = REPOSITORY / "embeddings" / "coco" / "word_w2v_withbg_48_17.txt"
    output = tmp_path / "v.npz"
    assert tool.main(["matrix", "--file", str(source), "--split", str(split), "--output", str(output)]) == 0
    names = load_split(split).unseen
    order = [*load_split(split).seen, *names]
    assert np.array_equal(load_class_embeddings(output, names), load_class_embeddings(source, names, order))


def test_mistakes(tool, tmp_path, caplog):
    split = str(SPLITS / "coco_zsi_48_17.yaml")
    output = tmp_path / "v.npz"
    assert tool.main(["words", "--file", str(tmp_path / "no"), "--split", split, "--output", str(output)]) == 1
    assert "do not exist" in caplog.text
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    np.save(tmp_path / "m.npy", np.zeros((3, 2), dtype=np.float32))
    common = ["--file", str(tmp_path / "m.npy"), "--names", str(names), "--output", str(output)]
    assert tool.main(["matrix", *common]) == 1
    assert "2 names" in caplog.text
    assert tool.main(["matrix", *common, "--text", "cow=ox"]) == 1
    assert "cow=ox" in caplog.text and not output.exists()
