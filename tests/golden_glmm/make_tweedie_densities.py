"""Tweedie log densities in sixty digits: Dunn & Smyth's (2005) series, term by term (needs mpmath)."""

import json
import random

import mpmath as mp

mp.mp.dps = 60
random.seed(5)


def log_density(y, mu, phi, p):
    """y > 0; exact in the doubles given, but for the logarithms of mu and phi, which the core takes as doubles."""
    mu, phi = mp.e ** mp.mpf(float(mp.log(mp.mpf(mu)))), mp.e ** mp.mpf(float(mp.log(mp.mpf(phi))))
    y, p = mp.mpf(y), mp.mpf(p)
    a = (2 - p) / (p - 1)
    log_z = a * mp.log(y) - a * mp.log(p - 1) - (1 + a) * mp.log(phi) - mp.log(2 - p)

    def term(j):
        return j * log_z - mp.loggamma(1 + j) - mp.loggamma(a * j)

    middle = max(1, int(mp.nint(y ** (2 - p) / (phi * (2 - p)))))
    top, total = term(mp.mpf(middle)), mp.mpf(1)
    for way in (1, -1):
        j = middle + way
        while j >= 1:
            e = term(mp.mpf(j)) - top
            total += mp.e**e
            if e < -60:
                break
            j += way
    rest = (y * mu ** (1 - p) / (1 - p) - mu ** (2 - p) / (2 - p)) / phi
    return -mp.log(y) + top + mp.log(total) + rest


out = {"y": [], "mu": [], "phi": [], "power": [], "log_density": []}
powers = [1.01, 1.02, 1.05, 1.1, 1.3, 1.5, 1.7, 1.9, 1.95, 1.99]
while len(out["y"]) < 240:
    p = powers[len(out["y"]) % len(powers)]
    phi, mu = 10 ** random.uniform(-5, 2), 10 ** random.uniform(-2, 3)
    y = mu * mp.e ** random.gauss(0, 1.5 if len(out["y"]) % 3 else 0.1)
    y = float(y)
    if y ** (2 - p) / phi / (2 - p) > 3e5:
        continue
    for name, value in zip(out, (y, mu, phi, p, float(log_density(y, mu, phi, p))), strict=True):
        out[name].append(value)
with open("tweedie_densities.json", "w") as file:
    json.dump(out, file)
