"""The synthetic world: scenes, materials, cameras and exact ground truth, rendered."""
