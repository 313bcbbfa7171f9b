"""Any model of timm as a backbone: convolutional, hierarchical or a plain ViT."""

import logging
from collections.abc import Collection

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling.backbone.simple_pyramid import SimplePyramid
from PADing.modeling.backbone.timm_models import (
    STRIDES,
    build,
    features,
    make_plan,
    nearest_level,
    pixel_values,
    pretrained_cfg,
    stage_modules,
    timm_library,
)
from PADing.modeling.recompute import recompute, repeated_blocks

logger = logging.getLogger(__name__)

# Keys that the backbone decides, unless MODEL.TIMM.NORMALIZATION is "config".
PIXEL_KEYS = ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT")
WHOLE = 5  # MODEL.TIMM.FROZEN


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A model of timm, whose weights have timm's own names behind ``model.``; all keys are in ``MODEL.TIMM``.

    The input is (B, 3, H, W) of any size. A hierarchical model gives its maps of strides 4, 8, 16 and 32 as res2 to
    res5. A plain ViT gives one map, or four of different depth, of which :class:`SimplePyramid` makes res2 to res5.
    Images are padded to a multiple that the model can take. A model that takes one size only gets resized images, and
    its maps are resized back.

    Raises:
        UserError: timm has no such model; it gives no maps of these strides; a key does not fit it.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        node = cfg.MODEL.TIMM
        self.name = node.NAME
        self.plan = plan = make_plan(node.NAME, node.OUT_INDICES, node.DROP_PATH, node.IMAGE_SIZE)
        self.model = build(node.NAME, plan)
        level = nearest_level(plan.patch) if plan.plain else 0
        strides = STRIDES if plan.plain else tuple(plan.strides)
        names = [f"res{stride.bit_length() - 1}" for stride in strides]
        self._out_features = names
        self._out_feature_strides = dict(zip(names, strides, strict=True))
        self.pyramid: SimplePyramid | None = None
        if plan.plain:
            widths = plan.channels * (len(names) // len(plan.channels))
            self.pyramid = SimplePyramid(widths, level, self._out_feature_strides)
            self._out_feature_channels = self.pyramid.channels
        else:
            self._out_feature_channels = dict(zip(names, plan.channels, strict=True))
        # A plain model with patches of 14 pixels sees a smaller image, so that its map has the stride 16.
        self._scale = plan.patch / level if plan.plain else 1.0
        for block in self.recomputable() if node.USE_CHECKPOINT else ():
            recompute(block)
        self._frozen = self._freeze(node.FROZEN, node.FREEZE_BATCH_NORM)
        self._log()

    @classmethod
    def adapt_config(cls, cfg: CfgNode, given: Collection[str]) -> list[str]:
        """Set the pixel mean, pixel standard deviation and channel order that the model expects, in place.

        Args:
            cfg: a config that is not frozen.
            given: keys that the command line sets. They may not contradict the model.

        Returns:
            one sentence for each mistake.
        """
        name = cfg.MODEL.TIMM.NAME
        try:
            mean, std = pixel_values(name)
        except UserError as error:
            return [str(error)]
        problems = []
        if cfg.MODEL.TIMM.PRETRAINED and not cfg.MODEL.TIMM.WEIGHTS and not pretrained_cfg(name).has_weights:
            problems.append(f"MODEL.TIMM.PRETRAINED is True, but timm has no weights of {name}. Set it to False.")
        if cfg.MODEL.TIMM.NORMALIZATION != "timm":
            return problems
        for key, own in zip(PIXEL_KEYS, (mean, std, "RGB"), strict=True):
            node = cfg.MODEL if key.startswith("MODEL.") else cfg.INPUT
            last = key.rpartition(".")[2]
            if key in given and node[last] != own:
                problem = f"{key} is {node[last]}, but timm's {name} was made for {own}."
                problems.append(f"{problem} Leave it out, or set MODEL.TIMM.NORMALIZATION config to use your own.")
            node[last] = own
        return problems

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> name: (B, width, H / stride, W / stride), sizes rounded up."""
        height, width = x.shape[-2:]
        maps = features(self.model, self._fitted(x), self.plan.indices, self.plan.norm)
        outputs = self.pyramid(maps) if self.pyramid is not None else dict(zip(self._out_features, maps, strict=True))
        for name, stride in self._out_feature_strides.items():
            size = -(-height // stride), -(-width // stride)
            if self.plan.fixed:
                outputs[name] = F.interpolate(outputs[name], size, mode="bilinear", align_corners=False)
            else:
                outputs[name] = outputs[name][..., : size[0], : size[1]].contiguous()
        return outputs

    def _fitted(self, x: Tensor) -> Tensor:
        """Images as the model can take them."""
        if self.plan.fixed:
            size = (self.plan.fixed, self.plan.fixed)
            return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        multiple = round(self.plan.multiple / self._scale)
        padding = (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple)
        x = F.pad(x, padding) if any(padding) else x
        if self._scale == 1:
            return x
        size = round(x.shape[2] * self._scale), round(x.shape[3] * self._scale)
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return STRIDES[-1]

    def train(self, mode: bool = True) -> "TimmBackbone":
        """As in ``nn.Module``, but frozen parts stay in evaluation mode, with fixed statistics and no dropout."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    # ---- what the optimizer asks for

    def learning_rate_factors(self, multiplier: float, decay: float) -> dict[str, float]:
        """Parameter -> factor of the base learning rate: ``multiplier * decay ** (layers behind it)``.

        The pyramid is new, so it gets the rate of the head, 1. UserError if timm does not tell the model's layers.
        """
        depths: dict[str, int] = {}
        if decay != 1:
            try:
                matcher = self.model.group_matcher(coarse=False)  # type: ignore[operator]
                depths = timm_library().models.group_parameters(self.model, matcher, reverse=True)
            except (AttributeError, TypeError, AssertionError) as error:
                wrong = f"SOLVER.BACKBONE_LAYER_DECAY is {decay}, but timm does not tell the layers of {self.name}."
                raise UserError(f"{wrong} Set it to 1.") from error
        last = max(depths.values(), default=0)
        factors = {f"model.{name}": multiplier * decay ** (last - depth) for name, depth in depths.items()}
        return {
            name: 1.0 if name.startswith("pyramid.") else factors.get(name, multiplier)
            for name, _ in self.named_parameters()
        }

    def undecayed(self) -> set[str]:
        """Parameters without weight decay, as timm says: position tables, class tokens."""
        names = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()  # type: ignore[operator]
        return {f"model.{name}" for name in names}

    # ----

    def recomputable(self) -> list[nn.Module]:
        """The parts for activation checkpointing: blocks; UserError if the model has none."""
        if found := repeated_blocks(self):
            return found
        wrong = f"MODEL.BACKBONE.ACTIVATION_CHECKPOINTING is True, but timm's {self.name} cannot recompute activations"
        raise UserError(f"{wrong}: it has no blocks. Set it (or MODEL.TIMM.USE_CHECKPOINT) to False.")

    def _freeze(self, levels: int, batch_norm: bool) -> list[nn.Module]:
        """Stop training the first ``levels`` parts, and all batch norms if asked; returns the frozen modules."""
        names = [name for name, _ in self.model.named_parameters()]
        if 0 < levels < WHOLE:
            names = names[: self._parameters_before(levels)]
        for name in names if levels else ():
            self.model.get_parameter(name).requires_grad_(False)
        norms: list[nn.Module] = []
        if batch_norm:
            norms = [x for x in self.model.modules() if isinstance(x, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.requires_grad_(False)
        return [*([self.model] if levels >= WHOLE else _whole_frozen(self.model)), *norms]

    def _parameters_before(self, levels: int) -> int:
        """How many parameters, in their order, the first ``levels`` parts have; UserError if timm does not tell."""
        modules = stage_modules(self.model)
        there = {name for name, _ in self.model.named_modules()}
        if unknown := [modules[index] for index in self.plan.indices if modules[index] not in there]:
            wrong = f"MODEL.TIMM.FROZEN is {levels}, but timm does not tell the stages of {self.name}"
            raise UserError(f"{wrong}: it has no part {unknown[0]}. Set it to 0, or to {WHOLE} for the whole model.")
        return _stages_of(self.model, modules, self.plan.indices, self.plan.plain)[levels - 1]

    def _log(self) -> None:
        given = ", ".join(f"{name} ({self._out_feature_channels[name]} channels)" for name in self._out_features)
        sizes = f"resized to {self.plan.fixed} x {self.plan.fixed}" if self.plan.fixed else "of any size"
        logger.info("timm's %s gives %s; images are %s.", self.name, given, sizes)


def _stages_of(model: nn.Module, modules: list[str], indices: list[int], plain: bool) -> list[int]:
    """For ``FROZEN`` 1 to 4: how many of the parameters, in their order, belong to the stem and the first stages.

    Args:
        model: of timm.
        modules: the name of the part that gives each of timm's features.
        indices: of the features that are taken.
        plain: they all have one stride.
    """
    names = [name for name, _ in model.named_parameters()]
    first = modules[indices[0]]
    if plain:  # stem, and three quarters of the blocks
        count = indices[-1] + 1
        ends = [modules[max(round(count * quarter / 4) - 1, 0)] for quarter in (1, 2, 3)]
    else:
        ends = [modules[index] for index in indices[:-1]]
    root = first.partition(".")[0]
    stem = next((i for i, name in enumerate(names) if name.startswith(f"{root}.")), 0)
    places = [stem]
    order, done = [name for name, _ in model.named_modules()], set[str]()
    for end in ends:  # it may have no parameters itself, as a pooling
        last = max(i for i, name in enumerate(order) if f"{name}.".startswith(f"{end}."))
        done.update(order[: last + 1])
        places.append(sum(name.rpartition(".")[0] in done for name in names))
    return [*places, *[places[-1]] * (4 - len(places))]


def _whole_frozen(module: nn.Module) -> list[nn.Module]:
    """The outermost modules with parameters, none of which is trained."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return [module]
    return [frozen for child in module.children() for frozen in _whole_frozen(child)]
