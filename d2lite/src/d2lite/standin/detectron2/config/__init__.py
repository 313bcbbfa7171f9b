"""Configuration: a node tree with defaults, YAML files that inherit, and classes built from a config."""

from .config import CfgNode, configurable, get_cfg, global_cfg, set_global_cfg
