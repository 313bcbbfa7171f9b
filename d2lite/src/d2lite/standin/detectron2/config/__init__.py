"""Configuration: a node tree with defaults, YAML files that inherit, and classes built from a config."""

from d2lite.omitted import omitted_names

from .config import CfgNode, configurable, get_cfg, global_cfg, set_global_cfg

__getattr__ = omitted_names(__name__)
