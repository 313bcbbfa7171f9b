"""NUM_CLASSES -1 is as many classes as the stage needs; a wrong number is one true sentence."""

import pytest

from PADing import PADing
from PADing.config import load_config
from PADing.errors import UserError
from tests.golden.util import REPOSITORY

COUNT = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


@pytest.mark.parametrize(
    ("config", "published"),
    [
        ("panoptic-segmentation/pretrain.yaml", 133),
        ("panoptic-segmentation/PADing.yaml", 133),
        ("instance-segmentation/pretrain.yaml", 48),
        ("instance-segmentation/PADing.yaml", 65),
        ("instance-segmentation/pretrain_65_15.yaml", 65),
        ("instance-segmentation/PADing_65_15.yaml", 80),
        ("semantic-segmentation/pretrain.yaml", 156),
        ("semantic-segmentation/PADing.yaml", 171),
        ("d2zero_48_17.yaml", 48),
        ("d2zero_65_15.yaml", 65),
    ],
)
def test_counted_classes_are_the_published_numbers(config, published):
    assert load_config(REPOSITORY / "configs" / config, [COUNT, "-1"]).MODEL.SEM_SEG_HEAD.NUM_CLASSES == published


def test_a_wrong_number_for_pading_is_one_true_sentence():
    """It was an IndexError when unseen classes lie beyond the outputs, and "without class embeddings" otherwise."""
    config = REPOSITORY / "configs" / "instance-segmentation" / "PADing.yaml"
    for wrong in (48, 66):
        with pytest.raises(UserError, match=f"NUM_CLASSES is {wrong}, but PADing predicts all 65 .*48 seen"):
            PADing.from_config(load_config(config, [COUNT, str(wrong)]))


def test_unknown_names_leave_it_open():
    """The check of names says what is wrong with them; counting must not end in a traceback before."""
    config = REPOSITORY / "configs" / "mini" / "d2zero.yaml"
    for opts in (["MODEL.META_ARCHITECTURE", "D2Zer"], ["DATASETS.TRAIN", "nothing"], ["DATASETS.TRAIN", "()"]):
        assert load_config(config, [COUNT, "-1", *opts]).MODEL.SEM_SEG_HEAD.NUM_CLASSES == -1
