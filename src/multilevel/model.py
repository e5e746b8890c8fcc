"""Model = Design + family: what is fitted, unchanged by fitting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import design as designs
from . import families, residual_reader
from . import formula as formulas
from .covariance import FREE
from .errors import DataError, OptionError, nearest
from .model_bayes import BayesVerbs
from .priors import Fixed, check_priors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .design import Design
    from .families import Family
    from .fit import Fit
    from .formula import Formula
    from .laplace import LaplaceEngine
    from .reml import Engine
    from .residuals import Residual


class Model(BayesVerbs):
    """One formula and one data frame.

    Parameters
    ----------
    formula : str
        ``"math ~ homework + (homework | schid)"``; see the formula page of the documentation.
    data : data frame or dict of columns
        pandas, polars, pyarrow or anything narwhals reads. Never changed.
    family : str or Family
        Distribution of the response: "gaussian" (default), "binomial", "poisson", "nbinom2", "nbinom1", "gamma",
        "inverse_gaussian", "beta", "betabinomial", "student", "lognormal", "tweedie" or "ordinal"; `multilevel.student(df=4)`
        and `multilevel.tweedie(power=1.5)` have their number fixed.
    link : str, optional
        Default: the family's usual one (docs/generalised.md lists all).
    dispersion : str, optional
        Formula of the log dispersion of a family that has one, ``"~ x"``; by default it is constant.
    zi, hurdle : str, optional
        Formula of extra zeros of counts, on the logit scale: a mixture with zeros, or a hurdle before a truncated count.
    weights : str or (n,) array, optional
        Precision weights: ``Var(y_i) = sigma**2 / w_i``. A row of weight zero is left out.
    offset : str or (n,) array, optional
        Added to the linear predictor with coefficient one; also as ``offset(x)`` in the formula.
    contrasts : dict, optional
        Column -> "treatment", "sum", "helmert", "poly" or a (levels, columns) matrix; holds for fixed and random effects.
    priors : dict, optional
        Parameter or class of parameters -> prior distribution, ``{"homework": ml.Normal(0, 10), "sd": ml.HalfNormal(5)}``;
        used by `sample` alone. `prior_summary` lists all with their defaults.
    missing : {"drop", "raise"}
        What to do with rows that miss a value in a used column.
    levels : dict, optional
        Column -> order of its levels.
    correlation : str, optional
        Serial correlation of the residuals within groups: ``"ar1(week | subject)"`` for whole steps of time,
        ``"ar1(1 | subject)"`` for rows in their order, ``"car1(day | subject)"`` for times of any distance.
    variance : str or list of str, optional
        Residual variance by level, ``"ident(sex)"``, or as a function of a number, ``"power(age)"`` (sd proportional to
        ``|age|**d``), ``"exp(age)"``; ``fitted`` stands for the fitted values. Joined by ``+`` they multiply.
    covariance : dict, optional
        Grouping factor -> known covariance between its levels: a `KnownCovariance`, a `pedigree`, or a pandas frame with
        the levels as index and columns.

    Raises
    ------
    FormulaError, ColumnError, DataError, OptionError
        With the column, the value and the way out.

    Examples
    --------
    >>> import multilevel as ml
    >>> model = ml.Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    >>> round(model.fit().sigma, 2)
    25.59
    """

    def __init__(
        self,
        formula: str,
        data: Any,
        *,
        family: str | Family = "gaussian",
        link: str | None = None,
        weights: Any = None,
        offset: Any = None,
        contrasts: Mapping[str, Any] | None = None,
        priors: Mapping[str, Any] | None = None,
        missing: str = "drop",
        levels: Mapping[str, Any] | None = None,
        correlation: str | None = None,
        variance: str | Sequence[str] | None = None,
        covariance: Mapping[str, Any] | None = None,
        dispersion: str | None = None,
        zi: str | None = None,
        hurdle: str | None = None,
        **unknown: Any,
    ) -> None:
        check_options("Model", unknown, ())
        self._distribution, extra = families.distribution_of(family, link, dispersion, zi, hurdle)
        if self._distribution is not None and (correlation is not None or variance is not None):
            raise OptionError(
                "correlation and variance structure the residuals of the gaussian family; for others use random "
                "effects and dispersion="
            )
        self.priors = check_priors(priors)
        self._formula = formulas.parse(formula)
        text = residual_reader.read(correlation, variance)
        self._design = designs.build(
            self._formula,
            data,
            weights=weights,
            offset=offset,
            contrasts=contrasts,
            missing=missing,
            levels=levels,
            also=text.columns(),
            covariance=covariance,
            family=self._distribution,
            extra=extra,
            known_sigma=isinstance(self.priors.get("sigma"), Fixed),
        )
        self._residual_text, self._levels = text, levels
        self._options: dict[str, Any] = {
            "weights": weights, "offset": offset, "contrasts": contrasts, "missing": missing, "levels": levels,
            "correlation": correlation, "variance": variance, "covariance": covariance,
            "family": family, "link": link, "dispersion": dispersion, "zi": zi, "hurdle": hurdle,
        }  # fmt: skip  # as given, for Fit.update
        self._series = residual_reader.columns_of(text, data)  # kept, for the user may change the data
        self._residual = residual_reader.on_rows(text, self._series, self._design, levels) if text else None
        self._data = data
        self._engine: Engine | None = None
        self._laplace: LaplaceEngine | None = None
        self._quadrature = 1

    @property
    def formula(self) -> Formula:
        """The formula as read."""
        return self._formula

    @property
    def design(self) -> Design:
        """Matrices, levels and what happened to rows and columns."""
        return self._design

    @property
    def data(self) -> Any:
        """The data frame given (None for a model read from a file without its rows)."""
        return self._data

    @property
    def family(self) -> str:
        """Distribution of the response."""
        return "gaussian" if self._distribution is None else self._distribution.name

    @property
    def distribution(self) -> Family | None:
        """Family and link of a generalised model; None for the Gaussian model with an identity link."""
        return self._distribution

    @property
    def residual(self) -> Residual | None:
        """Structure of the residuals, where they are not independent with one variance."""
        return self._residual

    def with_design(self, design: Design) -> Model:
        """The same model on another response or rows (refits)."""
        out = object.__new__(Model)
        out._formula, out._design, out._data, out._engine = self._formula, design, self._data, None
        out._distribution, out._laplace, out._quadrature = self._distribution, None, self._quadrature
        out._residual_text, out._residual, out._levels = self._residual_text, self._residual, self._levels
        out._series, out.priors = self._series, self.priors
        if hasattr(self, "_options"):  # a model read from a file has none
            out._options = self._options
        if out._residual is not None and not np.array_equal(design.rows, self._design.rows):
            out._residual = residual_reader.on_rows(out._residual_text, self._series, design, self._levels)
        elif out._residual is not None and design.y is not self._design.y:
            out._residual = out._residual.without_fitted()
        return out

    def with_quadrature(self, nodes: int) -> Model:
        """The same model with its likelihood by so many nodes per random effect (1: Laplace, 0: lme4's quick start)."""
        from .quadrature import check_nodes

        if self._distribution is None and check_nodes(nodes) != 1:
            raise OptionError("quadrature is for generalised models; the gaussian likelihood is exact without it")
        out = self.with_design(self._design)
        out._quadrature = check_nodes(nodes)
        return out

    def with_residual(self, residual: Residual) -> Model:
        """The same model with another structure of the residuals on its rows (None where it has no parts)."""
        out = self.with_design(self._design)
        out._residual = residual if residual.n_coordinates else None
        return out

    def engine(self, threads: int | None = None) -> Engine:
        """Cross-products, made once; `threads` above one splits their passes over rows and levels."""
        from . import reml, structured

        if self._distribution is not None:
            raise OptionError("criterion and gradient at any theta are available for the gaussian family only "
                "in this version")
        if self._engine is None:
            self._need_rows()
            special = self._residual is not None or not all(t.structure in FREE for t in self._design.terms)
            self._engine = (
                structured.StructuredEngine(self._design, self._residual, threads)
                if special
                else reml.Engine(self._design, threads)
            )
        elif threads is not None and threads != self._engine.threads:
            self._engine = self._engine.with_threads(threads)
        return self._engine

    def fit(
        self,
        reml: bool = True,
        *,
        threads: int | None = None,
        start: Any = None,
        max_evaluations: int | None = None,
        quadrature: int | None = None,
    ) -> Fit:
        """Estimate by REML (default) or maximum likelihood.

        Parameters
        ----------
        reml : bool
            False for maximum likelihood, which models with different fixed effects need to be compared.
        threads : int, optional
            For the passes over rows and levels; default every processor this process may use. The answer does not depend
            on it. BLAS, which factorises large dense blocks, has a setting of its own (OPENBLAS_NUM_THREADS).
        start : array, optional
            Covariance parameters (theta) to start from.
        max_evaluations : int, optional
            Bound on evaluations of the criterion in one descent (default 500; ten or so are usual).
        quadrature : int, optional
            Of a generalised model with one grouping factor: points of adaptive Gauss-Hermite quadrature per random effect;
            1, the default, is Laplace's approximation.

        Returns
        -------
        Fit
            Its `convergence` says whether the answer is a minimum, and why.
        """
        from . import reml as engine_module
        from .crossprod import default_threads
        from .diagnostics import warn_of
        from .fit import Fit

        check_flag("reml", reml)
        if quadrature is not None:
            model = self.with_quadrature(quadrature)
            return model.fit(reml, threads=threads, start=start, max_evaluations=max_evaluations)
        for name, value in (("threads", threads), ("max_evaluations", max_evaluations)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
                raise OptionError(f"{name} must be a positive whole number, got {value!r}")
        self._need_rows()
        count = default_threads() if threads is None else int(threads)
        if self._distribution is not None:
            return self._fit_generalised(count, start, max_evaluations)
        if self._residual is not None and self._residual.iterated:
            from .settled import settled_fit

            return settled_fit(self, bool(reml), count, start, max_evaluations)
        engine = self.engine(count)
        first = None if start is None else engine_module.check_start(start, engine)
        optimum = engine.fit(bool(reml), first, max_evaluations or engine_module.MAX_EVALUATIONS)
        fit = Fit(self, optimum, engine.fitted(optimum))
        warn_of(fit)
        return fit

    def laplace(self, threads: int | None = None) -> LaplaceEngine:
        """Rows of a generalised model, ready for the core."""
        from .quadrature import engine_for

        assert self._distribution is not None
        if self._laplace is None or (threads is not None and threads != self._laplace.threads):
            self._laplace = engine_for(self._design, self._distribution, self._quadrature, threads)
        return self._laplace

    def _fit_generalised(self, threads: int, start: Any, limit: int | None) -> Fit:
        from .diagnostics import warn_of
        from .generalised import GeneralisedFit
        from .reml import MAX_EVALUATIONS, theta_factors

        engine = self.laplace(threads)
        first = None if start is None else theta_factors(start, engine.structures)
        optimum, working = engine.fit(first, limit or MAX_EVALUATIONS)
        fit = GeneralisedFit(self, optimum, working)
        warn_of(fit)
        return fit

    def _need_rows(self) -> None:
        """Refuse what needs rows that a file did not keep: all but unstructured Gaussian models with cross-products."""
        structured = self._residual is not None or not all(t.structure in FREE for t in self._design.terms)
        if self._design.y is None and (structured or self._distribution is not None or self._engine is None):
            raise DataError("this model was saved without its data, which fitting it needs; save it with "
                "save(path, data=True)")

    def _engine_at(self, residual: Any) -> Engine:
        """The engine with the rows whitened at parameters of the residuals' structure, in the user's terms."""
        from .structured import StructuredEngine

        if self._residual is not None and self._residual.iterated:
            raise OptionError(
                "the criterion of variances that depend on the fitted values is known once these are: fit the model and use "
                "fit.model, whose fitted values are settled"
            )
        engine = self.engine()
        names = self._residual.names() if self._residual is not None else ()
        if residual is None and not names:
            return engine
        try:
            values = np.asarray(residual, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            values = np.empty(0)
        if len(values) != len(names) or not np.isfinite(values).all():
            what = ", ".join(names) if names else "none, for the model has no structure of the residuals"
            raise OptionError(f"residual must hold the {len(names)} parameters {what}; got {residual!r}")
        if self._residual is None or not isinstance(engine, StructuredEngine):
            self._need_rows()
        assert self._residual is not None and isinstance(engine, StructuredEngine)
        return engine.moved(self._residual.coordinates(values))

    def criterion(self, theta: Any, reml: bool = True, sigma: float | None = None, residual: Any = None) -> float:
        """-2 log-likelihood (REML criterion or ML deviance) at any theta, unfitted; sigma profiled out unless given.

        A model with a structure of the residuals needs its parameters too: as `Fit.residual_structure` lists them.
        """
        from .reml import check_start

        check_flag("reml", reml)
        if sigma is not None and not (isinstance(sigma, (int, float, np.number)) and 0 < sigma < np.inf):
            raise OptionError(f"sigma must be a positive number, got {sigma!r}")
        engine = self._engine_at(residual)
        return engine.criterion(check_start(theta, engine), bool(reml), sigma)

    def gradient(self, theta: Any, reml: bool = True, residual: Any = None) -> NDArray[np.float64]:
        """Derivative of the profiled criterion by theta, exact; `residual` as for `criterion`."""
        from .reml import check_start

        check_flag("reml", reml)
        engine = self._engine_at(residual)
        lambdas = check_start(theta, engine)
        grads = engine.gradient(lambdas, bool(reml))
        values, at, parts = np.asarray(theta, dtype=np.float64).ravel(), 0, []
        for s, g in zip(engine.blocks.structures, grads, strict=True):
            parts.append(s.slope(values[at : at + s.n_theta], g))
            at += s.n_theta
        return np.concatenate(parts) if parts else np.empty(0)

    def hessian(self, theta: Any, reml: bool = True, residual: Any = None) -> NDArray[np.float64]:
        """Second derivatives of the profiled criterion by theta: central differences of the exact gradient.

        Returns
        -------
        (n_theta, n_theta) array
            Symmetric; about eight digits.
        """
        from .reml import check_start

        check_start(theta, self.engine())
        at = np.asarray(theta, dtype=np.float64).ravel()
        out = np.empty((len(at), len(at)))
        for i, value in enumerate(at):
            step = np.zeros(len(at))
            step[i] = 1e-5 * max(1.0, abs(value))
            up, down = self.gradient(at + step, reml, residual), self.gradient(at - step, reml, residual)
            out[i] = (up - down) / (2 * step[i])
        return np.asarray((out + out.T) / 2)

    def __repr__(self) -> str:
        d = self._design
        return f"Model({self._formula.text!r}, {len(d.rows)} rows, {len(d.names)} fixed effects, {len(d.terms)} random terms)"


def glmer(
    formula: str,
    data: Any,
    family: Any,
    *,
    link: str | None = None,
    nAGQ: int = 1,
    threads: int | None = None,
    **options: Any,
) -> Fit:
    """Fit a generalised linear mixed model in one call, for people who come from lme4.

    Parameters
    ----------
    formula, data
        As for `Model`.
    family : str
        "binomial", "poisson", "nbinom2", "gamma" and so on.
    nAGQ : int
        1 is Laplace's approximation; more are points of adaptive Gauss-Hermite quadrature per random effect (one grouping
        factor); 0 is lme4's quick start, whose estimates are rough. The log-likelihood is the full one for every nAGQ, so
        that models compare; lme4's leaves out the response's constant where nAGQ > 1.
    **options
        Anything `Model` takes.
    """
    check_options("glmer", options, (*OPTIONS, *OF_FAMILIES))
    return Model(formula, data, family=family, link=link, **options).fit(threads=threads, quadrature=nAGQ)


def check_flag(name: str, value: Any) -> None:
    """Refuse anything but True and False, so that a string never passes for true."""
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"{name} must be True or False, got {value!r}")


def lmer(formula: str, data: Any, REML: bool = True, *, threads: int | None = None, **options: Any) -> Fit:
    """Fit a linear mixed model in one call, for people who come from lme4.

    Parameters
    ----------
    formula, data
        As for `Model`.
    REML : bool
        False for maximum likelihood.
    **options
        Anything `Model` takes: weights, offset, contrasts, missing, levels.
    """
    check_flag("REML", REML)
    check_options("lmer", options, OPTIONS)
    return Model(formula, data, **options).fit(REML, threads=threads)


OPTIONS = (
    "weights", "offset", "contrasts", "missing", "levels", "correlation", "variance", "covariance",
)  # fmt: skip  # of a model, beside formula, data and family
OF_FAMILIES = ("dispersion", "zi", "hurdle")
OWN = {  # what each way to a model takes besides
    "lmer": ("REML", "threads"),
    "glmer": ("family", "link", *OF_FAMILIES, "nAGQ", "threads"),
    "Model": ("family", "link", *OF_FAMILIES),
}
ELSEWHERE = {  # options of Model.fit, by their names here and in lme4
    "quadrature": "quadrature", "nAGQ": "quadrature", "REML": "reml", "reml": "reml", "threads": "threads",
}  # fmt: skip


def check_options(name: str, options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Unknown keyword: an error that names the nearest one."""
    for key in options:
        if key not in allowed:
            known = (*OPTIONS, *OWN[name])
            found = next((one for one in ELSEWHERE if one.casefold() == key.casefold()), None)
            if name == "Model" and found is not None:
                at = ELSEWHERE[found]
                raise OptionError(f"Model() has no option {key!r}; did you mean {at!r} of fit(): Model(...).fit({at}=...)?")
            hint = nearest(key, known)
            if name == "lmer" and key in (*OWN["glmer"], "quadrature"):
                hint = f"it is one of glmer(), whose families are not gaussian; allowed are {', '.join(known)}"
            if name == "glmer" and key == "quadrature":
                hint = "did you mean 'nAGQ'?"
            raise OptionError(f"{name}() has no option {key!r}; {hint or 'allowed are ' + ', '.join(known)}")
