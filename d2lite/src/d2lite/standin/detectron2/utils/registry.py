"""Name to object tables."""

from fvcore.common.registry import Registry

from d2lite.omitted import omitted_names

__all__ = ["Registry"]

__getattr__ = omitted_names(__name__, ["locate"])
