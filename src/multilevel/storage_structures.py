"""What a saved fit keeps of structures: residuals, known covariances of levels, second derivatives.

A fit without its rows cannot differentiate by a residual correlation any more, so its second-order facts are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .archive import need

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .fit import Fit
    from .model import Model
    from .optimise import Curvature
    from .relatives import KnownCovariance
    from .residuals import Residual

Array = NDArray[np.float64]
SERIAL_FIELDS = ("kind", "text", "group", "time", "unit", "over")
FACTS = ("steps", "hessian", "profiled", "r2_slope", "l_x")


def pack(fit: Fit, arrays: dict[str, Array]) -> dict[str, Any] | None:
    """Header of the structures; their numbers go into `arrays`. None for a model that has none."""
    from .structured import StructuredEngine

    if len(fit.optimum.residual):
        arrays["residual"] = fit.optimum.residual
    if not isinstance(fit.engine, StructuredEngine):
        return None
    facts = fit.curvature
    arrays |= {f"facts/{name}": getattr(facts, name) for name in FACTS}
    arrays["facts/sizes"] = np.array([d.size for d in facts.directions], dtype=np.float64)
    return residual_out(fit.model)


def residual_out(model: Model) -> dict[str, Any]:
    """Header of the structure of the residuals, without its rows."""
    from .recipe_json import encode_value

    r = model.residual
    if r is None:
        return {"residual": None}
    serial = None if r.serial is None else {n: getattr(r.serial, n) for n in SERIAL_FIELDS}
    spreads = [
        {"kind": s.kind, "text": s.text, "column": s.column, "levels": list(s.levels), "covariate": s.covariate}
        for s in r.spreads
    ]
    levels = {name: [encode_value(v) for v in values] for name, values in (model._levels or {}).items()}
    return {"residual": {"serial": serial, "spreads": spreads, "levels": levels}}


def residual(saved: Mapping[str, Any] | None) -> Residual | None:
    """The structure of the residuals without its rows: enough to name, print and predict."""
    from .residual_reader import SERIAL, SPREADS
    from .residuals import Residual, Serial, Spread

    if saved is None or saved["residual"] is None:
        return None
    rows, none = np.empty(0, dtype=np.int64), np.empty(0)
    s = saved["residual"]["serial"]
    serial = None
    if s is not None:
        units = [s["unit"], s["over"]]
        fine = all(isinstance(u, float) and 0 < u < 1e150 for u in units)
        need(s["kind"] in SERIAL and fine, "the correlation is unknown")
        need(all(isinstance(s[n], str) for n in ("text", "group")), "the correlation has no name")
        need(s["time"] is None or isinstance(s["time"], str), "the correlation has no time")
        serial = Serial(s["kind"], s["text"], s["group"], s["time"], rows, none, *units)
    spreads = []
    for one in saved["residual"]["spreads"]:
        texts = [one["text"], one["column"], *one["levels"]]
        need(one["kind"] in SPREADS and all(isinstance(t, str) for t in texts), "a variance function is unknown")
        need(
            type(one["covariate"]) is bool and (one["kind"] != "ident" or len(one["levels"]) > 1),
            "a variance function is damaged",
        )
        spreads.append(
            Spread(one["kind"], one["text"], one["column"], None, tuple(one["levels"]), None, one["covariate"])
        )
    return Residual(serial, tuple(spreads))


def levels_of(saved: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """The user's orders of levels."""
    from .recipe_json import decode_value

    out = {name: [decode_value(v) for v in values] for name, values in saved["residual"]["levels"].items()}
    return out or None


def parameters(arrays: Mapping[str, Array], r: Residual | None) -> Array:
    """Values of the residual's parameters."""
    values = arrays.get("residual", np.empty(0))
    need(values.shape == (0 if r is None else r.n_coordinates,), "the parameters of the residuals have a wrong shape")
    need(
        values.dtype == np.float64 and bool(np.isfinite(values).all()), "the parameters of the residuals are no numbers"
    )
    return values


def facts(arrays: Mapping[str, Array], p: int) -> Curvature:
    """Second-order facts; of the directions only their sizes are left."""
    from .optimise import Curvature, Direction

    sizes = arrays["facts/sizes"]
    need(sizes.ndim == 1 and bool(np.isfinite(sizes).all()), "the second derivatives have a wrong shape")
    r = len(sizes)
    shapes = {"steps": (r,), "hessian": (r, r), "profiled": (r, r), "r2_slope": (r,), "l_x": (r, 2, p, p)}
    got = {name: arrays[f"facts/{name}"] for name in FACTS}
    for name, shape in shapes.items():
        fine = got[name].shape == shape and got[name].dtype == np.float64 and bool(np.isfinite(got[name]).all())
        need(fine, "the second derivatives have a wrong shape")
    none = np.empty(0)
    return Curvature([Direction(-1, none, none, float(s)) for s in sizes], **got)


def known(
    core: Mapping[str, Any], blocks: CrossProducts, levels: Mapping[str, NDArray[Any]]
) -> dict[str, KnownCovariance]:
    """Known covariances of levels, from the precisions among the cross-products."""
    from scipy.sparse import coo_array, diags_array

    from .relatives import KnownCovariance

    out: dict[str, KnownCovariance] = {}
    for f, group in enumerate(blocks.groups):
        if f"prior_diag{f}" not in core:
            continue
        j = group.levels
        precision: Any = diags_array(core[f"prior_diag{f}"]).tocsr()
        if f"prior{f}" in core:
            ptr = core[f"ptr{f}_{f}"].astype(np.int64)
            rows, cols = np.repeat(np.arange(j), np.diff(ptr)), core[f"idx{f}_{f}"].astype(np.int64)
            upper = coo_array((core[f"prior{f}"], (rows, cols)), shape=(j, j)).tocsr()
            precision = precision + upper + upper.T
        out[group.name] = KnownCovariance.in_order(levels[group.name], precision)
    return out
