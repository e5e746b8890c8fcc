"""Plots of a classifier show its numbers, with the user's names, and leave no trace elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taxonomy_samples import articles

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel.errors import DataError, OptionError  # noqa: E402
from multilevel.taxonomy import metrics, panels  # noqa: E402
from multilevel.taxonomy.tree import Taxonomy  # noqa: E402

pytestmark = pytest.mark.usefixtures("settings_kept")
LEVELS = ["kingdom", "family", "kind"]


@pytest.fixture(scope="module")
def sample():
    return articles()


@pytest.fixture(scope="module")
def model(sample):
    return ml.TaxonomyClassifier(n_jobs=1, levels=LEVELS).fit(sample.x, sample.y)


class Given(ml.TaxonomyClassifier):
    """A large tree, and probabilities that are given instead of features."""

    _leaf_probabilities = staticmethod(np.asarray)

    def __init__(self, paths):
        super().__init__()
        self.tree_ = Taxonomy.from_paths(paths)


def drawn(axes):
    """Draw for real: layout that does not work warns, and warnings are errors here."""
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()
    return figure


def texts(ax):
    return [one.get_text() for one in ax.texts if one.get_text()]


def overlapping(figure, artists):
    """Pairs of texts whose boxes overlap."""
    renderer = figure.canvas.get_renderer()
    boxes = [
        (one.get_text(), one.get_window_extent(renderer)) for one in artists if one.get_text() and one.get_visible()
    ]
    return [(a, b) for k, (a, one) in enumerate(boxes) for b, other in boxes[:k] if one.overlaps(other)]


# -- the tree of one item -------------------------------------------------------------------------------------


def test_tree_shows_every_node_and_its_probability(model, sample):
    ax = model.plot_tree(sample.test_x[[3]])
    figure = drawn(ax)
    names = texts(ax)[::2]
    assert sorted(names) == sorted(model.tree_.names)
    p = model.tree_.sums(model.predict_proba(sample.test_x[[3]]))[0]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [p[model.tree_.node(name)] for name in names])
    bold = [one.get_text() for one in ax.texts if one.get_fontweight() == "bold"]
    assert tuple(bold) == model.tree_.paths[model.tree_.leaves[model.predict_proba(sample.test_x[[3]]).argmax()]]
    assert bold[-1] in figure.get_suptitle()
    assert not overlapping(figure, ax.texts)


def test_tree_takes_a_row_in_every_form(model, sample):
    expected = [bar.get_width() for bar in model.plot_tree(sample.test_x[[7]]).patches]
    dense = sample.test_x.toarray()
    frame = pd.DataFrame(dense)
    for row in (sample.test_x[7], dense[7], dense[[7]], dense[7].tolist(), frame.iloc[7].to_numpy()):
        np.testing.assert_allclose([bar.get_width() for bar in model.plot_tree(row).patches], expected)
    with_names = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(
        pd.DataFrame(sample.x.toarray()).add_prefix("w"), sample.y
    )
    row = frame.add_prefix("w").iloc[7]
    assert len(with_names.plot_tree(row).patches) == len(model.tree_)


def test_a_large_tree_shows_the_path_and_what_lies_beside():
    big = Given([(f"a{i}", f"a{i}b{j}", f"a{i}b{j}c{k}") for i in range(20) for j in range(10) for k in range(9)])
    tree = big.tree_
    p = np.random.default_rng(0).dirichlet(np.full(len(tree.leaves), 0.1), 1)
    rows = panels.tree_rows(tree, tree.sums(p[0]), tree.ancestors(int(tree.leaves[p.argmax()])))
    assert [sum(row.depth == d for row in rows) for d in range(3)] == [8, 8, 8 if len(rows) == 24 else 9]
    assert sum(row.p for row in rows if row.depth == 0) == pytest.approx(1)
    for above in {row.above for row in rows} - {-1}:
        assert sum(row.p for row in rows if row.above == above) == pytest.approx(rows[above].p)
    ax = big.plot_tree(p)
    figure = drawn(ax)
    assert "13 others" in texts(ax)
    assert any(re.fullmatch(r"a\d+ \[90\]", one) for one in texts(ax))
    assert "1,800 classes" in ax.get_title()
    assert not overlapping(figure, ax.texts)


def test_a_deep_tree_stays_readable():
    paths = [(*[f"n{d}" for d in range(k)], f"leaf{k}-{j}") for k in range(12) for j in range(9)]
    deep = Given([*paths, tuple(f"n{d}" for d in range(13))])
    p = np.full((1, len(deep.tree_.leaves)), 0.002)
    p[0, deep.tree_.leaf_of[deep.tree_.node("leaf11-3")]] = 1 - 0.002 * (p.shape[1] - 1)
    figure = drawn(ax := deep.plot_tree(p))
    assert figure.get_figheight() < 12
    assert "leaf11-3" in texts(ax)
    assert not overlapping(figure, ax.texts)


# -- confusion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, "family", None])
def test_confusion_shows_shares_of_the_true_classes(model, sample, level):
    ax = model.plot_confusion(sample.test_x, sample.test_y, level)
    figure = drawn(ax)
    classes = list(model.classes_at(level))
    tree = model.tree_
    truth = [tree.labels[v] for v in tree.raised(tree.nodes_of(sample.test_y), level)]
    expected = pd.crosstab(pd.Categorical(truth, classes), model.predict(sample.test_x, level), normalize="index")
    expected = expected.reindex(index=classes, columns=classes, fill_value=0).to_numpy()
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert [one.get_text() for one in ax.get_yticklabels()] == classes
    written = {f"{100 * share:.0f}" for share in expected.ravel() if share >= 0.005}
    assert set(texts(ax)) == written
    right = model.score(sample.test_x, sample.test_y, level=level)
    assert f"400 items, {100 * right:.1f}% right" in ax.get_title()
    assert not overlapping(figure, ax.get_xticklabels())


def test_confusion_says_what_it_leaves_out(model, sample):
    y = sample.test_y[:30].copy()
    y[sample.test_y[:30, 2] == "ducks"] = ["animals", "birds", ""]
    partial = int(np.sum(sample.test_y[:30, 2] == "ducks"))
    title = model.plot_confusion(sample.test_x[:30], y).get_title().replace("\n", " ")
    assert f"{30 - partial} items" in title
    assert f"{partial} partial labels above this level left out" in title
    assert "of the 9 classes without items (grey)" in title
    assert "partial" not in model.plot_confusion(sample.test_x[:30], y, "family").get_title()


def many(parents, most, seed=0):
    """A tree of `parents` classes with one to `most` children, and probabilities and labels of 400 items."""
    generator = np.random.default_rng(seed)
    tree = Given([(f"parent {i}", f"{i}-{j}") for i in range(parents) for j in range(generator.integers(1, most))])
    leaves = len(tree.tree_.leaves)
    truth = generator.integers(0, leaves, 400)
    p = generator.dirichlet(np.full(leaves, 0.05), 400)
    p = 0.5 * p + 0.5 * np.eye(leaves)[truth]
    return tree, p, [tree.tree_.labels[tree.tree_.leaves[k]] for k in truth]


def test_confusion_of_many_classes_names_their_parents():
    model, p, y = many(25, 14)
    ax = model.plot_confusion(p, y)
    figure = drawn(ax)
    names = [one.get_text() for one in ax.get_yticklabels()]
    assert names == [model.tree_.labels[v] for v in model.tree_.at_level(1)]
    assert not overlapping(figure, ax.get_yticklabels())
    assert not overlapping(figure, ax.get_xticklabels())


def test_confusion_without_names_where_none_can_be_read():
    model, p, y = many(200, 4)
    ax = model.plot_confusion(p, y)
    drawn(ax)
    assert not ax.get_yticklabels()
    assert ax.get_ylabel() == "true"


def test_confusion_of_too_many_classes_proposes_a_level():
    model = Given([(f"a{i}", f"{i}-{j}") for i in range(40) for j in range(40)])
    p = np.full((1, 1600), 1 / 1600)
    with pytest.raises(
        OptionError, match=r"level 'level 2' has 1,600 classes.*take a level above it: 1 \(40 classes\)"
    ):
        model.plot_confusion(p, ["0-0"])
    drawn(model.plot_confusion(p, ["0-0"], 1))


@given(st.lists(st.floats(0, 50), min_size=1, max_size=12).map(sorted))
def test_places_are_moved_apart_and_no_more(places):
    end, gap = 60.0, 3.0
    found = panels.apart(np.array(places), gap, end)
    assert np.all(np.diff(found) >= gap - 1e-9)
    assert found[0] >= 0 and found[-1] <= end + 1e-9
    if np.all(np.diff(places) >= gap):
        np.testing.assert_allclose(found, places, atol=1e-9)


# -- reliability, risk and coverage ---------------------------------------------------------------------------


def test_reliability_shows_the_bins_of_each_level(model, sample):
    axes = model.plot_reliability(sample.test_x, sample.test_y)
    drawn(axes)
    p = model.predict_proba(sample.test_x)
    assert len(axes) == 3
    for ax, level in zip(axes, LEVELS, strict=True):
        table = metrics.reliability(model, sample.test_y, p, level, bins=10)
        shown = ax.lines[-1].get_xydata()
        np.testing.assert_allclose(shown, table[["confidence", "accuracy"]].to_numpy())
        error = metrics.calibration_error(model, sample.test_y, p, level, bins=10)
        assert ax.get_title() == f"{level}: n = 400, ECE {error:.3f}"
    one = model.plot_reliability(sample.test_x, sample.test_y, "kind", bins=5, equal="mass")
    drawn(one)
    table = metrics.reliability(model, sample.test_y, p, "kind", bins=5, equal="mass")
    np.testing.assert_allclose(one.lines[-1].get_ydata(), table["accuracy"])


def test_intervals_of_shares_are_those_of_scipy():
    from scipy.stats import binomtest

    counts = np.array([1, 5, 40, 300])
    low, high = panels.wilson(np.array([0, 3, 39, 120]) / counts, counts)
    for k, (right, n) in enumerate([(0, 1), (3, 5), (39, 40), (120, 300)]):
        expected = binomtest(right, n).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose([low[k], high[k]], expected, atol=1e-12)


def test_risk_coverage_has_a_line_for_each_level(model, sample):
    ax = model.plot_risk_coverage(sample.test_x, sample.test_y)
    drawn(ax)
    p = model.predict_proba(sample.test_x)
    assert len(ax.get_legend().get_texts()) == 3
    for k, level in enumerate(LEVELS):
        table = metrics.risk_coverage(model, sample.test_y, p, level)
        table = table[table["coverage"] * 400 >= 20]
        np.testing.assert_allclose(ax.lines[2 * k].get_xydata(), table[["coverage", "risk"]].to_numpy())
        assert (
            f"{level} (all: {100 * table['risk'].iloc[-1]:.1f}%, n = 400)" == ax.get_legend().get_texts()[k].get_text()
        )
    assert len(model.plot_risk_coverage(sample.test_x, sample.test_y, 1).get_legend().get_texts()) == 1


def test_partial_labels_count_where_they_reach(model, sample):
    kept = sample.test_y[:, 2] != ""
    y = sample.test_y[kept].copy()
    y[:, 2] = ""
    axes = model.plot_reliability(sample.test_x[kept], y)
    assert [ax.get_title().split(":")[0] for ax in axes] == ["kingdom", "family"]
    with pytest.raises(DataError, match="no label reaches the level 'kind'"):
        model.plot_risk_coverage(sample.test_x[kept], y, "kind")


def test_labels_as_a_data_frame_with_other_columns(model, sample):
    y = pd.DataFrame(sample.test_y, columns=LEVELS).assign(note="x")
    expected = model.plot_risk_coverage(sample.test_x, sample.test_y).lines[0].get_xydata()
    np.testing.assert_array_equal(model.plot_risk_coverage(sample.test_x, y).lines[0].get_xydata(), expected)


# -- scales ---------------------------------------------------------------------------------------------------


def test_scales_show_every_trial_and_those_chosen(model):
    ax = model.plot_scales()
    drawn(ax)
    labels = [one.get_text() for one in ax.get_legend().get_texts()]
    assert labels == [f"{name}: {value:.3g}" for name, value in model.scales_.items()]
    for k, value in enumerate(model.scales_.values()):
        points, line = ax.lines[2 * k], ax.lines[2 * k + 1]
        trials = sorted((scales[k], loss) for scales, loss in model.scale_profile_)
        np.testing.assert_allclose(sorted(map(tuple, points.get_xydata())), trials)
        np.testing.assert_allclose(line.get_xdata(), value)


def test_many_scales_are_sorted(model, monkeypatch):
    names = tuple(f"below {k}" for k in range(12))
    generator = np.random.default_rng(0)
    profile = [(np.full(12, 5.0), 2.0), (generator.uniform(0.2, 90, 12), 1.5)]
    shape = type(model.fitted_.shape)(names, np.zeros((1, 1), dtype=np.intp), 3.0)
    for name, value in (("profile", profile), ("shape", shape), ("scales", profile[1][0])):
        monkeypatch.setattr(model.fitted_, name, value)
    ax = model.plot_scales()
    figure = drawn(ax)
    order = np.argsort(profile[1][0])
    assert [one.get_text() for one in ax.get_yticklabels()] == [names[k] for k in order]
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), profile[1][0][order])
    assert not overlapping(figure, ax.get_xticklabels())


def test_scales_that_were_given_have_no_profile(sample):
    fixed = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(sample.x, sample.y)
    with pytest.raises(OptionError, match=r"scales='fixed'\) were not looked for"):
        fixed.plot_scales()


# -- manners --------------------------------------------------------------------------------------------------


def test_plots_on_given_axes(model, sample):
    figure, axes = plt.subplots(2, 3, figsize=(15, 9))
    x, y = sample.test_x, sample.test_y
    assert model.plot_tree(x[[0]], ax=axes[0, 0]) is axes[0, 0]
    assert model.plot_confusion(x, y, ax=axes[0, 1]) is axes[0, 1]
    assert model.plot_risk_coverage(x, y, ax=axes[0, 2]) is axes[0, 2]
    assert model.plot_scales(ax=axes[1, 0]) is axes[1, 0]
    assert model.plot_reliability(x, y, 1, ax=axes[1, 1]) is axes[1, 1]
    drawn(axes)
    assert figure.get_suptitle() == ""
    with pytest.raises(OptionError, match="there are 3 panels to draw, but ax has 2"):
        model.plot_reliability(x, y, ax=axes[1, :2])
    with pytest.raises(OptionError, match="ax must be a matplotlib Axes"):
        model.plot_tree(x[[0]], ax="here")


def test_bad_input(model, sample):
    with pytest.raises(OptionError, match=r"X_row has 400 rows.*X\[\[0\]\]"):
        model.plot_tree(sample.test_x)
    with pytest.raises(DataError, match="X has 400 rows and y has 5"):
        model.plot_confusion(sample.test_x, sample.test_y[:5])
    with pytest.raises(OptionError, match="level=7 is not a level"):
        model.plot_confusion(sample.test_x, sample.test_y, 7)
    with pytest.raises(OptionError, match="bins=0"):
        model.plot_reliability(sample.test_x, sample.test_y, bins=0)
    with pytest.raises(DataError, match="row 0: the label 'newts'"):
        model.plot_risk_coverage(sample.test_x[[0]], ["newts"])
    from sklearn.exceptions import NotFittedError

    for verb, arguments in (("tree", [sample.x[[0]]]), ("scales", []), ("confusion", [sample.x, sample.y])):
        with pytest.raises(NotFittedError):
            getattr(ml.TaxonomyClassifier(), f"plot_{verb}")(*arguments)


def test_without_matplotlib_the_error_says_what_to_install(model, sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for call in (
        model.plot_scales,
        lambda: model.plot_tree(sample.x[[0]]),
        lambda: model.plot_confusion(sample.x, sample.y),
    ):
        with pytest.raises(OptionError, match=r"pip install multilevel\[plots\]"):
            call()


def test_the_plots_do_not_import_matplotlib_before_one_is_drawn():
    code = "import sys, multilevel.taxonomy.plots, multilevel.taxonomy.metrics; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
