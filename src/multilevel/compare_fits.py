"""Fits side by side: criteria of information, and tests of each against the nearest smaller one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import tables
from .chi_bar import chi_bar_weights
from .comparison import Comparison, described
from .errors import ConvergenceWarning, DataError, MultilevelWarning, users_level
from .nested import Step, same_fixed, step_between
from .progress import Progress

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["compared"]

Array = NDArray[np.float64]

CRITERIA = ("aic", "aicc", "bic")
CLOSE = 2.0  # difference of AIC that says little (Burnham & Anderson 2002, section 2.6)
SAME = 1e-6  # difference of AIC that is rounding
HIGHER = 1e-5  # deviance of a larger model above a smaller one's that is no rounding
FEW_GROUPS = 30
LEVEL = 0.05


@dataclass(frozen=True)
class Ratio:
    """Test of one model against a smaller one."""

    against: str
    step: Step
    lrt: float
    p_value: float
    p_boundary: float
    simulated: bool = False

    @property
    def reference(self) -> str:
        """What `p_boundary` is of."""
        return "simulated" if self.simulated else self.step.reference

    @property
    def exact(self) -> bool:
        """Whether `p_boundary` is no mere bound."""
        return self.simulated or self.step.exact

    @property
    def unknown(self) -> bool:
        """Whether there is no `p_boundary`."""
        return not self.simulated and not self.step.known


def compared(
    given: Mapping[str, Fit], notes: tuple[str, ...], simulate: int, rng: np.random.Generator, progress: bool | None
) -> Comparison:
    """Fits of the same data side by side; see `comparison.compare`."""
    fits, said = _on_one_criterion(given)
    fits = dict(sorted(fits.items(), key=lambda item: item[1].npar))
    ratios = {name: _ratio(name, fits) for name in fits}
    if simulate:
        ratios = _simulated(fits, ratios, simulate, rng, progress)
    columns = _columns(fits, ratios)
    best = str(columns["model"][int(np.argmin(columns["aic"]))])
    first = next(iter(given.values()))
    return Comparison(
        models=fits,
        best=best,
        sentence=_sentence(best, columns, ratios),
        messages=(*said, *notes, *_cautions(fits, ratios)),
        criterion="REML" if next(iter(fits.values())).reml else "ML",
        _columns=columns,
        _blocks=tuple(_blocks(fits, columns, ratios)),
        _kind=first.design.kind,
    )


# -- one criterion for all --------------------------------------------------------------------------------------------


def _on_one_criterion(given: Mapping[str, Fit]) -> tuple[dict[str, Fit], list[str]]:
    """The fits, those by REML fitted again where their criteria would not compare, and what was done."""
    restricted = [name for name, fit in given.items() if fit.reml]
    if not restricted:
        return dict(given), []
    first = given[restricted[0]].design
    if len(restricted) < len(given):
        why = "the others are by maximum likelihood, and the two criteria do not compare"
    elif not all(same_fixed(first, fit.design) for fit in given.values()):
        why = "the fixed parts differ, and restricted likelihoods compare only models with the same one"
    else:
        return dict(given), ["All fits are by REML and have the same fixed part, so they were compared as they are."]
    fits = {name: _by_ml(fit, name) if fit.reml else fit for name, fit in given.items()}
    which = "All fits were" if len(restricted) == len(given) else f"{', '.join(map(repr, restricted))} fitted by REML was"
    if 1 < len(restricted) < len(given):
        which = which.removesuffix("was") + "were"
    return fits, [f"{which} fitted again by maximum likelihood, for {why}."]


def _by_ml(fit: Fit, name: str) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # said when it was fitted first
        out = fit.model.fit(False, threads=fit.engine.threads)
    if not out.convergence.converged:
        warnings.warn(
            f"{name!r} fitted again by maximum likelihood has no certain optimum: {out.convergence.sentence}",
            ConvergenceWarning,
            stacklevel=users_level(),
        )
    return out


# -- tests ------------------------------------------------------------------------------------------------------------


def _ratio(name: str, fits: Mapping[str, Fit]) -> Ratio | None:
    """Test against the largest of the smaller models that this one contains."""
    fit = fits[name]
    smaller = [(other, one) for other, one in fits.items() if one.npar < fit.npar]
    for other, one in reversed(smaller):
        step = step_between(one.model, fit.model)
        if step is None or step.df != fit.npar - one.npar:
            continue
        lrt = one.criterion - fit.criterion
        if lrt < -HIGHER:
            warnings.warn(
                f"{name!r} contains {other!r}, but its deviance is {-lrt:.3g} higher, so it is not at the maximum of its "
                "likelihood; fit it again from another start",
                ConvergenceWarning,
                stacklevel=users_level(),
            )
        lrt = 0.0 if lrt < 1e-9 * max(1.0, abs(fit.criterion)) else lrt
        if step.known and not step.exact:
            step = replace(step, weights=chi_bar_weights(one, fit, step.cones))
        return Ratio(other, step, lrt, *step.p_values(lrt))
    return None


def _simulated(
    fits: Mapping[str, Fit],
    ratios: Mapping[str, Ratio | None],
    n: int,
    rng: np.random.Generator,
    progress: bool | None,
) -> dict[str, Ratio | None]:
    """The tests with p-values from responses simulated by the smaller models."""
    from .compare_simulated import simulated_p_value

    for name, row in ratios.items():
        blind = [one for one in (name, row.against) if fits[one].model.design.y is None] if row else []
        if blind:
            raise DataError(
                f"{blind[0]!r} was saved without its data, which simulate= needs to fit it again; save it with save(path, "
                "data=True)"
            )
    out = dict(ratios)
    with Progress(n * sum(row is not None for row in ratios.values()), "compare", progress) as bar:
        for name, row in ratios.items():
            if row is not None:
                p = simulated_p_value(fits[row.against], fits[name], row.lrt, n, rng, bar)
                out[name] = replace(row, p_boundary=p, simulated=True)
    return out


def _columns(fits: Mapping[str, Fit], ratios: Mapping[str, Ratio | None]) -> dict[str, NDArray[Any]]:
    rows = [ratios[name] for name in fits]
    every = list(fits.values())
    criteria = {what: np.array([getattr(fit, what) for fit in every], dtype=np.float64) for what in CRITERIA}
    return {
        "model": np.array(list(fits), dtype=object),
        "npar": np.array([fit.npar for fit in every], dtype=np.int64),
        "loglik": np.array([fit.loglik for fit in every], dtype=np.float64),
        **criteria,
        **{f"{what}_weight": _weights(values) for what, values in criteria.items()},
        "against": np.array([row.against if row else None for row in rows], dtype=object),
        "lrt": np.array([row.lrt if row else np.nan for row in rows]),
        "df": np.array([row.step.df if row else np.nan for row in rows], dtype=np.float64),
        "p_value": np.array([row.p_value if row else np.nan for row in rows]),
        "p_boundary": np.array([row.p_boundary if row else np.nan for row in rows]),
        "reference": np.array([row.reference if row else None for row in rows], dtype=object),
    }


def _weights(criterion: Array) -> Array:
    """Akaike weights of one criterion; NaN where none is finite."""
    if not np.isfinite(criterion.min()):
        return np.full(len(criterion), np.nan)
    relative = np.exp(-0.5 * (criterion - criterion.min()))
    return np.asarray(relative / relative.sum())


# -- words ------------------------------------------------------------------------------------------------------------


def _sentence(best: str, columns: Mapping[str, NDArray[Any]], ratios: Mapping[str, Ratio | None]) -> str:
    """What the criteria prefer, and what the test says about the one they prefer."""
    names, aic = columns["model"].tolist(), columns["aic"]
    order = np.argsort(aic, kind="stable")
    if float(np.ptp(aic)) < SAME and len(set(columns["npar"].tolist())) == 1:
        return "The models have as many parameters and the same likelihood: nothing tells them apart; they may well be one."
    second, gap = names[int(order[1])], float(aic[order[1]] - aic[order[0]])
    if gap < CLOSE:
        text = f"AIC hardly tells {best!r} from {second!r} (difference {gap:.1f})"
    else:
        text = f"AIC prefers {best!r} ({gap:.1f} below {second!r})"
    by_bic = names[int(np.argmin(columns["bic"]))]
    text += ", and BIC prefers " if gap < CLOSE else ", BIC " if by_bic != best else ", and so does BIC"
    text += f"{by_bic!r}" if gap < CLOSE or by_bic != best else ""
    row = ratios[second]
    between = gap < CLOSE and row is not None and row.against == best  # the test of the two that are close
    test = _telling(second if between else best, names, ratios)
    return f"{text}; {test}." if test else f"{text}."


def _telling(asked: str, names: list[str], ratios: Mapping[str, Ratio | None]) -> str:
    """The test of a model, or where nothing is smaller, of the first model that contains it."""
    containing = (name for name in names if (row := ratios[name]) is not None and row.against == asked)
    name = asked if ratios[asked] is not None else next(containing, None)
    row = ratios[name] if name is not None else None
    if row is None:
        return f"there is no test, for none of the others contains {asked!r} or is contained in it"
    p = row.p_boundary
    if np.isnan(p):
        return f"no theory gives the p-value of {name!r} against {row.against!r}"
    shown = ("p " if row.exact else "p at most ") + _p(p, not row.exact)
    if p < LEVEL:
        return f"the likelihood-ratio test rejects {row.against!r} in favour of {name!r} ({shown})"
    return f"the likelihood-ratio test finds no evidence for {name!r} over {row.against!r} ({shown})"


def _p(p: float, bare: bool) -> str:
    if p < 1e-4:
        return "0.0001" if bare else "< 0.0001"
    return f"{p:.2g}" if bare else f"= {p:.2g}"


def _cautions(fits: Mapping[str, Fit], ratios: Mapping[str, Ratio | None]) -> list[str]:
    rows = [row for row in ratios.values() if row is not None]
    out = []
    if any(not row.exact and not row.unknown for row in rows):
        out.append(
            "Where several variances go at once the weights of the mixture depend on the design. A reference 'at most' says "
            "that they are not computed and p is an upper bound (Kodde & Palm 1986); simulate=1000 gives the test itself."
        )
    if any(row.unknown for row in rows):
        out.append("A correlation means nothing without its variance: for such a test give simulate=1000.")
    fewest = min((len(term.levels) for fit in fits.values() for term in fit.design.terms), default=FEW_GROUPS)
    gaussian = not any(fit.generalised for fit in fits.values())
    if fewest < FEW_GROUPS and gaussian and any(row.step.fixed and not row.simulated for row in rows):
        out.append(
            f"With few groups ({fewest}) likelihood-ratio tests of fixed effects reject too easily; anova() and test() have "
            "degrees of freedom for that."
        )
    uncertain = [name for name, fit in fits.items() if not fit.convergence.converged]
    if uncertain:
        out.append(f"Not at a certain optimum: {', '.join(map(repr, uncertain))}; see fit.convergence.")
    return out


# -- tables -----------------------------------------------------------------------------------------------------------


def _blocks(
    fits: Mapping[str, Fit], columns: Mapping[str, NDArray[Any]], ratios: Mapping[str, Ratio | None]
) -> list[tables.Block]:
    names = [tables.clean(name) for name in fits]
    what = "REML" if next(iter(fits.values())).reml else "maximum likelihood"
    formulas = tuple(f"  {name}: {described(fit.model)}" for name, fit in zip(names, fits.values(), strict=True))
    first = next(iter(fits.values()))
    head = tables.Block(f"Comparison of {len(fits)} models by {what}, {first.nobs} rows", notes=formulas)
    values = tables.fixed_point(np.concatenate([columns[name] for name in ("loglik", *CRITERIA)]), 1)
    n = len(names)
    weights = [tables.fixed_point(columns[f"{name}_weight"], 3) for name in CRITERIA]
    cells = [names, [str(v) for v in columns["npar"].tolist()], *(values[i * n : (i + 1) * n] for i in range(4)), *weights]
    header = ("", "npar", "logLik", "AIC", "AICc", "BIC", "w(AIC)", "w(AICc)", "w(BIC)")
    criteria = tables.Block("Criteria:", header, tuple(zip(*cells, strict=True)), "l" + "r" * 8)
    tested = {name: row for name, row in ratios.items() if row is not None}
    return [head, criteria, *([_tests(tested)] if tested else [])]


def _tests(tested: Mapping[str, Ratio]) -> tables.Block:
    rows = list(tested.values())
    cells = [
        [tables.clean(name) for name in tested],
        [tables.clean(row.against) for row in rows],
        tables.fixed_point([row.lrt for row in rows], 3),
        [str(row.step.df) for row in rows],
        [row.reference for row in rows],
        tables.p_values([row.p_boundary for row in rows]),
    ]
    header = ("", "against", "LRT", "df", "reference", "p")
    return tables.Block("Likelihood-ratio tests:", header, tuple(zip(*cells, strict=True)), "llrrlr")
