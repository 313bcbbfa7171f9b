"""The tool writes files that models can read by name, and says what is wrong otherwise."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog

from PADing.config import load_config
from PADing.data import embeddings
from PADing.data.embeddings import load_class_embeddings, read_class_embeddings, resolve_embedding_path
from PADing.data.splits import load_split
from PADing.errors import UserError

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


def test_mistakes(tool, tmp_path, capsys):
    split = str(SPLITS / "coco_zsi_48_17.yaml")
    output = tmp_path / "v.npz"
    assert tool.main(["words", "--file", str(tmp_path / "no"), "--split", split, "--output", str(output)]) == 2
    assert "do not exist" in capsys.readouterr().err
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    np.save(tmp_path / "m.npy", np.zeros((3, 2), dtype=np.float32))
    common = ["--file", str(tmp_path / "m.npy"), "--names", str(names), "--output", str(output)]
    assert tool.main(["matrix", *common]) == 2
    assert "2 names" in capsys.readouterr().err
    assert tool.main(["matrix", *common, "--text", "cow=ox"]) == 2
    assert "cow=ox" in capsys.readouterr().err and not output.exists()


CLIP_CONFIGS = ("panoptic-segmentation/PADing", "semantic-segmentation/PADing", "d2zero_48_17", "d2zero_65_15")


def _config(name: str):
    return load_config(REPOSITORY / "configs" / f"{name}.yaml")


@pytest.mark.parametrize("page", ["docs/coco.md", "docs/reproducing.md", "docs/troubleshooting.md"])
def test_the_documented_command_makes_what_every_clip_config_reads(tool, tmp_path, monkeypatch, page):
    """One command, the published prompts: else stage 2 ends in an error, or uses other vectors unnoticed."""
    pattern = r"python tools/class_embeddings\.py (clip .*datasets/splits/coco_.*)"
    (command,) = set(re.findall(pattern, (REPOSITORY / page).read_text()))
    said = {}

    def encode(names, model, pretrained, checkpoint, templates, *_):
        said.update(model=model, pretrained=pretrained, templates=templates)
        return torch.nn.functional.normalize(torch.randn(len(names), 512))

    monkeypatch.setattr("PADing.data.embedding_sources.clip_embeddings", encode)
    monkeypatch.chdir(tmp_path)
    arguments = []
    for word in shlex.split(command):
        found = sorted(str(path) for path in REPOSITORY.glob(word)) if "*" in word else [word]
        arguments += found
    assert tool.main(arguments) == 0
    # The prompts of the published models, typed from their description: order, full stops and the capital A matter.
    assert said["templates"] == (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
        "A photo of a {} in the scene",
    )
    assert (said["model"], said["pretrained"]) == ("ViT-B-16-quickgelu", "openai")
    for name in CLIP_CONFIGS:
        cfg = _config(name)
        path = resolve_embedding_path(cfg)
        assert path == "embeddings/coco/coco_clip_vitb16.npz", name
        for data_set in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            vocabulary = MetadataCatalog.get(data_set).vocabulary
            assert load_class_embeddings(path, vocabulary).shape == (len(vocabulary), 512)


@pytest.mark.parametrize("name", CLIP_CONFIGS)
def test_vectors_of_other_prompts_are_used_only_by_name(tmp_path, monkeypatch, name):
    """A run with them is not the published method, so it must be somebody's decision."""
    shipped = "embeddings/coco/coco_stuff_171_clip_vitb16.npz"
    (tmp_path / shipped).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / shipped, tmp_path / shipped)
    monkeypatch.setattr(embeddings, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="do not exist") as error:
        resolve_embedding_path(_config(name))
    assert "class_embeddings.py clip --split" in str(error.value) and "only when" in str(error.value)
    assert all(f"{split}.yaml" in str(error.value) for split in ("coco_panoptic_119_14", "coco_stuff_156_15"))
    assert resolve_embedding_path(load_config("", ["MODEL.CLASS_EMBEDDINGS", shipped])) == shipped


def test_synonyms_of_a_split_file_get_vectors(tmp_path, tool):
    """A synonym without a word in the file is left out; a class without one is refused."""
    split = {
        "name": "own", "evaluation_only": True, "unseen": [], "data_sets": [],
        "categories": [{"id": 1, "name": "sofa", "synonyms": ["couch", "xyzzy"]}, {"id": 2, "name": "tv"}],
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(json.dumps(split))
    (tmp_path / "words.txt").write_text("sofa 1 0\ncouch 0 1\ntv 1 1\n")
    command = tool.main
    flags = ["--split", str(tmp_path / "own.yaml"), "--output", str(tmp_path / "out.npz")]
    assert command(["words", "--file", str(tmp_path / "words.txt"), *flags]) == 0
    names, vectors = read_class_embeddings(tmp_path / "out.npz")
    assert names == ["sofa", "tv", "couch"] and vectors.tolist() == [[1, 0], [1, 1], [0, 1]]
    (tmp_path / "words.txt").write_text("sofa 1 0\ncouch 0 1\n")
    assert command(["words", "--file", str(tmp_path / "words.txt"), *flags]) == 2
    np.save(tmp_path / "own.npy", np.eye(2, dtype=np.float32))
    assert command(["matrix", "--file", str(tmp_path / "own.npy"), *flags]) == 0
    assert read_class_embeddings(tmp_path / "out.npz")[0] == ["sofa", "tv"]
