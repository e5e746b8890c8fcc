"""Markdown tables from results/LABEL.json (made by bayes.py), written between markers of benchmarks/README.md.

A peer counts as best only if its R-hat is at most 1.1: beyond that nothing can be said of its effective draws.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bayes_engines.problems import PROBLEMS, Problem
from bayes_engines.runner import Answer
from table import replace_between

HERE = Path(__file__).resolve().parent
PEERS = {
    "nutpie": "PyMC + nutpie",
    "nutpie-centred": "PyMC + nutpie, centred",
    "numpyro": "NumPyro",
    "numpyro-centred": "NumPyro, centred",
    "rstanarm": "rstanarm",
}
NAMES = {"multilevel": "multilevel"} | PEERS
USELESS, BAD = 1.1, 1.01  # R-hat
FAR = 4.0  # Monte Carlo standard errors
Answers = dict[str, Answer]


def seconds(value: float) -> str:
    return f"{value:.2g}" if value < 9.95 else f"{value:.0f}"


def number(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def unusable(answer: Answer) -> str | None:
    """What stands in a cell without figures."""
    if not answer:
        return "–"
    if "unsupported" in answer:
        return "cannot" if "centre" not in answer["unsupported"] else "–"
    if "timeout" in answer:
        return f"> {answer['timeout']:.0f} s{short(answer)}"
    return "failed" if "error" in answer else None


def short(answer: Answer) -> str:
    return f" ({answer['short'][0]} + {answer['short'][1]})" if "short" in answer else ""


def rate(answer: Answer, key: str) -> float:
    return float(answer["ess"] / answer[key])


def cell(answer: Answer) -> str:
    word = unusable(answer)
    if word is not None:
        return word
    parts = [f"{seconds(answer['total'])} s (CPU {seconds(answer['total_cpu'])}); {number(rate(answer, 'sampling'))}"]
    parts += [f"{answer['divergences']} div."] if answer["divergences"] else []
    parts += [f"R-hat {answer['r_hat']:.2f}"] if answer["r_hat"] > BAD else []
    far = answer.get("off", 0.0) > FAR and not answer.get("other_priors")
    parts += [f"**differs** by {answer['off']:.1f} errors"] if far else []
    return "; ".join(parts) + short(answer)


def best(answers: Answers, key: str) -> tuple[str, float] | None:
    found = [(rate(a, key), e) for e, a in answers.items() if e in PEERS and unusable(a) is None and a["r_hat"] <= USELESS]
    return (max(found)[1], max(found)[0]) if found else None


def ratio(answers: Answers, key: str) -> float | None:
    ours, peer = answers.get("multilevel", {}), best(answers, key)
    return rate(ours, key) / peer[1] if peer and unusable(ours) is None else None


def ratio_cell(answers: Answers, key: str) -> str:
    peer, times = best(answers, key), ratio(answers, key)
    return "–" if peer is None or times is None else f"{number(times)}× {NAMES[peer[0]]}"


def to_reach(item: Problem) -> str:
    words = {
        "total": "total < {:g} s",
        "rate": "≥ {:,g} per s",
        "total-ratio": "≥ {:g}× per total second",
        "rate-ratio": "≥ {:g}× per sampling second",
    }
    return ", ".join(words[key].format(value) for key, value in item.reach.items())


def missed(item: Problem, answers: Answers) -> str:
    ours = answers.get("multilevel", {})
    if unusable(ours) is not None:
        return "–"
    got = {
        "total": max(ours["total"], ours["total_cpu"]),
        "rate": rate(ours, "sampling"),
        "total-ratio": ratio(answers, "total"),
        "rate-ratio": ratio(answers, "sampling"),
    }
    out = []
    for key, wanted in item.reach.items():
        value = got[key]
        if value is None:
            out.append(f"{key} not known")
        elif value >= wanted if key == "total" else value < wanted:
            out.append(f"{key} {seconds(value) if key == 'total' else number(value)}")
    out += ["divergences"] if ours["divergences"] else []
    out += ["R-hat"] if ours["r_hat"] > BAD else []
    return "no: " + ", ".join(out) if out else "yes"


def main_table(book: dict[str, Any]) -> str:
    head = ["problem", *NAMES.values(), "ESS per total second", "ESS per sampling second", "to reach", "reached"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, item in PROBLEMS.items():
        answers = book["answers"].get(name)
        if answers:
            cells = [item.title, *(cell(answers.get(engine, {})) for engine in NAMES)]
            cells += [ratio_cell(answers, "total"), ratio_cell(answers, "sampling"), to_reach(item), missed(item, answers)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def detail_row(item: Problem, engine: str, a: Answer) -> str:
    off = f"{a['off']:.1f} ({a['off_of']})" if "off" in a else a.get("disagree", "")
    method = {"independent": ", importance sampling", "nuts": ", NUTS", "exact": ", exact"}.get(a.get("method", ""), "")
    cells = [
        item.title,
        NAMES[engine] + method,
        f"{a['chains']} × ({a['warmup']} + {a['draws']})",
        f"{seconds(a['imports'])}",
        f"{seconds(a['sampling'])}",
        f"{number(a['ess'])} ({a['ess_of']})",
        f"{a['r_hat']:.3f}",
        str(a["divergences"]),
        off + (" (other priors)" if a.get("other_priors") else ""),
        f"{a['peak_mb']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def detail_table(book: dict[str, Any]) -> str:
    head = ["problem", "engine", "draws", "import, s", "sampling, s", "least ESS", "R-hat", "divergences"]
    head += ["largest difference, errors", "MB"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, item in PROBLEMS.items():
        answers = book["answers"].get(name, {})
        lines += [detail_row(item, e, answers[e]) for e in NAMES if e in answers and unusable(answers[e]) is None]
    return "\n".join(lines)


def facts(book: dict[str, Any]) -> str:
    machine = book["machine"]
    found = {k: v for one in book["answers"].values() for a in one.values() for k, v in a.get("versions", {}).items()}
    names = ", ".join(f"{k} {v}" for k, v in sorted(found.items()))
    chains, warmup, draws = book["asked"]
    text = f"{machine.get('cpu', '')}, {machine['cores']} cores; {names}. {chains} × ({warmup} + {draws})."
    if "printed" not in book:
        return text
    low = {kind: f"{min(values):.2f} s" for kind, values in book["printed"].items()}
    return text + (
        f" Ten schools, default priors, to the printed summary (best of {len(book['printed']['bare'])}): {low['bare']} from "
        f"`import multilevel`, {low['warm']} without imports, {low['process']} with the interpreter's start."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="bayes")
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    args = parser.parse_args()
    book = json.loads((HERE / "results" / f"{args.label}.json").read_text())
    text = "\n\n".join([facts(book), main_table(book), detail_table(book)])
    if args.print:
        print(text)
        return 0
    return 0 if replace_between(HERE / "README.md", "bayes", text) else 1


if __name__ == "__main__":
    sys.exit(main())
