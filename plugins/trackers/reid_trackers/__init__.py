"""Records of re-identification trainings in TensorBoard, MLflow, Weights & Biases and trackio."""
