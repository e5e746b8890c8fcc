"""Parameters of a posterior by name: their draws, the ends of their ranges, and draws from their priors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame, residual_priors
from .errors import OptionError, listing, nearest
from .prior_draws import correlation_roots, thresholds
from .priors import Density, Fixed, Flat, Uniform

if TYPE_CHECKING:
    from .posterior import Posterior
    from .prior_table import Entry

__all__ = ["Parameter", "chosen", "diverging", "parameters", "prior_draws"]

Array = NDArray[np.float64]

ENOUGH = 500  # draws of thresholds that happen to ascend


@dataclass(frozen=True)
class Parameter:
    """One parameter's draws.

    Attributes
    ----------
    name : str
        As the tables show it.
    kind : {"coefficient", "sd", "cor", "sigma", "further", "residual", "effect"}
        The last is one group's effect.
    values : (chains, draws) array
    lower, upper : float
        Ends of its range.
    entry : Entry or None
        Its prior; None for a group's effect.
    effects : tuple of int
        Of a correlation, the two effects.
    """

    name: str
    kind: str
    values: Array
    lower: float = -np.inf
    upper: float = np.inf
    entry: Entry | None = None
    effects: tuple[int, ...] = ()

    @property
    def flat(self) -> Array:
        """All draws, chains one after the other."""
        return self.values.ravel()

    @property
    def held(self) -> bool:
        """Whether it has one value only."""
        return bool(np.ptp(self.values) == 0)


def parameters(posterior: Posterior) -> list[Parameter]:
    """Coefficients, sds, correlations, sigma and a family's further coefficients."""
    kept, terms = posterior.draws_kept, posterior.design.terms
    coefficients = [e for e in posterior.entries if e.kind == "coefficient"]
    out = []
    for i, e in enumerate(coefficients):
        out.append(Parameter(e.name, e.kind, kept.beta[:, :, i], *_ends(e), e))
    for i, c in enumerate(kept.coordinates):
        values = kept.scalars[:, :, i]
        if c.kind == "cor":
            entry = next(e for e in posterior.entries if e.kind == "cor" and e.term == c.term)
            lowest = -1.0 / (len(terms[c.term].names) - 1) if "cs" in terms[c.term].structure else -1.0
            out.append(Parameter(c.name, "cor", values, lowest, 1.0, entry, c.effects))
        else:
            entry = next(e for e in posterior.entries if e.kind == c.kind and e.name == c.name)
            out.append(Parameter(c.name, c.kind, values, *_ends(entry), entry))
    return out


def _ends(entry: Entry) -> tuple[float, float]:
    prior = entry.prior
    if entry.kind == "residual":
        return entry.limits
    if isinstance(prior, Uniform):
        return prior.lower, prior.upper
    return (0.0 if entry.kind in ("sd", "sigma") or prior.positive else -np.inf), np.inf


def chosen(posterior: Posterior, which: Any, most: int, kinds: Sequence[str] = ()) -> tuple[list[Parameter], str]:
    """Parameters to draw, and which part of all they are ("" if all that vary).

    Parameters
    ----------
    which : str, list of str or None
        Names, classes ("b", "sd", "sd(school)", "cor", "cor(school)"), or group effects such as
        "ranef(school, A, Intercept)". None: all that are not held, at most `most`.
    kinds : sequence of str
        Kinds that go first where there are too many and draws are independent; with others those go first whose draws are
        worth least.
    """
    every = parameters(posterior)
    if which is not None:
        texts = [which] if isinstance(which, str) else list(which) if isinstance(which, (list, tuple)) else []
        if not texts or not all(isinstance(t, str) for t in texts):
            raise OptionError(f"parameters must be a name, or a list of names, not {which!r}")
        found = {p.name: p for text in texts for p in _named(posterior, text, every)}
        return list(found.values()), ""
    free = [p for p in every if not p.held]
    if not free:
        raise OptionError("every parameter of this model is held at a value, so that there are no draws to show")
    if len(free) <= most:
        return free, ""
    if posterior.draws_kept.method != "nuts":
        order = sorted(range(len(free)), key=lambda i: (kinds.index(free[i].kind) if kinds else 0, i))
        return [free[i] for i in sorted(order[:most])], f"{most} of {len(free)} parameters"
    from .chain_diagnostics import ess_bulk

    worth = ess_bulk(np.stack([p.values for p in free], axis=2))
    least = np.sort(np.argsort(worth, kind="stable")[:most])
    return [free[i] for i in least], f"{most} of {len(free)} parameters, those of least effective sample size"


def _named(posterior: Posterior, text: str, every: list[Parameter]) -> list[Parameter]:
    """Parameters that a name or class means."""
    wanted = "Intercept" if text == "(Intercept)" else text
    if found := [p for p in every if p.name == wanted]:
        return found
    if found := [p for p in every if wanted in _classes(p)]:
        return found
    if wanted.startswith("ranef("):
        return [_effect(posterior, wanted)]
    names = [p.name for p in every]
    raise OptionError(
        f"there is no parameter {text!r}; {nearest(text, names) or 'there are ' + listing(names)}; a group's effect is "
        "named as in 'ranef(school, A, Intercept)'"
    )


def _classes(p: Parameter) -> tuple[str, ...]:
    if p.kind == "coefficient":
        return ("b",) if p.name != "Intercept" else ()
    if p.kind in ("sd", "cor"):
        return p.kind, p.name.split(",")[0].rstrip(")") + ")"
    return ()


def _effect(posterior: Posterior, text: str) -> Parameter:
    """The draws of one effect of one level: "ranef(group, level, effect)"."""
    options = []
    for t, term in enumerate(posterior.design.terms):
        for i, name in enumerate(term.names):
            if not text.startswith(f"ranef({term.group}, ") or not text.endswith(f", {name})"):
                options.append(f"ranef({term.group}, {frame.label_text(term.levels[0])}, {name})")
                continue
            label = text[len(f"ranef({term.group}, ") : -len(f", {name})")]
            labels = [frame.label_text(one) for one in term.levels.tolist()]
            if label not in labels:
                raise OptionError(
                    f"{label!r} is no level of {term.group!r}; {nearest(label, labels) or 'there are ' + listing(labels)}"
                )
            return Parameter(text, "effect", posterior.group_effects(t)[:, :, labels.index(label), i])
    raise OptionError(f"there is no group effect {text!r}; they are named as in {listing(options, 3)}")


def diverging(posterior: Posterior) -> NDArray[np.bool_]:
    """(chains, draws) whether the transition to a draw diverged."""
    kept = posterior.draws_kept
    found = kept.stats.get("diverging")
    return np.zeros((kept.chains, kept.draws), dtype=bool) if found is None else np.asarray(found) != 0


# -- priors ---------------------------------------------------------------------------------------------------


def prior_draws(posterior: Posterior, p: Parameter, n: int, rng: np.random.Generator) -> Array | None:
    """(n,) draws of a parameter's prior; None where there is none to draw from: flat, or not drawn at all."""
    entry = p.entry
    if entry is None or isinstance(entry.prior, (Flat, Fixed)):
        return None
    prior = entry.prior
    if p.kind == "cor":
        roots = correlation_roots(entry, posterior.design.terms[entry.term], n, rng)
        i, j = p.effects
        return np.asarray(np.einsum("nk,nk->n", roots[:, i], roots[:, j]))
    assert isinstance(prior, Density)
    if p.kind == "residual":
        return residual_priors.draw(entry, rng, n)
    if p.kind == "sigma" and entry.typical:
        return _sigma(posterior, entry, n, rng)
    if p.kind in ("sd", "sigma"):
        return prior.draw_positive(rng, n)
    if ordered(posterior, p):
        return _threshold(posterior, entry, n, rng)
    return prior.draw(rng, n)


def _sigma(posterior: Posterior, entry: Entry, n: int, rng: np.random.Generator) -> Array | None:
    """Draws of sigma where its prior is of the sd of a typical row; None where the residual's parameters have flat priors."""
    own = [e for e in posterior.entries if e.kind == "residual"]
    if any(isinstance(e.prior, Flat) for e in own):
        return None
    assert isinstance(entry.prior, Density)
    values = np.column_stack([residual_priors.draw(e, rng, n) for e in own])
    drawn = entry.prior.draw_positive(rng, n)
    return residual_priors.sigma(entry, drawn, posterior.model.residual, values, posterior.rows_of_data())


def ordered(posterior: Posterior, p: Parameter) -> bool:
    """Whether it is one of the thresholds of an ordinal response, which must ascend."""
    family = posterior.model.distribution
    return p.kind == "further" and family is not None and family.name == "ordinal"


def _threshold(posterior: Posterior, entry: Entry, n: int, rng: np.random.Generator) -> Array | None:
    """Draws of one threshold from the priors of all, given that these ascend; None where too few do, or priors are flat."""
    own = [e for e in posterior.entries if e.kind == "further"]
    if any(isinstance(e.prior, Flat) for e in own):
        return None
    found = thresholds(own, n, rng)[:, own.index(entry)]
    return found if len(found) >= min(n, ENOUGH) else None
