"""Models to compare by cross-validation: read, given their baselines, fitted again to some of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import families
from .columns import uses_of
from .errors import DataError, OptionError
from .formula import model_text, parse
from .formula_tokens import quoted
from .frame import Table
from .model import Model
from .plan import Plan, load, make_plan

if TYPE_CHECKING:
    import pandas as pd

    from .fit import Fit
    from .posterior import Posterior

__all__ = ["Candidate", "Source", "baselines_of", "candidates"]

Rows = NDArray[np.int64]

POOLED, UNPOOLED = "complete pooling", "no pooling"


@dataclass(frozen=True)
class Candidate:
    """One of the models to compare.

    Attributes
    ----------
    name : str
    model : Model
        On all rows.
    options : dict
        As given to `Model`.
    reml : bool
    draws : tuple of int or None
        Chains and draws of a model that is sampled; None for one that is fitted.
    baseline : bool
        Made here: where it has no fit in some fold, it has no scores there.
    """

    name: str
    model: Model
    options: Mapping[str, Any]
    reml: bool = True
    draws: tuple[int, int] | None = None
    baseline: bool = False


def candidates(given: Any) -> list[Candidate]:
    """The models of a user: one, a list of them, or a dict by name.

    Raises
    ------
    OptionError
        For anything else, none at all, and two of one name.
    DataError
        For a model without its data.
    """
    if isinstance(given, Mapping):
        named = [(str(name), one) for name, one in given.items()]
    elif isinstance(given, (list, tuple)):
        named = [("", one) for one in given]
    else:
        named = [("", given)]
    if not named:
        raise OptionError("there is no model to cross-validate; give one, a list of them or a dict of them by name")
    found = [_candidate(name, one) for name, one in named]
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"two models are called {twice!r}; give them as a dict, name -> model, to tell them apart")
    return found


def _candidate(name: str, given: Any) -> Candidate:
    from .fit import Fit
    from .posterior import Posterior

    reml, draws = True, None
    if isinstance(given, Model):
        model = given
    elif isinstance(given, Fit):
        model, reml = given.model, bool(given.reml)
    elif isinstance(given, Posterior):
        model, draws = given.model, (given.draws_kept.chains, given.draws_kept.draws)
    else:
        raise OptionError(
            f"cross_validate() takes a Model, a Fit or a Posterior, a list or a dict of them; got {type(given).__name__}"
        )
    if model.data is None:
        raise DataError(
            "this model was saved without its data, which fitting it again needs; save it with save(path, data=True)"
        )
    return Candidate(name or model.formula.text, model, _options(given, model), reml, draws)


def _options(given: Any, model: Model) -> dict[str, Any]:
    """What the model was made with beside formula and data."""
    found = getattr(model, "_options", None)
    if found is None:  # read from a file: from what the file keeps
        from .fit import Fit
        from .update import _kept

        if not isinstance(given, Fit):
            raise OptionError("a model read from a file cannot be fitted to some of its rows; make it again with Model()")
        found = _kept(given, model.formula, model.data, {})
    return dict(found)


# -- baselines --------------------------------------------------------------------------------------------------------


def baselines_of(first: Candidate) -> list[Candidate]:
    """The same model with its groups ignored, and with every group on its own.

    Complete pooling leaves the random terms out. No pooling makes their effects fixed: a coefficient of its own for every
    level, all with one residual variance.

    Raises
    ------
    OptionError
        Where there are no groups, or as many coefficients as rows without pooling.
    """
    d, formula = first.model.design, first.model.formula
    if not d.terms:
        raise OptionError(
            f"the model {formula.text!r} has no random terms, so there is no pooling to compare; leave baselines out"
        )
    fixed = d.remake.fixed if "." in formula.fixed else formula.fixed
    offsets = [f"offset({one})" for one in formula.offsets]
    apart = [one for term in formula.bars for one in _own_effects(term.groups, term.effects)]
    count = len(d.names) + sum(len(t.levels) * len(t.names) for t in d.terms)
    if count - sum(len(t.names) for t in d.terms) >= len(d.y):
        raise OptionError(
            f"without pooling the model has about {count} coefficients for {len(d.y)} rows, so there is no such baseline; "
            "leave baselines out and give models to compare by hand"
        )
    texts = {POOLED: [fixed, *offsets], UNPOOLED: [fixed, *dict.fromkeys(apart), *offsets]}
    return [_changed(first, name, f"{formula.response} ~ {' + '.join(parts)}") for name, parts in texts.items()]


def _own_effects(groups: tuple[str, ...], effects: str) -> list[str]:
    """Terms of the fixed side that give every level effects of its own."""
    from .update import _terms

    level = ":".join(f"factor({quoted(name)})" for name in groups)
    terms = [one for one in _terms(model_text(effects)) if one != "0"]
    return [level if one == "1" else f"{one}:{level}" for one in terms]


def _changed(first: Candidate, name: str, text: str) -> Candidate:
    """The candidate with another formula, less the options that are of its random terms."""
    model, options = first.model, dict(first.options)
    parsed = parse(text)
    plan = make_plan(parsed, Table(model.data).names, None, None, gaussian=model.distribution is None)
    used = uses_of(plan.expressions)
    for option in ("contrasts", "levels"):
        if options.get(option):
            options[option] = {column: value for column, value in options[option].items() if column in used}
    options["covariance"] = None
    made = Model(text, model.data, **options)
    return Candidate(name, made, options, first.reml, baseline=True)


# -- some of the rows -------------------------------------------------------------------------------------------------


class Source:
    """The columns that a model uses, to be cut into rows to fit and rows to predict."""

    def __init__(self, candidate: Candidate) -> None:
        import pandas as pd

        self.candidate = candidate
        options, model = candidate.options, candidate.model
        table = Table(model.data)
        extra = families.distribution_of(
            *(options.get(name, default) for name, default in _OF_FAMILY.items())
        )[1]
        also = model._residual_text.columns()
        weights, offset = (v if isinstance(v := options.get(n), str) else None for n in ("weights", "offset"))
        plan: Plan = make_plan(
            model.formula, table.names, weights, offset, also, extra, model.distribution is None
        )
        self._frame: pd.DataFrame = pd.DataFrame(
            {name: one.reset_index(drop=True) for name, one in load(table, plan).items()}
        )

    def frame(self, rows: Rows) -> pd.DataFrame:
        """The columns on some rows of the data."""
        return self._frame.iloc[rows].reset_index(drop=True)

    def offset(self, rows: Rows) -> Any:
        """Offsets of some rows, where they were given as an array; else None, for `predict` finds them."""
        given = self.candidate.options.get("offset")
        return None if given is None or isinstance(given, str) else np.asarray(given, dtype=np.float64)[rows]

    def fitted(self, rows: Rows, threads: int | None, seed: int) -> Fit | Posterior:
        """The model fitted (or sampled) on some rows of the data.

        Raises
        ------
        DataError
            Where these rows do not allow it.
        """
        own, options = self.candidate.model, dict(self.candidate.options)
        for name in ("weights", "offset"):
            if options.get(name) is not None and not isinstance(options[name], str):
                options[name] = np.asarray(options[name])[rows]
        model = Model(own.formula.text, self.frame(rows), priors=own.priors, **options)
        self._check(model, rows)
        if own._quadrature != 1:
            model = model.with_quadrature(own._quadrature)
        if self.candidate.draws is None:
            return model.fit(self.candidate.reml, threads=threads)
        chains, draws = self.candidate.draws
        return model.sample(chains=chains, draws=draws, seed=seed, threads=threads, progress=False)

    def _check(self, model: Model, rows: Rows) -> None:
        """The response must be the one the model has on all rows: scores compare with that."""
        whole, part = self.candidate.model.design, model.design
        if part.labels != whole.labels:
            lost = [one for one in whole.labels if one not in part.labels]
            raise DataError(
                f"its rows lack the category {', '.join(map(repr, lost))} of the response; use fewer or other folds"
            )
        where = np.searchsorted(whole.rows, rows[part.rows])
        if len(part.rows) != len(rows) or not np.array_equal(part.y, whole.y[where]):
            raise OptionError(
                f"the response {whole.response!r} is not the same on some of the rows as on all, as where scale() or a refit "
                "to another response made it; put the response itself into a column of the data"
            )


_OF_FAMILY = {"family": "gaussian", "link": None, "dispersion": None, "zi": None, "hurdle": None}


def full_rank_columns(fit: Any, train: pd.DataFrame, new: pd.DataFrame) -> NDArray[np.bool_]:
    """(m,) whether the rows fitted determine the fixed part of each new row, where columns were left out for rank.

    A column that is left out has coefficient zero, which says something about a new row only if that row keeps to the same
    dependence; else its prediction would depend on which column was left out.
    """
    recipe = replace(fit.design.remake, kept=np.arange(len(fit.design.remake.all_names)))
    size = len(train)
    old = recipe.at(train, None, np.zeros(size)).X
    x = recipe.at(new, None, np.zeros(len(new))).X
    scale = np.sqrt(np.einsum("ij,ij->j", old, old))
    absent = scale == 0
    old, x = old / np.where(absent, 1.0, scale), x / np.where(absent, 1.0, scale)
    _, s, vt = np.linalg.svd(old, full_matrices=False)
    basis = vt[s > 1e-9 * s[0]]
    rest = x - (x @ basis.T) @ basis
    return np.asarray(np.linalg.norm(rest, axis=1) <= 1e-7 * np.maximum(np.linalg.norm(x, axis=1), 1e-300))
