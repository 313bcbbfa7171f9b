"""D2Zero whole: names, training losses and gradients, the classifier alone, and its three ways to answer."""

import json
import re

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from PADing.data.embeddings import save_class_embeddings
from PADing.modeling.transformer_decoder import build_transformer_decoder
from tests.golden.util import (
    GOLDEN,
    Draws,
    assert_close,
    batch,
    check_digest,
    check_grads,
    check_instances,
    check_losses,
    fill,
    fill_model,
    golden_cfg,
    golden_files,
    load,
    normal,
    requires_golden,
    unpack,
)

pytestmark = requires_golden
KEYS = sorted(GOLDEN.glob("keys/d2zero_*.json"))
# The text tables were plain attributes of the published models.
TEXT_BUFFERS = {"sem_seg_head.predictor.text_features", "sem_seg_head.predictor.text_features_test"}


def d2zero_cfg(config: str, overrides: dict, folder):
    """``golden_cfg`` with the recorded kind of class embeddings, written into ``folder``."""
    overrides = {key: value for key, value in overrides.items() if key != "MODEL.MASK_FORMER.VEC_PATH"}
    cfg = golden_cfg(config, overrides)
    file = folder / re.sub(r"\W", "_", config)
    if cfg.MODEL.MASK_FORMER.VEC_PATH is None:
        # Names of all classes, whichever of them this test set shows.
        key, names = "MODEL.CLASS_EMBEDDINGS", set()
        for data_set in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            metadata = MetadataCatalog.get(data_set)
            names |= {*metadata.thing_classes, *metadata.evaluation_set}
        names = sorted(names)
        file = file.with_suffix(".npz")
        save_class_embeddings(file, names, np.stack([fill.text_feature(name) for name in names]), "golden")
    else:
        key, test_set = "MODEL.MASK_FORMER.VEC_PATH", golden_cfg(config).DATASETS.TEST[0]
        names = MetadataCatalog.get(test_set).thing_classes
        file = file.with_suffix(".txt")
        np.savetxt(file, fill.word_vector_table(names), fmt="%.9g", delimiter=",")
    return golden_cfg(config, {**overrides, key: str(file)})


# ---- names


@pytest.fixture(scope="module", params=KEYS, ids=lambda path: path.stem)
def recorded_and_model(request, tmp_path_factory):
    recorded = json.loads(request.param.read_text())
    torch.manual_seed(0)
    return recorded, build_model(d2zero_cfg(recorded["config"], {}, tmp_path_factory.mktemp("texts")))


def test_names_order_and_shapes(recorded_and_model):
    recorded, model = recorded_and_model
    buffers = dict(model.named_buffers())
    got = [[key, list(value.shape), key in buffers] for key, value in model.state_dict().items()]
    assert got == [list(entry) for entry in recorded["keys"]]


def test_parameters_buffers_and_versions(recorded_and_model):
    recorded, model = recorded_and_model
    parameters, state = dict(model.named_parameters()), model.state_dict()
    assert [name for name, p in parameters.items() if p.requires_grad] == recorded["trainable"]
    assert [name for name, p in parameters.items() if not p.requires_grad] == recorded["frozen"]
    assert sum(p.numel() for p in parameters.values()) == recorded["elements_in_parameters"]
    assert sum(v.numel() for v in state.values()) == recorded["elements_in_state_dict"]
    unsaved = {name: list(b.shape) for name, b in model.named_buffers() if name not in state}
    assert {k: v for k, v in unsaved.items() if k not in TEXT_BUFFERS} == dict(recorded["non_persistent_buffers"])
    versions = {name: entry["version"] for name, entry in state._metadata.items() if entry.get("version", 1) != 1}
    assert versions == dict(recorded["module_versions"])


def test_a_plain_dict_loads_whole(recorded_and_model):
    """A checkpoint whose version metadata were lost keeps every tensor, the pixel decoder's included."""
    _, model = recorded_and_model
    state = {key: value.clone() for key, value in model.state_dict().items()}
    result = model.load_state_dict(dict(state), strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# ---- the whole model


@pytest.fixture(scope="module", params=golden_files("d2zero_*_*_*.npz"))
def run(request, tmp_path_factory):
    arrays, info = load(request.param)
    folder = tmp_path_factory.mktemp("texts")
    model = build_model(d2zero_cfg(info["config"], info["overrides"], folder))
    return fill_model(model, salt=info["salt"]), arrays, info, folder


def test_training_step(run):
    model, arrays, info, _ = run
    model.train()
    model.zero_grad()
    outputs, seen, matched, backgrounds = {}, [], [], []
    handle = model.sem_seg_head.register_forward_hook(lambda _m, _i, y: outputs.update(y))
    predictor, match = model.sem_seg_head.predictor, model.criterion.matcher.match
    attention_mask, background = predictor.attention_mask, predictor.background

    def counted(mask_logits, mask_features):
        backgrounds.append((mask_logits <= 0).all(1).sum((1, 2)).tolist())
        return background(mask_logits, mask_features)

    predictor.attention_mask = lambda *inputs: seen.append(attention_mask(*inputs)) or seen[-1]
    predictor.background = counted
    model.criterion.matcher.match = lambda *inputs: matched.extend(match(*inputs)) or matched
    try:
        with Draws(info["train.draws"]):
            losses = model(batch(info["inputs"], info["target_classes"], train=True))
    finally:
        handle.remove()
        del predictor.attention_mask, predictor.background, model.criterion.matcher.match

    assert backgrounds == info["train.background_pixels_per_head_and_image"]
    start = 0
    for j, got in enumerate(seen):
        packed = arrays["train.attention_masks_packed"][start : start + -(-got.numel() // 8)]
        start += len(packed)
        assert np.array_equal(got.numpy(), unpack(packed, got.shape)), f"attention mask of head {j}"
    assert start == len(arrays["train.attention_masks_packed"])
    for name in ("pred_logits", "pred_masks"):
        assert_close(outputs[name].detach(), arrays[f"train.{name}"], what=name)
    for name in ("logits", "masks"):
        for j, aux in enumerate(outputs["aux_outputs"]):
            check_digest(aux[f"pred_{name}"].detach(), arrays[f"train.aux_{name}_digest"][j], what=f"{name} {j}")
    assert [[[q.tolist(), t.tolist()] for q, t in images] for images in matched] == info["train.matcher_indices"]
    check_losses(losses, info["train.loss_names"], arrays["train.losses"])
    sum(losses.values()).backward()
    check_grads(model, arrays, "train.", info)


@torch.no_grad()
def test_batches_without_objects(run):
    model, arrays, info, _ = run
    model.train()
    for key in [key.removesuffix(".loss_names") for key in info if re.fullmatch(r"empty\d*\.loss_names", key)]:
        with Draws(info[f"{key}.draws"]):
            losses = model(batch(info[f"{key}_inputs"], info["target_classes"], train=True))
        check_losses(losses, info[f"{key}.loss_names"], arrays[f"{key}.losses"])


@torch.no_grad()
def test_every_way_to_answer(run):
    model, arrays, info, folder = run
    model.eval()
    logits = {}
    handle = model.sem_seg_head.register_forward_hook(lambda _m, _i, y: logits.update(y))
    classes, masks = direct_inputs(info["direct"])
    try:
        for mode, overrides in info["modes"].items():
            put_into(model, d2zero_cfg(info["config"], {**info["overrides"], **overrides}, folder), arrays, mode)
            results = model(batch(info["inputs"], info["target_classes"], train=False))
            assert_close(logits["pred_logits"], arrays[f"{mode}.pred_logits"], what=mode)
            assert_close(logits["pred_masks"], arrays["eval.pred_masks"], what=mode)
            for i, result in enumerate(results):
                assert set(result) == {"instances"}
                check_instances(result["instances"], arrays, f"{mode}.inst{i}")
            if f"direct.{mode}.inst0.scores" in arrays:
                check_instances(model.instance_inference(classes, masks), arrays, f"direct.{mode}.inst0")
    finally:
        handle.remove()


def put_into(model, cfg, arrays, mode: str) -> None:
    """Make a built model answer as ``cfg`` says.

    The published copy-paste mode ignores the number of detections, so that number is the recorded one. A recorded mode
    may leave out seen classes of a generalized set, which building a model refuses: so the set is told first.
    """
    test = cfg.MODEL.MASK_FORMER.TEST
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    model.generalized = not set(metadata.thing_classes) <= set(metadata.evaluation_set)
    model.set_test_metadata(metadata)
    model.generalized, model.copy_paste = test.GENERALIZED, test.COPY_PASTE
    model.test_topk_per_image = len(arrays[f"{mode}.inst0.scores"])
    if not test.COPY_PASTE:
        assert model.test_topk_per_image == cfg.TEST.DETECTIONS_PER_IMAGE


def direct_inputs(direct: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits from their description in the file."""
    factor, name, q, k = re.fullmatch(r"(\S+)\*normal\((\S+), \[(\d+),(\d+)\]\)", direct["mask_cls"]).groups()
    classes = float(factor) * normal(name, (int(q), int(k)))
    factor, name, q, r, fine_factor, fine_name = re.fullmatch(
        r"(\S+)\*normal\((\S+), \[(\d+),h,w\]\) repeated (\d+)x\d+, plus (\S+)\*normal\((\S+), \[\.\.,\d+h,\d+w\]\)",
        direct["mask_pred"],
    ).groups()
    q, r, h, w = int(q), int(r), direct["h"], direct["w"]
    masks = (float(factor) * normal(name, (q, h, w))).repeat_interleave(r, 1).repeat_interleave(r, 2)
    return classes, masks + float(fine_factor) * normal(fine_name, (q, r * h, r * w))


# ---- the classifier alone


HEAD = load("d2zero_head") if (GOLDEN / "d2zero_head.npz").is_file() else ({}, {"cases": []})


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """A filled decoder for each split."""
    info, folder = HEAD[1], tmp_path_factory.mktemp("texts")
    result = {}
    for split in sorted({case["split"] for case in info["cases"]}):
        cfg = d2zero_cfg(f"d2zero_{split}_w2v.yaml", {"MODEL.MASK_FORMER.TRANS_DROP_OUT_RATE": 0.0}, folder)
        predictor = build_transformer_decoder(cfg, cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM)
        result[split] = fill_model(predictor, info["prefix"], info["salt"])
    return result


@pytest.mark.parametrize("case", HEAD[1]["cases"], ids=lambda case: f"{case['split']}-{case['case']}")
def test_classifier(predictors, case):
    """Background in both images, one, none, or every pixel; texts of training and of evaluation."""
    arrays, info = HEAD
    predictor, name = predictors[case["split"]], f"{case['split']}.{case['case']}"
    features = torch.from_numpy(arrays[f"{name}.mask_features"])
    for mode in ("train", "eval"):
        predictor.train(mode == "train").zero_grad()
        # The file stores queries before images.
        state = normal(case["state"], arrays[f"{name}.{mode}.grad_state"].shape, requires_grad=True)
        embed = predictor.decoder_norm(state.transpose(0, 1))
        kernels = predictor.mask_embed(embed)
        masks = torch.einsum("bqc,bchw->bqhw", kernels, features)
        assert (masks <= 0).all(1).sum((1, 2)).tolist() == case["background_pixels"]
        assert_close(masks, arrays[f"{name}.masks"], what="masks")
        logits = predictor.classify(embed, masks, features, last=True)
        assert_close(logits, arrays[f"{name}.{mode}.logits"], what=f"logits, {mode}")
        upstream = re.fullmatch(r"sum\(logits\*normal\((.*)\)\)", case["grad_of"])[1].replace("<mode>", mode)
        (logits * normal(upstream, logits.shape)).sum().backward()
        assert_close(state.grad, arrays[f"{name}.{mode}.grad_state"], what=f"gradient of the queries, {mode}")
        if mode == "train":
            check_grads(predictor, arrays, f"{name}.", {})
    size = case["attention_target_size"]
    resized = torch.nn.functional.interpolate(features, size, mode="bilinear", align_corners=False).flatten(2)
    masked = predictor.attention_mask(kernels, resized).unsqueeze(1)
    packed = arrays[f"{name}.attention_mask_packed"]
    heads = 8 * len(packed) // masked.numel()  # recorded once for each attention head
    want = unpack(packed, (len(masked), heads, *masked.shape[2:]))
    assert np.array_equal(np.broadcast_to(masked.numpy(), want.shape), want)
