"""Runs a frozen segmenter on a data set and writes a feature folder, shard by shard; a stopped run goes on."""

import hashlib
import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

from PADing.class_space import ClassSpace
from PADing.data.dataset_mappers import build_mapper
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.engine.recipes import Precision
from PADing.engine.rng import seeded_rng
from PADing.engine.stream import POSITION, build_stream_loader
from PADing.engine.trainer import Trainer
from PADing.errors import UserError
from PADing.features.folder import IMAGES, data_hash, images_of
from PADing.features.header import HEADER, Header, read_header, write_header
from PADing.features.masks import encoded
from PADing.features.model import check_second_stage, folder_path, segmenter_hash
from PADing.features.shards import read_shard, shard_path, write_shard
from PADing.files import explain_os_error, write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["MATCHING", "frozen_model", "write_features"]

logger = logging.getLogger(__name__)

# Records of a shard; images of "val" have masks.
TRAIN_RECORDS, VAL_RECORDS = 1024, 32
MATCHING, SAMPLING = 30, 31  # keys of random numbers, beside seed and position
LOCK = "features.lock"
_Record = dict[str, Any]


def write_features(
    cfg: CfgNode, output: str | Path, part: str, *, passes: int = 1, unmatched: int = 0, dtype: str = "float16",
    masks: str = "float16", overwrite: bool = False,
) -> Header:  # fmt: skip
    """Write the features of the first data set of ``DATASETS.TEST`` ("val"), or of all of ``DATASETS.TRAIN`` ("train").

    "train" holds the images in the order and with the augmentation of a training with the config's ``SEED``, and with
    its batches: ``passes`` times the data set. Matching draws random points; here they depend on seed and
    position alone.

    Args:
        cfg: of a second stage; ``MODEL.WEIGHTS`` has the segmenter.
        output: the folder.
        part: "train" or "val".
        passes: over the training set, each with another augmentation.
        unmatched: queries without a class to store for each training image, drawn evenly; 0: all.
        dtype: of features and logits.
        masks: encoding of the masks of "val", see ``PADing.features.masks``.
        overwrite: replace the features of another config.

    Raises:
        UserError: the model is no second stage, wrong weights, another folder's features, a folder in use, disk full.
    """
    check_second_stage(cfg)
    folder = folder_path(output)
    cfg = cfg.clone()
    cfg.defrost()
    # Batches of consecutive positions; all images of an evaluation.
    cfg.DATALOADER.ASPECT_RATIO_GROUPING, cfg.TEST.MAX_IMAGES, cfg.SEED = False, 0, max(cfg.SEED, 0)
    cfg.INPUT.ON_CORRUPT = "fatal"
    cfg.freeze()
    names = list(cfg.DATASETS.TRAIN) if part == "train" else list(cfg.DATASETS.TEST[:1])
    if not names:
        raise UserError(f"DATASETS.{'TRAIN' if part == 'train' else 'TEST'} is empty. Name a data set.")
    records: Any = get_detection_dataset_dicts(
        names, filter_empty=part == "train" and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    if not len(records):
        raise UserError(f"The data set {', '.join(names)} has no image.")
    model, images = frozen_model(cfg), images_of(records)
    train = part == "train"
    space, text = ClassSpace.of_config(cfg), _config_text(cfg)
    header = Header(
        part=part,
        data_set=",".join(names),
        data_sha256=data_hash(images),
        images=len(images),
        passes=passes if train else 1,
        records_per_shard=_rounded(TRAIN_RECORDS, cfg.SOLVER.IMS_PER_BATCH) if train else VAL_RECORDS,
        seed=cfg.SEED,
        classes=space.vocabulary,
        unseen=space.unseen_names,
        queries=model.num_queries,
        width=cfg.MODEL.MASK_FORMER.HIDDEN_DIM,
        dtype=dtype,
        unmatched=min(unmatched, model.num_queries) if train else 0,
        masks="" if train else masks,
        weights_sha256=segmenter_hash(model),
        architecture=cfg.MODEL.META_ARCHITECTURE,
        config_sha256=hashlib.sha256(text.encode()).hexdigest(),
        config=text,
    )
    with _only_writer(folder):
        waiting = _begin(folder, header, images, overwrite)
        logger.info("%s: %d of %d shards are to be written.", folder, len(waiting), header.shards)
        if waiting:
            run = _training_records if train else _validation_records
            _write(folder, header, waiting, run(cfg, model, header, records, min(waiting)))
    return header


def frozen_model(cfg: CfgNode) -> Any:
    """The model of a second stage with the weights that it starts from."""
    model: Any = Trainer.build_model(cfg)
    model.begin_second_stage()
    TrainingCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model.eval()


def _config_text(cfg: CfgNode) -> str:
    return CfgNode({"MODEL": cfg.MODEL, "INPUT": cfg.INPUT}).dump()


def _rounded(number: int, batch: int) -> int:
    return -(-number // batch) * batch


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Create the folder and lock it; UserError if another process writes there. The lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(explain_os_error(folder / LOCK, error)) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                cure = "Wait until it ends, or choose another --output."
                raise UserError(f"Another process is writing features to {folder}. {cure}") from None
        yield
    finally:
        os.close(handle)


def _begin(folder: Path, header: Header, images: list[dict], overwrite: bool) -> list[int]:
    """The numbers of the shards that are to be written; UserError if the folder holds other features."""
    if (folder / HEADER).exists():
        try:
            changed = read_header(folder).differences(header)
        except UserError:
            if not overwrite:
                raise
            changed = ["all"]
        if changed and not overwrite:
            raise UserError(
                f"{folder} holds features with another {', '.join(changed)}. Choose another --output, or add "
                "--overwrite to replace them."
            )
        if changed:
            for path in (folder / HEADER, folder / IMAGES, *sorted(folder.glob("shard-*.safetensors"))):
                path.unlink(missing_ok=True)
    elif strangers := sorted(path.name for path in folder.iterdir() if path.name != LOCK and path.name[:1] != "."):
        raise UserError(f"{folder} is not empty, but holds no features: {strangers[0]}. Choose another --output.")
    write_json(folder / IMAGES, images)
    write_header(folder, header)
    waiting = []
    for number in range(header.shards):
        try:
            if shard_path(folder, number).exists():
                read_shard(folder, header, number)
                continue
        except UserError as error:
            logger.warning("%s It is written again.", error)
        waiting.append(number)
    return waiting


def _write(folder: Path, header: Header, waiting: list[int], records: Iterator[tuple[int, _Record]]) -> None:
    """Write the waiting shards of records in ascending order; those of other shards are passed over."""
    from tqdm import tqdm

    wanted, kept = set(waiting), list[_Record]()
    for record, arrays in tqdm(
        records, total=header.records, initial=header.records_of(min(waiting)).start, unit="image"
    ):
        number = record // header.records_per_shard
        if number not in wanted:
            continue
        kept.append(arrays)
        if record == header.records_of(number)[-1]:
            write_shard(folder, header, number, _together(header, kept))
            kept = []


def _together(header: Header, records: list[_Record]) -> dict[str, np.ndarray]:
    """The tensors of a shard."""
    images = np.array([record.pop("image") for record in records], dtype=np.int64)
    if header.part == "train":
        rows = np.cumsum([0, *(len(record["class"]) for record in records)]).astype(np.int64)
        parts = {name: np.concatenate([record[name] for record in records]) for name in ("features", "class", "query")}
        return {**parts, "offset": rows, "image": images}
    blobs: list[bytes] = [record.pop("masks") for record in records]
    places = np.cumsum([0, *map(len, blobs)]).astype(np.int64)
    names = [name for name, value in records[0].items() if value is not None]
    parts = {name: np.stack([record[name] for record in records]) for name in names}
    return {**parts, "image": images, "mask_place": places, "masks": np.frombuffer(bytearray().join(blobs), np.uint8)}


@torch.no_grad()
def _training_records(
    cfg: CfgNode, model: Any, header: Header, _: Any, first_shard: int
) -> Iterator[tuple[int, _Record]]:
    """Record number and rows of each view, from the first waiting shard on."""
    loader = build_stream_loader(cfg, build_mapper(cfg))
    start = header.records_of(first_shard).start
    loader.samplers[0].next = start
    precision, model = (
        Precision(cfg, model.device),
        model.train(),
    )  # as in the training; the segmenter stays in eval mode
    for batch in itertools.islice(loader, -(-(header.records - start) // cfg.SOLVER.IMS_PER_BATCH)):
        with seeded_rng(MATCHING, header.seed, batch[0][POSITION]), precision.autocast():
            features, classes, _, _ = model.match(batch)
        features, classes = features.float().cpu().numpy(), classes.cpu().numpy()
        for sample, own, labels in zip(batch, features, classes, strict=True):
            position = sample[POSITION]
            if position < header.records:
                yield position, {"image": loader.stream.index(position), **_rows(header, own, labels, position)}


def _rows(header: Header, features: np.ndarray, classes: np.ndarray, position: int) -> Mapping[str, np.ndarray]:
    """The stored queries of an image, see ``PADing.features.folder``: matched ones first if others are sampled."""
    labels = np.where(classes < len(header.classes), classes, -1).astype(np.int32)
    chosen = np.arange(len(labels))
    if header.unmatched:
        draws, others = np.random.default_rng([SAMPLING, header.seed, position]), np.flatnonzero(labels < 0)
        chosen = np.concatenate([np.flatnonzero(labels >= 0), draws.permutation(others)[: header.unmatched]])
    return {"features": features[chosen], "class": labels[chosen], "query": chosen.astype(np.int32)}


@torch.no_grad()
def _validation_records(
    cfg: CfgNode, model: Any, header: Header, records: list[dict], first_shard: int
) -> Iterator[tuple[int, _Record]]:
    """Record number and outputs of each image, from the first waiting shard on."""
    from detectron2.data import build_detection_test_loader

    start = header.records_of(first_shard).start
    loader = build_detection_test_loader(
        list(records)[start:], mapper=build_mapper(cfg, is_train=False), num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    for record, batch in enumerate(loader, start):
        images = model.preprocess(batch)
        outputs = model.segment(images)
        masks, levels = encoded(outputs["pred_masks"][0].float().cpu().numpy(), header.masks)
        own, sizes = batch[0], images.image_sizes[0]
        result = (own.get("height", sizes[0]), own.get("width", sizes[1]))
        yield (
            record,
            {
                "image": record,
                "features": outputs["pred_embed"][0].float().cpu().numpy(),
                "logits": outputs["pred_logits"][0].float().cpu().numpy(),
                "masks": masks,
                "levels": levels,
                "mask_size": np.array(outputs["pred_masks"].shape[-2:], dtype=np.int32),
                "size": np.array([tuple(images.tensor.shape[-2:]), tuple(sizes), result], dtype=np.int32),
            },
        )
