"""Putting tensors into a module: exactly (a checkpoint of this model) or as far as they fit (`from`)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Origin
from detc.runtime.weights.keys import Mapped, map_keys
from detc.runtime.weights.report import LoadReport, shorten

if TYPE_CHECKING:
    from torch import nn

# Counters that change no result; files of frozen norms lack them.
OPTIONAL = ("num_batches_tracked",)
_LIST = 12


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `model`; every tensor must be there with its shape, and nothing else.

    The names may be those of another project, if a key table turns every one of them into one of ours.

    Raises:
        DetError: DET0902, listing what differs; DET0911 for weights that are not finite. The model is left as it
            was.
    """
    target = model.state_dict()
    differences = _missing_and_more(state, target, source)
    if differences:
        mapped = map_keys(state, target, source).state
        if _missing_and_more(mapped, target, source):
            raise _other_model(source, differences)
        state = mapped
    _refuse_not_finite(state, source)
    _copy(target, {k: v for k, v in state.items() if k in target})


def _missing_and_more(state: Mapping[str, Tensor], target: Mapping[str, Tensor], source: str) -> list[str]:
    found = [f"{k}: not in {source}" for k in target if k not in state and not k.endswith(OPTIONAL)]
    found += [f"{k}: not in this model" for k in state if k not in target and not k.endswith(OPTIONAL)]
    for key, want in target.items():
        if key in state and state[key].shape != want.shape:
            found.append(f"{key}: {_shape(state[key])} in {source}, {_shape(want)} in this model")
    return found


def load_fitting(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    path: str = "",
    file: str = "",
    rename: Mapping[str, str] | None = None,
    kept: Set[str] = frozenset(),
    origin: Origin | None = None,
) -> LoadReport:
    """Load what fits of `state` into the node `path` of `model` and say what did not.

    Tensors of another shape under the right name (layers that depend on the classes) are skipped and listed.

    Args:
        path: a node; "" is the whole model. A whole model's file is searched for the node's own weights too.
        rename: old -> new prefixes of the file's names.
        kept: the node's tensors that stay as they are, though the file has them.
        origin: the place of the `from`, for diagnostics.

    Raises:
        DetError: DET0902 if fewer than half of the node's tensors fit: it is another model's file; DET0911 for
            weights that are not finite.
    """
    module = model.get_submodule(path)
    target = module.state_dict()
    mapped = _best(state, target, source, path, rename)
    fitting = {k: v for k, v in mapped.state.items() if k in target and v.shape == target[k].shape}
    wanted = [k for k in target if not k.endswith(OPTIONAL)]
    found = [k for k in wanted if k in fitting]
    if 2 * len(found) < len(wanted):
        raise _other_model(source, _differences(mapped, target, source), len(found), len(wanted), origin)
    fresh = {k: v for k, v in fitting.items() if k not in kept}
    report = LoadReport(source, path, file, mapped.table, loaded=list(fresh), skipped=dict(mapped.dropped))
    for key, tensor in mapped.state.items():
        name = mapped.origin[key]
        if key not in target:
            report.skipped[name] = "not in this model"
        elif key not in fitting:
            report.skipped[name] = f"another shape ({_shape(tensor)} there, {_shape(target[key])} here)"
        elif key in kept:
            report.skipped[name] = "loaded from the file of a node around it"
    _refuse_not_finite(fitting, source, origin)
    report.missing = [k for k in wanted if k not in fitting and k not in mapped.state and k not in kept]
    _copy(target, fresh)
    return report


def _best(
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    source: str,
    path: str,
    rename: Mapping[str, str] | None,
) -> Mapped:
    direct = map_keys(state, target, source, rename)
    below = {k[len(path) + 1 :]: v for k, v in state.items() if path and k.startswith(path + ".")}
    if not below:
        return direct
    inner = map_keys(below, target, source, rename)
    if inner.fits < direct.fits:
        return direct
    inner.origin = {k: f"{path}.{v}" for k, v in inner.origin.items()}
    return inner


def _refuse_not_finite(state: Mapping[str, Tensor], source: str, origin: Origin | None = None) -> None:
    wrong = [k for k, v in state.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if wrong:
        raise error(
            "DET0911",
            f"{source} holds weights that are not finite: the training that wrote it has diverged",
            origin,
            "asked for here",
            notes=[f"NaN or infinity in {shorten(wrong, 6)}"],
            help="take an earlier checkpoint",
        )


@torch.no_grad()
def _copy(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for key, tensor in state.items():
        target[key].copy_(tensor)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _differences(mapped: Mapped, target: Mapping[str, Tensor], source: str) -> list[str]:
    lines = [
        f"{k}: {_shape(mapped.state[k])} in {source}, {_shape(v)} in this model"
        for k, v in target.items()
        if k in mapped.state and mapped.state[k].shape != v.shape
    ]
    lines += [f"{k}: not in {source}" for k in target if k not in mapped.state and not k.endswith(OPTIONAL)]
    return lines + [f"{mapped.origin[k]}: not in this model" for k in mapped.state if k not in target]


def _other_model(
    source: str,
    differences: list[str],
    found: int | None = None,
    wanted: int | None = None,
    origin: Origin | None = None,
) -> DetError:
    notes = differences[:_LIST]
    if len(differences) > _LIST:
        notes.append(f"… and {len(differences) - _LIST} more")
    differ = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
    count = f": {found} of {wanted} tensors fit" if wanted else f": {differ}"
    return error(
        "DET0902",
        f"{source} holds the weights of another model{count}",
        origin,
        "asked for here",
        notes=notes,
        help="use the spec the weights were made with; to start from what fits, use `from` or `--init`",
    )
