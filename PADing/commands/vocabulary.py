"""The flags of commands that predict the classes of a vocabulary."""

import argparse
from typing import TYPE_CHECKING

from PADing.errors import UserError

if TYPE_CHECKING:
    from PADing.inference import Predictor

# Flags that say more about a vocabulary.
FURTHER = ("keep_own_classes", "vocabulary_embeddings", "text_source", "save_vocabulary")


def add_vocabulary_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--vocabulary`` and the flags that say more about it."""
    group = parser.add_argument_group("classes of your own (docs/vocabulary.md)")
    words = 'classes to predict: "zebra; traffic light, signal; stuff: grass", a text file with one a line, or an .npz'
    group.add_argument("--vocabulary", metavar="WORDS", help=words)
    group.add_argument("--keep-own-classes", action="store_true", help="predict the model's own classes, too")
    group.add_argument("--vocabulary-embeddings", metavar="FILE", help="an .npz with embeddings of the new classes")
    source = "the text encoder's weights or folder, or the word vectors, that made the model's own class embeddings"
    group.add_argument("--text-source", metavar="PATH", help=source)
    group.add_argument("--save-vocabulary", metavar="FILE", help="keep the vocabulary in an .npz, for --vocabulary")


def apply_vocabulary(predictor: "Predictor", args: argparse.Namespace) -> None:
    """Set the vocabulary that the flags name, if any; UserError as ``Predictor.set_vocabulary``."""
    if args.vocabulary is None:
        if given := [name for name in FURTHER if getattr(args, name)]:
            raise UserError(f"--{given[0].replace('_', '-')} says more about a vocabulary: add --vocabulary WORDS.")
        return
    predictor.set_vocabulary(
        args.vocabulary,
        keep_own=args.keep_own_classes,
        embeddings=args.vocabulary_embeddings or "",
        text_source=args.text_source or "",
    )
    if args.save_vocabulary:
        predictor.save_vocabulary(args.save_vocabulary)
        print(f"written: {args.save_vocabulary}")
