"""Parameter groups: which parameters a `group "selector" { … }` of a spec means.

Selectors are those of `compiler.selectors`: `"**.norm"` takes the weight and the bias of every node called
`norm`, `"backbone"` takes all of the backbone. Where several rules match, the later one wins, field by field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from detc.compiler.selectors import matches
from detc.compiler.spec import GroupRule
from detc.dsl.diagnostics import DetError, did_you_mean, error

if TYPE_CHECKING:
    from torch import nn

FIELDS = ("lr_scale", "lr", "weight_decay", "momentum", "betas", "frozen")


def spec_name(path: str) -> str:
    """A parameter's path as a spec writes it: `head.norm.0.1.weight` is `head.norm[0, 1].weight`."""
    return re.sub(r"((?:\.\d+)+)(?=\.|$)", lambda m: f"[{m[1][1:].replace('.', ', ')}]", path)


def matched_paths(selector: str, paths: Iterable[str]) -> list[str]:
    """Those of `paths` (with dots only) that the selector names."""
    return [p for p in paths if matches(selector, spec_name(p))]


def parameter_groups(model: nn.Module, rules: Sequence[GroupRule]) -> list[dict[str, Any]]:
    """Split the trainable parameters of `model` by `rules`.

    Parameters with the same fields share a group, so the optimiser launches as few kernels as possible. A
    rule with `frozen = true` takes its parameters out of training (`requires_grad` becomes False).

    Returns:
        Groups with "params", "names" (same order) and the fields of the rules.

    Raises:
        DetError: DET0702 if a rule matches no parameter or has an unknown field; of those that match frozen
            ones alone, `detc check` warns.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    everything = [name for name, _ in model.named_parameters()]
    fields: dict[str, dict[str, Any]] = {name: {} for name in named}
    for rule in rules:
        for key in rule.fields:
            if key not in FIELDS:
                raise error(
                    "DET0702",
                    f'group "{rule.selector}" has no field `{key}`{did_you_mean(key, FIELDS)}',
                    rule.origin,
                    help=f"a group may set {', '.join(FIELDS)}",
                )
        found = matched_paths(rule.selector, named)
        if not found and not matched_paths(rule.selector, everything):
            raise _no_match(rule, everything, named)
        for name in found:
            fields[name].update(rule.fields)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in named.items():
        if fields[name].pop("frozen", False):
            parameter.requires_grad_(False)
            continue
        alike = tuple(sorted((k, repr(v)) for k, v in fields[name].items()))
        group = groups.setdefault(alike, {"params": [], "names": [], **fields[name]})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _no_match(rule: GroupRule, everything: Sequence[str], named: Iterable[str]) -> DetError:
    last = [s for s in re.split(r"[.\[\]]+", rule.selector) if s and "*" not in s]
    nodes = {segment for name in everything for segment in name.split(".") if not segment.isdigit()}
    hint = did_you_mean(last[-1], nodes - {"weight", "bias"}) if last and last[-1] not in nodes else ""
    text = f'group "{rule.selector}" matches no parameter{hint}'
    sample = ", ".join(list(named)[:3])
    help_text = f"selectors are node paths with `*` and `**`; parameters are called {sample}, …"
    return error("DET0702", text, rule.origin, "matches nothing", help=help_text)
