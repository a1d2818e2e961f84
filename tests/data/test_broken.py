"""Annotations that are wrong in every way that people's files are: each is named, none ends in a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detc.compiler.spec import Size
from detc.dsl.diagnostics import DetError
from detc.runtime.data.dataset import DetectionDataset, open_dataset
from detc.runtime.data.loader import make_loader
from detc.runtime.data.sources import CocoJson, PascalVoc, YoloTxt
from detc.runtime.data.steps import Boxes, Load, Masks, Pad, Resize
from detc.runtime.metrics.coco import CocoEvaluator
from tests.data.making import spec, steps, write_coco

SIDE = Size(32, 32)
STEPS = steps(load=Load(), boxes=Boxes(), masks=Masks(), resize=Resize(size=SIDE), pad=Pad(size=SIDE))
PLAIN = steps(load=Load(), boxes=Boxes(), resize=Resize(size=SIDE), pad=Pad(size=SIDE))
CLASSES = ("one", "two")
Json = dict[str, Any]


@pytest.fixture
def coco(tmp_path: Path) -> Callable[[Callable[[Json], Any]], CocoJson]:
    """A COCO set whose annotation file was changed by a function."""

    def make(change: Callable[[Json], Any]) -> CocoJson:
        source = write_coco(tmp_path, 4)
        data = json.loads((tmp_path / "ann.json").read_text())
        change(data)
        (tmp_path / "ann.json").write_text(json.dumps(data))
        return source

    return make


def reasons(dataset: DetectionDataset) -> str:
    return " ".join(p.reason for p in dataset.tally.problems) + " ".join(dataset.tally.lines())


def first(**fields: Any) -> Callable[[Json], Any]:
    return lambda data: data["annotations"][0].update(fields)


def image(**fields: Any) -> Callable[[Json], Any]:
    return lambda data: data["images"][0].update(fields)


SPOILT = [
    (first(bbox=None), "annotation 1: `bbox` is None"),
    (first(bbox=[1, 2, 3]), "annotation 1: `bbox` is [1, 2, 3]"),
    (first(bbox=["a", 1, 2, 3]), "`bbox` is 'a', not a number"),
    (lambda d: d["annotations"][0].pop("bbox"), "annotation 1: no field 'bbox'"),
    (first(category_id=99), "annotation 1: there is no category 99"),
    (first(category_id=[]), "there is no category []"),
    (lambda d: d["annotations"][0].pop("category_id"), "no field 'category_id'"),
    (first(area="large"), "`area` is 'large'"),
    (first(area=float("nan")), "`area` is nan"),
    (first(iscrowd="maybe"), "`iscrowd` is 'maybe'"),
    (first(segmentation="x"), "`segmentation` is 'x'"),
    (first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon of `segmentation`"),
    (first(segmentation=[[1, 2, 3, 4, 5, float("inf")]]), "not finite"),
    (first(segmentation={"counts": [1]}), "the `size` of its run-length code is None"),
    (first(segmentation={"size": [36, 48], "counts": [-5, 99]}), "do not make 1728 pixels"),
    (first(segmentation={"size": [9, 9], "counts": "abc"}), "a run-length code of 9x9 on an image of 48x36"),
    (image(id=[1]), "its `id` is [1]"),
    (image(id=2), "its id 2 is that of 0.png too"),
    (image(file_name=None), "its `file_name` is None"),
    (image(width="wide"), "`width` is 'wide'"),
    (image(height=float("inf")), "`height` is inf"),
    (lambda d: d["images"].__setitem__(0, None), "None instead of fields"),
]


@pytest.mark.parametrize(("change", "reason"), SPOILT, ids=[r for _, r in SPOILT])
def test_a_spoilt_coco_entry_is_named_and_left_out(coco, change, reason: str) -> None:
    source = coco(change)
    dataset = open_dataset(spec(source, CLASSES, STEPS), "train", train=True)
    assert len(dataset) == 3 and reason in reasons(dataset)
    lost = any(words in reason for words in ("`id` is", "its id 2", "None instead"))
    assert lost == ("the file does not list" in reasons(dataset))
    with pytest.raises(DetError) as caught:
        open_dataset(spec(source, CLASSES, STEPS, on_error="stop"), "val", train=False)
    (found,) = caught.value.diagnostics
    assert found.code == "DET0904" and reason in found.message and "ann.json" in found.message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(images=None), "its `images` is not a list"),
        (lambda d: d.update(annotations="x"), "its `annotations` is not a list"),
        (lambda d: d["categories"][0].pop("id"), "entry 0 of `categories`"),
        (lambda d: d["categories"].append(3), "entry 2 of `categories`"),
        (lambda d: d["categories"][0].update(id=7), "`one` and `two` are both category 7"),
    ],
)
def test_a_coco_file_that_is_none_stops(coco, change, text: str) -> None:
    source = coco(change)
    for ask in (source.read_classes, lambda: source.open("train", list(CLASSES))):
        if ask == source.read_classes and "categories" not in text and "category" not in text:
            continue
        with pytest.raises(DetError) as caught:
            ask()
        assert caught.value.diagnostics[0].code == "DET0903" and text in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b'{"images": [', b"[" * 100_000, bytes(range(256))])
def test_what_is_not_json_stops(tmp_path: Path, content: bytes) -> None:
    source = write_coco(tmp_path, 2)
    (tmp_path / "ann.json").write_bytes(content)
    for ask in (source.read_classes, lambda: source.open("val", ["one"])):
        with pytest.raises(DetError, match="not a JSON file"):
            ask()


def test_loose_annotations_are_counted(coco) -> None:
    source = coco(lambda d: d["annotations"].extend([None, 5, {"image_id": [1]}, {"image_id": 77}]))
    assert "4 boxes dropped: of an image that the file does not list" in reasons(
        open_dataset(spec(source, CLASSES, PLAIN), "val", train=False)
    )


def test_a_crowd_is_one_if_its_flag_says_so(coco) -> None:
    source = coco(first(iscrowd="0"))
    assert not source.open("val", list(CLASSES)).records[0].crowd.any()
    assert coco(first(iscrowd=1)).open("val", list(CLASSES)).records[0].crowd.all()


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [3, 3, -2, 5], [100, 100, 5, 5], [float("nan")] * 4])
def test_boxes_that_cannot_be_are_dropped_and_counted(coco, box: list[float]) -> None:
    source = coco(first(bbox=box))
    dataset = open_dataset(spec(source, CLASSES, PLAIN), "val", train=False)
    assert len(dataset) == 4 and "1 box dropped" in reasons(dataset) and not dataset.tally.problems


def test_sizes_may_be_unstated(coco) -> None:
    """Then boxes outside of the image show when the file is opened."""

    def unstated(data: Json) -> None:
        for entry in data["images"]:
            entry.pop("width")
        data["images"][1].update(width=0)
        data["annotations"][0]["bbox"] = [500, 500, 20, 20]

    data = spec(coco(unstated), CLASSES, PLAIN)
    for train in (True, False):
        loader = make_loader(data, "train", 4, train=train)
        (batch,) = list(loader)
        assert not loader.tally.problems
        shown = {m["id"]: int(v.sum()) for m, v in zip(batch["meta"], batch["truth"]["valid"], strict=True)}
        assert shown == {1: 0, 2: 2, 3: 1, 4: 2}
    run = CocoEvaluator(loader.dataset)
    for number in shown:
        run.add(number, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert run.compute()["AP"] == 0.0


XML = """<annotation><size><width>48</width><height>36</height></size>
<object><name>one</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>20.5</xmax><ymax>22</ymax></bndbox></object>
</annotation>"""


def voc(root: Path, xml: str | bytes | None, listed: bytes = b"0\n1\n") -> PascalVoc:
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir()
    for i in range(2):
        Image.new("RGB", (48, 36)).save(root / f"JPEGImages/{i}.png")
        (root / f"Annotations/{i}.xml").write_text(XML)
    if xml is None:
        (root / "Annotations/0.xml").unlink()
    else:
        (root / "Annotations/0.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    (root / "list.txt").write_bytes(listed)
    return PascalVoc(root=str(root), train={"list": "list.txt"}, val={"list": "list.txt"})


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (None, "no such file"),
        ("", "no element found"),
        ("{}", "not well-formed"),
        (bytes(range(256)), "not well-formed"),
        (XML[:90], "unclosed"),
        (XML.replace("<xmin>5</xmin>", ""), "no <xmin> in <bndbox>"),
        (XML.replace("<xmin>5<", "<xmin>left<"), "<xmin> is `left`, not a number"),
        (XML.replace("<name>one</name>", ""), "no <name>"),
        (XML.replace("bndbox", "polygon"), "no <bndbox>"),
        (XML.replace(">48<", ">inf<"), "<width> is inf"),
        (XML.replace("<width>48</width>", ""), "no <width> in <size>"),
    ],
)
def test_a_broken_voc_file_is_named_and_left_out(tmp_path: Path, xml: str | None, reason: str) -> None:
    source = voc(tmp_path, xml)
    dataset = open_dataset(spec(source, CLASSES, PLAIN), "train", train=True)
    assert len(dataset) == 1
    (problem,) = dataset.tally.problems
    assert problem.file.endswith("0.xml") and reason in problem.reason


def test_voc_sizes_classes_and_lists(tmp_path: Path) -> None:
    source = voc(tmp_path, XML.replace(">one<", ">zebra<").replace(">48<", ">0<"), b"0\n1\n0\n")
    dataset = open_dataset(spec(source, CLASSES, PLAIN), "val", train=False)
    assert len(dataset) == 2 and dataset.records[0].width is None
    assert "class `zebra` is not in `classes`" in reasons(dataset)
    assert "1 image dropped: listed more than once" in reasons(dataset)
    for content in (b"\xff\xfe\x00", None):
        (tmp_path / "list.txt").unlink()
        if content is not None:
            (tmp_path / "list.txt").write_bytes(content)
        else:
            (tmp_path / "list.txt").mkdir()
        with pytest.raises(DetError, match="no image list"):
            source.open("val", list(CLASSES))


def yolo(root: Path, label: bytes, names: bytes = b"names: [one, two]") -> YoloTxt:
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i in range(2):
        Image.new("RGB", (48, 36)).save(root / f"images/{i}.png")
        (root / f"labels/{i}.txt").write_text("0 .5 .5 .2 .2\n1 .1 .1 .3 .1 .2 .4\n")
    (root / "labels/0.txt").write_bytes(label)
    (root / "data.yaml").write_bytes(names)
    return YoloTxt(root=str(root), train={"images": "images"}, val={"images": "images"}, data="data.yaml")


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (b"0 .5 .5 .2 x", "line 1: not numbers"),
        (b"0 .5 .5 .2 .2\n0 .5 .5", "line 2: 2 coordinates"),
        (b"7 .5 .5 .2 .2", "line 1: class 7; there are 0 to 1"),
        (b"-1 .5 .5 .2 .2", "class -1"),
        (b"inf .5 .5 .2 .2", "class inf"),
        (b"nan .5 .5 .2 .2", "class nan"),
        (b"0.5 .5 .5 .2 .2", "class 0.5"),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_a_broken_yolo_file_is_named_and_left_out(tmp_path: Path, label: bytes, reason: str) -> None:
    dataset = open_dataset(spec(yolo(tmp_path, label), CLASSES, STEPS), "train", train=True)
    (problem,) = dataset.tally.problems
    assert len(dataset) == 1 and problem.file.endswith("0.txt") and reason in problem.reason


@pytest.mark.parametrize(
    "label", [b"0 inf .5 .2 .2", b"0 .5 .5 0 .2", b"0 1.5 1.5 .2 .2", b"0 .1 .1 .2 .2 nan .3"]
)
@pytest.mark.filterwarnings("error")
def test_yolo_boxes_that_cannot_be_are_dropped(tmp_path: Path, label: bytes) -> None:
    dataset = open_dataset(spec(yolo(tmp_path, label), CLASSES, STEPS), "val", train=False)
    assert len(dataset) == 2 and "1 box dropped" in reasons(dataset)


def test_byte_order_marks_and_carriage_returns_do_not_matter(tmp_path: Path) -> None:
    source = yolo(tmp_path, b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n", b"\xef\xbb\xbfnames: {'0': one, 1: two}\r\n")
    assert source.read_classes() == ["one", "two"]
    assert len(source.open("val", list(CLASSES)).records[0].labels) == 1


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (b"", "no `names` in it"),
        (b"names: {a: one}", "`names` has an entry 'a'"),
        (b"names: {0: one, 5: two}", "`names` has an entry 5"),
        (b"names: [one", "not a YAML file"),
        (b"names: !!python/object/apply:os.getcwd []", "not a YAML file"),
        (b"\xff", "not text in UTF-8"),
    ],
)
def test_class_names_that_are_none_stop(tmp_path: Path, names: bytes, text: str) -> None:
    with pytest.raises(DetError) as caught:
        yolo(tmp_path, b"", names).read_classes()
    assert caught.value.diagnostics[0].code == "DET0903" and text in str(caught.value)


def test_a_split_without_a_usable_image_cannot_be_evaluated(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 2)
    for file in tmp_path.glob("*.png"):
        file.write_text("no")
    loader = make_loader(spec(source, CLASSES, PLAIN), "val", 2, train=False)
    assert list(loader) == [] and len(loader.tally.problems) == 2
    with pytest.raises(DetError, match="DET0905"):
        CocoEvaluator(loader.dataset).compute()
