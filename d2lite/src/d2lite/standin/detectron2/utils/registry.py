"""fvcore's registries: tables from names to functions and classes."""

from fvcore.common.registry import Registry

from d2lite.omitted import omitted_names

__all__ = ["Registry"]

__getattr__ = omitted_names(__name__, ["locate"])
