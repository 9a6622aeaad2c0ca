"""From an image to a Prediction by a model folder: card, backends, estimator. NumPy and OpenCV only."""
