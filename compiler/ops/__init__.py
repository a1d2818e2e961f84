"""The built-in ops, one file a family. Importing this package registers them; a new file needs no entry."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
