"""Evaluation of small models on a set of other classes; wrong here means that scores go to the wrong classes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.embeddings import embedding_source, save_class_embeddings
from PADing.data.registration import register_split
from PADing.data.splits import load_split
from PADing.engine.predicted_classes import named_class_problems, predicted_classes
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.inference import Predictor
from PADing.meta_arch.named_classes import NamedClasses

MADE_UP = {"striped disc": "zebra coin", "dotted disc": "ladybird", "teal sand": "moss"}
RENAMED = {"plain disc": "coin"}  # with the model's name as a synonym


@pytest.fixture(scope="module")
def register(drawn, tmp_path_factory):
    """``register(name, made_up) -> split``: the drawn validation images under other class names, as a set ``name``."""
    mini, made = drawn.vectors.parent, []

    def function(prefix: str, made_up: dict[str, str]):
        folder, categories, named = tmp_path_factory.mktemp(prefix), [], {}
        for category in yaml.safe_load((mini / "split.yaml").read_text())["categories"]:
            name = category["name"]
            named[name] = made_up.get(name) or RENAMED.get(name) or name.upper().replace(" ", "-")
            synonyms = {"synonyms": [name, f"{name} thing"]} if name in RENAMED else {}
            categories.append({**category, "name": named[name], **synonyms})
        for file in ("instances_val.json", "panoptic_val.json"):
            content = json.loads((mini / "annotations" / file).read_text())
            for category in content["categories"]:
                category["name"] = named[category["name"]]
            (folder / file).write_text(json.dumps(content))
        paths = {"image_root": str(mini / "val"), "json": "./instances_val.json"}
        panoptic = {"panoptic_root": str(mini / "panoptic_val"), "panoptic_json": "./panoptic_val.json"}
        content = {"name": prefix, "evaluation_only": True, "categories": categories, "unseen": []}
        content["data_sets"] = [
            {"name": f"{prefix}_val_panoptic", "kind": "panoptic", "role": "val", **paths, **panoptic},
            {"name": f"{prefix}_val_instance", "kind": "instance", "role": "val", **paths},
        ]
        (folder / "other.yaml").write_text(yaml.safe_dump(content))
        made.append(load_split(folder / "other.yaml"))
        register_split(made[-1])
        return made[-1], named

    yield function
    for data_set in (data_set for split in made for data_set in split.data_sets):
        DatasetCatalog.remove(data_set.name)
        MetadataCatalog.remove(data_set.name)


@pytest.fixture(scope="module")
def other(register, drawn, tmp_path_factory):
    """A set with three new classes; vectors of these; model's name -> the set's name."""
    split, named = register("other", MADE_UP)
    file = tmp_path_factory.mktemp("vectors") / "new.npz"
    vectors = np.random.RandomState(2).randn(len(MADE_UP), 32).astype(np.float32)
    save_class_embeddings(file, list(MADE_UP.values()), vectors, embedding_source(drawn.vectors)[0])
    return split, str(file), named


@pytest.fixture(scope="module")
def models(model_options):
    made = {}

    def function(architecture: str) -> torch.nn.Module:
        if architecture not in made:
            (_, file), opts = model_options(architecture)
            made[architecture] = Predictor(load_config(file, opts)).model
        return made[architecture]

    return function


def config(model_options, architecture, *further, prefix="other"):
    (_, file), opts = model_options(architecture)
    kind = "instance" if architecture == "D2Zero" else "panoptic"
    return load_config(file, [*opts, "DATASETS.TEST", f"('{prefix}_val_{kind}',)", *further])


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_classes_are_found_by_name(model_options, drawn, other, architecture):
    """Three classes are new; the others are the model's, by name, by spelling or by synonym, in the set's order."""
    _, vectors, named = other
    cfg = config(model_options, architecture, "TEST.CLASS_EMBEDDINGS", vectors)
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    classes = NamedClasses(cfg, metadata)
    back = {new: old for old, new in named.items()}
    space = ClassSpace.of(metadata)
    for i, name in space.names.items():
        old = back[name]
        assert classes.groups.matched.get(i) == (None if old in MADE_UP else old)
        group = "other" if old in MADE_UP else "unseen" if old in drawn.unseen else "seen"
        assert i in classes.groups.members[group]
    vocabulary = classes.vocabulary()
    assert vocabulary.space.class_names == space.class_names and vocabulary.space.things == space.things
    own = dict(zip(*(np.load(drawn.vectors)[key] for key in ("names", "vectors")), strict=True))
    new = dict(zip(*(np.load(vectors)[key] for key in ("names", "vectors")), strict=True))
    for i, name in space.names.items():
        wanted = new[name] if name in new else own[back[name]]
        assert vocabulary.embeddings[i].numpy() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_a_set_under_other_spellings_gives_the_metrics_of_the_own_set(
    model_options, models, register, tmp_path, architecture
):
    register("same", {}) if architecture == "PADing" else None
    (_, file), opts = model_options(architecture)
    mine = load_config(file, [*opts, "OUTPUT_DIR", str(tmp_path / "mine")])
    cfg = config(model_options, architecture, "OUTPUT_DIR", str(tmp_path / "same"), prefix="same")
    before, results, again = (Trainer.test(c, models(architecture)) for c in (mine, cfg, mine))
    assert str(again) == str(before)  # the model is as it was
    assert set(results) == set(before) | {f"{task}_by_training" for task in before}
    main = {"panoptic_seg": ("PQ", "SQ", "RQ", "PQ_th"), "sem_seg": ("mIoU", "mACC", "pACC")}
    for task in before:
        for metric in main.get(task, ("AP", "AP50", "APs")):
            assert results[task][metric] == pytest.approx(before[task][metric], nan_ok=True), metric
    entry, own = results["segm_by_training"], before["segm"]
    for group, metric in (("seen", "AP50_seen"), ("unseen", "AP50_unseen"), ("not_seen", "AP50_unseen")):
        assert entry[f"AP50_{group}"] == pytest.approx(own[metric], nan_ok=True)
    assert entry["classes_other"] == 0 and np.isnan(entry["AP_other"])


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_group_means_are_means_over_their_classes(model_options, models, other, tmp_path, architecture):
    """Compared with the figures of single classes in the result files; "all" is the main figure."""
    cfg = config(model_options, architecture, "TEST.CLASS_EMBEDDINGS", other[1], "OUTPUT_DIR", str(tmp_path))
    results = Trainer.test(cfg, models(architecture))
    members = NamedClasses(cfg, MetadataCatalog.get(cfg.DATASETS.TEST[0])).groups.members
    things = {i for i, category in enumerate(other[0].categories) if category.isthing}

    def check(task, metrics, rows):
        """``rows``: figures of each class, None where it is in no mean."""
        for group, ids in members.items():
            for metric in metrics:
                values = [row[metric] for i, row in enumerate(rows) if i in ids and row is not None]
                expected = sum(values) / len(values) if values else float("nan")
                assert results[f"{task}_by_training"][f"{metric}_{group}"] == pytest.approx(expected, nan_ok=True)
        for metric in metrics:
            assert results[f"{task}_by_training"][f"{metric}_all"] == pytest.approx(results[task][metric], nan_ok=True)

    rows = json.loads((tmp_path / "inference" / "instance_results.json").read_text())["per_class"]["segm"]
    check("segm", ("AP", "AP50"), [row if row["AP"] is not None else None for row in rows])
    entry = results["segm_by_training"]
    assert entry["classes_all"] == len(things) and entry["classes_seen"] == len(things & members["seen"])
    assert entry["share_seen"] == pytest.approx(100 * len(things & members["seen"]) / len(things))
    assert entry["classes_other"] == 2 and entry["classes_not_seen"] == entry["classes_unseen"] + 2
    written = json.loads((tmp_path / "results.json").read_text())
    assert written[cfg.DATASETS.TEST[0]]["segm_by_training"]["classes_other"] == 2
    table = json.loads((tmp_path / "inference" / "classes_by_training.json").read_text())
    assert {"name": "zebra coin", "group": "other", "model_class": None} in table
    assert {"name": "coin", "group": "seen", "model_class": "plain disc"} in table
    if architecture == "D2Zero":
        return
    rows = json.loads((tmp_path / "inference" / "panoptic_results.json").read_text())["per_class"]
    check("panoptic_seg", ("PQ", "SQ", "RQ"), [row if row["present"] else None for row in rows])
    per_class = results["sem_seg"]
    names = [category.name for category in other[0].categories]
    for group, ids in members.items():
        acc = [per_class[f"ACC-{names[i]}"] for i in ids if not np.isnan(per_class[f"ACC-{names[i]}"])]
        expected = np.mean(acc) if acc else np.nan
        assert results["sem_seg_by_training"][f"mACC_{group}"] == pytest.approx(expected, nan_ok=True)
    assert results["sem_seg_by_training"]["mIoU_all"] == pytest.approx(per_class["mIoU"])


def test_the_predictor_predicts_the_set_s_classes(model_options, drawn, other):
    cfg = config(model_options, "PADing", "TEST.CLASS_EMBEDDINGS", other[1])
    predictor = Predictor(cfg)
    image = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    first = predictor(image)["sem_seg"]
    assert ClassSpace.of(predictor.metadata).class_names == tuple(c.name for c in other[0].categories)
    kept = [i for i, name in enumerate(drawn.classes) if name not in MADE_UP]
    assert torch.equal(predictor.model._rows[0][kept], predictor.model.new_fc.weight[kept])
    predictor.set_vocabulary("striped disc; moss", embeddings=other[1])
    assert len(predictor(image)["sem_seg"]) == 2
    predictor.set_vocabulary(None)
    assert torch.equal(predictor(image)["sem_seg"], first)


@pytest.mark.parametrize("architecture", ["PADing", "D2Zero"])
def test_distractors_join_the_set_s_classes(model_options, models, other, tmp_path, architecture):
    words = str(tmp_path / "words.npz")
    names = ["lamp", "moss", "Ladybird", "harp"]
    source = embedding_source(other[1])[0]
    save_class_embeddings(words, names, np.random.RandomState(3).randn(4, 32).astype(np.float32), source)
    further = ["TEST.CLASS_EMBEDDINGS", other[1], "TEST.DISTRACTORS", words, "OUTPUT_DIR", str(tmp_path)]
    cfg = config(model_options, architecture, *further)
    model = models(architecture)
    with predicted_classes(cfg, model, cfg.DATASETS.TEST[0]) as predicted:
        new = model.vocabulary.space.class_names[-predicted.distractors :]
    # "Ladybird" is a class of both sets, and "moss" is stuff, which the instance set does not have.
    assert new == (("lamp", "harp") if architecture == "PADing" else ("lamp", "moss", "harp"))
    assert Trainer.test(cfg, model)["distractors"]["classes"] == len(new)


@pytest.mark.parametrize(
    ("architecture", "further", "said"),
    [
        ("MaskFormer", [], "MaskFormer has a fixed output for each class"),
        ("PADing", [], r"3 classes have no class embedding .* zebra coin, ladybird, moss\. They must come"),
        ("PADing", ["TEST.CLASS_EMBEDDINGS", "lost.npz"], "TEST.CLASS_EMBEDDINGS lost.npz does not exist"),
        ("PADing", ["TEST.CLASS_EMBEDDINGS", __file__], "hold no names"),
        ("D2Zero", [], "2 classes have no class embedding"),
        ("D2Zero", ["DATASETS.TEST", "('other_val_panoptic',)"], "Name the set's instances: other_val_instance"),
        ("PADing", ["DATASETS.TRAIN", "('other_val_panoptic',)"], "which is for evaluation alone"),
    ],
)  # fmt: skip
def test_mistakes_show_before_a_model_is_built(model_options, other, architecture, further, said):
    cfg = config(model_options, architecture, *further)
    (problem,) = named_class_problems(cfg)
    assert re.search(said, problem), problem


def test_vectors_of_another_source_are_refused(model_options, other, tmp_path):
    path = tmp_path / "foreign.npz"
    save_class_embeddings(path, list(MADE_UP.values()), np.ones((3, 32), dtype=np.float32), "somewhere else")
    (problem,) = named_class_problems(config(model_options, "PADing", "TEST.CLASS_EMBEDDINGS", str(path)))
    assert "come from another source" in problem
    save_class_embeddings(path, list(MADE_UP.values()), np.ones((3, 16), dtype=np.float32), "somewhere else")
    (problem,) = named_class_problems(config(model_options, "PADing", "TEST.CLASS_EMBEDDINGS", str(path)))
    assert "have 16 dimensions" in problem


def test_training_on_such_a_set_is_refused(model_options, other):
    with pytest.raises(UserError, match="role: val"):
        content = yaml.safe_load(Path(other[0].file).read_text())
        content["data_sets"][0]["role"] = "train"
        from PADing.data.splits import split_from_dict

        split_from_dict(content, "x.yaml")
