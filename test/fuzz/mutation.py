"""Mutations of good inputs, for where atheris is not installed and for the bounded form in `make test`."""

from __future__ import annotations

import numpy as np


_NUMBERS = tuple(bytes.fromhex(text) for text in ("00000000", "ffffffff", "ffffff7f", "00000080", "7fffffff"))


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with one to eight changes: bytes, numbers, pieces removed, repeated or moved, or cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not changed:
            return rng.bytes(int(rng.integers(0, 64)))
        place = int(rng.integers(0, len(changed)))
        length = int(rng.integers(1, 33))
        kind = int(rng.integers(0, 7))
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[place] = int(rng.integers(0, 256))
        elif kind == 2:
            number = _NUMBERS[int(rng.integers(0, len(_NUMBERS)))]
            changed[place : place + 4] = number
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length] * int(rng.integers(1, 9))
        elif kind == 5:
            source = int(rng.integers(0, len(changed)))
            changed[place : place + length] = changed[source : source + length]
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)
