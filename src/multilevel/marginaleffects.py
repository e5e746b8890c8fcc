"""A fit as a model of the package marginaleffects (Arel-Bundock, Greifer & Heiss 2024, J. Stat. Softw. 111(9)).

That package takes any instance of its `ModelAbstract`; the one made here answers with our design and covariances. It is
imported only when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import OptionError
from .frame import column_kind, numbers
from .reference_grid import predictors

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["as_model"]


def as_model(fit: Fit) -> Any:
    """The fit as an instance of `marginaleffects`' `ModelAbstract`; see `Fit.marginaleffects_model`."""
    try:
        import polars

        classes: Any = import_module("marginaleffects.classes")
        base = classes.ModelAbstract
    except (ImportError, AttributeError) as error:
        raise OptionError(
            "the package marginaleffects is not installed (or too old): pip install marginaleffects"
        ) from error

    class Adapter(base):  # type: ignore[misc, valid-type]
        """Population predictions: model rows by coefficients, and the offset."""

        df_resid = float("inf")  # marginaleffects has one number for all estimates; lmer's in R has this one too

        def get_vcov(self, vcov: Any = True) -> Any:
            if isinstance(vcov, (bool, np.bool_)):
                return fit.vcov() if vcov else None
            raise OptionError(f"vcov must be True, False or a matrix for a mixed model, not {vcov!r}")

        def get_exog(self, newdata: Any) -> Any:
            made = fit.design.at(newdata, None, offset=_mean_offset(fit, len(newdata)))
            offset = np.zeros(made.n) if made.offset is None else made.offset
            return np.column_stack([made.X, offset])

        def get_predict(self, params: Any, newdata: Any) -> Any:
            rows = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            estimate = rows[:, :-1] @ np.asarray(params, dtype=np.float64) + rows[:, -1]
            index = polars.Series(np.arange(len(rows)), dtype=polars.Int32)
            return polars.DataFrame({"rowid": index, "estimate": estimate})

    response, columns = _data(fit)
    vault = classes.ModelVault(
        coef=fit.optimum.beta.copy(),
        coefnames=np.array(fit.design.names, dtype=object),
        # a function in place of a formula: marginaleffects then leaves reading it to us
        formula=lambda data: (None, data),
        modeldata=polars.DataFrame(columns),
        package="multilevel",
        vcov=fit.vcov(),
        variable_names=[response, *(name for name in columns if name != response)],
    )
    return Adapter(fit, vault)


def _mean_offset(fit: Fit, n: int) -> Any:
    """An offset that was given as an array stands at its mean on other rows."""
    known = fit.design.offset
    return None if known is None or not fit.design.remake.offset_array else np.full(n, known.mean())


def _data(fit: Fit) -> tuple[str, dict[str, Any]]:
    """Name of the response, and it and the predictors of the rows used as polars columns, factors as Enum."""
    import polars

    from .effect_lines import Source

    source = Source(fit)
    response = fit.design.response
    out: dict[str, Any] = {response: polars.Series(response, source.design.y)}
    for name in predictors(fit):
        series = source.series[name]
        levels = source.levels(name)
        if levels is None:
            values: Any = numbers(series, name)
            whole = values.astype(np.int64)
            out[name] = polars.Series(name, whole if np.array_equal(whole, values) else values)
        elif column_kind(series, name) == "bool":
            out[name] = polars.Series(name, numbers(series, name).astype(bool))
        elif all(isinstance(level, str) for level in levels):
            out[name] = polars.Series(name, series.astype(object).tolist(), dtype=polars.Enum(levels))
        else:
            out[name] = polars.Series(name, series.tolist())
    return response, out
