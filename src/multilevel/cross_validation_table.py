"""What cross-validation found: scores with standard errors, by model, group, fold and row."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, listing, nearest
from .frame import like

if TYPE_CHECKING:
    from .cross_validation_fits import Scores
    from .cross_validation_folds import Folds
    from .model import Model

__all__ = ["CrossValidation", "FoldResult", "mean_of"]

Array = NDArray[np.float64]

WIDTH = 100  # characters of a printed line
MEASURES = ("rmse", "mae", "log_score", "crps")
SHOWN = {
    "rmse": "RMSE", "mae": "MAE", "log_score": "log score", "crps": "CRPS", "joint_log_score": "log score per group",
}  # fmt: skip
FEW = 5  # differences, below which their standard error says next to nothing
MORE_IS_BETTER = ("log_score", "joint_log_score")


@dataclass(frozen=True)
class FoldResult:
    """One model in one fold.

    Attributes
    ----------
    model : str
    fold : int
    at : (m,) int array
        Rows left out, by their place among those used.
    known : (m,) bool array
        Whether the model predicts each.
    scores : Scores or None
        Of those it predicts.
    n_fitted : int
    converged, singular : bool
    failure : str
        Why there is no fit, where there is none.
    """

    model: str
    fold: int
    at: NDArray[np.int64]
    known: NDArray[np.bool_]
    scores: Scores | None
    n_fitted: int
    converged: bool
    singular: bool
    failure: str = ""


@dataclass(frozen=True)
class CrossValidation:
    """Scores of models on rows they were fitted without. Made by `multilevel.cross_validate`.

    Attributes
    ----------
    names : tuple of str
        Models, in the order given.
    folds : Folds
        What was left out together.
    model : Model
        The first model, on all rows.
    results : tuple of FoldResult
        By fold, then model.
    """

    names: tuple[str, ...]
    folds: Folds
    model: Model
    results: tuple[FoldResult, ...]

    # -- per row and unit ---------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> dict[str, dict[str, Array]]:
        """Model -> column -> (n,) values, NaN where a row was not scored."""
        n = len(self.folds.rows)
        names = ("observed", "prediction", "log_score", "crps", "below", "through")
        out = {model: {name: np.full(n, np.nan) for name in names} for model in self.names}
        for one in self.results:
            if one.scores is not None:
                for name in names:
                    out[one.model][name][one.at[one.known]] = getattr(one.scores, name)
        for columns in out.values():
            error = columns["observed"] - columns["prediction"]
            columns["squared"], columns["absolute"] = error**2, np.abs(error)
        return out

    @cached_property
    def _joint(self) -> dict[str, Array]:
        """Model -> (units,) joint log scores, NaN where not all rows of one were scored."""
        out = {model: np.full(len(self.folds.units), np.nan) for model in self.names}
        for one in self.results:
            for unit, value in ({} if one.scores is None else one.scores.joint).items():
                out[one.model][unit] = value
        return out

    def _mean(self, influence: Array, where: NDArray[np.bool_]) -> tuple[float, float]:
        """Mean over some rows and its standard error, by groups where groups were left out."""
        values, unit = influence[where], self.folds.unit[where]
        n = len(values)
        if not n:
            return float("nan"), float("nan")
        mean = float(values.mean())
        rest = values - mean
        clusters = np.bincount(unit, rest)[np.unique(unit)] if (unit >= 0).all() else rest
        count = len(clusters)
        if count < 2:
            return mean, float("nan")
        return mean, float(np.sqrt(count / (count - 1) * (clusters @ clusters)) / n)

    def _measure(self, model: str, measure: str, where: NDArray[np.bool_]) -> tuple[float, float, Array]:
        """A score over some rows with its standard error, and what each row adds to it (of a root, to first order)."""
        column = {"rmse": "squared", "mae": "absolute"}.get(measure, measure)
        values = self._rows[model][column]
        mean, error = self._mean(values, where)
        if measure != "rmse":
            return mean, error, values
        root = float(np.sqrt(mean))
        scale = 2 * root if root > 0 else float("nan")
        return root, error / scale, values / scale

    def _scored(self, model: str, measure: str) -> NDArray[np.bool_]:
        column = {"rmse": "squared", "mae": "absolute"}.get(measure, measure)
        return np.asarray(~np.isnan(self._rows[model][column]))

    # -- tables ---------------------------------------------------------------------------------------------------------

    def summary(self) -> Any:
        """Scores of each model.

        Returns
        -------
        frame
            model, rows (scored), then rmse, mae, log_score, crps, each with its standard error as ``<score>_se``: means over
            rows (rmse: the root of one). Where groups were left out also groups (scored as a whole), joint_log_score and
            joint_log_score_se, means over groups. More is better of log scores, less of the others. Rows that a model cannot
            predict do not count: compare models that predict unlike rows by `compare`.
        """
        return self._frame(self._summary())

    def _summary(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"model": [], "rows": []}
        for model in self.names:
            columns["model"].append(model)
            columns["rows"].append(int(self._scored(model, "log_score").sum()))
            for measure in MEASURES:
                value, error, _ = self._measure(model, measure, self._scored(model, measure))
                columns.setdefault(measure, []).append(value)
                columns.setdefault(f"{measure}_se", []).append(error)
            if self.folds.units:
                found = self._joint[model][~np.isnan(self._joint[model])]
                columns.setdefault("groups", []).append(len(found))
                value, error = mean_of(found)
                columns.setdefault("joint_log_score", []).append(value)
                columns.setdefault("joint_log_score_se", []).append(error)
        return columns

    def compare(self, model: str | None = None) -> Any:
        """How much better one model predicts than each of the others, on the rows that both predict.

        Parameters
        ----------
        model : str, optional
            Default: the first.

        Returns
        -------
        frame
            model, other, score, advantage, std_error, n. The advantage is positive where `model` is better, whichever way
            the score goes; its standard error is that of paired differences. n: rows, of joint_log_score groups.

        Raises
        ------
        OptionError
            If there is no such model.
        """
        model = self.names[0] if model is None else model
        if model not in self.names:
            raise OptionError(
                f"there is no model {model!r} here; {nearest(model, self.names) or 'there are ' + listing(self.names)}"
            )
        columns: dict[str, list[Any]] = {n: [] for n in ("model", "other", "score", "advantage", "std_error", "n")}
        for other in (name for name in self.names if name != model):
            for measure in (*MEASURES, *(("joint_log_score",) if self.folds.units else ())):
                found = self._advantage(model, other, measure)
                for name, value in zip(columns, (model, other, measure, *found), strict=True):
                    columns[name].append(value)
        return self._frame(columns)

    def _advantage(self, model: str, other: str, measure: str) -> tuple[float, float, int]:
        sign = 1.0 if measure in MORE_IS_BETTER else -1.0
        if measure == "joint_log_score":
            gain = self._joint[model] - self._joint[other]
            gain = gain[~np.isnan(gain)]
            return *mean_of(gain), len(gain)
        both = self._scored(model, measure) & self._scored(other, measure)
        mine, _, each = self._measure(model, measure, both)
        theirs, _, their_each = self._measure(other, measure, both)
        return sign * (mine - theirs), self._mean(each - their_each, both)[1], int(both.sum())

    def by_row(self) -> Any:
        """Every row and model.

        Returns
        -------
        frame
            model, row (position in the data), fold, group, observed, prediction, log_score, crps, pit: the predictive
            probability of less than what was observed, and half of that of exactly so; even between 0 and 1 where
            predictive distributions are right.
        """
        f = self.folds
        held = np.flatnonzero(f.fold >= 0)
        parts: dict[str, list[Any]] = {"model": [], "row": [], "fold": []}
        for model in self.names:
            parts["model"] += [model] * len(held)
            parts["row"] += f.rows[held].tolist()
            parts["fold"] += [f.labels[i] for i in f.fold[held]]
            if f.units and f.what != "folds":
                parts.setdefault("group", []).extend(f.units[i] for i in f.unit[held])
            for name in ("observed", "prediction", "log_score", "crps"):
                parts.setdefault(name, []).extend(self._rows[model][name][held].tolist())
            pit = (self._rows[model]["below"] + self._rows[model]["through"]) / 2
            parts.setdefault("pit", []).extend(pit[held].tolist())
        return self._frame(parts)

    def by_group(self) -> Any:
        """Every left-out group and model: model, group, rows, rmse, mae, log_score, crps (means over rows), joint_log_score.

        Raises
        ------
        OptionError
            Where rows were left out one by one.
        """
        f = self.folds
        if not f.units:
            raise OptionError("rows were left out one by one, so groups have no joint score; use leave='groups', or by_row()")
        columns: dict[str, list[Any]] = {"model": [], "group": [], "rows": []}
        for model in self.names:
            for unit, label in enumerate(f.units):
                own = f.unit == unit
                self._scores_on(columns, model, own)
                for name, value in (("model", model), ("group", label), ("rows", int(own.sum()))):
                    columns[name].append(value)
                columns.setdefault("joint_log_score", []).append(float(self._joint[model][unit]))
        return self._frame(columns)

    def by_fold(self) -> Any:
        """Every fold and model: model, fold, fitted and left_out (rows), rmse, mae, log_score, crps, converged, singular."""
        names = ("model", "fold", "fitted", "left_out")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for one in self.results:
            own = np.zeros(len(self.folds.rows), dtype=bool)
            own[one.at] = True
            for name, value in zip(names, (one.model, self.folds.labels[one.fold], one.n_fitted, len(one.at)), strict=True):
                columns[name].append(value)
            self._scores_on(columns, one.model, own)
            columns.setdefault("converged", []).append(one.converged)
            columns.setdefault("singular", []).append(one.singular)
        return self._frame(columns)

    def _scores_on(self, columns: dict[str, list[Any]], model: str, own: NDArray[np.bool_]) -> None:
        for measure in MEASURES:
            value = self._measure(model, measure, own & self._scored(model, measure))[0]
            columns.setdefault(measure, []).append(value)

    def _frame(self, columns: dict[str, list[Any]]) -> Any:
        return like(self.model.design.kind, {name: _array(values) for name, values in columns.items()})

    # -- pictures ------------------------------------------------------------------------------------------------------

    def plot(self, kind: str = "differences", *, score: str | None = None, group: str | None = None, ax: Any = None) -> Any:
        """Draw what was found.

        Parameters
        ----------
        kind : "differences", "folds", "groups" or "calibration"
            Scores of the models with their standard errors, and differences to the best with those of paired differences;
            the score of each fold; the log score of each group under each model, and what the first gains on the others
            against the number of rows; how often observed values fell into each part of their predictive distribution
            (Czado, Gneiting & Held 2009, Biometrics 65, 1254), which is flat where these are right.
        score : str, optional
            Of "differences" and "folds": "rmse", "mae", "log_score", "crps", "joint_log_score"; default the joint log score
            of what was left out together (of folds the log score), else the log score.
        group : str, optional
            Of "groups", where rows were left out: the grouping factor of the first model; default the outermost.
        ax : Axes or array of Axes, optional
            As many as there are panels: two; one; two; one for each model with scores.

        Returns
        -------
        Axes or array of Axes

        Raises
        ------
        OptionError
            For another kind or score, and models without any group.
        """
        from .cross_validation_plots import draw

        return draw(self, kind, score, group, ax)

    # -- in words -------------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences on fits that did not converge or are singular, and on rows that a model cannot predict."""
        out = []
        for model in self.names:
            own = [one for one in self.results if one.model == model]
            failed = [one.failure for one in own if one.failure]
            if failed:
                out.append(f"{model!r} has no fit in {len(failed)} of {len(own)} folds: {failed[0]}")
            lost = sum(int((~one.known).sum()) for one in own if not one.failure)
            if lost:
                total = sum(len(one.at) for one in own)
                out.append(
                    f"{model!r} cannot predict {lost} of the {total} rows left out: a level of theirs was not fitted, or "
                    "their coefficients were not determined."
                )
            blank = sum(int(one.known.sum()) for one in own) - int(self._scored(model, "log_score").sum())
            if blank:
                out.append(f"{model!r} predicts {blank} rows whose log score is not a number; they count in no mean.")
            bad = sum(not one.converged and not one.failure for one in own)
            if bad:
                out.append(f"{model!r} did not converge in {bad} of {len(own)} folds; see by_fold().")
            edge = sum(one.singular for one in own)
            if edge:
                out.append(f"{model!r} has a variance of zero in {edge} of {len(own)} folds, which is no error.")
        never = int((self.folds.fold < 0).sum())
        if never and self.folds.train is not None:
            out.append(f"{never} of the {len(self.folds.fold)} rows are in no test set, so that they have no score.")
        serial = self.model.residual is not None and self.model.residual.serial is not None
        if serial and not self.folds.units:
            out.append("Correlation of a left-out row with its neighbours' residuals is not used in predicting it.")
        return tuple(out)

    def __repr__(self) -> str:
        notes = [f"Note: {one}" for one in self.messages]
        said = [textwrap.fill(one, WIDTH, break_on_hyphens=False) for one in (*self._marks(), *self._verdicts(), *notes)]
        return "\n".join([*self._title(), "", *_text(*self._cells()), *said])

    def _repr_html_(self) -> str:
        from html import escape

        header, body = self._cells()
        head = "".join(f"<th>{escape(one)}</th>" for one in header)
        rows = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in body)
        above = "".join(f"<p>{escape(one)}</p>" for one in self._title())
        below = "".join(f"<p>{escape(one)}</p>" for one in (*self._marks(), *self._verdicts(), *self.messages))
        return f"{above}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{below}"

    def _title(self) -> list[str]:
        f = self.folds
        held = int((f.fold >= 0).sum())
        what = {"rows": f"{held} rows left out", "folds": f"{held} rows left out by the labels given"}.get(
            f.what, f"{len(f.units)} groups{f' of {f.what}' if f.what != 'groups' else ''} left out"
        )
        return [f"Cross-validation: {what}, in {f.count} fold{'s' * (f.count != 1)}; {len(f.rows)} rows in all"]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the printed table: scores with their standard errors in brackets."""
        measures = [*MEASURES, *(["joint_log_score"] if self.folds.units else [])]
        columns = self._summary()
        body = []
        for i, model in enumerate(self.names):
            name = f"{model} *" if model in self._partly else model
            body.append([name, *(_with_error(columns[m][i], columns[f"{m}_se"][i]) for m in measures)])
        shown = {**SHOWN, "joint_log_score": f"log score per {self._per}"}
        return ["model", *(shown[m] for m in measures)], body

    @cached_property
    def _partly(self) -> dict[str, int]:
        """Models with scores of some of the rows left out, and of how many."""
        held = int((self.folds.fold >= 0).sum())
        found = {model: int(self._scored(model, "log_score").sum()) for model in self.names}
        return {model: n for model, n in found.items() if 0 < n < held}

    def _marks(self) -> list[str]:
        """What the mark in the table says."""
        held = int((self.folds.fold >= 0).sum())
        return [
            f"* over the {n} of {held} rows that {model!r} predicts, so not to be set against lines over all rows; "
            "what follows, and compare(), is over the rows that both predict."
            for model, n in self._partly.items()
        ]

    @property
    def _per(self) -> str:
        """What verdicts count."""
        return "row" if not self.folds.units else "fold" if self.folds.what == "folds" else "group"

    def _verdicts(self) -> list[str]:
        """A sentence for each other model: which predicts better, by how much."""
        measure = "joint_log_score" if self.folds.units else "log_score"
        per = self._per
        most = len(self.folds.units) or int((self.folds.fold >= 0).sum())
        out = []
        for other in self.names[1:]:
            gain, error, n = self._advantage(self.names[0], other, measure)
            if not n:
                out.append(f"{other!r} predicts none of what was left out, so {self.names[0]!r} cannot be compared with it.")
                continue
            better, worse = (self.names[0], other) if gain >= 0 else (other, self.names[0])
            sure = f"{abs(gain) / error:.1f} standard errors" if error > 0 else "no standard error"
            over = f", over the {n} of {most} {per}s that both predict" if n < most else ""
            verdict = "predicts better than" if _clear(gain, error, n) else "is not clearly better than"
            if n < FEW:
                sure = f"{n} {per}{'s' * (n != 1)} are too few to tell" if n > 1 else f"a single {per} cannot tell"
            out.append(f"{better!r} {verdict} {worse!r}: log score per {per} larger by {abs(gain):.3g} ({sure}){over}.")
        return ["", *out] if out else []


def mean_of(values: Array) -> tuple[float, float]:
    """Mean of independent scores, and its standard error."""
    n = len(values)
    if not n:
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def _array(values: list[Any]) -> NDArray[Any]:
    if values and all(isinstance(one, (bool, int, float)) for one in values):
        return np.asarray(values)
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _clear(gain: float, error: float, n: int) -> bool:
    """Whether a mean of n differences is beyond chance, as far as its standard error tells: Student's t, at 5 %."""
    from scipy.special import stdtrit

    return bool(n >= FEW and error > 0 and abs(gain) > stdtrit(n - 1, 0.975) * error)


def _with_error(value: float, error: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.4g}" + ("" if np.isnan(error) else f" ({error:.2g})")


def _text(header: list[str], body: list[list[str]]) -> list[str]:
    rows = [header, *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return ["  ".join(line) for line in lines]
