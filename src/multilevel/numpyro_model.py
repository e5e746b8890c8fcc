"""The same model for NumPyro: Python text to read and edit, the arrays it takes, the function itself.

Sites bear the names of the tables and of the priors, ``ranef(schid)`` the effects of a grouping factor, so that what NumPyro
draws compares with what `Posterior.draws` holds. Group effects are not centred there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import numpyro_text as text
from .arviz_tree import response_name
from .errors import DataError, OptionError
from .marginal import CORRELATION, fixed_root
from .prior_table import Entry, entries_of
from .priors import LKJ, Fixed

if TYPE_CHECKING:
    from .model import Model

__all__ = ["NumpyroModel", "numpyro_model"]

Array = NDArray[Any]

COUNTED = ("binomial", "poisson", "nbinom2", "nbinom1", "betabinomial", "ordinal")
MOST_RELATED = 5000  # levels with a known covariance, which is handed over as a dense factor


@dataclass(frozen=True, eq=False)
class NumpyroModel:
    """A model for NumPyro.

    Attributes
    ----------
    source : str
        A Python module with the function ``model``.
    args : dict
        Its arguments: design matrices, codes of groups from zero, the response ``y`` (left out, the model draws from the
        priors).

    Examples
    --------
    >>> import multilevel as ml
    >>> handed = ml.Model("math ~ homework + (1 | schid)", ml.load("math10")).to_numpyro()
    >>> sorted(handed.args)
    ['X', 'group_1', 'y']
    """

    source: str
    args: dict[str, Array]

    @property
    def model(self) -> Callable[..., None]:
        """The function, for ``numpyro.infer.NUTS(handed.model)`` and ``mcmc.run(key, **handed.args)``.

        Raises
        ------
        OptionError
            If NumPyro is not installed; the source can be had all the same.
        """
        try:
            import numpyro  # noqa: F401
        except ImportError:
            raise OptionError(
                "running the model needs NumPyro, which is not installed: pip install numpyro; its text is in .source"
            ) from None
        scope: dict[str, Any] = {}
        exec(compile(self.source, "<model for NumPyro>", "exec"), scope)
        found: Callable[..., None] = scope["model"]
        return found

    def save(self, path: Any) -> None:
        """Write the source to a Python file."""
        if Path(path).suffix != ".py":
            raise OptionError(f"the source is written to a Python file, name.py, not to {str(path)!r}")
        Path(path).write_text(self.source, encoding="utf-8")

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {np.shape(v)}" for name, v in self.args.items())
        return f"{self.source}\n# args: {shapes}"


def numpyro_model(model: Model) -> NumpyroModel:
    """See `Model.to_numpyro`."""
    if model.residual is not None:
        raise OptionError(
            "to_numpyro() takes independent residuals in this version: leave correlation= and variance= out"
        )
    if model.design.y is None:
        raise DataError("this model was saved without its data, which to_numpyro() hands over; save it with "
            "save(path, data=True)")  # fmt: skip
    return _Writer(model).write()


@dataclass
class _Writer:
    """Lines and arrays as they come together."""

    model: Model
    lines: list[str] = field(default_factory=list)
    args: dict[str, Array] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    helpers: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)

    def write(self) -> NumpyroModel:
        design = self.model.design
        self.entries = entries_of(self.model)
        response = response_name(design)
        self.used = {response}
        self._coefficients()
        for t in range(len(design.terms)):
            self._term(t)
        self._effects()
        if design.offset is not None:
            self._argument("offset", design.offset)
            self._add("eta = eta + offset")
        self._response(response)
        body = "\n".join(f"    {line}" if line else "" for line in self.lines)
        head = text.head(self.model.formula.text, self.imports, self.helpers)
        return NumpyroModel(f"{head}def model({', '.join([*self.args, 'y=None'])}):\n{body}\n", self.args | {"y": self._y()})

    # -- pieces ------------------------------------------------------------------------------------------------

    def _add(self, *lines: str) -> None:
        self.lines += lines

    def _argument(self, name: str, values: Array) -> str:
        self.args[name] = np.ascontiguousarray(values)
        return name

    def _site(self, name: str) -> str:
        """A name no other site has, as Python text."""
        while name in self.used:
            name += "_"
        self.used.add(name)
        return repr(name)

    def _draw(self, entry: Entry, name: str | None = None) -> str:
        """Expression of one parameter."""
        site = self._site(entry.name if name is None else name)
        if isinstance(entry.prior, Fixed):
            return f"numpyro.deterministic({site}, {entry.prior.value!r})"
        found = text.distribution(entry.prior, entry.kind in ("sd", "sigma"))
        if found.cut:
            self.helpers.add("cut")
            return f"cut_at_zero({site}, {found.expression})"
        return f"numpyro.sample({site}, {found.expression})"

    def _vector(self, target: str, entries: list[Entry], names: list[str] | None = None) -> None:
        draws = [self._draw(e, None if names is None else names[i]) for i, e in enumerate(entries)]
        self._add(f"{target} = jnp.stack([", *(f"    {one}," for one in draws), "])")

    def _of(self, kind: str, term: int = -1) -> list[Entry]:
        return [e for e in self.entries if e.kind == kind and (term < 0 or e.term == term)]

    def _coefficients(self) -> None:
        design = self.model.design
        own = self._of("coefficient")
        if not own:
            self._add(f"n = {len(design.y)}", "eta = jnp.zeros(n)", "")
            return
        others = {e.name for e in self.entries if e.kind != "coefficient"}
        self._argument("X", design.X)
        self._add("n = X.shape[0]", "", "# coefficients")
        self._vector("beta", own, [f"b({e.name})" if e.name in others else e.name for e in own])
        self._add("eta = X @ beta", "")

    def _term(self, t: int) -> None:
        term = self.model.design.terms[t]
        i, k, levels = t + 1, len(term.names), len(term.levels)
        what = f"{levels} levels, {k} effect{'s' * (k > 1)}"
        self._add(f"# {', '.join(term.names)} by {term.group}: {what}".replace("\n", " "))
        sds = self._of("sd", t)
        if len(sds) == 1:
            self._add(f"sd_{i} = {self._draw(sds[0])}{' * jnp.ones(' + str(k) + ')' if k > 1 else ''}")
        else:
            self._vector(f"sd_{i}", sds)
        correlated = self._correlations(t)
        self._add(f"with numpyro.plate({self._site(f'levels({term.group})')}, {levels}):")
        z = f"z({term.group})"
        if k == 1:
            self._add(f"    z_{i} = numpyro.sample({self._site(z)}, dist.Normal(0.0, 1.0))[:, None]")
        else:
            self._add(f"    z_{i} = numpyro.sample({self._site(z)}, dist.Normal(0.0, 1.0).expand([{k}]).to_event(1))")
        if term.group in self.model.design.known:
            self._add(f"z_{i} = {self._relation(t)} @ z_{i}")
        self._add(f"b_{i} = z_{i} @ (sd_{i}[:, None] * root_{i}).T" if correlated else f"b_{i} = z_{i} * sd_{i}")
        codes = self._argument(f"group_{i}", term.codes.astype(np.int64))
        if term.Z is None:
            self._add(f"eta = eta + b_{i}[{codes}, 0]")
        else:
            self._add(f"eta = eta + (b_{i}[{codes}] * {self._argument(f'Z_{i}', term.Z)}).sum(axis=1)")

    def _correlations(self, t: int) -> bool:
        """The Cholesky factor ``root`` of a term's correlations, if it has any."""
        term = self.model.design.terms[t]
        i, k = t + 1, len(term.names)
        found = self._of("cor", t)
        if k == 1 or not found:
            return False
        entry = found[0]
        if isinstance(entry.prior, Fixed):
            root = fixed_root(entry.prior.value, term, CORRELATION[term.structure])
            self._add(f"root_{i} = jnp.array({root.tolist()!r})")
        elif term.structure == "us":
            assert isinstance(entry.prior, LKJ)
            site = self._site(f"cor_root({term.group})")
            self._add(f"root_{i} = numpyro.sample({site}, dist.LKJCholesky({k}, {entry.prior.eta!r}))")
        else:
            assert isinstance(entry.prior, LKJ)
            self._add(*text.single_correlation(i, k, self._site(entry.name), entry.prior.eta, "cs" in term.structure))
            return True
        if term.structure == "us":
            for a in range(1, k):
                for b in range(a):
                    site = self._site(f"cor({term.group}, {term.names[b]}, {term.names[a]})")
                    self._add(f"numpyro.deterministic({site}, root_{i}[{b}] @ root_{i}[{a}])")
        return True

    def _relation(self, t: int) -> str:
        """Factor of the known covariance between a term's levels."""
        from scipy.linalg import solve_triangular

        term = self.model.design.terms[t]
        known = self.model.design.known[term.group]
        if len(known.levels) > MOST_RELATED:
            raise OptionError(
                f"the known covariance of {term.group!r} has {len(known.levels)} levels, more than the {MOST_RELATED} that "
                "to_numpyro() hands over as a dense matrix"
            )
        root = np.linalg.cholesky(known.precision.toarray())
        return self._argument(f"relation_{t + 1}", solve_triangular(root, np.eye(len(root)), lower=True, trans="T"))

    def _effects(self) -> None:
        """Group effects by factor, as `Posterior.draws` has them."""
        groups: dict[str, list[int]] = {}
        for t, term in enumerate(self.model.design.terms):
            groups.setdefault(term.group, []).append(t + 1)
        for group, own in groups.items():
            site = self._site(f"ranef({group})")
            every = f"b_{own[0]}" if len(own) == 1 else f"jnp.concatenate([{', '.join(f'b_{i}' for i in own)}], axis=1)"
            self._add(f"numpyro.deterministic({site}, {every})", "")

    # -- the response ------------------------------------------------------------------------------------------

    def _response(self, response: str) -> None:
        design, family = self.model.design, self.model.distribution
        if family is None:
            self._add(f"sigma = {self._draw(self._of('sigma')[0])}")
            sd = "sigma"
            if design.weights is not None:
                sd = f"sigma / jnp.sqrt({self._argument('weights', design.weights)})"
            lines = text.observed(repr(response), f"dist.Normal(eta, {sd})")
        else:
            lines = self._generalised(response)
            if design.weights is not None:
                scale = self._argument("weights", design.weights)
                lines = [f"with numpyro.handlers.scale(scale={scale}):", *(f"    {line}" for line in lines)]
        self._add("", f"with numpyro.plate({self._site('rows')}, n):", *(f"    {line}" for line in lines))

    def _generalised(self, response: str) -> list[str]:
        design, family = self.model.design, self.model.distribution
        assert family is not None
        if design.trials is not None and family.name != "ordinal":
            self._argument("trials", design.trials.astype(np.int64))
        if family.name == "ordinal":
            self._thresholds()
        else:
            blocks = {"zi": [e for e in self._of("further") if e.name.startswith("zi[")]}
            blocks["dispersion"] = [e for e in self._of("further") if e not in blocks["zi"]]
            for what in ("dispersion", "zi"):
                self._further(what, blocks[what])
        self.imports |= text.imports(family)
        self.helpers |= text.helpers(family)
        return text.likelihood(family, repr(response), design.trials is not None)

    def _further(self, what: str, own: list[Entry]) -> None:
        """A parameter of the rows beyond the mean: constant, or with a formula of its own."""
        target = {"dispersion": "log_dispersion", "zi": "logit_zero"}[what]
        if not own:
            return
        if what in self.model.design.sides:
            self._vector(f"gamma_{what}", own)
            matrix = self._argument(f"X_{what}", self.model.design.sides[what][0])
            self._add(f"{target} = {matrix} @ gamma_{what}")
        else:
            self._add(f"{target} = {self._draw(own[0])}")

    def _thresholds(self) -> None:
        own = self._of("further")
        if any(isinstance(e.prior, Fixed) for e in own):
            raise OptionError("to_numpyro() cannot hold single thresholds of an ordinal response fixed")
        self._add("# thresholds ascend; each has a prior of its own")
        site = self._site("thresholds")
        ordered = f"dist.ImproperUniform(dist.constraints.ordered_vector, (), ({len(own)},))"
        self._add(f"thresholds = numpyro.sample({site}, {ordered})")
        for i, e in enumerate(own):
            found = text.distribution(e.prior, False)
            if not found.flat:
                prior = self._site(f"prior of {e.name}")
                self._add(f"numpyro.factor({prior}, {found.expression}.log_prob(thresholds[{i}]))")
            self._add(f"numpyro.deterministic({self._site(e.name)}, thresholds[{i}])")

    def _y(self) -> Array:
        family, y = self.model.distribution, self.model.design.y
        return np.asarray(y).astype(np.int64) if family is not None and family.name in COUNTED else np.asarray(y)
