"""Checking data pipelines: what steps read and write, geometry after padding, views, what the model needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detc.compiler.spec import ChoiceBlock, DataSpec, FanBlock, NamedStep, Step, fan_of
from detc.dsl.diagnostics import WARNING, Report, did_you_mean, error
from detc.dsl.source import Origin

REQUIRED = ("image", "boxes", "labels")
EVALUATION = ("val", "test", "predict")


def check_pipelines(
    data: DataSpec,
    report: Report,
    place: Origin,
    needs: frozenset[str] = frozenset(),
    views: Mapping[str, Origin] | None = None,
) -> None:
    """Report steps that read what no earlier step wrote (DET0602), geometry behind padding (DET0603), blocks
    and batch steps that cannot work (DET0608), sources that nothing uses (DET0609), and fields or views that
    the model's training needs and no step gives (DET0604).

    Args:
        needs: sample fields that the model's training reads.
        views: the views that it takes, with the places of its inputs; None if no model asks.
    """
    bare = {s.name for s in data.sources if not s.source.annotated}
    for name, steps in data.pipelines.items():
        walk = _Walk(name, report, {})
        have = walk.steps(steps)
        wanted = {"image"}
        if (name not in EVALUATION or name == data.active) and name not in bare:
            wanted = set(REQUIRED) | (set(needs) & {"masks"})
        lacking = sorted(wanted - have)
        if lacking:
            last = (steps[-1].origin if steps else None) or place
            report.add(
                *error(
                    "DET0604",
                    f"the model needs {_list(lacking)}, and the pipeline `{name}` gives {_list(sorted(have)) or 'nothing'}",
                    last,
                    f"no step of `{name}` writes {_list(lacking)}",
                    help="add the step that reads them, e.g. "
                    + "  ".join(f"{f}: steps.{_STEP[f]}()" for f in lacking if f in _STEP),
                ).diagnostics
            )
    for required in ("train", "val"):
        if required not in data.pipelines:
            message = f"{data.name} has no pipeline `{required}`"
            report.add(*error("DET0604", message, place, f"write pipeline {required} {{ … }}").diagnostics)
    if data.active not in data.pipelines:
        message = f"the active pipeline `{data.active}` does not exist"
        report.add(*error("DET0407", message, place, f"there are: {', '.join(data.pipelines)}").diagnostics)
    _check_sources(data, report)
    if views is not None:
        _check_views(data, report, place, views)


_STEP = {"image": "Load", "boxes": "Boxes", "labels": "Boxes", "masks": "Masks"}


class _Walk:
    """One pass over a pipeline's steps, into its blocks."""

    def __init__(self, pipeline: str, report: Report, views: dict[str, set[str]]) -> None:
        self.pipeline, self.report, self.views = pipeline, report, views
        self.padded: NamedStep | None = None
        self.read: dict[str, NamedStep] = {}  # what read an image or its truth first, by the step's name
        self.resized: NamedStep | None = None  # the last resize, while nothing after it has changed the size
        self.batched: NamedStep | None = None

    def steps(
        self, steps: Sequence[NamedStep], start: frozenset[str] = frozenset(), inside: str = ""
    ) -> set[str]:
        """The fields that are there at the end."""
        have = set(start)
        for item in steps:
            if item.origin is None:
                continue
            if isinstance(item.step, FanBlock):
                self._fan(item, item.step, frozenset(have), inside)
            elif isinstance(item.step, ChoiceBlock):
                have = self._choice(item, item.step, frozenset(have))
            else:
                self._step(item, item.step, have, inside)
                have |= set(item.step.writes)
        return have

    def _step(self, item: NamedStep, step: Step, have: set[str], inside: str) -> None:
        lacking = [f for f in step.reads if f not in have]
        if lacking:
            have |= set(lacking)  # said once, not again by each step that reads it too
            self._report(
                "DET0602",
                f"the step `{item.name}` ({step.name}) reads {_list(lacking)}, and no step before it gives that",
                item,
                f"needs {_list(lacking)}",
                help="; ".join(f"put steps.{_STEP[f]}() before it" for f in lacking[:1] if f in _STEP)
                or None,
            )
        if step.geometric and step.on == "sample" and self.padded is not None:
            self._report(
                "DET0603",
                f"`{item.name}` ({step.name}) moves pixels after `{self.padded.name}` has padded the image",
                item,
                "geometry after padding",
                secondary=[(self.padded.origin, "padded here")],
                help=f"put `{item.name}` before `{self.padded.name}`: padding is part of what it would move",
            )
        self._size(item, step)
        if step.pads and self.padded is None:
            self.padded = item
        if step.loads and not inside and (first := self.read.setdefault(step.name, item)) is not item:
            self._report(
                "DET0608",
                f"`{item.name}` ({step.name}) reads again what `{first.name}` has read",
                item,
                "what the steps in between did is lost",
                secondary=[(first.origin, "read here")],
            )
        if step.draws and self.pipeline in EVALUATION:
            message = (
                f"the pipeline `{self.pipeline}` mixes images ({step.name}), and evaluation looks at one"
            )
            self._report("DET0608", message, item, "this belongs into a training pipeline")
        if step.draws and (inside == "fan" or self.views):
            self._report(
                "DET0608",
                f"`{item.name}` ({step.name}) mixes other images into a view",
                item,
                "no homography leads to the other views from here",
                help="mix images before the fan",
            )
        self._batch(item, step, inside)

    def _size(self, item: NamedStep, step: Step) -> None:
        """Report a padding to less than what every image has been resized to."""
        canvas = getattr(step, "size", None)
        if step.pads and self.resized is not None and canvas is not None:
            resize: Any = self.resized.step
            box, sides = resize.size, (canvas.width, canvas.height)
            if resize.mode == "keep":  # either the long or the short side meets its bound
                never = min(box.width, box.height) > max(sides)
            elif resize.mode == "fit":  # either the width or the height does
                never = box.width > canvas.width and box.height > canvas.height
            else:
                never = box.width > canvas.width or box.height > canvas.height
            if never:
                self._report(
                    "DET0607",
                    f"no image fits: `{self.resized.name}` makes them {box}, and `{item.name}` pads to {canvas}",
                    item,
                    f"{canvas}",
                    secondary=[(self.resized.origin, f"{box}")],
                    help=f"pad to {box}, or to multiples: steps.Pad(align = 32)",
                )
        if step.name == "Resize":
            self.resized = item
        elif step.geometric and not step.name.endswith("Flip"):
            self.resized = None

    def _batch(self, item: NamedStep, step: Step, inside: str) -> None:
        if step.on == "sample":
            if self.batched is not None:
                self._report(
                    "DET0608",
                    f"`{item.name}` works on single images, behind `{self.batched.name}`, which works on batches",
                    item,
                    "too late for single images",
                    secondary=[(self.batched.origin, "batches from here on")],
                    help=f'put it before `{self.batched.name}`, or write on = "batch" here too',
                )
            return
        if not step.batched:
            self._report(
                "DET0608",
                f"`{item.name}` ({step.name}) cannot work on whole batches",
                item,
                'on = "batch" is not for this step',
            )
        if inside:
            message = f"`{item.name}` works on batches, and stands inside a `{inside}`"
            self._report("DET0608", message, item, "images of one batch take different ways here")
        self.batched = self.batched or item

    def _choice(self, item: NamedStep, block: ChoiceBlock, have: frozenset[str]) -> set[str]:
        ends = []
        for steps in block.branches.values():
            for s in steps:
                if isinstance(s.step, Step) and s.step.pads:
                    message = f"`{s.name}` pads inside the choice `{item.name}`"
                    self._report("DET0608", message, s, "padding comes after a choice")
            ends.append(self.steps(steps, have, "choice"))
        return set.intersection(*ends) if ends else set(have)

    def _fan(self, item: NamedStep, block: FanBlock, have: frozenset[str], inside: str) -> None:
        if self.pipeline in EVALUATION:
            message = f"the pipeline `{self.pipeline}` makes views, and evaluation looks at one image"
            self._report("DET0608", message, item, "a fan belongs into a training pipeline")
        if inside or self.views:
            where = f"inside a `{inside}`" if inside else "behind another fan"
            self._report("DET0608", f"the fan `{item.name}` stands {where}", item, "a pipeline has one fan")
        before = self.padded
        for view, steps in block.branches.items():
            self.padded = before
            self.views[view] = self.steps(steps, have, "fan")
        self.padded = before

    def _report(self, code: str, message: str, item: NamedStep, label: str, **more: Any) -> None:
        self.report.add(*error(code, message, item.origin, label, **more).diagnostics)


def views_of(data: DataSpec, active: str) -> dict[str, Origin | None]:
    """The views that batches hold while the pipeline `active` is in use."""
    names = [data.pipeline_of(s.name, active) for s in data.sources] or [active]
    found: dict[str, Origin | None] = {}
    for name in names:
        fan = fan_of(data.pipelines.get(name, ()))
        if fan is not None:
            place = data.pipelines[name][fan[0]].origin
            found.update((view, place) for view in fan[1].branches)
    return found


def _check_sources(data: DataSpec, report: Report) -> None:
    for source in data.sources:
        name = data.pipeline_of(source.name, data.active)
        if source.source.annotated or fan_of(data.pipelines.get(name, ())) is not None:
            continue
        report.add(
            *error(
                "DET0609",
                f"the source `{source.name}` has no truth, and the pipeline `{name}` makes no views of its images",
                source.origin,
                "nothing can learn from these images",
                help=f"write pipeline {source.name} {{ …  fan views {{ weak {{ … }}  strong {{ … }} }} }}",
            ).diagnostics
        )
    if data.sources and not any(s.source.annotated for s in data.sources):
        report.add(
            *error(
                "DET0609", "no source has truth to learn from", data.sources[0].origin, "only images"
            ).diagnostics
        )


def _check_views(data: DataSpec, report: Report, place: Origin, views: Mapping[str, Origin]) -> None:
    own = {s.name for s in data.sources}
    for active in data.pipelines:
        if active in EVALUATION or active in own:
            continue
        there = views_of(data, active)
        for view, origin in views.items():
            if view not in there:
                label = f"its views are {_list(there) or 'none'}" + did_you_mean(view, there)
                report.add(
                    *error(
                        "DET0604",
                        f"the model takes the view `{view}`, and {data.name} makes no such view in `{active}`",
                        place,
                        label,
                        secondary=[(origin, "the model's input")],
                    ).diagnostics
                )
        for view, made in there.items():
            if view not in views:
                label = "no input of the model takes it" + did_you_mean(view, views)
                report.add(
                    *error(
                        "DET0608",
                        f"the view `{view}` is made and not used",
                        made or place,
                        label,
                        severity=WARNING,
                    ).diagnostics
                )


def _list(names: Any) -> str:
    return ", ".join(names)


def alignment(data: DataSpec | None) -> int | None:
    """The number that image sides are multiples of, as the training pipelines' last paddings say."""
    if data is None:
        return None
    from math import gcd

    names = dict.fromkeys([data.active, *(data.pipeline_of(s.name, data.active) for s in data.sources)])
    found = [n for name in names for n in _paddings(data.pipelines.get(name, ()))]
    return gcd(*found) if found else None


def padding_place(data: DataSpec) -> Origin | None:
    """The step that pads images in the active pipeline."""
    steps = [s for s in data.pipelines.get(data.active, ()) if getattr(s.step, "pads", False)]
    return steps[-1].origin if steps else None


def _paddings(steps: Sequence[NamedStep]) -> list[int]:
    """The alignment of the image, and that of views that are padded by themselves."""
    from math import gcd

    found: list[int] = []
    last: int | None = None
    for item in steps:
        if isinstance(item.step, FanBlock):
            found += [n for branch in item.step.branches.values() for n in _paddings(branch)]
        if isinstance(item.step, ChoiceBlock) or not item.step.pads:
            continue
        align, size = getattr(item.step, "align", None), getattr(item.step, "size", None)
        if align:
            last = int(align)
        elif size is not None:
            last = gcd(size.width, size.height)
    return found + ([last] if last is not None else [])
