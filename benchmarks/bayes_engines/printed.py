"""Ten schools from nothing to a printed summary: ``python -m bayes_engines.printed bare|warm``, for a process of its own.

Prints the summary, then a line of JSON: seconds from before ``import multilevel`` (bare) or from after importing all that
the run uses (warm) to the printed summary. Reading the data (bundled) counts.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

started = time.perf_counter()


def run() -> None:
    import multilevel as ml

    model = ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))
    print(model.sample(seed=1), flush=True)


def warm_modules() -> list[str]:
    """What the run imports, found by a run in another process."""
    import subprocess

    script = "import sys; from bayes_engines.printed import run; run(); print(*sys.modules)"
    text = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return text.splitlines()[-1].split()


def main() -> None:
    begin = started
    if sys.argv[1] == "warm":
        for name in warm_modules():
            try:
                importlib.import_module(name)
            except ImportError:
                continue
        begin = time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main()
