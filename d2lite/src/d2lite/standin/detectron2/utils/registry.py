"""fvcore's registries: tables from names to functions and classes."""

from fvcore.common.registry import Registry  # noqa: F401

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(__name__, "locate")
