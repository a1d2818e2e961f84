"""The drawing of a graph: every op once, nothing overlaps, well-formed SVG."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from detc.compiler.dims import dim
from detc.compiler.graph import DetGraph, Loss, Node
from detc.compiler.layout import layered
from detc.compiler.ops.base import Op
from detc.compiler.svg import graph_svg
from detc.compiler.types import Image, Map, tensor
from detc.compiler.values import Wire
from detc.dsl.source import BUILTIN, Origin

HERE = Origin(BUILTIN)
MAP = Map(64, Fraction(8), dim("H"), dim("W"))


class _Box(Op):
    name: ClassVar[str] = "Block"


def small_graph() -> DetGraph:
    """image -> backbone (stem, stage[0].conv, + stem) -> head (cls, reg) -> a loss and detections."""
    graph = DetGraph("train")
    graph.add(Node("image", None, (), Image(dim("H"), dim("W")), HERE))

    def op(id: str, path: str, *inputs: str, type=MAP) -> None:
        wires = tuple(Wire(i, (), graph.node(i).type) for i in inputs)
        graph.add(Node(id, _Box(), wires, type, HERE, weights=id, path=path))

    op("backbone.stem", "backbone", "image")
    op("backbone.stage[0].conv", "backbone.stage[0]", "backbone.stem")
    op("backbone.add", "backbone", "backbone.stage[0].conv", "backbone.stem")
    op("head.cls", "head", "backbone.add")
    op("head.reg", "head", "backbone.add")
    op("focal", "", "head.cls", type=tensor())
    op("nms", "", "head.cls", "head.reg")
    graph.losses.append(Loss("cls", Wire("focal", (), tensor()), 2.0, HERE))
    graph.outputs["detections"] = Wire("nms", (), MAP)
    return graph


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]


def test_opens_components_to_the_depth_asked():
    closed, one, all_open = (texts(graph_svg(small_graph(), title="Net", depth=d)) for d in (0, 1, 9))
    assert "Net" in closed and "backbone" in closed and "3 ops" in closed
    assert not any("stem" in t for t in closed)
    assert any("stem: Block" in t for t in one) and "stage[0]" in one
    assert not any("conv: Block" in t for t in one)
    assert any("conv: Block" in t for t in all_open)
    for shown in (closed, one, all_open):
        assert {"image", "cls", "weight 2", "detections"} <= set(shown)


def test_edges_follow_the_graph():
    svg = graph_svg(small_graph(), depth=0)
    edges = ElementTree.fromstring(svg).findall(".//{*}path[@class='edge']")
    # image>backbone>head, head>focal, head>nms, focal>loss, nms>output
    assert len(edges) == 6


def test_labels_are_escaped():
    graph = DetGraph("infer")
    graph.add(Node("a<b>&c", None, (), MAP, HERE))
    assert "a<b>&c" in texts(graph_svg(graph))


@pytest.mark.parametrize("seed", range(5))
def test_boxes_never_overlap(seed):
    rng = random.Random(seed)
    sizes = {i: (rng.uniform(20, 200), rng.uniform(20, 80)) for i in range(60)}
    edges = [(rng.randrange(i), i) for i in range(1, 60) for _ in range(rng.randint(1, 3))] + [(50, 3)]
    layout = layered(sizes, edges)
    assert set(layout.corners) == set(sizes)
    assert set(layout.routes) == set(edges)
    rects = [(x, y, x + sizes[k][0], y + sizes[k][1]) for k, (x, y) in layout.corners.items()]
    for i, a in enumerate(rects):
        assert (
            a[0] >= -1e-6 and a[1] >= -1e-6 and a[2] <= layout.width + 1e-6 and a[3] <= layout.height + 1e-6
        )
        for b in rects[:i]:
            assert a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] + 1e-6 or b[3] <= a[1] + 1e-6
    for a, b in set(edges) - {(50, 3)}:
        assert layout.corners[a][1] < layout.corners[b][1], "edges run down"


def test_a_chain_is_a_straight_line():
    layout = layered({i: (50 + 10 * i, 20) for i in range(5)}, [(i, i + 1) for i in range(4)])
    centers = {round(layout.corners[i][0] + (50 + 10 * i) / 2, 6) for i in range(5)}
    assert len(centers) == 1


def test_nothing_to_draw():
    assert layered({}, []).width == 0
