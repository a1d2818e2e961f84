"""A graph as an SVG drawing: components are nested boxes, ops are coloured by their family.

`depth` says how far components are opened: 0 shows the model's own nodes only, 1 opens its components (their
inner components stay closed), and so on. Hovering over a box tells its path, type and place in the spec.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from detc.compiler.graph import DetGraph, Model, Node, arg_wires
from detc.compiler.layout import Layout, Point, layered

IN, OUT = "input of the component", "output of the component"
CHAR, LINE, PAD, TITLE = 6.3, 14.0, 12.0, 22.0

# fill and border by the module that an op is imported from; "" holds activations and arithmetic
COLORS = {
    "std.ops": ("#e4eefb", "#5b8fd6"),
    "": ("#f1f3f6", "#a9b1bf"),
    "std.losses": ("#fde5e3", "#d8645a"),
    "std.post": ("#e3f4e7", "#4f9f68"),
    "input": ("#2f3a4d", "#2f3a4d"),
    "output": ("#4f9f68", "#4f9f68"),
    "other": ("#f3e9fb", "#9a6cc4"),
    "closed": ("#fff6df", "#d3a53c"),
}


@dataclass
class _Group:
    """A component with what stands in it, in the order of execution."""

    path: str
    items: dict[str, _Group | Node] = field(default_factory=dict)
    closed: bool = False

    def nodes(self) -> Iterator[Node]:
        for item in self.items.values():
            if isinstance(item, _Group):
                yield from item.nodes()
            else:
                yield item


@dataclass
class _Drawn:
    """A laid-out box: its size and its SVG, relative to its left upper corner."""

    width: float
    height: float
    body: list[str]


def graph_svg(graph: DetGraph, *, title: str = "", depth: int = 1) -> str:
    """The drawing of a graph as SVG text.

    Args:
        graph: any phase's graph.
        title: a heading.
        depth: how many levels of components to open.
    """
    top, home = _tree(graph, depth)
    drawn = _draw_group(graph, top, home, title)
    width, height = drawn.width + 2 * PAD, drawn.height + 2 * PAD
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}">',
            _STYLE,
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
            f'<g transform="translate({PAD},{PAD})">',
            *drawn.body,
            "</g></svg>\n",
        ]
    )


def model_svg(model: Model, *, phase: str = "infer", depth: int = 1) -> str:
    """The drawing of one of a model's graphs."""
    graph = model.infer if phase == "infer" else model.train
    return graph_svg(graph, title=f"{model.name} ({phase})", depth=depth)


def segments(path: str) -> list[str]:
    """`a.b[0].c` -> `["a", "b[0]", "c"]`; no segments for the model itself."""
    return path.split(".") if path else []


def _tree(graph: DetGraph, depth: int) -> tuple[_Group, dict[str, tuple[str, ...]]]:
    """Groups by component path, and the chain of groups and finally the item of every node."""
    top, home = _Group(""), {}
    for node in graph.nodes():
        group, chain = top, []
        for level, name in enumerate(segments(node.path)):
            if group.closed:
                break
            path = f"{group.path}.{name}" if group.path else name
            inner = group.items.setdefault(f"{path}/", _Group(path, closed=level >= depth))
            assert isinstance(inner, _Group)
            chain.append(f"{path}/")
            group = inner
        group.items[node.id] = node
        home[node.id] = (*chain, *(() if group.closed else (node.id,)))
    return top, home


def _draw_group(graph: DetGraph, group: _Group, home: dict[str, tuple[str, ...]], title: str) -> _Drawn:
    """Lay out the items of an open group and draw them, with the edges that stay inside."""
    level = len(segments(group.path))
    drawn = {key: _draw_item(graph, item, home) for key, item in group.items.items()}
    inside = {node.id: home[node.id][level] for node in group.nodes()}
    edges = [
        (inside[edge.source], inside[edge.target])
        for edge in graph.edges()
        if edge.source in inside and edge.target in inside and inside[edge.source] != inside[edge.target]
    ]
    if group.path:  # what comes from outside enters at the top, what leaves goes to the bottom
        drawn = {IN: _Drawn(0, 0, []), **drawn, OUT: _Drawn(0, 0, [])}
        for edge in graph.edges():
            if edge.target in inside and edge.source not in inside:
                edges.append((IN, inside[edge.target]))
            elif edge.source in inside and edge.target not in inside:
                edges.append((inside[edge.source], OUT))
    if not group.path:
        for name, arg in graph.outputs.items():
            drawn[f"output {name}"] = _box([name], "output", f"output {name}")
            edges += [(inside[w.node], f"output {name}") for w in arg_wires(arg)]
        for loss in graph.losses:
            key = f"loss {loss.name}"
            drawn[key] = _box([loss.name, f"weight {loss.weight:g}"], "std.losses", key)
            edges.append((inside[loss.wire.node], key))
    layout = layered({k: (d.width, d.height) for k, d in drawn.items()}, edges)
    body = list(_edges(layout, drawn))
    for key, item in drawn.items():
        x, y = layout.corners[key]
        body += [f'<g transform="translate({x:.1f},{y:.1f})">', *item.body, "</g>"]
    name = title if not group.path else segments(group.path)[-1]
    return _frame(group, name, layout, body)


def _frame(group: _Group, name: str, layout: Layout, body: list[str]) -> _Drawn:
    top = TITLE if name else 0.0
    width = max(layout.width, len(name) * CHAR + 8) + 2 * PAD
    height = layout.height + top + 2 * PAD
    indent = (width - layout.width) / 2
    frame = [f'<rect class="group" width="{width:.1f}" height="{height:.1f}" rx="8"/>'] if group.path else []
    if name:
        frame.append(f'<text class="title" x="{PAD}" y="{TITLE - 5}">{escape(name)}</text>')
    return _Drawn(
        width, height, [*frame, f'<g transform="translate({indent:.1f},{top + PAD:.1f})">', *body, "</g>"]
    )


def _draw_item(graph: DetGraph, item: _Group | Node, home: dict[str, tuple[str, ...]]) -> _Drawn:
    if isinstance(item, Node):
        return _draw_node(item)
    if not item.closed:
        return _draw_group(graph, item, home, "")
    nodes = list(item.nodes())
    lines = [segments(item.path)[-1], f"{len(nodes)} ops", str(nodes[-1].type)]
    return _box(lines, "closed", f"{item.path}\n{nodes[-1].origin.user()}")


def _draw_node(node: Node) -> _Drawn:
    if node.op is None:
        return _box([node.id, str(node.type)], "input", node.id)
    first = type(node.op).name
    if node.weights:
        first = f"{segments(node.weights)[-1]}: {first}"
    module = type(node.op).module or ""
    tip = f"{node.id}\n{node.op!r}\n{node.type}\n{node.origin.user()}"
    return _box([first, str(node.type)], module if module in COLORS else "other", tip)


def _box(lines: list[str], family: str, tip: str) -> _Drawn:
    fill, border = COLORS[family]
    width = max(len(line) for line in lines) * CHAR + 18
    height = len(lines) * LINE + 10
    ink = "light" if family in ("input", "output") else "dark"
    body = [
        f"<g><title>{escape(tip)}</title>"
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}" stroke="{border}"/>'
    ]
    for i, line in enumerate(lines):
        kind = ink if i == 0 else f"{ink} dim"
        y = 5 + (i + 0.75) * LINE
        body.append(f'<text class="{kind}" x="{width / 2:.1f}" y="{y:.1f}">{escape(line)}</text>')
    return _Drawn(width, height, [*body, "</g>"])


def _edges(layout: Layout, drawn: dict[str, _Drawn]) -> Iterator[str]:
    """Curves from the lower border of one box to the upper border of another, spread along the borders."""
    out, into = defaultdict(list), defaultdict(list)
    for edge in layout.routes:
        out[edge[0]].append(edge)
        into[edge[1]].append(edge)

    def middle(key: object) -> float:
        return layout.corners[key][0] + drawn[str(key)].width / 2

    def port(key: object, edge: tuple[object, object], edges: list[tuple[object, object]], end: int) -> float:
        def other_end(e: tuple[object, object]) -> float:
            return layout.routes[e][-end][0] if layout.routes[e] else middle(e[1 - end])

        ordered = sorted(edges, key=other_end)
        step = min(14.0, drawn[str(key)].width * 0.8 / len(edges))
        return middle(key) + (ordered.index(edge) - (len(edges) - 1) / 2) * step

    for edge, bends in layout.routes.items():
        a, b = edge
        start = (port(a, edge, out[a], 0), layout.corners[a][1] + drawn[str(a)].height)
        stop = (port(b, edge, into[b], 1), layout.corners[b][1] - 2)
        yield f'<path class="edge" d="{_curve([start, *bends, stop])}"/>'


def _curve(points: list[Point]) -> str:
    """A path that is vertical at every point."""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in pairwise(points):
        if x1 == x2:
            path += f"V{y2:.1f}"
        else:
            lean = max(abs(y2 - y1) / 2, 10.0)
            path += f"C{x1:.1f},{y1 + lean:.1f} {x2:.1f},{y2 - lean:.1f} {x2:.1f},{y2:.1f}"
    return path


_STYLE = """<style>
text { font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  text-anchor: middle; fill: #1d2330 }
.title { font-weight: 600; text-anchor: start; fill: #56627a }
.light { fill: #ffffff } .dim { opacity: 0.65 }
.group { fill: #fafbfc; stroke: #cfd6e1 }
.edge { fill: none; stroke: #7d889b; stroke-width: 1.2; marker-end: url(#tip) }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto">
<path d="M0,0L8,4L0,8z" fill="#7d889b"/></marker></defs>"""
