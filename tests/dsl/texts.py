"""Texts that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = """\
det 1
import std.ops { Conv, UpsampleLike as Up, MaxPool }
import std.data as data
import "./parts.det" { Part }

interface Neck {
  input feats: pyramid
  output out: pyramid
}

## A pyramid neck.
## Two lines of docs.
component FPN(
  ## Channels of every output level.
  width: int = 256,
  levels: int = 5,
  extra: "pool" | "conv" = "pool",
  act: Activation? = none,
) : Neck {
  input feats: pyramid
  let n = len(feats)
  where levels >= n else "FPN(levels = {levels}) cannot drop any of the {n} input levels"
  repeat l in 0 .. n {
    node lateral[l] = Conv(width, kernel = 1, in = 3)
    lat[l] = feats[l] -> lateral[l]
  }
  td[n - 1] = lat[n - 1]
  repeat l in n - 1 .. 0 step -1 {
    td[l - 1] = lat[l - 1] + ((td[l], lat[l - 1]) -> Up())
  }
  rest = feats[1 ..] # trailing
  when extra == "conv" { x = a } else when not n > 3 and true { x = b } else { x = c }
  infer { a = b }
  train { loss cls[0, l](weight = 1.0, at = 3) = (a, b) -> L1() }
  output out: pyramid = p
}

model M(classes: labels) extends FPN(3) with GN(16), Other {
  frozen node teacher: Detector = RTMDet(classes) from "weights" # why
  shadow node ema = Average(student, decay = 0.999)
  state tracks: tracks[cap = 256] = NoTracks()
  next tracks = (tracks, d) -> Associate(high = 0.6)
  m = (shared, coords) -> mask using k
  u, v[0] = f(a)
  set loss.cls[*].weight = 2.0
  set data.active = "late"
  replace backbone.stage[2, 3].block[*].conv2 = DeformConv(old.width)
  remove head
  tie a.weight = b.weight
  insert blur: GaussianBlur(sigma = 0.5) after hsv
  scores = mean([y[s].logits -> softmax() for s in 0 .. len(stages) if s > 1])
}

train R {
  epochs = 300ep
  optim = AdamW(lr = 4e-3 per 256img, weight_decay = 0.05)
  group "**.norm" { weight_decay = 0 }
  lr { warmup: Linear(from_ratio = 1e-5, over = 1000it) }
  at epochs - 20ep { set data.active = "late" }
  validate = { every = 10ep, every_late = 1ep }
}

target t { image = 640x640 batch = 1 .. 16 ratio = 5% }
patch P(groups: int = 32) for model { replace head.norm[*] = GroupNorm(groups) }
run l { data = Coco() model = M(classes = data.classes if x else y) }
run { data = Coco() }
test "extra levels" { let y = -x.y ** 1 expect y.strides == [4, 8] }
""".replace(" ** 1", " // 2 % 3 in z")


def det_files() -> list[Path]:
    """Every `.det` file that the project ships."""
    return sorted([*ROOT.glob("stdlib/**/*.det"), *ROOT.glob("specs/*.det")])
