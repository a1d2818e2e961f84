"""Training: from a resolved run to checkpoints, curves and numbers.

The functions that others call (all lazy: this package imports no torch by itself):

    from detc.runtime.train.engine import train
    train(run, *, out, device=None, procs=1, resume=False, init=None, weights_dir=None, compile=False,
          max_iterations=None, draw=8, plain=None) -> TrainResult
        `init`: None (what the spec's `from` names), "random", or a checkpoint's path to fine-tune from.
        TrainResult: out, best (Path | None), last (Path), metrics (dict), epochs, iterations, seconds,
        stopped.

    from detc.runtime.train.validate import evaluate
    evaluate(program, data, *, split="val", device="cpu", batch=16, workers=None, world=None, limit=None,
             progress=None) -> Mapping[str, float]
        The data's metrics as plain floats ("ap", "ap50", "ap75", "ap_s", "ar_100", and "ap/<class>").

    from detc.runtime.train.checkpoint import read_checkpoint, save_checkpoint, load_weights
    read_checkpoint(path) -> Checkpoint     # .spec (resolved text), .run, .classes, .model (state_dict),
    .train load_weights(program, path)             # exact: refuses another model's weights (DET0902)

    from detc.runtime.weights.apply import initialise
    initialise(program, sources, *, weights_dir=None, init=None) -> list[LoadReport]
        `sources`: the spec's `from "…"` clauses, see `sources_of(run)` there.

Schemas (`schema.py`, torch-free): SGD, Adam, AdamW; Linear, Quadratic, Constant, MultiStep, Cosine, Poly,
Exponential; EMA, EarlyStop, CheckNaN.
"""
