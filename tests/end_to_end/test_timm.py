"""One YAML line changes the backbone of a method to a model of timm, from the first iteration to a shared model."""

import numpy as np
import pytest
import torch
import yaml

from PADing.config import load_config
from PADing.data.splits import load_split
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.generation.convert import convert_file
from PADing.inference import from_pretrained
from PADing.sharing.export import share_model
from tests.drawn_mini import drawn_mini

FAMILIES = [
    "convnext_atto", "resnet10t", "swin_s3_tiny_224", "vit_tiny_patch16_224", "efficientnet_b0", "hiera_tiny_224",
    "regnetx_002", "mobilenetv3_small_050", "maxvit_rmlp_pico_rw_256", "vit_small_patch16_dinov3", "pvt_v2_b0",
    "vit_small_patch14_dinov2",
]  # fmt: skip
SMALL = {
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 4,
    "MODEL.MASK_FORMER.DEC_LAYERS": 2,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MODEL.MASK_FORMER.TRANS_MEMORY_NUM_QUERY": 8,
    "INPUT.IMAGE_SIZE": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of a mini data set of a few small images, registered with names that begin with ``timm_``."""
    folder = tmp_path_factory.mktemp("timm") / "mini"
    with drawn_mini(folder, "timm_", train=4, val=1):
        yield folder


def trained(base, name, drawn, out, iterations, *opts):
    """Train with a config of one line after the base, and return the trainer."""
    line = f"MODEL: {{BACKBONE: {{NAME: TimmBackbone}}, TIMM: {{NAME: {name}}}}}\n"
    file = out.parent / f"{out.name}.yaml"
    file.write_text(f"_BASE_: {REPOSITORY / 'configs' / 'mini' / base}\n{line}")
    kind = "instance" if base == "d2zero.yaml" else "panoptic"
    values = {
        **SMALL,
        "DATASETS.TRAIN": (f"timm_mini_train_{kind}",),
        "DATASETS.TEST": (f"timm_mini_val_{kind}",),
        "MODEL.CLASS_EMBEDDINGS": drawn / "class_vectors.npz",
        "SOLVER.MAX_ITER": iterations,
        "OUTPUT_DIR": out,
    }
    cfg = load_config(file, [*(item for pair in values.items() for item in pair), *opts])
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(cfg.dump())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.test = lambda *args, **kwargs: {}  # evaluation is not the subject
    trainer.train()
    return trainer


def test_all_stages_with_a_vit(drawn, tmp_path):
    """Stage 1, conversion, stage 2 on the frozen ViT, and the shared model, which needs no weights of timm's."""
    first = trained("panoptic-pretrain.yaml", "test_vit", drawn, tmp_path / "1", 2)
    converted = tmp_path / "converted.pth"
    split = load_split(drawn / "split.yaml")
    convert_file(tmp_path / "1" / "model_final.pth", converted, "panoptic", [split])
    second = trained(
        "panoptic-PADing.yaml", "test_vit", drawn, tmp_path / "2", 2, "MODEL.WEIGHTS", converted,
        "MODEL.TIMM.PRETRAINED", True,  # not asked for: the file has a backbone
    )  # fmt: skip
    frozen, before = second.model.backbone.state_dict(), first.model.backbone.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in frozen.items())
    shared = share_model(tmp_path / "2", tmp_path / "shared", without_metrics=True)
    predictor = from_pretrained(shared)
    assert predictor(np.zeros((60, 70, 3), np.uint8))["panoptic_seg"][0].shape == (60, 70)
    assert yaml.safe_load((shared / "config.yaml").read_text())["MODEL"]["PIXEL_MEAN"] == [127.5] * 3


def test_a_segmenter_without_backbone_gets_timms(drawn, tmp_path, monkeypatch):
    """MODEL.WEIGHTS of a head alone leaves the backbone to MODEL.TIMM.WEIGHTS; a resumed training reads neither."""
    first = trained("d2zero.yaml", "test_vit", drawn, tmp_path / "1", 1)
    weights = first.model.state_dict()
    head, backbone = tmp_path / "head.pth", tmp_path / "vit.pth"
    torch.save({"model": {k: v for k, v in weights.items() if k.startswith("sem_seg_head.")}}, head)
    torch.save({k.removeprefix("backbone.model."): v for k, v in weights.items() if ".model." in k}, backbone)
    opts = ["MODEL.WEIGHTS", head, "MODEL.TIMM.WEIGHTS", backbone, "SOLVER.BASE_LR", 0.0, "SOLVER.WEIGHT_DECAY", 0.0]
    second = trained("d2zero.yaml", "test_vit", drawn, tmp_path / "2", 1, *opts)
    key = "backbone.model.blocks.0.attn.qkv.weight"
    assert torch.equal(second.model.state_dict()[key], weights[key])
    backbone.unlink()
    again = Trainer(second.cfg)
    again.resume_or_load(resume=True)
    with pytest.raises(UserError, match="do not exist"):
        Trainer(second.cfg).resume_or_load(resume=False)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["panoptic-PADing.yaml", "d2zero.yaml", "panoptic-pretrain.yaml"])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_trains_ten_iterations(name, base, drawn, tmp_path):
    """Each parameter that is trained gets a gradient, so that training on several GPUs does not stop."""
    opts = ["MODEL.MASK_FORMER.RANDOM_SEGMENTER", True] if "PADing" in base else []
    trainer = trained(base, name, drawn, tmp_path / "out", 10, *opts)
    assert trainer.iter == 10
    model = trainer.model
    if "PADing" not in base:
        assert not [key for key, p in model.backbone.named_parameters() if p.requires_grad and p.grad is None]
