"""Pieces that live in projects of Detectron2: ``deeplab`` and ``point_rend``."""
