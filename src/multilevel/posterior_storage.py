"""A posterior in one file, and back: draws, priors, what the sampler said, the design, and the rows on request.

The file is that of a fit (`archive`) with a format of its own; draws are plain arrays of 64-bit numbers, so nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import archive, generalised_storage, priors, storage_structures
from .archive import need
from .storage_rows import design_with_rows, rows_out, shaped

if TYPE_CHECKING:
    from .design import Design
    from .draws import Draws
    from .families import Family
    from .marginal import Coordinate
    from .model import Model
    from .posterior import Posterior
    from .prior_table import Entry

__all__ = ["restore", "save"]

Array = NDArray[Any]

METHODS = ("independent", "nuts", "exact")
KINDS = ("coefficient", "sd", "cor", "sigma", "further", "residual")


def save(posterior: Posterior, path: str | os.PathLike[str], data: bool = False) -> None:
    """Write a posterior to one file that `read` opens; see `Posterior.save`."""
    from .model import check_flag

    check_flag("data", data)
    header, arrays = _pack(posterior, bool(data))
    archive.write(path, header, arrays)


# -- writing --------------------------------------------------------------------------------------------------


def _pack(posterior: Posterior, data: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a posterior."""
    from .design_recipe import to_recipe
    from .recipe_json import encode_value
    from .storage import _check_levels, used_columns

    d, model, kept = posterior.design, posterior.model, posterior.draws_kept
    used = np.zeros(d.n_input, dtype=bool)
    used[d.rows] = True
    arrays: dict[str, Array] = {"used": used, "draws/scalars": kept.scalars, "draws/beta": kept.beta}
    arrays |= {f"draws/b{t}": b for t, b in enumerate(kept.b)}
    arrays |= {f"stats/{name}": _plain(values) for name, values in kept.stats.items()}
    columns: dict[str, Any] = {}
    if data:
        arrays |= rows_out(posterior.rows_of_data())
        arrays |= {f"side_{what}": matrix for what, (matrix, _) in d.sides.items()}
        if d.trials is not None:
            arrays["trials"] = d.trials
        spreads = model.residual.spreads if model.residual is not None else ()
        arrays |= {f"fitted{i}": s.basis for i, s in enumerate(spreads) if not s.covariate and s.basis is not None}
        stand_in: Any = posterior
        columns = archive.pack_columns(model.data, used_columns(stand_in), d.n_input, arrays)
    header: dict[str, Any] = {
        "format": archive.POSTERIOR,
        "family": model.family,
        "generalised": _family_out(model),
        "data": data,
        "columns": columns,
        "formula": d.formula.text,
        "kind": d.kind,
        "missing": d.missing,
        "messages": list(d.messages),
        "recipe": to_recipe(d),
        "known": _known_out(d, arrays),
        "structures": storage_structures.residual_out(model),
        "priors": [[name, _prior_out(prior)] for name, prior in model.priors.items()],
        "entries": [
            {"name": e.name, "kind": e.kind, "prior": _prior_out(e.prior), "source": e.source, "term": e.term,
             "effect": e.effect, "limits": encode_value(list(e.limits)), "typical": e.typical}
            for e in posterior.entries
        ],
        "coordinates": [[c.name, c.kind, c.term, list(c.effects)] for c in kept.coordinates],
        "method": kept.method,
        "stats": list(kept.stats),
        "facts": encode_value(kept.facts),
    }  # fmt: skip
    _check_levels(d, header["recipe"])
    return header, arrays


def _plain(values: Array) -> Array:
    """Statistics in one of the types that the file knows."""
    return np.asarray(values).astype({"b": "|b1", "i": "<i8", "u": "<i8"}.get(values.dtype.kind, "<f8"))


def _family_out(model: Model) -> dict[str, Any] | None:
    family, d = model.distribution, model.design
    if family is None:
        return None
    return {
        "link": family.link, "zero": family.zero, "df": family.df, "power": family.power, "quadrature": model._quadrature,
        "labels": list(d.labels), "sides": {what: list(names) for what, (_, names) in d.sides.items()},
    }  # fmt: skip


def _known_out(d: Design, arrays: dict[str, Array]) -> list[str]:
    """Grouping factors whose levels have a known covariance; its sparse inverse goes into `arrays`."""
    names = [name for name, known in d.known.items() if known is not None]
    for i, name in enumerate(names):
        precision = d.known[name].precision
        arrays |= {
            f"known{i}/ptr": precision.indptr.astype("<i8"),
            f"known{i}/idx": precision.indices.astype("<i8"),
            f"known{i}/values": precision.data.astype("<f8"),
        }
    return names


def _prior_out(prior: Any) -> dict[str, Any]:
    from .recipe_json import encode_value

    return {"type": type(prior).__name__, "values": {f.name: encode_value(getattr(prior, f.name)) for f in fields(prior)}}


# -- reading --------------------------------------------------------------------------------------------------


def restore(header: dict[str, Any], arrays: dict[str, Array]) -> Posterior:
    """A posterior from what its file holds."""
    from .posterior import Posterior

    family = generalised_storage.family_in(header | ({} if header["generalised"] else {"generalised": None}))
    design, data = _design(header, arrays, family)
    found = [(str(name), _prior(saved)) for name, saved in header["priors"]]
    entries = [_entry(saved, design) for saved in header["entries"]]
    coordinates = [_coordinate(saved, design, entries) for saved in header["coordinates"]]
    names = [e.name for e in entries if e.kind == "coefficient"]
    need(names == list(design.names), "the priors disagree with the coefficients")
    draws = _draws(header, arrays, design, coordinates)
    model = _model(header, design, data, family, dict(found))
    if model._residual is not None and data is not None:
        _residual_rows(model, header["structures"], arrays)
    return Posterior(model, draws, entries)


def _design(header: Mapping[str, Any], arrays: Mapping[str, Array], family: Family | None) -> tuple[Design, Any]:
    """The design, with its rows if the file has them, and the data frame."""
    from .design_recipe import from_recipe
    from .formula import parse
    from .storage import _design as without_rows

    design = without_rows(header, arrays, parse(header["formula"]), from_recipe(header["recipe"]))
    if family is not None:
        design = generalised_storage.with_labels(design, header["generalised"], family)
    design = replace(design, known=_known(header["known"], arrays, design))
    need(type(header["data"]) is bool, "it does not say whether it holds the data")
    if not header["data"]:
        return design, None
    design = design_with_rows(design, arrays)
    if family is not None:
        design = generalised_storage.response_rows(design, arrays, family)
    return design, archive.unpack_columns(header["columns"], arrays, design.n_input, design.kind)


def _known(names: list[str], arrays: Mapping[str, Array], design: Design) -> dict[str, Any]:
    from scipy.sparse import csr_array

    from .relatives import KnownCovariance

    levels = {term.group: term.levels for term in design.terms}
    out = {}
    for i, name in enumerate(names):
        need(name in levels, "a known covariance is of no group")
        count = len(levels[name])
        ptr, idx, values = (arrays[f"known{i}/{part}"] for part in ("ptr", "idx", "values"))
        fine = ptr.shape == (count + 1,) and ptr[0] == 0 and bool((np.diff(ptr) >= 0).all()) and ptr[-1] == len(idx)
        need(fine and idx.shape == values.shape == (len(idx),), "a known covariance has a wrong size")
        need(bool(((idx >= 0) & (idx < count)).all() and np.isfinite(values).all()), "a known covariance is out of range")
        out[name] = KnownCovariance.in_order(levels[name], csr_array((values, idx, ptr), shape=(count, count)))
    return out


def _prior(saved: Mapping[str, Any]) -> priors.Prior:
    """A prior, made by its own constructor, which checks its numbers."""
    from .recipe_json import decode_value

    need(saved["type"] in priors.__all__, "a prior is of a newer version")
    made: Any = getattr(priors, saved["type"])
    need(isinstance(made, type) and issubclass(made, priors.Prior) and made is not priors.Prior, "a prior is unknown")
    found = made(**{name: decode_value(value) for name, value in saved["values"].items()})
    assert isinstance(found, priors.Prior)
    return found


def _entry(saved: Mapping[str, Any], design: Design) -> Entry:
    from .prior_table import Entry
    from .recipe_json import decode_value

    term, effect, kind = saved["term"], saved["effect"], saved["kind"]
    need(kind in KINDS and isinstance(saved["name"], str) and isinstance(saved["source"], str), "a parameter is unknown")
    need(type(term) is int and type(effect) is int, "a parameter has no place")
    if kind in ("sd", "cor"):
        inside = 0 <= term < len(design.terms) and -1 <= effect < len(design.terms[term].names)
        need(inside and (effect >= 0 or kind == "cor"), "a parameter is out of range")
    else:
        need(term == -1 and effect >= -1, "a parameter is out of range")
    low, high = (float(v) for v in decode_value(saved["limits"]))
    need(low < high, "the limits of a parameter are wrong")
    typical = saved["typical"]
    need(isinstance(typical, bool), "a prior is of an unknown kind")
    return Entry(saved["name"], kind, _prior(saved["prior"]), saved["source"], term, effect, (low, high), typical)


def _coordinate(saved: list[Any], design: Design, entries: list[Entry]) -> Coordinate:
    from .marginal import Coordinate

    name, kind, term, effects = saved
    need(isinstance(name, str) and kind in KINDS[1:] and type(term) is int, "a drawn parameter is unknown")
    need(all(type(i) is int for i in effects), "a drawn parameter has no place")
    if kind in ("sd", "cor"):
        need(0 <= term < len(design.terms), "a drawn parameter is out of range")
        count = len(design.terms[term].names)
        need(len(effects) == (1 if kind == "sd" else 2) and all(0 <= i < count for i in effects), "an effect is out of range")
    same = [e for e in entries if e.kind == kind and e.term == term and (kind == "cor" or e.name == name)]
    need(len(same) == 1, "the drawn parameters disagree with the priors")
    return Coordinate(name, kind, term, tuple(effects))


def _draws(header: Mapping[str, Any], arrays: Mapping[str, Array], design: Design, coordinates: list[Coordinate]) -> Draws:
    from .draws import Draws
    from .recipe_json import decode_value

    beta = arrays["draws/beta"]
    need(beta.ndim == 3 and min(beta.shape[:2]) > 0, "the draws have a wrong shape")
    shape = beta.shape[:2]
    beta = shaped(arrays, "draws/beta", (*shape, len(design.names)))
    scalars = shaped(arrays, "draws/scalars", (*shape, len(coordinates)))
    b = []
    if "draws/b0" in arrays:
        b = [shaped(arrays, f"draws/b{t}", (*shape, len(v.levels), len(v.names))) for t, v in enumerate(design.terms)]
    need(all(bool(np.isfinite(one).all()) for one in (beta, scalars, *b)), "a draw is no number")
    for t, term in enumerate(design.terms):
        sds = sum(c.kind == "sd" and c.term == t for c in coordinates)
        need(sds in (1, len(term.names)), "the standard deviations of a term are missing")
    stats = {name: arrays[f"stats/{name}"] for name in header["stats"]}
    need(all(one.shape == shape for one in stats.values()), "the statistics of the draws have a wrong shape")
    facts = decode_value(header["facts"])
    need(header["method"] in METHODS and isinstance(facts, dict), "how it was sampled is unknown")
    if header["method"] == "independent":
        need(all(isinstance(facts[n], (int, float)) for n in ("pareto_k", "effective")), "the weights' check is missing")
    return Draws(coordinates, scalars, beta, b, header["method"], stats, facts)


def _model(
    header: Mapping[str, Any], design: Design, data: Any, family: Family | None, given: dict[str, priors.Prior]
) -> Model:
    """The model without a constructor, which starts from rows that a file need not have."""
    from .model import Model
    from .storage import _residual_text

    model = object.__new__(Model)
    model._formula, model._design, model._data, model._engine = design.formula, design, data, None
    model._distribution, model._laplace = family, None
    model._quadrature = generalised_storage.nodes_in(header["generalised"] or {})
    model._residual, model._levels, model._series = storage_structures.residual(header["structures"]), None, {}
    model._residual_text = _residual_text(model._residual)
    model.priors = given
    return model


def _residual_rows(model: Model, saved: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Give the structure of the residuals its rows again."""
    from . import residual_reader

    model._levels = storage_structures.levels_of(saved)
    model._series = residual_reader.columns_of(model._residual_text, model._data)
    found = residual_reader.on_rows(model._residual_text, model._series, model._design, model._levels)
    n = len(model._design.rows)
    spreads = [
        replace(s, basis=shaped(arrays, f"fitted{i}", (n,))) if f"fitted{i}" in arrays else s
        for i, s in enumerate(found.spreads)
    ]
    model._residual = replace(found, spreads=tuple(spreads))
