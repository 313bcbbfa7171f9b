"""FrozenCLIP from a config to results, on a few drawn images: training, evaluation, prediction, other words."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from frozenclip.second import FrozenCLIPClassifier
from PADing.config import load_config
from PADing.data.embedding_sources import clip_embeddings
from PADing.data.embeddings import load_synonyms
from PADing.data.vocabulary import Entry
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.inference import Predictor, from_pretrained
from PADing.meta_arch.second_classifier import OutputClasses
from PADing.sharing.export import share_model
from PADing.visualization.image_files import read_rgb

TRAINING = {
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.CHECKPOINT_PERIOD": 100,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
}
MAPPERS = {"panoptic": "coco_panoptic_lsj", "instance": "coco_instance_lsj", "semantic": "mask_former_semantic"}
METRICS = {
    "panoptic": ("panoptic_seg", {"PQ_se", "PQ_un", "PQ_hm"}),
    "instance": ("segm", {"AP50_seen", "AP50_unseen", "AP50_hm"}),
    "semantic": ("sem_seg", {"seen_IoU", "unseen_IoU", "hIoU"}),
}


def trained(options, folder, kind="convnext", task="panoptic", iterations=10, **keys):
    values = {**TRAINING, "INPUT.DATASET_MAPPER_NAME": MAPPERS[task], "SOLVER.MAX_ITER": iterations}
    values |= {"INPUT.CROP.ENABLED": False, "INPUT.MIN_SIZE_TRAIN": (64,)} if task == "semantic" else {}
    file, opts = options(kind, task, **values, OUTPUT_DIR=str(folder), **keys)
    trainer = Trainer(load_config(file, opts))
    trainer.resume_or_load(resume=False)
    return trainer


@pytest.fixture(scope="module")
def weights(options, tmp_path_factory):
    """The checkpoint of a short training."""
    folder = tmp_path_factory.mktemp("trained")
    trained(options, folder).train()
    return folder / "model_final.pth"


@pytest.fixture(scope="module")
def predictor(options, weights):
    file, opts = options()
    return Predictor(load_config(file, [*opts, "MODEL.WEIGHTS", str(weights)]))


@pytest.mark.parametrize("kind, task", [("convnext", "panoptic"), ("resnet", "instance"), ("convnext", "semantic")])
def test_ten_iterations_change_the_segmenter_and_leave_clip_alone(kind, task, options, tmp_path, clips):
    trainer = trained(options, tmp_path, kind, task)
    model = trainer.model
    before = copy.deepcopy(model.state_dict())
    model.train()
    assert not any(module.training for module in model.backbone.encoder.modules())
    trainer.train()
    after = model.state_dict()
    for key, value in before.items():
        same = torch.equal(value, after[key])
        if key.startswith("backbone.") or key == "criterion.empty_weight":
            assert same, key
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert {"logit_scale", "void_embed.weight"} <= {key.removeprefix("sem_seg_head.predictor.") for key in changed}
    assert not [p for p in model.backbone.parameters() if p.grad is not None or p.requires_grad]
    losses = [json.loads(line)["total_loss"] for line in (tmp_path / "metrics.json").read_text().splitlines()[:1]]
    assert np.isfinite(losses).all()
    task_name, wanted = METRICS[task]
    results = json.loads((tmp_path / "results.json").read_text())
    assert wanted <= set(next(iter(results.values()))[task_name])


def test_gradients_reach_every_trained_weight_and_no_frozen_one(options, drawn, tmp_path):
    trainer = trained(options, tmp_path, iterations=1)
    losses = trainer.model(next(iter(trainer.data_loader)))
    sum(losses.values()).backward()
    without = [n for n, p in trainer.model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(torch.isfinite(value) for value in losses.values())


def test_a_checkpoint_holds_clip_and_gives_the_same_results_without_its_files(weights, options, clips, drawn, tmp_path):
    """Weights that are evaluated on another machine must not depend on a file of this one."""
    import shutil

    content = torch.load(weights, weights_only=True)["model"]
    assert any(key.startswith("backbone.encoder.visual.trunk") for key in content)
    file, opts = options()
    image = read_rgb(drawn.images[0])
    want = Predictor(load_config(file, [*opts, "MODEL.WEIGHTS", str(weights)]))(image)
    bare = tmp_path / "convnext"
    bare.mkdir()
    shutil.copy(clips.convnext / "open_clip_config.json", bare)
    got = Predictor(load_config(file, [*opts, "MODEL.WEIGHTS", str(weights), "MODEL.FROZENCLIP.NAME", str(bare)]))(
        image
    )
    assert torch.equal(got["sem_seg"], want["sem_seg"])
    assert torch.equal(got["panoptic_seg"][0], want["panoptic_seg"][0])


def test_the_results_are_those_of_the_ensemble(predictor, drawn):
    """The numbers that the panoptic and semantic results use are the formula's, of both classifiers."""
    model = predictor.model
    sample = {"image": torch.from_numpy(read_rgb(drawn.images[0]).transpose(2, 0, 1).copy())}
    images = model.preprocess([sample])
    with torch.no_grad():
        logits, masks = model.predict(images)
        features = model.backbone(images.tensor)
        own = model.sem_seg_head(features)["pred_logits"]
    last, inside = features["res5"][0].double(), (masks[0] > 0).double()
    shares = inside.view(len(inside), *(n for side in last.shape[1:] for n in (side, inside.shape[1] // last.shape[1])))
    shares = shares.mean((2, 4))
    encoder, table = model.backbone.encoder, model.decoder.test_classes
    for q, weights in enumerate(shares):
        p = own[0, q].double().softmax(-1).numpy()
        first = own[0, q, :-1].double().softmax(-1).numpy()
        if weights.sum() > 0:
            pooled = (last * weights).sum((1, 2)) / weights.sum()
            with torch.no_grad():
                vector = encoder.visual.head(encoder.visual.trunk.forward_head(pooled.float()[None, :, None, None]))[0]
            vector = vector.double().numpy() / np.linalg.norm(vector.double().numpy())
            second = np.exp(float(encoder.scale) * (table.vectors.double().numpy() @ vector))
            second /= second.sum()
            share = np.where(table.seen.numpy(), 0.4, 0.8)
            mixed = first ** (1 - share) * second**share
        else:
            mixed = first
        want = np.append((1 - p[-1]) * mixed / mixed.sum(), p[-1])
        np.testing.assert_allclose(logits[0, q].exp().numpy(), want, atol=1e-6)


def test_the_seen_classes_are_those_of_training_images(predictor, drawn):
    table = predictor.model.decoder.test_classes
    names = MetadataCatalog.get("tools_mini_val_panoptic").stuff_classes
    assert [not seen for seen in table.seen.tolist()] == [name in drawn.unseen for name in names]


def test_results_do_not_depend_on_the_other_images_of_a_batch(predictor):
    """Padding belongs to no region, and empty masks give numbers."""
    torch.manual_seed(7)
    batch = [{"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)} for size in ((64, 96), (33, 50), (96, 64))]
    with torch.no_grad():
        alone = [predictor.model([sample])[0] for sample in batch]
        model = predictor.model
        images = model.preprocess(batch)
        logits, masks = model.predict(images)
        empty = torch.full_like(masks, -1.0)
        last = model.backbone(images.tensor)["res5"]
        from frozenclip.ensembled import ensembled

        found = ensembled(
            logits, empty, last, model.backbone.encoder, model.decoder.test_classes, (0.4, 0.8), (96, 96), None
        )
    assert logits.isfinite().all()
    torch.testing.assert_close(found.exp(), logits.exp())
    for sample, result in zip(batch, alone, strict=True):
        assert result["sem_seg"].shape[1:] == sample["image"].shape[1:] and result["sem_seg"].isfinite().all()


def test_bfloat16_on_the_cpu_gives_nearly_the_same(predictor, drawn):
    image = torch.from_numpy(read_rgb(drawn.images[0]).transpose(2, 0, 1).copy())
    images = predictor.model.preprocess([{"image": image}])
    with torch.no_grad():
        want, _ = predictor.model.predict(images)
        with torch.autocast("cpu", torch.bfloat16):
            got, _ = predictor.model.predict(images)
    assert got.dtype == torch.float32 and got.isfinite().all()
    assert (got.exp() - want.exp()).abs().mean() < 0.02


def test_training_in_bfloat16(options, tmp_path):
    trainer = trained(options, tmp_path, iterations=2, SOLVER__AMP__ENABLED=True, SOLVER__AMP__PRECISION="bfloat16")
    trainer.train()
    assert (tmp_path / "model_final.pth").is_file()


def test_words_of_ones_own_are_encoded_by_the_same_clip(predictor, drawn, clips):
    """New classes compete as unseen ones; then the model's own are there again, bit by bit."""
    image = read_rgb(drawn.images[0])
    before = predictor(image)
    space = predictor.set_vocabulary("zebra; plain disc; stuff: moss")
    table = predictor.model.decoder.test_classes
    assert set(space.class_names) == {"zebra", "plain disc", "moss"}
    place = space.class_names.index("zebra")
    want = clip_embeddings(["zebra"], str(clips.convnext), templates=("a photo of a {}.",))[0]
    torch.testing.assert_close(table.vectors[place], want, rtol=1e-5, atol=1e-6)
    assert [name for name, seen in zip(space.class_names, table.seen, strict=True) if seen] == ["plain disc"]
    assert predictor(image)["sem_seg"].shape[0] == 3
    predictor.set_vocabulary(None)
    assert torch.equal(predictor(image)["sem_seg"], before["sem_seg"])


def test_an_untrained_encoder_is_told_once(options, caplog, drawn):
    file, opts = options()
    model = build_model(load_config(file, opts)).eval()
    sample = [{"image": torch.zeros(3, 64, 64)}]
    with caplog.at_level(logging.WARNING), torch.no_grad():
        model(sample)
        model(sample)
    assert caplog.text.count("HAS RANDOM WEIGHTS") == 1


def test_a_class_has_the_cosine_of_its_nearest_synonym(options, clips, drawn, tool, tmp_path):
    """The file of the command keeps synonyms apart; training, evaluation and the second classifier read them."""
    path, names, word = tmp_path / "synonyms.npz", tmp_path / "names.txt", drawn.classes[3]
    names.write_text("\n".join(drawn.classes))
    args = ["clip", "--model", str(clips.convnext), "--template", "a photo of a {}.", "--names", str(names)]
    args += ["--output", str(path), "--keep-synonyms", "--text", f"{word}=lamp, zebra"]
    assert tool("tools/class_embeddings.py").main(args) == 0
    file, opts = options(MODEL__FROZENCLIP__CLASS_EMBEDDINGS=str(path))
    model = build_model(load_config(file, opts)).eval()
    lamp, zebra = clip_embeddings(["lamp", "zebra"], str(clips.convnext), templates=("a photo of a {}.",))
    place = MetadataCatalog.get("tools_mini_val_panoptic").stuff_classes.index(word)
    for table in (model.decoder.training_classes, model.decoder.test_classes):
        assert len(table.vectors) == len(drawn.classes) + 1
        found = table.cosines(torch.stack([lamp, zebra]))[:, place]
        torch.testing.assert_close(found, torch.ones(2), rtol=1e-5, atol=1e-5)
    second = FrozenCLIPClassifier(model.cfg)
    second.set_classes(OutputClasses((word, "lamp", drawn.classes[0]), (None, Entry(("lamp",)), None)))
    torch.testing.assert_close(
        second.table.cosines(torch.stack([lamp, zebra])[:, None])[:, 0, :2],
        torch.stack([torch.ones(2), torch.stack([lamp @ lamp, zebra @ lamp])], dim=1), rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    losses = model.train()(
        next(iter(Trainer.build_train_loader(load_config(file, [*opts, "SOLVER.IMS_PER_BATCH", 2]))))
    )
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_damaged_synonyms_are_refused(text, tmp_path):
    with np.load(text.convnext) as arrays:
        content = dict(arrays)
    np.savez(tmp_path / "a.npz", **content, synonym_of=np.zeros(3, int), synonym_vectors=np.zeros((2, 24)))
    with pytest.raises(UserError, match="damaged synonyms"):
        load_synonyms(tmp_path / "a.npz", [str(name) for name in content["names"]])


def test_a_shared_model_is_loaded_with_its_own_embeddings(options, weights, clips, drawn, tmp_path):
    """The plug-in is this project's, so it is imported; CLIP's folder is the reader's."""
    file, opts = options()
    (weights.parent / "config.yaml").write_text(load_config(file, opts).dump())
    share_model(weights.parent, tmp_path / "shared")
    predictor = from_pretrained(tmp_path / "shared", opts=["MODEL.FROZENCLIP.NAME", str(clips.convnext)])
    image = read_rgb(drawn.images[0])
    want = Predictor(load_config(file, [*opts, "MODEL.WEIGHTS", str(weights)]))(image)
    torch.testing.assert_close(predictor(image)["sem_seg"], want["sem_seg"], rtol=1e-4, atol=1e-6)
    assert str(tmp_path) in predictor.model.decoder.text.path
