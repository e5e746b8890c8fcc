"""A generalised fit as a model of the package marginaleffects; see `marginaleffects` for linear ones."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import marginaleffects as linear
from .errors import OptionError

if TYPE_CHECKING:
    from .generalised import GeneralisedFit

__all__ = ["as_model"]

Array = NDArray[np.float64]


def as_model(fit: GeneralisedFit, kind: str = "response") -> Any:
    """The fit as an instance of `marginaleffects`' `ModelAbstract`; see `GeneralisedFit.marginaleffects_model`.

    Its coefficients are the fixed effects and those of dispersion, extra zeros or thresholds, with their joint covariance.
    """
    if kind not in ("response", "link"):
        raise OptionError(f"kind {kind!r} is not known; allowed are 'response', 'link'")
    fit.rows_of_data()
    try:
        import polars

        classes: Any = import_module("marginaleffects.classes")
        base = classes.ModelAbstract
    except (ImportError, AttributeError) as error:
        raise OptionError(
            "the package marginaleffects is not installed (or too old): pip install marginaleffects"
        ) from error

    class Adapter(base):  # type: ignore[misc, valid-type]
        """Predictions at group effects of zero: rows of all matrices side by side, by coefficients."""

        df_resid = float("inf")

        def get_vcov(self, vcov: Any = True) -> Any:
            if isinstance(vcov, (bool, np.bool_)):
                return parameters(fit)[2] if vcov else None
            raise OptionError(f"vcov must be True, False or a matrix for a mixed model, not {vcov!r}")

        def get_exog(self, newdata: Any) -> Any:
            made = fit.design.at(newdata, None, offset=linear._mean_offset(fit, len(newdata)))
            offset = np.zeros(made.n) if made.offset is None else made.offset
            sides = [made.sides[what] if what in made.sides else np.ones((made.n, 1)) for what in side_names(fit)]
            return np.column_stack([made.X, *sides, offset])

        def get_predict(self, params: Any, newdata: Any) -> Any:
            rows = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            found = predictions(fit, kind, np.asarray(params, dtype=np.float64), rows)
            index = np.arange(len(rows))
            if found.ndim == 1:
                return polars.DataFrame({"rowid": polars.Series(index, dtype=polars.Int32), "estimate": found})
            labels = fit.design.labels
            return polars.DataFrame(
                {
                    "rowid": polars.Series(np.tile(index, len(labels)), dtype=polars.Int32),
                    "group": np.repeat(np.array(labels, dtype=str), len(rows)),
                    "estimate": found.T.ravel(),
                }
            )

    response, columns = linear._data(fit)
    values, names, vcov = parameters(fit)
    vault = classes.ModelVault(
        coef=values,
        coefnames=np.array(names, dtype=object),
        # a function in place of a formula: marginaleffects then leaves reading it to us
        formula=lambda data: (None, data),
        modeldata=polars.DataFrame(columns),
        package="multilevel",
        vcov=vcov,
        variable_names=[response, *(name for name in columns if name != response)],
    )
    return Adapter(fit, vault)


def parameters(fit: GeneralisedFit) -> tuple[Array, list[str], Array]:
    """Fixed effects and further coefficients, their names and joint covariance."""
    from .generalised_uncertainty import joint_vcov

    o = fit.optimum
    size = len(o.beta) + len(o.residual)
    return np.concatenate([o.beta, o.residual]), [*fit.design.names, *fit.coefficients.names], joint_vcov(fit)[:size, :size]


def side_names(fit: GeneralisedFit) -> list[str]:
    """What the further coefficients that have matrices are of, in their order."""
    if fit.family.name == "ordinal":
        return []
    return ["dispersion"] * (fit.family.dispersion is not None) + ["zi"] * (fit.family.zero != "none")


def predictions(fit: GeneralisedFit, kind: str, params: Array, rows: Array) -> Array:
    """(m,) means or linear predictors, or (m, categories) probabilities, at coefficients and the rows of `get_exog`."""
    p, m = len(fit.optimum.beta), len(rows)
    eta = rows[:, :p] @ params[:p] + rows[:, -1]
    if kind == "link":
        return np.asarray(eta)
    if fit.family.name == "ordinal":
        from .families import Family

        link = Family("binomial", fit.family.link)
        below = [link.mean(cut - eta) for cut in params[p:].tolist()]
        return np.diff(np.column_stack([np.zeros(m), *below, np.ones(m)]), axis=1)
    further, at = {"dispersion": np.zeros(m), "zi": np.zeros(m)}, p
    for what in side_names(fit):
        width = fit.design.sides[what][0].shape[1] if what in fit.design.sides else 1
        further[what] = rows[:, at : at + width] @ params[at : at + width]
        at += width
    return fit.family.expected(eta, further["dispersion"], further["zi"])
