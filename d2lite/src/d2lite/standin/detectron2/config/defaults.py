"""Default values of all config keys, from ``defaults.yaml``."""

from pathlib import Path

from .config import CfgNode

_C = CfgNode(CfgNode.load_yaml_with_base(str(Path(__file__).with_name("defaults.yaml"))))
