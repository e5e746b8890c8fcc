"""The site: every page is in the navigation, every public name and verb in the reference, nothing comes from the network."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import multilevel as ml

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")} - {"README"}
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
DIRECTIVE = re.compile(
    r"^\.\. (?:auto(?:class|function|exception|module)|py:module):: multilevel\.([\w.]+)", re.MULTILINE
)
FETCHED = re.compile(
    r"""<(?:script|img|link|iframe|source|video|audio|embed|object)\b[^>]*\b(?:src|href|data)=["'](?:https?:)?//"""
)
FETCHED_BY_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?:https?:)?//""")


def entries(page: str) -> list[str]:
    """Pages and patterns that the navigation of a page names, as the site has them."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    lines = [line for tree in TOCTREE.findall(text) for line in tree.splitlines()]
    folder = Path(page).parent
    return [(folder / line.strip()).as_posix() for line in lines if line.strip() and not line.startswith(":")]


def test_the_navigation_has_every_page_and_no_other() -> None:
    named: list[str] = []
    for entry in [*entries("index"), *entries("api/index")]:
        found = [page for page in PAGES if Path(page).match(entry)] if "*" in entry else [entry]
        assert found, f"nothing matches {entry}"
        named += found
    assert sorted(named) == sorted(PAGES - {"index"})


def documented() -> set[str]:
    """What the pages of the reference document, as written after `multilevel.`."""
    return {
        name for page in (DOCS / "api").glob("*.md") for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    }


def test_the_reference_has_every_public_name() -> None:
    missing = sorted(set(ml.__all__) - {"__version__"} - documented())
    assert not missing, f"add {', '.join(missing)} to a page in docs/api"


def test_the_index_of_the_reference_lists_every_public_name() -> None:
    listed = set(
        re.findall(r"^   ~multilevel\.(\w+)$", (DOCS / "api" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    missing = sorted(set(ml.__all__) - {"__version__"} - listed)
    assert not missing, f"add {', '.join(missing)} to docs/api/index.md"


def of(name: str) -> object:
    """What a name of the reference stands for."""
    from importlib import import_module

    home, _, last = f"multilevel.{name}".rpartition(".")
    found = getattr(import_module(home), last, None)
    return import_module(f"multilevel.{name}") if found is None else found


def test_classes_of_the_reference_show_all_their_verbs() -> None:
    for page in (DOCS / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, options in re.findall(r"^\.\. autoclass:: multilevel\.([\w.]+)\n((?:   :.*\n)*)", text, re.MULTILINE):
            verbs = [n for n, v in inspect.getmembers(of(name)) if not n.startswith("_") and callable(v)]
            assert ":members:" in options or page.name == "priors.md" or not verbs, (
                f"{page.name}: {name} without its members"
            )


def undocumented(cls: type) -> list[str]:
    """Public methods and properties of a class, inherited from this package too, that have no docstring."""
    out = []
    for home in cls.__mro__:
        if not home.__module__.startswith("multilevel"):
            continue
        for name, member in vars(home).items():
            verb = callable(member) or isinstance(member, (property, classmethod, staticmethod))
            if verb and not name.startswith("_") and not inspect.getdoc(getattr(cls, name)):
                out.append(f"{cls.__name__}.{name}")
    return out


def test_everything_in_the_reference_has_a_docstring() -> None:
    things = {name: of(name) for name in documented()}
    assert len(things) > 60
    lacking = [name for name, thing in things.items() if not inspect.getdoc(thing)]
    lacking += [verb for thing in things.values() if inspect.isclass(thing) for verb in undocumented(thing)]
    assert not lacking


def test_wholly_offline_patterns_see_what_would_be_fetched() -> None:
    assert FETCHED.search('<script defer src="https://cdn.example.org/mathjax.js">')
    assert FETCHED.search("<link rel='stylesheet' href='//fonts.example.org/css'>")
    assert FETCHED_BY_STYLE.search("@font-face { src: url(https://fonts.example.org/a.woff2) }")
    assert not FETCHED.search('<a href="https://arxiv.org/abs/1309.3339">a link may be followed</a>')


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sphinx") is None or find_spec("furo") is None, reason="needs the extra docs")
def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
        str(DOCS),
    ]
    done = subprocess.run([*command, str(tmp_path / "site")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    assert not [page for page in pages if FETCHED.search(page.read_text(encoding="utf-8"))]
    styles = list((tmp_path / "site").rglob("*.css"))
    assert styles
    assert not [style for style in styles if FETCHED_BY_STYLE.search(style.read_text(encoding="utf-8"))]
    text = (tmp_path / "site" / "api" / "fit.html").read_text(encoding="utf-8")
    for verb in ("ranova", "bootstrap", "means", "predict", "pvalues"):  # own and inherited
        assert f'id="multilevel.Fit.{verb}"' in text
