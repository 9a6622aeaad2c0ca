"""All rows of the campaign, in the order in which they are run."""

from __future__ import annotations

from faults import rows_control, rows_disks, rows_input, rows_models, rows_neighbours
from faults.campaign import ROWS


__all__ = ["ROWS", "rows_control", "rows_disks", "rows_input", "rows_models", "rows_neighbours"]
