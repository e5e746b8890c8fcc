"""Screening before modelling: how alike the rows of a group are, and what that costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelError, MultilevelWarning, OptionError, SingularFitWarning, users_level
from .formula import quoted
from .frame import Table, like

if TYPE_CHECKING:
    from .design import Term
    from .fit import Fit

__all__ = ["exact_interval", "group_texts", "icc", "said"]

Array = NDArray[np.float64]
ZERO_ONE = (
    "{!r} is 0 or 1: the ICC is that of a linear model of probabilities, and its interval holds about, not exactly; "
    "family='binomial' has the ICC on the scale of the link"
)
NO_SPREAD = 1e-12  # share of the variance within groups that is none


def icc(
    y: str,
    group: str | Iterable[str],
    data: Any,
    *,
    level: float = 0.95,
    family: Any = "gaussian",
    n: int = 1000,
    seed: Any = 0,
    progress: bool | None = None,
) -> Any:
    """Intraclass correlation of a column before anything is modelled, and the design effect it makes.

    The share of the variance that lies between groups, in the model ``y ~ 1 + (1 | group)`` by REML (another family by
    Laplace's approximation).

    Parameters
    ----------
    y : str
        Column, or an expression such as ``"log(price)"``.
    group : str or list of str
        Grouping factor, ``"school"``, ``"batch/cask"`` (cask within batch), or several, ``["plate", "sample"]``.
    data : data frame or dict of columns
        Rows with missing values in these columns are left out.
    level : float
        Coverage of the interval.
    family : str or Family
        Distribution of y; see `Model`.
    n, seed, progress
        Of the simulated responses behind the interval where it is no exact one; see Returns.

    Returns
    -------
    frame
        A row for each grouping factor; with several also "(all)", the rows that share a level of every factor.
        group; icc; conf_low, conf_high; groups (levels); rows; mean_size (rows per level); design_effect; effective_n.

        With one factor and the Gaussian family the interval is exact (Wald 1940), whatever the group sizes; in the balanced
        case it is the F interval of Searle. Otherwise it comes from n refits to simulated responses.

        design_effect is the factor by which grouping inflates the variance of the mean of all rows,
        ``1 + sum over factors of (m - 1) * icc``, m the mean size of the group of a row (Kish 1965: ``sum n_j**2 / sum n_j``,
        at least mean_size); effective_n = rows / design_effect. For families that are not Gaussian, icc is on the scale
        of the link and the design effect is of the response, with the ICC on its scale (NaN where the family has none).

    Raises
    ------
    DataError
        For one level only, or as many levels as rows.

    Warns
    -----
    MultilevelWarning
        For a y of zeros and ones in the Gaussian family, whose interval is not exact.

    Notes
    -----
    Wald (1940), Ann. Math. Stat. 11, 96; Searle, Casella & McCulloch (1992), Variance Components, section 3.8.

    Examples
    --------
    >>> import multilevel as ml
    >>> table = ml.icc("Yield", "Batch", ml.load("dyestuff"))
    >>> table.round(2).loc[0, ["icc", "conf_low", "conf_high", "design_effect"]].tolist()
    [0.42, 0.08, 0.85, 2.67]
    """
    from .inference import check_level

    check_level(level)
    if not isinstance(y, str):
        raise OptionError(f"y is the name of a column, such as 'math': icc('math', 'school', data); got {said(y)}")
    fit = _null_fit(y, group, data, family)
    if fit is not None and not fit.generalised and set(np.unique(fit.design.y)) <= {0.0, 1.0}:
        warnings.warn(ZERO_ONE.format(y), MultilevelWarning, stacklevel=users_level())
    if fit is None:
        return _all_between(y, group, data, level)
    names = list(dict.fromkeys(t.group for t in fit.design.terms))
    terms = [next(t for t in fit.design.terms if t.group == name) for name in names]
    if len(names) == 1 and not fit.generalised:
        share = _shares(fit.icc(by_group=True, interval=None))
        low, high = exact_interval(fit.design.y, terms[0].codes, level)
        limits = np.array([[low, high]])
    else:
        options = {"level": level, "interval": "bootstrap", "n": n, "seed": seed, "progress": progress}
        share, limits = _simulated(fit, len(names), options)
    return like(fit.design.kind, _table(names, terms, share, limits, _of_response(fit, share)))


def exact_interval(y: Array, codes: NDArray[Any], level: float) -> tuple[float, float]:
    """Wald's exact interval of the ICC in the one-way normal model with groups of any sizes.

    With ``w_j = n_j / (1 + n_j tau)`` at the true ratio tau of variances, ``sum w_j (mean_j - mean_w)**2 / (a - 1)`` over the
    mean square within groups has the F distribution with a - 1 and N - a degrees of freedom, and falls with tau.

    Parameters
    ----------
    y : (n,) array
    codes : (n,) int array
        Level of each row, 0 to a - 1, all present.

    Returns
    -------
    low, high : float
        Of tau / (1 + tau); zero where the ratio at tau = 0 is below the quantile.
    """
    from scipy.optimize import brentq
    from scipy.special import fdtri

    size = np.bincount(codes).astype(np.float64)
    a, total = len(size), len(y)
    y = y - y.mean()
    mean = np.bincount(codes, y) / size
    within = float(np.sum((y - mean[codes]) ** 2)) / (total - a)

    def above(rho: float, quantile: float) -> float:
        w = size / ((1 - rho) + size * rho)  # (1 + tau) times the weights, without a pole at rho = 1
        centre = np.sum(w * mean) / np.sum(w)
        return float((1 - rho) * np.sum(w * (mean - centre) ** 2) / (a - 1) / within) - quantile

    found = []
    for tail in (0.5 + level / 2, 0.5 - level / 2):
        quantile = float(fdtri(a - 1, total - a, tail))
        inside = above(0.0, quantile) > 0
        found.append(float(brentq(above, 0.0, 1.0, args=(quantile,), xtol=1e-13)) if inside else 0.0)
    return found[0], found[1]


def _null_fit(y: str, group: str | Iterable[str], data: Any, family: Any) -> Fit | None:
    """The fit of intercepts alone; None where a Gaussian y does not vary within the levels of the only factor."""
    from .model import Model

    names = group_texts(group)
    if y in names:
        raise OptionError(f"y and the group are the same column, {y!r}; an ICC is of one column within the groups of another")
    table = Table(data)
    left = quoted(y) if y in table.names else y
    bars = " + ".join(f"(1 | {quoted(one) if one in table.names else one})" for one in names)
    try:
        model = Model(f"{left} ~ 1 + {bars}", data, family=family)
    except DataError:
        _explain(names, table)
        raise
    design = model.design
    if model.distribution is None and len(design.terms) == 1 and _flat(design.y, design.terms[0]):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)  # an ICC of zero says it
        return model.fit()


def group_texts(group: Any) -> list[str]:
    """Names of grouping factors as a list."""
    names = [group] if isinstance(group, str) else list(group) if isinstance(group, Iterable) else []
    if not names or not all(isinstance(one, str) and one.strip() for one in names):
        raise OptionError(f"groups are named, such as 'school' or ['school', 'class']; got {said(group)}")
    if len(set(names)) < len(names):
        raise OptionError(f"a grouping factor is named twice: {', '.join(names)}")
    return names


def said(given: Any) -> str:
    """What was given, for a message: data by their kind, anything else as it is."""
    return f"a {type(given).__name__}" if hasattr(given, "shape") or hasattr(given, "columns") else repr(given)


def _explain(names: list[str], table: Table) -> None:
    """Say in terms of groups why there is no ICC, where the model would speak of its effects."""
    from .frame import factor, label_text

    for name in names:
        if name not in table.names:
            continue
        codes, levels = factor(table.load([name])[name], name)
        rows = int((codes >= 0).sum())
        if len(levels) == 1:
            raise DataError(f"{name!r} has the single level {label_text(levels[0])!r}; an ICC compares at least two groups")
        if rows and len(levels) == rows:
            raise DataError(
                f"every row is a level of {name!r} of its own ({rows} levels in {rows} rows), so that nothing varies within "
                "groups; an ICC needs groups of several rows"
            )


def _flat(y: Array, term: Term) -> bool:
    size = np.bincount(term.codes, minlength=len(term.levels))
    centred = y - y.mean()
    mean = np.bincount(term.codes, centred, len(term.levels)) / size
    return bool(np.sum((centred - mean[term.codes]) ** 2) <= NO_SPREAD * np.sum(centred**2))


def _all_between(y: str, group: Any, data: Any, level: float) -> Any:
    """The table of a column that is constant within groups: its ICC is one."""
    from .model import Model

    name, table = group_texts(group)[0], Table(data)
    left = quoted(y) if y in table.names else y
    design = Model(f"{left} ~ 1 + (1 | {quoted(name) if name in table.names else name})", data).design
    one = np.ones(1)
    return like(design.kind, _table([name], list(design.terms), one, np.ones((1, 2)), one))


def _shares(table: Any) -> Array:
    """Adjusted ICC of each factor, from the frame of `Fit.icc(by_group=True)`."""
    values = np.asarray(table["estimate"], dtype=np.float64)
    return values[: len(values) // 2]


def _simulated(fit: Fit, count: int, options: dict[str, Any]) -> tuple[Array, Array]:
    """Shares and their limits from refits to simulated responses; the last limits are of all factors together."""
    if count > 1:  # refitted twice below: to the same responses
        options["seed"] = int(np.random.default_rng(options["seed"]).integers(2**62))
    table = fit.icc(by_group=True, **options)
    share = _shares(table)
    limits = np.column_stack([np.asarray(table[one], dtype=np.float64)[:count] for one in ("conf_low", "conf_high")])
    if count > 1:
        whole = fit.icc(**options)
        limits = np.vstack([limits, [float(np.asarray(whole[one])[0]) for one in ("conf_low", "conf_high")]])
    return share, limits


def _of_response(fit: Fit, share: Array) -> Array:
    """Shares on the scale of the response, which decide what the mean of all rows varies."""
    if not fit.generalised:
        return share
    try:
        return _shares(fit.icc(by_group=True, interval=None, scale="response"))  # type: ignore[call-arg]
    except MultilevelError:
        return np.full(len(share), np.nan)


def _table(names: list[str], terms: list[Term], share: Array, limits: Array, response: Array) -> dict[str, Array]:
    sizes = [np.bincount(t.codes, minlength=len(t.levels)).astype(np.float64) for t in terms]
    rows = len(terms[0].codes)
    kish = np.array([float(np.sum(one**2) / np.sum(one)) for one in sizes])
    effect = 1 + (kish - 1) * response
    levels, mean = np.array([len(one) for one in sizes]), np.array([rows / len(one) for one in sizes])
    if len(names) > 1:
        names, share = [*names, "(all)"], np.append(share, share.sum())
        effect = np.append(effect, 1 + np.sum(effect - 1))
        levels, mean = _joint(terms, levels, mean)
    return {
        "group": np.array(names, dtype=object),
        "icc": share,
        "conf_low": limits[:, 0],
        "conf_high": limits[:, 1],
        "groups": levels,
        "rows": np.full(len(names), rows),
        "mean_size": mean,
        "design_effect": effect,
        "effective_n": rows / effect,
    }


def _joint(terms: list[Term], levels: NDArray[Any], mean: Array) -> tuple[NDArray[Any], Array]:
    """Observed combinations of all factors, appended."""
    from .frame import combine

    codes, _ = combine([t.codes for t in terms], [len(t.levels) for t in terms])
    count = int(codes.max()) + 1
    return np.append(levels, count), np.append(mean, len(codes) / count)
