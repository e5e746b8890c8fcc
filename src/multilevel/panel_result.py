"""What `panel` found: the estimates side by side, the tests, a plain sentence."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .effect_lines import pick
from .frame import like
from .inference import t_table
from .panel_estimates import Estimate, Variances, random_variances
from .panel_hausman import FEW, Test, verdict
from .panel_rows import PanelRows, cluster_count
from .tables import Block, clean, effect_name, html_of, numbers, p_values, text_of

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["Asked", "Mundlak", "Panel"]

Array = NDArray[np.float64]
WIDTH = 100  # characters of a printed line
ERRORS = {
    "group": "clustered by {group}",
    "group+time": "clustered by {group} and {time}",
    "iid": "classical, with independent rows",
    "hetero": "robust to unequal variances (HC1), not to correlation within {group}",
}


@dataclass(frozen=True)
class Asked:
    """What `panel` was asked for."""

    formula: str
    group: str
    time: str | None
    vcov: str
    random: str
    level: float
    kind: str

    @property
    def errors(self) -> str:
        """What the standard errors are."""
        return ERRORS[self.vcov].format(group=self.group, time=self.time)


@dataclass(frozen=True, eq=False)
class Mundlak:
    """Group means added to the random-effects model; prints their joint test.

    Attributes
    ----------
    terms : tuple of str
        Coefficients of the group means: between less within.
    tests : tuple of Test
        That all are zero: with the covariance of the fit, and with the one asked for.
    fit : Fit
        The model.
    """

    terms: tuple[str, ...]
    tests: tuple[Test, ...]
    fit: Fit

    @property
    def statistic(self) -> float:
        """Wald's chi-square of the joint test, with the covariance asked for."""
        return self.tests[-1].statistic

    @property
    def df(self) -> int:
        """Terms tested."""
        return self.tests[-1].df

    @property
    def p_value(self) -> float:
        """Of the joint test."""
        return self.tests[-1].p_value

    def __repr__(self) -> str:
        return text_of([_test_block("Mundlak terms " + ", ".join(map(clean, self.terms)), self.tests)]).rstrip("\n")


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """Estimates of a panel side by side; made by `multilevel.panel`. Prints as tables with a verdict.

    Attributes
    ----------
    asked : Asked
        Formula, group, time and options.
    estimates : dict
        Name to `Estimate`: coef, vcov, df, n.
    rows : PanelRows
        What the estimates are of.
    tests : tuple of Test
        Hausman's test in its forms.
    mundlak : Mundlak or None
        The terms of group means with their joint test.
    messages : tuple of str
        What was left out, and why.
    """

    asked: Asked
    estimates: dict[str, Estimate]
    rows: PanelRows
    tests: tuple[Test, ...]
    mundlak: Mundlak | None
    messages: tuple[str, ...]

    @property
    def models(self) -> dict[str, Any]:
        """What was fitted, by name.

        "random" and "mundlak" are a `Fit` ("random" by Swamy and Arora its least squares), "within" is pyfixest's ``Feols``
        with names made plain (and columns with values above 1e5, or that
        change by less than 1e-3, centred and scaled, for its digits), "pooled" and "between" are least squares.
        """
        return {name: one.model for name, one in self.estimates.items()}

    @property
    def hausman(self) -> Any:
        """Frame of the tests that within and random-effects estimates agree.

        Returns
        -------
        frame
            test; statistic (chi-square); df; df_resid (of F = statistic / df; infinite: chi-square); p_value; note.

            "classic": the difference of the estimates, with the difference of their classical covariances, which must be
            positive definite; where it is not, p_value is NaN and the note says so. "classic, Swamy-Arora" has the numbers
            of plm's phtest. "regression": group means added to the random-effects regression are zero, always defined;
            "robust" with the covariance that was asked for, which is the one to read. For clusters by group it leaves them
            out one by one (CR3), and F has the degrees of freedom that are left between groups: with few of these, Stata's
            factor would reject too often.
        """
        fields = ("statistic", "df", "df_resid", "p_value")
        columns: dict[str, Any] = {"test": np.array([test.name for test in self.tests], dtype=object)}
        columns |= {name: np.array([getattr(test, name) for test in self.tests]) for name in fields}
        columns["note"] = np.array([test.note for test in self.tests], dtype=object)
        return like(self.asked.kind, columns)

    @cached_property
    def variances(self) -> Variances | None:
        """Variances of the random-effects estimate; None without one."""
        if "random" not in self.estimates:
            return None
        model = self.estimates["random"].model
        if self.asked.random != "Swamy-Arora":
            return random_variances(model)
        from .panel_estimates import swamy_arora

        return swamy_arora(self.rows)

    @property
    def verdict(self) -> str:
        """What the tests come to, in words."""
        if "random" not in self.estimates:
            return "Nothing was tested: Hausman's test is of the random-effects estimates, which were not asked for."
        if not self.tests and self.rows.shifted:
            return (
                f"{self.rows.count} groups are too few for a test of whether within and random-effects estimates agree."
            )
        if not self.tests:
            return (
                f"There is nothing to test: every {self.asked.group} has the same mean of the predictors that change "
                "within it, so that their random-effects estimates use changes within groups only, as the within ones do."
            )
        return verdict(self.tests, self.rows)

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Coefficients of any estimator, in the order of the formula, group means last; none that is of a period."""
        hidden = {name for name, period in zip(self.rows.names, self.rows.period, strict=True) if period}
        hidden |= {f"mean({name.replace('`', '')})" for name in hidden}
        hidden |= {"Intercept"} if hidden else set()  # the first period's
        known = dict.fromkeys([*self.rows.names, *(name for one in self.estimates.values() for name in one.names)])
        return tuple(name for name in known if name not in hidden)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of ``frame()`` as arrays."""
        parts = []
        for name, one in self.estimates.items():
            se = _roots(one.vcov)
            tested = t_table(one.coef, se, one.df, self.asked.level)
            ends = tested["conf_low"], tested["conf_high"]
            table = (one.coef, se, tested["statistic"], one.df, tested["p_value"], *ends)
            parts += [
                (name, term, *(float(column[one.names.index(term)]) for column in table))
                for term in self.terms
                if term in one.names
            ]
        heads = ("estimator", "term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high")
        kinds = (object, object) + (float,) * 7
        return {
            head: np.array(values, dtype=kind)
            for head, kind, values in zip(heads, kinds, zip(*parts, strict=True), strict=True)
        }

    def frame(self, wide: bool = False) -> Any:
        """The estimates as a frame in the library of the data; effects of periods, with the intercept, are left out.

        Parameters
        ----------
        wide : bool
            A row for each term, with columns ``pooled``, ``pooled_se`` and so on.

        Returns
        -------
        frame
            Long: estimator, term, estimate, std_error, statistic (t), df, p_value, conf_low, conf_high.
        """
        long = self.columns()
        if not wide:
            return like(self.asked.kind, long)
        out: dict[str, Any] = {"term": np.array(self.terms, dtype=object)}
        for name in self.estimates:
            out[name], out[f"{name}_se"] = self._of(name, "estimate", long), self._of(name, "std_error", long)
        return like(self.asked.kind, out)

    def _of(self, estimator: str, what: str, long: dict[str, NDArray[Any]]) -> Array:
        """One estimator's numbers for all terms, NaN where it has none."""
        mine = long["estimator"] == estimator
        found = dict(zip(long["term"][mine], long[what][mine], strict=True))
        return np.array([found.get(term, np.nan) for term in self.terms])

    def coef(self, estimator: str) -> Array:
        """Coefficients of one estimator, for its terms in the order of ``frame()``."""
        pick(estimator, list(self.estimates), "estimator that was asked for")
        values = self._of(estimator, "estimate", self.columns())
        return np.asarray(values[~np.isnan(values)])

    def plot(self, terms: Any = None, ax: Any = None) -> Any:
        """Coefficients of the estimators with their intervals, a panel for each term.

        Parameters
        ----------
        terms : str or list of str, optional
            Default: all predictors, up to twelve; group means if they are named.
        ax : Axes or array of Axes, optional
            One for each term.

        Returns
        -------
        Axes or array of Axes
        """
        from .panel_plot import draw

        return draw(self, terms, ax)

    def summary(self) -> str:
        """The printed tables."""
        return str(self)

    def _blocks(self) -> list[Block]:
        blocks = [_heading(self), _estimate_block(self)]
        if self.tests:
            title = "Hausman tests: do the within and the random-effects estimates agree?"
            blocks.append(_test_block(title, self.tests))
        if self.mundlak is not None:
            blocks.append(_test_block("Mundlak terms: are the effects of all group means zero?", self.mundlak.tests))
        return blocks

    def __str__(self) -> str:
        texts = [textwrap.fill(clean(text), WIDTH, break_on_hyphens=False) for text in (self.verdict, *self.messages)]
        return (
            text_of([*self._blocks(), Block("", notes=(texts[0],)), Block("", notes=tuple(texts[1:]))]).rstrip("\n")
            + "\n"
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        notes = [Block("", notes=(clean(text),)) for text in (self.verdict, *self.messages)]
        return html_of([*self._blocks(), *notes])


def _roots(V: Array) -> Array:
    """Standard errors; NaN where clustering both ways gives a negative variance."""
    diagonal = np.diag(V)
    return np.sqrt(np.where(diagonal >= 0, diagonal, np.nan))


def _heading(panel: Panel) -> Block:
    asked, sizes = panel.asked, panel.rows.sizes
    low, high = int(sizes.min()), int(sizes.max())
    each = f"{low} rows each" if low == high else f"{low} to {high} rows each, {sizes.mean():.1f} on average"
    lines = [
        clean(asked.formula),
        f"{len(panel.rows.y)} rows in {panel.rows.count} groups of {clean(asked.group)}: {each}",
    ]
    if asked.time:
        lines.append(f"with an effect of every {clean(asked.time)} in all estimators (not shown)")
    return Block("Panel regression", notes=tuple(lines))


def _estimate_block(panel: Panel) -> Block:
    """Estimates with their standard errors below them, in brackets."""
    long, cells = panel.columns(), []
    for name in panel.estimates:
        values, errors = panel._of(name, "estimate", long), panel._of(name, "std_error", long)
        cells.append([_pair(v, s) for v, s in zip(values, errors, strict=True)])
    rows: list[tuple[str, ...]] = []
    for i, term in enumerate(panel.terms):
        rows.append((effect_name(term), *(column[i][0] for column in cells)))
        rows.append(("", *(column[i][1] for column in cells)))
    rows.append(("n", *(str(one.n) for one in panel.estimates.values())))
    notes = [f"Standard errors in brackets: {clean(panel.asked.errors)}.{_few(panel)}"]
    if panel.variances is not None:
        sds = np.sqrt([panel.variances.group, panel.variances.residual])
        between, inside = (text.strip() for text in numbers(sds))
        notes.append(f"random ({panel.asked.random}): sd between groups {between}, within {inside}.")
    return Block("Estimates", ("", *panel.estimates), tuple(rows), "l" + "r" * len(cells), tuple(notes))


def _few(panel: Panel) -> str:
    """A word on clusters where they are few."""
    count = cluster_count(panel.rows.clusters(panel.asked.vcov)) if panel.asked.vcov in ("group", "group+time") else FEW
    return f" With {count} clusters these are often too small." if count < FEW else ""


def _pair(value: float, error: float) -> tuple[str, str]:
    """An estimate and its standard error to the same decimals: three digits of the error."""
    if np.isnan(value):
        return "", ""
    places = 4 if not error > 0 else min(max(2 - int(np.floor(np.log10(error))), 0), 12)
    if abs(value) >= 1e9:
        return f"{value:.5g} ", f"({error:.3g})"
    return f"{value:.{places}f} ", f"({error:.{places}f})"


def _test_block(title: str, tests: Sequence[Test]) -> Block:
    shown = p_values([test.p_value for test in tests])
    rows = []
    for test, p in zip(tests, shown, strict=True):
        nothing = np.isnan(test.p_value)
        value = "" if np.isnan(test.statistic) else f"{test.statistic:.3f}"
        reference = f"F({test.df}, {test.df_resid:.0f})" if np.isfinite(test.df_resid) else f"chi2({test.df})"
        rows.append((test.name, value, reference, "none" if nothing else p.strip()))
    notes = tuple(
        line
        for test in tests
        if test.note
        for line in textwrap.wrap(f"{test.name}: {test.note}.", WIDTH, break_on_hyphens=False)
    )
    return Block(title, ("", "chi-square", "referred to", "p"), tuple(rows), "lrlr", notes)
