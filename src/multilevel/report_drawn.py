"""Which pictures stand in which part of a report."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .report_data import has_rows
from .report_html import paragraph
from .report_pictures import INSTALL, available, picture

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["Drawn", "in_three"]

GROUPS_DRAWN = 12
COLUMNS = 3  # of the panels of checks
NO_ROWS = "The pictures here need the rows, which the model was saved without."


class Drawn:
    """Pictures of a fit or posterior by section, as HTML; a sentence in their place where there can be none."""

    def __init__(self, source: Fit | Posterior, level: float, wanted: bool) -> None:
        self.source, self.level, self.wanted = source, level, wanted
        self.plot: Any = source.plot
        self.rows = has_rows(source)
        self.percent = f"{100 * level:.4g}%"

    @property
    def bayes(self) -> bool:
        from .posterior import Posterior

        return isinstance(self.source, Posterior)

    def data(self) -> str:
        """Rows and lines of some groups."""
        if not self._can(rows=True) or not self.source.design.terms:
            return ""
        response = self.source.design.response
        group = self.source.design.terms[0].group
        return picture(
            lambda: self.plot.groups(max_groups=GROUPS_DRAWN),
            f"Small panels, one for each of up to {GROUPS_DRAWN} levels of {group}: {response} with the lines of "
            "the model",
            f"Rows of up to {GROUPS_DRAWN} groups, chosen evenly over their sizes, with what each way of pooling "
            "says of them.",
        )

    def parameters(self) -> str:
        if not self.bayes or not self._can():
            return ""
        return picture(
            lambda: self.plot.prior(), "Prior and posterior density of each parameter",
            "What the data have added: prior and posterior of each parameter.",
        )  # fmt: skip

    def groups(self) -> str:
        """Intervals of the group effects, and how far they were drawn towards the population."""
        if not self._can() or not self.source.design.terms or (self.bayes and not self.source.draws_kept.b):  # type: ignore[union-attr]
            return ""
        names = ", ".join(dict.fromkeys(term.group for term in self.source.design.terms))
        first = picture(
            lambda: self.plot.caterpillar(level=self.level),
            f"Sorted differences of the levels of {names} from the population, with {self.percent} intervals",
            f"Group effects with {self.percent} intervals, sorted; those that miss zero are darker.",
        )
        second = picture(
            lambda: self.plot.shrinkage(),
            f"Each group's own estimate and the partially pooled one, which lies nearer to the population ({names})",
            "Partial pooling: from what each group's own rows say to what the model says.",
        )
        return first + (second if self.rows else paragraph(NO_ROWS, "note"))

    def predictions(self) -> str:
        from .effect_lines import effect_names

        if not effect_names(self.source.design):
            return paragraph("Without predictors there is one prediction for all: the intercept above.")
        if not self._can():
            return paragraph(INSTALL if self.wanted else "Pictures were left out.")
        names = ", ".join(effect_names(self.source.design))
        return paragraph(
            "What the model expects of a typical group along each predictor, the others held where the panel says."
        ) + picture(
            lambda: self.plot.effects(level=self.level),
            f"Expected {self.source.design.response} along {names}, with {self.percent} bands",
            f"Population predictions with {self.percent} bands, which carry the uncertainty of the fixed effects.",
            "" if self.rows else NO_ROWS,
        )

    def checks(self) -> str:
        if not self._can(rows=True):
            return paragraph(NO_ROWS, "note") if self.wanted and available() else ""
        text = "Panels of residuals and group effects; each shows one of the assumptions in the table of checks"
        return picture(lambda: in_three(self.plot.check), text, "The same checks as pictures.")

    def _can(self, rows: bool = False) -> bool:
        return self.wanted and available() and (self.rows or not rows)


def in_three(draw: Callable[..., Any]) -> Any:
    """Panels in three columns where they would stand in four, whose text is too small on a page."""
    import matplotlib.pyplot as plt

    axes = draw()
    given = list(axes.flat) if hasattr(axes, "flat") else [axes]
    if len({round(one.get_position().x0, 2) for one in given}) < 4:
        return axes
    title = given[0].figure.get_suptitle()
    rows = math.ceil(len(given) / COLUMNS)
    figure, made = plt.subplots(
        rows, COLUMNS, figsize=(3.4 * COLUMNS, 3.2 * rows + 0.3), layout="constrained", squeeze=False
    )
    for one in made.flat[len(given) :]:
        one.remove()
    figure.suptitle(title)
    return draw(ax=made.flat[: len(given)])
