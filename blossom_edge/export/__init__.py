"""From torch to ONNX: skeletons of single blocks, and one file of a whole model. Only where torch and onnx are."""
