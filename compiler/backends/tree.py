"""The module tree: one `nn.Module` per set of weights, named as in the spec."""

from __future__ import annotations

import re

import torch
from torch import nn

from detc.compiler.graph import Model, Shadow

_INDEX = re.compile(r"\[([^\]]*)\]")


def module_path(path: str) -> str:
    """`stage[0].norm[1, 2]` -> `stage.0.norm.1.2`: names of torch modules have no brackets."""
    return _INDEX.sub(lambda m: "." + m.group(1).replace(" ", "").replace(",", "."), path)


class Branch(nn.Module):
    """An inner place of the tree: a component of the spec, or an array of nodes."""

    def forward(self, *inputs: object) -> object:
        """Not callable: graphs call the leaves."""
        raise TypeError("a component is not a function; call a graph of the program")


class Tree(Branch):
    """The root. `train()` leaves frozen nodes in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[str] = []

    def train(self, mode: bool = True) -> Tree:
        """Set the mode, except for frozen nodes."""
        super().train(mode)
        for path in self.frozen:
            self.get_submodule(path).eval()
        return self

    def put(self, path: str, module: nn.Module) -> None:
        """Add a leaf, with the branches above it."""
        *parents, leaf = path.split(".")
        here: nn.Module = self
        for name in parents:
            child = here._modules.get(name)
            if child is None:
                child = Branch()
                here.add_module(name, child)
            here = child
        here.add_module(leaf, module)


def build_tree(model: Model, seed: int | None = None) -> Tree:
    """Make the modules of all weights of a model, in the order of the spec.

    With `seed`, initial values do not depend on what ran before.
    """
    tree = Tree()
    if seed is not None:
        torch.manual_seed(seed)
    for path, weight in model.weights.items():
        module = weight.op.torch(*weight.types)
        assert isinstance(module, nn.Module), path
        place = module_path(path)
        tree.put(place, module)
        if weight.frozen or getattr(weight.op, "frozen", False):
            tree.frozen.append(place)
            module.requires_grad_(False)
    for own, other, _ in model.ties:
        _tie(tree, own, other)
    for shadow in model.shadows.values():
        _begin(tree, model, shadow)
    return tree.train()


def _begin(tree: Tree, model: Model, shadow: Shadow) -> None:
    """A shadow begins as what it follows."""
    for path in model.weights:
        if path == shadow.path or path.startswith(f"{shadow.path}."):
            twin = shadow.source + path.removeprefix(shadow.path)
            state = tree.get_submodule(module_path(twin)).state_dict()
            tree.get_submodule(module_path(path)).load_state_dict(state)


def _tie(tree: Tree, own: str, other: str) -> None:
    place, _, name = module_path(own).rpartition(".")
    source, _, source_name = module_path(other).rpartition(".")
    setattr(tree.get_submodule(place), name, getattr(tree.get_submodule(source), source_name))
