"""The weights that a spec names: resolve, check their conventions, load, report."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Origin
from detc.runtime.train.checkpoint import is_checkpoint
from detc.runtime.train.shadow import begin_shadows
from detc.runtime.weights.frozen import check_whole, never_learns
from detc.runtime.weights.load import OPTIONAL, load_fitting
from detc.runtime.weights.read import read_file, tensors_of
from detc.runtime.weights.report import LoadReport
from detc.runtime.weights.source import Convention, convention_of, locate

if TYPE_CHECKING:
    from torch import nn


def initialise(
    program: Any,
    sources: Mapping[str, tuple[str, Origin | None]],
    *,
    weights_dir: Path | None = None,
    init: str | None = None,
) -> list[LoadReport]:
    """Load what the `from "…"` clauses of a spec name, or what `--init` says instead.

    What the file of an outer node holds, that of a node inside of it does not replace; if it holds all of the
    inner node, the inner file is not even looked for. A node that never learns keeps its own file whatever the
    whole model's says.

    Args:
        program: a compiled program.
        sources: node path ("" for the whole model) -> (the `from` text, its place).
        weights_dir: `--weights-dir`.
        init: None for the spec's sources, "random" for none of them, else a file to load what fits from. Nodes
            that never learn have their own sources all the same.

    Raises:
        DetError: DET0901 (cannot be had), DET0902 (another model's), DET0911 (unreadable), DET0912 (the
        weights
            expect another channel order or normalisation than the model applies).
    """
    reports = []
    if init == "random":
        sources = {p: s for p, s in sources.items() if p and never_learns(program, p)}
    elif init is not None:
        reports = [load_source(program.model, "", init, None, weights_dir=weights_dir)]
        sources = {p: s for p, s in sources.items() if p and never_learns(program, p)}
    own = model_convention(program)
    given = {name for report in reports for name in report.loaded}
    # Outer nodes first: what their files hold is the outcome of a training that began with the inner ones'.
    for path in sorted(sources, key=lambda p: (p.count(".") + bool(p), p)):
        source, origin = sources[path]
        kept = set() if _stands_alone(program, path, sources) else _below(given, path)
        if kept and not _wanted(program.model, path) - kept:
            continue
        if own is not None:
            _check_convention(source, own, origin)
        report = load_source(program.model, path, source, origin, weights_dir=weights_dir, kept=kept)
        given.update(f"{path}.{name}" if path else name for name in report.loaded)
        if path and never_learns(program, path):
            check_whole(program, report, origin)
        reports.append(report)
    begin_shadows(program)
    return reports


def _stands_alone(program: Any, path: str, sources: Mapping[str, Any]) -> bool:
    """True for a node that never learns and lies in no other node with a file."""
    inside = any(p and path.startswith(f"{p}.") for p in sources)
    return bool(path) and not inside and never_learns(program, path)


def _below(names: set[str], path: str) -> set[str]:
    """Those of `names` that lie in the node `path`, as it calls them."""
    return {n[len(path) + 1 :] for n in names if n.startswith(f"{path}.")} if path else set(names)


def _wanted(model: nn.Module, path: str) -> set[str]:
    return {n for n in model.get_submodule(path).state_dict() if not n.endswith(OPTIONAL)}


def sources_of(run: Any) -> dict[str, tuple[str, Origin | None]]:
    """The `from` clauses of a run: node path ("" for the model) -> (text, place)."""
    whole = {"": run.weights} if run.weights is not None else {}
    return {**whole, **run.model.sources}


def load_stated(program: Any) -> bool:
    """Load what `model = M(…) from "…"` and the nodes of the model state.

    Returns:
        False, and nothing is loaded, where no weights are stated for the whole model: random ones would be left.

    Raises:
        DetError: see `initialise`.
    """
    if program.run.weights is None:
        return False
    initialise(program, sources_of(program.run))
    return True


def load_source(
    model: nn.Module,
    path: str,
    source: str,
    origin: Origin | None,
    *,
    weights_dir: Path | None = None,
    kept: Set[str] = frozenset(),
) -> LoadReport:
    """Load what fits of one source into the node `path`, but for `kept`; see `initialise` for what is raised."""
    beside = None
    if origin is not None and origin.user().source.path:
        beside = Path(str(origin.user().source.path)).parent
    file = locate(source, weights_dir=weights_dir, beside=beside, origin=origin)
    data = read_file(file)
    report = load_fitting(
        model, tensors_of(data, file), source, path=path, file=str(file), kept=kept, origin=origin
    )
    if is_checkpoint(data):
        report.classes = tuple(data["classes"])
    return report


def model_convention(program: Any) -> Convention | None:
    """What the `Normalize` op at the top of the model's graph does; None if there is no such op."""
    spec = getattr(program, "spec", None)
    for node in spec.infer.nodes() if spec is not None else ():
        if node.op is not None and type(node.op).__name__ == "Normalize":
            op = node.op
            return Convention(str(getattr(op, "order", "rgb")).lower(), _triple(op.mean), _triple(op.std))
    return None


def _check_convention(source: str, actual: Convention, origin: Origin | None) -> None:
    expected = convention_of(source)
    if expected is None:
        return
    wrong = []
    if actual.order != expected.order:
        wrong.append(f"channel order {expected.order.upper()} (the model has {actual.order.upper()})")
    for name in ("mean", "std"):
        want, have = getattr(expected, name), getattr(actual, name)
        if any(abs(a - b) > 0.5 for a, b in zip(want, have, strict=True)):
            wrong.append(f"{name} {list(want)} (the model has {list(have)})")
    if wrong:
        raise _clash(source, wrong, origin)


def _clash(source: str, wrong: list[str], origin: Origin | None) -> DetError:
    return error(
        "DET0912",
        f"the weights `{source}` were trained with {' and '.join(wrong)}",
        origin,
        "asked for here",
        help="give the backbone's normalisation those values, or take other weights",
    )


def _triple(values: Any) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c
