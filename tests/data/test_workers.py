"""Processes that prepare batches and die."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from detc.dsl.diagnostics import DetError
from detc.runtime.data.dataset import DetectionDataset
from detc.runtime.data.loader import make_loader
from tests.data.making import record, spec, write_coco
from tests.data.test_loader import CALM, busy, same

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_is_replaced_and_the_batches_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    data = busy(tmp_path)
    wanted = list(make_loader(data, "train", 2, train=True, seed=3, workers=0))
    loader = make_loader(data, "train", 2, train=True, seed=3, workers=2)
    before = signal.getsignal(signal.SIGCHLD)
    found = []
    with caplog.at_level(logging.WARNING, "detc.data"):
        for number, batch in enumerate(loader):
            found.append(batch)
            if number == 1:
                for worker in loader._torch._iterator._workers:
                    os.kill(worker.pid, how)
                time.sleep(0.2)  # whatever they had prepared is lost with them, or not
    assert signal.getsignal(signal.SIGCHLD) == before
    assert len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True))
    # torch's workers take a SIGTERM of their parent for a wish to end, and end with 0
    reason = "SIGKILL, perhaps for want of memory" if how == signal.SIGKILL else "exit code 0"
    assert f"a process that prepares batches has died ({reason})" in caplog.text
    loader.set_epoch(1, start=2)
    again = make_loader(data, "train", 2, train=True, seed=3, workers=0)
    again.set_epoch(1, start=2)
    assert all(same(a, b) for a, b in zip(loader, again, strict=True))


def test_workers_that_die_at_once_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DetectionDataset, "__getitems__", lambda self, items: os._exit(7))
    loader = make_loader(busy(tmp_path), "train", 2, train=True, workers=1)
    with pytest.raises(DetError) as caught:
        next(iter(loader))
    (found,) = caught.value.diagnostics
    assert found.code == "DET0714" and "exit code 7" in found.message and "workers" in (found.help or "")


def test_random_choices_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    from dataclasses import replace

    data = busy(tmp_path)
    steps = tuple(s for s in data.pipelines["train"] if s.name != "mixup")  # it takes partners from its batch
    data = replace(data, pipelines={**data.pipelines, "train": steps})
    (whole, *_) = list(make_loader(data, "train", 4, train=True))
    for rank in (0, 1):
        (part, *_) = list(make_loader(data, "train", 2, train=True, rank=rank, world=2))
        assert torch.equal(part["image"]["pixels"], whole["image"]["pixels"][rank::2])
        assert [m["id"] for m in part["meta"]] == [m["id"] for m in whole["meta"]][rank::2]


def test_records_without_a_size_get_the_files(tmp_path: Path) -> None:
    unknown = record(boxes=[[2, 2, 9, 9], [50, 2, 60, 9]])
    unknown.width = unknown.height = None
    known = unknown.scaled(40, 30)
    assert (known.width, known.height, len(known.boxes)) == (40, 30, 1)
    assert spec(write_coco(tmp_path, 1), ("one",), CALM).origin is None
