"""The words of a vocabulary; wrong here means that a user's class is lost, split, or shown under another name."""

import pytest

from PADing.data.vocabulary import LONGEST_NAME, MOST_CLASSES, Entry, parse_vocabulary
from PADing.errors import UserError

ZEBRA, LIGHT, GRASS = Entry(("zebra",)), Entry(("traffic light", "signal")), Entry(("grass", "lawn"), isthing=False)


@pytest.mark.parametrize(
    "words",
    [
        "zebra; traffic light, signal; stuff: grass, lawn",
        " zebra ;; traffic  light ,signal,; STUFF:grass,lawn ;\n",
        ["zebra", "traffic light, signal", "stuff: grass, lawn"],
        ("thing: zebra; traffic light, signal", "stuff: grass, lawn"),
        "zebra\ntraffic light, signal, signal\nstuff: grass, lawn",
    ],
)
def test_the_same_classes(words):
    assert parse_vocabulary(words) == (ZEBRA, LIGHT, GRASS)


def test_a_file_has_a_class_a_line(tmp_path):
    file = tmp_path / "my words"
    file.write_text("\ufeffzebra\r\n# street\r\n\r\ntraffic light, signal\nstuff: grass, lawn", encoding="utf-8")
    assert parse_vocabulary(str(file)) == parse_vocabulary(file) == (ZEBRA, LIGHT, GRASS)


def test_an_entry_is_written_as_it_is_read():
    for entry in (ZEBRA, LIGHT, GRASS):
        assert parse_vocabulary(str(entry)) == (entry,)
    assert LIGHT.name == "traffic light" and LIGHT.known_as == ("traffic light, signal", "traffic light", "signal")


@pytest.mark.parametrize(
    "words, said",
    [
        ("", "has no class"),
        (" ; ;\n", "has no class"),
        ([], "has no class"),
        (["zebra", 3], "list of class names, but holds 3"),
        ("zebra; lamp, zebra", "names zebra twice"),
        ("stuff:", "has no name"),
        ("zebra; ,", "has no name"),
        ("stuf: grass", "did you mean stuff"),
        ("a" * (LONGEST_NAME + 1), "is no name of a class"),
        ("zebra\x1b[31m", "is no name of a class"),
        ("lost.txt", "does not exist"),
        ([str(i) for i in range(MOST_CLASSES + 1)], f"the limit is {MOST_CLASSES}"),
    ],
)
def test_mistakes_are_refused(words, said):
    with pytest.raises(UserError, match=said):
        parse_vocabulary(words)


def test_files_that_are_no_words_are_refused(tmp_path):
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    (tmp_path / "huge.txt").write_bytes(b"")
    with open(tmp_path / "huge.txt", "r+b") as file:
        file.truncate(2**24 + 1)
    for name, said in (("image.jpg", "is no text"), ("huge.txt", "more than 16 MiB"), (".", "is no file")):
        with pytest.raises(UserError, match=said):
            parse_vocabulary(tmp_path / name)
