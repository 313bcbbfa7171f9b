"""The toy CLIP: what it may learn from, that its files give what was trained, and that it learns at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minibench.__main__ import cli
from minibench.toy_clip import command
from minibench.toy_clip.captions import Captions, learned_classes, seen_and_unseen
from minibench.toy_clip.pictures import SCENE, draw_scenes, object_window, sample_windows
from minibench.toy_clip.training import sharing_groups
from PADing.data.clip_models import fingerprint, open_clip_library, read_clip_checkpoint, weights_in
from PADing.data.embedding_sources import clip_embeddings
from PADing.data.embeddings import embedding_source, load_class_embeddings, read_class_embeddings
from PADing.data.mini import UNSEEN, categories
from PADing.data.vocabulary import parse_vocabulary
from PADing.data.vocabulary_vectors import VocabularyVectors
from PADing.errors import UserError

TINY = {"iterations": 2, "scenes": 6, "checked_scenes": 6}


def open_clip():
    try:
        return open_clip_library()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy CLIP after two iterations."""
    open_clip()
    path = tmp_path_factory.mktemp("toy") / "clip"
    command.make_toy_clip(path, **TINY)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("split", sorted(UNSEEN))
def test_nothing_to_learn_from_speaks_of_an_unseen_class_or_shows_it(split):
    """Else accuracy on unseen classes would say nothing about transfer."""
    seen, unseen = seen_and_unseen(split)
    names = {category.name for category in unseen}
    assert names == set(UNSEEN[split]) and len(seen) + len(unseen) == len(categories())
    learned = learned_classes(split)
    scenes = draw_scenes(np.random.default_rng(3), 80, learned)
    assert not names & {category.name for scene in scenes for category, _ in scene.segments}
    rng, captions = np.random.default_rng(4), Captions(learned)
    texts = [captions.of(rng, category, part, 0.3) for category in learned for part in (0, 1) for _ in range(40)]
    assert not [text for text in texts if any(name in text for name in names)]
    taught = {word.strip(".,") for text in texts for word in text.split()}
    assert {part for category in categories() for part in category.parts} <= taught


def test_classes_are_compared_with_those_that_share_a_part():
    """A picture of a striped bar beside the caption "a plain disc" would teach that nothing striped is a disc."""
    learned = learned_classes("compositional")
    rng = np.random.default_rng(5)
    classes = [learned[int(i)] for i in rng.integers(len(learned), size=90)]
    groups = sharing_groups(rng, classes)
    assert len(groups) > 20
    for group in groups:
        for isthing in (True, False):
            members = [(classes[i], telling) for i, telling in group if classes[i].isthing == isthing]
            if members:
                assert len({category.name for category, _ in members}) == len(members) > 1
                (telling,) = {telling for _, telling in members}
                assert len({category.parts[1 - telling] for category, _ in members}) == 1
    assert sharing_groups(rng, learned[:1]) == []


def test_pictures_of_windows_show_their_class():
    """The striped share of a window of a thing, or the whole window of a ground, is not checked by any other test."""
    seen = {category.name: category for category in categories()}
    scenes = draw_scenes(np.random.default_rng(1), 8, [seen["plain disc"], seen["teal sand"]])
    images, classes = sample_windows(np.random.default_rng(2), scenes, 40, 32)
    assert images.shape == (len(classes), 32, 32, 3) and images.dtype == np.uint8
    red = (images[..., 0].astype(int) - images[..., 2] > 60).mean(axis=(1, 2))  # plain things are red, teal is not
    assert {category.name for category in classes} == {"plain disc", "teal sand"}
    for share, category in zip(red, classes, strict=True):
        assert share > 0.15 if category.isthing else share < 0.15, category


def test_a_split_that_does_not_teach_a_word_is_refused(monkeypatch):
    monkeypatch.setitem(UNSEEN, "no stars", tuple(c.name for c in categories() if c.name.endswith("star")))
    with pytest.raises(UserError, match="no seen class has the words star"):
        seen_and_unseen("no stars")
    with pytest.raises(UserError, match=r"no split 'zero'. It has: compositional"):
        seen_and_unseen("zero")


def test_a_picture_of_an_unseen_class_has_no_caption():
    seen, unseen = seen_and_unseen("compositional")
    with pytest.raises(ValueError, match=f"{unseen[0].name}.* held out"):
        Captions(seen).of(np.random.default_rng(0), unseen[0], 1, 0.5)


def test_the_window_of_an_object_holds_it():
    mask = np.zeros((SCENE, SCENE), dtype=bool)
    mask[100:128, 40:60] = True  # at the lower edge
    x, y, side = object_window(mask, 1.5)
    assert side == 42 and (x, y) == (29, SCENE - 42)
    assert mask[y : y + side, x : x + side].sum() == mask.sum()


def test_open_clip_loads_what_was_trained_bit_for_bit(folder):
    """A folder that loads with other weights, or is read another way here, would give other features unnoticed."""
    library = open_clip()
    model, _, preprocess = library.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokenizer = library.get_tokenizer(f"local-dir:{folder}")
    names = [category.name for category in categories()]
    rows = []
    for name in names[:3]:
        with torch.no_grad():
            prompts = [t.format(name) for t in read_templates(folder / command.VECTORS)]
            features = torch.nn.functional.normalize(model.encode_text(tokenizer(prompts)), dim=1)
        rows.append(torch.nn.functional.normalize(features.mean(dim=0), dim=0))
    vectors = load_class_embeddings(folder / command.VECTORS, names)
    assert torch.equal(torch.stack(rows), vectors[:3]) and vectors.shape == (22, model.visual.head.proj.out_features)
    assert torch.equal(clip_embeddings(names, str(folder)), vectors)
    from PIL import Image

    picture = preprocess(Image.new("RGB", (90, 70), (250, 120, 10)))
    assert picture.shape == (3, 64, 64)
    with torch.no_grad():
        assert model.encode_image(picture[None]).isfinite().all()


def read_templates(path):
    return embedding_source(path)[1]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(folder, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    command.make_toy_clip(again, **TINY)
    command.make_toy_clip(other, **TINY, seed=2)
    weights, same, others = (read_clip_checkpoint(weights_in(str(path))) for path in (folder, again, other))
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not torch.equal(weights["visual.head.proj.weight"], others["visual.head.proj.weight"])
    assert np.array_equal(*(read_class_embeddings(path / command.VECTORS)[1] for path in (folder, again)))


def test_the_report_says_how_it_was_made_and_what_chance_is(folder):
    report = json.loads((folder / command.REPORT).read_text())
    assert (report["seed"], report["iterations"], report["split"]) == (1, 2, "compositional")
    assert list(report["accuracy"]) == ["crops", "masks at 128 px", "masks at 256 px"]
    things = report["accuracy"]["masks at 128 px"]["things"]
    assert things["chance"] == 6.2 and things["classes"] == 16 and 0 <= things["seen"] <= 100
    assert "chance" in command.table(report)


def test_words_of_a_vocabulary_come_from_the_folder_that_made_the_class_vectors(folder, caplog):
    """`--vocabulary` of a model trained with these vectors, with `--text-source`."""
    path = folder / command.VECTORS
    own = dict(zip(*read_class_embeddings(path), strict=True))
    words = parse_vocabulary("wavy star; plain disc")
    found = VocabularyVectors(path, own, text_source=folder).of(words)
    assert np.array_equal(found[0], clip_embeddings(["wavy star"], str(folder)).numpy()[0])
    assert np.array_equal(found[1], own["plain disc"]) and "not checked" not in caplog.text
    with pytest.raises(UserError, match="Name the folder of that model with --text-source"):
        VocabularyVectors(path, own).of(words)


def test_another_folder_is_not_taken_for_the_one_that_made_the_vectors(folder, tmp_path):
    """Class names of two words are not compared, so nothing else would show it."""
    command.make_toy_clip(tmp_path / "other", **TINY, seed=9)
    own = dict(zip(*read_class_embeddings(folder / command.VECTORS), strict=True))
    with pytest.raises(UserError, match="has other weights"):
        VocabularyVectors(folder / command.VECTORS, own, text_source=tmp_path / "other").of(parse_vocabulary("a star"))


def _no_weights(folder):
    (folder / "open_clip_model.safetensors").unlink()


def _torn(folder):
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _one_bit(folder):
    path = folder / "open_clip_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


def _half_a_config(folder):
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text()[:100])


def _edited(old, new):
    def edit(folder):
        path = folder / "open_clip_config.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return edit


@pytest.mark.parametrize(
    "tear, said",
    [
        (_no_weights, "no weights"),
        (_torn, "damaged"),
        (_one_bit, "weights have changed"),
        (_half_a_config, "not valid JSON"),
        (_edited('"embed_dim"', '"dim"'), "no config of open_clip"),
        (_edited('"width": 64', '"width": 32'), "does not fit"),
        (_edited("test_resnet", "no_such_net"), "open_clip cannot provide .*no_such_net"),
        (_edited('"width"', '"tokenizer_kwargs": {"trust_remote_code": true}, "width"'), "run code of others"),
        (lambda folder: (folder / "open_clip_config.json").unlink(), "no folder of a CLIP model"),
        (shutil.rmtree, "no folder|neither one of open_clip"),
    ],
)
def test_a_torn_folder_gives_one_message(copied, tear, said):
    tear(copied)
    with pytest.raises(UserError, match=said) as error:
        clip_embeddings(["plain disc"], str(copied))
    assert str(copied) in str(error.value)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--iterations", "0"], "--iterations"),
        (["--scenes", "0"], "--scenes"),
        (["--split", "easy"], "invalid choice: 'easy'"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_impossible_arguments_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli(["toy-clip", *arguments])
    assert end.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(UserError, match="at least one iteration"):
        command.make_toy_clip(Path("nowhere"), iterations=0)


def test_what_lies_in_the_output_folder_stays(copied, tmp_path, capsys):
    weights = fingerprint(weights_in(str(copied)))
    assert cli(["toy-clip", "--output", str(copied)]) == 2
    assert "Add --overwrite" in capsys.readouterr().err and fingerprint(weights_in(str(copied))) == weights
    (copied / command.REPORT).unlink()
    for flags in ([], ["--overwrite"]):
        assert cli(["toy-clip", "--output", str(copied), *flags]) == 2
        assert "other files" in capsys.readouterr().err and fingerprint(weights_in(str(copied))) == weights
    (tmp_path / "file").write_text("mine")
    assert cli(["toy-clip", "--output", str(tmp_path / "file"), "--overwrite"]) == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_where_nothing_can_be_written_ends_it_before_the_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("minibench.toy_clip.training.train", lambda *_: pytest.fail("it trains"))
    with pytest.raises(UserError, match="file"):
        command.make_toy_clip(tmp_path / "file" / "clip", **TINY)


def test_overwrite_replaces_a_toy_clip(copied):
    weights = fingerprint(weights_in(str(copied)))
    command.make_toy_clip(copied, **TINY, seed=5, overwrite=True)
    assert fingerprint(weights_in(str(copied))) != weights
    assert json.loads((copied / command.REPORT).read_text())["seed"] == 5


@pytest.mark.slow
def test_unseen_compositions_are_recognised_after_a_short_training(tmp_path):
    """With the usual sizes, four minutes of a core. Chance is 6.2 % for things and 16.7 % for grounds."""
    open_clip()
    report = command.make_toy_clip(tmp_path / "clip")
    found = report["accuracy"]["masks at 128 px"]
    assert found["stuff"]["seen"] > 85 and found["stuff"]["unseen"] > 40
    assert found["things"]["seen"] > 25 and found["things"]["unseen"] > 15
