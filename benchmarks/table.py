"""Markdown tables from results/LABEL.json, written between markers of benchmarks/README.md and the project's README.md.

A fit is *wrong* when its criterion is worse than the best known one by more than 10⁻⁶ of its size, or lower by as much
than any trusted engine's (a criterion nobody else can reach is a mistake in reporting it). The best known criterion
is the lowest of the trusted engines and of the reference value, where there is one. ≈ marks a right fit that is short
by more than 10⁻⁸. Seconds are medians of warm calls from formula and data frame to result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import problems
from engines.protocol import Answer

HERE = Path(__file__).resolve().parent
OURS = ("multilevel", "multilevel-2", "multilevel-default")
TRUSTED = (*OURS, "lme4", "glmm", "mixedlm")
TRUSTED_GENERALISED = (*OURS, "glmmTMB", "glmm")  # Laplace's approximation with the observed information in all of them
PEERS = ("lme4", "glmmTMB", "glmm", "mixedlm", "statsmodels", "lme-python", "gpboost")
WRONG, SHORT = 1e-6, 1e-8
Answers = dict[str, Answer]


def best_known(
    answers: Answers, reference: float | None, trusted: tuple[str, ...] = TRUSTED
) -> float | None:
    values = [answers[e]["criterion"] for e in trusted if answers.get(e, {}).get("criterion") is not None]
    values += [reference] if reference is not None else []
    return min(values) if values else None


def excess(answer: Answer, best: float) -> float:
    return float((answer["criterion"] - best) / max(1.0, abs(best)))


def same_terms(answers: Answers, item: problems.Problem) -> float | None:
    """Best criterion; for many responses the sums over the fifty first must be over as many fits."""
    if item.spec.responses:
        counts = [len(a["criteria"]) for a in answers.values() if a.get("criteria")]
        for answer in answers.values():
            if answer.get("criteria"):
                answer["criterion"] = sum(answer["criteria"][: min(counts)])
    trusted = TRUSTED if item.spec.family == "gaussian" else TRUSTED_GENERALISED
    return best_known(answers, item.reference, trusted)


def right(answer: Answer | None, best: float | None) -> bool:
    fitted = answer is not None and answer.get("criterion") is not None and best is not None
    return fitted and abs(excess(answer, best)) <= WRONG  # type: ignore[arg-type]


def median(answer: Answer, key: str) -> float | None:
    return statistics.median(answer[key]) if answer.get(key) else None


def show(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def cell(answer: Answer | None, best: float | None) -> str:
    if answer is None:
        return "–"
    for key, word in (
        ("unsupported", "cannot"),
        ("timeout", "> {} s"),
        ("error", "failed"),
        ("skipped", "–"),
    ):
        if key in answer:
            return word.format(int(answer[key]) if key == "timeout" else "")
    if best is None or answer.get("criterion") is None:
        return "failed"
    off = excess(answer, best)
    text = show(median(answer, "seconds"))
    if abs(off) > WRONG:
        return f"{text} **wrong** (Δ {answer['criterion'] - best:.2g})"
    count = f" ({answer['evaluations']})" if answer.get("evaluations") else ""
    return f"{text}{' ≈' if off > SHORT else ''}{count}"


def fastest(answers: Answers, best: float | None, key: str = "seconds") -> tuple[str, float] | None:
    times = [(median(a, key), e) for e, a in answers.items() if e not in OURS and right(a, best) and "seconds" in a]
    found = [(t, e) for t, e in times if t is not None]
    return (min(found)[1], min(found)[0]) if found else None


def ratio(peer: tuple[str, float] | None, seconds: float | None) -> str:
    return f"{peer[1] / seconds:.2g}×" if peer and seconds else "–"


def long_row(item: problems.Problem, answers: Answers, columns: list[str], df: bool) -> str:
    best = same_terms(answers, item)
    own, two, unset = (answers.get(e, {}) for e in OURS)
    peer = fastest(answers, best)
    ours = median(own, "seconds") if right(own, best) else None
    both = min((t for t in (ours, median(two, "seconds")) if t is not None), default=None)
    cells = [
        item.title,
        cell(own or None, best),
        show(median(own, "engine_seconds")),
        *([show(median(own, "full_seconds"))] if df else []),
        show(median(two, "seconds")),
        show(median(unset, "seconds")),
        *(cell(answers.get(e), best) for e in columns),
        f"{peer[0]} {show(peer[1])}" if peer else "–",
        ratio(peer, ours),
        ratio(peer, both),
        f"{own['peak_mb']:.0f}" if own.get("peak_mb") else "–",
        item.reach,
    ]
    return "| " + " | ".join(cells) + " |"


def short_row(item: problems.Problem, answers: Answers) -> str | None:
    best = same_terms(answers, item)
    peer, own = fastest(answers, best), answers.get("multilevel", {})
    if peer is None or not right(own, best):
        return None
    lme4 = cell(answers.get("lme4"), best).split(" (")[0]
    ours = median(own, "seconds")
    return f"| {item.title} | {show(ours)} | {peer[0]} {show(peer[1])} | {ratio(peer, ours)} | {lme4} |"


def facts(book: dict[str, Any], items: dict[str, problems.Problem]) -> str:
    machine, found = book["machine"], {}
    for answers in (book["answers"][name] for name in items if name in book["answers"]):
        for engine, answer in answers.items():
            for package, number in answer.get("versions", {}).items():
                shared = package in ("python", "numpy", "scipy", "pandas")
                found[f"{engine}: {package}" if shared else package] = number
    blas = found.pop("BLAS", "")
    names = ", ".join(f"{k} {v}" for k, v in sorted(found.items()) if ":" not in k)
    hardware = f"{machine.get('cpu', '')}, {machine['cores']} cores, {machine.get('memory', '')}"
    return (
        f"{hardware}; Python {machine['python']}; {names}" + (f"; R's BLAS {Path(blas).name}" if blas else "") + "."
    )


def long_table(book: dict[str, Any], items: dict[str, problems.Problem]) -> str:
    """Linear problems, or generalised ones, which have no degrees of freedom."""
    seen = {e for name in items for e in book["answers"].get(name, {})}
    columns = [e for e in PEERS if e in seen]
    df = any(a.get("full_seconds") for name in items for a in book["answers"].get(name, {}).values())
    head = [
        "problem",
        "multilevel",
        "its engine",
        *(["with df"] if df else []),
        "2 threads",
        "unset",
        *columns,
        "fastest right peer",
        "ratio",
        "ratio, best of 1 and 2 threads",
        "MB",
        "to reach",
    ]
    lines = [facts(book, items), "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, item in items.items():
        if name in book["answers"]:
            lines.append(long_row(item, book["answers"][name], columns, df))
    return "\n".join(lines)


def short_table(book: dict[str, Any]) -> str:
    lines = ["| problem | multilevel | fastest right peer | ratio | lme4 |", "|---|---|---|---|---|"]
    rows = (short_row(item, book["answers"][n]) for n, item in problems.PROBLEMS.items() if n in book["answers"])
    return "\n".join(lines + [r for r in rows if r])


def replace_between(path: Path, name: str, text: str, say: Callable[[str], None] = print) -> bool:
    """Put `text` between <!-- NAME:begin --> and <!-- NAME:end -->; False (and a word) if the markers are not there."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = path.read_text() if path.exists() else ""
    if begin not in page or end not in page:
        say(f"no {name} markers in {path.name}")
        return False
    before, rest = page.split(begin, 1)
    path.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end, 1)[1])
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="latest")
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    args = parser.parse_args()
    book = json.loads((HERE / "results" / f"{args.label}.json").read_text())
    linear = {name: item for name, item in problems.PROBLEMS.items() if name not in problems.GENERALISED}
    tables = {"speed": long_table(book, linear), "speed-generalised": long_table(book, problems.GENERALISED)}
    if args.print:
        print(*tables.values(), short_table(book), sep="\n\n")
        return 0
    for name, text in tables.items():
        replace_between(HERE / "README.md", name, text)
    replace_between(HERE.parent / "README.md", "speed", short_table(book))
    return 0


if __name__ == "__main__":
    sys.exit(main())
