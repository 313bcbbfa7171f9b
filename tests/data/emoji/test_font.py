"""If these fail, a wrong font ends in a traceback, in empty pictures, or in scenes that compare with nobody's."""

import numpy as np
import pytest

from PADing.data.emoji import font as font_module
from PADing.data.emoji.font import find_font, hash_of, read_glyphs
from PADing.errors import UserError
from tests.data.emoji.tiny_font import disc, write_font

EMOJI = ["🚲", "🧍🏽", "🐻\u200d❄", "☂", "🧍"]


@pytest.fixture
def font(tmp_path):
    write_font(tmp_path / "font.ttf", EMOJI)
    return tmp_path / "font.ttf"


def test_pictures_are_those_of_the_font_also_of_several_code_points(font):
    glyphs = read_glyphs(font, EMOJI)
    assert list(glyphs) == EMOJI
    for number, emoji in enumerate(EMOJI):
        np.testing.assert_array_equal(glyphs[emoji], disc(number))
    np.testing.assert_array_equal(read_glyphs(font, ["☂\ufe0f"])["☂\ufe0f"], glyphs["☂"])


def test_the_hash_depends_on_pixels_and_names_and_not_on_order(font):
    glyphs = read_glyphs(font, EMOJI)
    assert hash_of(glyphs) == hash_of(dict(reversed(glyphs.items())))
    other = {key: value.copy() for key, value in glyphs.items()}
    other["☂"][60, 60, 0] ^= 1
    renamed = {key.replace("☂", "🌂"): value for key, value in glyphs.items()}
    assert len({hash_of(glyphs), hash_of(other), hash_of(renamed)}) == 3


def _refused(path, wanted=("🚲",)) -> str:
    with pytest.raises(UserError) as error:
        read_glyphs(path, wanted)
    assert str(path) in str(error.value)
    return str(error.value)


def test_fonts_that_do_not_fit_are_refused(font, tmp_path):
    assert "lacks 2 of 3 emoji: U+1F6D2, U+1F9CD+U+1F3FF" in _refused(font, ["🛒", "🧍🏿", "☂"])
    write_font(tmp_path / "text.ttf", EMOJI, colour=False)
    assert "has no colour bitmaps" in _refused(tmp_path / "text.ttf")
    write_font(tmp_path / "damaged.ttf", EMOJI, damaged="this is no PNG")
    assert "damaged" in _refused(tmp_path / "damaged.ttf")
    (tmp_path / "words.ttf").write_text("not a font\n" * 9)
    assert "is no intact font" in _refused(tmp_path / "words.ttf")
    (tmp_path / "web.woff2").write_bytes(b"wOF2" + bytes(100))  # its decoder may not be installed
    assert "is no intact font" in _refused(tmp_path / "web.woff2")
    (tmp_path / "empty.ttf").write_bytes(b"")
    assert "is no intact font" in _refused(tmp_path / "empty.ttf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_download_that_broke_off_is_refused(font, tmp_path, share):
    content = font.read_bytes()
    (tmp_path / "part.ttf").write_bytes(content[: int(len(content) * share)])
    assert _refused(tmp_path / "part.ttf", EMOJI)


def test_a_missing_font_says_how_to_get_it(tmp_path, monkeypatch, font):
    monkeypatch.setattr(font_module, "_FOLDERS", (str(tmp_path / "fonts"),))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    with pytest.raises(UserError, match=r"apt-get install fonts-noto-color-emoji.*--font"):
        find_font()
    with pytest.raises(UserError, match="does not exist.*apt-get"):
        find_font(tmp_path / "absent.ttf")
    with pytest.raises(UserError, match="is a folder"):
        find_font(tmp_path)
    (tmp_path / "fonts").mkdir()
    font.rename(tmp_path / "fonts" / "NotoColorEmoji.ttf")
    assert find_font() == tmp_path / "fonts" / "NotoColorEmoji.ttf"
