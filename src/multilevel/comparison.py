"""Models side by side: likelihood-ratio tests, information criteria, predictive accuracy of posteriors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .errors import OptionError, listing, nearest
from .frame import like
from .tables import Block, clean, html_of, latex_of, text_of

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model
    from .posterior import Posterior

__all__ = ["Comparison", "compare", "described"]

WIDTH = 100  # characters of a printed line


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Models of the same data side by side; prints as a table with a sentence.

    Attributes
    ----------
    models : dict
        Name to `Fit` or `Posterior`, in the order of the table; fits as they were compared, which may be refits by maximum
        likelihood.
    best : str
        Name of the model with the lowest AIC, or the highest expected log predictive density.
    sentence : str
        What the comparison comes to.
    messages : tuple of str
        What was refitted, and what to be careful about.
    criterion : {"REML", "ML", "LOO"}
        What the numbers are of.
    """

    models: dict[str, Any]
    best: str
    sentence: str
    messages: tuple[str, ...]
    criterion: str
    _columns: dict[str, NDArray[Any]]
    _blocks: tuple[Block, ...]
    _kind: str

    def frame(self) -> Any:
        """The table as a frame of the library of the data; see `compare` for its columns."""
        return like(self._kind, self.columns())

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `frame` as arrays."""
        return {name: values.copy() for name, values in self._columns.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One column as an array."""
        if name not in self._columns:
            hint = nearest(name, self._columns) or "there are " + listing(self._columns, 20)
            raise OptionError(f"there is no column {name!r}; {hint}")
        return self._columns[name].copy()

    def __len__(self) -> int:
        return len(self.models)

    def _all(self) -> list[Block]:
        notes = [Block("", notes=(text,)) for text in (self.sentence, *self.messages)]
        return [*self._blocks, *notes]

    def __str__(self) -> str:
        lines = [textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in (self.sentence, *self.messages)]
        return text_of([*self._blocks, *(Block("", notes=(line,)) for line in lines)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self._all())

    def to_latex(self) -> str:
        """The tables for LaTeX (booktabs)."""
        return latex_of(self._all())


def compare(
    *models: Any,
    names: Sequence[str] | None = None,
    simulate: int = 0,
    seed: Any = None,
    progress: bool | None = None,
) -> Comparison:
    """Compare fits, or posteriors, of the same data.

    Fits: information criteria with their weights, and a likelihood-ratio test of each model against the nearest smaller one
    that it contains. Restricted likelihoods (REML) compare only models with the same fixed part; where these differ, or
    where some fits are by REML and others not, the fits by REML are fitted again by maximum likelihood, and a message says
    so. Posteriors: expected log predictive density of rows left out one by one (PSIS-LOO), with stacking weights.

    Parameters
    ----------
    *models : Fit or Posterior
        Two or more of one sort; or one dict of name to model, or one list.
    names : sequence of str, optional
        Default: "model 1", "model 2", ... in the order given.
    simulate : int
        Of fits: test by so many responses drawn from the smaller model and fitted by both, in place of a distribution for
        large samples. For many variances at once, few groups, and structures that no theory covers; 1000 is usual.
    seed : int or Generator, optional
        Of the responses drawn.
    progress : bool, optional
        A bar for leave-one-out and for simulated tests; default: after two seconds, on a terminal.

    Returns
    -------
    Comparison
        Its ``frame()`` has a row per model.

        Of fits, from few parameters to many: model, npar, loglik, aic, aicc, bic (of the criterion that `criterion` names,
        n = rows), aic_weight, aicc_weight, bic_weight (``exp(-difference / 2)``, with sum one), against (the smaller model
        it is tested against, None without one), lrt, df, p_value (plain chi-square), p_boundary (knows that variances
        cannot be negative: the one to use) and reference, the distribution that `p_boundary` is of: "chi2(2)" where no
        variance is at its boundary, "0.5 chi2(1) + 0.5 chi2(2)" for one variance with one covariance, such as "0.25
        chi2(0) + 0.50 chi2(1) + 0.25 chi2(2)" where several variances go at once (the weights depend on the design), "at most
        ..." where these are not computed and the mixture is an upper bound (more than three parameters that go with their
        variances, families other than gaussian, structures, a smaller model that is itself at its boundary), "unknown"
        (p_boundary is NaN) for structures whose correlation means nothing without a variance, "simulated" where that was
        asked for.

        Of posteriors, the best first: model, elpd, se, p_loo, looic, elpd_diff (to the best, not positive), se_diff, weight
        (stacking), bad_k (rows whose Pareto k is above 0.7).

    Raises
    ------
    DataError
        For unlike data: other rows, another response, other trials, with the reason; for posteriors, and fits to simulate
        by, that were saved without their rows.
    OptionError
        For fits beside posteriors, fewer than two models, likelihoods approximated differently, and what is no fit.

    Notes
    -----
    Self & Liang (1987), JASA 82, 605; Stram & Lee (1994), Biometrics 50, 1171; Shapiro (1985), Biometrika 72, 133 (weights
    of several variances); Kodde & Palm (1986), Econometrica 54, 1243 (the bound); Burnham & Anderson (2002), Model Selection,
    chapter 2 (weights of models); Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413; Yao and others (2018),
    Bayesian Analysis 13, 917.

    Examples
    --------
    >>> import multilevel as ml
    >>> sleep = ml.load("sleepstudy")
    >>> one = ml.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    >>> two = ml.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> ml.compare(one, two)["reference"][1]
    '0.5 chi2(1) + 0.5 chi2(2)'
    """
    from .fit import Fit
    from .likeness import check_alike
    from .posterior import Posterior
    from .predict import generator
    from .sample import check_count

    given, rng = _named(models, names), generator(seed)
    check_count("simulate", simulate, 0)
    fits: dict[str, Fit] = {name: one for name, one in given.items() if isinstance(one, Fit)}
    posteriors: dict[str, Posterior] = {name: one for name, one in given.items() if isinstance(one, Posterior)}
    for name, one in given.items():
        if name not in fits and name not in posteriors:
            raise OptionError(f"{name!r} is {_what(one)}; compare() takes fits (Model.fit) or posteriors (Model.sample)")
    if fits and posteriors:
        raise OptionError(
            f"{next(iter(fits))!r} is a fit and {next(iter(posteriors))!r} a posterior, and their numbers do not compare: "
            "one has a maximum of the likelihood, the other predicts by all its draws; give models of one sort"
        )
    notes = check_alike({name: one.model for name, one in given.items()})
    if fits:
        from .compare_fits import compared

        return compared(fits, notes, int(simulate), rng, progress)
    if simulate:
        raise OptionError("simulate= is of likelihood-ratio tests, which posteriors do not have; leave it out")
    from .compare_posteriors import compared_posteriors

    return compared_posteriors(posteriors, notes, progress)


def _named(models: tuple[Any, ...], names: Any) -> dict[str, Any]:
    """Models by name."""
    if len(models) == 1 and isinstance(models[0], Mapping):
        if names is not None:
            raise OptionError("the models already have names, those of the dict; leave names= out")
        names, models = list(models[0]), tuple(models[0].values())
    elif len(models) == 1 and isinstance(models[0], (list, tuple)):
        models = tuple(models[0])
    if len(models) < 2:
        raise OptionError(f"compare() needs two models or more, got {len(models)}")
    if names is None:
        names = [f"model {i + 1}" for i in range(len(models))]
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise OptionError(f"names must be a list of texts, got {names!r}")
    if len(names) != len(models):
        raise OptionError(f"there are {len(models)} models, but {len(names)} names")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"the name {twice!r} is given twice; each model needs its own")
    return dict(zip(names, models, strict=True))


def _what(one: Any) -> str:
    from .model import Model

    if isinstance(one, Model):
        return "a model that is not fitted"
    return f"text ({one!r})" if isinstance(one, str) else f"of type {type(one).__name__}"


def described(model: Model) -> str:
    """A model on one line: formula, family, and the parts that stand outside the formula."""
    parts = [" ".join(clean(model.formula.text).split())]
    family, text = model.distribution, model._residual_text
    if family is not None:
        own = {"df": family.df, "power": family.power}
        shown = ", ".join(f"{name}={value:g}" for name, value in own.items() if value is not None)
        parts.append(f"{family.name}{f'({shown})' if shown else ''}, {family.link} link")
        parts += [f"{'hurdle' if family.zero == 'hurdle' and what == 'zi' else what} ~ {side}"
                  for what, side in model.design.remake.extra.items()]
    parts += [clean(spread[2]) for spread in text.spreads]
    parts += [] if text.serial is None else [clean(text.serial[3])]
    parts += ["weights"] if model.design.weights is not None else []
    return "; ".join(parts)
