"""Behaviour of generalised models: what must not change the answer, hard data, verbs and their refusals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, gammaln

import multilevel as ml
from multilevel import Model, MultilevelError, OptionError

Array = NDArray[np.float64]
CBPP, EPILEPSY, SALAMANDERS, GROUSE = (ml.load(name) for name in ("cbpp", "epilepsy", "salamanders", "grouseticks"))
HERDS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
SEIZURES = "count ~ zAge + zBase * Trt + (1 | patient)"
ZEROS = {"family": "nbinom2", "zi": "~ mined", "dispersion": "~ DOY"}


def fit(formula: str, data: Any, family: str = "poisson", **options: Any) -> Any:
    """A fit whose warnings are of no interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(formula, data, family=family, **options).fit(threads=1)


def grouped(seed: int, levels: int = 30, rows: int = 8, sd: float = 0.6) -> dict[str, Any]:
    """x, groups and a linear predictor with random intercepts."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=levels * rows)
    eta = 0.4 + 0.5 * x + sd * rng.normal(size=levels)[g]
    return {"g": g, "x": x, "eta": eta, "rng": rng}


def same(one: Any, other: Any, rtol: float = 1e-6) -> None:
    """The same fit."""
    assert one.loglik == pytest.approx(other.loglik, abs=1e-7)
    np.testing.assert_allclose(one.optimum.beta, other.optimum.beta, rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(one.optimum.residual, other.optimum.residual, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one.vcov(), other.vcov(), rtol=1e-4, atol=1e-8)


# -- what must not change the answer ----------------------------------------------------------------------------

CASES: dict[str, tuple[str, pd.DataFrame, dict[str, Any]]] = {
    "binomial": (HERDS, CBPP, {"family": "binomial"}),
    "nb2": (SEIZURES, EPILEPSY, {"family": "nbinom2"}),
    "slope": ("count ~ zBase + (zAge | patient) + (1 | visit)", EPILEPSY, {"family": "poisson"}),
    "three": ("TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", GROUSE, {"family": "poisson"}),
    "zero-inflated": ("count ~ spp + mined + (1 | site)", SALAMANDERS, ZEROS),
}
FITTED = {name: fit(formula, data, **options) for name, (formula, data, options) in CASES.items()}
EACH = pytest.mark.parametrize("case", CASES)


@EACH
def test_order_of_rows(case: str) -> None:
    formula, data, options = CASES[case]
    order = np.random.default_rng(1).permutation(len(data))
    other = fit(formula, data.iloc[order].reset_index(drop=True), **options)
    same(other, FITTED[case])
    np.testing.assert_allclose(other.fitted(), FITTED[case].fitted()[order], rtol=1e-5)


@EACH
def test_names_and_order_of_group_levels(case: str) -> None:
    formula, data, options = CASES[case]
    other = data.copy()
    for term in FITTED[case].design.terms:
        labels = data[term.group].astype(str)
        moved = {label: f"n{i:04d}" for i, label in enumerate(reversed(sorted(labels.unique())))}
        other[term.group] = labels.map(moved)
    same(fit(formula, other, **options), FITTED[case])


@EACH
def test_order_of_terms(case: str) -> None:
    formula, data, options = CASES[case]
    left, right = formula.split(" ~ ")
    terms = [term for term in right.split(" + ") if "*" not in term]
    product = [term for term in right.split(" + ") if "*" in term]
    other = fit(f"{left} ~ {' + '.join([*product, *reversed(terms)])}", data, **options)
    mine = FITTED[case]
    assert other.loglik == pytest.approx(mine.loglik, abs=1e-7)
    theirs = dict(zip(other.design.names, other.optimum.beta, strict=True))
    np.testing.assert_allclose([theirs[n] for n in mine.design.names], mine.optimum.beta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_units_of_a_predictor(scale: float) -> None:
    other = fit(SEIZURES, EPILEPSY.assign(zAge=EPILEPSY["zAge"] * scale), "nbinom2")
    mine = FITTED["nb2"]
    assert other.loglik == pytest.approx(mine.loglik, abs=1e-7)
    i = mine.design.names.index("zAge")
    assert other.optimum.beta[i] * scale == pytest.approx(mine.optimum.beta[i], rel=1e-5, abs=1e-7)
    error = [np.sqrt(np.diag(one.vcov()))[i] for one in (other, mine)]
    assert error[0] * scale == pytest.approx(error[1], rel=1e-4)


def test_units_of_a_random_slope() -> None:
    other = fit("count ~ zBase + (I(100 * zAge) | patient) + (1 | visit)", EPILEPSY)
    assert other.loglik == pytest.approx(FITTED["slope"].loglik, abs=1e-6)
    scaled = np.diag([1, 100]) @ other.random_cov()[0] @ np.diag([1, 100])
    np.testing.assert_allclose(scaled, FITTED["slope"].random_cov()[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("library", ["dict", "polars"])
def test_data_of_other_libraries(library: str) -> None:
    columns = {name: CBPP[name].to_numpy() for name in ("herd", "incidence", "size")} | {"period": CBPP["period"].astype(str)}
    data: Any = {name: np.asarray(values) for name, values in columns.items()}
    if library == "polars":
        data = pytest.importorskip("polars").DataFrame({name: list(values) for name, values in data.items()})
    other = fit(HERDS, data, "binomial")
    same(other, FITTED["binomial"])
    assert np.asarray(other.predict()["prediction"]) == pytest.approx(FITTED["binomial"].fitted(), abs=1e-8)
    if library == "polars":
        assert type(other.fixef()).__module__.startswith("polars")


@EACH
def test_threads(case: str) -> None:
    formula, data, options = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = Model(formula, data, **options).fit(threads=3)
    assert other.loglik == pytest.approx(FITTED[case].loglik, abs=1e-9)


@pytest.mark.parametrize("family", ["poisson", "nbinom2", "gamma"])
def test_weights_are_repeated_rows(family: str) -> None:
    d = grouped(2)
    spread = d["rng"].gamma(2, 0.5, len(d["x"]))
    y = spread * np.exp(d["eta"]) if family == "gamma" else d["rng"].poisson(spread * np.exp(d["eta"]))
    w = d["rng"].integers(0, 4, len(y))
    frame = pd.DataFrame({"y": y, "x": d["x"], "g": d["g"]})
    weighted = fit("y ~ x + (1 | g)", frame, family, weights=w.astype(float))
    repeated = fit("y ~ x + (1 | g)", frame.loc[np.repeat(np.arange(len(y)), w)].reset_index(drop=True), family)
    same(weighted, repeated, 1e-5)


def test_offset_of_a_formula_and_of_an_argument() -> None:
    d = grouped(3)
    exposure = d["rng"].uniform(1, 9, len(d["x"]))
    y = d["rng"].poisson(np.exp(d["eta"]) * exposure)
    frame = pd.DataFrame({"y": y, "x": d["x"], "g": d["g"], "e": exposure})
    inside = fit("y ~ x + offset(log(e)) + (1 | g)", frame)
    same(inside, fit("y ~ x + (1 | g)", frame, offset=np.log(exposure)))
    doubled = fit("y ~ x + offset(log(2 * e)) + (1 | g)", frame)
    assert doubled.loglik == pytest.approx(inside.loglik, abs=1e-7)
    assert doubled.optimum.beta[0] == pytest.approx(inside.optimum.beta[0] - np.log(2), abs=1e-7)
    new = frame.iloc[:3]
    np.testing.assert_allclose(inside.predict(new)["prediction"], inside.fitted()[:3], rtol=1e-9)
    twice = inside.predict(new.assign(e=2 * new["e"]))["prediction"]
    np.testing.assert_allclose(twice, 2 * inside.fitted()[:3], rtol=1e-9)


def test_missing_rows_are_left_out() -> None:
    data = EPILEPSY.copy()
    data.loc[5, "zAge"] = np.nan
    with pytest.warns(ml.MultilevelWarning, match="1 of 236 rows"):
        one = Model(SEIZURES, data, family="poisson").fit()
    same(one, fit(SEIZURES, EPILEPSY.drop(index=5)))
    for values in (one.fitted(), one.residuals(), one.predict()["prediction"].to_numpy()):
        assert len(values) == 236 and np.flatnonzero(np.isnan(values)).tolist() == [5]
    sides = SALAMANDERS.copy()
    sides.loc[3, "DOY"] = np.nan  # used in the dispersion only
    assert fit("count ~ spp + mined + (1 | site)", sides, **ZEROS).nobs == len(sides) - 1


# -- theory -----------------------------------------------------------------------------------------------------


def test_without_random_effects_it_is_iteratively_reweighted_least_squares() -> None:
    X = np.column_stack([np.ones(56), *[(CBPP["period"] == k).to_numpy(float) for k in "234"]])
    y, n = CBPP["incidence"].to_numpy(float), CBPP["size"].to_numpy(float)
    beta = np.zeros(4)
    for _ in range(30):
        p = expit(X @ beta)
        information = X.T @ ((n * p * (1 - p))[:, None] * X)
        beta = beta + np.linalg.solve(information, X.T @ (y - n * p))
    one = fit("cbind(incidence, size - incidence) ~ period", CBPP, "binomial")
    np.testing.assert_allclose(one.optimum.beta, beta, atol=1e-8)
    np.testing.assert_allclose(one.vcov(), np.linalg.inv(information), rtol=1e-5)
    p = expit(X @ beta)
    wanted = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1) + y * np.log(p) + (n - y) * np.log1p(-p)
    assert one.loglik == pytest.approx(wanted.sum(), abs=1e-9)
    assert one.ranef().shape[0] == 0


def test_poisson_without_random_effects() -> None:
    X = np.column_stack([np.ones(236), EPILEPSY["zAge"], EPILEPSY["zBase"]])
    y, beta = EPILEPSY["count"].to_numpy(float), np.array([2.0, 0, 0])
    for _ in range(50):
        mu = np.exp(X @ beta)
        beta = beta + np.linalg.solve(X.T @ (mu[:, None] * X), X.T @ (y - mu))
    one = fit("count ~ zAge + zBase", EPILEPSY)
    np.testing.assert_allclose(one.optimum.beta, beta, atol=1e-8)
    np.testing.assert_allclose(one.fitted(), np.exp(X @ beta), rtol=1e-7)
    assert one.npar == 3


def test_gaussian_with_a_log_link_and_without_random_effects_is_least_squares() -> None:
    d = grouped(4)
    y = np.exp(0.5 + 0.2 * d["x"]) + 0.3 * d["rng"].normal(size=len(d["x"]))
    one = fit("y ~ x", {"y": y, "x": d["x"]}, "gaussian", link="log")
    mu = np.exp(one.optimum.beta[0] + one.optimum.beta[1] * d["x"])
    X = np.column_stack([mu, mu * d["x"]])
    np.testing.assert_allclose(X.T @ (y - mu) / len(y), 0, atol=1e-7)
    assert np.exp(one.optimum.residual[0]) == pytest.approx(np.sqrt(np.mean((y - mu) ** 2)), rel=1e-7)


def test_lognormal_is_the_linear_model_of_the_log() -> None:
    d = grouped(5)
    y = np.exp(d["eta"] + 0.4 * d["rng"].normal(size=len(d["x"])))
    frame = {"y": y, "x": d["x"], "g": d["g"], "z": np.log(y)}
    one = fit("y ~ x + (1 | g)", frame, "lognormal")
    linear = Model("z ~ x + (1 | g)", frame).fit(reml=False)
    assert one.loglik == pytest.approx(linear.loglik - np.log(y).sum(), abs=1e-7)
    np.testing.assert_allclose(one.optimum.beta, linear.optimum.beta, atol=1e-7)
    np.testing.assert_allclose(one.random_cov()[0], linear.random_cov()[0], rtol=1e-5)


def test_glmer_is_the_model() -> None:
    one = ml.glmer(HERDS, CBPP, family="binomial")
    same(one, FITTED["binomial"])


# -- predictions and residuals ----------------------------------------------------------------------------------------


@EACH
def test_predictions_without_data_are_the_fitted_values(case: str) -> None:
    one = FITTED[case]
    np.testing.assert_allclose(one.predict()["prediction"], one.fitted(), rtol=1e-12)
    np.testing.assert_allclose(one.predict(kind="link")["prediction"], one.fitted("link"), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(one.predict(CASES[case][1])["prediction"], one.fitted(), rtol=1e-9)


def test_prediction_with_an_interval_goes_through_the_link() -> None:
    one = FITTED["binomial"]
    new = pd.DataFrame({"period": ["1", "4"], "herd": ["1", "15"]})
    link = one.predict(new, kind="link", groups=None, interval="confidence")
    response = one.predict(new, groups=None, interval="confidence")
    for name in ("prediction", "conf_low", "conf_high"):
        np.testing.assert_allclose(response[name], expit(link[name]), rtol=1e-12)


def test_errors_of_predictions_agree_with_those_of_the_coefficients() -> None:
    one = FITTED["binomial"]
    new = pd.DataFrame({"period": ["1", "4"], "herd": ["1", "15"]})
    link = one.predict(new, kind="link", groups=None, interval="confidence")
    x = np.array([[1, 0, 0, 0], [1, 0, 0, 1]])
    np.testing.assert_allclose(link["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", x, one.vcov(), x)), rtol=1e-6)


def test_new_levels_are_refused_or_of_the_population() -> None:
    one = FITTED["binomial"]
    new = pd.DataFrame({"period": ["2"], "herd": ["none such"]})
    with pytest.raises(MultilevelError, match="none such"):
        one.predict(new)
    typical = one.predict(new, new_levels="population")["prediction"]
    np.testing.assert_allclose(typical, one.predict(new, groups=None)["prediction"])
    drawn = [float(one.predict(new, new_levels="sample", seed=s)["prediction"].iloc[0]) for s in range(5)]
    assert len(set(drawn)) == 5


def test_marginal_predictions_are_integrals() -> None:
    poisson = FITTED["three"]
    total = sum(float(cov[0, 0]) for cov in poisson.random_cov())
    typical = poisson.predict(groups=None)["prediction"]
    marginal = poisson.predict(groups=None, marginal=True)["prediction"]
    np.testing.assert_allclose(marginal, typical * np.exp(total / 2), rtol=1e-8)
    herds = FITTED["binomial"]
    z = np.linspace(-8, 8, 4001)
    eta = herds.predict(groups=None, kind="link")["prediction"].to_numpy()
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    wanted = expit(eta[:, None] + herds.optimum.theta[0] * z) @ weight
    np.testing.assert_allclose(herds.predict(groups=None, marginal=True)["prediction"], wanted, rtol=1e-8)


def test_extra_zeros_lower_the_mean() -> None:
    one = FITTED["zero-inflated"]
    names, values = list(one.extra()["term"]), one.extra()["estimate"].to_numpy()
    at = {name: value for name, value in zip(names, values, strict=True) if name.startswith("zi[")}
    logit = at["zi[Intercept]"] + at["zi[mined[T.no]]"] * (SALAMANDERS["mined"] == "no").to_numpy()
    np.testing.assert_allclose(one.fitted(), np.exp(one.fitted("link")) * expit(-logit), rtol=1e-9)


def test_hurdle_means() -> None:
    one = fit("count ~ mined + (1 | site)", SALAMANDERS, "poisson", hurdle="~ mined")
    mu = np.exp(one.fitted("link"))
    zero = expit(one.extra()["estimate"].to_numpy() @ np.array([np.ones(644), SALAMANDERS["mined"] == "no"], dtype=float))
    np.testing.assert_allclose(one.fitted(), (1 - zero) * mu / (1 - np.exp(-mu)), rtol=1e-9)
    shares = SALAMANDERS.assign(z=SALAMANDERS["count"] == 0).groupby("mined", observed=True)["z"].mean()
    np.testing.assert_allclose([zero[SALAMANDERS["mined"] == m].mean() for m in shares.index], shares, rtol=1e-6)


def test_ordinal_probabilities() -> None:
    wine = ml.load("wine")
    one = fit("rating ~ temp + contact + (1 | judge)", wine, "ordinal")
    table = one.probabilities().to_numpy()
    assert table.shape == (72, 5) and (table > 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-12)
    upper = expit(one.optimum.residual - one.fitted("link")[:, None])
    np.testing.assert_allclose(np.cumsum(table, axis=1)[:, :4], upper, rtol=1e-10)
    with pytest.raises(OptionError, match="probabilities"):
        one.fitted()
    with pytest.raises(OptionError, match="categories"):
        FITTED["nb2"].probabilities()


def test_residuals() -> None:
    one, y, n = FITTED["binomial"], CBPP["incidence"] / CBPP["size"], CBPP["size"]
    mu = one.fitted()
    np.testing.assert_allclose(one.residuals(), y - mu)
    np.testing.assert_allclose(one.residuals("pearson"), (y - mu) / np.sqrt(mu * (1 - mu) / n), rtol=1e-10)
    assert (np.sign(one.residuals("deviance")) == np.sign(y - mu)).all()
    counts = fit(SEIZURES, EPILEPSY)
    y = EPILEPSY["count"].to_numpy(float)
    mu = counts.fitted()
    log = np.where(y > 0, y * np.log(np.maximum(y, 1) / mu), 0.0)
    np.testing.assert_allclose(counts.residuals("deviance") ** 2, 2 * (log - (y - mu)), rtol=1e-8, atol=1e-12)
    with pytest.raises(OptionError, match="'pearson'"):
        one.residuals("studentized")


# -- tables and texts ---------------------------------------------------------------------------------------------------


@EACH
def test_tables(case: str) -> None:
    one = FITTED[case]
    fixef = one.fixef()
    assert list(fixef["term"]) == list(one.design.names)
    error = np.sqrt(np.diag(one.vcov()))
    np.testing.assert_allclose(fixef["std_error"], error)
    np.testing.assert_allclose(fixef["conf_high"] - fixef["estimate"], 1.959963984540054 * error, rtol=1e-9)
    tidy = one.tidy()
    assert (tidy["effect"] == "fixed").sum() == len(fixef)
    glance = one.glance().iloc[0]
    assert glance["nobs"] == len(CASES[case][1])
    assert glance["npar"] == one.npar
    assert glance["aic"] == pytest.approx(-2 * one.loglik + 2 * one.npar)
    assert glance["loglik"] == pytest.approx(one.loglik)
    interval = one.confint()
    np.testing.assert_allclose(interval["conf_low"], fixef["conf_low"])


@EACH
def test_summary_in_text_html_and_latex(case: str) -> None:
    one = FITTED[case]
    text, html, latex = one.summary(), one._repr_html_(), one.to_latex()
    assert one.family.name in text and "Laplace" in text and "z value" in text
    for group in {term.group for term in one.design.terms}:
        assert group in text and group in html
    assert html.count("<table") >= 2 and "\\begin{tabular}" in latex
    assert "nan" not in text.lower().replace("finance", "")
    assert repr(one)
    for name in one.coefficients.names:
        assert name in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.fitted("mean"), "'mean' is not known"),
        (lambda one: one.predict(kind="probs"), "'probs' is not known"),
        (lambda one: one.predict(interval="tolerance"), "'tolerance'"),
        (lambda one: one.model.criterion([0.5]), "gaussian family only"),
        (lambda one: one.predict(kind="link", marginal=True), "marginal"),
    ],
)
def test_options_of_verbs(call: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call(FITTED["nb2"])


def test_ordinal_predictions_are_probabilities() -> None:
    wine = ml.load("wine")
    fit = ml.Model("rating ~ temp + contact + (1 | judge)", wine, family="ordinal").fit()
    table = fit.predict(wine)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(table, fit.probabilities(), rtol=1e-10)
    assert list(table.columns) == list(fit.design.labels)
    typical = fit.predict(wine.head(2), groups=None)
    first = fit.predict(wine.head(2), groups=None, kind="link")["prediction"].to_numpy()
    np.testing.assert_allclose(typical.iloc[:, 0], 1 / (1 + np.exp(first - fit.optimum.residual[0])), rtol=1e-10)
    limits = fit.predict(wine, interval="confidence")
    assert (limits["2_low"] < table["2"]).all() and (table["2"] < limits["2_high"]).all()
