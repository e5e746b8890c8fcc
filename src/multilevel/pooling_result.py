"""What `multilevel.pooling` found: coefficients of every group three times, the models, predictions and pictures."""

from __future__ import annotations

import html
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .frame import like
from .pooling_coefficients import Columns, Estimates, complete, partial, population, shrinkage, student
from .pooling_models import (
    NoPooling,
    complete_model,
    conditional_loglik,
    curvature,
    effective_parameters,
    gaussian_loglik,
    no_model,
    squares,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .fit import Fit
    from .posterior import Posterior

__all__ = ["Pooling", "made"]

Array = NDArray[np.float64]

KINDS = ("complete", "no", "partial")
PARTS = {"": "estimate", "_std_error": "std_error", "_conf_low": "low", "_conf_high": "high"}


@dataclass(frozen=True, eq=False, repr=False)
class Pooling:
    """Complete, no and partial pooling of the same data. Made by `multilevel.pooling`; prints as its summary.

    Attributes
    ----------
    models : mapping
        "complete": a `Fit` or `GeneralisedFit` without groups; "no": `NoPooling`; "partial": the `Fit`, `GeneralisedFit` or
        `Posterior`.
    columns : Columns
        What varies by group.
    estimates : mapping
        "complete", "no", "partial" -> `Estimates`: (J, k) arrays.
    shrinkage : (J, k) array
    level : float
        Coverage of the intervals.
    criteria_columns : mapping
        Columns of `criteria`.
    notes : tuple of str
        Sentences about groups and terms that need a word.
    verdict : str
        What the comparison says, in a sentence or two.
    """

    models: Mapping[str, Any]
    columns: Columns
    estimates: Mapping[str, Estimates]
    shrinkage: Array
    level: float
    criteria_columns: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def partial(self) -> Fit | Posterior:
        """The partially pooled model."""
        found: Fit | Posterior = self.models["partial"]
        return found

    @property
    def group(self) -> str:
        """The grouping column."""
        return self.columns.group

    @property
    def formula(self) -> str:
        """Of the partially pooled model."""
        return self.partial.formula

    @property
    def _kind(self) -> str:
        return str(self.partial.design.kind)

    # -- tables -------------------------------------------------------------------------------------------------------

    @property
    def frame(self) -> Any:
        """Coefficients of every group, a row for each group and term; the same as `to_frame()`.

        On the scale of the link. Intercepts include predictors that are constant within groups at the group's value, and
        stand for zero of the others.

        Returns
        -------
        frame
            level, term, n (rows of the group), trials (where a row counts successes among several); complete, no, partial
            (estimates), each with ``_std_error``, ``_conf_low`` and ``_conf_high``; shrinkage. ``no`` is missing where the
            group's rows do not determine it.

        Notes
        -----
        Shrinkage is the conditional variance of the group's effect, given its rows and the estimated parameters, divided by
        the variance between groups: 0 where the rows of the group alone tell its coefficient, 1 where they say nothing and
        the population's is taken. It is one minus the reliability (Raudenbush & Bryk 2002, Hierarchical Linear Models, ch.
        3), the pooling factor of a group in Gelman & Hill (2007, section 21.6), whose summary over groups is that of Gelman &
        Pardoe (2006, Technometrics 48, 241). With an intercept alone it is
        ``sigma**2 / (sigma**2 + n * tau**2)``, and the partially pooled intercept is ``shrinkage * population + (1 -
        shrinkage) * own``. With several coefficients they move together, so that a group's may lie outside these two. Of a
        posterior it is averaged over the draws of the variances.

        Intervals use Student's t with the residual degrees of freedom for complete and no pooling of a Gaussian response,
        else the normal distribution, and take the variances as known in partial pooling (of a posterior: quantiles, which do
        not). With few groups these are therefore too narrow: of groups simulated with 2 to 8 rows 95 % intervals cover 93 %
        with 30 groups or more, 90 % with 8 to 12, and 50 to 80 % where the fit is singular.
        """
        return self.to_frame()

    def to_frame(self, long: bool = False) -> Any:
        """The coefficients as a frame of the data's library.

        Parameters
        ----------
        long : bool
            A row for each group, term and way of pooling: level, term, n, pooling, estimate, std_error, conf_low, conf_high,
            shrinkage (of partial pooling, else missing). Otherwise as `frame`.
        """
        c = self.columns
        J, k = self.shrinkage.shape
        head: dict[str, Any] = {
            "level": np.repeat(np.asarray(c.levels, dtype=object), k),
            "term": np.tile(np.array(c.names, dtype=object), J),
            "n": np.repeat(c.sizes, k),
        }
        if c.trials is not None:
            head["trials"] = np.repeat(c.trials, k)
        if not long:
            for kind in KINDS:
                head |= {f"{kind}{end}": getattr(self.estimates[kind], what).ravel() for end, what in PARTS.items()}
            return like(self._kind, {**head, "shrinkage": self.shrinkage.ravel()})
        out = {name: np.repeat(values, 3) for name, values in head.items()}
        out["pooling"] = np.tile(np.array(KINDS, dtype=object), J * k)
        for name, what in (
            ("estimate", "estimate"),
            ("std_error", "std_error"),
            ("conf_low", "low"),
            ("conf_high", "high"),
        ):
            out[name] = np.stack([getattr(self.estimates[kind], what).ravel() for kind in KINDS], axis=1).ravel()
        nothing = np.full(J * k, np.nan)
        out["shrinkage"] = np.stack([nothing, nothing, self.shrinkage.ravel()], axis=1).ravel()
        return like(self._kind, out)

    @property
    def criteria(self) -> Any:
        """The three models side by side, as they describe these groups.

        Returns
        -------
        frame
            pooling, parameters, loglik, aic, residual_sd.

        Notes
        -----
        Of all three the likelihood is that of the rows given the groups' coefficients (of a Gaussian response with the
        residual variance that makes it largest), so that they compare: complete and no pooling are the two ends of partial
        pooling. Parameters are those estimated; those of partial pooling are the trace of the matrix that turns responses
        into fitted values, and the residual sd. Its AIC is the conditional one of Vaida & Blanchard (2005, Biometrika 92,
        351), with the variances taken as known, which favours it a little (Greven & Kneib 2010, Biometrika 97, 773). The
        marginal likelihood, of new groups, is ``models["partial"].loglik``, and `compare` uses that. Missing for a
        posterior, and for no pooling without residual degrees of freedom.
        """
        return like(self._kind, dict(self.criteria_columns))

    @property
    def population(self) -> Any:
        """Fixed effects, a row for each: term, then as in `frame`.

        Without pooling only coefficients that all groups share are there: those of terms that vary within groups but whose
        coefficients do not. Intervals of partial pooling use the normal distribution.
        """
        columns = population(self.models["complete"], self.models["no"], self.partial, self.level)
        return like(self._kind, columns)

    def summary(self) -> str:
        """Everything in words and tables."""
        from .pooling_text import summary

        return summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"

    # -- use ----------------------------------------------------------------------------------------------------------

    def predict(
        self,
        new: Any = None,
        pooling: str | None = None,
        *,
        interval: str | None = None,
        level: float | None = None,
        offset: Any = None,
        seed: Any = None,
    ) -> Any:
        """Predictions by one way of pooling, or by all three.

        Parameters
        ----------
        new : data frame, optional
            Rows to predict; default the rows fitted. Groups may be new: complete pooling does not mind, partial pooling
            predicts a typical group, with the variance between groups in its interval, no pooling has nothing to say.
        pooling : {"complete", "no", "partial"}, optional
        interval : None, "confidence" or "prediction"
            Of the mean, or of a new observation (without pooling: of a Gaussian response).
        level : float, optional
            Default: that of the coefficients.
        offset : column name or array, optional
        seed : int or Generator, optional
            Of draws, of a posterior's prediction intervals.

        Returns
        -------
        frame
            Of one: prediction and, with an interval, conf_low, conf_high. Of all: columns complete, no, partial, each with
            ``_conf_low`` and ``_conf_high``. As many rows as given.
        """
        if pooling is not None and pooling not in KINDS:
            raise OptionError(
                f"pooling {pooling!r} is not known; allowed are 'complete', 'no', 'partial', or None for all"
            )
        level = self.level if level is None else level
        kinds = KINDS if pooling is None else (pooling,)
        found = {kind: self._predicted(kind, new, interval, level, offset, seed) for kind in kinds}
        if pooling is not None:
            names = {"prediction": "prediction", "low": "conf_low", "high": "conf_high"}
            columns = {names[part]: values for part, values in found[pooling].items()}
        else:
            ends = {"prediction": "", "low": "_conf_low", "high": "_conf_high"}
            columns = {f"{kind}{ends[part]}": v for kind, parts in found.items() for part, v in parts.items()}
        from .frame import Table

        source = self.partial.model.data if new is None else new
        out = like(Table(source).kind, columns)
        if len(getattr(source, "index", ())) == len(out) and hasattr(out, "index"):
            out.index = source.index
        return out

    def _predicted(
        self, kind: str, new: Any, interval: str | None, level: float, offset: Any, seed: Any
    ) -> dict[str, Array]:
        """prediction, low and high of one way of pooling."""
        model = self.models[kind]
        if kind == "no":
            table = model.predict(new, interval=interval, level=level, offset=offset)
        else:
            more = {"new_levels": "population", "seed": seed} if kind == "partial" else {"groups": None}
            table = model.predict(new, interval=interval, level=level, offset=offset, **more)
        if kind == "complete" and interval is not None and not model.generalised:  # Student's t, as in the frame
            point, half = (np.asarray(table[name], dtype=np.float64) for name in ("prediction", "std_error"))
            half = half * student(level, model.nobs - len(model.optimum.beta))
            return {"prediction": point, "low": point - half, "high": point + half}
        ends = ("ci_low", "ci_high") if "ci_low" in getattr(table, "columns", ()) else ("conf_low", "conf_high")
        names = {"prediction": "prediction"} | ({} if interval is None else {"low": ends[0], "high": ends[1]})
        return {part: np.asarray(table[name], dtype=np.float64) for part, name in names.items()}

    def plot(
        self,
        kind: str = "lines",
        x: str | None = None,
        levels: Any = None,
        *,
        term: str | None = None,
        max_groups: int | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the three ways of pooling; needs matplotlib (``pip install multilevel[plots]``).

        Parameters
        ----------
        kind : {"lines", "coefficients", "shrinkage"}
            "lines": a facet for each group, its data and the three lines along a predictor; without predictors the groups'
            coefficients. "coefficients": each group's with intervals, ordered by rows of the group. "shrinkage": from each
            group's own towards the population's.
        x : str, optional
            Of "lines": predictor to draw along.
        levels : labels, optional
            Groups to draw; default all, or `max_groups` spread evenly over the range of sizes.
        term : str, optional
            Of "coefficients": one of those that vary; default all, a panel for each. Of "shrinkage": one, or default the
            first two.
        max_groups : int, optional
            Default 18 facets, or 36 groups one under the other.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        from .pooling_plots import draw

        return draw(self, kind, x, levels, term, max_groups, ax)


# -- making it --------------------------------------------------------------------------------------------------------


def made(partial_fit: Fit | Posterior, level: float, threads: int | None, notes: list[str]) -> Pooling:
    """The result for a partially pooled model."""
    from .fit import Fit
    from .pooling_text import all_notes, verdict

    reml = partial_fit.reml if isinstance(partial_fit, Fit) else True
    whole = complete_model(partial_fit.model, bool(reml), threads)
    own = no_model(partial_fit, whole)
    columns = own.columns
    estimates = {
        "complete": complete(whole, columns, level),
        "no": own.estimates(level),
        "partial": partial(partial_fit, columns, level),
    }
    found = Pooling(
        MappingProxyType({"complete": whole, "no": own, "partial": partial_fit}),
        columns,
        MappingProxyType(estimates),
        shrinkage(partial_fit, columns, None if isinstance(partial_fit, Fit) else curvature(partial_fit, own)),
        level,
        MappingProxyType(_criteria(whole, own, partial_fit)),
    )
    object.__setattr__(found, "notes", tuple([*notes, *all_notes(found)]))
    object.__setattr__(found, "verdict", verdict(found))
    return found


def _criteria(whole: Fit, own: NoPooling, partial_fit: Fit | Posterior) -> dict[str, Any]:
    """Columns of `Pooling.criteria`."""
    from .fit import Fit

    d, further = whole.design, 1 if own.held is None else len(own.held.optimum.residual)
    loglik, used = [whole.loglik, own.loglik, np.nan], [len(whole.optimum.beta) + further, own.npar, np.nan]
    if own.held is None:
        loglik[0] = gaussian_loglik(squares(d, whole._eta[0]), len(d.y), d.weights)
    if isinstance(partial_fit, Fit):
        used[2] = effective_parameters(partial_fit, own) + further
        loglik[2] = conditional_loglik(partial_fit, own)
    values, counts = np.array(loglik, dtype=np.float64), np.array(used, dtype=np.float64)
    return {
        "pooling": np.array(KINDS, dtype=object),
        "parameters": counts,
        "loglik": values,
        "aic": 2 * counts - 2 * values,
        "residual_sd": np.array([whole.sigma, own.sigma, partial_fit.sigma] if own.held is None else [np.nan] * 3),
    }
