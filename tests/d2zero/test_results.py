"""Labels are contiguous ids of the evaluation set, in each way to answer; else unseen objects count as seen ones."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from torch.testing import assert_close

from PADing.data.embeddings import load_class_embeddings

from .conftest import GENERALIZED, UNSEEN_ONLY, ZSIS


def counts():
    metadata = MetadataCatalog.get(GENERALIZED)
    unseen = [i for i, name in enumerate(metadata.thing_classes) if name in metadata.evaluation_set]
    return len(metadata.thing_classes), unseen


@torch.no_grad()
def test_generalized_labels(model, images):
    found = model("TEST.DETECTIONS_PER_IMAGE", 60)(images)[0]["instances"]
    total, _ = counts()
    assert len(found) == 60 and set(found.pred_classes.tolist()) <= set(range(total))
    assert found.image_size == (80, 120)


@pytest.mark.parametrize("detections", [20, 7])
@torch.no_grad()
def test_copy_paste_shares_the_detections(model, images, detections):
    """Half of the labels are unseen, whatever their scores."""
    opts = ["MODEL.MASK_FORMER.TEST.COPY_PASTE", True, "TEST.DETECTIONS_PER_IMAGE", detections]
    total, unseen = counts()
    for result in model(*opts)(images):
        labels = result["instances"].pred_classes.tolist()
        assert len(labels) == detections and set(labels) <= set(range(total))
        assert sum(label in unseen for label in labels) == detections // 2


@torch.no_grad()
def test_zero_shot_labels(model, images):
    """An unseen-only set numbers its classes from 0."""
    found = model(*ZSIS, "TEST.DETECTIONS_PER_IMAGE", 1000)(images)[0]["instances"]
    unseen = len(MetadataCatalog.get(UNSEEN_ONLY).thing_classes)
    assert set(found.pred_classes.tolist()) == set(range(unseen))


@torch.no_grad()
def test_answers_on_given_logits(model):
    """Worked by hand: the winning class of one query, with the temperature, in each way to answer."""
    masks = torch.ones(1, 4, 4) * 20  # mask confidence 1
    total, unseen = counts()
    logits = torch.zeros(1, total + 1)
    logits[0, 3], logits[0, unseen[1]], logits[0, -1] = 10.0, 5.0, 5.0

    def share(x, *others):
        """Softmax at inverse temperature 0.2 of logit x among it, others, and ``n`` zeros."""
        *others, zeros = others
        e = torch.tensor([0.2 * v for v in (x, *others)]).exp()
        return float(e[0] / (e.sum() + zeros))

    every = model("TEST.DETECTIONS_PER_IMAGE", 2)
    found = every.instance_inference(logits, masks)
    by_label = dict(zip(found.pred_classes.tolist(), found.scores.tolist(), strict=True))
    zeros = total - 2
    assert by_label == pytest.approx({3: share(10, 5, 5, zeros), unseen[1]: share(5, 10, 5, zeros)}, rel=1e-5)

    shared = model("TEST.DETECTIONS_PER_IMAGE", 2, "MODEL.MASK_FORMER.TEST.COPY_PASTE", True)
    again = shared.instance_inference(logits, masks)
    assert dict(zip(again.pred_classes.tolist(), again.scores.tolist(), strict=True)) == pytest.approx(by_label)

    only = model(*ZSIS, "TEST.DETECTIONS_PER_IMAGE", 1)
    few = torch.zeros(1, len(unseen) + 1)
    few[0, 1], few[0, -1] = 5.0, 5.0
    found = only.instance_inference(few, masks)
    assert found.pred_classes.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([share(5, 5, len(unseen) - 1)], rel=1e-5)
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("opts", [[], ["MODEL.MASK_FORMER.TEST.COPY_PASTE", True], ZSIS])
@torch.no_grad()
def test_results_do_not_depend_on_the_batch(model, images, opts, per_image):
    """Images of one size, alone and together; as published only where each of them has background, or none has."""
    network, backgrounds = model(*opts, "MODEL.D2ZERO.BACKGROUND_PER_IMAGE", per_image), []
    network.sem_seg_head.register_forward_hook(lambda *x: backgrounds.append(x[2]["pred_masks"].amax(1) <= 0))
    together = network(images)
    assert len(set(backgrounds[0].flatten(1).any(1).tolist())) == 1 or per_image
    for image, result in zip(images, together, strict=True):
        alone, result = network([image])[0]["instances"], result["instances"]
        assert alone.pred_classes.tolist() == result.pred_classes.tolist()
        assert_close(alone.scores, result.scores, rtol=1e-4, atol=1e-6)
        assert (alone.pred_masks != result.pred_masks).sum() <= 6


# ---- texts


@torch.no_grad()
def test_texts_follow_the_test_set(model, vectors):
    """A set evaluated second gets its own classes, not those of the first."""
    network = model("DATASETS.TEST", (GENERALIZED,))
    predictor = network.sem_seg_head.predictor
    names = MetadataCatalog.get("mini_train_instance").thing_classes
    assert torch.equal(predictor.text_features, load_class_embeddings(vectors, names))
    network.generalized = False
    for name in (UNSEEN_ONLY,):
        network.set_test_metadata(MetadataCatalog.get(name))
        names = MetadataCatalog.get(name).thing_classes
        assert torch.equal(predictor.text_features_test, load_class_embeddings(vectors, names))


@torch.no_grad()
def test_word_vectors_show_all_texts_unless_unified(model, word_vectors, vocabulary, images):
    """As published, ZSIS with word vectors lets the seen texts take part; with UNIFY_TEXTS they do not."""
    words = ["MODEL.MASK_FORMER.VEC_PATH", str(word_vectors)]
    table = torch.from_numpy(np.loadtxt(word_vectors, delimiter=",")).float().T[1:]
    everything, generalized = model(*words, *ZSIS), model(*words)
    assert torch.equal(everything.sem_seg_head.predictor.text_features_test, table)
    assert torch.equal(generalized.sem_seg_head.predictor.text_features_test, table)
    unseen = [vocabulary.index(name) for name in MetadataCatalog.get(UNSEEN_ONLY).thing_classes]
    assert list(everything.candidates.unseen) == unseen
    labels = everything(images)[0]["instances"].pred_classes
    assert set(labels.tolist()) <= set(range(len(unseen)))
    unified = model(*words, *ZSIS, "MODEL.D2ZERO.UNIFY_TEXTS", True)
    assert torch.equal(unified.sem_seg_head.predictor.text_features_test, table[unseen])


def test_texts_are_no_part_of_a_checkpoint_and_follow_the_model(model):
    network = model()
    assert not [key for key in network.state_dict() if "text_features" in key]
    assert network.double().sem_seg_head.predictor.text_features_test.dtype == torch.float64
    network.set_test_metadata(MetadataCatalog.get(GENERALIZED))
    assert network.sem_seg_head.predictor.text_features_test.dtype == torch.float64


def test_a_checkpoint_without_metadata_loads_whole(model):
    """Re-saved checkpoints lose version metadata; their pixel decoder must not be renamed away."""
    network = model()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.data.zero_()
    result = network.load_state_dict(state, strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
