"""Names on images; wrong here means names that hide each other, or that leave the image."""

import numpy as np
import pytest

from PADing.visualization.labels import UNSEEN_BOX, Label, draw_labels, place_labels
from PADing.visualization.lettering import font_file, one_line, shorten, text_width, write

RED = (200, 30, 30)


def _crowd(rows: int, columns: int, side: int):
    """A grid of squares, and a label for each."""
    ids = np.arange(1, rows * columns + 1).reshape(rows, columns)
    return np.kron(ids, np.ones((side, side), dtype=int)).astype(np.uint16)


def _overlaps(places, shape) -> bool:
    taken = np.zeros(shape, dtype=int)
    for place in places:
        assert 0 <= place.top <= shape[0] - place.height and 0 <= place.left <= shape[1] - place.width
        taken[place.top : place.top + place.height, place.left : place.left + place.width] += 1
    return taken.max(initial=0) > 1


@pytest.mark.parametrize(("count", "side"), [((4, 6), 30), ((10, 20), 32), ((40, 40), 16), ((1, 1), 700)])
def test_names_do_not_overlap_and_stay_in_the_image(count, side):
    numbers = _crowd(*count, side)
    labels = [Label(n, "traffic light", RED, unseen=n % 5 == 0, score=0.9) for n in range(1, count[0] * count[1] + 1)]
    places = place_labels(numbers, labels, 12)
    assert places and not _overlaps(places, numbers.shape)


def test_unseen_classes_come_first():
    numbers = _crowd(4, 6, 30)
    labels = [Label(n, "a long name of a class", RED, unseen=n % 6 == 0) for n in range(1, 25)]
    places = place_labels(numbers, labels, 12)
    assert [place.label.unseen for place in places[:4]] == [True] * 4
    assert len(places) < 24, "otherwise this tests nothing"


def test_a_name_is_on_its_segment_where_there_is_room():
    numbers = np.zeros((200, 300), dtype=np.uint16)
    numbers[20:100, 30:200] = 1
    (place,) = place_labels(numbers, [Label(1, "cat", RED)], 12)
    box = numbers[place.top : place.top + place.height, place.left : place.left + place.width]
    assert (box == 1).all() and place.target is None


def test_a_small_object_is_not_hidden_by_its_name():
    numbers = np.zeros((200, 300), dtype=np.uint16)
    numbers[100:112, 150:162] = 1
    (place,) = place_labels(numbers, [Label(1, "sports ball", RED)], 12)
    box = numbers[place.top : place.top + place.height, place.left : place.left + place.width]
    assert (box == 1).sum() < 0.4 * 144 and place.target is None


def test_without_room_a_line_leads_to_the_segment():
    """A small segment amid others, with free space beside them all."""
    numbers = np.zeros((200, 300), dtype=np.uint16)
    numbers[60:120, 60:200] = 2
    numbers[85:91, 120:126] = 1
    labels = [Label(1, "a small object", RED), Label(2, "ground", RED)]
    places = {place.label.number: place for place in place_labels(numbers, labels, 12)}
    y, x = places[1].target
    assert numbers[y, x] == 1 and places[2].target is None
    image = np.full((200, 300, 3), 120, dtype=np.uint8)
    draw_labels(image, numbers, labels, 12)
    assert (image[y, x] < 60).all()


def test_names_are_shortened_to_fit():
    numbers = np.ones((40, 90), dtype=np.uint16)
    (place,) = place_labels(numbers, [Label(1, "a name that is wider than the image", RED, score=0.5)], 12)
    assert place.text.endswith("…") and place.text.startswith("a na")
    assert place_labels(np.ones((6, 90), dtype=np.uint16), [Label(1, "cat", RED)], 12) == []


def test_scores_go_before_letters_do():
    label = Label(1, "traffic light", RED, score=0.87)
    assert label.texts() == ["traffic light 87%", "traffic light", "traffic lig…", "traff…"]
    assert Label(1, "cat", RED).texts() == ["cat"] and Label(1, " ", RED).texts() == ["?"]


def test_unseen_classes_have_a_sign_beside_the_colour():
    """Who cannot see magenta sees the sign and bold letters."""
    image = np.full((100, 200, 3), 120, dtype=np.uint8)
    numbers = np.ones((100, 200), dtype=np.uint16)
    widths = []
    for unseen in (False, True):
        (place,) = place_labels(numbers, [Label(1, "cat", RED, unseen)], 12)
        widths.append(place.width)
        draw_labels(image, numbers, [Label(1, "cat", RED, unseen)], 12)
    assert widths[1] > widths[0] + 8
    assert (image == UNSEEN_BOX).all(axis=2).sum() > 200


def test_names_beyond_ascii_are_written():
    """ "ä" and "ö" look different; a font without them would draw the same box for both."""
    one, other = np.zeros((2, 30, 80, 3), dtype=np.uint8)
    write(one, "Bär", 4, 15, 12, (255, 255, 255))
    write(other, "Bör", 4, 15, 12, (255, 255, 255))
    assert (one != other).any() and one.max() > 200
    assert all(font_file(text).endswith("DejaVuSans.ttf") for text in ("кошка", "γάτα", "قطة", "חתול"))


def test_letters_that_no_font_has_are_reported_once(caplog):
    assert font_file("\ue123\ue124 cat").endswith("DejaVuSans.ttf")
    assert font_file("\ue123\ue124 dog").endswith("DejaVuSans.ttf")
    assert len(caplog.records) == 1 and "Noto" in caplog.text


def test_names_are_one_line():
    assert one_line(" a\n b\tc\x07 ") == "a b c"
    assert [shorten("giraffe", n) for n in (9, 7, 4)] == ["giraffe", "giraffe", "gir…"]
    assert text_width("giraffe", 12, bold=True) > text_width("gir", 12)


def test_a_segment_without_pixels_has_no_name():
    assert place_labels(np.zeros((50, 50), dtype=np.uint16), [Label(1, "cat", RED)], 12) == []
