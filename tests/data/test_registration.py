"""Registration: harmless when repeated, clear when names clash."""

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.data.registration import register_builtin, register_split, register_split_files
from PADing.data.splits import load_split
from PADing.errors import UserError


def test_repeated_registration_is_harmless(own):
    """Worker processes, notebooks and plug-ins import the package again."""
    (split,) = register_split_files([own.split_file])
    before = DatasetCatalog.get("own_val_instance")
    register_split_files((str(own.split_file),))
    register_split(split)
    register_builtin()
    register_builtin()
    assert DatasetCatalog.get("own_val_instance") == before
    assert MetadataCatalog.get("own_val_instance").thing_classes == ["κύκλος", "leer", "四角"]


def test_changed_file_replaces_its_data_sets(own):
    """Somebody who mends a split file in a notebook must not go on with the former classes."""
    register_split_files([own.split_file])
    own.split_file.write_text(yaml.safe_dump(own.split(unseen=["κύκλος"])), encoding="utf-8")
    register_split_files([own.split_file])
    assert MetadataCatalog.get("own_val_instance").evaluation_set == ["κύκλος"]


def test_name_of_another_split_is_refused(own, tmp_path):
    """Otherwise one would silently train on the other's data."""
    register_split_files([own.split_file])
    other = tmp_path / "other.yaml"
    other.write_text(own.split_file.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match="other.yaml registers the data set 'own_train_instance', but .*split.yaml"):
        register_split(load_split(other))


def test_name_of_another_package_is_replaced(own, caplog):
    """Mask2Former registers a name that PADing's configs use, for other annotation."""
    name = "taken_by_somebody"
    content = own.split()
    content["data_sets"] = [{**content["data_sets"][0], "name": name}]
    own.split_file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(thing_classes=["other"])
    register_split_files([own.split_file])
    assert MetadataCatalog.get(name).thing_classes == ["κύκλος", "leer"]
    assert DatasetCatalog.get(name) and "replaced" in caplog.text
