"""Data sets that models of other classes are evaluated on: from the official downloads to what the loaders read.

One module for each set says which files belong together and what an annotation means; ``prepare`` writes the rest.
"""

from collections.abc import Callable, Mapping

from PADing.data.evaluation_sets import ade20k, cityscapes, context, voc
from PADing.data.evaluation_sets.items import Options, Source

# Name of the command -> function that lists the files of the set.
SETS: Mapping[str, Callable[[Options], Source]] = {
    "ade20k": ade20k.source,
    "context": context.source,
    "voc": voc.source,
    "cityscapes": cityscapes.source,
}
