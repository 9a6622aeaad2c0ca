"""Memory of the messages of one camera, kept from image to image: maps are written where they are published from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

from diffusion_perception_ros.inference.output_memory import OutputMemory


class MessageMemory(OutputMemory):
    """A message for each name, whose data hold a map. What an earlier image left is overwritten: publish at once.

    Messages are kept rather than their bytes because setting the field `data` copies what it is set to.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type[OutputMemory], tuple[()]]:
        """In another process, such as an isolated network's, there is new memory instead."""
        return OutputMemory, ()

    def allocate(
        self, field: str, shape: tuple[int, ...], dtype: npt.DTypeLike, kind: type[Any] = Image
    ) -> npt.NDArray[Any]:
        """Memory for a map or message of this name.

        Args:
            field: Of `Prediction`, or a topic.
            shape: Of the array.
            dtype: Of its values.
            kind: Of the message that it will be published in; it has a field `data` of bytes.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        message = self._kept.get(field)
        if message is None or len(message.data) != size:
            message = self._kept[field] = kind()
            message.data.frombytes(bytes(size))
        return np.frombuffer(message.data, dtype).reshape(shape)

    def message_of(self, name: str, values: npt.NDArray[Any], kind: type[Any] = Image) -> Any:
        """A message with the bytes of an array: the one that it lies in if that is kept here, else a copy."""
        address = values.__array_interface__["data"][0]
        if values.flags.c_contiguous:
            for message in self._kept.values():
                data = message.data
                if len(data) == values.nbytes and data.buffer_info()[0] == address and isinstance(message, kind):
                    return message
        np.copyto(self.allocate(name, values.shape, values.dtype, kind), values)
        return self._kept[name]
