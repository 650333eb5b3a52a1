"""Random damage to the bytes of a file."""

import numpy as np


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some changed, left out, repeated or set to an extreme."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, len(content)))
        length = int(rng.integers(1, 9))
        match int(rng.integers(0, 4)):
            case 0:
                content[place] = int(rng.integers(0, 256))
            case 1:
                del content[place : place + length]
            case 2:
                content[place:place] = content[place : place + length]
            case _:
                content[place : place + length] = bytes([int(rng.choice([0, 127, 128, 255]))]) * length
    return bytes(content)
