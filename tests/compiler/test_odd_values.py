"""Odd values for every argument of every op of a small detector: `check` refuses them at their line, or they run.

The arguments are changed in the resolved spec, where each op stands with its full name. What the check accepts is
built, trained for a step on images with and without objects, and gives finite numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from detc.compiler import primitives
from detc.compiler.check import check
from detc.compiler.elaboration.build_op import field_names
from detc.compiler.program import build

from .specs import tiny

CALL = re.compile(r"(?<!\w)((?:std\.\w+\.)?[A-Za-z]\w*)\(([^()]*)\)")
NUMBERS = {"int": ["-1", "0", "2", "7"], "float": ["-1.0", "0.0", "1.5", "1e30"], "bool": ["true", "false"]}
OTHERS = {"list": ["[]", "[1, 2]", '["a"]', "[-1.0]", "0 .. 2"], "None": ["none"]}


def _values(annotation: str) -> list[str]:
    found = [v for kind, vs in {**NUMBERS, **OTHERS}.items() if kind in annotation for v in vs]
    return [*found, *(f'"{word}"' for word in re.findall(r"'(\w+)'", annotation))]


def _cases(text: str) -> Iterator[tuple[str, str, str]]:
    """(op and argument, value, the text with it)."""
    classes = {f"{c.module}.{c.name}".lstrip("."): c for c in primitives.everything()}
    seen = set()
    for call in CALL.finditer(text):
        cls = classes.get(call[1])
        if cls is None or cls in seen or not cls.__module__.startswith("detc.compiler.ops"):
            continue
        seen.add(cls)
        for name, field in field_names(cls).items():
            info = cls.model_fields[field]
            now = re.search(rf"(?<!\w){name} = (?:\[[^\]]*\]|[^,])+", call[2])
            for value in _values(f"{info.annotation} {info.metadata}"):
                rest = call[2].replace(now[0], "").strip(", ").replace(", ,", ",") if now else call[2]
                args = ", ".join(x for x in (rest, f"{name} = {value}") if x)
                yield f"{cls.name}.{name}", value, text[: call.start(2)] + args + text[call.end(2) :]


def _runs(program: Any) -> None:
    image = {"pixels": torch.rand(2, 3, 32, 48) * 255, "size": torch.tensor([[32.0, 48.0]] * 2)}
    boxes = torch.tensor([[4.0, 4.0, 20.0, 28.0]]).repeat(2, 1, 1)
    for objects in ([False, False], [True, False]):
        valid = torch.tensor(objects)[:, None]
        truth = {"boxes": boxes * valid[..., None], "labels": torch.zeros(2, 1).long(), "valid": valid}
        losses = program.train_graph(image, truth)
        assert all(torch.isfinite(v).all() for v in losses.values()), losses
        sum(losses.values()).backward()
    program.model.eval()
    with torch.no_grad():
        found = program.infer_graph(image)["detections"]
    assert torch.isfinite(found["boxes"]).all() and torch.isfinite(found["scores"]).all()


@pytest.mark.slow
def test_odd_values_are_refused_or_run() -> None:
    text = tiny().run().text
    refused, ran, failed = 0, 0, []
    torch.manual_seed(0)
    for where, value, changed in _cases(text):
        result = check(changed, name="odd.det")
        if result.report.errors:
            refused += 1
            first = result.report.errors[0]
            if first.primary is None or first.primary.source.name != "odd.det":
                failed.append((where, value, "no place"))
            continue
        ran += 1
        try:
            _runs(build(result.run()))
        except Exception as problem:
            failed.append((where, value, f"{type(problem).__name__}: {str(problem)[-80:]}"))
    assert not failed, failed
    assert refused > 40 and ran > 40, (refused, ran)


@pytest.mark.parametrize(
    "value",
    ["range(0, 5, 0)", "mean([])", "5ep / 0ep", "640x640 / 0", "max([[1], [2]])", "1e300 * 1e300",
     "0 .. 3 in { a = 1 }", "[0] * 100000000", "0 .. 100000000", "float(1e300) // 1e-300"],
)  # fmt: skip
def test_no_expression_breaks_the_check(value: str) -> None:
    """Each of these was a traceback, or an hour of work."""
    text = (
        f"det 1\nmodel M(v: any = {value}) {{\n  input image: image\n  output y: map = image -> relu()\n}}\n"
    )
    result = check(text, name="odd.det")
    assert [d.primary.source.name for d in result.report.errors if d.primary is not None] == ["odd.det"]
