"""Vectors for words: from the source of the model's own class embeddings and from no other."""

import numpy as np
import pytest
import torch

from PADing.data import vocabulary_vectors
from PADing.data.embeddings import embedding_source, save_class_embeddings
from PADing.data.mini import categories
from PADing.data.vocabulary import parse_vocabulary
from PADing.data.vocabulary_vectors import MINI_SOURCE, VocabularyVectors
from PADing.errors import UserError

OWN = ("dog", "cat")
CLIP = "CLIP ViT-B-16-quickgelu, weights openai, text encoder in fp32 (open_clip)"


def vector(word: str, width: int = 6) -> np.ndarray:
    seed = int.from_bytes(word.encode()[:4].ljust(4), "little")
    return np.random.RandomState(seed).randn(width).astype(np.float32)


def file_of(path, names, source, width=6, make=vector):
    save_class_embeddings(path, names, np.stack([make(name, width) for name in names]), source)
    return path


@pytest.fixture
def vectors(tmp_path):
    def function(source: str, **kwargs) -> VocabularyVectors:
        path = file_of(tmp_path / "own.npz", [*OWN, "horse"], source)
        return VocabularyVectors(path, {name: vector(name) for name in OWN}, **kwargs)

    return function


def test_words_of_the_own_file_and_of_a_given_one(vectors, tmp_path):
    given = file_of(tmp_path / "given.npz", ["zebra", "lamp", "dog"], "vectors of mine")
    found = vectors("vectors of mine", given=given).of(parse_vocabulary("zebra; horse; lamp"))
    assert np.array_equal(found, [vector("zebra"), vector("horse"), vector("lamp")])


def test_synonyms_are_the_mean_direction_at_their_mean_length(vectors, tmp_path):
    given = tmp_path / "given.npz"
    save_class_embeddings(given, ["a", "b"], np.array([[3, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]), "vectors of mine")
    found = vectors("vectors of mine", given=given).of(parse_vocabulary("a, b"))
    assert found == pytest.approx(np.array([[2**0.5, 2**0.5, 0, 0, 0, 0]]))


def test_synonyms_that_the_file_has_as_one_name_are_that_name(vectors, tmp_path):
    given = file_of(tmp_path / "given.npz", ["couch, sofa"], "vectors of mine")
    assert np.array_equal(
        vectors("vectors of mine", given=given).of(parse_vocabulary("couch, sofa"))[0], vector("couch, sofa")
    )


def test_word_vectors_come_from_the_file_that_made_the_own(vectors, tmp_path):
    words = tmp_path / "glove.txt"
    words.write_text("".join(f"{w} {' '.join(map(str, vector(w)))}\n" for w in (*OWN, "zebra", "lamp")))
    made = vectors("word vectors glove.txt", text_source=words).of(parse_vocabulary("zebra; lamp"))
    assert made == pytest.approx(np.stack([vector("zebra"), vector("lamp")]), abs=1e-5)
    words.write_text("".join(f"{w} {' '.join(map(str, -vector(w)))}\n" for w in (*OWN, "zebra")))
    with pytest.raises(UserError, match="'dog' is not that of the model's own"):
        vectors("word vectors glove.txt", text_source=words).of(parse_vocabulary("zebra"))


def test_the_text_encoder_is_found_by_its_name(vectors, monkeypatch):
    """With the architecture, weights and precision that the own file names; and its answers are checked."""
    asked = []

    def clip(names, model, pretrained, **options):
        asked.append((model, pretrained, options["precision"], options["checkpoint"]))
        return torch.from_numpy(np.stack([sign * vector(name) for name in names]))

    monkeypatch.setattr(vocabulary_vectors, "clip_embeddings", clip)
    sign = 1
    assert np.array_equal(vectors(CLIP).of(parse_vocabulary("zebra"))[0], vector("zebra"))
    assert asked == [("ViT-B-16-quickgelu", "openai", "fp32", None)]
    with pytest.raises(UserError, match=r"Name that file with --text-source"):
        vectors(CLIP.replace("openai", "ViT-B-16.pt")).of(parse_vocabulary("zebra"))
    sign = -1
    with pytest.raises(UserError, match="another source"):
        vectors(CLIP).of(parse_vocabulary("zebra"))


@pytest.mark.parametrize(
    "given, said",
    [
        (dict(source="CLIP of others"), "come from another source"),
        (dict(source="vectors of mine", width=5), "5 dimensions, but the model's own"),
        (dict(source="unknown", make=lambda name, width: -vector(name, width)), "cosine -1.000"),
        (dict(source="vectors of mine", make=lambda name, width: 0 * vector(name, width)), "only zeros for zebra"),
    ],
)
def test_another_source_is_refused(vectors, tmp_path, given, said):
    file_of(tmp_path / "given.npz", ["zebra", "dog"], **given)
    with pytest.raises(UserError, match=said):
        vectors("vectors of mine", given=tmp_path / "given.npz")


def test_words_without_a_vector_are_named(vectors, tmp_path):
    given = file_of(tmp_path / "given.npz", ["zebra", "lamp"], "vectors of mine")
    with pytest.raises(
        UserError, match=r"no vector of zebras, stone \(did you mean zebra\?\).*--vocabulary-embeddings"
    ):
        vectors("vectors of mine", given=given).of(parse_vocabulary("zebras; lamp; stone"))
    with pytest.raises(UserError, match=r"Name the file glove.txt with --text-source"):
        vectors("word vectors glove.txt").of(parse_vocabulary("zebra"))


def test_a_source_that_encodes_no_words_says_which_words_are_possible(vectors):
    with pytest.raises(UserError) as said:
        vectors("vectors of mine").of(parse_vocabulary("zebra"))
    assert "encodes no further words by itself" in str(said.value)
    assert all(f"{name}, " in str(said.value) or f"{name}." in str(said.value) for name in (*OWN, "horse"))


def test_the_mini_data_s_source_names_the_parts_of_its_words(vectors):
    """--vocabulary-embeddings helps no one there: no tool makes further vectors."""
    with pytest.raises(UserError) as said:
        vectors("datasets/make_mini_coco.py, seed 1, noise 0.15").of(parse_vocabulary("zebra"))
    for category in categories():
        assert all(part in str(said.value) for part in category.parts)
    assert "such as 'striped star'" in str(said.value) and "--vocabulary-embeddings" not in str(said.value)


def test_the_source_in_drawn_files_is_the_one_that_messages_know(drawn):
    assert embedding_source(drawn.vectors)[0].startswith(MINI_SOURCE)
