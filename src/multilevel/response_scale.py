"""Estimates of a transformed response, taken back to the response."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, listing

__all__ = ["Back", "back", "transformed"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Back:
    """The inverse of a transformation of the response.

    Attributes
    ----------
    inverse, slope : callables
        The inverse and its derivative.
    logarithm : bool
        Whether differences are logarithms of ratios.
    least : float
        Below it the transformation takes no value: limits of intervals stay above.
    ratios : bool
        Whether the estimates are ratios.
    """

    inverse: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    logarithm: bool = False
    least: float = -np.inf
    ratios: bool = False

    def apply(self, numbers: dict[str, Array]) -> dict[str, Array]:
        """Take estimate and limits back, the standard error by the delta method; the test stays where it was."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            limits = {name: self.inverse(np.maximum(numbers[name], self.least)) for name in ("conf_low", "conf_high")}
            estimate = self.inverse(numbers["estimate"])
            std_error = np.abs(self.slope(numbers["estimate"])) * numbers["std_error"]
        return {**numbers, "estimate": estimate, "std_error": std_error, **limits}

    def ratio(self) -> Back | None:
        """For differences of estimates: ratios if these are logarithms."""
        return replace(self, ratios=True) if self.logarithm else None


def _power(base: float) -> Back:
    return Back(lambda x: base**x, lambda x: np.log(base) * base**x, logarithm=True)


_BACK = {
    "log": Back(np.exp, np.exp, logarithm=True),
    "log2": _power(2.0),
    "log10": _power(10.0),
    "log1p": Back(np.expm1, np.exp),
    "sqrt": Back(np.square, lambda x: 2 * x, least=0.0),
    "exp": Back(np.log, lambda x: 1 / x, least=0.0),
}


def transformed(response: str) -> tuple[str, str] | None:
    """Function and argument of a response such as log(y), or None for a column as it is."""
    from .expressions import analyse

    expression = analyse(response, response=True)
    if expression.plain:
        return None
    body = ast.parse(expression.code, mode="eval").body
    if isinstance(body, ast.Call) and len(body.args) == 1 and not body.keywords:
        name = body.func.attr if isinstance(body.func, ast.Attribute) else getattr(body.func, "id", "")
        return name, response.partition("(")[2].rstrip()[:-1]
    return "", response


def back(response: str) -> Back | None:
    """How to go back from the response of a formula; None where it is a column as it is.

    Raises
    ------
    OptionError
        For a transformation whose inverse is not known here.
    """
    found = transformed(response)
    if found is None:
        return None
    if found[0] not in _BACK:
        raise OptionError(
            f"transform='response' does not know how to undo {response!r}; it knows {listing(_BACK)} of a column. Leave "
            "it out for estimates of the response as it stands in the formula"
        )
    return _BACK[found[0]]
