"""The type of what goes into a graph and comes out of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


FloatTensor = npt.NDArray[np.float32]
"""Any shape; images are (N, C, h, w)."""
