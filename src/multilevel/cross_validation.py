"""Cross-validation: models fitted without some of the rows or groups, and scored on those."""

from __future__ import annotations

import warnings
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cross_validation_fits import Held, Scores, scores_of_fit
from .cross_validation_folds import Folds, folds_of
from .cross_validation_models import Candidate, Source, baselines_of, candidates, full_rank_columns
from .cross_validation_table import CrossValidation, FoldResult
from .errors import DataError, MultilevelError, OptionError
from .frame import lookup
from .progress import Progress

__all__ = ["CrossValidation", "cross_validate"]


def cross_validate(
    model: Any,
    leave: Any = "rows",
    folds: int | str = 10,
    seed: Any = None,
    n_jobs: int | None = 1,
    *,
    groups: Any = None,
    baselines: bool = False,
    progress: bool | None = None,
) -> CrossValidation:
    """Fit models without some of the rows or groups, again and again, and score their predictions of those.

    Parameters
    ----------
    model : Model, Fit or Posterior; list or dict of them
        All with the same response and the same rows. A `Fit` says by its criterion whether it is refitted by REML or ML, a
        `Posterior` is sampled again with as many chains and draws.
    leave : "rows", "groups", name of a column, (n_input,) labels, splitter, or iterable of (train, test) pairs
        Rows at random: how well is a new row of a known group predicted? Whole groups: how well a group that was never
        seen? "groups" are those of the outermost grouping factor of the first model; a name chooses another. An array has
        the fold of each row of the data, missing for rows that are always fitted. A splitter, such as those of scikit-learn,
        has ``split(X, y, groups)`` and sees the rows that the models use, X the data frame (pandas). Pairs hold row numbers
        of the data, from 0, to fit and to leave out.
    folds : int or "all"
        Parts in which rows or groups are left out; "all": each by itself. No more than there are groups. Not of folds that
        labels, splitters or pairs make.
    seed : int or Generator, optional
        Of the folds, and of the draws that scores of other families take. The same seed gives the same answer, whatever the
        number of jobs.
    n_jobs : int, optional
        Fits at a time, in threads; None or -1: as many as processors.
    groups : str or (n_input,) labels, optional
        Groups that a splitter keeps together, such as GroupKFold; default those of the outermost grouping factor. Where
        whole groups are left out, scores and standard errors are by group.
    baselines : bool
        Also score the first model without its groups (complete pooling) and with effects of its own, by fixed effects, for
        each group (no pooling). Their difference from the model is what partial pooling gains.
    progress : bool, optional
        Default: a bar after two seconds, on a terminal.

    Returns
    -------
    CrossValidation
        `summary()`, `compare()`, `by_group()`, `by_fold()`, `by_row()`; printed, the comparison.

    Raises
    ------
    OptionError, DataError
        For models with unlike rows or responses, ways to leave out that do not work (rows left out twice, fitted and left out
        at once, out of range, in no fold), and a fold whose rows do not allow a fit, with the fold.

    Notes
    -----
    Per row: squared and absolute error of what `predict` answers (a group that was not fitted counts as a typical one), the
    log of the predictive density (more is better), and the continuous ranked probability score (on the scale of the
    response, less is better; Gneiting & Raftery 2007). The predictive distribution carries the residual variance, the
    uncertainty of coefficients and group effects, and the whole variance of groups that were not fitted; variances of a fit
    are taken as known, a posterior's are drawn. Per left-out group (or fold, for labels): the joint log density of its rows,
    which share its effects. It is exact for linear models; for others the group effects and coefficients are integrated out
    by quadrature or importance sampling.

    A row that a model cannot predict, such as one of a new group without pooling, has no score there; `compare` is over rows
    that both models predict. Standard errors are those of means over rows, or over groups where groups were left out (a
    cluster's rows go together); fits of different folds share rows, for which they do not account, so they are somewhat too
    small (Bengio & Grandvalet 2004, J. Mach. Learn. Res. 5, 1089).

    Examples
    --------
    >>> import multilevel as ml
    >>> model = ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))
    >>> result = ml.cross_validate(model, leave="groups", baselines=True, seed=1)
    >>> len(result.summary())
    3
    """
    from .model import check_flag
    from .predict import generator

    check_flag("baselines", baselines)
    jobs = _jobs(n_jobs)
    found = candidates(model)
    if baselines:
        found += _apart(found, baselines_of(found[0]))
    _check_alike(found)
    rng = generator(seed)
    plan = folds_of(found[0].model, leave, folds, rng, groups)
    root = np.random.SeedSequence(rng.integers(0, 2**63))
    sources = [Source(one) for one in found]
    tasks = [  # the same numbers for all models of a fold, so that paired differences are sharper
        Task(source, plan, fold, own, None if jobs == 1 else 1)
        for fold, own in enumerate(root.spawn(plan.count))
        for source in sources
    ]
    return CrossValidation(tuple(one.name for one in found), plan, found[0].model, tuple(_run(tasks, jobs, progress)))


def _apart(given: list[Candidate], more: list[Candidate]) -> list[Candidate]:
    """Baselines that are not among the models already."""
    texts, names = {one.model.formula.text for one in given}, {one.name for one in given}
    for one in more:
        if one.name in names:
            raise OptionError(f"a model is called {one.name!r}, as a baseline is; give it another name")
    return [one for one in more if one.model.formula.text not in texts]


def _jobs(n_jobs: Any) -> int:
    from .crossprod import default_threads

    if n_jobs is None or (isinstance(n_jobs, (int, np.integer)) and n_jobs == -1):
        return default_threads()
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)) or n_jobs < 1:
        raise OptionError(f"n_jobs must be a whole number of at least 1, or -1 for all processors; got {n_jobs!r}")
    return int(n_jobs)


def _check_alike(found: list[Candidate]) -> None:
    """Models must be of the same responses: densities of others cannot be compared."""
    first, d = found[0], found[0].model.design
    for other in found[1:]:
        new = other.model.design
        if new.n_input != d.n_input or not np.array_equal(new.rows, d.rows):
            raise DataError(
                f"{first.name!r} uses {len(d.rows)} rows of its {d.n_input} and {other.name!r} {len(new.rows)} of "
                f"{new.n_input}, not the same ones; drop the rows that miss a value in any model first"
            )
        if not np.array_equal(new.y, d.y) or not _same(new.trials, d.trials) or new.labels != d.labels:
            raise DataError(
                f"{first.name!r} is of the response {d.response!r} and {other.name!r} of {new.response!r}; scores compare "
                "predictions of one response only"
            )


def _same(one: Any, other: Any) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


# -- one model in one fold --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One model to fit without one fold, and to score there."""

    source: Source
    plan: Folds
    fold: int
    seed: np.random.SeedSequence
    threads: int | None

    def __call__(self) -> FoldResult:
        """Fit and score.

        Raises
        ------
        MultilevelError
            What the fit says of these rows, with the model and the fold.
        """
        candidate, plan = self.source.candidate, self.plan
        out, train = np.flatnonzero(plan.fold == self.fold), plan.fitted(self.fold)
        rng = np.random.default_rng(self.seed)
        try:
            fit = self.source.fitted(train, self.threads, int(rng.integers(0, 2**31)))
            return self._scored(fit, out, train, rng)
        except MultilevelError as error:
            if candidate.baseline and isinstance(error, DataError):  # of no pooling, as where a group has no failures
                return self._without(out, len(train), str(error))
            label = plan.labels[self.fold]
            whole = plan.labels == plan.units and plan.what != "folds"
            where = f"{plan.what} {label!r} left out" if whole else f"fold {label!r}"
            error.args = (f"{candidate.name!r}, {where}: {error.args[0] if error.args else error}", *error.args[1:])
            raise

    def _without(self, at: NDArray[np.int64], fitted: int, reason: str) -> FoldResult:
        """No scores, for there is no fit."""
        none = np.zeros(len(at), dtype=bool)
        return FoldResult(self.source.candidate.name, self.fold, at, none, None, fitted, False, False, reason)

    def _scored(self, fit: Any, at: NDArray[np.int64], train: NDArray[np.int64], rng: np.random.Generator) -> FoldResult:
        plan, source = self.plan, self.source
        rows = plan.rows[at]
        held = Held(source.candidate.model, at, source.frame(rows), source.offset(rows), plan.unit[at])
        known = predictable(fit, held, source, train)
        some = held.part(known)
        if (~known).any():  # the joint density is that of all rows of a group
            lost = np.isin(some.unit, held.unit[~known])
            some = replace(some, unit=np.where(lost, -1, some.unit))
        scores = None
        if known.any():
            scores = (_of_draws if source.candidate.draws else scores_of_fit)(fit, some, rng)
        sampled = source.candidate.draws is not None
        return FoldResult(
            source.candidate.name,
            self.fold,
            at,
            known,
            scores,
            len(train),
            True if sampled else bool(fit.convergence.converged),
            False if sampled else bool(fit.is_singular),
        )


def _of_draws(posterior: Any, held: Held, rng: np.random.Generator) -> Scores:
    from .cross_validation_draws import scores_of_posterior

    return scores_of_posterior(posterior, held, rng)


def predictable(fit: Any, held: Held, source: Source, train: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) rows whose fixed effects are known: their levels were fitted, and their coefficients determined."""
    known = np.ones(len(held.at), dtype=bool)
    for name, info in fit.design.remake.infos.items():
        if info.levels is not None:
            levels = np.empty(len(info.levels), dtype=object)
            levels[:] = list(info.levels)
            known &= lookup(held.frame[name], name, levels)[0] != -2
    if fit.design.dropped and known.any():
        some = held.frame[known].reset_index(drop=True)
        known[known] = full_rank_columns(fit, source.frame(train), some)
    return known


# -- all of them ------------------------------------------------------------------------------------------------------


def _run(tasks: list[Task], jobs: int, progress: bool | None) -> list[FoldResult]:
    """Results in the order of the tasks, so that the number of jobs changes nothing."""
    with Progress(len(tasks), "cross-validation", progress) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # folds are told of in the result; filters are not for threads
        if jobs == 1:
            return [_counted(task, bar) for task in tasks]
        with ThreadPoolExecutor(jobs) as executor:
            waiting: list[Future[FoldResult]] = [executor.submit(task) for task in tasks]
            try:
                for done in as_completed(waiting):
                    done.result()
                    bar.add()
            except BaseException:
                executor.shutdown(wait=True, cancel_futures=True)
                raise
            return [one.result() for one in waiting]


def _counted(task: Task, bar: Progress) -> FoldResult:
    result = task()
    bar.add()
    return result
