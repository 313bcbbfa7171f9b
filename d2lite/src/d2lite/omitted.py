"""One clear error for the parts of Detectron2 that the stand-in leaves out."""

import sys
from collections.abc import Callable

ADVICE = (
    "d2lite, the stand-in for Detectron2, leaves it out. "
    "Install the genuine Detectron2 (main branch) to use it; `python -m d2lite` says which one is in use."
)

# Module -> names that the genuine module has and published code asks for.
OMITTED = {
    "detectron2": "model_zoo export tracking",
    "detectron2.checkpoint": "catalog ModelCatalog ModelCatalogHandler",
    "detectron2.config": "LazyConfig LazyCall instantiate downgrade_config upgrade_config",
    "detectron2.data": "load_proposals_into_dataset",
    "detectron2.data.datasets": (
        "get_lvis_instances_meta load_lvis_json load_voc_instances register_lvis_instances register_pascal_voc"
    ),
    "detectron2.data.samplers": "GroupedBatchSampler RandomSubsetTrainingSampler",
    "detectron2.data.transforms": (
        "ColorTransform ExtentTransform GridSampleTransform MinIoURandomCrop PILColorTransform RandomApply "
        "RandomBrightness RandomContrast RandomExtent RandomLighting RandomResize RandomRotation RandomSaturation "
        "RotationTransform"
    ),
    "detectron2.engine": "AutogradProfiler TorchProfiler TorchMemoryStats",
    "detectron2.engine.hooks": "AutogradProfiler TorchProfiler TorchMemoryStats",
    "detectron2.evaluation": (
        "CityscapesInstanceEvaluator CityscapesSemSegEvaluator LVISEvaluator PascalVOCDetectionEvaluator "
        "RotatedCOCOEvaluator"
    ),
    "detectron2.layers": (
        "ASPP BatchNorm2d ConvTranspose2d CycleBatchNormList DeformConv DepthwiseSeparableConv2d Linear "
        "ModulatedDeformConv NaiveSyncBatchNorm ROIAlign ROIAlignRotated ROIPool batched_nms batched_nms_rotated "
        "ciou_loss cross_entropy diou_loss interpolate move_device_like nms nms_rotated nonzero_tuple "
        "paste_masks_in_image"
    ),
    "detectron2.modeling": (
        "ANCHOR_GENERATOR_REGISTRY FPN GeneralizedRCNN GeneralizedRCNNWithTTA PROPOSAL_GENERATOR_REGISTRY PanopticFPN "
        "ROI_BOX_HEAD_REGISTRY ROI_HEADS_REGISTRY ROI_MASK_HEAD_REGISTRY RetinaNet SemanticSegmentor "
        "build_anchor_generator build_proposal_generator build_roi_heads detector_postprocess"
    ),
    "detectron2.modeling.backbone": (
        "FPN MViT RegNet ResNetBlockBase SimpleFeaturePyramid SwinTransformer ViT make_stage"
    ),
    "detectron2.modeling.meta_arch": (
        "FCOS GeneralizedRCNN PanopticFPN ProposalNetwork RetinaNet SemSegFPNHead SemanticSegmentor"
    ),
    "detectron2.modeling.postprocessing": "detector_postprocess",
    "detectron2.modeling.test_time_augmentation": "GeneralizedRCNNWithTTA",
    "detectron2.projects.deeplab": "DeepLabV3Head DeepLabV3PlusHead build_resnet_deeplab_backbone loss resnet",
    "detectron2.projects.point_rend": (
        "CoarseMaskHead ImplicitPointRendMaskHead PointRendMaskHead PointRendSemSegHead StandardPointHead "
        "add_pointrend_config"
    ),
    "detectron2.projects.point_rend.point_features": (
        "generate_regular_grid_point_coords get_point_coords_wrt_image get_uncertain_point_coords_on_grid "
        "point_sample_fine_grained_features sample_point_labels"
    ),
    "detectron2.solver": "WarmupMultiStepLR WarmupCosineLR",  # the deprecated classes; as config names both work
    "detectron2.solver.build": "GradientClipType reduce_param_groups",
    "detectron2.structures": (
        "Keypoints ROIMasks RotatedBoxes heatmaps_to_keypoints pairwise_ioa pairwise_iou_rotated "
        "pairwise_point_box_distance rasterize_polygons_within_box"
    ),
    "detectron2.utils.analysis": "find_unused_parameters flop_count_operators",
    "detectron2.utils.env": "TORCH_VERSION fixup_module_metadata setup_environment",
    "detectron2.utils.registry": "locate",
    "detectron2.utils.visualizer": "GenericMask _PanopticPrediction _create_text_labels",
}


def omitted_names(module: str) -> Callable[[str], object]:
    """A module-level ``__getattr__`` that explains the names of ``module`` in ``OMITTED``.

    It raises ImportError and not AttributeError for those, because ``from module import name`` would replace the
    message of the latter by its own.
    """

    def __getattr__(name: str) -> object:
        if name in OMITTED[module].split():
            raise ImportError(f"{module}.{name} is not available: {ADVICE}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


class _OmittedModules:
    """Last resort of the import system: explains submodules that nothing else has found."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if fullname.startswith(self.package + "."):
            raise ModuleNotFoundError(f"No module named {fullname!r}: {ADVICE}", name=fullname)


def explain_missing_modules(package: str) -> None:
    """Make ``import package.anything_missing`` raise the clear error."""
    if not any(isinstance(f, _OmittedModules) and f.package == package for f in sys.meta_path):
        sys.meta_path.append(_OmittedModules(package))
