"""Trained re-identification runs as ONNX or torch.export graphs, pairwise matchers included."""
