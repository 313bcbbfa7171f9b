"""What the report says about predictions, on predictions whose mistakes are known."""

import json

import numpy as np
import pytest

from minibench.report.charts import confusion_matrix, embedding_map
from minibench.report.embeddings import nearest_classes, widths
from minibench.report.images import Confusion, best_median_worst, confusion_of
from minibench.report.predictions import (
    Outcome,
    called,
    instance_outcomes,
    mask_quality,
    masks_of,
    open_validation,
    panoptic_outcomes,
    panoptic_quality,
)
from PADing.errors import UserError
from PADing.visualization import Segmentation
from tests.minibench.benchmark_folder import DATA, draw_data, instance_run, panoptic_run

WRONG = {"striped disc": "striped bar", "teal waves": None, "plain disc": "plain bar"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    data = draw_data(folder)
    panoptic_run(folder / "panoptic", data, WRONG)
    instance_run(folder / "instance", data, {"striped disc": "striped bar"})
    return folder


def _segments(folder, names=None) -> dict[str, int]:
    """Segments of each class in the panoptic annotation of the validation images."""
    truth = json.loads((folder / DATA / "mini" / "annotations" / "panoptic_val.json").read_text())
    by_id = {c["id"]: c["name"] for c in truth["categories"]}
    found = [by_id[s["category_id"]] for item in truth["annotations"] for s in item["segments_info"]]
    return {name: found.count(name) for name in set(found)}


def test_confusion_counts_what_was_called_something_else_or_missed(folder):
    validation = open_validation(folder / "panoptic", folder / DATA)
    confusion, truth = confusion_of(panoptic_outcomes(folder / "panoptic", validation), validation), _segments(folder)
    assert {validation.names[i] for i in confusion.rows} == set(validation.split.unseen)
    for label, row in zip(confusion.rows, confusion.counts, strict=True):
        name = validation.names[label]
        expected = np.zeros(len(validation.names) + 1)
        answer = WRONG.get(name, name)
        expected[-1 if answer is None else validation.names.index(answer)] = truth.get(name, 0)
        np.testing.assert_array_equal(row, expected)
    # Otherwise this test could not fail.
    assert truth["striped disc"] and truth["teal waves"]


def test_of_several_detections_of_an_object_the_best_scoring_one_names_it(folder):
    validation = open_validation(folder / "instance", folder / DATA)
    confusion, truth = confusion_of(instance_outcomes(folder / "instance", validation), validation), _segments(folder)
    for label, row in zip(confusion.rows, confusion.counts, strict=True):
        name = validation.names[label]
        answer = "striped bar" if name == "striped disc" else name
        assert row[validation.names.index(answer)] == row.sum() == truth.get(name, 0)


def test_a_segment_is_found_when_more_than_half_of_the_union_is_shared():
    ids = np.zeros((10, 10), dtype=int)
    ids[:, :5] = 1
    half, more = np.zeros_like(ids), np.zeros_like(ids)
    half[:, 2:] = 7  # shares 30 of 100 pixels
    more[:, 1:6] = 7  # shares 40 of 60
    truth = masks_of(Segmentation(ids, {1: 3}))
    assert called(truth, masks_of(Segmentation(half, {7: 4})), {3}) == [(3, None)]
    assert called(truth, masks_of(Segmentation(more, {7: 4})), {3}) == [(3, 4)]
    assert called(truth, masks_of(Segmentation(more, {7: 4})), {2}) == []


def test_rows_of_the_image_add_up_although_columns_are_merged():
    counts = np.array([[6, 1, 96, 0, 3, 4]])  # four classes, one of them rare, and missed
    confusion = Confusion((0,), ("a", "b", "c", "d", "e"), frozenset({0}), counts)
    axes = confusion_matrix(confusion, least=0.05).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "c", "other seen", "missed"]
    np.testing.assert_allclose(axes.images[0].get_array()[0], np.array([6, 96, 4, 4]) / 110)


def test_quality_of_a_image_by_hand():
    ids = np.zeros((10, 10), dtype=int)
    ids[:5], ids[5:] = 1, 2
    truth = Segmentation(ids, {1: 0, 2: 1})
    assert panoptic_quality(truth, truth) == mask_quality(truth, truth) == 100
    # Class 0 is right; class 1 is called 2: one class at 100, one missed, one false.
    swapped = Segmentation(ids, {1: 0, 2: 2})
    assert panoptic_quality(truth, swapped) == pytest.approx(100 / 3)
    # Of two objects, one is covered and the other has no answer of its class.
    assert mask_quality(truth, swapped) == pytest.approx(50)
    shifted = np.roll(ids, 1, axis=0)
    # Rows 1-4 of 0-5 shared, and the same below.
    assert mask_quality(truth, Segmentation(shifted, {1: 0, 2: 1})) == pytest.approx(100 * 4 / 6)


def test_best_median_and_worst_are_those_of_a_sorted_list():
    empty = Segmentation(np.zeros((1, 1), dtype=int), {})
    samples = [Outcome({"image_id": i}, empty, empty, q, []) for i, q in enumerate([30.0, 90.0, 10.0, 50.0, 50.0])]
    chosen = best_median_worst(samples)
    assert [(rank, s.quality) for rank, s in chosen] == [("Best", 90.0), ("Median", 50.0), ("Worst", 10.0)]
    assert [rank for rank, _ in best_median_worst(samples[:1])] == ["Best"]
    assert best_median_worst([]) == []


def test_samples_show_an_unseen_class_and_are_perfect_where_nothing_is_wrong(folder):
    validation = open_validation(folder / "panoptic", folder / DATA)
    samples = panoptic_outcomes(folder / "panoptic", validation)
    assert 0 < len(samples) <= 6
    for sample in samples:
        names = {validation.names[label] for label in sample.truth.classes.values()}
        assert names & set(validation.split.unseen)
        assert (sample.quality == pytest.approx(100)) == (not names & set(WRONG))


def test_shown_detections_are_the_good_ones(folder):
    validation = open_validation(folder / "instance", folder / DATA)
    for sample in instance_outcomes(folder / "instance", validation):
        names = [validation.names[label] for label in sample.truth.classes.values()]
        right = sum(name != "striped disc" for name in names) / len(names)
        # Masks of objects behind others are cut by those in front in the same way in both.
        assert sample.quality == pytest.approx(100 * right, abs=1)


def test_an_object_with_two_answers_is_drawn_once_under_the_better_one(folder):
    instance_run(folder / "twice", folder / DATA / "mini", {"striped disc": "striped bar"}, second=0.55)
    validation = open_validation(folder / "twice", folder / DATA)
    samples = instance_outcomes(folder / "twice", validation)
    disc, bar = validation.names.index("striped disc"), validation.names.index("striped bar")
    assert any(disc in sample.truth.classes.values() for sample in samples)
    for sample in samples:
        expected = [bar if label == disc else label for label in sample.truth.classes.values()]
        assert sorted(sample.predicted.classes.values()) == sorted(expected)


def test_a_run_without_images_is_refused_with_the_key_that_makes_them(folder):
    validation = open_validation(folder / "instance", folder / DATA)
    with pytest.raises(UserError, match="TEST.WRITE_PNG"):
        panoptic_outcomes(folder / "instance", validation)
    with pytest.raises(UserError, match="are not in"):
        open_validation(folder / "instance", folder)


def _analysis() -> dict[str, np.ndarray]:
    """Three classes on three axes; the second unseen class's generated embeddings lie on the first's axis."""
    rng = np.random.default_rng(0)
    real_class = np.repeat([0, 1, 2], 20)
    real = 5 * np.eye(3)[real_class] + 0.1 * rng.standard_normal((60, 3))
    generated = np.array([[0.0, 2.0, 0.0]] * 4 + [[0.0, 2.0, 0.1]] * 4)
    return {
        "real": np.column_stack([real, np.zeros((60, 5))]),
        "real_class": real_class,
        "generated": np.column_stack([generated, np.zeros((8, 5))]),
        "generated_class": np.repeat([1, 2], 4),
        "names": np.array(["seen", "first", "second"]),
        "unseen": np.array([1, 2]),
    }


def test_generated_means_are_counted_by_their_nearest_real_class():
    own, text = nearest_classes(_analysis())
    assert own == 1
    assert "Of 2 unseen classes, 1 has" in text and "second → first" in text


def test_the_widths_of_real_and_generated_classes_are_compared():
    line = np.array([[0.0], [2.0], [10.0], [14.0]])
    classes = {"real": line, "real_class": np.array([0, 0, 1, 1]), "unseen": np.array([0, 1])}
    generated = {"generated": 2 * line, "generated_class": np.array([0, 0, 1, 1])}
    # Distances to the mean: 1, 1, 2, 2 and twice as much.
    text = widths(classes | generated)
    assert "2.0 times as far" in text and f"({2 * 2.5**0.5:.1f} and {2.5**0.5:.1f})" in text


def test_the_map_names_every_unseen_class_and_the_variance_it_shows():
    figure, shares = embedding_map(_analysis(), {1, 2})
    # Three clusters of equal size at equal distances lie in a plane.
    assert sum(shares) > 0.98
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"first", "second"} <= set(labels) and "seen" not in labels
