"""Readers: what they keep, drop, count and refuse; the same boxes from different formats."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detc.dsl.diagnostics import DetError
from detc.runtime.data.dataset import open_dataset
from detc.runtime.data.sources import CocoJson, Concat, PascalVoc, YoloTxt
from detc.runtime.data.sources.coco_header import read_categories
from detc.runtime.data.steps import Boxes, Load
from tests.data.making import shared, spec, steps, write_coco

PLAIN = steps(load=Load(), boxes=Boxes())


def test_schemas_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, detc.runtime.data.steps, detc.runtime.data.sources, detc.runtime.data.options, "
        "detc.runtime.metrics; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_coco_classes_follow_ids_and_labels_follow_the_given_order(tmp_path: Path) -> None:
    source = write_coco(tmp_path)
    assert source.read_classes() == ["one", "two"]
    found = source.open("train", ["two", "one"])
    raw = json.loads((tmp_path / "ann.json").read_text())
    expected = [{3: 1, 7: 0}[a["category_id"]] for a in raw["annotations"] if a["image_id"] == 2]
    assert found.records[1].labels.tolist() == expected
    assert found.records[1].id == 2


def test_categories_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    decoy = {"images": [{"file_name": '"categories"'}], "note": "categories"}
    wanted = [{"id": 2, "name": "b]"}, {"id": 1, "name": "a"}]
    for text in (
        json.dumps({"categories": wanted, **decoy}),
        json.dumps({**decoy, "categories": wanted}, indent=2),
        json.dumps({"images": [], "categories": wanted, "extra": {"categories": 5}}),
    ):
        path.write_text(text)
        assert read_categories(path) == {1: "a", 2: "b]"}


def test_objects_of_other_classes_are_counted_with_a_hint(tmp_path: Path) -> None:
    found = write_coco(tmp_path).open("train", ["one", "twoo"])
    (reason,) = found.tally.boxes
    assert reason == "class `two` is not in `classes`; did you mean `twoo`?"
    assert found.tally.boxes[reason] == 4


def test_disjoint_class_spaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DetError) as caught:
        write_coco(tmp_path).open("train", ["cat"])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "DET0605" and "one, two" in (diagnostic.help or "")


def test_an_undeclared_split_names_the_declared_ones(tmp_path: Path) -> None:
    with pytest.raises(DetError, match="declared: train, val"):
        write_coco(tmp_path).open("test", ["one"])


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"images": []}'])
def test_a_file_that_is_no_coco_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DetError) as caught:
        CocoJson(root=str(tmp_path), train={"ann": "a.json"}).open("train", ["a"])
    assert caught.value.diagnostics[0].code == "DET0903"


def test_bad_boxes_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 2)
    raw = json.loads((tmp_path / "ann.json").read_text())
    n = len(raw["annotations"])
    for box in ([1, 1, 0, 5], [1, 1, 5, -2], [100, 1, 5, 5], [1, 1, float("nan"), 5], [-2, -3, 7, 8]):
        n += 1
        raw["annotations"].append({"id": n, "image_id": 1, "category_id": 3, "bbox": box})
    raw["annotations"].append({"id": n + 1, "image_id": 99, "category_id": 3, "bbox": [1, 1, 5, 5]})
    (tmp_path / "ann.json").write_text(json.dumps(raw))
    found = source.open("train", ["one", "two"])
    assert found.tally.boxes == {
        "width or height is zero or negative": 2,
        "outside the image": 1,
        "coordinates are not finite": 1,
        "of an image that the file does not list": 1,
    }
    assert found.records[0].boxes[-1].tolist() == [-2, -3, 5, 5]  # as annotated; steps clip it
    assert any("2 boxes dropped: width or height" in line for line in found.tally.lines())


def test_a_broken_entry_is_a_problem_with_the_files_name(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 3)
    raw = json.loads((tmp_path / "ann.json").read_text())
    raw["annotations"][0]["bbox"] = [1, 2]
    (tmp_path / "ann.json").write_text(json.dumps(raw))
    data = spec(source, ("one", "two"), PLAIN)
    dataset = open_dataset(data, "train", train=True)
    assert len(dataset) == 2
    assert dataset.tally.images == {"their annotation is broken": 1}
    assert "0.png" in dataset.tally.problems[0].reason
    with pytest.raises(DetError) as caught:
        open_dataset(spec(source, ("one", "two"), PLAIN, on_error="stop"), "train", train=True)
    assert caught.value.diagnostics[0].code == "DET0904"


def test_filters_that_leave_nothing_say_what_each_dropped(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 3)
    raw = json.loads((tmp_path / "ann.json").read_text())
    raw["annotations"] = [a for a in raw["annotations"] if a["image_id"] != 1]
    for one in raw["annotations"]:
        one["iscrowd"] = 1
    (tmp_path / "ann.json").write_text(json.dumps(raw))
    with pytest.raises(DetError) as caught:
        open_dataset(spec(source, ("one", "two"), PLAIN), "train", train=True)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "DET0905"
    assert diagnostic.notes == (
        "kept 0 of 3",
        "2 images dropped: only crowds or difficult objects in them",
        "1 image dropped: no object in them",
    )
    assert len(open_dataset(spec(source, ("one", "two"), PLAIN), "val", train=False)) == 3
    kept = open_dataset(spec(source, ("one", "two"), PLAIN, empty="keep"), "train", train=True)
    assert len(kept) == 3


VOC = """<annotation><filename>a.jpg</filename><size><width>50</width><height>40</height></size>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>50</xmax><ymax>40</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
<object><name>cat</name><bndbox><xmin>7.5</xmin><ymin>3</ymin><xmax>9</xmax><ymax>3</ymax></bndbox></object>
</annotation>"""


def voc(root: Path, names: str = "a\nb\n", **fields: object) -> PascalVoc:
    (root / "JPEGImages").mkdir()
    (root / "Annotations").mkdir()
    (root / "list.txt").write_text(names)
    (root / "Annotations/a.xml").write_text(VOC)
    return PascalVoc(root=str(root), train={"list": "list.txt"}, **fields)


def test_voc_counts_from_one_and_marks_difficult_objects(tmp_path: Path) -> None:
    source = voc(tmp_path)
    assert source.read_classes() == ["cat", "dog"]  # parts are no classes
    found = source.open("train", ["cat", "dog"])
    (one,) = found.records
    assert one.boxes.tolist() == [[0, 1, 50, 40]] and one.labels.tolist() == [1]
    assert one.ignore.tolist() == [True] and (one.width, one.height) == (50, 40)
    assert found.tally.boxes == {"width or height is zero or negative": 1}
    (problem,) = found.tally.problems
    assert problem.file.endswith("b.xml") and problem.reason == "no such file"


def test_voc_difficult_objects_can_be_kept_and_origin_can_be_zero(tmp_path: Path) -> None:
    one = voc(tmp_path, "a 1\nb -1\n", first=0, difficult="keep").open("train", ["cat", "dog"]).records[0]
    assert one.boxes.tolist() == [[1, 2, 50, 40]] and not one.ignore.any()


def test_a_voc_file_cut_short_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    source = voc(tmp_path)
    (tmp_path / "Annotations/b.xml").write_text(VOC[:200])
    found = source.open("train", ["cat", "dog"])
    assert "broken annotation" in found.tally.problems[0].reason


def yolo(root: Path, labels: str, **fields: object) -> YoloTxt:
    from PIL import Image

    (root / "images").mkdir()
    (root / "labels").mkdir()
    Image.new("RGB", (40, 20)).save(root / "images/a.png")
    Image.new("RGB", (40, 20)).save(root / "images/none.png")
    (root / "labels/a.txt").write_text(labels)
    (root / "data.yaml").write_text("names:\n  1: b\n  0: a\n")
    return YoloTxt(root=str(root), train={"images": "images/"}, data="data.yaml", **fields)


def test_yolo_boxes_and_polygons_become_pixels(tmp_path: Path) -> None:
    source = yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n\n0 0.1 0.1 0.2 0.1 0.2 0.4\n")
    assert source.read_classes() == ["a", "b"]
    found = source.open("train", ["b", "a"])
    one = found.records[0].scaled(40, 20)
    np.testing.assert_allclose(one.boxes, [[10, 5, 30, 15], [4, 2, 8, 8]])
    assert one.labels.tolist() == [0, 1]
    np.testing.assert_allclose(one.areas, [200, 12])
    assert len(found.records[1].labels) == 0  # no label file: no objects


@pytest.mark.parametrize("line", ["0 0.1 0.2 0.3", "2 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "cat 0 0 1 1"])
def test_a_broken_yolo_line_is_a_problem_with_its_number(tmp_path: Path, line: str) -> None:
    found = yolo(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}\n").open("train", ["a", "b"])
    (problem,) = found.tally.problems
    assert "line 2" in problem.reason and problem.file.endswith("a.txt")


def test_sources_join_by_class_name(tmp_path: Path) -> None:
    both = Concat(sources=[write_coco(tmp_path / "x", 2), write_coco(tmp_path / "y", 3, seed=1)])
    found = both.open("train", None)
    assert found.classes == ("one", "two")
    assert [r.id for r in found.records] == ["0:1", "0:2", "1:1", "1:2", "1:3"]


def test_bccd_reports_its_two_boxes_of_no_size() -> None:
    root = shared("bccd")
    splits = {s: {"list": f"ImageSets/Main/{s}.txt"} for s in ("train", "val", "test")}
    source = PascalVoc(root=str(root), first=0, **splits)
    assert source.read_classes() == ["Platelets", "RBC", "WBC"]
    found = {s: source.open(s, None) for s in splits}
    assert {s: len(a.records) for s, a in found.items()} == {"train": 205, "val": 87, "test": 72}
    dropped = {a.tally.examples[r]: n for a in found.values() for r, n in a.tally.boxes.items()}
    assert dropped == {"BloodImage_00338.xml": 1, "BloodImage_00343.xml": 1}
    assert sum(len(r.boxes) for a in found.values() for r in a.records) == 4888 - 2


def test_coco64_gives_the_same_boxes_from_json_and_from_txt() -> None:
    root = shared("coco64")
    coco = CocoJson(root=str(root), val={"images": "images/", "ann": "instances.json"})
    names = coco.read_classes()
    assert names is not None and len(names) == 80
    txt = YoloTxt(root=str(root), val={"images": "images/", "labels": "labels_yolo_seg/"})
    a = {Path(r.path).name: r for r in coco.open("val", names).records}
    b = {Path(r.path).name: r for r in txt.open("val", names).records}
    assert a.keys() == b.keys() and len(a) == 64
    for name, one in a.items():
        assert one.width and one.height
        other = b[name].scaled(one.width, one.height)
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.02)  # the JSON has two decimals
