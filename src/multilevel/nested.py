"""Which model contains which, and what the likelihood ratio of the two follows.

The parameters that the larger model has in addition are free, or they are variances whose smallest value, zero, gives the
smaller model. The ratio then follows a mixture of chi-square distributions: half and half of the last two degrees of
freedom for one variance with any number of covariances and free parameters (Self & Liang 1987, case 6; Stram & Lee 1994). For
more than one variance its weights depend on the design: `chi_bar` knows them for up to three parameters. Else, as weights of
even and of odd degrees of freedom sum to one half each, that mixture is an upper bound of the p-value (Kodde & Palm 1986,
Econometrica 54, 1243).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import CORRELATED, Structure
from .likeness import same_weights

if TYPE_CHECKING:
    from .design import Design
    from .model import Model

__all__ = ["Step", "same_fixed", "step_between"]

Array = NDArray[np.float64]

SPANNED = 1e-8  # part of a column, relative to its size, that may lie outside
WIDER = {  # structures whose parameters hold those of the others inside their range
    "diag": ("homdiag",), "homcs": ("homdiag",), "cs": ("homcs", "homdiag", "diag"), "ar1": ("homdiag",),
    "hetar1": ("ar1", "homdiag", "diag"), "us": ("diag", "homdiag", "homcs", "cs", "ar1", "hetar1"),
}  # fmt: skip
LIMITS = {"nbinom2": "poisson", "nbinom1": "poisson", "betabinomial": "binomial"}  # at a dispersion of zero


@dataclass(frozen=True)
class Step:
    """What a larger model has beside a smaller one.

    Attributes
    ----------
    free : int
        Parameters whose value in the smaller model lies inside their range.
    cones : tuple of int
        Sizes of the covariance matrices that are zero in the smaller model; a size of r is r (r + 1) / 2 parameters.
    known : bool
        False where a correlation has no value in the smaller model, so that no theory gives the distribution.
    fixed : int
        How many of `free` are fixed effects.
    weights : tuple of float or None
        Where they were computed: those of chi-squares with `free`, `free` + 1, ... degrees of freedom.
    """

    free: int = 0
    cones: tuple[int, ...] = ()
    known: bool = True
    fixed: int = 0
    weights: tuple[float, ...] | None = None

    def __add__(self, other: Step) -> Step:
        return Step(
            self.free + other.free, self.cones + other.cones, self.known and other.known, self.fixed + other.fixed
        )

    @property
    def df(self) -> int:
        """Parameters in all."""
        return self.free + sum(r * (r + 1) // 2 for r in self.cones)

    @property
    def exact(self) -> bool:
        """Whether the asymptotic distribution is known, not bounded."""
        return self.known and (self.cones in ((), (1,)) or self.weights is not None)

    @property
    def reference(self) -> str:
        """The distribution in words."""
        if not self.known:
            return "unknown"
        if not self.cones:
            return f"chi2({self.df})"
        if self.weights is not None:
            return " + ".join(f"{weight:.2f} chi2({self.free + i})" for i, weight in enumerate(self.weights))
        return ("" if self.exact else "at most ") + f"0.5 chi2({self.df - 1}) + 0.5 chi2({self.df})"

    def p_values(self, ratio: float) -> tuple[float, float]:
        """Tail of the plain chi-square, and of `reference` (NaN where it is unknown)."""
        from .random_tests import p_values

        plain, mixed = p_values(ratio, self.df, self.df - 1)
        if self.weights is not None:
            tails = [p_values(ratio, self.free + i, None)[0] for i in range(len(self.weights))]
            tails[0] = tails[0] if self.free else float(ratio <= 0)
            return plain, float(np.dot(self.weights, tails))
        return plain, (mixed if self.cones else plain) if self.known else np.nan


def step_between(small: Model, large: Model) -> Step | None:
    """What the larger model has in addition; None where it does not contain the smaller one as far as can be told.

    The models are of the same data.
    """
    a, b = small.design, large.design
    if not same_weights(a, b) or not _fixed_within(small, large):
        return None
    fixed = len(b.names) - len(a.names)
    parts = [Step(fixed, fixed=fixed), _family(small, large), _residual(small, large), _random(a, b)]
    out = Step()
    for part in parts:
        if part is None:
            return None
        out = out + part
    return out if out.df > 0 and min(fixed, out.free) >= 0 else None


# -- fixed effects ----------------------------------------------------------------------------------------------------


def same_fixed(one: Design, other: Design) -> bool:
    """Whether the fixed parts are the same columns, in any order, so that restricted likelihoods compare."""
    if one.y is None or other.y is None:
        return sorted(one.names) == sorted(other.names) and _offset_text(one) == _offset_text(other)
    if one.X.shape != other.X.shape or not np.array_equal(_offset(one), _offset(other)):
        return False
    return np.array_equal(_sorted(one.X), _sorted(other.X))


def _sorted(columns: Array) -> Array:
    """Columns in an order of their values."""
    return columns[:, sorted(range(columns.shape[1]), key=lambda j: columns[:, j].tobytes())]


def _offset(design: Design) -> Array:
    return np.zeros(len(design.rows)) if design.offset is None else design.offset


def _offset_text(design: Design) -> tuple[Any, ...]:
    recipe = design.remake
    return recipe.offsets, recipe.offset_column, recipe.offset_array


def _fixed_within(small: Model, large: Model) -> bool:
    a, b = small.design, large.design
    if a.y is None or b.y is None:
        return set(a.names) <= set(b.names) and _offset_text(a) == _offset_text(b)
    # thresholds of an ordinal response stand in the intercept's place
    basis = b.X if not _is_ordinal(large) else np.column_stack([np.ones(len(b.y)), b.X])
    return _within(np.column_stack([a.X, _offset(a) - _offset(b)]), basis)


def _is_ordinal(model: Model) -> bool:
    return model.distribution is not None and model.distribution.name == "ordinal"


def _within(columns: Array, basis: Array) -> bool:
    """Whether columns (n, m) are combinations of those of a basis (n, p)."""
    own = {basis[:, j].tobytes() for j in range(basis.shape[1])}
    asked = [j for j in range(columns.shape[1]) if columns[:, j].any() and columns[:, j].tobytes() not in own]
    if not asked:
        return True
    if not basis.shape[1]:
        return False
    size = np.sqrt(np.einsum("ij,ij->j", basis, basis))
    left, sizes, _ = np.linalg.svd(basis / np.where(size > 0, size, 1.0), full_matrices=False)
    left = left[:, sizes > 1e-12 * sizes[0]]
    rest = columns[:, asked] - left @ (left.T @ columns[:, asked])
    return bool((np.linalg.norm(rest, axis=0) <= SPANNED * np.linalg.norm(columns[:, asked], axis=0)).all())


# -- family and residuals ---------------------------------------------------------------------------------------------


def _family(small: Model, large: Model) -> Step | None:
    f, g = small.distribution, large.distribution
    if f is None and g is not None:
        return _heavier_tails(small.design, large)
    if f is None or g is None:
        return Step() if f is g else None
    if f.link != g.link or (f.zero != g.zero and (f.zero, g.zero) != ("none", "inflated")):
        return None
    out = Step()
    if f.name != g.name:
        if LIMITS.get(g.name) != f.name or _columns(large.design, "dispersion") is not None:
            return None
        out = out + Step(cones=(1,))
    elif f.dispersion is not None:
        side = _side(small.design, large.design, "dispersion")
        if side is None:
            return None
        out = out + side
    if (f.df, f.power) != (g.df, g.power):
        if g.shape is None:
            return None
        out = out + Step(1)
    if f.zero == g.zero != "none":
        side = _side(small.design, large.design, "zi")
        return None if side is None else out + side
    if f.zero != g.zero:  # no extra zeros: their share is at the end of its range
        return out + Step(cones=(1,)) if _columns(large.design, "zi") is None else None
    return out


def _heavier_tails(small: Design, large: Model) -> Step | None:
    """Student's t has the normal distribution at the end of its range: one over its degrees of freedom is zero there.

    Weights mean something else to either: a variance here, a number of rows there.
    """
    family = large.distribution
    assert family is not None
    plain = small.weights is None and _columns(large.design, "dispersion") is None
    return Step(cones=(1,)) if family.name == "student" and family.df is None and plain else None


def _columns(design: Design, what: str) -> tuple[Array, tuple[str, ...]] | None:
    """A further side; None where it is a constant."""
    found = design.sides.get(what)
    return None if found is None or found[1] == ("Intercept",) else found


def _side(small: Design, large: Design, what: str) -> Step | None:
    a, b = _columns(small, what), _columns(large, what)
    if b is None:
        return Step() if a is None else None
    names = ("Intercept",) if a is None else a[1]
    if small.y is None or large.y is None:
        inside = set(names) <= set(b[1])
    else:
        inside = _within(np.ones((len(b[0]), 1)) if a is None else a[0], b[0])
    return Step(len(b[1]) - len(names)) if inside else None


def _residual(small: Model, large: Model) -> Step | None:
    a, b = small._residual_text, large._residual_text
    spreads = {spread[:2] for spread in a.spreads}
    serial = None if a.serial is None else a.serial[:3]
    if not spreads <= {spread[:2] for spread in b.spreads}:
        return None
    if serial is not None and (b.serial is None or serial != b.serial[:3]):
        return None
    names = [len(model.residual.names()) if model.residual is not None else 0 for model in (small, large)]
    one_sided = serial is None and b.serial is not None and b.serial[0] == "car1"  # its correlation is not negative
    return Step(names[1] - names[0] - one_sided, (1,) if one_sided else ())


# -- random effects ---------------------------------------------------------------------------------------------------


@dataclass
class Block:
    """Effects of one term that covary: how, and their columns (n, k), or names where the rows are not there."""

    kind: str
    names: tuple[str, ...]
    columns: Array | None

    @property
    def k(self) -> int:
        return len(self.names)

    @property
    def n_theta(self) -> int:
        return Structure(self.kind, self.k).n_theta

    def same_effects(self, other: Block) -> bool:
        if self.columns is None or other.columns is None:
            return self.names == other.names
        return self.columns.shape == other.columns.shape and np.array_equal(self.columns, other.columns)

    def within(self, other: Block) -> bool:
        if self.columns is None or other.columns is None:
            return set(self.names) <= set(other.names)
        return _within(self.columns, other.columns)

    def split(self) -> list[Block]:
        """Single effects of a term without correlations."""
        if self.kind != "diag":
            return [self]
        return [
            Block("us", self.names[i : i + 1], None if self.columns is None else self.columns[:, i : i + 1])
            for i in range(self.k)
        ]


def _random(small: Design, large: Design) -> Step | None:
    rows = small.y is not None and large.y is not None
    inside, outside = _by_factor(small, rows), _by_factor(large, rows)
    if not set(inside) <= set(outside):
        return None
    out = Step()
    for factor, blocks in outside.items():
        part = _one_factor(inside.get(factor, []), blocks)
        if part is None:
            return None
        out = out + part
    return out


def _by_factor(design: Design, rows: bool) -> dict[Hashable, list[Block]]:
    """Blocks by grouping factor; factors are the same if they part the rows in the same way."""
    out: dict[Hashable, list[Block]] = {}
    for term in design.terms:
        known = design.known.get(term.group)
        key: Hashable = term.group
        if known is not None:
            key = (term.group, known.log_det, len(known.levels), float(abs(known.precision).sum()))
        elif rows:
            key = _partition(term.codes)
        columns = None
        if rows:
            columns = np.ones((len(design.rows), 1)) if term.Z is None else term.Z
        alone = len(term.names) == 1 and term.structure not in CORRELATED
        out.setdefault(key, []).append(Block("us" if alone else term.structure, term.names, columns))
    return out


def _partition(codes: NDArray[Any]) -> bytes:
    """The same for the same groups, whatever their numbers."""
    _, first, code = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[code].tobytes()


def _one_factor(small: list[Block], large: list[Block]) -> Step | None:
    """Whole terms on the same effects first, then spans of effects."""
    left, open_, out = list(small), [], Step()
    for block in large:
        twin = next((one for one in left if _narrower(one, block)), None)
        if twin is None:
            open_.append(block)
            continue
        left.remove(twin)
        out = out + Step(block.n_theta - twin.n_theta)
    rest = _spans([one for block in left for one in block.split()], [one for block in open_ for one in block.split()])
    return None if rest is None else out + rest


def _narrower(one: Block, other: Block) -> bool:
    kinds = one.kind == other.kind or one.kind in WIDER.get(other.kind, ())
    return kinds and one.same_effects(other)


def _spans(small: list[Block], large: list[Block]) -> Step | None:
    """Free blocks of effects, each within the span of one of the larger model's."""
    if any(block.kind != "us" for block in small):
        return None
    held: list[list[Block]] = [[] for _ in large]
    for block in sorted(small, key=lambda one: -one.k):
        homes = [
            i
            for i, home in enumerate(large)
            if home.kind == "us" and _room(held[i], home) >= block.k and block.within(home)
        ]
        if not homes:
            return None
        held[min(homes, key=lambda i: _room(held[i], large[i]))].append(block)
    return sum((_grown(home, inside) for home, inside in zip(large, held, strict=True)), Step())


def _room(inside: Iterable[Block], home: Block) -> int:
    return home.k - sum(block.k for block in inside)


def _grown(home: Block, inside: list[Block]) -> Step:
    """What a block has beside those within it."""
    if home.kind == "homdiag":
        return Step(cones=(1,))
    if home.kind != "us":  # without any variance a correlation means nothing
        return Step(home.n_theta, known=False)
    r = _room(inside, home)
    free = home.n_theta - sum(block.n_theta for block in inside) - r * (r + 1) // 2
    return Step(free, (r,) if r else ())
