"""A readable PyTorch module that stands alone: the deployed program as source, with all that it calls.

The network is written node by node, each line with its place in the spec; around it stand the same pre- and
post-processing as in the other exports. Weights have the keys of the program's `state_dict`.
"""

from __future__ import annotations

import inspect
import operator
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from detc.compiler.backends import deploy as deploying
from detc.compiler.backends.deploy import Deploy
from detc.compiler.backends.fx import function
from detc.compiler.backends.sources import Sources, literal
from detc.compiler.functional import letterbox
from detc.compiler.ops.base import Function
from detc.dsl.diagnostics import error

if TYPE_CHECKING:
    from detc.compiler.backends.video import TrackDeploy
    from detc.compiler.graph import State

IMAGE = (
    '"""image: uint8 or float32 {axes}, RGB, 0..255, any H and W; boxes of the result are in its pixels."""'
)
HEADER = '''"""{title}, written by detc. It needs PyTorch alone.

    model = {name}().eval()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    with torch.no_grad():
{usage}
"""

from __future__ import annotations
'''
USAGE = "        found = model(images)  # {axes}, RGB, 0..255: boxes [B, K, 4], scores, labels, valid [B, K]"
VIDEO = """        state = model.initial_state(1)
        for {frame} in video:
            found = model({frame}, state)
            state = found["state"]"""
FORWARD = """def forward(self, image):
    {doc}
    camera, pixels, fit = {prepare}(image, PREPROCESSING, {layout!r})
    found = self.network({{"pixels": pixels, "size": {content_size}(pixels, fit)}})
    return {finish}(found, camera, pixels, fit)"""
PUT = '''
def put(root, path, module):
    """Add a submodule under a dotted path."""
    *parents, leaf = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    root.add_module(leaf, module)

'''


def python_source(
    graph: fx.GraphModule,
    deploy: Deploy | TrackDeploy,
    name: str,
    title: str,
    classes: tuple[str, ...],
    states: dict[str, State] | None = None,
) -> str:
    """The source of a module that is to its weights what `deploy` is to the program's.

    Args:
        graph: the inference graph over the plain modules.
        states: what the graph carries from frame to frame.

    Raises:
        DetError: DET0802 if a part cannot be written as source.
    """
    sources = Sources(taken=("put", "CLASSES", "PREPROCESSING", name))
    sources.imports |= {"torch": "import torch", "nn": "from torch import nn"}
    constants = [f"CLASSES = {_wrapped(classes)}"]
    build = list(_modules(graph, sources))
    body = list(_statements(graph, sources))
    inputs = ", ".join(n.name for n in graph.graph.nodes if n.op == "placeholder")
    methods = [f"def network(self, {inputs}):\n" + textwrap.indent("\n".join(body), "    ")]
    usage = ""
    if isinstance(deploy, Deploy):
        sources.add(deploying.Preprocessing)
        constants.append(f"PREPROCESSING = {deploy.pre!r}")
        axes = "[B, 3, H, W]" if deploy.layout == "nchw" else "[B, H, W, 3]"
        parts = {n: sources.add(getattr(deploying, n)) for n in ("prepare", "finish")}
        parts |= {"content_size": sources.add(letterbox.content_size), "doc": IMAGE.format(axes=axes)}
        forward = FORWARD.format(**parts, layout=deploy.layout)
        usage = USAGE.format(axes=axes)
    else:
        forward = f"def forward(self, {inputs}):\n    return self.network({inputs})"
    if states:
        frame = inputs.partition(",")[0]
        usage = VIDEO.format(frame=frame)
        forward = forward.replace("(self, image)", "(self, image, state)").replace("fit)})", "fit)}, state)")
        methods.insert(0, _initial_state(states, sources))
    methods.insert(0, forward)
    imports = sorted(sources.imports.values(), key=lambda s: (s.startswith("from"), s))
    init = "def __init__(self):\n    super().__init__()\n" + textwrap.indent("\n".join(build), "    ")
    parts_of_file = [
        HEADER.format(title=title, name=name, usage=usage),
        "\n".join(imports),
        "\n\n" + "\n\n".join(sources.texts.values()),
        PUT.rstrip("\n"),
        "\n\n" + "\n".join(constants),
        f'\n\nclass {name}(nn.Module):\n    """{title}."""\n',
        "\n\n".join(textwrap.indent(m, "    ") for m in (init, *methods)),
    ]
    return "\n".join(parts_of_file) + "\n"


def _wrapped(classes: tuple[str, ...]) -> str:
    lines = textwrap.wrap(", ".join(map(repr, classes)) + ",", 100, break_on_hyphens=False)
    return "(\n" + textwrap.indent("\n".join(lines), "    ") + "\n)"


def _initial_state(states: dict[str, State], sources: Sources) -> str:
    lines = []
    for key, state in states.items():
        made = state.op.torch()
        assert isinstance(made, Function)
        given = "".join(f", {k}={literal(v)}" for k, v in made.kwargs.items())
        lines.append(f"    {key!r}: {sources.add(function(made.path))}(like{given}),")
    head = (
        'def initial_state(self, batch=1, device=None):\n    """What `forward` takes for a first frame."""\n'
    )
    body = ["like = torch.empty(batch, device=device)", "return {", *lines, "}"]
    return head + textwrap.indent("\n".join(body), "    ")


def _modules(graph: fx.GraphModule, sources: Sources) -> Iterator[str]:
    """Lines that build the modules which the graph calls, and share what they share."""
    done: list[str] = []
    for path, module in graph.named_modules(remove_duplicate=False):
        if not path or type(module) is nn.Module or any(path.startswith(f"{p}.") for p in done):
            continue
        done.append(path)
        yield f'put(self, "{path}", {_constructor(module, sources)})'
    first: dict[int, str] = {}
    for path, parameter in graph.named_parameters(remove_duplicate=False):
        other = first.setdefault(id(parameter), path)
        if other != path:
            place, _, leaf = path.rpartition(".")
            source, _, source_leaf = other.rpartition(".")
            yield (
                f'self.get_submodule("{place}").{leaf} = self.get_submodule("{source}").{source_leaf}  # tied'
            )


def _constructor(module: nn.Module, sources: Sources) -> str:
    """An expression that makes a module of the same shape."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn"):
        if "\n" not in repr(module):
            return f"nn.{module!r}"
        return _from_signature(module, f"nn.{kind.__name__}")
    name = sources.add(kind)
    own = next(k for k in kind.__mro__ if "__init__" in vars(k))
    if own.__module__.startswith("torch.nn"):  # a layer of torch's with another `forward`
        return f"{name}({module.extra_repr()})"
    return _from_signature(module, name)


def _from_signature(module: nn.Module, name: str) -> str:
    """Layers keep what they are made with under the names of their parameters."""
    given = []
    for p in inspect.signature(type(module).__init__).parameters.values():
        if p.name == "self":
            continue
        value = getattr(module, p.name, p.empty)
        if value is p.empty:
            what = f"{type(module).__name__} does not keep its parameter `{p.name}`"
            raise error("DET0802", f"{what}: it cannot be written as source")
        if p.name == "bias":  # a flag to the constructor, the parameter or None afterwards
            value = value is not None
        if value != p.default:
            given.append(f"{p.name}={literal(value)}")
    return f"{name}({', '.join(given)})"


def _value(x: Any) -> str:
    if isinstance(x, fx.Node):  # the underscore keeps a value's name apart from the function that made it
        return x.name if x.op == "placeholder" else f"{x.name}_"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {_value(v)}" for k, v in x.items()) + "}"
    if isinstance(x, (list, tuple)):
        inner = ", ".join(map(_value, x))
        return f"[{inner}]" if isinstance(x, list) else f"({inner}{',' if len(x) == 1 else ''})"
    return literal(x)


def _statements(graph: fx.GraphModule, sources: Sources) -> Iterator[str]:
    """The network, a line a node; where the place in the spec changes, the line names it."""
    before = ""
    for node in graph.graph.nodes:
        args = [*map(_value, node.args), *(f"{k}={_value(v)}" for k, v in node.kwargs.items())]
        if node.op == "output":
            yield f"return {_value(node.args[0])}"
        if node.op not in ("call_module", "call_function"):
            continue
        if node.op == "call_module":
            call = f'self.get_submodule("{node.target}")({", ".join(args)})'
        elif node.target is operator.getitem:
            call = f"{args[0]}[{args[1]}]"
        elif node.target is dict:
            call = _value(dict(node.kwargs))
        else:
            call = f"{sources.add(node.target)}({', '.join(args)})"
        place = _place(node)
        yield f"{_value(node)} = {call}" + (f"  # {place}" if place and place != before else "")
        before = place or before


def _place(node: fx.Node) -> str:
    lines = [x.strip() for x in (node.stack_trace or "").splitlines() if ".det" in x]
    own = [line for line in lines if not line.startswith('File "std/')]  # the user's, the innermost last
    if not lines:
        return ""
    return (
        (own or lines)[-1].removeprefix("File ").replace('"', "").replace(", line ", ":").partition(", in")[0]
    )
