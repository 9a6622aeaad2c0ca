"""Pure numbers: scores, alignment, baselines, geometry. Shared by evaluation and training; knows no model."""
