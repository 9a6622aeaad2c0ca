"""Memory of the messages of one camera, kept from image to image: maps are written where they are published from."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_perception_ros.inference.output_memory import OutputMemory


class MessageMemory(OutputMemory):
    """The bytes of one map for each name. What an earlier image left there is overwritten, so nobody may keep it."""

    def __init__(self) -> None:
        self._kept: dict[str, array[int]] = {}

    def __reduce__(self) -> tuple[type[OutputMemory], tuple[()]]:
        """In another process, such as an isolated network's, there is new memory instead."""
        return OutputMemory, ()

    def allocate(self, field: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory for a map or message of this name; `field` may be a topic, too."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        data = self._kept.get(field)
        if data is None or len(data) != size:
            data = self._kept[field] = array("B", bytes(size))
        return np.frombuffer(data, dtype).reshape(shape)

    def bytes_of(self, name: str, values: npt.NDArray[Any]) -> array[int]:
        """The bytes of an array for a message: those that it lies in, if they are kept here, else a copy."""
        address = values.__array_interface__["data"][0]
        if values.flags.c_contiguous:
            for data in self._kept.values():
                if len(data) == values.nbytes and data.buffer_info()[0] == address:
                    return data
        np.copyto(self.allocate(name, values.shape, values.dtype), values)
        return self._kept[name]
