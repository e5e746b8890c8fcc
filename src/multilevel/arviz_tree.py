"""Posterior draws for other tools: an ArviZ DataTree, a dict of arrays, a frame with a row per draw.

Variables are named as in the tables and as priors address them: a coefficient by its term, then ``sd(schid, Intercept)``,
``cor(schid, Intercept, homework)``, ``sigma``; ``ranef(schid)`` holds the effects of a grouping factor's levels. Only the
tree needs xarray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .frame import like
from .priors import Fixed

if TYPE_CHECKING:
    from .posterior import Posterior

__all__ = ["to_arviz", "to_dict", "to_frame"]

Array = NDArray[Any]

LARGEST = 5e8  # bytes of a group with a value for each draw and row, up to which the tree holds it unasked
WHOLE = ("tree_depth", "n_steps")


@dataclass(frozen=True)
class Variable:
    """Draws of one variable.

    Attributes
    ----------
    dims : tuple of str
        Beyond chain and draw.
    values : (chains, draws, ...) array
    """

    dims: tuple[str, ...]
    values: Array


@dataclass(frozen=True)
class Names:
    """How dimensions are called, so that none bears the name of a variable.

    Attributes
    ----------
    rows : str
        Of the rows used.
    levels, effects : dict
        Grouping factor -> dimension of its levels, of its effects.
    response : str
    """

    rows: str
    levels: dict[str, str]
    effects: dict[str, str]
    response: str


# -- without xarray --------------------------------------------------------------------------------------------


def to_dict(posterior: Posterior) -> dict[str, Array]:
    """See `Posterior.to_dict`."""
    return {name: np.array(v.values) for name, v in variables(posterior).items()}


def to_frame(posterior: Posterior, effects: bool = True) -> Any:
    """See `Posterior.to_frame`."""
    from .model import check_flag

    check_flag("effects", effects)
    kept = posterior.draws_kept
    found = variables(posterior)
    columns: dict[str, Any] = {
        "chain": np.repeat(np.arange(kept.chains), kept.draws),
        "draw": np.tile(np.arange(kept.draws), kept.chains),
    }
    for name, v in found.items():
        if not v.dims:
            columns[name] = v.values.ravel()
    for group, (levels, names) in _factors(posterior).items() if effects else ():
        drawn = found.get(f"ranef({group})")
        if drawn is None:
            continue
        for i, level in enumerate(levels.tolist()):
            for j, effect in enumerate(names):
                columns[f"ranef({group}, {level}, {effect})"] = drawn.values[:, :, i, j].ravel()
    return like(posterior.design.kind, columns)


def variables(posterior: Posterior) -> dict[str, Variable]:
    """Draws by name, in the order of the tables: coefficients, sds and the like, group effects."""
    kept, d = posterior.draws_kept, posterior.design
    names = dimension_names(posterior)
    out: dict[str, Variable] = {}
    taken = {c.name for c in kept.coordinates} | {"chain", "draw"}
    for i, name in enumerate(d.names):
        out[f"b({name})" if name in taken else name] = Variable((), kept.beta[:, :, i])
    for i, c in enumerate(kept.coordinates):
        out[c.name] = Variable((), kept.scalars[:, :, i])
    for group in _factors(posterior) if kept.b else ():
        own = [kept.b[t] for t, term in enumerate(d.terms) if term.group == group]
        dims = (names.levels[group], names.effects[group])
        out[f"ranef({group})"] = Variable(dims, own[0] if len(own) == 1 else np.concatenate(own, axis=3))
    return out


def dimension_names(posterior: Posterior) -> Names:
    """Names of dimensions: a grouping factor's own name for its levels, "obs" for rows, changed where a variable has it."""
    d, response = posterior.design, response_name(posterior.design)
    taken = {"chain", "draw", response, *d.names, *(c.name for c in posterior.draws_kept.coordinates)}
    levels, effects = {}, {}
    for group in _factors(posterior):
        levels[group] = _free(group, taken)
        taken.add(levels[group])
        effects[group] = _free(f"{group}_effect", taken)
        taken.add(effects[group])
    rows = _free("obs", taken | {"weights", "offset", "trials", *levels})
    return Names(rows, levels, effects, response)


def response_name(design: Any) -> str:
    """The response, of counts of successes the column that counts them."""
    text = str(design.response)
    found = re.match(r"\s*cbind\s*\(([^,]*),", text) or re.match(r"([^|]*)\|\s*trials\s*\(", text)
    return found[1].strip() if found else text


def _factors(posterior: Posterior) -> dict[str, tuple[Array, list[str]]]:
    """Grouping factor -> its levels and the effects of all its terms."""
    out: dict[str, tuple[Array, list[str]]] = {}
    for term in posterior.design.terms:
        levels, names = out.setdefault(term.group, (np.asarray(term.levels), []))
        names.extend(term.names)
    return out


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


# -- with xarray -----------------------------------------------------------------------------------------------


def to_arviz(
    posterior: Posterior, log_likelihood: bool | None = None, posterior_predictive: bool | None = None, seed: Any = 0
) -> Any:
    """See `Posterior.to_arviz`."""
    from .model import check_flag

    xarray = _xarray()
    for name, flag in (("posterior_predictive", posterior_predictive), ("log_likelihood", log_likelihood)):
        if flag is not None:
            check_flag(name, flag)
    names, kept = dimension_names(posterior), posterior.draws_kept
    coords = _coordinates(posterior, names)
    groups: dict[str, dict[str, Variable]] = {"posterior": variables(posterior)}
    if kept.stats:
        groups["sample_stats"] = _statistics(posterior)
    by_row = _by_row(posterior, log_likelihood, posterior_predictive, seed)
    groups |= {group: {names.response: Variable((names.rows,), v)} for group, v in by_row.items()}
    made = {}
    for group, found in groups.items():
        data = {_safe(n): (("chain", "draw", *v.dims), v.values) for n, v in found.items()}
        made[f"/{group}"] = xarray.Dataset(data, {n: coords[n] for n in _used(found, ("chain", "draw"))})
    for group, columns in _data(posterior, names).items():
        data = {_safe(n): ((_safe(names.rows),), v) for n, v in columns.items()}
        made[f"/{group}"] = xarray.Dataset(data, {_safe(names.rows): coords[_safe(names.rows)]})
    if posterior.design.labels and "/observed_data" in made:
        made["/observed_data"][_safe(names.response)].attrs["categories"] = [str(v) for v in posterior.design.labels]
    made["/"] = xarray.Dataset(attrs=_attributes(posterior))
    made["/posterior"].attrs |= _attributes(posterior)
    return xarray.DataTree.from_dict(made, name="multilevel")


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise OptionError(
            "draws as a DataTree need the package xarray, which is not installed: pip install 'multilevel[bayes]' (with "
            "ArviZ) or pip install xarray; to_dict() and to_frame() give the draws without it"
        ) from None
    if not hasattr(xarray, "DataTree"):
        raise OptionError(
            f"draws as a DataTree need xarray 2024.11 or later, not {xarray.__version__}: pip install -U xarray; to_dict() "
            "and to_frame() give the draws without it"
        )
    return xarray


def _safe(name: str) -> str:
    """A name that a tree may hold: a slash would lead to another group."""
    return name.replace("/", "÷")


def _used(found: dict[str, Variable], first: tuple[str, ...]) -> list[str]:
    return [_safe(n) for n in dict.fromkeys([*first, *(dim for v in found.values() for dim in v.dims)])]


def _coordinates(posterior: Posterior, names: Names) -> dict[str, Array]:
    kept = posterior.draws_kept
    out: dict[str, Array] = {"chain": np.arange(kept.chains), "draw": np.arange(kept.draws)}
    for group, (levels, effects) in _factors(posterior).items():
        out[_safe(names.levels[group])] = _labels(levels)
        out[_safe(names.effects[group])] = _labels(np.array(effects, dtype=object))
    out[_safe(names.rows)] = np.asarray(posterior.design.rows)
    return out


def _labels(values: Array) -> Array:
    """Labels as numbers or text, which every file format takes."""
    values = np.asarray(values)
    return values.astype(str) if values.dtype == object else values


def _statistics(posterior: Posterior) -> dict[str, Variable]:
    kept = posterior.draws_kept
    out: dict[str, Variable] = {}
    for name, v in kept.stats.items():
        kind: Any = bool if name == "diverging" else np.int64 if name in WHOLE else np.float64
        out[name] = Variable((), np.asarray(v).astype(kind))
    if (steps := kept.facts.get("step_size")) is not None:
        own = np.asarray(steps, dtype=np.float64)[:, None]
        out["step_size"] = Variable((), np.tile(own, (1, kept.draws)))
    return out


def _by_row(posterior: Posterior, likelihood: bool | None, predictive: bool | None, seed: Any) -> dict[str, Array]:
    """Groups with a value for each draw and row."""
    from .predict import generator
    from .row_draws import log_likelihood, new_responses

    kept, d = posterior.draws_kept, posterior.design
    out: dict[str, Array] = {}
    known = d.y is not None and (bool(kept.b) or not d.terms)
    unasked = known and 8.0 * kept.chains * kept.draws * len(d.rows) <= LARGEST
    if unasked if likelihood is None else likelihood:
        out["log_likelihood"] = log_likelihood(posterior)
    if unasked if predictive is None else predictive:
        out["posterior_predictive"] = new_responses(posterior, generator(seed))
    return out


def _data(posterior: Posterior, names: Names) -> dict[str, dict[str, Array]]:
    """Groups with a value for each row: the response, and what it was explained by."""
    d = posterior.design
    if d.y is None:
        return {}
    columns: dict[str, Array] = {}
    for i, name in enumerate(d.names):
        if name != "Intercept":
            columns[name] = d.X[:, i]
    for what, values in (("weights", d.weights), ("offset", d.offset), ("trials", d.trials)):
        if values is not None and not (what == "trials" and posterior.model.family == "ordinal"):
            columns[_free(what, columns)] = values
    for term in d.terms:
        if term.group != names.rows:
            columns.setdefault(_free(term.group, d.names), _labels(np.asarray(term.levels))[term.codes])
    out = {"observed_data": {names.response: np.asarray(d.y)}}
    return out | ({"constant_data": columns} if columns else {})


def _attributes(posterior: Posterior) -> dict[str, Any]:
    """Facts about the draws, as numbers and text."""
    from . import __version__

    kept = posterior.draws_kept
    out: dict[str, Any] = {
        "inference_library": "multilevel",
        "inference_library_version": __version__,
        "creation_library": "multilevel",
        "creation_library_version": __version__,
        "creation_library_language": "Python",
        "modeling_interface": "multilevel",
        "formula": posterior.formula,
        "family": posterior.model.family,
        "sampler": kept.method,
        "sampling_time": float(kept.facts.get("seconds", float("nan"))),
        "verdict": posterior.trust[1],
    }
    out |= {name: kept.facts[name] for name in ("pareto_k", "effective") if name in kept.facts}
    if isinstance(kept.facts.get("warmup"), int) and kept.method == "nuts":
        out["tuning_steps"] = kept.facts["warmup"]
    held = [e.name for e in posterior.entries if isinstance(e.prior, Fixed)]
    return out | ({"held": held} if held else {})
