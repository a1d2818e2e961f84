"""Modules written as `.py` run where there is no detc, and give what the program gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.export import _deploy, compile_to
from detc.runtime.export_video import video_module
from detc.runtime.train.checkpoint import Checkpoint, save_checkpoint
from tests.compiler.specs import TINY
from tests.models import test_detr, test_mask2former, test_mask_rcnn, test_tracking

# What there is to be written: a fold that must not be, RoIAlign and masks, deformable attention, maps, state.
SPECS = {
    "dense": TINY.format(more="", model="Tiny()"),
    "masks": test_mask_rcnn.SMALL.format(base="MaskRCNN", edits=test_mask_rcnn.EDITS["MaskRCNN"]),
    "queries": test_detr.text_of("two-stage", 1),
    "maps": test_mask2former.SMALL.format(task="panoptic"),
    "video": test_tracking.SMALL
    + f"""run {{
      model = Tracking(classes = ["a"], detector = Small(classes = ["a"]), tracker = {test_tracking.LOW})
      target = tiny()
    }}
    """,
}
ALONE = """
import importlib.util, sys
sys.modules["detc"] = None  # an import of it fails
import torch
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("exported", path)
    sys.modules["exported"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (kind,) = [k for k in vars(module).values() if isinstance(k, type) and hasattr(k, "network")]
    model = kind().eval()
    model.load_state_dict(torch.load(path.replace(".py", ".weights.pt"), weights_only=True))
    state = [model.initial_state(1)] if hasattr(model, "initial_state") else []
    case = torch.load(path.replace(".py", ".case.pt"), weights_only=True)
    with torch.no_grad():
        for image, expected in case:
            found = model(image, *state)
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
            state = [found["state"]] if state else []
    print(kind.__name__, len(module.CLASSES), int(found["valid"].sum()))
"""


def written(name: str, folder: Path) -> Path:
    """The module with its weights, and images with what the program finds on them."""
    result = check(SPECS[name])
    assert not result.report.errors, result.report.errors
    run = result.run()
    program = build(run, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in program.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    weights = folder / "w.pt"
    save_checkpoint(weights, Checkpoint(run.text, "", run.classes, program.model.state_dict()))
    made = compile_to(run, folder / f"{name}.py", weights=weights, verify=False)
    assert [f.name for f in made.files] == [f"{name}.py", f"{name}.weights.pt"]
    torch.save(case(program), folder / f"{name}.case.pt")
    return made.path


def case(program: Program) -> list[Any]:
    graph = program.infer_graph.eval()
    module_of: Any = video_module if program.spec.states else _deploy
    deploy = module_of(program, program.run.target, None, graph)
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (1, 3, 75, 110), generator=generator, dtype=torch.uint8)
    seen, state = [], ([program.initial_state(1)] if program.spec.states else [])
    with torch.no_grad():
        for step in range(3 if state else 1):
            frame = image.roll(2 * step, -1)
            found = deploy(frame, *state)
            seen.append((frame, found))
            state = [found["state"]] if state else []
    return seen


@pytest.mark.slow
def test_modules_need_torch_alone(tmp_path: Path) -> None:
    paths = [written(name, tmp_path) for name in SPECS]
    run = [sys.executable, "-I", "-c", ALONE, *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in told] == ["Tiny", "Small", "M", "Small", "Tracking"]
    assert [line[1] for line in told] == ["2", "3", "3", "5", "1"]
    assert all(int(line[2]) > 0 for line in told), done.stdout


def test_lines_name_their_place_in_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "tiny.det"
    path.write_text(SPECS["dense"])
    with pytest.warns(UserWarning, match="random"):
        made = compile_to(check(path).run(), tmp_path / "m.py", verify=False)
    lines = made.path.read_text().splitlines()
    stem = next(line for line in lines if 'self.get_submodule("backbone.conv")' in line)
    number = int(stem.rpartition(":")[2])
    assert "image -> conv" in path.read_text().splitlines()[number - 1]
    assert not any("detc" in line for line in lines if line.startswith(("import", "from")))
