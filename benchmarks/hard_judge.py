"""Whether the fit of a hard case is right, by other means than the fit's own certificate.

`value_again` sums SciPy's densities and takes a dense determinant; `gain` differentiates the criterion numerically;
`searches` begins from other starts; `bad_tables` and `bad_verbs` look for numbers that are none.
"""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats as st
from numpy.typing import NDArray

from multilevel import MultilevelError

Floats = NDArray[np.float64]
SIZES = (1.0, 0.1, 5.0, 50.0)  # of the random effects at other starts
EVALUATIONS = 150
SECONDS = 20.0  # after which no further search is begun
VERB_SECONDS = 60.0
RUNAWAY = 12.0  # log of a dispersion

# -- densities, not the project's -------------------------------------------------------------------------------------


def log_probability(link: str, eta: Floats, other: bool) -> Floats:
    """log mu, or log(1 - mu), of a probability."""
    e = -eta if other else eta
    if link == "cloglog":
        return np.asarray(-np.exp(eta) if other else np.log(-np.expm1(-np.exp(eta))))
    table = {"logit": sp.log_expit, "probit": sp.log_ndtr, "cauchit": st.cauchy.logcdf}
    return np.asarray(table[link](e))


def choose(m: Floats, y: Floats) -> Floats:
    """log of m over y."""
    return np.asarray(-np.log(m + 1) - sp.betaln(y + 1, m - y + 1))


def log_rising(a: Floats, y: Floats) -> Floats:
    """log a (a + 1) ... (a + y - 1): term by term where that can be done."""
    a, y = np.broadcast_arrays(np.asarray(a, dtype=float), y)
    out = sp.gammaln(a + y) - sp.gammaln(a)
    for i in np.flatnonzero(y < 20_000):
        out[i] = np.log(a[i] + np.arange(y[i])).sum()
    return np.asarray(out)


def rising_at(log_a: Floats, y: Floats) -> Floats:
    """The same at exp(log_a), which may be too small for a number: its first factor apart."""
    a = np.exp(log_a)
    small = np.where(y > 0, log_a + log_rising(a + 1, np.maximum(y - 1, 0)), 0.0)
    return np.where(a < 1e-12, small, log_rising(np.maximum(a, 1e-12), y))


def mean(link: str, eta: Floats) -> Floats:
    table = {"log": np.exp, "sqrt": np.square, "inverse": lambda e: 1 / e, "inverse_square": lambda e: e**-0.5}
    return np.asarray(table.get(link, lambda e: e)(eta))


def base_density(name: str, link: str, y: Floats, m: Floats, eta: Floats, first: Floats, second: Floats) -> Floats:
    """Log density of each row without extra zeros."""
    if name in ("binomial", "betabinomial", "beta"):
        p, q = log_probability(link, eta, False), log_probability(link, eta, True)
        if name == "binomial":
            return choose(m, y) + np.where(y > 0, y * p, 0) + np.where(m > y, (m - y) * q, 0)
        a, b = np.exp(p + first), np.exp(q + first)
        if name == "beta":
            return np.asarray((a - 1) * np.log(y) + (b - 1) * np.log1p(-y) - sp.betaln(a, b))
        return choose(m, y) + rising_at(p + first, y) + rising_at(q + first, m - y) - log_rising(a + b, m)
    if name == "ordinal":
        upper = np.where(y < m - 1, first - eta, np.inf)
        lower = np.where(y > 0, second - eta, -np.inf)
        flip = np.where(lower > 0, -1.0, 1.0)
        one, two = flip * upper, flip * lower
        big, small = np.maximum(one, two), np.minimum(one, two)
        if link == "cloglog":  # exp(-a) - exp(-b)
            a, b = np.exp(lower), np.exp(upper)
            return np.asarray(-a + np.log(-np.expm1(-(b - a))))
        p, q = log_probability(link, big, False), log_probability(link, small, False)
        return np.asarray(p + np.log1p(-np.exp(q - p)))
    if name == "student":
        df, z = 1 + np.exp(second), (y - mean(link, eta)) * np.exp(-first)
        return -sp.betaln(0.5, df / 2) - 0.5 * np.log(df) - first - (df + 1) / 2 * np.log1p(z * z / df)
    if name == "lognormal":
        return np.asarray(st.norm.logpdf(np.log(y), mean(link, eta), np.exp(first)) - np.log(y))
    mu, size = mean(link, eta), np.exp(first)
    if name == "poisson":
        return np.asarray(st.poisson.logpmf(y, mu))
    if name in ("nbinom2", "nbinom1"):
        count, odds = (size, mu / size) if name == "nbinom2" else (mu / size, size)
        return log_rising(count, y) - sp.gammaln(y + 1) - count * np.log1p(odds) - y * np.log1p(1 / odds)
    if name == "gamma":
        return np.asarray(st.gamma.logpdf(y, size, scale=mu / size))
    if name == "inverse_gaussian":
        return np.asarray(0.5 * (first - np.log(2 * np.pi) - 3 * np.log(y)) - size * (y - mu) ** 2 / (2 * mu**2 * y))
    raise ValueError(name)


def density(family: Any, y: Floats, m: Floats, eta: Floats, first: Floats, second: Floats) -> Floats:
    own = base_density(family.name, family.link, y, m, eta, first, second)
    if family.zero == "none":
        return own
    share, rest = sp.log_expit(second), sp.log_expit(-second)
    if family.zero == "inflated":
        return np.asarray(np.where(y == 0, np.logaddexp(share, rest + own), rest + own))
    none = base_density(family.name, family.link, np.zeros_like(y), m, eta, first, second)
    return np.asarray(np.where(y == 0, share, rest + own - np.log(-np.expm1(none))))


# -- the criterion in coordinates of its own --------------------------------------------------------------------------


class Point:
    """The criterion (a deviance) about an optimum: free entries of every Lambda, fixed effects, further coefficients."""

    def __init__(self, fit: Any) -> None:
        self.engine = fit.model.laplace(1)
        self.state = self.engine.state()
        best = fit.optimum
        self.lambdas = [np.array(m) for m in best.engine_lambdas]
        self.places = [(f, i, j) for f, index in self.engine.components for i in index for j in index]
        plain = [np.linalg.solve(self.engine.x_basis, best.beta)] if len(best.beta) else []
        more = self.engine.coefficients
        plain += [np.linalg.solve(more.basis, best.residual)] if len(best.residual) else []
        self.plain = np.concatenate(plain) if plain else np.empty(0)
        self.size = len(self.places) + len(self.plain)
        self.u = self.modes(best.b)  # where every search for them begins: densities that are not log-concave have several

    def modes(self, effects: tuple[Floats, ...]) -> Floats:
        """Standardised effects of the engine from the user's."""
        out = []
        for group, root in zip(self.engine.groups, self.lambdas, strict=True):
            joint = np.zeros((group.levels, group.k))
            for t, part in zip(group.terms, group.slices, strict=True):
                joint[:, part] = effects[t]
            out.append(np.linalg.lstsq(group.basis @ root, joint.T, rcond=None)[0].T.ravel())
        return np.concatenate(out) if out else np.empty(0)

    def coordinates(self) -> Floats:
        return np.r_[[self.lambdas[f][i, j] for f, i, j in self.places], self.plain]

    def moved(self, step: Floats) -> tuple[list[Floats], Floats]:
        lambdas = [m.copy() for m in self.lambdas]
        for (f, i, j), change in zip(self.places, step, strict=False):
            lambdas[f][i, j] += change
        return lambdas, self.plain + step[len(self.places) :]

    def evaluate(self, step: Floats, want: bool) -> Any:
        lambdas, plain = self.moved(step)
        self.state.u = self.u
        p = self.engine.x.shape[1]
        rows = self.engine.coefficients.rows(np.ascontiguousarray(plain[p:]))
        return self.state.evaluate(np.ascontiguousarray(plain[:p]), lambdas, rows, want)

    def value(self, step: Floats) -> float:
        return 2 * float(self.evaluate(step, False)[0])

    def gradient(self, step: Floats) -> Floats:
        value, by_beta, by_lambda, by_rows = self.evaluate(step, True)
        if not np.isfinite(value):
            return np.full(self.size, np.nan)
        free = [by_lambda[f][i, j] for f, i, j in self.places]
        more = np.zeros(len(self.engine.coefficients.start))
        for design, rows in zip(self.engine.coefficients.designs, by_rows, strict=True):
            more = more + design.T @ rows
        return 2 * np.r_[free, by_beta, more]


def along(size: int, i: int, step: float) -> Floats:
    out = np.zeros(size)
    out[i] = step
    return out


def gain(point: Point) -> float:
    """Deviance that a Newton step promises whose gradient is differenced from values alone."""
    k = point.size
    rough = np.array(
        [(point.gradient(along(k, i, 1e-4)) - point.gradient(along(k, i, -1e-4))) / 2e-4 for i in range(k)]
    ).reshape(k, k)
    hessian = (rough + rough.T) / 2
    most = 0.3 * np.maximum(1.0, np.abs(point.coordinates()))
    steps = np.minimum(3e-2 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-12)), most)
    slope = np.empty(k)
    for i, h in enumerate(steps):
        for _ in range(6):
            one, two, three, four = (point.value(along(k, i, s * h)) for s in (-2, -1, 1, 2))
            if np.isfinite([one, two, three, four]).all():
                break
            h = steps[i] = h / 4  # the edge of the link's range is near
        slope[i] = (one - 8 * two + 8 * three - four) / (12 * h)
    if not (np.isfinite(hessian).all() and np.isfinite(slope).all()):
        return float("nan")
    scaled, own = hessian * np.outer(steps, steps), slope * steps
    values, vectors = np.linalg.eigh(scaled)
    kept = values > 1e-6 * max(float(values[-1]), 1e-300)
    return float(np.sum((vectors.T @ own)[kept] ** 2 / values[kept]) / 2)


def value_again(fit: Any, point: Point) -> float | None:
    """The deviance at the optimum from SciPy's densities and a dense determinant, less the fit's.

    None where a dispersion runs away: these densities lose their digits there.
    """
    engine, d = point.engine, fit.design
    point.evaluate(np.zeros(point.size), True)
    eta, w, _ = point.state.rows()
    n, u = len(eta), np.asarray(point.state.u)
    columns = [np.zeros((n, 0))]
    for group, codes, z, root in zip(engine.groups, engine.codes, engine.z, point.lambdas, strict=True):
        own = (np.ones((n, 1)) if z is None else np.asarray(z).reshape(n, -1)) @ root
        block = np.zeros((n, group.levels, group.k))
        block[np.arange(n), np.asarray(codes)] = own
        columns.append(block.reshape(n, -1))
    zl = np.hstack(columns)
    p = engine.x.shape[1]
    rows = [*engine.coefficients.rows(np.ascontiguousarray(point.plain[p:])), np.zeros(n), np.zeros(n)]
    if np.abs(rows[0]).max() > RUNAWAY and fit.family.name != "ordinal":
        return None
    m = np.ones(n) if d.trials is None else d.trials
    prior = np.ones(n) if d.weights is None else d.weights
    with np.errstate(all="ignore"):
        total = float(np.sum(prior * density(fit.family, d.y, m, np.asarray(eta), rows[0], rows[1])))
    sign, log_det = np.linalg.slogdet(zl.T @ (np.asarray(w)[:, None] * zl) + np.eye(zl.shape[1]))
    return float(-2 * total + u @ u + log_det + 2 * fit.loglik) if sign > 0 else float("nan")


# -- other starts ---------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """Where a search from another start ended; `minimum`: by its own test."""

    deviance: float
    minimum: bool
    lambdas: list[Floats]
    plain: Floats


def searches(engine: Any, plains: list[Floats], lambdas: list[list[Floats]]) -> tuple[list[Found], list[str]]:
    """Ends of searches from many starts, the lowest first, and what other searches died of."""
    state = engine.state()
    found, deaths = [], set()
    end = time.monotonic() + SECONDS
    for plain in plains:
        for roots in lambdas:
            if time.monotonic() > end:
                break
            state.u = np.zeros(len(np.asarray(state.u)))
            first = [np.ascontiguousarray(r) for r in roots]
            designs = list(engine.coefficients.designs)
            try:
                one = state.fit(first, np.ascontiguousarray(plain), designs, engine.components, EVALUATIONS)
            except Exception as error:
                deaths.add(f"{type(error).__name__}: {error}")
                continue
            if one["status"] != 3 and np.isfinite(one["deviance"]):
                found.append(Found(float(one["deviance"]), one["status"] == 0, one["lambdas"], one["plain"]))
    return sorted(found, key=lambda f: f.deviance), sorted(deaths)


def by_quadrature(engine: Any, lambdas: list[Floats], plain: Floats) -> float:
    """The deviance with the integrals done by quadrature; NaN where that cannot be."""
    from multilevel.quadrature import rule

    if len(engine.groups) != 1 or engine.groups[0].k > 3:
        return float("nan")
    state = engine.state()
    state.set_quadrature(*rule((51, 25, 11)[engine.groups[0].k - 1]))
    p = engine.x.shape[1]
    rows = engine.coefficients.rows(np.ascontiguousarray(plain[p:]))
    roots = [np.ascontiguousarray(m) for m in lambdas]
    return 2 * float(state.evaluate(np.ascontiguousarray(plain[:p]), roots, rows, False)[0])


def lower_elsewhere(point: Point, found: list[Found], deviance: float, limit: float) -> tuple[Found | None, str]:
    """The lowest end below the optimum, a minimum before others, and what to say of it; nothing to say: an artefact.

    Where Laplace's approximation degenerates (searches stop at no minimum) its value may be too low; quadrature tells. A
    lower minimum counts, whatever quadrature says.
    """
    lower = [f for f in found if f.deviance < deviance - limit]
    if not lower:
        return None, ""
    here = by_quadrature(point.engine, point.lambdas, point.plain)
    contradicted = [by_quadrature(point.engine, f.lambdas, f.plain) > here - limit for f in lower]
    for one, artefact in zip(lower, contradicted, strict=True):
        if one.minimum:
            more = ", though higher by quadrature" if artefact else ""
            return one, f"another start ends at a minimum {deviance - one.deviance:.3g} lower{more}"
    for one, artefact in zip(lower, contradicted, strict=True):
        if not artefact:
            return one, f"another start ends {deviance - one.deviance:.3g} lower, not at a minimum"
    return lower[0], ""


def starts(engine: Any, point: Point | None) -> tuple[list[Floats], list[list[Floats]]]:
    """Coefficients and covariances to begin with, near an optimum and far from it."""
    lambdas = [[size * np.eye(g.k) for g in engine.groups] for size in SIZES]
    first = np.r_[engine._first_beta(), engine.coefficients.start]
    if point is None:
        lambdas += [[size * np.eye(g.k) for g in engine.groups] for size in (1e-3, 1e-6, 1e-10, 1e-13)]
        return [first, np.r_[np.zeros(engine.x.shape[1]), engine.coefficients.start]], lambdas
    rng = np.random.default_rng(1)
    lambdas.append([m + 0.1 * np.eye(len(m)) for m in point.lambdas])
    around = point.plain + 0.3 * rng.normal(size=len(point.plain))
    return [point.plain, first, around], lambdas


# -- numbers ----------------------------------------------------------------------------------------------------------


def finite(values: Any) -> bool:
    return bool(np.isfinite(np.asarray(values, dtype=float)).all())


def bad_tables(fit: Any) -> list[str]:
    """Tables that hold something that is not a number."""
    bad = []
    for name in ("fixef", "extra", "ranef", "confint"):
        try:
            table = getattr(fit, name)()
        except MultilevelError as error:
            bad += [f"{name}(), which is refused: {error}"] * fit.convergence.converged
            continue
        columns = [c for c in table.columns if table[c].dtype.kind == "f" and c != "df"]
        bad += [f"{name}().{c}" for c in columns if not finite(table[c])]
    covariances = fit.varcorr()
    whole = covariances["term2"].isna()
    bad += [] if finite(covariances.loc[whole, ["vcov", "sdcor"]]) else ["varcorr()"]
    bad += [] if finite(fit.vcov()) else ["vcov()"]
    bad += [] if finite([fit.loglik, fit.aic, fit.bic]) else ["loglik"]
    words = fit.summary().lower().replace("(", " ").split()
    undefined = int((~whole & covariances["sdcor"].isna()).sum())  # correlations with an effect that does not vary
    return bad + [f"summary() says {w}" for w in ("nan", "inf", "-inf") if words.count(w) > undefined * (w == "nan")]


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """TimeoutError in the block where it takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def predictions(fit: Any, rows: NDArray[Any]) -> Floats:
    """With limits of confidence; one that is infinite, after a warning of a parameter without an estimate, is the truth."""
    table = fit.predict(interval="confidence")
    numbers = {c: table[c].to_numpy(dtype=float) for c in table.columns if table[c].dtype.kind == "f"}
    if len(table) == fit.design.n_input:
        numbers = {c: v[rows] for c, v in numbers.items()}
    return np.column_stack([np.where(np.isinf(v), 0.0, v) if "conf_" in c else v for c, v in numbers.items()])


def bad_verbs(fit: Any) -> list[str]:
    """Verbs that break on the fit, or give something that is not a number for a row used; a refusal is no fault."""
    rows = np.asarray(fit.design.rows)
    verbs: dict[str, Any] = {
        "fitted": lambda: fit.fitted("link" if fit.family.name == "ordinal" else "response")[rows],
        "predict": lambda: predictions(fit, rows),
        "residuals pearson": lambda: fit.residuals("pearson")[rows],
        "residuals quantile": lambda: fit.residuals("quantile", seed=1)[rows],
        "simulate": lambda: np.asarray(fit.simulate(1, seed=1), dtype=float)[rows],
        "check": lambda: [0.0 * len(str(fit.check()))],
        "r2": lambda: fit.r2()["estimate"],
        "icc": lambda: fit.icc()["estimate"],
    }
    bad = []
    for name, verb in verbs.items():
        with warnings.catch_warnings(), contextlib.suppress(MultilevelError):
            warnings.simplefilter("ignore")
            try:
                with at_most(VERB_SECONDS):
                    good = finite(verb())
                bad += [] if good else [f"{name}: not finite"]
            except MultilevelError:
                raise
            except Exception as error:
                bad.append(f"{name}: {type(error).__name__}: {str(error)[:120]}")
    return bad
