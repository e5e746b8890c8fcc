"""What tests and intervals cost, beside R where R can do them at all.

``python benchmarks/inference.py``: medians of `--repeats` runs on one thread each; R's lines need Rscript with lme4, lmerTest
and pbkrtest and are left out without it. Writes the table in README.md between its markers.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from problems import DataUnavailable, load  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel.kenward_roger import adjustment  # noqa: E402

SLEEP = "Reaction ~ Days + (Days | Subject)"
INSTEVAL = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"
R_SLEEP = """
library(lme4); d <- read.csv("{csv}"); d$Subject <- factor(d$Subject); m <- lmer(Reaction ~ Days + (Days | Subject), d)
take <- function(e) {{
  s <- substitute(e)
  cat(median(replicate({n}, system.time(eval(s, parent.frame()))[[3]])), "\\n")
}}
take(suppressMessages(confint(m, quiet = TRUE)))
take(bootMer(m, function(f) c(fixef(f), sigma(f)), nsim = 1000, seed = 1))
take(pbkrtest::vcovAdj(m))
take(influence(m, "Subject"))
"""


def timed(call: Callable[[], object], repeats: int) -> float:
    """Median seconds."""
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        out.append(time.perf_counter() - start)
    return statistics.median(out)


def ours(repeats: int) -> dict[str, float]:
    """Seconds by line of the table."""
    fit = ml.Model(SLEEP, ml.load("sleepstudy")).fit(threads=1)
    out = {
        "sleepstudy: profile of all 6 parameters": timed(lambda: fit.profile(progress=False), repeats),
        "sleepstudy: 1,000 parametric refits": timed(
            lambda: fit.bootstrap(1000, seed=1, threads=1, progress=False), repeats
        ),
        "sleepstudy: Kenward–Roger covariance": timed(lambda: adjustment(fit), repeats),
        "sleepstudy: influence of each subject": timed(lambda: fit.influence("Subject"), repeats),
    }
    try:
        data = load("insteval")
    except DataUnavailable:
        return out
    model = ml.Model(INSTEVAL, data)
    model.fit(threads=1)

    def tests(ddf: str) -> None:
        model.fit(threads=1).fixef(ddf=ddf)

    out["InstEval (73,421 rows): fit with Satterthwaite's df"] = timed(lambda: tests("satterthwaite"), repeats)
    out["InstEval (73,421 rows): fit with Kenward–Roger"] = timed(lambda: tests("kenward-roger"), repeats)
    return out


def theirs(repeats: int) -> list[float]:
    """R's seconds for the lines on sleepstudy; empty without R."""
    if shutil.which("Rscript") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "sleepstudy.csv"
        ml.load("sleepstudy").to_csv(csv, index=False)
        script = Path(folder) / "time.R"
        script.write_text(R_SLEEP.format(csv=csv, n=repeats))
        done = subprocess.run(["Rscript", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
        return []
    return [float(line) for line in done.stdout.split()]


def table(mine: dict[str, float], r: list[float]) -> str:
    """Markdown; the ratio where both were measured."""
    lines = ["| what | multilevel, s | lme4 / pbkrtest, s | ratio |", "|---|---|---|---|"]
    for i, (name, seconds) in enumerate(mine.items()):
        other = f"{r[i]:.3g} | {r[i] / seconds:.0f}×" if i < len(r) else "– | –"
        lines.append(f"| {name} | {seconds:.3g} | {other} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return "\n".join([*lines, "", f"Peak memory of the whole run: {peak:.0f} MB."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = table(ours(repeats), theirs(min(repeats, 3)))
    print(text)
    page = Path(__file__).parent / "README.md"
    whole = page.read_text(encoding="utf-8")
    begin, end = "<!-- inference:begin -->", "<!-- inference:end -->"
    head, _, rest = whole.partition(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
