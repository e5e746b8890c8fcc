"""Verbs of a Fit about intervals: confint, profile, bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import OptionError

if TYPE_CHECKING:
    from .fit import Fit


class IntervalVerbs:
    """Inherited by Fit."""

    def confint(self, level: float = 0.95, method: str = "wald", ddf: str = "satterthwaite") -> Any:
        """Wald intervals of the fixed effects.

        Returns
        -------
        frame
            term, estimate, conf_low, conf_high.
        """
        if method != "wald":
            raise OptionError(f"method {method!r} is not available; allowed is 'wald'")
        table = self.fixef(level, ddf)
        return (
            table[["term", "estimate", "conf_low", "conf_high"]]
            if self.design.kind != "pyarrow"
            else table.select(["term", "estimate", "conf_low", "conf_high"])
        )
