"""Structures of the residuals against the stored fits of nlme and glmmTMB."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import dense_structures as dense
import numpy as np
import pytest
from numpy.typing import NDArray

import multilevel as ml
from multilevel import Fit, Model

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden_structures"


@cache
def reference(file: str) -> dict[str, Any]:
    """Stored fits of one file, by label."""
    stored = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return {fit["label"]: fit for fit in stored["fits"]}


# -- against nlme and glmmTMB --------------------------------------------------------------------------------

SIN = "sin(2*3.141592653589793*Time)"
OVARY = f"follicles ~ {SIN} + cos(2*3.141592653589793*Time)"
SEX = {"levels": {"Sex": ["Male", "Female"]}}
PUPS = {"contrasts": {"Treatment": "treatment"}}
# file, label, data, formula, options, how many digits the reference's parameters have
GOLDEN: list[tuple[str, str, str, str, dict[str, Any], float]] = [
    ("ovary_ar1", "REML_intercept_corAR1", "ovary", OVARY + " + (1 | Mare)", {"correlation": "ar1(1 | Mare)"}, 1e-6),
    ("ovary_ar1", "ML_intercept_corAR1", "ovary", OVARY + " + (1 | Mare)", {"correlation": "ar1(1 | Mare)"}, 1e-6),
    ("ovary_ar1", "REML_pdDiag_corAR1", "ovary", f"{OVARY} + ({SIN} || Mare)", {"correlation": "ar1(1 | Mare)"}, 1e-6),
    ("ovary_ar1", "gls_REML_corAR1", "ovary", OVARY, {"correlation": "ar1(1 | Mare)"}, 1e-6),
    (
        "bodyweight_var_cor",
        "REML_slope_corCAR1",
        "bodyweight",
        "weight ~ Time*Diet + (Time | Rat)",
        {"correlation": "car1(Time | Rat)"},
        1e-4,
    ),
    (
        "bodyweight_var_cor",
        "REML_slope_varPower",
        "bodyweight",
        "weight ~ Time*Diet + (Time | Rat)",
        {"variance": "power(fitted)"},
        1e-4,
    ),
    (
        "bodyweight_var_cor",
        "REML_slope_varExp",
        "bodyweight",
        "weight ~ Time*Diet + (Time | Rat)",
        {"variance": "exp(fitted)"},
        1e-3,  # nlme stops early: in log sd over one sd of the fitted values the exponents differ by less than 1e-4
    ),
    (
        "bodyweight_var_cor",
        "REML_slope_varPower_corExp",
        "bodyweight",
        "weight ~ Time*Diet + (Time | Rat)",
        {"variance": "power(fitted)", "correlation": "car1(Time | Rat)"},
        1e-4,
    ),
    (
        "orthodont_varIdent",
        "REML_slope_varIdent_Sex",
        "orthodont",
        "distance ~ age*Sex + (age | Subject)",
        {"variance": "ident(Sex)", **SEX},
        1e-6,
    ),
    (
        "orthodont_varIdent",
        "REML_intercept_varIdent_Sex",
        "orthodont",
        "distance ~ age*Sex + (1 | Subject)",
        {"variance": "ident(Sex)", **SEX},
        1e-6,
    ),
    (
        "orthodont_varIdent",
        "gls_REML_corAR1",
        "orthodont",
        "distance ~ age*Sex",
        {"correlation": "ar1(1 | Subject)", **SEX},
        1e-6,
    ),
    (
        "orthodont_varIdent",
        "gls_REML_corCompSymm",
        "orthodont",
        "distance ~ age*Sex + (1 | Subject)",
        SEX,
        1e-6,
    ),
    (
        "ratpupweight_varIdent",
        "REML_varIdent_Treatment",
        "ratpupweight",
        "weight ~ Treatment + sex + Lsize + (1 | Litter)",
        {"variance": "ident(Treatment)", **PUPS},
        1e-6,
    ),
    (
        "machines_pd",
        "REML_nested_varIdent",
        "machines",
        "score ~ Machine + (1 | Worker/Machine)",
        {"variance": "ident(Machine)"},
        1e-6,
    ),
    (
        "sleepstudy_covstructs",
        "ar1_only_ML",
        "sleepstudy",
        "Reaction ~ Days",
        {"correlation": "ar1(Days | Subject)"},
        1e-4,
    ),
    (
        "sleepstudy_covstructs",
        "dispformula_Days_ML",
        "sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        {"variance": "exp(Days)"},
        1e-4,
    ),
    (
        "orthodont_covstructs",
        "ar1_marginal_ML",
        "orthodont",
        "distance ~ age*Sex",
        {"correlation": "ar1(1 | Subject)", **SEX},
        1e-4,
    ),
    (
        "orthodont_covstructs",
        "dispformula_Sex_ML",
        "orthodont",
        "distance ~ age*Sex + (1 | Subject)",
        {"variance": "ident(Sex)", **SEX},
        1e-4,
    ),
]


def _parameters(fit: Fit, ref: dict[str, Any]) -> list[tuple[str, float, float]]:
    """What the reference says of the residuals, in our terms: name, ours, theirs."""
    ours = dict(zip(fit.residual_structure()["parameter"], fit.residual_structure()["estimate"], strict=True))
    out = []
    rho = next((v for name, v in ours.items() if name.startswith("rho")), None)
    if "correlation" in ref and ref["correlation"]["class"] != "corCompSymm":
        value = ref["correlation"]["coef"][0]
        assert rho is not None
        out.append(("rho", rho, float(np.exp(-1 / value)) if ref["correlation"]["class"] == "corExp" else value))
    if "variance" in ref and ref["variance"]["class"] == "varIdent":
        sds = ref["variance"]["coef_all"]  # the first level in nlme's order of rows has one; ours in the factor's order
        for name, value in ours.items():
            if name.startswith("ratio"):
                base = fit.model.residual.spreads[0].levels[0]  # type: ignore[union-attr]
                out.append((name, value, sds[name.split(", ")[1][:-1]] / sds[base]))
    elif "variance" in ref:
        out.append(
            ("exponent", next(v for n, v in ours.items() if not n.startswith("rho")), ref["variance"]["coef"][0])
        )
    if "fixed_dispersion_log" in ref and len(ref["fixed_dispersion_log"]["names"]) > 1:
        # glmmTMB's dispersion formula is on the log variance
        value = ref["fixed_dispersion_log"]["estimate"][1] / 2
        first = next(iter(ours.values()))
        out.append(("dispersion", first, float(np.exp(value)) if "ratio" in next(iter(ours)) else value))
    if ref["label"].startswith("ar1_"):
        shape = ref["parameters_internal"]["estimate"][-1]
        assert rho is not None
        out.append(("rho", rho, shape / np.sqrt(1 + shape**2)))
        out.append(("sd", fit.sigma, ref["random"][0]["sd"][0]))
    return out


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c[0]}-{c[1]}")
def test_the_fits_of_nlme_and_glmmtmb(case: tuple[str, str, str, str, dict[str, Any], float]) -> None:
    file, label, data, formula, options, digits = case
    ref = reference(file)[label]
    fit = Model(formula, ml.load(data), **options).fit("REML" in ref["method"])
    assert fit.convergence.converged
    fixed_point = "fitted" in str(options.get("variance", ""))
    # nlme stops its alternation by a tolerance: ours is settled, and a settled point is no maximum that could be compared
    assert fit.loglik - ref["loglik"] > (-2e-6 if fixed_point else -1e-7)
    assert fit.loglik - ref["loglik"] < 2e-6
    b, se = np.array(ref["fixed"]["estimate"]), np.array(ref["fixed"]["std_error"])
    np.testing.assert_allclose((fit.optimum.beta - b) / se, 0, atol=1e-4)
    glmmtmb = "ML)" in ref["method"] or "Laplace" in ref["method"]
    if not glmmtmb:  # its standard errors are those of the joint fit
        np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov())), se, rtol=max(digits, 1e-6))
    for name, ours, theirs in _parameters(fit, ref):
        np.testing.assert_allclose(ours, theirs, rtol=digits, err_msg=name)
    if label != "gls_REML_corCompSymm" and not label.startswith("ar1_") and "random" in ref:
        sds = np.concatenate([np.sqrt(np.diag(c)) for c in fit.random_cov()])
        theirs = np.concatenate([r["sd"] for r in ref["random"]])
        np.testing.assert_allclose(np.sort(sds), np.sort(theirs), rtol=digits)
    if label == "gls_REML_corCompSymm":
        share = fit.random_cov()[0][0, 0]
        np.testing.assert_allclose(share / (share + fit.sigma**2), ref["correlation"]["coef"][0], rtol=1e-6)
    if "normalized_residuals_first5" in ref and "correlation" not in ref:
        np.testing.assert_allclose(fit.residuals("normalized")[:5], ref["normalized_residuals_first5"], atol=1e-4)


@pytest.mark.parametrize("label", ["REML_intercept_corAR1", "ML_intercept_corAR1"])
def test_normalized_residuals_are_those_of_nlme(label: str) -> None:
    ref = reference("ovary_ar1")[label]
    fit = Model(OVARY + " + (1 | Mare)", ml.load("ovary"), correlation="ar1(1 | Mare)").fit(label.startswith("REML"))
    np.testing.assert_allclose(fit.residuals("normalized")[:5], ref["normalized_residuals_first5"], atol=1e-6)
    np.testing.assert_allclose(fit.fitted()[:5], ref["fitted_first5"], rtol=1e-7)


def test_no_variance_between_rats_where_nlme_stops_at_a_small_one() -> None:
    """nlme's log sd cannot reach zero: it stops at 0.097 with a log-likelihood 4e-8 lower."""
    ref = reference("bodyweight_var_cor")["REML_intercept_corAR1"]
    model = Model("weight ~ Time*Diet + (1 | Rat)", ml.load("bodyweight"), correlation="ar1(1 | Rat)")
    with pytest.warns(ml.SingularFitWarning):
        fit = model.fit()
    assert fit.convergence.converged
    assert 0 < fit.loglik - ref["loglik"] < 1e-7
    assert fit.theta[0] == 0
    assert "sd(Rat, Intercept) = 0" in fit.convergence.sentence
    np.testing.assert_allclose(fit.optimum.residual[0], ref["correlation"]["coef"][0], rtol=1e-5)


def test_an_intercept_beside_ar1_where_glmmtmb_is_wrong() -> None:
    """glmmTMB reports "false convergence" and a log-likelihood that its own parameters do not have."""
    ref = reference("sleepstudy_covstructs")["intercept_plus_ar1_ML"]
    data = ml.load("sleepstudy")
    fit = Model("Reaction ~ Days + (1 | Subject)", data, correlation="ar1(Days | Subject)").fit(False)
    X = np.column_stack([np.ones(180), data["Days"]])
    same = np.asarray(data["Subject"])[:, None] == np.asarray(data["Subject"])[None, :]

    def loglik(log_sd: float, log_sigma: float, shape: float) -> float:
        rho = shape / np.sqrt(1 + shape**2)
        V = np.exp(2 * (log_sd - log_sigma)) * same + dense.serial(data["Subject"], data["Days"], rho)
        return -dense.Twin(np.asarray(data["Reaction"], dtype=float), X, V).criterion(False, np.exp(log_sigma)) / 2

    theirs = loglik(*ref["parameters_internal"]["estimate"][2:])
    rho = fit.optimum.residual[0]
    ours = loglik(np.log(fit.theta[0] * fit.sigma), np.log(fit.sigma), rho / np.sqrt(1 - rho**2))
    assert ref["loglik"] - theirs > 1e-3  # what it stores is not the likelihood at what it stores
    np.testing.assert_allclose(fit.loglik, ours, atol=1e-9)
    assert ours >= theirs
    for move in np.vstack([np.eye(3), -np.eye(3)]) * 0.02:
        at = np.array([np.log(fit.theta[0] * fit.sigma), np.log(fit.sigma), rho / np.sqrt(1 - rho**2)])
        assert loglik(*(at + move)) < ours
