"""What loading weights came to, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LoadReport:
    """`loaded` and `missing` are names here; `skipped` maps names of the file to the reason."""

    source: str
    path: str = ""  # the node that was loaded; "" is the whole model
    file: str = ""
    table: str = "plain"
    loaded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()  # that a detc checkpoint was trained for

    def lines(self, limit: int = 6) -> list[str]:
        """The report in words, at most `limit` names of each kind."""
        where = f" into `{self.path}`" if self.path else ""
        via = "" if self.table == "plain" else f" (key table {self.table})"
        lines = [f"{self.source}{where}: {len(self.loaded)} tensors loaded{via}"]
        by_reason: dict[str, list[str]] = {}
        for key, reason in self.skipped.items():
            by_reason.setdefault(reason, []).append(key)
        for reason, keys in by_reason.items():
            lines.append(f"  skipped {len(keys)}, {reason}: {shorten(keys, limit)}")
        if self.missing:
            lines.append(
                f"  not in the file, left as initialised, {len(self.missing)}: {shorten(self.missing, limit)}"
            )
        return lines


def shorten(names: list[str], limit: int) -> str:
    """At most `limit` names, and how many more there are."""
    more = f", … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
