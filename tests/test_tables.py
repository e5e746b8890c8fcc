"""The printed model, its HTML and LaTeX, and broom's tables."""

from __future__ import annotations

import html.parser
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import multilevel as ml
from multilevel import tables
from multilevel.errors import DataError, MultilevelWarning, OptionError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> Any:
    return ml.load("sleepstudy")


@pytest.fixture(scope="module")
def sleep_fit(sleep: Any) -> ml.Fit:
    return fitted(SLEEP, sleep)


def fitted(formula: str, data: Any, reml: bool = True, **options: Any) -> ml.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        return ml.Model(formula, data, **options).fit(reml)


def block(text: str, title: str) -> list[str]:
    """Lines of one block after its title."""
    return text.split(title + "\n")[1].split("\n\n")[0].splitlines()


def stops(lines: list[str]) -> set[tuple[int, ...]]:
    """Where the columns of right-aligned lines end."""
    return {tuple(found.end() for found in re.finditer(r"\S+", line)) for line in lines}


# -- the text ---

SLEEP_TEXT = """\
Linear mixed model fit by REML
t-tests use Satterthwaite's method
Formula: Reaction ~ Days + (Days | Subject)

REML criterion at convergence: 1743.6

Scaled residuals:
    Min      1Q  Median      3Q     Max
-3.9536 -0.4634  0.0231  0.4634  5.1793

Random effects:
 Groups   Name        Variance Std.Dev. Corr
 Subject  (Intercept) 612.09   24.740
          Days         35.07    5.922   0.07
 Residual             654.94   25.592
Number of obs: 180, groups:  Subject, 18

Fixed effects:
            Estimate Std. Error      df t value Pr(>|t|)
(Intercept)  251.405      6.825  17.000  36.838  < 2e-16 ***
Days          10.467      1.546  17.000   6.771 3.26e-06 ***
---
Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1

Correlation of Fixed Effects:
     (Intr)
Days -0.138

"""


def test_sleepstudy_prints_as_lmertest_does(sleep_fit: ml.Fit) -> None:
    # R prints 612.10 and 24.741: there the optimiser stops a little short of the optimum, 612.0899
    text = str(sleep_fit)
    assert text.startswith(SLEEP_TEXT)
    assert text.removeprefix(SLEEP_TEXT) == sleep_fit.convergence.sentence + "\n"


def test_without_degrees_of_freedom_the_table_is_lme4s(sleep_fit: ml.Fit) -> None:
    text = sleep_fit.summary(ddf="none")
    assert block(text, "Fixed effects:") == [
        "            Estimate Std. Error t value",
        "(Intercept)  251.405      6.825  36.838",
        "Days          10.467      1.546   6.771",
    ]
    assert "Satterthwaite" not in text and "Signif" not in text
    with pytest.raises(OptionError, match="'none'"):
        sleep_fit.summary(ddf="between-within")


def test_maximum_likelihood_prints_the_criteria(sleep: Any) -> None:
    text = str(fitted(SLEEP, sleep, reml=False))
    assert text.startswith("Linear mixed model fit by maximum likelihood\n")
    assert text.split("\n\n")[1].splitlines() == [
        "      AIC       BIC    logLik -2*log(L)  df.resid",
        "   1763.9    1783.1    -876.0    1751.9       174",
    ]
    assert "REML" not in text


def test_nested_groups_are_all_listed() -> None:
    text = str(fitted("strength ~ 1 + (1 | batch/cask)", ml.load("pastes")))
    assert block(text, "Random effects:") == [
        " Groups     Name        Variance Std.Dev.",
        " batch      (Intercept) 1.657    1.2874",
        " batch:cask (Intercept) 8.434    2.9041",
        " Residual               0.678    0.8234",
        "Number of obs: 60, groups:  batch, 10; batch:cask, 30",
    ]
    assert "(Intercept)  60.0533     0.6769   9.000   88.72 1.49e-14 ***" in text
    assert "Correlation" not in text


def test_a_variance_of_zero_is_printed_and_said() -> None:
    text = str(fitted("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")))
    assert " Batch    (Intercept)  0.00    0.000\n Residual             13.81    3.716\n" in text
    assert "sd(Batch, Intercept) = 0" in text


def test_factor_without_correlations() -> None:
    fit = fitted("score ~ Machine + (Machine || Worker)", ml.load("machines"))
    lines = block(str(fit), "Random effects:")
    assert lines[0] == " Groups   Name         Variance Std.Dev."
    assert [line[1:9].strip() for line in lines[1:5]] == ["Worker", "", "", "Residual"]


def test_correlations_line_up() -> None:
    fit = fitted("score ~ Machine + (Machine | Worker)", ml.load("machines"))
    assert block(str(fit), "Random effects:")[:5] == [
        " Groups   Name         Variance Std.Dev. Corr",
        " Worker   (Intercept)  16.6405  4.0793",
        "          Machine[T.B] 34.5467  5.8776    0.48",
        "          Machine[T.C] 13.6150  3.6899   -0.37  0.30",
        " Residual               0.9246  0.9616",
    ]
    assert block(str(fit), "Correlation of Fixed Effects:") == [
        "             (Intr) M[T.B]",
        "Machine[T.B]  0.463",
        "Machine[T.C] -0.374  0.301",
    ]


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_correlation(sign: int) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 6), "x": np.tile(np.arange(6.0), 20)})
    effect = rng.normal(size=20)[data["g"]]
    data["y"] = effect * (1 + sign * data["x"]) + rng.normal(size=120) / 2
    lines = block(str(fitted("y ~ x + (x | g)", data)), "Random effects:")
    assert lines[2].split()[-1] == f"{sign:.2f}"


def test_many_fixed_effects_print_no_correlations() -> None:
    text = str(fitted("angle ~ recipe * temperature + (1 | recipe:replicate)", ml.load("cake")))
    assert "Correlation of Fixed Effects" not in text
    lines = block(text, "Fixed effects:")
    assert len(lines) == 1 + 18 + 2
    ends = [[found.end() for found in re.finditer(r"\S+", line)][1:6] for line in lines[1:19]]
    assert all(row == ends[1] for row in ends[1:])
    assert lines[1].endswith("< 2e-16 ***") and lines[0].endswith("Pr(>|t|)")


def test_columns_end_together_whatever_the_names(sleep: Any) -> None:
    data = sleep.rename(columns={"Days": "дни без сна, 50%_é", "Subject": "被験者"})
    data["x" * 80] = np.arange(180.0) ** 2
    fit = fitted(f"Reaction ~ `дни без сна, 50%_é` + {'x' * 80} + (`дни без сна, 50%_é` | 被験者)", data)
    lines = block(str(fit), "Fixed effects:")
    assert len({len(line) for line in lines[1:4]} - {len(lines[0]) + 4}) <= 1
    assert len(stops([line[80:].removesuffix(" ***").removesuffix(" *") for line in lines[1:4]])) == 1
    group = next(line for line in str(fit).splitlines() if line.startswith(" 被験者"))
    assert group.startswith(" 被験者   (Intercept)")  # nine columns: each of the three signs is two wide


def test_a_line_feed_in_a_name_breaks_no_line() -> None:
    assert tables.clean("a\nb\tc\x1b[31m") == "a b c [31m"


def test_dropped_columns_and_rows_are_said_once(sleep: Any) -> None:
    data = sleep.assign(Twice=2 * sleep["Days"])
    data.loc[2:4, "Reaction"] = np.nan
    fit = fitted("Reaction ~ Days + Twice + (Days | Subject)", data)
    text = str(fit)
    assert text.count("'Twice' was left out") == 1 and text.count("3 of 180 rows were left out") == 1
    assert block(text, "Fixed effects:")[-1].startswith("The fixed effects are not of full rank")
    assert [line.split()[0] for line in block(text, "Fixed effects:")[1:3]] == ["(Intercept)", "Days"]


@pytest.mark.parametrize("reml", [True, False])
def test_no_random_effects(sleep: Any, reml: bool) -> None:
    fit = fitted("Reaction ~ Days", sleep, reml)
    text = str(fit)
    assert text.startswith("Linear model fit by " + ("REML" if reml else "maximum likelihood"))
    assert "Residual standard deviation: 47." in text and "groups" not in text and "Random" not in text
    assert ("178.000" in text) is reml
    assert "Residual standard deviation" in fit._repr_html_() and "Residual standard deviation" in fit.to_latex()
    assert list(fit.tidy()["term"]) == ["Intercept", "Days", "sd__Observation"]


def test_no_fixed_effects(sleep: Any) -> None:
    fit = fitted("Reaction ~ 0 + (1 | Subject)", sleep)
    assert "Fixed effects" not in str(fit) and "t-tests" not in str(fit)
    assert list(fit.tidy()["term"]) == ["sd__Intercept", "sd__Observation"]


def test_a_fit_read_without_its_data_prints_without_residuals(sleep_fit: ml.Fit, tmp_path: Any) -> None:
    sleep_fit.save(tmp_path / "fit.mlv")
    text = str(ml.read(tmp_path / "fit.mlv"))
    head, tail = SLEEP_TEXT.split("Scaled residuals")[0], SLEEP_TEXT.split("5.1793\n\n")[1]
    assert text.startswith(head + tail)
    with pytest.raises(DataError, match="data=True"):
        ml.read(tmp_path / "fit.mlv").augment()


def test_weights_are_mentioned(sleep: Any) -> None:
    fit = fitted(SLEEP, sleep.assign(w=2.0), weights="w")
    assert "\nWeights: given" in str(fit)


# -- numbers and heads ---


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [  # what R's format(values, digits = digits) gives
        ([612.09, 35.0716, 654.94], 4, ["612.09", " 35.07", "654.94"]),
        ([0, 13.806], 4, [" 0.00", "13.81"]),
        ([6.131e-10, 3.511e-11], 4, ["6.131e-10", "3.511e-11"]),
        ([24761171.3, 5925171.2], 4, ["24761171", " 5925171"]),
        ([1e-17, 1e17], 4, ["1e-17", "1e+17"]),
        ([float("nan"), float("inf"), -1.5], 3, [" NaN", " Inf", "-1.5"]),
        ([-0.0, 0.0], 4, ["0", "0"]),
        ([123456], 4, ["123456"]),
        ([100, 20], 4, ["100", " 20"]),
        ([], 4, []),
    ],
)
def test_numbers_are_formatted_as_r_does(values: list[float], digits: int, expected: list[str]) -> None:
    assert tables.numbers(values, digits) == expected


def test_no_minus_before_zero() -> None:
    assert tables.fixed_point([-0.0004, 0.5, -1], 3) == [" 0.000", " 0.500", "-1.000"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [  # what R's format.pval(values, digits = 3) gives
        ([1e-20, 3.264e-06], ["< 2e-16", "3.26e-06"]),
        ([1e-20, 0.314], ["<2e-16", "0.314"]),
        ([6.4e-07, 0.0216951, 0.0002771], ["6.4e-07", "0.021695", "0.000277"]),
        ([0.0, float("nan")], ["<2e-16", "NaN"]),
        ([1.0], ["1"]),
    ],
)
def test_p_values_are_formatted_as_r_does(values: list[float], expected: list[str]) -> None:
    assert [text.strip() for text in tables.p_values(values)] == expected


def test_heads_are_shortened_as_r_does() -> None:
    assert tables.abbreviate(["(Intercept)", "MachineB", "I(Days^2)", "Days"]) == ["(Intr)", "MachnB", "I(D^2)", "Days"]
    long = [f"treatment_group_{i}" for i in range(12)]
    assert len(set(tables.abbreviate(long))) == 12
    assert tables.abbreviate([]) == []


def test_estimates_of_nothing_ask_for_no_decimals() -> None:
    rounded = tables.readable(np.array([1e-15, -2e-4, 5.0]), np.array([1.0, 1.5, np.nan]))
    assert rounded == [0.0, 0.0, 5.0]


# -- HTML and LaTeX ---


class Balance(html.parser.HTMLParser):
    """Checks that tags close in order; gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.rows: list[int] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data.strip())


@pytest.fixture(scope="module")
def nasty(sleep: Any) -> ml.Fit:
    data = sleep.rename(columns={"Days": "<script>a_b</script> & 50% #~^{x}$", "Subject": "su_b&j"})
    name = "`<script>a_b</script> & 50% #~^{x}$`"
    return fitted(f"Reaction ~ {name} + ({name} | `su_b&j`)", data)


def test_html_is_whole_and_escaped(nasty: ml.Fit) -> None:
    text = nasty._repr_html_()
    reader = Balance()
    reader.feed(text)
    assert not reader.open and "<script" not in text
    assert "<script>a_b</script> & 50% #~^{x}$" in reader.cells
    assert {"(Intercept)", "251.405", "36.838", "< 2e-16", "-0.138", "612.09"} <= set(reader.cells)
    assert "http" not in text and "color:inherit" in text


def test_latex_is_whole_and_escaped(nasty: ml.Fit) -> None:
    text = nasty.to_latex()
    name = (r"\textless{}script\textgreater{}a\_b\textless{}/script\textgreater{} \& 50\% "
            r"\#\textasciitilde{}\textasciicircum{}\{x\}\$")
    assert rf"{name} & $10.467$ & $1.546$ & $17.000$ & $6.771$ & $3.26\times 10^{{-6}}$ & *** \\" in text
    assert r"su\_b\&j & (Intercept) & $612.09$ & $24.740$ &  \\" in text
    assert r"$<2\times 10^{-16}$" in text and "$-0.138$" in text
    for found in re.finditer(r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\end\{tabular\}", text, re.S):
        rows = [row for row in found[2].splitlines() if row.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(found[1])}
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 4
    assert tables._latex("\\a") == r"\textbackslash{}a"


# -- broom ---


def test_tidy(sleep_fit: ml.Fit) -> None:
    table = sleep_fit.tidy()
    assert list(table.columns) == ["effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value",
                                   "conf_low", "conf_high"]
    assert list(table["effect"]) == ["fixed"] * 2 + ["ran_pars"] * 4
    assert list(table["term"]) == ["Intercept", "Days", "sd__Intercept", "sd__Days", "cor__Intercept.Days",
                                   "sd__Observation"]
    assert list(table["group"][2:]) == ["Subject"] * 3 + ["Residual"] and table["group"][:2].isna().all()
    known = [251.4051, 10.46729, 24.74045, 5.922133, 0.06555, 25.59182]
    np.testing.assert_allclose(table["estimate"], known, rtol=1e-4)
    narrow = sleep_fit.tidy(level=0.5)
    assert (narrow["conf_low"][:2] > table["conf_low"][:2]).all()
    with pytest.raises(OptionError):
        sleep_fit.tidy(level=95)


def test_tidy_agrees_with_fixef_and_varcorr() -> None:
    fit = fitted("score ~ Machine + (Machine | Worker)", ml.load("machines"))
    table, fixed, random = fit.tidy(), fit.fixef(), fit.varcorr()
    for name in fixed.columns:
        assert list(table[name][:3]) == list(fixed[name])
    np.testing.assert_allclose(table["estimate"][3:], random["sdcor"])


def test_tidy_keeps_dropped_columns_as_missing(sleep: Any) -> None:
    table = fitted("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep).tidy()
    assert table["estimate"].isna().tolist() == [False, False, True, False, False]


def test_glance(sleep: Any, sleep_fit: ml.Fit) -> None:
    table = sleep_fit.glance()
    assert list(table.columns) == ["nobs", "npar", "sigma", "loglik", "aic", "aicc", "bic", "criterion", "deviance",
                                   "df_residual", "converged", "singular"]
    row = table.iloc[0]
    assert len(table) == 1 and row["nobs"] == 180 and row["npar"] == 6 and row["criterion"] == "REML"
    assert row["converged"] and not row["singular"] and row["deviance"] == pytest.approx(1743.6283, abs=1e-3)
    assert fitted(SLEEP, sleep, reml=False).glance()["criterion"][0] == "ML"


def test_augment_keeps_rows_index_and_input(sleep: Any) -> None:
    data = sleep.assign(unused=1).set_index(pd.Index(np.arange(180)[::-1], name="row"))
    data.iloc[[0, 7], 0] = np.nan
    before = data.copy()
    fit = fitted(SLEEP, data)
    out = fit.augment()
    pd.testing.assert_frame_equal(data, before)
    pd.testing.assert_frame_equal(out[["Reaction", "Days", "Subject"]], data[["Reaction", "Days", "Subject"]])
    assert list(out.columns) == ["Reaction", "Days", "Subject", ".fitted", ".fixed", ".resid"]
    assert np.flatnonzero(out[".fitted"].isna()).tolist() == [0, 7]
    used = out.dropna()
    np.testing.assert_allclose(used[".fitted"] + used[".resid"], used["Reaction"])
    np.testing.assert_allclose(out[".fitted"], fit.fitted())
    intercept, slope = fit.fixef()["estimate"]
    np.testing.assert_allclose(used[".fixed"], intercept + slope * used["Days"])


@pytest.mark.parametrize("kind", ["polars", "lazy", "pyarrow", "dict"])
def test_the_same_library_comes_out(sleep: Any, kind: str) -> None:
    text = sleep.assign(Subject=sleep["Subject"].astype(str))
    text.loc[3, "Reaction"] = np.nan
    frame = pl.from_pandas(text)
    data = {"polars": frame, "lazy": frame.lazy(), "pyarrow": frame.to_arrow(),
            "dict": {name: text[name].to_numpy() for name in text}}[kind]
    fit = fitted(SLEEP, data)
    expected = {"polars": pl.DataFrame, "lazy": pl.DataFrame, "pyarrow": pa.Table, "dict": pd.DataFrame}[kind]
    tidy, glance, augment = fit.tidy(), fit.glance(), fit.augment()
    assert all(isinstance(table, expected) for table in (tidy, glance, augment))
    assert len(tidy) == 6 and len(glance) == 1 and len(augment) == 180
    reference = fitted(SLEEP, text)
    np.testing.assert_allclose(np.asarray(tidy["estimate"]), reference.tidy()["estimate"], rtol=1e-8)
    np.testing.assert_allclose(np.asarray(augment[".resid"]), reference.augment()[".resid"], atol=1e-6)
    assert str(fit) == str(reference)
    if kind == "polars":
        assert tidy["group"].to_list()[:3] == [None, None, "Subject"]


def test_augment_of_a_transformed_response(sleep: Any) -> None:
    table = fitted("log(Reaction) ~ Days + (1 | Subject)", sleep).augment()
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], np.log(table["Reaction"]))
    np.testing.assert_allclose(table["log(Reaction)"], np.log(sleep["Reaction"]))


def test_augment_after_refit_shows_the_response_fitted(sleep: Any, sleep_fit: ml.Fit) -> None:
    table = sleep_fit.refit(sleep["Reaction"].to_numpy() + 5).augment()
    np.testing.assert_allclose(table["Reaction"], sleep["Reaction"] + 5)
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], table["Reaction"])


def test_augment_of_data_that_changed_length_is_refused(sleep: Any) -> None:
    data = sleep.copy()
    fit = fitted(SLEEP, data)
    data.loc[len(data)] = data.loc[0]
    with pytest.raises(DataError, match="180 rows"):
        fit.augment()


def test_augment_after_reading_with_the_data(sleep_fit: ml.Fit, tmp_path: Any) -> None:
    sleep_fit.save(tmp_path / "fit.mlv", data=True)
    table = ml.read(tmp_path / "fit.mlv").augment()
    np.testing.assert_allclose(table[".resid"], sleep_fit.augment()[".resid"], atol=1e-9)
