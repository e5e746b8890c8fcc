"""Plots of a generalised fit: those that hold on the scale of the link; the others are refused, not drawn wrongly."""

from __future__ import annotations

from typing import Any, NoReturn

from .errors import OptionError
from .plots import FitPlots

__all__ = ["LinkPlots"]


class LinkPlots(FitPlots):
    """``fit.plot.caterpillar()`` of a generalised model."""

    def __repr__(self) -> str:
        return "LinkPlots: caterpillar()"

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise OptionError(f"plot.{what}() is available for the gaussian family only in this version; use {instead}")

    def groups(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("groups", "predict() on a grid")

    def shrinkage(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("shrinkage", "plot.caterpillar()")

    def effects(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("effects", "means(..., transform='response').plot()")

    def residuals(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("residuals", "residuals('quantile') and check()")

    def check(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("check", "check()")

    def influence(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("influence", "check()")

    def profile(self, *_: Any, **__: Any) -> NoReturn:
        """Not available."""
        self._refuse("profile", "confint()")
