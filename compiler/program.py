"""A program: the torch side of a resolved run. `build` is where torch is first imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from detc.compiler import passes
from detc.compiler.experiments import dataflow
from detc.compiler.graph import Model
from detc.compiler.selectors import matches
from detc.compiler.spec import GroupRule, TargetSpec
from detc.dsl.diagnostics import error

if TYPE_CHECKING:
    import torch
    from torch import fx

    from detc.compiler.backends.deploy import Deploy
    from detc.compiler.backends.tree import Tree
    from detc.compiler.experiments.runs import ResolvedRun


@dataclass(frozen=True)
class Needs:
    """What the model asks of the data: side alignment, sample fields."""

    align: int
    fields: frozenset[str]


class Program:
    """Two graphs over one module tree.

    Attributes:
        model: the tree of modules; `state_dict` keys are the spec's paths with dots for brackets.
        train_graph: `(image, truth) -> {loss name: weighted scalar}`.
        infer_graph: `(image) -> {"detections": {boxes, scores, labels, valid}, …}`, boxes in network pixels. A model
            that carries state takes it as well, `(image, state)`, and gives the next one under "state".
        still_graph: the infer graph on single images, each the first frame of a video of its own.
    """

    def __init__(self, run: ResolvedRun, *, seed: int | None = None) -> None:
        from detc.compiler.backends.tree import build_tree

        self.run = run
        self.spec: Model = run.model
        self.model: Tree = build_tree(run.model, seed)
        self.classes = run.classes
        self.needs = Needs(run.align, run.model.fields or frozenset({"boxes", "labels"}))

    @cached_property
    def train_graph(self) -> fx.GraphModule:
        """The training graph."""
        from detc.compiler.backends.fx import lower

        graph = self.spec.train.copy()
        passes.run(graph, passes.TRAIN, passes.Context(self.spec))
        return lower(graph, self.model, "TrainGraph")

    @cached_property
    def infer_graph(self) -> fx.GraphModule:
        """The inference graph over the live modules: training the tree changes it."""
        from detc.compiler.backends.fx import lower

        graph = self.spec.infer.copy()
        passes.run(graph, passes.BUILD, passes.Context(self.spec))
        return lower(graph, self.model, "InferGraph")

    @cached_property
    def still_graph(self) -> fx.GraphModule:
        """The inference graph for single images; see the class."""
        from detc.compiler.backends.fx import lower

        if not self.spec.states:
            return self.infer_graph
        graph = self.spec.infer.copy()
        passes.run(graph, (*passes.STILL, *passes.BUILD), passes.Context(self.spec))
        return lower(graph, self.model, "StillGraph")

    def initial_state(self, batch: int = 1, device: Any = None) -> dict[str, Any]:
        """What `infer_graph` takes as `state` for the first frame of `batch` videos: values by state, then field."""
        import torch

        from detc.compiler.backends.fx import function
        from detc.compiler.ops.base import Function

        found = {}
        for name, state in self.spec.states.items():
            made = state.op.torch()
            assert isinstance(made, Function)
            found[name] = function(made.path)(torch.empty(batch, device=device), **made.kwargs)
        return found

    def optimised(self, after: Any = None, *, still: bool = False) -> fx.GraphModule:
        """An inference graph for use: norms folded, weights copied, eval mode. Later training does not change it.

        still: the graph for single images, without state.
        """
        from detc.compiler.backends.fx import lower
        from detc.compiler.passes.fold_norm import FoldedConv

        graph = self.spec.infer.copy()
        chosen = (*passes.STILL, *passes.OPTIMISE) if still and self.spec.states else passes.OPTIMISE
        passes.run(graph, chosen, passes.Context(self.spec), after)
        tree = deepcopy(self.model).eval().requires_grad_(False)
        from detc.compiler.backends.tree import module_path

        for node in graph.nodes():
            if isinstance(node.op, FoldedConv):
                assert node.weights is not None
                tree.put(module_path(node.weights), node.op.materialise(tree))
        return lower(graph, tree, "OptimisedGraph").eval()

    def deploy(
        self, target: TargetSpec | None = None, *, optimise: bool = True, video: bool = False
    ) -> Deploy:
        """The graph as a camera sees it: letterbox, inference and back-mapping in one module.

        video: with the state of a model that carries one; else every image is a first frame.
        """
        from detc.compiler.backends.cpu import fuse
        from detc.compiler.backends.deploy import Deploy, preprocessing
        from detc.compiler.backends.video import VideoDeploy

        live = self.infer_graph if video else self.still_graph
        inner = fuse(self.optimised(still=not video)) if optimise else live.eval()
        pre = preprocessing(self.run, target or self.run.target)
        if video and self.spec.states:
            return VideoDeploy(inner, pre, self.classes, first=self.initial_state)
        return Deploy(inner, pre, self.classes)

    @property
    def takes_detections(self) -> int:
        """The capacity of the detections that the model takes instead of images; 0 if it takes images."""
        if "detections" not in self.spec.infer:
            return 0
        t: Any = self.spec.infer.node("detections").type
        return int(t.get("valid").shape[1])

    def parameter_groups(self, rules: Sequence[GroupRule]) -> list[dict[str, Any]]:
        """Trainable parameters by what the rules say of them: dicts with `params`, `names` and the fields.

        The first group holds what no rule names. Later rules win over earlier ones, field by field.

        Raises:
            DetError: DET0702 if a rule matches nothing.
        """
        from detc.compiler.backends.tree import module_path

        names = {}
        for path in self.spec.weights:
            for own, parameter in self.model.get_submodule(module_path(path)).named_parameters():
                names[f"{module_path(path)}.{own}"] = (f"{path}.{own}", parameter)
        groups: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {(): {"params": [], "names": []}}
        hit: set[int] = set()
        seen: set[int] = set()
        for key, (name, parameter) in names.items():
            fields: dict[str, Any] = {}
            for i, rule in enumerate(rules):
                if matches(rule.selector, name):
                    hit.add(i)
                    fields.update(rule.fields)
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            group = groups.setdefault(tuple(sorted(fields.items())), {"params": [], "names": [], **fields})
            group["params"].append(parameter)
            group["names"].append(key)
        for i, rule in enumerate(rules):
            if i not in hit:
                message = f"the selector `{rule.selector}` matches no parameter"
                raise error("DET0702", message, rule.origin, "matches nothing")
        return [g for g in groups.values() if g["params"]]

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """All weights by name."""
        return self.model.state_dict()


def build(run: ResolvedRun, *, seed: int | None = None) -> Program:
    """Build the modules of a run; graphs are lowered when first asked for."""
    return Program(run, seed=seed)


__all__ = ["Needs", "Program", "build", "dataflow"]
