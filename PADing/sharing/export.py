"""Makes a folder to share of a finished training: weights, config, classes, class embeddings, metrics, model card."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from PADing.checkpoint_files import read_checkpoint, weights_problem, write_checkpoint
from PADing.class_space import ClassSpace
from PADing.config import load_config
from PADing.data.embeddings import embedding_source, resolve_embedding_path, save_class_embeddings
from PADing.data.registration import registered_split
from PADing.data.splits import DataSet, Split
from PADing.engine.weight_average import averaged_weights, choice_of_weights
from PADing.errors import UserError
from PADing.files import read_json, replacing, replacing_folder, write_json
from PADing.inference import load_model
from PADing.meta_arch.class_embeddings import ClassEmbeddings
from PADing.sharing.card import Facts, model_card
from PADing.sharing.classes import write_classes
from PADing.sharing.config_values import config_to_share
from PADing.sharing.layout import CARD, CLASSES, CONFIG, EMBEDDINGS, METRICS, WEIGHTS, is_shared, write_marker
from PADing.sharing.reading import BUILT_IN

logger = logging.getLogger(__name__)

_FOLDERS = re.compile(r"(?<![\w:/.])(~?/|[A-Za-z]:[\\/])([^\s,;()]*[\\/])?")  # in front of a file's name


def share_model(
    training: str | os.PathLike,
    output: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    opts: Sequence = (),
    license_name: str = "",
    description: str = "",
    hub_name: str = "",
    without_metrics: bool = False,
    overwrite: bool = False,
) -> Path:
    """Make a folder that ``PADing.inference.from_pretrained`` loads on any machine, without a data set.

    Args:
        training: the folder of a finished training (``OUTPUT_DIR``).
        output: the folder to make; it appears when it is complete and its model has been loaded.
        weights: the checkpoint; None: ``model_final.pth`` of the training.
        opts: overrides of the training's config, for paths that have changed since.
        license_name: such as ``mit``, for the model card.
        description: a paragraph for the model card.
        hub_name: ``OWNER/NAME`` on the Hub, for the model card.
        without_metrics: the training has no ``results.json``.
        overwrite: replace a shared model that ``output`` holds.

    Raises:
        UserError: no finished training, no metrics, damaged weights, missing class embeddings, classes without a split
            file, weights that do not fit the config, or an ``output`` that exists.
    """
    training, output = Path(training), Path(output)
    cfg, checkpoint, metrics = _read_training(training, weights, opts, without_metrics)
    if output.exists() and output.resolve() == training.resolve():
        raise UserError(f"--output {output} is the folder of the training. Choose another one.")
    split, train, tests = _classes(cfg)
    content = read_checkpoint(checkpoint, "Checkpoint")
    if "model" not in content:
        raise UserError(f"Checkpoint {checkpoint} has no entry `model`. Name one that train_net.py has written.")
    # Those that evaluation has used, so that the metrics are theirs.
    average = averaged_weights(content, choice_of_weights(cfg, training=False), str(checkpoint))
    if average is not None:
        content["model"] = dict(average)
        if problem := weights_problem(content):
            raise UserError(f"Checkpoint {checkpoint} cannot be used: {problem}.")
    _check_output(output, overwrite)
    with replacing_folder(output) as folder:
        write_checkpoint(folder / WEIGHTS, content)
        source = _copy_embeddings(cfg, folder / EMBEDDINGS)
        write_classes(folder / CLASSES, split, [*train, *tests])
        shared = config_to_share(cfg, train, tests, bool(source))
        _write_text(folder / CONFIG, yaml.safe_dump(shared, sort_keys=True, allow_unicode=True))
        if metrics is not None:
            write_json(folder / METRICS, metrics, indent=2)
        foreign = [name for name in shared["PLUGINS"] if name.split(".")[0] not in BUILT_IN]
        space = ClassSpace.of(MetadataCatalog.get(tests[0].name))
        facts = Facts(
            name=hub_name or output.resolve().name, loaded_by=hub_name or output.resolve().name, cfg=cfg, space=space,
            metrics=metrics, embeddings=source, license_name=license_name, description=description, plugins=foreign,
        )  # fmt: skip
        _write_text(folder / CARD, model_card(facts))
        write_marker(folder)
        _try(cfg, folder, bool(source), tests[0].name)
    logger.info("%s: model of %s, %d classes", output, training, len(space))
    return output


def _read_training(
    training: Path, weights: str | os.PathLike | None, opts: Sequence, without_metrics: bool
) -> tuple[CfgNode, Path, dict | None]:
    """Config, checkpoint and metrics of a finished training."""
    if not training.is_dir():
        raise UserError(f"Training folder {training} {'is a file' if training.exists() else 'does not exist'}.")
    if is_shared(training):
        raise UserError(f"{training} is a shared model already. Name it as --output, without --training.")
    if not (training / CONFIG).is_file():
        raise UserError(f"{training} is not the folder of a training: it has no {CONFIG}. Name its OUTPUT_DIR.")
    checkpoint = Path(weights) if weights else training / "model_final.pth"
    if not weights and not checkpoint.is_file():
        others = sorted(path.name for path in training.glob("model_*.pth"))
        hint = f" It has {others[-1]}: name it with --weights." if others else ""
        raise UserError(f"{training} has no model_final.pth, so the training did not finish.{hint}")
    metrics = None
    if (training / METRICS).is_file():
        metrics = read_json(training / METRICS, "Metrics")
    elif not without_metrics:
        cure = f"Evaluate the model (train_net.py --eval-only with OUTPUT_DIR {training}), or add --without-metrics."
        raise UserError(f"{training} has no {METRICS}, which the model card needs. {cure}")
    return load_config(training / CONFIG, opts), checkpoint, metrics


def _classes(cfg: CfgNode) -> tuple[Split, list[DataSet], list[DataSet]]:
    """The split of the training set, and the data sets for training and evaluation that belong to it."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    splits = {name: registered_split(name) for name in names}
    split = splits[names[0]] if cfg.DATASETS.TRAIN else None
    if split is None:
        cure = "Make one with tools/make_split.py, and name it: DATASETS.SPLIT_FILES FILE."
        raise UserError(f"The classes of DATASETS.TRAIN {list(cfg.DATASETS.TRAIN)} come from no split file. {cure}")
    kept: dict[str, DataSet] = {}
    for name, other in splits.items():
        if other and (other.categories, other.seen, other.unseen) == (split.categories, split.seen, split.unseen):
            kept[name] = other.data_set(name)
        else:
            logger.warning("%s has other classes than the training set, so it is left out.", name)
    train, tests = ([kept[name] for name in cfg.DATASETS[key] if name in kept] for key in ("TRAIN", "TEST"))
    if not tests:
        raise UserError("DATASETS.TEST names no set of the training's split, but its classes are those of the results.")
    return split, train, tests


def _copy_embeddings(cfg: CfgNode, path: Path) -> str:
    """Write the class embeddings that the config or its split names; returns their source, "" if none are named.

    UserError if the config names a file that is missing or does not fit. The default of a split may be missing, because
    a method may need none.
    """
    named = cfg.MODEL.MASK_FORMER.VEC_PATH is not None or bool(cfg.MODEL.CLASS_EMBEDDINGS)
    space = ClassSpace.of_config(cfg)
    try:
        resolve_embedding_path(cfg)
    except UserError:
        if named:
            raise
        return ""
    embeddings = ClassEmbeddings.of_config(cfg, space)
    source, templates = embedding_source(embeddings.path)
    source = _FOLDERS.sub("", source)
    save_class_embeddings(path, space.vocabulary, embeddings.of(space.vocabulary).numpy(), source, templates)
    return source


def _try(cfg: CfgNode, folder: Path, with_embeddings: bool, test: str) -> None:
    """Load the model with the files of the new folder alone; UserError if they do not fit."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.DATASETS.TEST = str(folder / WEIGHTS), "cpu", (test,)
    cfg.MODEL.WEIGHTS_FROM = "model"  # the file has one kind
    path = str(folder / EMBEDDINGS) if with_embeddings else ""
    by_vectors = cfg.MODEL.MASK_FORMER.VEC_PATH is not None
    cfg.MODEL.MASK_FORMER.VEC_PATH = path if by_vectors and path else None
    cfg.MODEL.CLASS_EMBEDDINGS = "" if by_vectors else path
    cfg.freeze()
    load_model(cfg)


def _check_output(output: Path, overwrite: bool) -> None:
    """UserError if something is at ``output`` that may not be replaced."""
    empty = output.is_dir() and not output.is_symlink() and not any(output.iterdir())
    if output.exists() and not empty:
        if not output.is_dir() or output.is_symlink() or not is_shared(output):
            raise UserError(f"--output {output} exists and is no shared model, so it is not replaced. Choose another.")
        if not overwrite:
            raise UserError(f"--output {output} holds a shared model. Choose another, or add --overwrite.")


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
