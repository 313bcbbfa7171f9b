#!/usr/bin/env python3
"""Make a file of class embeddings (.npz). Configs name it under MODEL.CLASS_EMBEDDINGS.

CLIP text embeddings of a split's classes, as PADing and D2Zero use them (--checkpoint avoids the download):

    python tools/class_embeddings.py clip --split datasets/splits/coco_*.yaml \\
        --output embeddings/coco/coco_clip_vitb16.npz

Word vectors (word2vec, fastText, GloVe; text or binary), or a matrix that you have:

    python tools/class_embeddings.py words --file glove.840B.300d.txt --split my_split.yaml --output embeddings/mine.npz
    python tools/class_embeddings.py matrix --file vectors.npy --file-names names.json --split my_split.yaml \\
        --output embeddings/mine.npz
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import logging
import os
import sys

from PADing.command_line import CommandParser, run_command
from PADing.errors import UserError, did_you_mean

logger = logging.getLogger("class_embeddings")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_command(_run, _parser().parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    import numpy as np

    from PADing.data.clip_models import clip_source
    from PADing.data.embedding_sources import clip_embeddings, matrix_embeddings, read_names, word_embeddings
    from PADing.data.embeddings import CLIP_TEMPLATES, save_class_embeddings
    from PADing.data.splits import load_split

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)  # after the imports, which log
    splits = [load_split(file) for file in args.split or ()]
    names = list(dict.fromkeys(name for split in splits for name in split.names_to_embed()))
    classes = {name for split in splits for name in (*split.seen, *split.unseen)}
    names = read_names(args.names) if args.names else names
    texts = {}
    for item in args.text:
        name, _, text = item.partition("=")
        if name not in names or not text:
            raise UserError(f"--text {item!r} must be NAME=WORDS with the name of a class{did_you_mean(name, names)}.")
        texts[name] = text
    further: dict[str, np.ndarray] = {}
    templates = tuple(getattr(args, "template", None) or ())
    file = os.path.basename(args.checkpoint or args.pretrained if args.kind == "clip" else args.file)
    if args.kind == "clip":
        templates = templates or CLIP_TEMPLATES
        encoder = (args.model, args.pretrained, args.checkpoint, templates, args.precision, texts, args.device)
        embeddings = clip_embeddings(names, *encoder).numpy()
        if args.keep_synonyms:
            words = [(i, word) for i, name in enumerate(names) for word in texts.get(name, name).split(", ")]
            encoder = (args.model, args.pretrained, args.checkpoint, templates, args.precision, None, args.device)
            further["synonym_of"] = np.array([i for i, _ in words])
            further["synonym_vectors"] = clip_embeddings([word for _, word in words], *encoder).numpy()
        source = clip_source(args.model, args.pretrained, args.checkpoint, args.precision)
    elif args.kind == "words":
        synonyms = [] if args.names else [name for name in names if name not in classes]
        embeddings = word_embeddings(names, args.file, texts, args.normalize, synonyms)
        if without := [name for name, row in zip(names, embeddings, strict=True) if np.isnan(row).any()]:
            logger.warning(
                "%d synonyms have no word in %s and are left out: %s", len(without), file, ", ".join(without)
            )
            kept = [i for i, name in enumerate(names) if name not in without]
            names, embeddings = [names[i] for i in kept], embeddings[kept]
        source = f"word vectors {file}" + (", unit length" if args.normalize else "")
    else:
        own = names if args.names else [name for name in names if name in classes]
        file_names = read_names(args.file_names) if args.file_names else own
        names = [name for name in names if name in classes or name in file_names or args.names]
        embeddings = matrix_embeddings(names, args.file, file_names)
        source = args.source or f"matrix {file}"
    zero = [name for name, row in zip(names, embeddings, strict=True) if not np.any(row)]
    if zero:
        raise UserError(f"{file} has only zeros for {', '.join(zero)}. Is it complete?")
    save_class_embeddings(args.output, names, np.asarray(embeddings), source, templates, further)
    logger.info("%s: %d classes x %d, %s", args.output, *embeddings.shape, source)


def _parser() -> CommandParser:
    parser = CommandParser(__doc__)
    common = CommandParser(add_help=False)
    which = common.add_mutually_exclusive_group(required=True)
    which.add_argument("--split", nargs="+", help="split files: all their seen and unseen classes, with synonyms")
    which.add_argument("--names", help="class names: a JSON list, or a text file with one name per line")
    common.add_argument("--output", required=True, help="the .npz to write")
    text = {"action": "append", "default": [], "metavar": "NAME=WORDS"}
    common.add_argument("--text", **text, help="encode or look up WORDS for the class NAME; repeatable")
    kinds = parser.add_subparsers(dest="kind", required=True)

    clip = kinds.add_parser("clip", parents=[common], help="CLIP text encoder, through open_clip")
    clip.add_argument(
        "--model", default="ViT-B-16-quickgelu", help="open_clip architecture, or a folder with its config and weights"
    )
    clip.add_argument("--pretrained", default="openai", help="open_clip weights")
    clip.add_argument("--checkpoint", help="local file of weights; nothing is downloaded")
    template = "prompt with {}; repeatable (default: the 8 of the published models)"
    clip.add_argument("--template", action="append", help=template)
    synonyms = 'also store the embedding of each synonym of a name ("couch, sofa"), for methods that compare with each'
    clip.add_argument("--keep-synonyms", action="store_true", help=synonyms)
    clip.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of the text encoder")
    clip.add_argument("--device", default="cpu", help="of the text encoder, such as cuda")

    words = kinds.add_parser("words", parents=[common], help="word2vec, fastText or GloVe file")
    words.add_argument("--file", required=True, help="text or binary word vectors, also .gz")
    words.add_argument("--normalize", action="store_true", help="scale every class embedding to unit length")

    matrix = kinds.add_parser("matrix", parents=[common], help="existing .npy or .txt matrix")
    matrix.add_argument("--file", required=True, help=".npy (rows are classes), or .txt (column 0 background)")
    matrix.add_argument("--file-names", help="class names of the file in its order (default: those of --split/--names)")
    matrix.add_argument("--source", help="where the matrix comes from, stored in the output")
    matrix.add_argument("--template", action="append", help="prompt it was made with, stored in the output; repeatable")
    return parser


if __name__ == "__main__":
    sys.exit(main())
