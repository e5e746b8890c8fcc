"""The judge: REML criterion or ML deviance of a model at given covariances, from dense matrices, by nobody's engine.

V = I/w + sum_t Z_t Gamma_t Z_t' with Gamma relative to sigma², formed whole: fit for n up to a few thousand.
Used to hold every engine to the same criterion whatever it reports, and to settle whether an optimum lies on the
boundary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from engines.protocol import Floats, Spec, Term
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Covariances = Sequence[Floats]


def column(frame: pd.DataFrame, effect: str) -> Floats:
    return np.ones(len(frame)) if effect == "1" else frame[effect].to_numpy(dtype=float)


def codes(frame: pd.DataFrame, term: Term) -> Ints:
    return np.asarray(frame.groupby(list(term.groups), observed=True).ngroup().to_numpy(), dtype=np.int64)


class Dense:
    """The arrays of one model; columns of Z are scaled to unit mean square, so covariances are comparable."""

    def __init__(self, spec: Spec, frame: pd.DataFrame) -> None:
        self.spec, self.n = spec, len(frame)
        weights = np.ones(self.n) if spec.weights is None else frame[spec.weights].to_numpy(dtype=float)
        self.log_weights = float(np.log(weights).sum())
        root = np.sqrt(weights)[:, None]
        raw = np.column_stack([column(frame, name) for name in ("1", *spec.fixed)])
        q, r = np.linalg.qr(root * raw)
        self.x, self.log_r = q, float(np.log(np.abs(np.diag(r))).sum())
        self.y = root[:, 0] * frame[spec.response].to_numpy(dtype=float)
        self.y = self.y - q @ (q.T @ self.y)  # leaves both criteria as they are, and spares the digits
        self.codes = [codes(frame, t) for t in spec.terms]
        self.z = [root * np.column_stack([column(frame, e) for e in t.effects]) for t in spec.terms]
        self.scales = [np.sqrt(np.mean(z**2, axis=0)) for z in self.z]
        self.z = [z / s for z, s in zip(self.z, self.scales, strict=True)]

    def whiten(self, covariances: Covariances, sigma: float) -> list[Floats]:
        """Relative covariances (over sigma²) in the scaled columns."""
        pairs = zip(covariances, self.scales, strict=True)
        return [np.asarray(c, dtype=float) * np.outer(s, s) / sigma**2 for c, s in pairs]

    def variance(self, relative: Covariances) -> Floats:
        v = np.eye(self.n)
        for z, code, gamma in zip(self.z, self.codes, relative, strict=True):
            order = np.argsort(code, kind="stable")
            for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
                v[np.ix_(rows, rows)] += z[rows] @ gamma @ z[rows].T
        return v

    def criterion(self, relative: Covariances) -> float:
        """-2 log-likelihood with sigma and beta profiled out, all constants kept (lme4's REMLcrit or deviance)."""
        chol = np.linalg.cholesky(self.variance(relative))
        solved = np.linalg.solve(chol, np.column_stack([self.x, self.y]))
        q, r = np.linalg.qr(solved[:, :-1])
        residual = solved[:, -1] - q @ (q.T @ solved[:, -1])
        p = self.x.shape[1]
        df = self.n - p if self.spec.reml else self.n
        value = 2 * np.log(np.diag(chol)).sum() - self.log_weights
        if self.spec.reml:
            value += 2 * (np.log(np.abs(np.diag(r))).sum() + self.log_r)
        return float(value + df * (1 + np.log(2 * np.pi * (residual @ residual) / df)))

    def boundary(self, relative: Covariances, near: float = 1e-2) -> tuple[bool | None, float, list[Floats]]:
        """Is this optimum singular? Its small directions are set to exactly zero: which criterion is better?

        Returns True, False, or None where the two differ by less than the criterion can tell; the smallest
        relative sd; and the covariances of the better of the two.
        """
        roots = [np.linalg.eigh((g + g.T) / 2) for g in relative]
        smallest = min(float(np.sqrt(max(values[0], 0.0))) for values, _ in roots)
        if smallest > near:
            return False, smallest, list(relative)
        best, found = list(relative), []
        here = self.criterion(best)
        unit = 1e-9 * max(1.0, abs(here))
        for i, (values, vectors) in enumerate(roots):  # one term at a time: another's small sd may be a real one
            least = float(np.sqrt(max(values[0], 0.0)))
            if least > near:
                continue
            kept = np.where(np.sqrt(np.maximum(values, 0.0)) > near, values, 0.0)
            flat = (vectors * kept) @ vectors.T
            trial = [*best[:i], np.diag(np.diag(flat)) if self.diagonal_only() else flat, *best[i + 1 :]]
            if self.criterion(trial) <= here + unit:
                best = trial
                found.append(least)
        if found:
            return (True if min(found) < 1e-3 else None), smallest, best
        return False, smallest, list(relative)

    def flat(self, relative: Covariances) -> bool:
        """Whether some direction with a positive sd may be scaled by four without changing the criterion."""
        here = self.criterion(relative)
        unit = 1e-9 * max(1.0, abs(here))
        for i, g in enumerate(relative):
            values, vectors = np.linalg.eigh((g + g.T) / 2)
            for j, value in enumerate(values):
                if value <= 1e-4:  # a small sd changes the criterion too little to tell
                    continue
                scaled = values.copy()
                scaled[j] = 16 * value
                trial = [*relative[:i], (vectors * scaled) @ vectors.T, *relative[i + 1 :]]
                if abs(self.criterion(trial) - here) <= unit:
                    return True
        return False

    def diagonal_only(self) -> bool:
        return all(t.structure == "diag" for t in self.spec.terms)
