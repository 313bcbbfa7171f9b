"""Stand-in for a part of Detectron2 (d2lite). A genuine Detectron2 is always preferred."""

import logging

from d2lite.omitted import explain_missing_modules, omitted_names
from d2lite.provider import step_aside

if not step_aside(__name__):
    __standin__ = True
    __version__ = "0.6"
    __getattr__ = omitted_names(__name__)
    explain_missing_modules(__name__)
    logging.getLogger(__name__).info("detectron2 is provided by the stand-in d2lite, from %s", __path__[0])
