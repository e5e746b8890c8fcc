"""The figures of pooling: what is drawn is what the models say."""

from __future__ import annotations

import numpy as np
import pytest

import multilevel as ml
from multilevel.plot_panels import COLOURS, FAINT
from multilevel.pooling_facets import lines_of, shrinkage_of

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def schools():
    return ml.pooling("math ~ homework", "schid", ml.load("math10"))


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def assert_lines_are_predictions(found, x, groups=4, **held):
    lines = lines_of(found, x, None, groups)
    for facet in lines.facets:
        grid = lines.grid if lines.labels is None else np.array(lines.labels, dtype=object)
        new = {
            x: grid,
            found.group: np.full(len(grid), facet.level, dtype=object),
            **{k: np.full(len(grid), v[facet.level]) for k, v in held.items()},
        }
        table = found.predict(new)
        for name, kind in (("pooled", "complete"), ("unpooled", "no"), ("partial", "partial")):
            np.testing.assert_allclose(getattr(facet, name), np.asarray(table[kind]), rtol=1e-7)


def test_lines_are_those_of_predict(schools):
    assert_lines_are_predictions(schools, "homework")


def test_lines_of_shared_slopes_and_of_groups_predictors():
    radon = ml.load("radon")
    uranium = radon.groupby("county")["log_uranium"].first().to_dict()
    found = ml.pooling("log_radon ~ log_uranium + floor", "county", radon, vary="1")
    assert lines_of(found, None, None, 3).x == "floor"  # the other is the same in all rows of a county
    assert_lines_are_predictions(found, "floor", 12, log_uranium=uranium)
    slopes = {round(float(np.diff(facet.unpooled)[0]), 8) for facet in lines_of(found, None, None, 9).facets}
    assert len(slopes) == 1


def test_curves_of_counts_are_means():
    sleep = ml.load("sleepstudy").assign(count=lambda d: (d["Reaction"] / 20).round())
    found = ml.pooling("count ~ Days", "Subject", sleep, family="poisson")
    assert_lines_are_predictions(found, "Days")
    axes = found.plot(max_groups=4)
    assert len(axes) == 4


def test_lines_of_posteriors():
    math = ml.load("math10")
    found = ml.pooling("math ~ homework", "schid", math, method="sample", seed=1, chains=2, draws=200, progress=False)
    assert_lines_are_predictions(found, "homework", 3)
    sleep = ml.load("sleepstudy").assign(count=lambda d: (d["Reaction"] / 20).round())
    counts = ml.pooling(
        "count ~ Days", "Subject", sleep, family="poisson", vary="1", method="sample", seed=1, chains=2, draws=200,
        progress=False,
    )  # fmt: skip
    assert_lines_are_predictions(counts, "Days", 3)
    assert len(found.plot(levels=["7472", "7829"])) == 2


def test_facets_show_data_and_three_lines(schools):
    axes = schools.plot()
    assert len(axes) == 10
    texts = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert len(texts) == 4 and texts[0] == "data"
    assert axes[0].get_title() == "7472 (n = 23)"


def test_without_predictors_the_coefficients_are_drawn():
    found = ml.pooling("math ~ 1", "schid", ml.load("math10"))
    ax = found.plot()
    assert ax.get_title() == "Intercept"
    labels = [text.get_text() for text in ax.get_yticklabels()]
    sizes = [int(text.rsplit("(", 1)[1].rstrip(")")) for text in labels]
    assert sizes == sorted(sizes) and labels[-1] == "62821 (67)"
    lines = {line.get_label(): line for line in ax.lines}
    order = [np.flatnonzero(found.columns.levels.astype(str) == text.split(" ")[0])[0] for text in labels]
    np.testing.assert_allclose(lines["partial pooling"].get_xdata(), found.estimates["partial"].estimate[order, 0])
    np.testing.assert_allclose(lines["no pooling"].get_xdata(), found.estimates["no"].estimate[order, 0])


def test_coefficients_of_one_term_and_some_groups(schools):
    ax = schools.plot("coefficients", term="homework", levels=[7472, 62821])
    assert ax.get_title() == "homework" and len(ax.get_yticklabels()) == 2
    assert len(schools.plot("coefficients")) == 2


def test_shrinkage_draws_the_estimates(schools):
    one = shrinkage_of(schools)
    np.testing.assert_allclose(one.own, schools.estimates["no"].estimate)
    np.testing.assert_allclose(one.population, schools.partial.fixef()["estimate"], rtol=1e-10)
    ax = schools.plot("shrinkage")
    assert ax.get_xlabel() == "Intercept" and ax.get_ylabel() == "homework"
    assert schools.plot("shrinkage", term="homework").get_xlabel() == "homework"


def test_axes_of_the_user(schools):
    figure, axes = pyplot.subplots(1, 2)
    out = schools.plot("coefficients", ax=axes)
    assert out[0] is axes[0] and out[0].get_legend() is not None
    assert figure.legends == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "bars"}, "allowed are 'lines', 'coefficients', 'shrinkage'"),
        ({"kind": "coefficients", "x": "homework"}, "x is the predictor of kind='lines'"),
        ({"term": "homework"}, "kind='lines' has x"),
        ({"kind": "shrinkage", "levels": [7472]}, "draws all groups"),
        ({"kind": "coefficients", "term": "ses"}, "coefficient that varies by group"),
        ({"x": "ses"}, "predictor of the model"),
        ({"levels": [1]}, "level of 'schid'"),
        ({"max_groups": 0}, "max_groups must be a positive whole number"),
    ],
)
def test_refusals(schools, arguments, words):
    with pytest.raises(ml.OptionError, match=words):
        schools.plot(**arguments)


def test_lines_are_faint_beyond_the_rows_of_their_group():
    """No pooling stops where the group's own rows do; the other two go on, faintly, so that no number is hidden."""
    found = ml.pooling("math ~ homework", "schid", ml.load("math10"))
    axes, math = found.plot(), ml.load("math10")
    for ax, level in zip(axes, found.columns.levels, strict=True):
        own = math.loc[math["schid"].astype(str) == str(level), "homework"]
        drawn = {}
        for line in ax.lines:
            x, y = (np.asarray(part, dtype=float) for part in line.get_data())
            drawn.setdefault((line.get_color(), line.get_alpha()), []).append(x[np.isfinite(y)])
        no, partial, complete = (COLOURS[name] for name in ("unpooled", "partial", "pooled"))
        assert (no, FAINT) not in drawn
        for colour in (no, partial, complete):
            inside = drawn[colour, None][0]
            assert (inside.min(), inside.max()) == (own.min(), own.max())
        for colour in (partial, complete):
            faint = (colour, FAINT) in drawn
            assert faint == (own.min() > 0 or own.max() < 7)
            if faint:
                outside = drawn[colour, FAINT][0]
                assert not ((outside > own.min()) & (outside < own.max())).any()
                assert {outside.min(), outside.max()} & {0.0, 7.0}
    words = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert words == ["data", "complete pooling", "no pooling", "partial pooling"]
    assert "faint: beyond the group's own rows" in axes[0].figure.legends[0].get_title().get_text()

