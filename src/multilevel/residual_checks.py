"""Checks of the residuals: shape, outliers, spread, straightness, order; numbers behind the sentences.

Residuals are conditional (fitted values include the group effects) and standardised by their exact model sd,
``sigma sqrt(1 - leverage)``, so that under the model each has variance one, whatever its weight. Where the model has a
residual structure they are the normalized ones: divided by their own sd, freed of the serial correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .checks import LOOK, OK, PROBLEM, Check
from .influence import Rows, by_row, engine_rows, projected

if TYPE_CHECKING:
    from .fit import Fit
    from .residuals import Serial

Array = NDArray[np.float64]

SIMULATIONS = 100  # residuals simulated under the model, for statistics without a simple distribution
NUMBERS = 1e7  # held at once by them
FEW_LEVELS = 8  # up to which a residual variance for each level is advised
MIN_PER_GROUP = 5  # rows of a group whose spread is compared


@dataclass(frozen=True)
class Facts:
    """What the checks share.

    Attributes
    ----------
    fit : Fit
    table : dict of (n,) arrays
        `influence.by_row` of the rows used.
    good : (n,) bool array
        Rows that do not determine an effect alone.
    fitted : (n,) array
        Conditional fitted values.
    """

    fit: Fit
    table: dict[str, Array]
    good: NDArray[np.bool_]
    fitted: Array

    @property
    def residuals(self) -> Array:
        """(n,) standardised residuals; NaN where the row alone determines an effect."""
        return self.table["std_residual"]

    @property
    def noun(self) -> str:
        """What the sentences are about."""
        return "Residuals" if self.fit.model.residual is None else "Normalized residuals"

    @property
    def serial(self) -> Serial | None:
        """The serial correlation of the model's residuals."""
        return None if self.fit.model.residual is None else self.fit.model.residual.serial

    @property
    def spreads(self) -> str:
        """The variance functions of the model as typed; empty without any."""
        return "" if self.fit.model.residual is None else " + ".join(s.text for s in self.fit.model.residual.spreads)

    @cached_property
    def rows(self) -> Rows:
        """The rows in the engine's coordinates."""
        return engine_rows(self.fit)


def facts(fit: Fit) -> Facts:
    """Residuals and leverages of a fit."""
    table = by_row(fit)
    good = np.isfinite(table["std_residual"])
    return Facts(fit, table, good, fit._eta[1])


def checks(f: Facts) -> list[Check]:
    """All checks of the residuals."""
    out = [normality(f), outliers(f), spread(f), *spread_by_group(f), linearity(f), *autocorrelation(f)]
    return [*out, *weights(f)]


def p_text(p: float) -> str:
    """A p-value for a sentence."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def two_sided(z: float) -> float:
    """p-value of a standard normal statistic."""
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(z)))


# -- shape ----------------------------------------------------------------------------------------------------


def shape(values: Array) -> tuple[float, float, float, float]:
    """Skewness, excess kurtosis, and each over its sd under normality (exact small-sample variances)."""
    n = len(values)
    if n < 8:
        return 0.0, 0.0, 0.0, 0.0
    centred = values - values.mean()
    m2 = float(np.mean(centred**2))
    if not m2 > 0:
        return 0.0, 0.0, 0.0, 0.0
    skew, kurtosis = float(np.mean(centred**3)) / m2**1.5, float(np.mean(centred**4)) / m2**2 - 3
    var_skew = 6.0 * (n - 2) / ((n + 1) * (n + 3))
    var_kurtosis = 24.0 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3) * (n + 5))
    return skew, kurtosis, skew / var_skew**0.5, (kurtosis + 6 / (n + 1)) / var_kurtosis**0.5


def normality(f: Facts) -> Check:
    """Skewness and tails of the residuals, as a normal quantile plot would show them."""
    r = f.residuals[f.good]
    skew, kurtosis, z_skew, z_kurtosis = shape(r)
    name = "residual normality"
    skewed = abs(skew) > 0.5 and abs(z_skew) > 3.3
    heavy = kurtosis > 1 and z_kurtosis > 5
    light = kurtosis < -0.7 and z_kurtosis < -4
    numbers = f"skewness {skew:.2f}, excess kurtosis {kurtosis:.2f}"
    if not (skewed or heavy or light):
        return Check(name, OK, f"{f.noun} look normal ({numbers}).")
    what = [
        *([f"skewed to the {'right' if skew > 0 else 'left'}"] if skewed else []),
        *(["heavier in the tails than normal"] if heavy else []),
        *(["flatter than normal"] if light else []),
    ]
    bad = (skewed and abs(skew) > 1.5 and abs(z_skew) > 5) or (heavy and kurtosis > 10 and z_kurtosis > 8)
    advice = (
        "try a transformation of the response, such as its logarithm"
        if skewed and skew > 0
        else "look for outliers, or two kinds of rows in one"
        if heavy
        else "look at the quantile plot"
    )
    return Check(
        name,
        PROBLEM if bad else LOOK,
        f"{f.noun} are {' and '.join(what)} ({numbers}). With {len(r):,} rows coefficients and "
        f"their tests hardly suffer, but intervals for single new rows do; {advice}.",
    )


def outliers(f: Facts) -> Check:
    """Residuals beyond 3 sds, more than normal ones would have; the largest against n draws (Bonferroni)."""
    from scipy.special import bdtrc, ndtr, stdtr

    r, d = f.residuals, f.fit.design
    n = int(f.good.sum())
    beyond = np.flatnonzero(f.good & (np.abs(r) > 3))
    expected = n * 2 * float(ndtr(-3))
    name = "residual outliers"
    if not len(beyond):
        kind = "residual" if f.fit.model.residual is None else "normalized residual"
        return Check(name, OK, f"No {kind} lies beyond 3 standard deviations ({expected:.1f} expected).")
    df = f.fit.engine.df(f.fit.reml) - 1
    student = np.abs(f.table["student_residual"])
    largest = float(np.nanmax(student))
    p_largest = min(1.0, n * 2 * float(stdtr(df, -largest)))
    p_count = float(bdtrc(len(beyond) - 1, n, 2 * float(ndtr(-3))))
    worst = beyond[np.argsort(-np.abs(r[beyond]))][:5]
    rows = ", ".join(f"{int(d.rows[i])} ({r[i]:+.1f})" for i in worst)
    more = f" and {len(beyond) - 5} more" if len(beyond) > 5 else ""
    kind = "" if f.fit.model.residual is None else "normalized "
    count = f"{len(beyond)} {kind}residual{'s' * (len(beyond) > 1)} beyond 3 sds ({expected:.1f} expected)"
    if p_largest > 0.01 and p_count > 0.001:
        return Check(name, OK, f"{count}, no more and no farther out than chance.")
    return Check(
        name,
        PROBLEM if p_largest < 1e-6 else LOOK,
        f"{count}: row{'s' * (len(beyond) > 1)} {rows}{more}, counting from 0. Check these values for mistakes; if they are "
        "right, report results with and without them.",
    )


# -- spread ---------------------------------------------------------------------------------------------------


def slope_test(x: Array, y: Array) -> tuple[float, float]:
    """Slope of y on standardised x, and its t statistic."""
    n = len(x)
    sd = float(x.std())
    if n < 10 or not sd > 1e-12 * (1 + float(np.abs(x).max())):
        return 0.0, 0.0
    z = (x - x.mean()) / sd
    slope = float(np.mean(z * y))
    rest = y - y.mean() - slope * z
    error = float(np.sqrt(rest @ rest / (n - 2) / n))
    return slope, slope / error if error > 0 else 0.0


def fifths(x: Array, size: Array) -> float:
    """Mean size in the top fifth of x over that in the bottom fifth."""
    order = np.argsort(x, kind="stable")
    part = max(len(x) // 5, 1)
    low, high = float(size[order[:part]].mean()), float(size[order[-part:]].mean())
    return high / low if low > 0 else np.inf


def spread(f: Facts) -> Check:
    """Glejser's test: size of the residual against the fitted value."""
    size, fitted = np.abs(f.residuals[f.good]), f.fitted[f.good]
    _, t = slope_test(fitted, size)
    ratio = fifths(fitted, size)
    p, wide = two_sided(t), max(ratio, 1 / ratio if ratio > 0 else np.inf)
    name = "spread over fitted"
    if p > 0.003 or wide < 1.25:
        how = "hardly changes" if wide < 1.25 else "does not clearly change"
        what = "Spread" if f.noun == "Residuals" else "Spread of normalized residuals"
        times = f"{ratio:.2f} times as wide in the top fifth of them as in the bottom fifth"
        text = f"{what} {how} with the fitted values ({times}, {p_text(p)})."
        return Check(name, OK, text)
    where = "large" if ratio > 1 else "small"
    advice = "Let the residual variance vary: variance=\"power(fitted)\"."
    if f.spreads:
        advice = f"The variance function {f.spreads} does not describe it: try another."
    elif ratio > 1:
        advice = "A logarithm of the response often helps, or let the residual variance vary: variance=\"power(fitted)\"."
    return Check(
        name,
        PROBLEM if p < 1e-5 and wide > 1.75 else LOOK,
        f"{f.noun} spread {wide:.1f} times as wide at {where} fitted values ({p_text(p)}). Standard errors and intervals "
        f"are too short there and too long elsewhere. {advice}",
    )


def spread_by_group(f: Facts) -> list[Check]:
    """Levene's test on absolute standardised residuals, per grouping factor whose groups have rows enough."""
    from scipy.special import fdtrc

    out = []
    seen: set[str] = set()
    size = np.abs(f.residuals)
    for term in f.fit.design.terms:
        if term.group in seen:
            continue
        seen.add(term.group)
        counts = np.bincount(term.codes[f.good], minlength=len(term.levels))
        use = np.flatnonzero(counts >= MIN_PER_GROUP)
        if len(use) < 2:
            continue
        inside = f.good & (counts[term.codes] >= MIN_PER_GROUP)
        sums = np.bincount(term.codes[inside], size[inside], minlength=len(term.levels))
        means = sums[use] / counts[use]
        total = size[inside].mean()
        between = float(np.sum(counts[use] * (means - total) ** 2)) / (len(use) - 1)
        within_df = int(inside.sum()) - len(use)
        level_mean = np.zeros(len(term.levels))
        level_mean[use] = means
        within = float(np.sum((size[inside] - level_mean[term.codes[inside]]) ** 2)) / within_df
        p = float(fdtrc(len(use) - 1, within_df, between / within)) if within > 0 else 1.0
        out.append(_spread_sentence(f, term.group, term.levels[use], means, float(total), p))
    return out


def _spread_sentence(
    f: Facts, group: str, levels: NDArray[np.object_], means: Array, total: float, p: float
) -> Check:
    name = f"spread by {group}"
    ratios = means / total if total > 0 else np.ones(len(means))
    if p > 0.002 or ratios.max() < 1.25:
        text = f"widest {ratios.max():.2f} times the mean size, {p_text(p)}"
        return Check(name, OK, f"{f.noun} spread about alike in the levels of {group} ({text}).")
    order = np.argsort(-ratios)[:3]
    shown = ", ".join(f"{levels[i]} ({ratios[i]:.1f} times the mean size)" for i in order)
    return Check(
        name,
        PROBLEM if p < 1e-6 and ratios.max() > 2 else LOOK,
        f"{f.noun} are wider in some levels of {group} than in others ({p_text(p)}): {shown}. Check these for outliers; "
        f"intervals within them are too short. {_variance_by(group, len(levels))}"
        if f"ident({group})" not in f.spreads
        else f"{f.noun} are wider in some levels of {group} than in others although each has its own variance "
        f"({p_text(p)}): {shown}. Check these for outliers.",
    )


def _variance_by(group: str, levels: int) -> str:
    """The variance function to try: one parameter for each level is too many for many."""
    if levels <= FEW_LEVELS:
        return f'A residual variance for each would describe it: variance="ident({group})".'
    return (
        "If the wide ones have something in common, let the residual variance differ by it, for example "
        'variance="ident(treatment)" or variance="power(age)".'
    )


# -- straightness ---------------------------------------------------------------------------------------------


def numeric_columns(f: Facts) -> list[int]:
    """Columns of X that are a number's own values: no factor, product or power."""
    d = f.fit.design
    out = []
    for i, name in enumerate(d.names):
        if name == "Intercept" or any(mark in name for mark in "[:") or name.startswith("I("):
            continue
        if len(np.unique(d.X[:2000, i])) > 3 or len(np.unique(d.X[:, i])) > 3:
            out.append(i)
    return out


@dataclass(frozen=True)
class Bend:
    """Score test of a squared predictor: its t and p, and how far the curve leaves the line, in residual sds."""

    name: str
    t: float
    p: float
    size: float


def bend(f: Facts, column: int) -> Bend | None:
    """Test of the square of one column in the mixed model, variance parameters held; None where it is in the model."""
    from scipy.special import stdtr

    d, fit = f.fit.design, f.fit
    x = d.X[:, column]
    x = (x - x.mean()) / x.std()
    v = x**2 - 1
    v = v - x * float(x @ v / (x @ x))
    white = f.rows.whiten(v)
    left = projected(fit, f.rows, white[:, None])[:, 0]
    curved = float(white @ left)
    if curved < 1e-8 * float(white @ white):
        return None
    unit = fit.engine.blocks.unit  # the engine's weights have mean square one: sigma / unit belongs to them
    t = float(white @ f.rows.whiten(d.y - fit._eta[1])) * unit / fit.sigma / np.sqrt(curved)
    inside = (x >= np.quantile(x, 0.025)) & (x <= np.quantile(x, 0.975))  # one extreme value makes no bend
    size = abs(t) / np.sqrt(curved) / unit * float(np.ptp(v[inside]))
    df = _score_df(f, d.X[:, column])
    return Bend(d.names[column], t, float(2 * stdtr(df, -abs(t))), size)


def _score_df(f: Facts, x: Array) -> float:
    """Degrees of freedom for a predictor: levels less coefficients where it does not vary within them."""
    d = f.fit.design
    df = len(x) - len(d.names) - 1
    for term in d.terms:
        order = np.argsort(term.codes, kind="stable")
        same = np.diff(term.codes[order]) == 0
        if not np.any(same & (np.diff(x[order]) != 0)):
            df = min(df, len(term.levels) - len(d.names) - 1)
    return float(max(df, 1))


def linearity(f: Facts) -> Check:
    """Whether the square of a numeric predictor would improve the model."""
    name = "linearity"
    columns = numeric_columns(f)
    bends = [b for b in (bend(f, i) for i in columns) if b is not None]
    if not bends:
        return Check(name, OK, "No numeric predictor enters as a straight line, so there is nothing that could bend.")
    worst = min(bends, key=lambda b: b.p)
    p = min(1.0, worst.p * len(bends))
    if p > 0.005 or worst.size < 0.25:
        names = ", ".join(b.name for b in bends[:4]) + (f" and {len(bends) - 4} more" if len(bends) > 4 else "")
        return Check(name, OK, f"Straight lines will do for {names} (strongest bend: {worst.name}, {p_text(worst.p)}).")
    return Check(
        name,
        PROBLEM if p < 1e-5 and worst.size > 0.75 else LOOK,
        f"The response bends along {worst.name} ({p_text(worst.p)}): over its range a curve leaves the line by about "
        f"{worst.size:.1f} residual sds. Add I({worst.name}^2) or a spline, bs({worst.name}, df=4), and compare.",
    )


# -- order ----------------------------------------------------------------------------------------------------


def simulated_residuals(f: Facts, count: int) -> Array:
    """(n, count) standardised residuals of responses drawn from the model, variance parameters held."""
    from .predict import draw_responses

    fit, d = f.fit, f.fit.design
    mean = d.X @ fit.optimum.beta + (0.0 if d.offset is None else d.offset)
    drawn = draw_responses(fit, count, [], np.random.default_rng(0)) - mean
    left = projected(fit, f.rows, f.rows.whiten(drawn.T)) * fit.engine.blocks.unit
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(left / (fit.sigma * np.sqrt(1 - f.table["leverage"]))[:, None])


def lag_one(before: NDArray[np.int64], later: NDArray[np.int64], r: Array) -> Array:
    """(m,) correlation of residuals (n, m) with the next ones in their group."""
    first, second = r[before], r[later]
    scale = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
    return np.asarray(np.sum(first * second, axis=0) / scale)


def _links(f: Facts) -> tuple[str, NDArray[np.int64], NDArray[np.int64]]:
    """A group with, for each row that follows another in it, both: in the order of time where the model has one."""
    if f.serial is not None:
        later = np.flatnonzero(f.serial.previous >= 0)
        name, before = f.serial.group, f.serial.previous[later]
    else:
        term = max(f.fit.design.terms, key=lambda t: (np.bincount(t.codes) >= 3).sum())
        order = np.argsort(term.codes, kind="stable")
        linked = np.diff(term.codes[order]) == 0
        name, before, later = term.group, order[:-1][linked], order[1:][linked]
    good = f.good[before] & f.good[later]
    return name, before[good], later[good]


def autocorrelation(f: Facts) -> list[Check]:
    """Lag-one correlation of residuals within groups, in row order, against simulations from the model.

    Residuals of a mixed model are correlated by their making (they nearly sum to zero in each group), so the value is
    compared with that of simulated data, not with zero. What a serial correlation explains is gone from normalized
    residuals; these are taken in the order of its times.
    """
    d = f.fit.design
    if not d.terms and f.serial is None:
        return []
    group, before, later = _links(f)
    name = f"order within {group}"
    if len(before) < 20:
        return []
    count = int(max(20, min(SIMULATIONS, NUMBERS // len(d.y))))
    found = float(lag_one(before, later, f.residuals[:, None])[0])
    null = lag_one(before, later, simulated_residuals(f, count))
    z, above = (found - float(null.mean())) / float(null.std(ddof=1)), found - float(null.mean())
    p = two_sided(z)
    text = f"lag-1 correlation {above:+.2f} beyond what the model itself gives"
    clear = p <= 0.001 and abs(above) >= 0.1
    if f.serial is not None:
        return [_left_over(f.serial.text, name, above, text, p, clear)]
    if not clear:
        text = f"No clear sign that rows which follow each other in a level of {group} are alike ({text}, {p_text(p)})."
        return [Check(name, OK, text)]
    return [
        Check(
            name,
            PROBLEM if p < 1e-5 and abs(above) > 0.3 else LOOK,
            f"Rows that follow each other in a level of {group} are {'more' if above > 0 else 'less'} alike than the "
            f"model says ({text}, {p_text(p)}). If rows stand in the order of time, standard errors are too "
            f"{'small' if above > 0 else 'large'}: add a trend by group or a serial correlation, "
            f'correlation="ar1(1 | {group})".',
        )
    ]


def _left_over(serial: str, name: str, above: float, text: str, p: float, clear: bool) -> Check:
    """What a serial correlation leaves."""
    if not clear:
        return Check(name, OK, f"{serial} takes up the serial correlation: normalized residuals show {text} ({p_text(p)}).")
    return Check(
        name,
        PROBLEM if p < 1e-5 and abs(above) > 0.3 else LOOK,
        f"{serial} does not take up all serial correlation: normalized residuals show {text} ({p_text(p)}). Neighbours in "
        "time depend on each other in another way, for example with measurement error on top or a trend by group.",
    )


def weights(f: Facts) -> list[Check]:
    """Whether the weights leave standardised residuals of even size."""
    w = f.fit.design.weights
    if w is None:
        return []
    size, logs = np.abs(f.residuals[f.good]), np.log(w[f.good])
    _, t = slope_test(logs, size)
    ratio, p = fifths(logs, size), two_sided(t)
    shown = f"weights from {w.min():.3g} to {w.max():.3g}"
    if p > 0.002 or 0.8 < ratio < 1.25:
        return [Check("weights", OK, f"Residuals have even size after weighting ({shown}).")]
    return [
        Check(
            "weights",
            LOOK,
            f"After weighting, residuals of heavy rows are {ratio:.1f} times as large as those of light ones ({shown}, "
            f"{p_text(p)}): the weights {'overstate' if ratio > 1 else 'understate'} how precise heavy rows are.",
        )
    ]
