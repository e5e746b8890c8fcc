"""Posteriors side by side: expected log predictive density of rows left out, differences, stacking weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import tables
from .comparison import Comparison, described
from .errors import DataError
from .loo import GOOD_K
from .stacking import stacking_weights

if TYPE_CHECKING:
    from .loo import Loo
    from .posterior import Posterior

__all__ = ["compared_posteriors"]

SMALL = 4.0  # difference below which models predict alike (Sivula, Magnusson, Matamoros & Vehtari 2020)
FEW_ROWS = 100  # below which the standard error of a difference says little (the same)


def compared_posteriors(
    given: Mapping[str, Posterior], notes: tuple[str, ...], progress: bool | None
) -> Comparison:
    """Posteriors of the same data side by side; see `comparison.compare`."""
    blind = [name for name, posterior in given.items() if posterior.model.design.y is None]
    if blind:
        raise DataError(
            f"{blind[0]!r} was saved without its data, which leaving rows out needs; save it with save(path, data=True)"
        )
    found = {name: posterior.loo(progress) for name, posterior in given.items()}
    loos = dict(sorted(found.items(), key=lambda item: -item[1].elpd))
    columns = _columns(loos)
    first = next(iter(given.values()))
    untrusted = [name for name, posterior in given.items() if not posterior.trust[0]]
    return Comparison(
        models={name: given[name] for name in loos},
        best=next(iter(loos)),
        sentence=_sentence(columns),
        messages=(*notes, *_cautions(columns, untrusted, first.nobs)),
        criterion="LOO",
        _columns=columns,
        _blocks=tuple(_blocks({name: given[name] for name in loos}, columns)),
        _kind=first.design.kind,
    )


def _columns(loos: Mapping[str, Loo]) -> dict[str, NDArray[Any]]:
    every = list(loos.values())
    pointwise = np.column_stack([one.pointwise for one in every])
    apart = pointwise - pointwise[:, :1]
    return {
        "model": np.array(list(loos), dtype=object),
        "elpd": np.array([one.elpd for one in every]),
        "se": np.array([one.se for one in every]),
        "p_loo": np.array([one.p_loo for one in every]),
        "looic": np.array([one.looic for one in every]),
        "elpd_diff": apart.sum(axis=0),
        "se_diff": np.sqrt(len(apart) * apart.var(axis=0)),
        "weight": stacking_weights(pointwise),
        "bad_k": np.array([int((one.pareto_k > GOOD_K).sum()) for one in every], dtype=np.int64),
    }


def _sentence(columns: Mapping[str, NDArray[Any]]) -> str:
    best, second = columns["model"][:2]
    gap, error = abs(float(columns["elpd_diff"][1])), float(columns["se_diff"][1])
    shown = f"difference in elpd {gap:.1f}, standard error {error:.1f}"
    if gap < SMALL:
        return f"{best!r} and {second!r} predict rows left out about equally well ({shown})."
    if gap < 2 * error:
        return f"{best!r} predicts rows left out better than {second!r}, but within two standard errors ({shown})."
    return f"{best!r} predicts rows left out better than {second!r} ({shown})."


def _cautions(columns: Mapping[str, NDArray[Any]], untrusted: list[str], n: int) -> list[str]:
    out = []
    bad = [f"{name!r} ({k})" for name, k in zip(columns["model"], columns["bad_k"].tolist(), strict=True) if k]
    if bad:
        out.append(
            f"Rows with a Pareto k above {GOOD_K}, whose share is not certain: {', '.join(bad)}. They may decide small "
            "differences; leave them out by refitting."
        )
    if untrusted:
        out.append(f"The draws of {', '.join(map(repr, untrusted))} may not be trusted yet; see posterior.trust.")
    if n < FEW_ROWS:
        out.append(f"With {n} rows the standard error of a difference is itself uncertain, and rather too small.")
    return out


def _blocks(given: Mapping[str, Posterior], columns: Mapping[str, NDArray[Any]]) -> list[tables.Block]:
    names = [tables.clean(name) for name in given]
    formulas = [f"  {name}: {described(one.model)}" for name, one in zip(names, given.values(), strict=True)]
    n = next(iter(given.values())).nobs
    head = tables.Block(f"Comparison of {len(names)} posteriors by leave-one-out, {n} rows", notes=tuple(formulas))
    shown = {"elpd": 1, "se": 1, "p_loo": 1, "looic": 1, "elpd_diff": 1, "se_diff": 1, "weight": 3}
    cells = [names, *(tables.fixed_point(columns[name], places) for name, places in shown.items())]
    cells.append([str(k) for k in columns["bad_k"].tolist()])
    header = ("", "elpd", "se", "p_loo", "looic", "difference", "its se", "weight", "bad k")
    return [head, tables.Block("Rows left out one by one:", header, tuple(zip(*cells, strict=True)), "l" + "r" * 8)]
