"""Blocks run with onnxruntime, and a personal head in numpy. Never imports torch or onnx."""
