"""New rows, simpler models, updates of read fits and the package marginaleffects, for generalised models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import MODELS, OWLS, fitted
from numpy.typing import NDArray
from scipy import optimize, special

import multilevel as ml
from multilevel import generalised_marginaleffects
from multilevel.generalised_condition import LinkConditioned

Array = NDArray[np.float64]

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


# -- new rows -----------------------------------------------------------------------------------------------------


def test_effects_are_at_the_mode_given_all_rows() -> None:
    """Against the log posterior of each herd, minimised by itself, and its curvature."""
    fit = fitted("binomial")
    new = pd.DataFrame({"herd": ["1", "1", "20"], "period": ["4", "3", "1"], "incidence": [5, 0, 9], "size": [10, 6, 10]})
    made = fit.condition(new)
    assert isinstance(made, LinkConditioned) and made.n_new == 3 and list(made.new_levels["herd"]) == ["20"]
    assert "3 more rows" in repr(made)
    table = made.ranef().set_index("level")
    both = pd.concat([fit.model.data.astype({"herd": str, "period": str}), new])
    eta = fit.predict(both.assign(herd="1"), groups=None, kind="link")["prediction"].to_numpy()
    variance = fit.random_cov()[0][0, 0]
    for herd in ("1", "2", "20"):
        own = (both["herd"] == herd).to_numpy()
        y, n = both["incidence"].to_numpy()[own], both["size"].to_numpy()[own]

        def posterior(b: float, own: Array = own, y: Array = y, n: Array = n) -> float:
            p = special.expit(eta[own] + b)
            return float(b**2 / variance / 2 - np.sum(y * np.log(p) + (n - y) * np.log1p(-p)))

        mode = optimize.minimize_scalar(posterior, bounds=(-5, 5), method="bounded", options={"xatol": 1e-12}).x
        p = special.expit(eta[own] + mode)
        assert table.loc[herd, "estimate"] == pytest.approx(mode, abs=1e-6)
        assert table.loc[herd, "std_error"] == pytest.approx((1 / variance + np.sum(n * p * (1 - p))) ** -0.5, rel=1e-6)
    predicted = made.predict(new, interval="prediction")
    assert predicted["prediction"][2] > fit.predict(new, new_levels="population")["prediction"][2]
    coef = made.coef()
    value = coef[(coef["level"] == "20") & (coef["term"] == "Intercept")]["value"]
    assert value.iloc[0] == pytest.approx(fit.optimum.beta[0] + table.loc["20", "estimate"])


@pytest.mark.parametrize("name", ["binomial", "two values", "zero-inflated", "ordinal", "gamma"])
def test_row_by_row_is_all_at_once(name: str) -> None:
    fit = fitted(name)
    new = fit.model.data.iloc[[0, 7, 3]]
    once, step = fit.condition(new), fit.condition(new.head(1)).condition(new.tail(2))
    assert step.n_new == 3
    pd.testing.assert_frame_equal(once.ranef(), step.ranef(), rtol=1e-6)
    one, other = (c.predict(new, interval="confidence") for c in (once, step))
    pd.testing.assert_frame_equal(one, other, rtol=1e-6)
    before = fit.ranef()
    assert (once.ranef()["std_error"] <= before["std_error"] * (1 + 1e-6)).all() or name == "zero-inflated"


def test_a_lognormal_response_is_the_linear_model_of_its_logarithm() -> None:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(15), 6)
    x = rng.standard_normal(90)
    z = 1 + 0.4 * x + 0.7 * rng.standard_normal(15)[g] + 0.5 * rng.standard_normal(90)
    data = pd.DataFrame({"z": z, "y": np.exp(z), "x": x, "g": g})
    new = pd.DataFrame({"y": [9.0, 0.4, 3.0], "z": np.log([9.0, 0.4, 3.0]), "x": [0.0, 1.0, -1.0], "g": [2, 2, 99]})
    mine: Any = ml.Model("y ~ x + (1 | g)", data, family="lognormal").fit(threads=1)
    linear = ml.lmer("z ~ x + (1 | g)", data, REML=False)
    one, other = mine.condition(new), linear.condition(new)
    pd.testing.assert_frame_equal(one.ranef(), other.ranef(), rtol=1e-5, atol=1e-6)
    # the linear model takes its variances as known, so its errors are a little smaller
    mine, theirs = one.predict(new, kind="link", interval="confidence"), other.predict(new, interval="confidence")
    ratio = mine["std_error"] / theirs["std_error"]
    assert ((ratio > 0.99) & (ratio < 1.2)).all()


def test_weights_quadrature_files_and_polars(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    data = ml.load("cbpp").eval("share = incidence / size")
    weighted: Any = ml.Model("share ~ period + (1 | herd)", data, family="binomial", weights="size").fit(threads=1)
    new = data.head(2)
    with pytest.raises(ml.DataError, match="fitted with weights"):
        weighted.condition(new)
    wanted = fitted("binomial").condition(new).ranef()
    pd.testing.assert_frame_equal(weighted.condition(new, weights="size").ranef(), wanted, rtol=1e-5)
    with pytest.raises(ml.DataError, match="whole number of successes"):
        weighted.condition(new, weights=[3.0, 3.0])
    nodes: Any = MODELS["binomial"]().fit(quadrature=9, threads=1)
    made = nodes.condition(polars.DataFrame({"herd": ["1"], "period": ["1"], "incidence": [9], "size": [10]}))
    assert made.ranef()["estimate"][0] > nodes.ranef()["estimate"][0]
    fit = fitted("binomial")
    fit.save(tmp_path / "fit.mlv", data=True)
    pd.testing.assert_frame_equal(ml.read(tmp_path / "fit.mlv").condition(new).ranef(), fit.condition(new).ranef(), rtol=1e-9)
    fit.save(tmp_path / "fit.mlv")
    with pytest.raises(ml.DataError, match="saved without its data"):
        ml.read(tmp_path / "fit.mlv").condition(new)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("binomial", {"incidence": 1.5}, "number of successes"),
        ("binomial", {"size": -1.0}, "number of failures"),
        ("binomial", {"herd": None}, "belongs to no group"),
        ("binomial", {"period": None}, "misses a value"),
        ("ordinal", {"rating": 9}, "known are '1', '2', '3', '4', '5'"),
        ("two values", {"r2": "maybe"}, "known are 'N', 'Y'"),
        ("zero-inflated", {"SiblingNegotiation": -2}, "whole number of at least 0"),
        ("gamma", {"Weight": 0.0}, "greater than zero"),
        ("gamma", {"Weight": np.nan}, "Weight"),
    ],
)
def test_impossible_new_rows(name: str, change: dict[str, Any], message: str) -> None:
    fit = fitted(name)
    new = fit.model.data.head(2).astype(object)
    for column, value in change.items():
        new[column] = [value, value]
    with pytest.raises(ml.MultilevelError, match=message):
        fit.condition(new)
    with pytest.raises(ml.MultilevelError):
        fit.condition(fit.model.data.head(0))


def test_there_must_be_groups_to_update() -> None:
    with pytest.raises(ml.DataError, match="no group effects"):
        fitted("no groups").condition(ml.load("cbpp").head(1))
    with pytest.raises(ml.DataError, match="give the rows"):
        fitted("gamma").condition(fitted("gamma").model.data.head(1)).predict(None)


# -- simpler models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quadrature", [1, 7])
def test_the_price_of_a_simpler_model(quadrature: int) -> None:
    data = ml.load("cbpp").assign(incidence=[1, 2] * 28)
    model = ml.Model("incidence ~ 1 + (1 | period)", data, family="nbinom1", zi="~ 1")
    fit: Any = model.fit(quadrature=quadrature, threads=1)
    report = fit.singularity()
    assert report and report.components == ("sd(period, Intercept) = 0",)
    plain = ml.Model("incidence ~ 1", data, family="nbinom1", zi="~ 1").fit(threads=1)
    step = report.suggestion
    assert step.formula == "incidence ~ 1" and step.options == 'family="nbinom1", link="log", zi="~ 1"'
    assert step.criterion == pytest.approx(plain.criterion, abs=1e-5)
    assert step.aic_change == pytest.approx(plain.aic - fit.aic, abs=1e-5) and not step.singular
    assert not fitted("binomial").singularity() and "Try: incidence ~ 1, with family=" in str(report)


def test_a_correlation_of_one() -> None:
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(12), 10), np.tile(np.linspace(-1, 1, 10), 12)
    b = rng.standard_normal(12)[g]
    data = pd.DataFrame({"y": rng.poisson(np.exp(1 + 0.3 * x + 0.5 * b + 0.25 * b * x)), "x": x, "g": g})
    fit: Any = ml.Model("y ~ x + (x | g)", data, family="poisson").fit(threads=1)
    assert fit.is_singular
    report = fit.singularity()
    for step in report.steps:
        other = ml.Model(step.formula, data, family="poisson").fit(threads=1)
        assert step.criterion == pytest.approx(other.criterion, abs=1e-5) and step.change >= -1e-6


# -- updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_read_from_a_file_is_updated(name: str, tmp_path: Path) -> None:
    fit = fitted(name)
    fit.save(tmp_path / "fit.mlv", data=True)
    again: Any = ml.read(tmp_path / "fit.mlv")
    same = again.update()
    assert same.family == fit.family and same.loglik == pytest.approx(fit.loglik, abs=1e-6)
    smaller, direct = again.update(". ~ 1 + " + _random(fit)), fit.update(". ~ 1 + " + _random(fit))
    assert smaller.loglik == pytest.approx(direct.loglik, abs=1e-6) and smaller.npar < fit.npar
    assert fit.model.distribution is not None


def _random(fit: Any) -> str:
    found = [f"({bar.effects} | {bar.group})" for bar in fit.design.formula.bars]
    return " + ".join([*found, *(f"offset({one})" for one in fit.design.formula.offsets)]) or "1"


def test_updates_keep_options_and_take_others(tmp_path: Path) -> None:
    data = ml.load("cbpp").eval("share = incidence / size")
    model = ml.Model("share ~ period + (1 | herd)", data, family="binomial", weights="size")
    weighted: Any = model.fit(quadrature=5, threads=1)
    weighted.save(tmp_path / "fit.mlv", data=True)
    again: Any = ml.read(tmp_path / "fit.mlv")
    assert again.update().loglik == pytest.approx(weighted.loglik, abs=1e-6)
    assert again.update(". ~ . - period").model._quadrature == 5
    assert again.update(quadrature=1).loglik == pytest.approx(fitted("binomial").loglik, abs=1e-6)
    with pytest.raises(ml.OptionError, match="column of its weights"):
        again.update(data=data)
    again = again.update(data=data, weights="size", link="probit", quadrature=1)
    assert again.family.link == "probit"
    owls = fitted("zero-inflated")
    plain = owls.update(zi=None, dispersion=None)
    direct = ml.Model(OWLS, ml.load("owls"), family="nbinom2").fit(threads=1)
    assert plain.loglik == pytest.approx(direct.loglik, abs=1e-6)
    assert owls.update(zi=None, dispersion=None, family="poisson").family.name == "poisson"
    owls.save(tmp_path / "fit.mlv")
    bare: Any = ml.read(tmp_path / "fit.mlv")
    with pytest.raises(ml.DataError, match="saved without its data"):
        bare.update()
    assert bare.update(data=ml.load("owls")).loglik == pytest.approx(owls.loglik, abs=1e-6)
    with pytest.raises(ml.OptionError, match="no option 'zi'"):
        ml.lmer("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")).update(zi="~ 1")


def test_refits_of_read_fits(tmp_path: Path) -> None:
    for name in ("binomial", "ordinal", "zero-inflated"):
        fit = fitted(name)
        y = fit.simulate(1, seed=5)["sim_1"]
        fit.save(tmp_path / "fit.mlv", data=True)
        again: Any = ml.read(tmp_path / "fit.mlv")
        assert again.refit(y, threads=1).loglik == pytest.approx(fit.refit(y, threads=1).loglik, abs=1e-7)


# -- marginaleffects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_predictions_for_marginaleffects(name: str) -> None:
    """The numbers behind the adapter, without the package."""
    fit = fitted(name)
    new = fit.model.data.head(5)
    made = fit.design.at(new, None, offset=fit.design.offset[:5] if fit.design.remake.offset_array else None)
    sides = [made.sides.get(what, np.ones((5, 1))) for what in generalised_marginaleffects.side_names(fit)]
    rows = np.column_stack([made.X, *sides, np.zeros(5) if made.offset is None else made.offset])
    values, names, cov = generalised_marginaleffects.parameters(fit)
    assert len(values) == len(names) == len(cov)
    np.testing.assert_allclose(np.sqrt(np.diag(cov))[: len(fit.optimum.beta)], fit.fixef()["std_error"], rtol=1e-10)
    wanted = fit.predict(new, groups=None).to_numpy()
    found = generalised_marginaleffects.predictions(fit, "response", values, rows)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-10)
    link = fit.predict(new, groups=None, kind="link")["prediction"]
    np.testing.assert_allclose(generalised_marginaleffects.predictions(fit, "link", values, rows), link, rtol=1e-10)
    with pytest.raises(ml.OptionError, match="'mean' is not known"):
        fit.marginaleffects_model("mean")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["binomial", "zero-inflated", "ordinal", "gamma"])
def test_marginaleffects_has_our_standard_errors(name: str) -> None:
    package, polars = pytest.importorskip("marginaleffects"), pytest.importorskip("polars")
    if int(polars.__version__.split(".")[0]) > 1:
        pytest.skip("marginaleffects 0.6 needs polars 1")
    fit = fitted(name)
    new = fit.model.data.drop_duplicates([c for c in fit.design.remake.infos]).head(3)
    numeric = {c: pd.api.types.is_numeric_dtype(new[c].dtype) for c in fit.design.remake.infos}
    columns = {c: (new[c] if number else new[c].astype(str)).tolist() for c, number in numeric.items()}
    made = package.predictions(fit.marginaleffects_model(), newdata=polars.DataFrame(columns))
    wanted = fit.predict(new, groups=None, interval="confidence")
    made = made.sort("rowid")
    if name == "ordinal":
        for label in fit.design.labels:
            own = made.filter(polars.col("group") == label)
            p = wanted[label].to_numpy()
            width = (special.logit(wanted[f"{label}_high"]) - special.logit(wanted[f"{label}_low"])) / 2 / 1.959963985
            np.testing.assert_allclose(own["std_error"].to_numpy(), width * p * (1 - p), rtol=1e-4)
        return
    np.testing.assert_allclose(made["estimate"].to_numpy(), wanted["prediction"], rtol=1e-7)
    p = wanted["prediction"].to_numpy()
    slope = p * (1 - p) if name == "binomial" else p
    error = wanted["std_error"]
    if name == "zero-inflated":
        error = np.log(wanted["conf_high"] / wanted["conf_low"]) / 2 / 1.959963985
    np.testing.assert_allclose(made["std_error"].to_numpy(), slope * error, rtol=1e-4)
