"""An evaluation set that would count outputs as other classes is refused before any image is read."""

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from PADing.config import load_config
from PADing.data.splits import load_split, shipped_split_files
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.generation import PADing
from PADing.meta_arch import MaskFormer
from PADing.meta_arch.evaluation_set_check import check_evaluation_set

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mini"
TRAIN, UNSEEN_ONLY = "mini_train_instance", "mini_val_instance_unseen_only"
INSTANCE = ["DATASETS.TRAIN", (TRAIN,), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 12]
INSTANCE += ["MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False, "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False]
SMALL = ["MODEL.MASK_FORMER.DEC_LAYERS", 2, "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1]


def config(*opts, name="panoptic-pretrain.yaml"):
    return load_config(CONFIGS / name, [*SMALL, "MODEL.CLASS_EMBEDDINGS", "nowhere.npz", *opts])


@pytest.mark.parametrize("tests", [(UNSEEN_ONLY,), ("mini_val_instance", UNSEEN_ONLY)])
def test_stage_1_on_unseen_classes_only_is_not_built(tests):
    """Its first outputs are seen classes; read as unseen ones they gave metrics that looked like a zero-shot result."""
    metadata = MetadataCatalog.get(UNSEEN_ONLY)
    first_seen, first_unseen = metadata.vocabulary[0], metadata.thing_classes[0]
    with pytest.raises(UserError) as caught:
        build_model(config(*INSTANCE, "DATASETS.TEST", tests))
    message = str(caught.value)
    for part in (UNSEEN_ONLY, TRAIN, f"'{first_seen}' would be counted as '{first_unseen}'", "DATASETS.TEST"):
        assert part in message
    assert "these fit: mini_val_instance. MaskFormer cannot be restricted to unseen classes; PADing" in message


def test_a_set_told_later_is_refused_before_its_images_are_read(monkeypatch):
    model = build_model(config(*INSTANCE, "DATASETS.TEST", ("mini_val_instance",))).eval()
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: pytest.fail(f"{name} was read"))
    with pytest.raises(UserError, match=f"MaskFormer cannot be evaluated on '{UNSEEN_ONLY}'"):
        Trainer.test(config(*INSTANCE, "DATASETS.TEST", (UNSEEN_ONLY,)), model)


def test_the_same_classes_in_another_order_are_refused():
    """Panoptic sets list unseen classes between the seen ones, instance sets behind them."""
    with pytest.raises(UserError, match="MaskFormer cannot be evaluated on 'mini_val_instance'.*mini_val_panoptic"):
        build_model(config("DATASETS.TEST", ("mini_val_instance",)))
    with pytest.raises(UserError, match="PADing cannot be evaluated on 'mini_val_instance'.*mini_val_panoptic"):
        build_model(config("DATASETS.TEST", ("mini_val_instance",), name="panoptic-PADing.yaml"))


def test_a_model_that_restricts_its_answers_is_not_refused():
    model = build_model(
        config(
            *INSTANCE, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 16, "DATASETS.TEST", (UNSEEN_ONLY, "mini_val_instance"),
            name="panoptic-PADing.yaml",
        )
    )  # fmt: skip
    model.set_test_metadata(MetadataCatalog.get(UNSEEN_ONLY))
    assert model.unseen_only and model.label_offset == 12


@pytest.mark.parametrize("file", shipped_split_files(), ids=lambda file: Path(file).stem)
def test_every_set_of_every_shipped_split(file):
    """Stage 1 fits all sets of its kind but the unseen-only ones; a model with all outputs fits those too."""
    split = load_split(file)
    for train in (d for d in split.data_sets if d.role == "train"):
        training = MetadataCatalog.get(train.name)
        classes = split.classes(train)
        for test in (d for d in split.data_sets if (d.kind, d.class_order) == (train.kind, train.class_order)):
            metadata = MetadataCatalog.get(test.name)
            check_evaluation_set(PADing, training, metadata, len(training.vocabulary))
            if test.subset != "unseen":
                check_evaluation_set(MaskFormer, training, metadata, len(classes))
                continue
            for outputs in (len(classes), len(training.vocabulary)):
                with pytest.raises(UserError, match=test.name):
                    check_evaluation_set(MaskFormer, training, metadata, outputs)


def test_sets_that_no_split_file_describes_are_not_judged():
    """Their names may be those of another language or spelling."""
    training, foreign = MetadataCatalog.get(TRAIN), {"thing_classes": ["disque", "barre"], "name": "foreign"}
    check_evaluation_set(MaskFormer, training, foreign, 12)
    check_evaluation_set(MaskFormer, foreign, MetadataCatalog.get(UNSEEN_ONLY), 12)
