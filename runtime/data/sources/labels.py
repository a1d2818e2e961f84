"""From a source's class names to indices of the spec's class list."""

from __future__ import annotations

from collections.abc import Iterable

from detc.dsl.diagnostics import did_you_mean, error


class ClassMap:
    """Maps by name. Objects of classes that the spec does not list are dropped, with a reason to count.

    Raises:
        DetError: DET0605 if no name is shared, or a name of the spec occurs twice.
    """

    def __init__(self, classes: tuple[str, ...], found: Iterable[str], where: str) -> None:
        self.found = sorted(set(found))
        self._index = {name: i for i, name in enumerate(classes)}
        if len(self._index) != len(classes):
            twice = sorted({c for c in classes if classes.count(c) > 1})
            raise error("DET0605", f"`classes` names {', '.join(twice)} more than once")
        if self.found and not any(name in self._index for name in self.found):
            shown = ", ".join(self.found[:8]) + (", …" if len(self.found) > 8 else "")
            hint = did_you_mean(classes[0], self.found) if classes else ""
            raise error(
                "DET0605",
                f"{where}: none of its classes is in `classes` ({', '.join(classes[:8])}{hint})",
                help=f"the file's classes: {shown}",
            )

    def index(self, name: str) -> int | None:
        """The label of a class name, or None if the spec does not list it."""
        return self._index.get(name)

    def reason(self, name: str) -> str:
        """Why an object of class `name` is dropped."""
        return f"class `{name}` is not in `classes`{did_you_mean(name, self._index)}"
