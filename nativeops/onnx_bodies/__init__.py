"""ONNX function bodies of the native ops: standard operators only, so a model runs in stock onnxruntime too."""
