"""What becomes of two hundred hard data sets: ``python benchmarks/hard_cases.py`` writes the table in README.md.

``--kinds`` and ``--responses`` run a part again, which replaces its rows in the results.

Every case (hard_shapes.py) is fitted in a process of its own. The outcome is one of

- *certified*: a minimum by the fit's own certificate (a variance of zero included) and by hard_judge.py, which shares none of
  its steps;
- *warned*: an answer that says in a sentence what is wrong with it;
- *error*: a `MultilevelError` with a sentence;
- *not OK*: a crash, a fit of over a minute of processor time, another exception, something that is no number in a table or a
  verb, a certified answer that is no minimum or not the lowest known, or a refusal of data that have one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import resource
import select
import signal
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hard_judge import (  # noqa: E402
    Found,
    Point,
    bad_tables,
    bad_verbs,
    gain,
    lower_elsewhere,
    searches,
    starts,
    value_again,
)
from hard_shapes import FLAVOURS, KINDS, Case, cases  # noqa: E402
from table import replace_between  # noqa: E402

from multilevel import ConvergenceWarning, Model, MultilevelError  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "hard_cases.json"
FIT_SECONDS = 60.0  # of processor time; SIGPROF ends what takes longer, compiled code too
HANGS = 900.0
MEMORY = 6 * 2**30  # bytes of address space of a case's process
GAIN = 1e-5  # deviance a certified optimum may leave
RELATIVE = 1e-9
ROUNDING = 5e-14  # of a sum of y * log(mean)
OUTCOMES = ("certified", "warned", "error", "not OK")
Row = dict[str, Any]


def allowed(deviance: float, one: Case) -> float:
    """How far two deviances may differ that are the same; huge counts and trials leave them fewer digits."""
    counts = np.abs(one.data["m" if one.flavour.sort == "trials" else "y"])
    return GAIN + RELATIVE * abs(deviance) + ROUNDING * float(counts.sum())


def attempt(one: Case) -> tuple[Any, Row]:
    """The fit, or None, and what it said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = Model(one.formula, pd.DataFrame(one.data), **one.options).fit(threads=1)
        except MultilevelError as error:
            return None, {"outcome": "error", "class": type(error).__name__, "sentence": str(error)}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
            return None, {"outcome": "not OK", "sentence": text, "faults": ["another exception"]}
    strange = [str(w.message) for w in caught if not issubclass(w.category, UserWarning)]
    told = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    report = fit.convergence
    row: Row = {
        "outcome": "certified" if report.converged and not told else "warned",
        "sentence": " | ".join(told) or report.sentence,
        "deviance": -2 * fit.loglik,
        "converged": report.converged,
        "singular": report.singular,
        "faults": [f"a warning of {text[:80]!r}" for text in strange],
    }
    return fit, row


def judge(one: Case, fit: Any, row: Row) -> Row:
    """Faults of a fit; a refusal is tried from other starts."""
    faults = list(row.get("faults", []))
    if fit is None:
        if row["outcome"] == "error" and "at any start" in row["sentence"]:
            ends = [f.deviance for f in elsewhere(one) if f.minimum]
            faults += [f"refused, though a search ends at deviance {ends[0]:.6f}"] if ends else []
        return row | {"faults": faults}
    faults += [f"no number in {where}" for where in bad_tables(fit)]
    point = Point(fit)
    row["value"], row["gain"] = value_again(fit, point), gain(point)
    limit = allowed(row["deviance"], one)
    found, row["died"] = searches(point.engine, *starts(point.engine, point))
    better, what = lower_elsewhere(point, found, row["deviance"], limit)
    row["lower"] = None if better is None else row["deviance"] - better.deviance
    row["artefact"] = better is not None and not what
    if row["outcome"] == "certified":
        faults += [what] if what else []
        if not row["gain"] < limit:
            faults.append(f"a step promises {row['gain']:.3g} by differences of the deviance")
        if one.hopeless:
            faults.append("certified, though the likelihood has no maximum")
    if row["value"] is not None and not abs(row["value"]) < 1e-6 * max(1.0, abs(row["deviance"])):
        faults.append(f"the deviance is off by {row['value']:.3g} from SciPy's densities")
    faults += bad_verbs(fit)
    return row | {"faults": faults}


def elsewhere(one: Case) -> list[Found]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = Model(one.formula, pd.DataFrame(one.data), **one.options).laplace(1)
        return searches(engine, *starts(engine, None))[0]


def child(one: Case, pipe: int) -> None:
    """Fit and judge, one message after each."""
    with os.fdopen(pipe, "wb") as out:
        signal.setitimer(signal.ITIMER_PROF, FIT_SECONDS)
        fit, row = attempt(one)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        pickle.dump(row, out)
        out.flush()
        pickle.dump(judge(one, fit, row), out)


def run(one: Case) -> Row:
    """The row of one case; a crash or a hang is an outcome too."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 0
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            with np.errstate(all="ignore"):
                child(one, write)
        except BaseException:
            traceback.print_exc()
            status = 3
        os._exit(status)
    os.close(write)
    found, messages = Row(outcome="not OK", faults=[], sentence=""), 0
    with os.fdopen(read, "rb") as source:
        while messages < 2 and select.select([source], [], [], HANGS)[0]:
            try:
                found, messages = pickle.load(source), messages + 1
            except EOFError:
                break
    if messages < 2:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if messages < 2:
        slow = status == -signal.SIGPROF
        died = f"no fit after {FIT_SECONDS:.0f} s of processor time" if slow else f"the process ended with {status}"
        found["faults"] = [*found.get("faults", []), died]
    if found.get("faults"):
        found["said"], found["outcome"] = found["outcome"], "not OK"
    what = {"name": one.name, "kind": one.kind, "flavour": one.flavour.name, "detail": one.detail}
    return what | {"formula": one.formula, "options": one.options, "hopeless": one.hopeless} | found


def table(rows: list[Row]) -> str:
    """Counts by kind, then every case that is not OK."""
    head = ["kind", "cases", *OUTCOMES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for kind in (*KINDS, None):
        own = [r for r in rows if kind in (r["kind"], None)]
        counts = Counter(r["outcome"] for r in own)
        lines.append(f"| {kind or '**all**'} | {len(own)} | " + " | ".join(str(counts[o]) for o in OUTCOMES) + " |")
    artefacts = [r["name"] for r in rows if r["outcome"] == "certified" and r.get("artefact")]
    if artefacts:
        lines += ["", "Certified though a search from elsewhere stopped lower, at no minimum and where quadrature says that "
                  f"Laplace's approximation errs: {'; '.join(artefacts)}."]  # fmt: skip
    bad = [r for r in rows if r["outcome"] == "not OK"]
    lines += ["", "Not OK:" if bad else "None is not OK."]
    lines += [f"- {r['name']} ({r['detail']}): {'; '.join(r['faults'])}." for r in bad]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--responses", nargs="+", default=list(FLAVOURS), choices=list(FLAVOURS))
    parser.add_argument("--no-readme", action="store_true", help="print the table, write nothing")
    args = parser.parse_args()
    whole = len(args.kinds) == len(KINDS) and len(args.responses) == len(FLAVOURS)
    old: list[Row] = [] if whole or not RESULTS.exists() else json.loads(RESULTS.read_text())
    chosen = [one for one in cases() if one.kind in args.kinds and one.flavour.name in args.responses]
    rows = []
    for one in chosen:
        rows.append(run(one))
        r = rows[-1]
        print(f"{r['outcome']:9s} {one.name} ({one.detail}): {r['sentence'][:110]} {r['faults'] or ''}", flush=True)
    fresh = {r["name"]: r for r in rows}
    merged = [fresh.pop(r["name"], r) for r in old] + list(fresh.values())
    text = table(merged)
    print("\n" + text)
    if not args.no_readme:
        RESULTS.parent.mkdir(exist_ok=True)
        clean = [{k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in r.items()} for r in merged]
        RESULTS.write_text(json.dumps(clean, indent=0))
        replace_between(HERE / "README.md", "hard", text)
    return int(any(r["outcome"] == "not OK" for r in rows))


if __name__ == "__main__":
    sys.exit(main())
