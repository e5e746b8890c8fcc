"""The names statsmodels' users know, for a Fit: each is another word for something it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import inference

if TYPE_CHECKING:
    from .design import Design
    from .reml import Optimum

Array = NDArray[np.float64]


class StatsmodelsNames:
    """Aliases; the class that inherits them provides what is declared here."""

    if TYPE_CHECKING:
        _optimum: Optimum

        @property
        def _fixed_df(self) -> Array: ...
        @property
        def design(self) -> Design: ...
        @property
        def loglik(self) -> float: ...
        @property
        def sigma(self) -> float: ...
        @property
        def df_residual(self) -> int: ...
        def residuals(self, kind: str = "response") -> Array: ...
        def fitted(self) -> Array: ...

    @property
    def params(self) -> Any:
        """Fixed effects as a pandas Series (statsmodels' name)."""
        return self._series(self._optimum.beta.copy())

    @property
    def bse(self) -> Any:
        """Standard errors of the fixed effects as a pandas Series (statsmodels' name)."""
        return self._series(np.sqrt(np.diag(self._optimum.vcov)))

    @property
    def pvalues(self) -> Any:
        """p-values of the fixed effects (Satterthwaite) as a pandas Series (statsmodels' name)."""
        table = inference.t_table(self._optimum.beta, np.sqrt(np.diag(self._optimum.vcov)), self._fixed_df, 0.95)
        return self._series(table["p_value"])

    @property
    def tvalues(self) -> Any:
        """t statistics of the fixed effects as a pandas Series (statsmodels' name)."""
        return self._series(self._optimum.beta / np.sqrt(np.diag(self._optimum.vcov)))

    @property
    def llf(self) -> float:
        """`loglik` (statsmodels' name)."""
        return self.loglik

    @property
    def resid(self) -> Array:
        """`residuals()` (statsmodels' name)."""
        return self.residuals()

    @property
    def fittedvalues(self) -> Array:
        """`fitted()` (statsmodels' name)."""
        return self.fitted()

    @property
    def scale(self) -> float:
        """Residual variance, sigma squared (statsmodels' name)."""
        return self.sigma**2

    @property
    def df_resid(self) -> int:
        """`df_residual` (statsmodels' name)."""
        return self.df_residual

    def cov_params(self) -> Any:
        """Covariance of the fixed effects as a pandas DataFrame (statsmodels' name)."""
        import pandas as pd

        return pd.DataFrame(self._optimum.vcov.copy(), index=list(self.design.names), columns=list(self.design.names))

    def conf_int(self, alpha: float = 0.05) -> Any:
        """Wald intervals as a pandas DataFrame with columns 0 and 1 (statsmodels' name)."""
        import pandas as pd

        inference.check_level(1 - alpha)
        table = inference.t_table(self._optimum.beta, np.sqrt(np.diag(self._optimum.vcov)), self._fixed_df, 1 - alpha)
        return pd.DataFrame({0: table["conf_low"], 1: table["conf_high"]}, index=list(self.design.names))

    def _series(self, values: Array) -> Any:
        import pandas as pd

        return pd.Series(values, index=list(self.design.names))
