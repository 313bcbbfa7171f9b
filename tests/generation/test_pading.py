"""PADing as a model: what is frozen, what is needed when, and which classes count as what."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances

from PADing.config import load_config
from PADing.data.embeddings import save_class_embeddings
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import UserError

TRAIN = "mini_train_panoptic"
VECTOR = 16
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mini" / "panoptic-PADing.yaml"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    names = MetadataCatalog.get(TRAIN).stuff_classes
    save_class_embeddings(path, names, np.random.RandomState(0).randn(len(names), VECTOR), "random")
    return str(path)


def build(vectors, *opts):
    """PADing with the classes of the mini data set and hardly any layers."""
    small = ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 2]
    small += ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 32, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 8]
    torch.manual_seed(0)
    return build_model(load_config(CONFIG, [*small, "MODEL.CLASS_EMBEDDINGS", vectors, *opts]))


def batch(model, objects=3, images=2):
    classes = model.classes.seen
    result = []
    for _ in range(images):
        instances = Instances((64, 96))
        instances.gt_classes = classes[torch.randint(len(classes), (objects,))]
        instances.gt_masks = torch.zeros(objects, 64, 96, dtype=torch.bool)
        instances.gt_masks[:, 8:40, 16:50] = True
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
        result.append({"image": image, "height": 64, "width": 96, "instances": instances})
    return result


def test_nothing_is_frozen_before_and_only_the_second_stage_is_trained_after(vectors):
    model = build(vectors).train()
    assert all(p.requires_grad for p in model.parameters())
    model.forward_train_generator(batch(model))
    trained = {id(p) for p in [*model.generator_parameters(), *model.classifier_parameters()]}
    assert {id(p) for p in model.parameters() if p.requires_grad} == trained


def test_frozen_segmenter_keeps_its_running_statistics(vectors):
    """A backbone with ordinary batch normalisation would drift in training mode although nothing trains it."""
    model = build(vectors).train()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    assert before
    for _ in range(2):
        model.train()
        model.forward_train_generator(batch(model))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.training and model.generator.training and not model.backbone.training


def test_classifier_step_trains_the_classifier_only(vectors):
    model = build(vectors).train()
    _, embeddings, classes = model(batch(model))
    model(None, real_embeddings=embeddings, target_classes=classes)["dis_loss"].backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"new_fc.weight", "new_fc.bias"}


def test_generator_step_reaches_every_trained_parameter(vectors):
    model = build(vectors).train()
    losses, _, _ = model(batch(model))
    assert set(losses) == {"generate_loss"}
    losses["generate_loss"].backward()
    assert all(p.grad is not None for p in model.generator_parameters())


def test_batch_without_ground_truth_trains_on(vectors):
    model = build(vectors).train()
    losses, embeddings, classes = model(batch(model, objects=0))
    losses["generate_loss"].backward()
    assert torch.isfinite(losses["generate_loss"])
    assert (classes == model.sem_seg_head.num_classes).all()
    assert torch.isfinite(model(None, real_embeddings=embeddings, target_classes=classes)["dis_loss"])


def test_both_steps_run_in_bfloat16(vectors):
    """Mixed precision on the CPU; the discrepancy itself stays in float32."""
    model = build(vectors).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, embeddings, classes = model(batch(model))
        second = model(None, real_embeddings=embeddings, target_classes=classes)
    (losses["generate_loss"] + second["dis_loss"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.generator_parameters())


def test_inference_needs_no_class_embeddings_but_training_says_so_at_once():
    """A published model must evaluate on a machine that has never seen an embedding file."""
    model = build("nowhere.npz")
    assert model.fc_projection.in_features == 512
    with torch.no_grad():
        (result,) = model.eval()(batch(model, images=1))
    assert result["sem_seg"].shape == (model.sem_seg_head.num_classes, 64, 96)
    with pytest.raises(UserError, match="nowhere.npz"):
        model.begin_second_stage()


def test_class_embeddings_travel_with_the_model_but_not_with_its_weights(vectors):
    model = build(vectors)
    names = MetadataCatalog.get(TRAIN).stuff_classes
    assert model.classes.embeddings.shape == (len(names), VECTOR)
    assert model.classes.unseen_embeddings.shape == (len(MetadataCatalog.get(TRAIN).unseen_index), VECTOR)
    assert not [key for key in model.state_dict() if key.startswith("classes")]
    assert model.double().classes.embeddings.dtype == torch.float64


def test_unseen_classes_are_weighted_up_and_no_object_down(vectors):
    model = build(vectors, "MODEL.MASK_FORMER.CLASS_ECO", 7.0, "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT", 0.2)
    unseen = MetadataCatalog.get(TRAIN).unseen_index
    expected = [7.0 if i in unseen else 1.0 for i in range(model.sem_seg_head.num_classes)] + [0.2]
    torch.testing.assert_close(model.classes.loss_weight, torch.tensor(expected))


def test_up_weighting_unseen_classes_does_not_scale_the_whole_loss(vectors, monkeypatch):
    """The classifier's loss is divided by the sum of the rows' weights; worked out for one query of each kind."""
    model = build(vectors, "MODEL.MASK_FORMER.CLASS_ECO", 5.0, "MODEL.MASK_FORMER.NUM_CHOOSE", 1).train()
    features, nothing = torch.randn(1, 2, model.new_fc.in_features), model.sem_seg_head.num_classes
    classes = torch.tensor([[int(model.classes.seen[0]), nothing]])
    monkeypatch.setattr(torch, "randperm", torch.arange)
    made = torch.randn(1, model.new_fc.in_features)
    monkeypatch.setattr(model.feature_generator, "generate", lambda queries: made)
    loss = model.forward_train_classifier(features, classes)["dis_loss"]
    logits = model.new_fc(torch.cat([features[0], made]))
    chosen = logits.log_softmax(1)[[0, 1, 2], [*classes[0].tolist(), int(model.classes.unseen[0])]]
    weight = torch.tensor([1.0, 0.1, 5.0])
    torch.testing.assert_close(loss, -(weight * chosen).sum() / weight.sum())


def test_many_features_of_a_class_weigh_as_much_as_one(vectors, monkeypatch):
    """Equal features, whatever their number, give the loss of one; other features count equally."""
    losses, features, made = [], torch.randn(1, 2, 64), torch.linspace(-1, 1, 64)
    for number in (1, 4):
        model = build(vectors, "MODEL.MASK_FORMER.FEATURES_PER_CLASS", number).train()
        monkeypatch.setattr(model.feature_generator, "generate", lambda queries: made.expand(len(queries), -1))
        classes = torch.tensor([[int(model.classes.seen[0]), model.sem_seg_head.num_classes]])
        losses.append(model.forward_train_classifier(features, classes)["dis_loss"])
    torch.testing.assert_close(losses[0], losses[1])


def test_no_more_unseen_classes_are_drawn_than_there_are(vectors, monkeypatch):
    """NUM_CHOOSE 17 is the default, also where 15 classes are unseen."""
    counts = []
    for choose in (2, 1000):
        model = build(vectors, "MODEL.MASK_FORMER.NUM_CHOOSE", choose).train()
        original = model.feature_generator.generate
        count = lambda q, make=original: counts.append(len(q)) or make(q)  # noqa: E731
        monkeypatch.setattr(model.feature_generator, "generate", count)
        embeddings = torch.randn(1, 4, model.new_fc.in_features)
        model(None, real_embeddings=embeddings, target_classes=torch.zeros(1, 4, dtype=torch.int64))
    assert counts == [2, len(MetadataCatalog.get(TRAIN).unseen_index)]


def test_word_vectors_tell_seen_classes_apart_among_seen_ones(vectors, tmp_path):
    """VEC_PATH: columns are background, seen, unseen, whatever the order of the model's outputs."""
    metadata = MetadataCatalog.get(TRAIN)
    names, unseen = metadata.stuff_classes, metadata.unseen_index
    order = [i for i in range(len(names)) if i not in unseen] + list(unseen)
    table = np.stack([np.full(4, -1.0)] + [np.full(4, float(i)) for i in order], axis=1)
    np.savetxt(tmp_path / "words.txt", table, delimiter=",")
    model = build(vectors, "MODEL.MASK_FORMER.VEC_PATH", str(tmp_path / "words.txt"))
    assert model.classes.embeddings[:, 0].tolist() == [float(i) for i in order[: -len(unseen)]]
    assert model.classes.unseen_embeddings[:, 0].tolist() == [float(i) for i in unseen]
    # Each seen class points to its own vector.
    assert torch.equal(model.classes.embeddings[model.classes.row[model.classes.seen], 0], model.classes.seen.float())
    assert torch.isfinite(model.train()(batch(model))[0]["generate_loss"])


def test_principled_classification_term_judges_among_seen_classes(vectors):
    """The published slice leaves unseen classes and no-object in where they lie before it."""
    literal, seen_only = (build(vectors, "MODEL.MASK_FORMER.SEEN_CLS_ONLY", value).train() for value in (False, True))
    inputs = batch(literal)
    values = []
    for model in (literal, seen_only):
        torch.manual_seed(1)
        values.append(model.generator_terms(inputs)[0]["L_cls"].item())
    # The same embeddings and labels, fewer competitors.
    assert values[1] < values[0]


def test_slice_that_would_cut_off_seen_classes_gives_way_to_the_seen_classes(vectors, caplog):
    """A data set of one's own may have more classes than the published slice; labels beyond it would be an error."""
    cut, seen_only = (
        build(vectors, "MODEL.MASK_FORMER.CLS_SLICE", 3, "MODEL.MASK_FORMER.SEEN_CLS_ONLY", value).train()
        for value in (False, True)
    )
    inputs, values = batch(cut), []
    with caplog.at_level("INFO", logger="PADing"):
        for model in (cut, seen_only):
            torch.manual_seed(1)
            values.append(model.generator_terms(inputs)[0]["L_cls"].item())
    assert values[0] == values[1]
    assert [record.message for record in caplog.records if "CLS_SLICE 3 would cut off" in record.message]


def test_stage_1_weights_are_sent_to_the_conversion(vectors):
    model = build(vectors)
    stage_1 = [key for key in model.state_dict() if key.startswith(("backbone.", "sem_seg_head."))]
    message = model.explain_missing_weights(["new_fc.weight", "new_fc.bias"], [f"module.{key}" for key in stage_1])
    assert "preprocess_pretrained_weight.py" in message
    assert model.explain_missing_weights([], list(model.state_dict())) == ""


def test_weights_for_other_vectors_load_for_inference_only(vectors):
    """Without an embedding file the width of the vectors is unknown, and not needed."""
    assert build("nowhere.npz").harmless_weights() == ("fc_projection.",)
    assert build(vectors).harmless_weights() == ()


@pytest.mark.parametrize("listed", [True, False])
def test_set_with_unseen_classes_only_gets_no_other_answer(vectors, listed):
    """Zero-shot (not generalized) evaluation; classes of the set are counted as its metadata say."""
    model = build(vectors).eval()
    inputs = batch(model, images=1)
    total, unseen = model.sem_seg_head.num_classes, model.classes.unseen.tolist()
    offset = 0 if listed else unseen[0]
    metadata = MetadataCatalog.get("mini_val_panoptic")
    restricted = {**metadata.as_dict(), "subset": "unseen", "label_offset": offset}
    restricted["stuff_classes"] = metadata.stuff_classes[offset:]
    model.set_test_metadata(restricted)
    with torch.no_grad():
        (result,) = model(inputs)
    assert len(result["sem_seg"]) == total - offset
    answered = {int(i) + offset for i in result["sem_seg"].amax((1, 2)).nonzero()}
    assert answered <= set(unseen)
    model.set_test_metadata(MetadataCatalog.get("mini_val_panoptic"))
    with torch.no_grad():
        (result,) = model(inputs)
    assert (result["sem_seg"].amax((1, 2)) > 0).all()


def test_second_round_learns_from_the_first_models_answers(vectors):
    """Self-training: a teacher that sees an unseen class everywhere labels all queries that match nothing."""
    model = build(vectors).train()
    inputs = batch(model)
    unseen = int(model.classes.unseen[0])
    torch.manual_seed(1)  # matching draws the points at which it compares masks
    first_round = model.match(inputs)[1]
    weights = {f"new_fc.{part}": torch.zeros_like(p) for part, p in model.new_fc.named_parameters()}
    weights["new_fc.bias"][unseen] = 20.0
    model.learn_from(weights, score=0.5, max_overlap=1.0)
    torch.manual_seed(1)
    second_round = model.match(inputs)[1]
    nothing = model.sem_seg_head.num_classes
    relabelled = second_round != first_round
    assert relabelled.any()
    assert (first_round[relabelled] == nothing).all() and (second_round[relabelled] == unseen).all()
    assert not [key for key in model.state_dict() if "teacher" in key]


def test_teacher_of_other_classes_is_refused(vectors):
    model = build(vectors)
    with pytest.raises(UserError, match=r"new_fc.weight is \(3, 4\)"):
        model.learn_from({"new_fc.weight": torch.zeros(3, 4), "new_fc.bias": torch.zeros(3)}, 0.5, 0.1)
    with pytest.raises(UserError, match="new_fc.weight is none"):
        model.learn_from({}, 0.5, 0.1)


# ---- weights of another kind


def start(model, path):
    """As train_net.py does: the recipe first, then the weights."""
    if not model.segmenter_frozen:
        model.begin_second_stage()
    return TrainingCheckpointer(model).resume_or_load(str(path) if path else "", resume=False)


def saved(folder, weights):
    torch.save({"model": weights}, folder / "weights.pth")
    return folder / "weights.pth"


def test_second_stage_without_weights_is_refused_with_the_way_to_them(vectors):
    """It would train for hours on a segmenter that answers at random, and end with status 0."""
    with pytest.raises(UserError, match=r"(?s)is empty.*train_net_pretrain.*preprocess.*RANDOM_SEGMENTER"):
        start(build(vectors), None)
    start(build(vectors, "MODEL.MASK_FORMER.RANDOM_SEGMENTER", True), None)


def test_backbone_alone_is_refused(vectors, tmp_path):
    weights = {key: value for key, value in build(vectors).state_dict().items() if key.startswith("backbone.")}
    with pytest.raises(UserError, match="holds no segmenter"):
        start(build(vectors), saved(tmp_path, weights))
    start(build(vectors, "MODEL.MASK_FORMER.RANDOM_SEGMENTER", True), tmp_path / "weights.pth")


def test_weights_with_a_gap_in_the_segmenter_are_refused(vectors, tmp_path):
    weights = build(vectors).state_dict()
    gap = "sem_seg_head.predictor.query_feat.weight"
    del weights[gap]
    with pytest.raises(UserError, match=f"would stay random: {gap}"):
        start(build(vectors), saved(tmp_path, weights))


def test_whole_weights_start_the_second_stage(vectors, tmp_path):
    """The generator side is learned now; without it nothing is missing."""
    weights = build(vectors).state_dict()
    converted = {k: v for k, v in weights.items() if k.startswith(("backbone.", "sem_seg_head.", "new_fc."))}
    model = build(vectors)
    with torch.no_grad():
        model.new_fc.weight.zero_()
    start(model, saved(tmp_path, converted))
    assert torch.equal(model.new_fc.weight, weights["new_fc.weight"])


@pytest.mark.parametrize("training", [True, False])
def test_weights_of_another_method_are_refused(vectors, tmp_path, training):
    """D2Zero's segmenter has the same names, but classifies by texts."""
    weights = build(vectors).state_dict()
    weights = {key: value for key, value in weights.items() if "class_embed" not in key and "new_fc" not in key}
    weights["sem_seg_head.predictor.fc_semantic.weight"] = torch.zeros(3, 3)
    path = saved(tmp_path, weights)
    with pytest.raises(UserError, match="belongs to another method"):
        start(build(vectors), path) if training else TrainingCheckpointer(build(vectors)).load(str(path))
