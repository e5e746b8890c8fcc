"""A fitted model in one small file, and back.

The cross-products stand in for the rows: they are a few kilobytes and give back standard errors, degrees of
freedom, conditional variances and intervals. `archive` is the file itself; here is what stands in it. What is
read is held against the rest of the file before it is used, so that no file can do more than be refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import archive, generalised_storage, posterior_storage, storage_structures
from .archive import need
from .errors import DataError, FileError
from .storage_rows import rows_out, shaped, with_rows

if TYPE_CHECKING:
    from .crossprod import CrossProducts, Group
    from .design import Design, Term
    from .design_recipe import Recipe
    from .fit import Fit
    from .formula import Formula
    from .model import Model
    from .optimise import Evidence
    from .posterior import Posterior
    from .reml import Engine, Optimum
    from .residual_reader import ResidualText
    from .residuals import Residual

__all__ = ["read", "save"]

Array = NDArray[Any]

COUNTS = ("n", "p", "sum_log_w", "yy", "levels", "k")  # the scalars among the exported cross-products


def save(fit: Fit, path: str | os.PathLike[str], data: bool = False) -> None:
    """Write a fit to one small file that `read` opens.

    Parameters
    ----------
    fit : Fit
    path : str or path
        Replaced only once the new file is complete.
    data : bool
        Keep the rows too, so that fitted values, residuals, simulations and refits work after reading.

    Raises
    ------
    FileError
        When the file cannot be written.
    DataError
        When a level is of a type that the file cannot hold.
    """
    from .model import check_flag

    check_flag("data", data)
    header, arrays = _pack(fit, bool(data))
    archive.write(path, header, arrays)


def read(path: str | os.PathLike[str]) -> Fit | Posterior | Any:
    """Open a fit written by `Fit.save`, a posterior by `Posterior.save` or a classifier by `TaxonomyClassifier.save`.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Fit, Posterior, TaxonomyClassifier or sklearn.pipeline.Pipeline
        Prints, predicts and gives every table; what needs the rows works if saved with ``data=True``. A pipeline from
        texts (or numbers) to classes where ``multilevel classify train`` wrote the file.

    Raises
    ------
    FileError
        When there is no such file, or it is damaged, foreign, or of a newer version.
    """
    name = archive.path_text(path)
    with archive.open_regular(name) as file:
        ours = archive.is_ours(file)
        if not ours:
            what = "is empty" if ours is None else "is no fit or posterior saved by multilevel"
            raise FileError(f"{name!r} {what}; a fit is saved with fit.save(path)")
        return archive.restored(file, name, lambda header, arrays: _restorer(header["format"])(header, arrays))


def _restorer(kind: str) -> Callable[[dict[str, Any], dict[str, Array]], Any]:
    if kind == archive.CLASSIFIER:
        from .taxonomy.storage import restore

        return restore
    return posterior_storage.restore if kind == archive.POSTERIOR else _restore


# -- writing ---------------------------------------------------------------------------------------


def _pack(fit: Fit, data: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a fit."""
    from . import _core
    from .design_recipe import to_recipe
    from .recipe_json import encode_value

    design, optimum, blocks = fit.design, fit.optimum, fit.engine.blocks
    core = _core.export_blocks(blocks.core)
    used = np.zeros(design.n_input, dtype=bool)
    used[design.rows] = True
    arrays = {
        "used": used,
        "theta": optimum.theta,
        "beta": optimum.beta,
        "vcov": optimum.vcov,
        "x_basis": blocks.x_basis,
        "shift": blocks.shift,
    }
    for t, (factor, modes) in enumerate(zip(optimum.lambdas, optimum.b, strict=True)):
        arrays |= {f"lambda{t}": factor, f"b{t}": modes}
    for f, (group, root) in enumerate(zip(blocks.groups, optimum.engine_lambdas, strict=True)):
        arrays |= {f"basis{f}": group.basis, f"engine_lambda{f}": root}
    structures = storage_structures.pack(fit, arrays)
    generalised = generalised_storage.pack(fit, data, arrays)
    arrays |= {f"core/{name}": _whole(name, value) for name, value in core.items() if name not in COUNTS}
    columns: dict[str, Any] = {}
    if data:
        arrays |= rows_out(fit.rows_of_data())
        columns = archive.pack_columns(fit.model._data, used_columns(fit), design.n_input, arrays)
    header: dict[str, Any] = {
        "family": fit.model.family,
        "data": data,
        "columns": columns,
        "formula": design.formula.text,
        "kind": design.kind,
        "missing": design.missing,
        "messages": list(design.messages),
        "optimum": {
            "reml": optimum.reml,
            "criterion": optimum.criterion,
            "sigma": optimum.sigma,
            "evidence": {name: encode_value(value) for name, value in asdict(optimum.evidence).items()},
        },
        "engine": {
            "groups": [list(group.terms) for group in blocks.groups],
            "scale": blocks.scale,
            "unit": blocks.unit,
            "log_det": blocks.log_det,
            **{name: core[name] for name in COUNTS},
        },
        "recipe": to_recipe(design),
        "structures": structures,
        **({} if generalised is None else {"generalised": generalised}),
    }
    _check_levels(design, header["recipe"])
    return header, arrays


def _whole(name: str, value: Array) -> Array:
    """Row pointers and indices as the whole numbers they are."""
    return value.astype({"ptr": "<i8", "idx": "<i4"}.get(name[:3], "<f8"))


def used_columns(fit: Fit) -> list[str]:
    """Names of the columns of the data that the model used, as augment() and the plots show them."""
    from .expressions import analyse

    design = fit.design
    names = [*analyse(design.response, response=True).columns, *design.remake.infos]
    names += list(fit.model._residual_text.columns())
    names += [name for term in design.terms for name in term.columns]
    return names + ([design.remake.offset_column] if design.remake.offset_column else [])


def _check_levels(design: Design, described: Mapping[str, Any]) -> None:
    """Refuse levels that would come back as something else than they were."""
    from .design_recipe import from_recipe

    back = from_recipe(described)
    mine = {name: info.levels for name, info in design.remake.infos.items() if info.levels is not None}
    theirs = {name: info.levels or [] for name, info in back.infos.items()}
    for one, other in zip(design.remake.terms, back.terms, strict=True):
        for name, labels, again in zip(one.grouping.columns, one.grouping.labels, other.grouping.labels, strict=True):
            mine[name], theirs[name] = labels.tolist(), again.tolist()
    for name, levels in mine.items():
        for label, again in zip(levels, theirs[name], strict=True):
            if label != again:
                raise DataError(
                    f"the levels of {name!r} are of type {type(label).__name__} (such as {str(label)!r}), "
                    "which a saved fit cannot hold; convert them to text or numbers before fitting"
                )


# -- reading -------------------------------------------------------------------------------------


def _restore(header: dict[str, Any], arrays: dict[str, Array]) -> Fit:
    """A fit from what its file holds."""
    from .crossprod import default_threads
    from .design_recipe import from_recipe
    from .fit import Fit
    from .formula import parse
    from .generalised import GeneralisedFit
    from .laplace_working import WorkingEngine
    from .model import Model
    from .reml import Engine

    family, generalised = generalised_storage.family_in(header), header.get("generalised", {})
    design = _design(header, arrays, parse(header["formula"]), from_recipe(header["recipe"]))
    if family is not None:
        design = generalised_storage.with_labels(design, generalised, family)
    blocks = _blocks(header["engine"], arrays, design)
    saved = header.get("structures")
    residual = storage_structures.residual(saved)
    optimum = _optimum(header["optimum"], arrays, blocks)
    if family is not None:
        optimum = generalised_storage.with_parameters(optimum, generalised, arrays)
    else:
        optimum = replace(optimum, residual=storage_structures.parameters(arrays, residual))
    core = {name.removeprefix("core/"): value for name, value in arrays.items() if name.startswith("core/")}
    levels = {term.group: term.levels for term in design.terms}
    design = replace(design, known=storage_structures.known(core, blocks, levels))
    data = None
    need(type(header["data"]) is bool, "it does not say whether it holds the data")
    if header["data"]:
        design, rows = with_rows(design, arrays, blocks)
        if family is not None:
            design, rows = generalised_storage.with_response(design, rows, generalised, arrays, family)
        blocks = replace(blocks, rows=rows)
        data = archive.unpack_columns(header["columns"], arrays, design.n_input, design.kind)
    engine = (Engine if family is None else WorkingEngine).of(blocks, default_threads())
    model = object.__new__(Model)  # its constructor starts from rows, which a saved fit need not have
    model._formula, model._design, model._data, model._engine = design.formula, design, data, engine
    model._distribution, model._laplace = family, None
    model._quadrature = generalised_storage.nodes_in(generalised)
    model._residual, model._residual_text, model._levels = residual, _residual_text(residual), None
    model._series = {}
    if family is not None:
        return generalised_storage.finished(GeneralisedFit(model, optimum, engine), generalised, arrays)
    if saved is not None and data is not None:
        engine = _with_structures(model, optimum, saved)
    fit = Fit(model, optimum, engine)
    if saved is not None:
        fit.__dict__["curvature"] = storage_structures.facts(arrays, blocks.p)
    return fit


def _residual_text(residual: Residual | None) -> ResidualText:
    from .residual_reader import read

    if residual is None:
        return read(None, None)
    spreads = [s.text for s in residual.spreads]
    return read(None if residual.serial is None else residual.serial.text, spreads or None)


def _with_structures(model: Model, optimum: Optimum, saved: Mapping[str, Any]) -> Engine:
    """The engine of a model whose rows are there again, at the optimum; the model's residuals get their rows."""
    from . import residual_reader
    from .fit import Fit
    from .structured import StructuredEngine

    if model._residual is not None:
        model._levels = storage_structures.levels_of(saved)
        model._series = residual_reader.columns_of(model._residual_text, model._data)
        model._residual = residual_reader.on_rows(model._residual_text, model._series, model._design, model._levels)
        if model._residual.iterated:
            assert model._engine is not None
            fitted = Fit(model, optimum, model._engine)._eta[1]
            model._residual = model._residual.with_fitted(fitted)
    engine = StructuredEngine(model._design, model._residual)
    model._engine = engine
    return engine.fitted(optimum)


def _design(header: Mapping[str, Any], arrays: Mapping[str, Array], formula: Formula, recipe: Recipe) -> Design:
    """The design without its rows: y, X, codes and Z are None."""
    from .design import Design

    _check_recipe(recipe)
    kept, names = recipe.kept.tolist(), recipe.all_names
    need(
        kept == sorted(set(kept)) and all(0 <= i < len(names) for i in kept),
        "the kept columns are out of range",
    )
    need(all(isinstance(name, str) for name in names), "a column name is no text")
    used, missing = arrays["used"], header["missing"]
    need(used.ndim == 1 and used.dtype == bool, "the marks of used rows are of another type")
    need(
        all(isinstance(count, int) for count in missing.values()),
        "the counts of missing values are no numbers",
    )
    kind = header["kind"]
    need(kind in ("pandas", "polars", "pyarrow", "dict"), f"unknown kind of frame {kind!r}")
    if kind in ("polars", "pyarrow") and find_spec(kind) is None:
        kind = "pandas"  # the reader does not have the writer's library
    none: Any = None
    return Design(
        formula,
        formula.response,
        none,
        none,
        tuple(names[i] for i in kept),
        tuple(name for i, name in enumerate(names) if i not in set(kept)),
        names,
        _terms(formula, recipe),
        None,
        None,
        np.flatnonzero(used),
        len(used),
        dict(missing),
        kind,
        tuple(str(message) for message in header["messages"]),
        recipe,
    )


def _check_recipe(recipe: Recipe) -> None:
    """Types that would otherwise show only when new rows are predicted."""
    texts = [recipe.fixed, *recipe.offsets, *recipe.infos]
    texts += [one for one in (recipe.offset_column, *(term.side for term in recipe.terms)) if one is not None]
    need(all(isinstance(one, str) for one in texts), "a part of the design is no text")
    for name, info in recipe.infos.items():
        need(info.number or info.levels is not None, f"the levels of {name!r} are missing")
        need(info.levels is None or None not in set(info.levels), f"a level of {name!r} is missing")
    state = recipe.state
    need(isinstance(state, dict) and all(isinstance(one, dict) for one in state.values()), "a state is missing")


def _terms(formula: Formula, recipe: Recipe) -> tuple[Term, ...]:
    from .design import Term

    none: Any = None
    out = []
    for bar, term in zip(formula.bars, recipe.terms, strict=True):
        grouping = term.grouping
        need(
            (bar.group, bar.structure, bar.groups) == (term.group, term.structure, grouping.columns),
            f"the term of {bar.group!r} differs from the formula",
        )
        sizes = [len(labels) for labels in grouping.labels]
        need(
            len(sizes) == len(bar.groups) and all(labels.ndim == 1 for labels in grouping.labels),
            "levels have a wrong shape",
        )
        need(
            grouping.parts.ndim == 2
            and grouping.parts.shape[1] == len(sizes)
            and bool(((grouping.parts >= 0) & (grouping.parts < sizes)).all()),
            "a level is out of range",
        )
        need(len(term.names) > 0 and all(isinstance(name, str) for name in term.names), "an effect has no name")
        out.append(Term(term.group, term.names, none, grouping.levels(), None, term.structure, bar.groups))
    return tuple(out)


def _blocks(saved: Mapping[str, Any], arrays: Mapping[str, Array], design: Design) -> CrossProducts:
    """Cross-products from their arrays; the engine checks again what concerns its own safety."""
    from . import _core
    from .covariance import Structure
    from .crossprod import CrossProducts, _check_memory

    structures = tuple(Structure(term.structure, len(term.names)) for term in design.terms)
    groups, components, owners = _groups(saved["groups"], arrays, design, structures)
    n, p = len(design.rows), len(design.names)
    need((saved["n"], saved["p"]) == (n, p), "the numbers of rows and columns disagree")
    need(
        (saved["levels"], saved["k"]) == ([g.levels for g in groups], [g.k for g in groups]),
        "the sizes of groups disagree",
    )
    core: dict[str, Any] = {name: saved[name] for name in COUNTS}
    for name, value in arrays.items():
        if name.startswith("core/"):
            need(value.ndim == 1 and bool(np.isfinite(value).all()), f"array {name!r} is not finite")
            core[name.removeprefix("core/")] = value.astype(np.float64)
    for f, group in enumerate(groups):  # in Python's integers, which do not overflow
        need(len(core[f"diag{f}"]) == group.levels * group.k**2, "the cross-products have a wrong size")
        need(len(core[f"border{f}"]) == group.levels * group.k * p, "the cross-products have a wrong size")
    need(
        all(math.isfinite(saved[name]) for name in ("scale", "unit", "sum_log_w", "yy", "log_det") if name in saved)
        and min(saved["scale"], saved["unit"]) > 0,
        "a scale is wrong",
    )
    problem = _core.import_blocks(core)
    _check_memory(problem, groups)
    none: Any = None
    return CrossProducts(
        problem,
        groups,
        structures,
        components,
        owners,
        shaped(arrays, "x_basis", (p, p)),
        shaped(arrays, "shift", (p,)),
        float(saved["scale"]),
        float(saved["unit"]),
        n,
        p,
        none,
        float(saved.get("log_det", 0.0)),
    )


def _groups(
    order: list[list[int]], arrays: Mapping[str, Array], design: Design, structures: tuple[Any, ...]
) -> tuple[tuple[Group, ...], list[tuple[int, list[int]]], list[tuple[int, list[int]]]]:
    """Engine groups with their components and owners: all but the basis follows from the terms."""
    from .crossprod import Group

    need(
        sorted(t for terms in order for t in terms) == list(range(len(design.terms))),
        "the groups disagree with the terms",
    )
    groups, components, owners = [], [], []
    for f, terms in enumerate(order):
        first = design.terms[terms[0]]
        slices, at = [], 0
        for t in terms:
            term = design.terms[t]
            need(term.group == first.group, "a group mixes terms of several")
            for part in structures[t].components():
                components.append((f, [at + i for i in part]))
                owners.append((t, part))
            slices.append(slice(at, at + len(term.names)))
            at += len(term.names)
        groups.append(
            Group(
                first.group,
                tuple(terms),
                tuple(slices),
                len(first.levels),
                at,
                shaped(arrays, f"basis{f}", (at, at)),
            )
        )
    return tuple(groups), components, owners


def _optimum(saved: Mapping[str, Any], arrays: Mapping[str, Array], blocks: CrossProducts) -> Optimum:
    from .reml import Optimum

    evidence = _evidence(saved["evidence"], len(blocks.owners))
    criterion, sigma = saved["criterion"], saved["sigma"]
    need(math.isfinite(criterion) and 0 < sigma < 1e150, "the criterion or sigma is not finite")
    need(type(saved["reml"]) is bool, "the criterion is of an unknown kind")
    p, sizes = blocks.p, {t: (g.levels, blocks.structures[t].k) for g in blocks.groups for t in g.terms}
    terms = range(len(sizes))
    return Optimum(
        saved["reml"],
        float(criterion),
        shaped(arrays, "theta", (sum(s.n_theta for s in blocks.structures),)),
        tuple(shaped(arrays, f"lambda{t}", (sizes[t][1],) * 2) for t in terms),
        float(sigma),
        shaped(arrays, "beta", (p,)),
        shaped(arrays, "vcov", (p, p)),
        tuple(shaped(arrays, f"b{t}", sizes[t]) for t in terms),
        evidence,
        tuple(shaped(arrays, f"engine_lambda{f}", (g.k, g.k)) for f, g in enumerate(blocks.groups)),
    )


def _evidence(saved: Mapping[str, Any], components: int) -> Evidence:
    """The proof of the optimum: a status, numbers, and tuples of numbers, some of them one per component."""
    from .optimise import STATUS, Evidence
    from .recipe_json import decode_value

    facts = {name: decode_value(value) for name, value in saved.items()}
    need(facts["status"] in STATUS, "the status is unknown")
    for name, value in facts.items():
        if isinstance(value, list):
            need(name in ("null_slopes", "ranks", "weak", "trace"), f"{name} is no single number")
            facts[name] = value = tuple(value)
        need(name != "weak_structure" or isinstance(value, str), "the weak parameter is no text")
        numbers = value if isinstance(value, tuple) else () if name in ("status", "weak_structure") else (value,)
        whole = [one for one in numbers if not isinstance(one, float)]
        need(all(isinstance(one, int) and abs(one) < 2**53 for one in whole), f"{name} is no number")
    out = Evidence(**facts)
    for series in (out.ranks, out.null_slopes, out.weak or out.ranks, out.trace):
        need(isinstance(series, tuple), "the evidence has a wrong shape")
        need(series is out.trace or len(series) == components, "the evidence has a wrong size")
    return out
