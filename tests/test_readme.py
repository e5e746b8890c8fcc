"""README.md and docs/ say what is so: Python blocks run and print what stands there, calls in tables work, links hold.

A ``python`` block may be followed by a ``text`` block: then that is what it prints. Numbers are compared to 1 %, words
exactly. ``python tests/test_readme.py [docs/page.md ...]`` rewrites those ``text`` blocks, of all pages or of those named.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n?```text\n(?P<output>.*?)```)?", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
NEEDS = re.compile(r"<!-- needs (\w+) -->")  # a package without which the blocks of a page cannot run
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def place(page: Path) -> str:
    """Where a page is, which names its tests."""
    return page.relative_to(ROOT).as_posix()


def run(code: str, scope: dict[str, Any]) -> str:
    """Run one block and return what it prints."""
    from multilevel import MultilevelWarning

    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.simplefilter("ignore", MultilevelWarning)  # pages show singular fits on purpose
        exec(compile(code, "<page>", "exec"), scope)
    return printed.getvalue()


def same_output(found: str, expected: str) -> bool:
    """Whether two outputs agree in words, and in numbers to 1 %; counts of evaluations are free."""
    texts = [re.sub(r"\d+ evaluations?|evaluations \d+", "evaluations", t) for t in (found, expected)]
    words = [NUMBER.sub("#", t).split() for t in texts]
    numbers = [[float(n) for n in NUMBER.findall(t)] for t in texts]
    return words[0] == words[1] and all(
        abs(a - b) <= 0.01 * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-3 for a, b in zip(*numbers, strict=True)
    )


def table_calls(text: str) -> list[str]:
    """Code in the column `multilevel` of every table of a page."""
    calls: list[str] = []
    column: int | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            column = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if column is None:
            column = cells.index("multilevel") if "multilevel" in cells else -1
        elif column >= 0 and not set(cells[column]) <= set("-: "):
            calls += [c.replace("\\|", "|") for c in re.findall(r"`([^`]+)`", cells[column])]
    return calls


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_python_blocks_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    for package in NEEDS.findall(page.read_text(encoding="utf-8")):
        pytest.importorskip(package)
    scope: dict[str, Any] = {}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        found = run(block["code"], scope)
        if block["output"] is not None:
            assert same_output(found, block["output"]), f"{page.name}: after\n{block['code']}\nprinted\n{found}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name.startswith("coming-from")], ids=place)
def test_every_call_of_a_table_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    for block in BLOCK.finditer(text):
        run(block["code"], scope)
    calls = table_calls(text)
    assert len(calls) > 20
    for call in calls:
        try:
            run(call, scope)
        except Exception as error:
            pytest.fail(f"{page.name}: `{call}` raises {type(error).__name__}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_layout_names_every_source_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [*(ROOT / "src" / "multilevel").rglob("*.py"), *(ROOT / "src" / "core").glob("*.[hc]pp")]
    unnamed = [f.name for f in files if not re.search(rf"(?<![\w/]){re.escape(f.name)}", text)]
    assert not unnamed, f"name {', '.join(sorted(unnamed))} in the layout of docs/architecture.md"


def test_import_is_light() -> None:
    heavy = ("numpy", "scipy", "pandas", "formulaic", "narwhals", "matplotlib", "polars", "pyarrow")
    code = f"import sys, multilevel; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def rewrite(page: Path) -> None:
    """Put what the blocks print into the `text` blocks after them."""
    text, scope = page.read_text(encoding="utf-8"), dict[str, Any]()
    out, at = [], 0
    for block in BLOCK.finditer(text):
        found = run(block["code"], scope)
        if block["output"] is not None:
            lines = "".join(line.rstrip() + "\n" for line in found.rstrip().splitlines())
            out += [text[at : block.start("output")], lines]
            at = block.end("output")
    page.write_text("".join(out) + text[at:], encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    import matplotlib

    matplotlib.use("Agg")
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for one in chosen or PAGES:
            if all(find_spec(package) for package in NEEDS.findall(one.read_text(encoding="utf-8"))):
                rewrite(one)
