"""Whether chains agree and how much their draws are worth: R-hat, effective sample sizes, Monte Carlo errors, E-BFMI.

Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16, 667: rank-normalised split R-hat, bulk and tail
effective sample size. Arrays are (chains, draws, ...); every function works on all trailing entries at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["e_bfmi", "ess_bulk", "ess_mean", "ess_tail", "mcse_mean", "r_hat"]

Array = NDArray[np.float64]


def _split(x: Array) -> Array:
    """Each chain's halves as chains of their own."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, x.shape[1] - half :]], axis=0)


def _ranks(x: Array) -> Array:
    """Normal scores of the ranks over all chains, ties shared (Blom's offsets)."""
    from scipy.special import ndtri

    flat = x.reshape(x.shape[0] * x.shape[1], -1)
    ranks = np.column_stack([_average_ranks(column) for column in flat.T])
    return np.asarray(ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(x.shape))


def _average_ranks(x: Array) -> Array:
    """(m,) ranks from one, equal values sharing theirs (scipy.stats has this, but takes half a second to import)."""
    order = np.argsort(x, kind="stable")
    ranked = x[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    last = np.r_[first[1:], len(x)]
    out = np.empty(len(x))
    out[order] = np.repeat((first + last + 1) / 2, last - first)
    return out


def _plain_r_hat(x: Array) -> Array:
    n = x.shape[1]
    between = n * x.mean(axis=1).var(axis=0, ddof=1)
    within = x.var(axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((between / within + n - 1) / n))


def r_hat(x: Array) -> Array:
    """Rank-normalised split R-hat, the larger of location and spread; NaN for a constant."""
    parts = _split(x)
    folded = np.abs(parts - np.median(parts, axis=(0, 1)))
    out = np.maximum(_plain_r_hat(_ranks(parts)), _plain_r_hat(_ranks(folded)))
    return np.where(np.ptp(x, axis=(0, 1)) > 0, out, np.nan)


def _autocovariance(x: Array) -> Array:
    """(chains, lags, ...) autocovariances by Fourier transforms, divided by the number of draws."""
    from scipy.fft import irfft, next_fast_len, rfft

    n = x.shape[1]
    size = next_fast_len(2 * n)
    centred = x - x.mean(axis=1, keepdims=True)
    transformed = rfft(centred, size, axis=1)
    return np.asarray(irfft(np.abs(transformed) ** 2, size, axis=1)[:, :n] / n)


def _ess(x: Array) -> Array:
    """Effective sample size of the mean over chains, by Geyer's initial monotone sequence."""
    m, n = x.shape[:2]
    shape = x.shape[2:]
    flat = x.reshape(m, n, -1)
    if n < 4:
        return np.full(shape, np.nan)
    cov = _autocovariance(flat)
    within = cov[:, 0].mean(axis=0) * n / (n - 1)
    total = within * (n - 1) / n
    if m > 1:
        total = total + flat.mean(axis=1).var(axis=0, ddof=1)
    out = np.full(flat.shape[2], np.nan)
    mean_cov = cov.mean(axis=0)
    for i in range(flat.shape[2]):
        if total[i] > 0 and np.isfinite(total[i]):
            rho = 1 - (within[i] - mean_cov[:, i]) / total[i]
            rho[0] = 1.0
            out[i] = m * n / _tau(rho, m * n)
    return out.reshape(shape)


def _tau(rho: Array, total: int) -> float:
    """Integrated autocorrelation time: pairs of lags while their sums stay positive, made to fall, and the even lag after
    them, as Stan counts it."""
    pairs = rho[: 2 * max((len(rho) - 1) // 2, 1)].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    stop = int(negative[0]) if len(negative) else len(pairs) - 1
    falling = np.minimum.accumulate(pairs[:stop])
    return float(max(2 * falling.sum() - 1 + max(rho[2 * stop], 0.0), 1 / np.log10(total)))


def ess_mean(x: Array) -> Array:
    """Effective sample size for the mean."""
    return _ess(_split(x))


def ess_bulk(x: Array) -> Array:
    """Effective sample size of rank-normalised draws."""
    out = _ess(_ranks(_split(x)))
    return np.where(np.ptp(x, axis=(0, 1)) > 0, out, np.nan)


def ess_tail(x: Array, level: float = 0.9) -> Array:
    """The smaller effective sample size of the two indicators of being beyond a tail quantile."""
    low, high = np.quantile(x, [(1 - level) / 2, (1 + level) / 2], axis=(0, 1))
    out = np.minimum(_ess(_split((x <= low).astype(np.float64))), _ess(_split((x <= high).astype(np.float64))))
    return np.where(np.ptp(x, axis=(0, 1)) > 0, out, np.nan)


def mcse_mean(x: Array) -> Array:
    """Monte Carlo standard error of the mean."""
    return np.asarray(x.std(axis=(0, 1), ddof=1) / np.sqrt(ess_mean(x)))


def e_bfmi(energy: Array) -> Array:
    """(chains,) energy fraction of missing information (Betancourt 2016, arXiv:1604.00695); below 0.3 is bad."""
    return np.asarray((np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1, ddof=1))
