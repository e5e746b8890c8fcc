"""Scrambled Sobol points: a low-discrepancy sequence of up to twelve dimensions, randomised.

Direction numbers: Joe & Kuo (2008), SIAM J. Sci. Comput. 30, 2635. Scrambling: Owen's (1995), by hashing as in Burley (2020),
J. Comput. Graph. Tech. 9(4), 1, with the constants of N. Vegdahl's better-mixing variant.
(scipy.stats has it too, but takes half a second to import.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_DIMENSIONS", "scrambled_sobol"]

Array = NDArray[np.float64]
Words = NDArray[np.uint32]

BITS = 32
# per dimension from the second: degree of the primitive polynomial, its inner coefficients, first direction numbers
DIRECTIONS = (
    (1, 0, (1,)), (2, 1, (1, 3)), (3, 1, (1, 3, 1)), (3, 2, (1, 1, 1)), (4, 1, (1, 1, 3, 3)), (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)), (5, 4, (1, 1, 5, 5, 5)), (5, 7, (1, 1, 7, 11, 19)), (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
)  # fmt: skip
MOST_DIMENSIONS = 1 + len(DIRECTIONS)


def scrambled_sobol(n: int, d: int, rng: np.random.Generator) -> Array:
    """(n, d) points in the open unit cube; every coordinate is uniform, and another scrambling is independent of it."""
    out = np.empty((n, d))
    index = np.arange(n, dtype=np.uint32)
    for j in range(d):
        words = np.zeros(n, dtype=np.uint32)
        for bit, v in enumerate(_directions(j)):
            words ^= np.where((index >> np.uint32(bit)) & np.uint32(1), v, np.uint32(0))
        out[:, j] = (_scrambled(words, rng.integers(0, 2**32, dtype=np.uint32)) + 0.5) / 2.0**BITS
    return out


def _directions(j: int) -> Words:
    """(32,) direction numbers of dimension j."""
    if j == 0:
        return np.array([1 << (BITS - 1 - i) for i in range(BITS)], dtype=np.uint32)
    degree, inner, first = DIRECTIONS[j - 1]
    v = [m << (BITS - 1 - i) for i, m in enumerate(first)]
    for i in range(degree, BITS):
        new = v[i - degree] ^ (v[i - degree] >> degree)
        for k in range(1, degree):
            if (inner >> (degree - 1 - k)) & 1:
                new ^= v[i - k]
        v.append(new)
    return np.array(v, dtype=np.uint32)


def _scrambled(x: Words, seed: np.uint32) -> Words:
    """Owen's nested scrambling: each bit flipped or not by a hash of the bits above it."""
    x = _reversed(x)
    with np.errstate(over="ignore"):
        x = x ^ (x * np.uint32(0x3D20ADEA))
        x = x + seed
        x = x * ((seed >> np.uint32(16)) | np.uint32(1))
        x = x ^ (x * np.uint32(0x05526C56))
        x = x ^ (x * np.uint32(0x53A22864))
    return _reversed(x)


def _reversed(x: Words) -> Words:
    """The bits in opposite order."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        x = ((x >> np.uint32(shift)) & np.uint32(mask)) | ((x & np.uint32(mask)) << np.uint32(shift))
    return (x >> np.uint32(16)) | (x << np.uint32(16))
