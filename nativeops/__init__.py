"""Detection's native op library: one kernel source, two hosts (torch and ONNX Runtime).

Importing this package is cheap: no torch, no compiler. ``detc.nativeops.ops`` holds the public functions
    (importing it
imports torch and registers every op as ``torch.ops.detc.<name>``); the shared library behind them is built,
or loaded from the cache, at the first call of an op. ``README.md`` beside this file describes the layout.
"""
