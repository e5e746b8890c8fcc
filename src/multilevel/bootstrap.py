"""Bootstrap: parametric, of residuals, of cases; seeded replicate by replicate, so that threads change nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import FREE
from .errors import DataError, MultilevelError, MultilevelWarning, OptionError, listing, nearest
from .frame import like
from .progress import Progress
from .resampling import Cases, drawn_response, outermost, pool, residual_of
from .sd_scale import Parameter, draws, estimates, parameters_of

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .residuals import Residual

__all__ = ["Bootstrap", "bootstrap"]

Array = NDArray[np.float64]
Statistic = Callable[[Any], Any]

KINDS = ("parametric", "residual", "case")
BATCH = 256  # most replicates between two looks at the keyboard and the progress bar
WORK = 3e7  # operations of one factorisation, of all replicates of a batch together: a fraction of a second


@dataclass(frozen=True)
class Bootstrap:
    """Estimates of many data sets like the one fitted.

    Attributes
    ----------
    names : tuple of str
        Columns of `draws`: parameters on the sd and correlation scale, sigma and fixed effects, or what the statistic
        returned.
    estimates : (m,) array
        Of the fit itself.
    draws : (n, m) array
        A row per replicate; a row of NaN is a failed one. A correlation is NaN where an sd is zero.
    kind : {"parametric", "residual", "case"}
    seed : int
        Gives the same draws again, for any number of threads; also where None was asked for.
    failures : tuple of (int, str)
        Replicate and reason of every one that could not be fitted.
    group : str
        Factor whose groups were drawn (case), and that the jackknife of BCa intervals leaves out one by one.
    messages : tuple of str
    """

    fit: Fit = field(repr=False)
    names: tuple[str, ...]
    estimates: Array
    draws: Array = field(repr=False)
    kind: str
    seed: int
    failures: tuple[tuple[int, str], ...]
    group: str
    messages: tuple[str, ...] = ()
    statistic: Statistic | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.draws)

    def frame(self) -> Any:
        """Draws: replicate (from 0) and a column per parameter; NaN as in `draws`."""
        columns: dict[str, Any] = {"replicate": np.arange(len(self.draws))}
        columns |= {name: self.draws[:, i] for i, name in enumerate(self.names)}
        return like(self.fit.design.kind, columns)

    def confint(self, level: float = 0.95, kind: str = "percentile") -> Any:
        """Bootstrap intervals.

        Parameters
        ----------
        level : float
            Coverage. The most extreme draws bound it: use some 1,000 replicates for 95 %, more for higher levels.
        kind : {"percentile", "bca", "basic", "normal"}
            Percentile: quantiles of the draws. Basic: reflected around the estimate. Normal: estimate less bias, with the
            draws' sd. BCa: percentiles corrected for bias (share of draws below the estimate, ties by half) and
            acceleration, the latter by a jackknife that leaves out the groups of `group` one by one (in 200 blocks where
            there are more), whatever the kind of bootstrap (Efron 1987; Davison & Hinkley 1997, chapter 5).

        Returns
        -------
        frame
            term, estimate, conf_low, conf_high. Correlations: of the replicates that have one, which are those with both
            sds above zero. Intervals of sds may end at exactly zero where replicates are singular.
        """
        from .bootstrap_intervals import interval

        low, high = interval(self, level, kind)
        columns = {
            "term": np.array(self.names, dtype=object),
            "estimate": self.estimates,
            "conf_low": low,
            "conf_high": high,
        }
        return like(self.fit.design.kind, columns)

    def __repr__(self) -> str:
        return f"<Bootstrap of {self.fit.formula!r}: {self._sentence()} confint(), frame()>"

    def __str__(self) -> str:
        from .bootstrap_intervals import table

        return f"Bootstrap of {self.fit.formula}\n{self._sentence()}\n\n{table(self)}"

    def _sentence(self) -> str:
        what = f"{len(self):,} {self.kind} replicate{'s' * (len(self) != 1)}"
        if self.kind == "case":
            what += f" of {self.group}"
        failed = f"; {len(self.failures):,} failed and left out (see failures)" if self.failures else ""
        return f"{what}, seed {self.seed}{failed}."


def bootstrap(
    fit: Fit,
    n: int = 1000,
    seed: int | None = None,
    kind: str = "parametric",
    statistic: Statistic | None = None,
    group: str | None = None,
    within: bool = False,
    threads: int | None = None,
    progress: bool | None = None,
) -> Bootstrap:
    """Draw and fit data sets like the one fitted; see `Fit.bootstrap`."""
    _check(n, kind, statistic, threads)
    design = fit.rows_of_data()
    root, entropy = _root(seed)
    outer, messages = _group(fit, group, within, kind)
    cases = Cases(design, outer) if kind == "case" else None
    if cases is not None:
        _check_serial(fit, cases, within)
    work = _Work(fit, parameters_of(fit), kind, statistic, cases, within)
    done = _Done(int(n), len(work.names))
    interrupted = _collect(work.run(root.spawn(int(n)), threads), done, int(n), progress)
    for sentence in done.said(int(n), interrupted):
        messages.append(sentence)
        warnings.warn(sentence, MultilevelWarning, stacklevel=3)
    return Bootstrap(
        fit,
        work.names,
        work.original,
        done.values[: done.count],
        kind,
        entropy,
        tuple(done.failures),
        outer,
        tuple(messages),
        statistic,
    )


def _collect(parts: Iterator[tuple[int, Sequence[Array | str]]], done: _Done, n: int, progress: bool | None) -> bool:
    """Put finished replicates into `done`; whether Ctrl-C ended it, with some there."""
    with Progress(n, "bootstrap", progress) as bar:
        try:
            for start, values in parts:
                done.put(start, values)
                bar.add(len(values))
        except KeyboardInterrupt:
            if not done.count:
                raise
            return True
    return False


class _Done:
    """Results so far, in the order of the replicates."""

    def __init__(self, n: int, width: int) -> None:
        self.values = np.full((n, width), np.nan)
        self.failures: list[tuple[int, str]] = []
        self.count = 0

    def put(self, start: int, values: Sequence[Array | str]) -> None:
        for i, one in enumerate(values, start):
            if isinstance(one, str):
                self.failures.append((i, one))
            else:
                self.values[i] = one
        self.count = start + len(values)

    def said(self, n: int, interrupted: bool) -> list[str]:
        """What a user must know of them; nothing to go on with is an error."""
        out = [f"Interrupted: {self.count:,} of the {n:,} replicates asked for were drawn."] if interrupted else []
        if not self.failures:
            return out
        first = self.failures[0][1]
        if len(self.failures) == self.count:
            raise DataError(f"none of the {self.count:,} replicates could be fitted; the first says: {first}")
        lost = f"{len(self.failures):,} of {self.count:,} replicates failed and are left out of the intervals"
        return [*out, f"{lost}; the first: {first}"]


class _Work:
    """How one replicate is drawn and fitted: in bulk by the compiled refits, or one model after the other."""

    def __init__(
        self,
        fit: Fit,
        every: tuple[Parameter, ...],
        kind: str,
        statistic: Statistic | None,
        cases: Cases | None,
        within: bool,
    ) -> None:
        self.fit, self.every, self.kind, self.statistic = fit, every, kind, statistic
        self.cases, self.within = cases, within
        self.pool = pool(fit) if kind == "residual" else None
        if statistic is None:
            self.names, self.original = tuple(p.name for p in every), estimates(every, fit)
        else:
            self.names, self.original = named(statistic(fit))

    def run(
        self, seeds: list[np.random.SeedSequence], threads: int | None
    ) -> Iterator[tuple[int, Sequence[Array | str]]]:
        """Batches of results: position of the first, then values, or the reason of a failure."""
        from .crossprod import default_threads

        count = default_threads() if threads is None else int(threads)
        bulk = self.statistic is None and self.kind != "case" and in_bulk(self.fit)
        # by the model alone: rounding in a product of matrices depends on how many responses stand in it
        blocks = self.fit.engine.blocks
        size = int(np.clip(WORK / (blocks.core.flops + 100 * blocks.n), 4, BATCH if bulk else 16))
        # fits in rounds filter warnings, which is not for threads
        executor = ThreadPoolExecutor(1 if by_fitted(self.fit) else count)
        try:
            for at in range(0, len(seeds), size):
                batch = seeds[at : at + size]
                yield at, self._bulk(batch, count) if bulk else list(executor.map(self._single, batch))
        finally:
            executor.shutdown(cancel_futures=True)

    def response(self, seed: np.random.SeedSequence) -> Array:
        """(n,) response of a replicate."""
        from .predict import draw_responses

        rng = np.random.default_rng(seed)
        if self.pool is not None:
            return drawn_response(self.pool, self.fit.design, rng)
        out: Array = draw_responses(self.fit, 1, [], rng)[0]
        return out

    def _bulk(self, seeds: list[np.random.SeedSequence], threads: int) -> Sequence[Array | str]:
        from .refits import refit

        fit = self.fit
        ys = np.array([self.response(seed) for seed in seeds])
        try:
            found = refit(fit.engine, fit.design, ys, fit.optimum, threads)
        except DataError:  # of one response; found out one by one
            return [self._single(seed) for seed in seeds]
        covs, at = [], 0
        for s in fit.engine.blocks.structures:
            roots = np.stack([s.to_lambda(theta[at : at + s.n_theta]) for theta in found["theta"]])
            at += s.n_theta
            covs.append(found["sigma"][:, None, None] ** 2 * (roots @ roots.transpose(0, 2, 1)))
        values = draws(self.every, covs, found["sigma"], found["beta"])
        # a search that stopped short is done again with the engine's full care before it counts as failed
        return [
            row if good else self._single(seed)
            for row, good, seed in zip(values, found["converged"], seeds, strict=True)
        ]

    def _single(self, seed: np.random.SeedSequence) -> Array | str:
        try:
            if self.cases is not None:
                return self.value(
                    fitted_rows(self.fit, self.cases, self.cases.parts(np.random.default_rng(seed), self.within))
                )
            return self.value(fitted(self.fit, replace(self.fit.design, y=self.response(seed))))
        except MultilevelError as error:
            return str(error)
        except Exception as error:
            if self.statistic is None:
                raise
            return f"{type(error).__name__}: {error}"

    def value(self, fit: Fit) -> Array:
        """(m,) parameters or statistic of a fit; not converged is an error."""
        if not fit.convergence:
            raise DataError(fit.convergence.sentence)
        if self.statistic is None:
            return estimates(self.every, fit)
        names, values = named(self.statistic(fit))
        if names != self.names:
            raise DataError(
                f"the statistic returned {len(names)} numbers ({listing(names)}), not those it returned at first"
            )
        return values


def in_bulk(fit: Fit) -> bool:
    """Whether the compiled refits know this model: unstructured or diagonal terms, independent residuals."""
    return all(t.structure in FREE for t in fit.design.terms) and fit.model.residual is None


def by_fitted(fit: Fit) -> bool:
    """Whether residual variances depend on the fitted values."""
    residual = fit.model.residual
    return residual is not None and not all(s.covariate for s in residual.spreads)


def fitted(like_this: Fit, design: Design, residual: Residual | None = None) -> Fit:
    """The model of a fit on another design, by the same criterion; no warnings, for the caller judges.

    Parameters
    ----------
    residual : Residual, optional
        The residuals' structure on its rows; where it is left out and the rows are others, it is read from the data.

    Raises
    ------
    DataError
        If it cannot be fitted, or has lost a parameter with the rows.
    """
    from .fit import Fit as FitClass
    from .residuals import Residual as ResidualClass

    old = like_this.model
    if residual is None:
        model = old.with_design(design)
    else:
        model = old.with_residual(ResidualClass(None, ())).with_design(design).with_residual(residual)
    if old.residual is not None and (model.residual is None or model.residual.names() != old.residual.names()):
        raise DataError(f"the rows lack levels that {listing(old.residual.texts())} has in the data")
    if by_fitted(like_this):  # in rounds, as the fit itself: the variances follow the fitted values of each replicate
        assert model.residual is not None
        spreads = tuple(s if s.covariate else replace(s, basis=None) for s in model.residual.spreads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MultilevelWarning)
            return model.with_residual(replace(model.residual, spreads=spreads)).fit(like_this.reml, threads=1)
    engine = model.engine(1)
    optimum = engine.fit(like_this.reml)
    return FitClass(model, optimum, engine.fitted(optimum))


def fitted_rows(like_this: Fit, cases: Cases, parts: list[NDArray[np.intp]]) -> Fit:
    """The model of a fit on groups drawn again or left out."""
    residual = like_this.model.residual
    whole = residual is not None and (residual.serial is None or cases.holds(residual.serial))
    again = residual_of(residual, parts) if residual is not None and whole else None
    return fitted(like_this, cases.design_of(parts), again)


def named(value: Any) -> tuple[tuple[str, ...], Array]:
    """Names and numbers of what a statistic returned: a number, several, or a mapping.

    Raises
    ------
    OptionError
        If it is nothing of the kind.
    """
    try:
        if hasattr(value, "items"):
            pairs = list(value.items())
            return tuple(str(k) for k, _ in pairs), np.array([float(v) for _, v in pairs])
        array = np.asarray([[]] if value is None else value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim > 1 or not array.size:
        raise OptionError(
            f"statistic must return a number, a sequence of numbers, or a dict of name to number; got {value!r:.200}"
        )
    if array.ndim == 0:
        return ("statistic",), array.reshape(1)
    return tuple(f"statistic[{i}]" for i in range(len(array))), array


def _check(n: Any, kind: Any, statistic: Any, threads: Any) -> None:
    for name, value in (("n", n), ("threads", threads)):
        if name == "threads" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise OptionError(f"{name} must be a positive whole number, got {value!r}")
    if kind not in KINDS:
        raise OptionError(f"kind {kind!r} is not known; {nearest(kind, KINDS) or 'allowed are ' + listing(KINDS)}")
    if statistic is not None and not callable(statistic):
        raise OptionError(f"statistic must be a function of a Fit that returns a number or several, got {statistic!r}")


def _root(seed: Any) -> tuple[np.random.SeedSequence, int]:
    """Seed sequence and the whole number that makes it again."""
    if seed is None:
        entropy = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(11))
    elif isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"seed must be a whole number of at least zero, or None; got {seed!r}")
    else:
        entropy = int(seed)
    return np.random.SeedSequence(entropy), entropy


def _group(fit: Fit, group: Any, within: Any, kind: str) -> tuple[str, list[str]]:
    """Factor whose groups are the cases."""
    from .model import check_flag
    from .predict import group_names

    check_flag("within", within)
    if kind != "parametric" and fit.design.known:
        raise OptionError(
            f"kind {kind!r} draws levels as if they were independent, and this model has known covariances between levels; "
            "use kind='parametric'"
        )
    if kind != "case" and (group is not None or within):
        raise OptionError(f"group and within belong to kind='case', not to {kind!r}")
    if not fit.design.terms:
        if kind == "case":
            raise OptionError("kind 'case' draws groups again, and this model has none; use kind='parametric'")
        return "", []
    outer, crossed = outermost(fit.design)
    if group is not None:
        if not isinstance(group, str):
            raise OptionError(f"group must be the name of one grouping factor, got {group!r}")
        return group_names(fit, [group])[0], []
    if crossed and kind == "case":
        return outer, [
            f"The grouping factors are crossed: groups of {outer!r} are drawn again, levels of the others stay as they are, "
            "so that the intervals leave out the variation of drawing those."
        ]
    return outer, []


def _check_serial(fit: Fit, cases: Cases, within: bool) -> None:
    """Rows that follow one another in time are drawn together or not at all."""
    residual = fit.model.residual
    if residual is None or residual.serial is None:
        return
    text = residual.serial.text
    if not cases.holds(residual.serial):
        raise OptionError(
            f"kind 'case' draws groups of {cases.group!r} again, and {text} correlates rows of different ones; use "
            f"kind='parametric', or a group that holds those of {residual.serial.group!r} whole"
        )
    if within:
        raise OptionError(
            f"within draws rows of a group one by one, and {text} says that they follow one another in time; leave within out"
        )
