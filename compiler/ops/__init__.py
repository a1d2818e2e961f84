"""The built-in ops, one file a family; a new file needs no entry."""

from importlib import import_module
from pkgutil import iter_modules


def load_all() -> None:
    """Import every family, which registers its ops."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
