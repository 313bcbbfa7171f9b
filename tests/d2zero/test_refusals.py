"""Configs whose parts do not fit together stop at once with one message; else a run of days gives wrong metrics."""

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from PADing.data.embeddings import save_class_embeddings
from PADing.errors import UserError

from .conftest import GENERALIZED, UNSEEN_ONLY, ZSIS


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASETS.TEST", (UNSEEN_ONLY,)], "unseen classes only.*GENERALIZED False"),
        (["MODEL.MASK_FORMER.TEST.GENERALIZED", False], f"GENERALIZED is False.*{GENERALIZED}.*seen"),
        (["DATASETS.TEST", (GENERALIZED, UNSEEN_ONLY)], f"{UNSEEN_ONLY}.*unseen classes only"),
        (["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", True], "SEMANTIC_ON False"),
        (["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True], "PANOPTIC_ON False"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 999], r"NUM_CLASSES is 999.*has \d+ classes"),
        (["DATASETS.TRAIN", (GENERALIZED,)], "shows unseen classes.*subset: seen"),
        (["DATASETS.TRAIN", ("mini_train_semantic",)], "no class names: its metadata lack thing_classes"),
        (["DATASETS.TEST", ()], "Neither may be empty"),
        (["MODEL.CLASS_EMBEDDINGS", "nowhere.npz"], r"nowhere.npz.*tools/class_embeddings.py"),
    ],
)
def test_refused_before_anything_is_read(config, opts, message):
    with pytest.raises(UserError, match=message):
        build_model(config(*opts))


def test_embeddings_that_lack_classes(config, vocabulary, tmp_path):
    names = [name for name in vocabulary if name not in (vocabulary[1], vocabulary[-1])]
    save_class_embeddings(tmp_path / "few.npz", names, np.ones((len(names), 3), np.float32), "test")
    with pytest.raises(UserError, match=f"lack 2 of .* classes: {vocabulary[1]}, {vocabulary[-1]}"):
        build_model(config("MODEL.CLASS_EMBEDDINGS", str(tmp_path / "few.npz")))


def test_word_vectors_of_another_split(config, vocabulary, tmp_path):
    np.savetxt(tmp_path / "words.txt", np.ones((3, len(vocabulary))), delimiter=",")
    words = ["MODEL.MASK_FORMER.VEC_PATH", str(tmp_path / "words.txt")]
    with pytest.raises(UserError, match="columns.*another split"):
        build_model(config(*words, "MODEL.CLASS_EMBEDDINGS", ""))


def test_class_embeddings_take_the_place_of_word_vectors_of_another_split(config, vectors, tmp_path):
    np.savetxt(tmp_path / "words.txt", np.ones((3, 5)), delimiter=",")
    predictor = build_model(config("MODEL.MASK_FORMER.VEC_PATH", str(tmp_path / "words.txt"))).sem_seg_head.predictor
    assert predictor.class_embeddings.path == str(vectors)


def test_a_test_set_of_the_other_setting(model):
    """Also where a set is evaluated that the config did not name."""
    with pytest.raises(UserError, match="unseen classes only"):
        model().set_test_metadata(MetadataCatalog.get(UNSEEN_ONLY))
    with pytest.raises(UserError, match="also holds seen"):
        model(*ZSIS).set_test_metadata(MetadataCatalog.get(GENERALIZED))
