"""The frozen image encoder of CLIP as a backbone."""

from collections.abc import Collection

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F

from frozenclip.encoder import STRIDES, ImageEncoder
from PADing.data.clip_models import HUB, ClipModel, clip_folder
from PADing.errors import UserError

NAMES = ("res2", "res3", "res4", "res5")
NAME_KEY, WEIGHTS_KEY = "MODEL.FROZENCLIP.NAME", "MODEL.FROZENCLIP.PRETRAINED"
PIXEL_KEYS = ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT")


def clip_of(cfg: CfgNode) -> ClipModel:
    """The CLIP model of a config; UserError if there is none of this name."""
    return ClipModel.of(cfg.MODEL.FROZENCLIP.NAME, cfg.MODEL.FROZENCLIP.PRETRAINED, NAME_KEY)


def names_weights(cfg: CfgNode) -> bool:
    """Whether a config says where the weights of CLIP are: by a tag, a file, a folder, or on the Hub."""
    clip = clip_of(cfg)
    return bool(cfg.MODEL.FROZENCLIP.PRETRAINED or clip.folder or clip.name.startswith(HUB))


def load_encoder(encoder: ImageEncoder, cfg: CfgNode) -> None:
    """Load the weights that a config names; those of a tag or on the Hub are downloaded. UserError if that fails."""
    encoder.load(encoder.clip.weights_file(cfg.MODEL.FROZENCLIP.PRETRAINED, WEIGHTS_KEY), WEIGHTS_KEY)


@BACKBONE_REGISTRY.register()
class FrozenCLIPBackbone(Backbone):
    """CLIP's convolutional image encoder, frozen: four maps for the pixel decoder, embeddings of regions for classes.

    The input is (B, 3, H, W) of any size. State-dict keys: ``encoder.visual.*`` as in open_clip's checkpoints,
    ``encoder.logit_scale``. Building it downloads nothing; a training loads the weights that the config names, unless
    ``MODEL.WEIGHTS`` has them, and checkpoints hold them.

    Raises:
        UserError: see :class:`ImageEncoder`.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.encoder = ImageEncoder(clip_of(cfg))
        self._out_features = list(NAMES)
        self._out_feature_strides = dict(zip(NAMES, STRIDES, strict=True))
        self._out_feature_channels = dict(zip(NAMES, self.encoder.channels, strict=True))

    @classmethod
    def adapt_config(cls, cfg: CfgNode, given: Collection[str]) -> list[str]:
        """Set pixel mean, standard deviation and channel order to those of CLIP, in place.

        For FrozenCLIP, its file of text embeddings becomes the model's file of class embeddings.

        ``given``: the keys of the command line, which may not contradict. Returns one sentence for each mistake.
        """
        name, node = cfg.MODEL.FROZENCLIP.NAME, cfg.MODEL.FROZENCLIP
        if cfg.MODEL.META_ARCHITECTURE == "FrozenCLIP" and node.CLASS_EMBEDDINGS:
            cfg.MODEL.CLASS_EMBEDDINGS, cfg.MODEL.MASK_FORMER.VEC_PATH = node.CLASS_EMBEDDINGS, None
            node.CLASS_EMBEDDINGS = ""  # one key names the file, which a shared model brings along
        if "/" in name and not name.startswith(HUB) and not clip_folder(name):
            return []  # a folder that is not there yet; building the model refuses it
        try:
            clip = clip_of(cfg)
        except UserError as error:
            return [str(error)]
        mean, std = ([round(255 * x, 3) for x in values] for values in (clip.mean, clip.std))
        problems = []
        for key, own in zip(PIXEL_KEYS, (mean, std, "RGB"), strict=True):
            node, last = cfg.MODEL if key.startswith("MODEL.") else cfg.INPUT, key.rpartition(".")[2]
            if key in given and node[last] != own:
                problems.append(f"{key} is {node[last]}, but CLIP {clip.label} was trained with {own}. Leave it out.")
            node[last] = own
        return problems

    def load_pretrained(self, cfg: CfgNode) -> None:
        """Load the weights that the config names, if it names some."""
        if names_weights(cfg):
            load_encoder(self.encoder, cfg)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> name: (B, C, H / stride, W / stride), sizes rounded up. Nothing carries a gradient."""
        height, width = x.shape[-2:]
        padding = (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])
        maps = self.encoder.maps(F.pad(x, padding) if any(padding) else x)
        return {
            name: found[..., : -(-height // stride), : -(-width // stride)]
            for name, stride, found in zip(NAMES, STRIDES, maps, strict=True)
        }

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return STRIDES[-1]
