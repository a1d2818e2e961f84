"""Files that should have been weights: refused with a code and a reason, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detc.dsl.diagnostics import DetError
from detc.runtime.train.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from detc.runtime.weights.load import load_exactly, load_fitting
from detc.runtime.weights.read import read_file


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def refused(path: Path) -> str:
    with pytest.raises(DetError) as caught:
        read_file(path)
    (found,) = caught.value.diagnostics
    assert found.code == "DET0911" and str(path) in found.message
    return found.message


@pytest.mark.filterwarnings("error")
def test_traps_do_not_go_off(tmp_path: Path) -> None:
    mark, file = tmp_path / "sprung", tmp_path / "w.pt"
    data = {"model": {"w": torch.zeros(2)}, "extra": Trap(mark)}
    torch.save(data, file)
    assert "could run code when loaded (posix.system)" in refused(file)
    torch.save(data, file, _use_new_zipfile_serialization=False)
    assert "could run code when loaded (posix.system)" in refused(file)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps(Trap(mark), protocol))
        refused(file)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x02", bytes(range(256))])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_other_files_are_no_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    refused(file)


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pt")
    save_file({"w": torch.zeros(1000)}, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in (0.1, 0.5, 0.9):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            refused(tmp_path / name)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("field", ["version", "spec", "run", "classes", "model", "metrics", "train"])
@pytest.mark.parametrize("value", [None, 2.5])
def test_damaged_checkpoints(tmp_path: Path, field: str, value: Any) -> None:
    file = tmp_path / "best.pt"
    save_checkpoint(file, Checkpoint("det 1\n", "", ("a",), {"w": torch.zeros(1)}))
    data = torch.load(file, weights_only=True)
    data[field] = value
    torch.save(data, file)
    with pytest.raises(DetError, match=f"damaged checkpoint: its `{field}`"):
        read_checkpoint(file)


@pytest.mark.parametrize("load", [load_exactly, load_fitting])
def test_weights_that_are_not_finite_are_refused(load: Any) -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    state = {"weight": torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), "bias": torch.tensor([torch.inf, 0.0])}
    with pytest.raises(DetError) as caught:
        load(model, state, "best.pt")
    (found,) = caught.value.diagnostics
    assert found.code == "DET0911" and found.notes == ("NaN or infinity in weight, bias",)
    assert torch.equal(model.weight, before)
