#!/usr/bin/env python3
"""Make a file of class embeddings (.npz) once; configs name it under MODEL.CLASS_EMBEDDINGS.

CLIP text vectors of a split's classes, as PADing and D2Zero use them (downloads the weights; --checkpoint is offline):

    python tools/class_embeddings.py clip --split datasets/splits/coco_*.yaml \\
        --output embeddings/coco/coco_clip_vitb16.npz

Word vectors (word2vec, fastText, GloVe; text or binary), and a matrix that exists already:

    python tools/class_embeddings.py words --file glove.840B.300d.txt --split my_split.yaml --output embeddings/mine.npz
    python tools/class_embeddings.py matrix --file vectors.npy --file-names names.json --split my_split.yaml \\
        --output embeddings/mine.npz
"""

import argparse
import logging
import os
import sys

import numpy as np

from PADing.command_line import run_command
from PADing.data.embedding_sources import clip_vectors, matrix_vectors, read_names, word_vectors
from PADing.data.embeddings import CLIP_TEMPLATES, save_class_embeddings
from PADing.data.splits import load_split
from PADing.errors import UserError

logger = logging.getLogger("class_embeddings")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command(run, args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line says; UserError when it cannot be done."""
    names = _names(args)
    texts = dict(_pair(item, names) for item in args.text)
    templates: tuple[str, ...] = ()
    if args.kind == "clip":
        templates = tuple(args.template or CLIP_TEMPLATES)
        vectors = clip_vectors(
            names, args.model, args.pretrained, args.checkpoint, templates, args.precision, texts, args.device
        ).numpy()
        weights = os.path.basename(args.checkpoint) if args.checkpoint else args.pretrained
        source = f"CLIP {args.model}, weights {weights}, text encoder in {args.precision} (open_clip)"
    elif args.kind == "words":
        vectors = word_vectors(names, args.file, texts, args.normalize)
        source = f"word vectors {os.path.basename(args.file)}" + (", unit length" if args.normalize else "")
    else:
        file_names = read_names(args.file_names) if args.file_names else names
        vectors = matrix_vectors(names, args.file, file_names)
        templates = tuple(args.template or ())
        source = args.source or f"matrix {os.path.basename(args.file)}"
    save_class_embeddings(args.output, names, np.asarray(vectors), source, templates)
    logger.info("%s: %d classes x %d, %s", args.output, *vectors.shape, source)


def _names(args: argparse.Namespace) -> list[str]:
    if args.names:
        return read_names(args.names)
    splits = [load_split(file) for file in args.split]
    return list(dict.fromkeys(name for split in splits for name in (*split.seen, *split.unseen)))


def _pair(item: str, names: list[str]) -> tuple[str, str]:
    name, _, text = item.partition("=")
    if name not in names or not text:
        raise UserError(f"--text {item!r} must be NAME=WORDS with the name of a class.")
    return name, text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    which = common.add_mutually_exclusive_group(required=True)
    which.add_argument("--split", nargs="+", help="split files: all their seen and unseen classes")
    which.add_argument("--names", help="class names: a JSON list, or a text file with one name per line")
    common.add_argument("--output", required=True, help="the .npz to write")
    common.add_argument(
        "--text", action="append", default=[], metavar="NAME=WORDS", help="say or look up WORDS for NAME; repeatable"
    )
    kinds = parser.add_subparsers(dest="kind", required=True)

    clip = kinds.add_parser("clip", parents=[common], help="CLIP text encoder, through open_clip")
    clip.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip architecture (default: %(default)s)")
    clip.add_argument("--pretrained", default="openai", help="open_clip weights (default: %(default)s)")
    clip.add_argument("--checkpoint", help="local file of weights; then nothing is downloaded")
    clip.add_argument(
        "--template", action="append", help="prompt with {}; repeatable (default: the 8 of the published models)"
    )
    clip.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="default: %(default)s")
    clip.add_argument("--device", default="cpu", help="default: %(default)s")

    words = kinds.add_parser("words", parents=[common], help="word2vec, fastText or GloVe file")
    words.add_argument("--file", required=True, help="text or binary word vectors, also .gz")
    words.add_argument("--normalize", action="store_true", help="scale every class vector to unit length")

    matrix = kinds.add_parser("matrix", parents=[common], help="existing .npy or .txt matrix")
    matrix.add_argument("--file", required=True, help=".npy (rows are classes), or .txt (column 0 background)")
    matrix.add_argument("--file-names", help="class names of the file in its order (default: those of --split/--names)")
    matrix.add_argument("--source", help="where the matrix comes from, stored in the output")
    matrix.add_argument("--template", action="append", help="prompt it was made with, stored in the output; repeatable")
    return parser


if __name__ == "__main__":
    sys.exit(main())
