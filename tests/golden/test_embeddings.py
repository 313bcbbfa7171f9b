"""Word-vector tables in the published layout give each class its own vector."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from PADing.data.embeddings import load_class_embeddings, save_class_embeddings
from PADing.data.splits import load_split, shipped_split_files
from tests.golden.util import GOLDEN, REPOSITORY, fill

DATA = Path(os.environ.get("DATA_DIR", REPOSITORY.parent / "shared" / "data")) / "embeddings"
METADATA = GOLDEN / "datasets_metadata.json"
DATA_SETS = json.loads(METADATA.read_text())["datasets"] if METADATA.is_file() else {}
INSTANCE_SETS = sorted(name for name, fields in DATA_SETS.items() if len(fields.get("thing_classes") or ()) > 1)


@pytest.mark.skipif(not DATA_SETS, reason=f"{METADATA} is absent")
@pytest.mark.parametrize("name", INSTANCE_SETS)
def test_word_vector_table(name, tmp_path):
    """Read as a whole and class by class in another order."""
    names = DATA_SETS[name]["thing_classes"]
    path = tmp_path / "vectors.txt"
    np.savetxt(path, fill.word_vector_table(names), fmt="%.9g", delimiter=",")
    expected = np.stack([fill.word_vector(n) for n in names])
    assert np.allclose(load_class_embeddings(path, names).numpy(), expected, rtol=1e-6, atol=1e-8)
    reverse = load_class_embeddings(path, names[::-1], file_names=names).numpy()
    assert np.allclose(reverse, expected[::-1], rtol=1e-6, atol=1e-8)


@pytest.mark.skipif(not DATA_SETS, reason=f"{METADATA} is absent")
def test_text_features_by_name(tmp_path):
    names = max((fields.get("stuff_classes") or [] for fields in DATA_SETS.values()), key=len)
    save_class_embeddings(tmp_path / "v.npz", names, np.stack([fill.text_feature(n) for n in names]), "golden")
    for wanted in (fields.get("stuff_classes") or [] for fields in DATA_SETS.values()):
        if not wanted or not set(wanted) <= set(names):
            continue
        loaded = load_class_embeddings(tmp_path / "v.npz", wanted).numpy()
        assert np.array_equal(loaded, np.stack([fill.text_feature(n) for n in wanted]).astype(np.float32))


def test_shipped_clip_matrix_is_the_published_one():
    """Row by row under its own name; the published file has no names, its list of names is separate."""
    source = DATA / "coco_stuff_clip_vitb16_ensemble.npy"
    if not source.is_file():
        pytest.skip(f"{source} is absent (set DATA_DIR)")
    names = json.loads((DATA / "coco_stuff_171_names.json").read_text())
    shipped = REPOSITORY / "embeddings" / "coco" / "coco_stuff_171_clip_vitb16.npz"
    rng = np.random.default_rng(0)
    order = rng.permutation(len(names))
    loaded = load_class_embeddings(shipped, [names[i] for i in order]).numpy()
    assert np.array_equal(loaded, np.load(source).astype(np.float32)[order])


def _shipped_word_vectors():
    """Class name -> vector, for each word-vector file that is shipped."""
    for file in shipped_split_files():
        split = load_split(file)
        path = REPOSITORY / "embeddings" / "coco" / f"{split.name.replace('coco_zsi_', 'word_w2v_withbg_')}.txt"
        if path.is_file():
            names = [*split.seen, *split.unseen]
            yield dict(zip(names, load_class_embeddings(path, names).numpy(), strict=True))


def test_shipped_word_vectors_fit_their_splits():
    """Columns are told apart by order alone: a class must have the same vector in both files, all of one length."""
    first, second = _shipped_word_vectors()
    for table in (first, second):
        assert np.allclose(np.linalg.norm(list(table.values()), axis=1), 0.76663, atol=1e-5)
    common = first.keys() & second.keys()
    assert len(common) > 60 and all(np.array_equal(first[name], second[name]) for name in common)
