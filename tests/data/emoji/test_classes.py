"""If these fail, a class is missing without a reason, or a distractor is an unlabelled object of a class."""

import numpy as np
import pytest

from PADing.data.emoji.classes import DISTRACTORS, EMOJI, LEFT_OUT, sequences
from PADing.data.emoji.files import FIRST, SPLIT, frozen, scene_hash
from PADing.data.emoji.font import PINNED, find_font, hash_of, read_glyphs
from PADing.data.mini_v2.hashes import of_set
from PADing.data.splits import load_split
from PADing.errors import UserError


def test_every_thing_of_the_protocol_has_emoji_or_a_reason():
    own, coco = load_split(SPLIT), load_split("datasets/splits/coco_zsi_48_17.yaml")
    assert not set(EMOJI) & set(LEFT_OUT) and all(LEFT_OUT.values())
    assert {*EMOJI, *LEFT_OUT} == {*coco.seen, *coco.unseen}
    for ours, theirs in ((own.seen, coco.seen), (own.unseen, coco.unseen)):
        assert list(ours) == [name for name in theirs if name in EMOJI]
    assert (len(own.seen), len(own.unseen)) == (39, 14)


def test_no_emoji_stands_for_two_classes_or_for_a_class_and_a_distractor():
    listed = [*DISTRACTORS, *(emoji for variants in EMOJI.values() for emoji in variants)]
    assert len(listed) == len(set(listed)) == len(sequences())
    assert all("\ufe0f" not in emoji for emoji in listed)


def test_first_scenes_are_the_frozen_ones():
    """With the real font alone: other versions of NumPy, Pillow or fontTools must not change a pixel."""
    try:
        font = find_font()
    except UserError as error:
        pytest.skip(f"the emoji font is not installed: {error}")
    glyphs = read_glyphs(font, sequences())
    if hash_of(glyphs) != PINNED:
        pytest.skip(f"{font} is another version of the font")
    assert all(np.ptp(picture[..., 3]) == 255 for picture in glyphs.values())
    for subset in ("train", "val"):
        assert of_set(scene_hash(glyphs, 0, subset, index) for index in range(FIRST)) == frozen()[subset]
