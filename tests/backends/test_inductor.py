"""A training graph under torch.compile's own back end, in one piece: losses and gradients are eager's.

`aot_eager`, which the tests of the models take, proves that there are no breaks; this one generates code.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from detc.compiler.program import build
from tests.compiler.specs import tiny


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="the back end needs a C++ compiler"
)
def test_losses_and_gradients_are_those_of_eager() -> None:
    program = build(tiny("Tiny(width = 4)").run(), seed=0)
    program.model.train()
    start = {name: x.clone() for name, x in program.model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    image = {
        "pixels": torch.rand(2, 3, 64, 64, generator=generator) * 255,
        "size": torch.full((2, 2), 64.0),
    }
    valid = torch.tensor([[True, True, False], [False, False, False]])  # the second image is empty
    corner = torch.rand(2, 3, 2, generator=generator) * 30
    boxes = torch.cat((corner, corner + 8 + 20 * torch.rand(2, 3, 2, generator=generator)), -1)
    truth = {
        "boxes": boxes * valid[..., None],
        "labels": torch.zeros(2, 3, dtype=torch.int64),
        "valid": valid,
    }

    def step(graph: torch.nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        program.model.load_state_dict(start)
        program.model.zero_grad()
        losses = graph(image, truth)
        torch.stack(list(losses.values())).sum().backward()
        found = {n: p.grad.clone() for n, p in program.model.named_parameters() if p.grad is not None}
        return {name: x.detach() for name, x in losses.items()}, found

    losses, gradients = step(program.train_graph)
    assert all(x > 0 for x in losses.values()) and len(gradients) > 8
    compiled, compiled_gradients = step(torch.compile(program.train_graph, fullgraph=True))
    torch.testing.assert_close(compiled, losses, rtol=1e-4, atol=1e-6)
    assert compiled_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        limit = 1e-4 * float(expected.abs().max()) + 1e-7
        torch.testing.assert_close(compiled_gradients[name], expected, rtol=0, atol=limit, msg=name)
