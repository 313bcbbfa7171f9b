"""A model that is shared and loaded again predicts the same, elsewhere and without its data set."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog

from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.check import missing_files
from PADing.engine.checkpointer import read_weights
from PADing.errors import UserError
from PADing.inference import Predictor, from_pretrained
from PADing.sharing import reading
from PADing.sharing.export import share_model
from PADing.sharing.layout import write_marker
from PADing.visualization import ImageDrawer
from tests.sharing.conftest import CONFIGS


def assert_equal_results(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if key == "instances":
            for field, numbers in value.get_fields().items():
                numbers, others = (getattr(x, "tensor", x) for x in (numbers, other[key].get(field)))
                assert torch.equal(numbers, others), field
        elif key == "panoptic_seg":
            assert torch.equal(value[0], other[key][0]) and value[1] == other[key][1]
        else:
            assert torch.equal(value, other[key])


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_shared_model_predicts_bit_by_bit_what_the_trained_one_does(
    architecture, trainings, shared_models, image, monkeypatch, tmp_path
):
    folder = trainings(architecture)
    own = load_config(folder / "config.yaml", ["MODEL.WEIGHTS", str(folder / "model_final.pth")])
    expected = Predictor(own)(image)
    shared = shutil.copytree(shared_models(architecture), tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "no_data"))
    for name in (shared, str(shared), "elsewhere"):
        predictor = from_pretrained(name)
        assert_equal_results(predictor(image), expected)
    assert ImageDrawer(predictor.metadata).draw_output(image, expected).dtype == np.uint8


def test_the_folder_has_no_path_of_this_machine(shared_models, trainings):
    for architecture in CONFIGS:
        for path in shared_models(architecture).iterdir():
            if path.suffix in (".yaml", ".json", ".md"):
                text = path.read_text()
                assert str(trainings(architecture)) not in text and "/tmp" not in text and "class_vectors" not in text
    config = yaml.safe_load((shared_models("D2Zero") / "config.yaml").read_text())
    assert config["MODEL"]["WEIGHTS"] == "model.safetensors" and config["OUTPUT_DIR"] == "output"


def test_overrides_change_a_shared_config_and_paths_of_the_user_win(shared):
    cfg = load_config(shared, ["INPUT.MIN_SIZE_TEST", "32", "OUTPUT_DIR", "here"])
    assert cfg.INPUT.MIN_SIZE_TEST == 32 and cfg.OUTPUT_DIR == "here"
    assert load_config(shared / "config.yaml") == load_config(str(shared))


def test_classes_come_with_the_model(shared, tmp_path):
    """Another data set of the same name, or none: the model keeps its own classes, and hides no other."""
    content = yaml.safe_load((shared / "split.yaml").read_text())
    assert not {"image_root", "json"} & set(content["data_sets"][0])
    content["categories"][0]["name"] = "zebra disc"
    content["seen"][content["seen"].index("plain disc")] = "zebra disc"
    (shared / "split.yaml").write_text(yaml.safe_dump(content))
    vectors = dict(np.load(shared / "class_embeddings.npz"))
    vectors["names"] = np.where(vectors["names"] == "plain disc", "zebra disc", vectors["names"])
    np.savez(shared / "class_embeddings.npz", **vectors)
    write_marker(shared)
    metadata = from_pretrained(shared).metadata
    assert metadata.name.startswith("mini_val_instance@")
    assert "zebra disc" in ClassSpace.of(metadata).class_names
    assert "mini_val_instance" in DatasetCatalog
    again = shutil.copytree(shared, tmp_path / "again")
    assert from_pretrained(again).metadata.name == metadata.name
    assert "has no images: it is the list of classes of a shared model" in missing_files(metadata.name)
    with pytest.raises(UserError, match="has no images"):
        DatasetCatalog.get(metadata.name)


def test_a_shared_model_can_be_shared_again_and_trained_on(shared, tmp_path):
    """Weights and config are those of any other model."""
    cfg = load_config(shared)
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    again = share_model(folder, tmp_path / "again", weights=shared / "model.safetensors", without_metrics=True)
    one, other = (read_weights(str(place)) for place in (shared, again))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert (again / "config.yaml").read_text() == (shared / "config.yaml").read_text()
    assert (again / "split.yaml").read_text() == (shared / "split.yaml").read_text()


def test_averaged_weights_are_shared_where_evaluation_used_them(training, tmp_path, image):
    """The metrics of the card are theirs."""
    path = training / "model_final.pth"
    content = torch.load(path, weights_only=True)
    average = {key: value * 0.5 if value.is_floating_point() else value for key, value in content["model"].items()}
    torch.save({**content, "ema": {"updates": 1, "weights": average}}, path)
    for opts, expected in (([], content["model"]), (["SOLVER.EMA.ENABLED", "True"], average)):
        out = share_model(training, tmp_path / f"out{len(opts)}", opts=opts)
        shared = read_weights(str(out))
        assert all(torch.equal(shared[key], expected[key]) for key in expected)
        own = load_config(training / "config.yaml", [*opts, "MODEL.WEIGHTS", str(path)])
        assert_equal_results(from_pretrained(out)(image), Predictor(own)(image))


def test_accounts_are_neither_shared_nor_taken(shared):
    assert "TRACKING" not in (shared / "config.yaml").read_text()
    give(shared, TRACKING=["wandb"], TRACKING_RUN={"PROJECT": "theirs"})
    cfg = load_config(shared)
    assert not cfg.TRACKING and not cfg.TRACKING_RUN.PROJECT


def test_card_says_what_is_known(shared_models):
    card = (shared_models("D2Zero") / "README.md").read_text()
    head, _, text = card.removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(head)["license"] == "mit"
    assert "| mini\\_val\\_instance | segm | AP | 1.25 |" in text
    assert "| AP50 | undefined |" in text and "AP-plain" not in text
    assert "Unseen things (4): striped disc, dotted bar, checkered triangle, plain star." in text
    assert 'predictor = from_pretrained("D2Zero")' in text and "What was not tested" in text


def test_card_survives_hostile_names(training, tmp_path):
    (training / "results.json").write_text(
        json.dumps({"a|b\n# <img>": {"segm": {"AP|": 1.0, "B": [], "C": "x"}}, "d": 3})
    )
    share_model(training, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| a\\|b \\# \\<img\\> | segm | AP\\| | 1.00 |" in card
    assert "has not chosen a license" in card


# ---- code of somebody else


def test_plugins_are_named_but_not_imported(shared, tmp_path, monkeypatch, caplog):
    (tmp_path / "evil_plugin.py").write_text("raise SystemExit('ran')\n")
    (shared / "evil_plugin.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    give(shared, PLUGINS=["evil_plugin", "d2zero"])
    predictor = from_pretrained(shared)
    assert type(predictor.model).__name__ == "D2Zero"
    assert any("names the plug-ins evil_plugin, which are not imported" in text for text in caplog.messages)
    with pytest.raises(SystemExit, match="ran"):
        from_pretrained(shared, trust_plugins=True)
    (tmp_path / "evil_plugin.py").unlink()
    with pytest.raises(UserError, match="evil_plugin"):  # not from the model's own folder
        from_pretrained(shared, trust_plugins=True)


def test_missing_keys_of_a_plugin_are_explained(shared):
    give(shared, PLUGINS=["their_method"], THEIR_KEY=3)
    with pytest.raises(UserError, match=r"their_method were not imported. .*trust_plugins=True"):
        from_pretrained(shared)


def test_code_in_yaml_is_refused_even_where_it_is_allowed_for_own_files(shared, monkeypatch):
    monkeypatch.setenv("PADING_UNSAFE_YAML", "1")
    for name in ("config.yaml", "split.yaml"):
        before = (shared / name).read_text()
        (shared / name).write_text(before + "\nX: !!python/object/apply:os.mkdir [harm]\n")
        write_marker(shared)
        with pytest.raises(UserError, match="is refused: line"):
            from_pretrained(shared)
        (shared / name).write_text(before)


def test_paths_in_a_foreign_config_are_not_followed(shared, tmp_path):
    give(shared, OUTPUT_DIR=str(tmp_path / "elsewhere"))
    give(shared, MODEL={"WEIGHTS": "/etc/passwd", "CLASS_EMBEDDINGS": "/etc/passwd"})
    give(shared, DATASETS={"SPLIT_FILES": ["/etc/passwd"]})
    cfg = load_config(shared)
    assert cfg.MODEL.WEIGHTS == str(shared / "model.safetensors") and cfg.OUTPUT_DIR == "./output"
    assert cfg.MODEL.CLASS_EMBEDDINGS == str(shared / "class_embeddings.npz") and not cfg.DATASETS.SPLIT_FILES
    give(shared, _BASE_="/etc/passwd")
    with pytest.raises(UserError, match="has a _BASE_"):
        load_config(shared)


def test_a_split_file_with_paths_is_refused(shared):
    text = (shared / "split.yaml").read_text()
    for wrong in (
        text.replace("role: val", "role: val\n  image_root: /etc"),
        text.replace("classes_only: true", "classes_only: false"),
        re.sub(r"categories:\n(-.*\n|  .*\n)+", "categories: /etc/passwd\n", text),
        text + "class_embeddings: /etc/passwd\n",
        text.replace("name: mini_val_instance", "name: other"),
    ):
        assert wrong != text
        (shared / "split.yaml").write_text(wrong)
        write_marker(shared)
        with pytest.raises(UserError, match="split.yaml"):
            load_config(shared)


def give(folder, **values):
    """Write values into a shared model's config, as somebody who means harm does."""
    path = folder / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    for key, value in values.items():
        if isinstance(value, dict) and key in tree:
            tree[key].update(value)
        else:
            tree[key] = value
    path.write_text(yaml.safe_dump(tree))
    write_marker(folder)


# ---- damage


@pytest.mark.parametrize("name", ["config.yaml", "split.yaml", "class_embeddings.npz"])
def test_a_file_that_is_missing_cut_or_changed_is_named(shared, name):
    whole = (shared / name).read_bytes()
    (shared / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{name} changed since it was made"):
        from_pretrained(shared)
    (shared / name).unlink()
    with pytest.raises(UserError, match=f"is incomplete: {name} missing"):
        from_pretrained(shared)


def test_damaged_weights_are_noticed(shared):
    path = shared / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors.* are damaged: its weights have changed"):
        from_pretrained(shared)
    path.unlink()
    with pytest.raises(UserError, match="is incomplete: model.safetensors missing"):
        from_pretrained(shared)


@pytest.mark.parametrize(
    "marker", ["[]", "{}", '{"format": 2}', '{"format": 1, "files": {"../x": "0"}}', '{"format": 1, "files": {}}', "{"]
)
def test_wrong_markers_are_refused(shared, marker):
    (shared / "model.json").write_text(marker)
    with pytest.raises(UserError, match="Shared model"):
        from_pretrained(shared)


def test_other_folders_are_called_what_they_are(training, tmp_path):
    (training / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(UserError, match="is the folder of a training: it has no model.json. tools/share_model.py"):
        from_pretrained(training)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="is no shared model"):
        from_pretrained(tmp_path / "a")
    with pytest.raises(UserError, match="does not exist"):
        from_pretrained(tmp_path / "b")
    with pytest.raises(UserError, match="which has no revision"):
        from_pretrained(tmp_path / "a", revision="main")
    (tmp_path / "f").touch()
    with pytest.raises(UserError, match="is a file"):
        from_pretrained(tmp_path / "f")


def test_only_modules_of_this_program_count_as_built_in():
    assert set(reading.BUILT_IN) == {"PADing", "baselines", "d2zero", "frozenclip"}
