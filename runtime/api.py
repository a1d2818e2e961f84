"""The functions behind `import detc`: each is one command, for programs instead of terminals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.dsl.diagnostics import DetError, Diagnostic, error

if TYPE_CHECKING:
    from detc.compiler.experiments.runs import ResolvedRun
    from detc.runtime.export import Compiled
    from detc.runtime.train.fit import TrainResult

Warn = Callable[[Sequence[Diagnostic]], None]


def open_run(
    spec: str | Path, *, run: str | None = None, sets: Sequence[str] = (), warn: Warn | None = None
) -> ResolvedRun:
    """Check a spec and return one of its runs.

    Args:
        spec: a `.det` file, or a checkpoint (or the folder of a training), which holds its spec.
        run: the run's name; may be left out if there is only one.
        sets: further edits, `"train.epochs=3ep"`.
        warn: is given the spec's warnings.

    Raises:
        DetError: with all errors of the spec.
    """
    from detc.compiler.check import check
    from detc.runtime.load import find

    path = find(Path(spec).expanduser())
    if path.suffix == ".onnx":
        raise error(
            "DET0906",
            f"{path} is compiled: it holds neither data nor weights to go on with",
            help="give the checkpoint, the training's folder or the spec that it was made from",
        )
    classes: tuple[str, ...] = ()
    if path.suffix == ".det":
        result = check(str(path), sets=list(sets), run=run)
    else:
        from detc.runtime.train.checkpoint import read_checkpoint

        checkpoint = read_checkpoint(path)
        run = run or checkpoint.run or None
        classes = checkpoint.classes
        result = check(checkpoint.spec, sets=list(sets), run=run, name=str(path))
    if result.report.errors:
        raise DetError(*result.report.errors)
    if warn is not None and path.suffix == ".det":
        warn(result.report.warnings)
    resolved = result.run(run)
    resolved.classes = resolved.classes or classes  # a resolved spec without data has no place for them
    return resolved


def resolve(spec: str | Path, *, run: str | None = None, sets: Sequence[str] = ()) -> str:
    """The resolved spec: valid `.det` without imports, parameters or edits.

    Raises:
        DetError: with all errors of the spec.
    """
    return open_run(spec, run=run, sets=sets).text


def compile(
    spec: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    run: str | None = None,
    target: str | None = None,
    sets: Sequence[str] = (),
    verify: bool = True,
    after: Callable[[str, Any], None] | None = None,
    warn: Warn | None = None,
) -> Compiled:
    """Compile a model; the suffix of `out` says to what: .onnx, .pt2, .py, .svg or .txt.

    Args:
        spec: a `.det` file, a checkpoint or the folder of a training (their weights are taken).
        out: the file to write.
        weights: a checkpoint (or folder); without it, a spec's weights are random, with a warning.
        run, sets, warn: as in `open_run`.
        target: a `target` declaration of the spec.
        verify: compare an export with torch before it is written.
        after: called with the name and the graph after each pass.

    Raises:
        DetError: with all errors of the spec, or if the verification fails (no file is written then).
    """
    from detc.runtime.export import compile_to
    from detc.runtime.load import find

    source = find(Path(spec).expanduser())
    if weights is None and source.suffix != ".det":
        weights = source
    resolved = open_run(source, run=run, sets=sets, warn=warn)
    found = None if weights is None else find(Path(weights).expanduser())
    return compile_to(resolved, Path(out), weights=found, target=target, verify=verify, after=after)


def train(
    spec: str | Path,
    *,
    out: str | Path | None = None,
    run: str | None = None,
    sets: Sequence[str] = (),
    **options: Any,
) -> TrainResult:
    """Train a run; options are those of `detc.runtime.train.engine.train`.

    Args:
        spec, run, sets: as in `open_run`.
        out: the output folder, by default `runs/<spec>` or `runs/<spec>-<run>`.

    Raises:
        DetError: with all errors of the spec, or of the training.
    """
    from detc.runtime.train.engine import train as train_run

    folder = Path(out) if out is not None else default_folder(spec, run)
    return train_run(open_run(spec, run=run, sets=sets), out=folder, **options)


def default_folder(spec: str | Path, run: str | None) -> Path:
    """`runs/<spec>` or `runs/<spec>-<run>`."""
    stem = Path(spec).stem
    return Path("runs") / (f"{stem}-{run}" if run else stem)


def ort_session(path: str | Path, **options: Any) -> Any:
    """An `onnxruntime.InferenceSession`, with detc's native kernels where their library is there."""
    from detc.nativeops.ort import ort_session as open_session

    return open_session(path, **options)
