"""Command line: `multilevel fit --bayes`, from options to draws, tables and pictures."""

from __future__ import annotations

import argparse
import ast
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_files import records, write_json, write_plots, write_report
from .errors import OptionError, nearest

if TYPE_CHECKING:
    from .model import Model
    from .posterior import Posterior
    from .priors import Prior

PLOTS = (
    "trace", "forest", "groups", "predictive", "caterpillar", "shrinkage", "effects", "residuals", "prior", "pair",
)  # fmt: skip
SAMPLING = ("chains", "draws", "warmup", "seed", "method", "target", "thin", "keep")  # as Model.sample has them
EXAMPLE = '--prior "sd(schid)=HalfNormal(5)"'
MODULES = ("ml", "multilevel")  # before a distribution, as in Python


# -- options ------------------------------------------------------------------------------------------------


def bayes_options(parser: argparse.ArgumentParser) -> None:
    """What sampling takes."""
    group = parser.add_argument_group("full Bayes")
    add = group.add_argument
    add("--bayes", action="store_true", help="draw from the posterior distribution instead of estimating by likelihood")
    add(
        "--prior",
        metavar="TEXT",
        action="append",
        default=[],
        help='of a parameter or a class of them (repeatable): "b=Normal(0, 10)", "sd(schid)=HalfNormal(5)", "cor=LKJ(2)"',
    )
    add("--chains", metavar="N", type=int, help="chains (default: 4)")
    add("--draws", metavar="N", type=int, help="draws of each chain, before --thin leaves some out (default: 1000)")
    add("--warmup", metavar="N", type=int, help="steps before them that adapt the sampler (default: 300)")
    add("--seed", metavar="N", type=int, help="the same seed gives the same draws")
    add("--method", metavar="NAME", help="'auto' (default), 'independent' or 'nuts'")
    add("--target", metavar="P", type=float, help="acceptance the sampler aims at (default: 0.8); nearer to 1 for hard cases")
    add("--thin", metavar="N", type=int, help="keep every Nth draw (default: 1)")
    add("--keep", choices=("all", "parameters"), help="keep the group effects or not (default: all)")


def check_bayes_options(args: argparse.Namespace) -> None:
    """Refuse options of the other way to estimate."""
    if not args.bayes:
        lone = next((name for name in (*SAMPLING, "prior") if getattr(args, name) not in (None, [])), None)
        if lone is not None:
            raise OptionError(f"--{lone} belongs to --bayes; add it, or leave --{lone} out")
        return
    stray = {"ml": args.ml, "quadrature": args.quadrature is not None, "ddf": args.ddf != "satterthwaite"}
    for name, given in stray.items():
        if given:
            raise OptionError(f"--{name} is for estimates by likelihood, not for --bayes; leave one of the two out")


def priors_of(texts: Sequence[str]) -> dict[str, Prior]:
    """Priors by parameter from ``--prior NAME=DISTRIBUTION``.

    Raises
    ------
    OptionError
        With what is wrong, and what exists.
    """
    found: dict[str, Prior] = {}
    for text in texts:
        name, prior = _prior(text)
        if name in found:
            raise OptionError(f"--prior gives {name!r} twice: {found[name].text()} and {prior.text()}; leave one out")
        found[name] = prior
    return found


def _prior(text: str) -> tuple[str, Prior]:
    from . import priors

    known = tuple(name for name in priors.__all__ if name not in ("Prior", "check_priors"))
    for name, call in _splits(text):
        head, node = (call.func, call) if isinstance(call, ast.Call) else (call, None)
        if isinstance(head, ast.Attribute) and isinstance(head.value, ast.Name) and head.value.id in MODULES:
            kind = head.attr
        elif isinstance(head, ast.Name):
            kind = head.id
        else:
            continue
        if kind not in known:
            hint = nearest(kind, known)
            raise OptionError(
                f"--prior {text!r}: there is no prior {kind!r}; {hint + ' ' if hint else ''}there are {', '.join(known)}"
            )
        return name, _made(text, getattr(priors, kind), node)
    raise OptionError(f"--prior {text!r} cannot be read; write PARAMETER=DISTRIBUTION, for example {EXAMPLE}")


def _splits(text: str) -> Iterator[tuple[str, ast.expr]]:
    """Ways to split at an equals sign (names of parameters may hold some) with an expression on the right."""
    for at, sign in enumerate(text):
        name = text[:at].strip()
        if sign != "=" or not name:
            continue
        try:
            yield name, ast.parse(text[at + 1 :].strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue


def _made(text: str, found: type[Prior], call: ast.Call | None) -> Prior:
    """The distribution, its arguments numbers or lists of them."""
    kind, names = found.__name__, [field.name for field in dataclasses.fields(found)]
    try:
        values = [ast.literal_eval(node) for node in (call.args if call else [])]
        named = {str(one.arg): ast.literal_eval(one.value) for one in (call.keywords if call else [])}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise OptionError(f"--prior {text!r}: the arguments of {kind} must be numbers; write as in {EXAMPLE}") from None
    try:
        return found(*values, **named)
    except (TypeError, OverflowError):
        takes = f"takes {', '.join(names)}" if names else "takes nothing"
        raise OptionError(f"--prior {text!r}: {kind} {takes}; write as in {EXAMPLE}") from None
    except OptionError as error:
        raise OptionError(f"--prior {text!r}: {error}") from None


# -- the command ----------------------------------------------------------------------------------------------


def finish(model: Model, args: argparse.Namespace) -> list[str]:
    """Draw, write what was asked for, and print the posterior."""
    given = {name: value for name in SAMPLING if (value := getattr(args, name)) is not None}
    posterior = model.sample(**given, threads=args.threads)
    summary = posterior.summary().rstrip("\n")
    wrote = []
    if args.save:
        posterior.save(args.save, data=args.with_data)
        wrote.append(args.save)
    if args.json:
        write_json(args.json, tables(posterior))
        wrote.append(args.json)
    if args.plots:
        wrote += write_plots(posterior, args.plots, PLOTS)
    if args.report:
        wrote.append(write_report(posterior, args.report))
    return [summary, *(["", f"Wrote {', '.join(wrote)}"] if wrote else [])]


def tables(posterior: Posterior) -> dict[str, Any]:
    """What --json writes: tables as lists of records, null where a number is not finite."""
    kept, family = posterior.draws_kept, posterior.model.distribution
    trusted, sentence = posterior.trust
    about: Mapping[str, Any] = {} if family is None else {"family": family.name, "link": family.link, "zeros": family.zero}
    return {
        "multilevel": __version__,
        "formula": posterior.formula,
        **about,
        "method": kept.method,
        "chains": kept.chains,
        "draws": kept.draws,
        "seed": kept.facts.get("seed"),
        "trusted": trusted,
        "verdict": sentence,
        "nobs": posterior.nobs,
        "fixef": records(posterior.fixef()),
        "parameters": records(posterior.parameters()),
        "varcorr": records(posterior.varcorr()),
        "priors": records(posterior.prior_summary()),
        "messages": list(posterior.design.messages),
    }
