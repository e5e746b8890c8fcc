"""The page of report(): self-contained, escaped, small, accessible; where it may be written; the command line."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from posterior_samples import SLEEP, sampled
from report_reader import Page
from test_cli import mistake

import multilevel as ml
from multilevel import report_file
from multilevel.errors import ColumnError, FileError, OptionError

BAD = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def fit() -> ml.Fit:
    return ml.lmer(SLEEP, ml.load("sleepstudy"))


def odd() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    names = {"y": 'score <b>&"x"', "x": "dose $mg$ > 5 %", "g": "class's <i>k</i>", "a": "arm: [T.x] {0}"}
    n = 160
    data = {"y": rng.normal(50, 10, n), "x": rng.normal(size=n), "g": rng.choice(list("pqrstuv") + ["<u>"], n)}
    return pd.DataFrame({**data, "a": rng.choice([BAD, "b&c\x07"], n)}).rename(columns=names)


def sound(page: Page) -> None:
    """Nothing is loaded, nothing runs, all is labelled."""
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "u"}
    for tag, given in page.tags:
        assert not any(name.startswith("on") for name in given), (tag, given)
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            value = given.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, value[:60])
        if tag == "img":
            assert len(given["alt"] or "") > 20 and int(given["width"] or 0) > 0 and int(given["height"] or 0) > 0
        if tag == "th":
            assert given["scope"] in ("col", "row")
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert 'lang="en"' in page.source and "viewport" in page.source
    ids = [given["id"] for _, given in page.tags if given.get("id")]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    for kind, content in page.pictures():
        assert content.startswith(b"\x89PNG") if kind == "png" else b"<svg" in content and b"<script" not in content


def test_the_page_is_self_contained_with_pictures(fit, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    page = Page(ml.report(fit, tmp_path / "a.html"))
    sound(page)
    assert len(page.pictures()) == 5 and len(page.source) < 700_000
    assert not re.search(r"https?://", page.source)


def test_a_posterior_with_pictures(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    page = Page(ml.report(sampled(SLEEP, ml.load("sleepstudy")), tmp_path / "a.html"))
    sound(page)
    assert len(page.pictures()) == 6 and len(page.source) < 900_000


def test_everything_of_the_user_is_escaped(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    data = odd()
    y, x, g, a = data.columns
    model = ml.lmer(f"`{y}` ~ `{x}` * `{a}` + (1 | `{g}`)", data)
    page = Page(ml.report(model, tmp_path / "a.html", title=BAD, question=f"Is {BAD} & so?", author="<b>me</b>",
                          units={x: "<mg>", y: "</p>"}))  # fmt: skip
    sound(page)
    assert "<script" not in page.source and "<mg>" not in page.source and "<b>me" not in page.source
    assert page.text.startswith(BAD) and f"Is {BAD} & so?" in page.text
    assert f"one more <mg> of {x} goes with {y} " in page.text
    assert f"{a} being b&c rather than {BAD}" in page.text
    assert "\x07" not in page.source
    assert {row[0][0] for row in page.table(f"{g}: (Intercept)").rows} == set(data[g])


def test_thousands_of_groups_and_hundreds_of_columns_stay_small(tmp_path) -> None:
    rng = np.random.default_rng(2)
    n = 9000
    data = pd.DataFrame(
        {
            "g": rng.integers(0, 3000, n),
            "k": np.char.add("k", rng.integers(0, 150, n).astype(str)),
            "x": rng.normal(size=n),
        }
    )
    data["y"] = rng.normal(size=3000)[data["g"]] + data["x"] + rng.normal(size=n)
    model = ml.lmer("y ~ x + k + (1 | g)", data)
    start = time.perf_counter()
    page = Page(ml.report(model, tmp_path / "a.html", pictures=False))
    assert time.perf_counter() - start < 60 and len(page.source) < 100_000
    levels = page.table("g: (Intercept), the 6 highest and 6 lowest of")
    effects = model.ranef().sort_values("estimate", ascending=False)
    assert levels.names() == effects["level"].astype(str).tolist()[:6] + effects["level"].astype(str).tolist()[-6:]
    assert len(page.table("Fixed effects").rows) == 60 and "further coefficients stand in the table" in page.text


@pytest.mark.slow
def test_pictures_of_large_fits_become_small(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    model = ml.lmer("score ~ gcsescore + (1 | lea/school)", ml.load("chem97"))
    page = Page(ml.report(model, tmp_path / "a.html"))
    sound(page)
    assert len(page.source) < 900_000


def test_the_users_figures_and_settings_stay(fit, tmp_path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    mine, before = plt.figure(), dict(plt.rcParams)
    ml.report(fit, tmp_path / "a.html")
    assert plt.get_fignums() == [mine.number] and dict(plt.rcParams) == before
    plt.close(mine)


def test_without_matplotlib_the_page_says_so(fit, tmp_path, monkeypatch) -> None:
    from multilevel import report_drawn, report_pictures

    for module in (report_drawn, report_pictures):
        monkeypatch.setattr(module, "available", lambda: False)
    page = Page(ml.report(fit, tmp_path / "a.html"))
    assert not page.pictures() and "pip install multilevel[plots]" in page.sections["predictions"]


def test_light_dark_and_paper_have_their_rules(fit, tmp_path) -> None:
    source = Page(ml.report(fit, tmp_path / "a.html", pictures=False)).source
    assert "screen and (prefers-color-scheme: dark)" in source and "@media print" in source and "@page" in source


def contrast(one: str, other: str) -> float:
    """Of WCAG 2.1: ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_its_ground() -> None:
    from multilevel.report_style import STYLE

    for block in re.findall(r":root \{[^}]*--paper[^}]*\}", STYLE):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for ground in ("paper", "wash"):
            for ink in ("ink", "soft", "link", "ok", "look", "problem"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


# -- where it is written ----------------------------------------------------------------------------------------


def test_the_path_comes_back_and_a_file_is_replaced(fit, tmp_path) -> None:
    place = tmp_path / "a.html"
    place.write_text("old")
    assert ml.report(fit, place, pictures=False) == str(place) and place.read_text().startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["a.html"]


def test_places_that_cannot_be_written(fit, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report_file, "_page", lambda *_: pytest.fail("computed before the path was looked at"))
    with pytest.raises(FileError, match="is a directory"):
        ml.report(fit, tmp_path)
    with pytest.raises(FileError, match="there is no directory"):
        ml.report(fit, tmp_path / "no" / "a.html")
    with pytest.raises(FileError, match="empty"):
        ml.report(fit, "")
    with pytest.raises(OptionError, match="path is a text"):
        ml.report(fit, 3)
    kept = tmp_path / "kept.html"
    kept.write_text("mine")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(kept))  # root may write everywhere
    with pytest.raises(FileError, match="may not be changed"):
        ml.report(fit, kept)
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"title": 3}, OptionError, "title must be a text, got int"),
        ({"question": ["a"]}, OptionError, "question must be a text"),
        ({"units": "ms"}, OptionError, "units is a dict"),
        ({"units": {"Day": "d"}}, ColumnError, "did you mean 'Days'"),
        ({"level": 95}, OptionError, "level"),
        ({"pictures": "no"}, OptionError, "pictures"),
    ],
)
def test_options_that_are_refused(fit, tmp_path, options, kind, words) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        ml.report(fit, tmp_path / "a.html", **options)
    assert not os.listdir(tmp_path)


def test_what_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(OptionError, match=r"got Model; fit it first: model\.fit\(\)"):
        ml.report(ml.Model(SLEEP, ml.load("sleepstudy")), tmp_path / "a.html")
    with pytest.raises(OptionError, match="takes a Fit or a Posterior, got str"):
        ml.report("fit.mlv", tmp_path / "a.html")


# -- the command line -------------------------------------------------------------------------------------------


def test_fit_writes_a_report(run: Run, tmp_path: Path, fit) -> None:
    status, out, err = run("fit", SLEEP, "sleepstudy", "--report", "out.html", "--json", "a.json")
    assert (status, err) == (0, "") and out.endswith("\n\nWrote a.json, out.html\n")
    page = Page(tmp_path / "out.html")
    assert page.table("Fixed effects").column(1) == fit.fixef()["estimate"].tolist()


def test_fit_with_bayes_writes_a_report(run: Run, tmp_path: Path) -> None:
    short = ("--draws", "200", "--seed", "1", "--prior", "sigma=HalfNormal(50)")
    status, out, err = run("fit", SLEEP, "sleepstudy", "--bayes", *short, "--report", "out.html")
    assert status == 0 and out.endswith("Wrote out.html\n"), err
    assert "HalfNormal(50)" in Page(tmp_path / "out.html").sections["model"]


def test_report_of_a_saved_model(run: Run, tmp_path: Path, fit) -> None:
    fit.save(tmp_path / "a.mlv", data=True)
    words = ("--title", "Sleep", "--question", "Does it slow?", "--author", "A. Reader", "--unit", "Days=day")
    status, out, err = run("report", "a.mlv", "out.html", *words, "--level", "0.9", "--no-pictures")
    assert (status, out, err) == (0, "Wrote out.html\n", "")
    page = Page(tmp_path / "out.html")
    assert page.text.startswith("Sleep") and "Does it slow?" in page.sections["question"] and not page.pictures()
    assert "one more day of Days" in page.text and "90% from" in page.table("Fixed effects").heads


def test_update_writes_a_report(run: Run, tmp_path: Path, fit) -> None:
    fit.save(tmp_path / "a.mlv", data=True)
    assert run("update", "a.mlv", ". ~ . - (Days | Subject) + (1 | Subject)", "--report", "out.html")[0] == 0
    assert "(1 | Subject)" in Page(tmp_path / "out.html").sections["model"]


def test_mistakes_of_the_command_line(run: Run, tmp_path: Path, fit) -> None:
    fit.save(tmp_path / "a.mlv")
    mistake(run("report", "a.mlv", "no/out.html"), "there is no directory 'no'")
    mistake(run("report", "a.mlv", "a.mlv"), "it is read by this command")
    mistake(run("report", "a.mlv", "out.html", "--unit", "Days"), "--unit 'Days' cannot be read", "--unit Days=day")
    mistake(run("report", "a.mlv", "out.html", "--unit", "Day=d"), "--unit names 'Day'", "did you mean 'Days'")
    mistake(run("report", "a.mlv", "out.html", "--level", "95"), "level")
    mistake(run("report", "none.mlv", "out.html"), "none.mlv")
    mistake(run("fit", SLEEP, "sleepstudy", "--report", "."), "is a directory")
    mistake(run("fit", SLEEP, "sleepstudy", "--report", "a", "--json", "a"), "it is named twice")
    assert sorted(os.listdir(tmp_path)) == ["a.mlv"]
