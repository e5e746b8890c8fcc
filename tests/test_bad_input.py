"""Bad input: a typed error with the column, the value and the way out."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import Array
from shapes import draw, one, quiet_fit

import multilevel as ml
from multilevel import (
    ColumnError,
    DataError,
    FormulaError,
    Model,
    MultilevelError,
)

SLEEP = ml.load("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


# --- bad input: a typed error with the column, the value and the way out


def bad(
    change: dict[str, Any] | None = None, formula: str = FORMULA, **options: Any
) -> tuple[str, Any, dict[str, Any]]:
    return formula, SLEEP.assign(**(change or {})), options


def at(column: str, row: int, value: float) -> dict[str, Any]:
    values = SLEEP[column].to_numpy(dtype=float).copy()
    values[row] = value
    return {column: values}


REACTION = SLEEP["Reaction"].to_numpy()
BAD = {
    "unknown column": (bad(formula="Reaction ~ Dayz + (1 | Subject)"), ColumnError, r"'Dayz'.*did you mean 'Days'\?"),
    "unknown group": (
        bad(formula="Reaction ~ Days + (1 | Sbject)"),
        ColumnError,
        r"'Sbject'.*did you mean 'Subject'\?",
    ),
    "unknown response": (bad(formula="Raction ~ 1 + (1 | Subject)"), ColumnError, r"did you mean 'Reaction'\?"),
    "unclosed": (bad(formula="Reaction ~ Days + (1 | Subject"), FormulaError, r"not closed\n.*\n +\^"),
    "no text": (bad(formula=3), FormulaError, "a formula is a text"),  # type: ignore[arg-type]
    "inf in y": (bad(at("Reaction", 5, np.inf)), DataError, r"'Reaction' is inf in row 5 .*set it to missing"),
    "-inf in x": (bad(at("Days", 7, -np.inf)), DataError, r"'Days' is -inf in row 7"),
    "constant y": (bad({"Reaction": 3.0}), DataError, r"'Reaction' is 3 in all 180 rows"),
    "no y": (bad({"Reaction": np.nan}), DataError, r"no row is left.*'Reaction' alone is missing in 180 of 180"),
    "log of a negative": (
        bad(at("Reaction", 2, -1.0), "log(Reaction) ~ Days + (1 | Subject)"),
        DataError,
        r"log\(Reaction\).*row 2.*Reaction = -1",
    ),
    "one level": (bad({"Subject": "a"}), DataError, r"'Subject' has a single level.*at least two"),
    "a row a level": (bad({"Subject": np.arange(180)}), DataError, r"'Subject' has a level for each of the 180 rows"),
    "too many effects": (
        bad({"g": np.arange(180) // 2}, "Reaction ~ Days + (Days | g)"),
        DataError,
        r"90 x 2 = 180 random effects, but only 180 rows",
    ),
    "negative weight": (bad(weights=-np.ones(180)), DataError, r"'weights' is -1.0 in row 0.*at least zero"),
    "weights of nan": (bad(weights=np.full(180, np.nan)), DataError, r"'weights' is nan in row 0"),
    "no weight": (bad(weights=np.zeros(180)), DataError, "every weight is zero"),
    "weights too short": (bad(weights=np.ones(3)), DataError, r"one value for each of the 180 rows.*\(3,\)"),
    "weights by an unknown name": (bad(weights="w"), ColumnError, r"'w' \(in weights\)"),
    "offset of inf": (bad(offset=np.full(180, np.inf)), DataError, "offset is inf in row 0"),
    "text as response": (bad({"Reaction": "fast"}), DataError, r"'Reaction' looks like text.*'fast' in row 0"),
    "numbers as text": (
        bad({"Reaction": [str(v) for v in REACTION]}),
        DataError,
        r"numbers written as text, such as '249.56'.*astype",
    ),
    "yes and no": (bad({"Reaction": REACTION > 300}), DataError, r"True and False.*binomial.*astype\(float\)"),
    "complex": (bad({"Reaction": REACTION + 1j}), DataError, "complex128"),
    "mixed types": (bad({"Subject": [1, "a"] * 90}), DataError, r"'Subject' mixes types: int \(1\) and str \('a'\)"),
    "a group of decimals": (
        bad({"Subject": REACTION}),
        DataError,
        r"'Subject' has the value 249.56, so it is no factor",
    ),
    "one effect twice": (
        bad(formula="Reaction ~ Days + (Days | Subject) + (1 | Subject)"),
        DataError,
        "'Intercept' varies by 'Subject' in two terms",
    ),
    "a structure": (bad(formula="Reaction ~ Days + toep(Days | Subject)"), FormulaError, r"toep\( \| \) is no covariance"),
    "successes": (bad(formula="cbind(Reaction, Days) ~ 1 + (1 | Subject)"), FormulaError, "binomial"),
    "levels": (
        bad(levels={"Subject": ["308"]}),
        DataError,
        r"'Subject' has the value '309'.*not among the levels given",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    (formula, data, options), error, message = BAD[name]
    with pytest.raises(error, match=f"(?s){message}") as caught:
        Model(formula, data, **options).fit()
    assert isinstance(caught.value, MultilevelError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame(), "no columns"),
        (SLEEP.iloc[:0], "no rows"),
        (None, "must be a data frame.*not NoneType"),
        ([1, 2], "not list"),
        (pd.concat([SLEEP, SLEEP[["Days"]]], axis=1), "'Days' stands more than once"),
        ({"Reaction": [1.0, 2.0], "Days": [1.0], "Subject": ["a", "b"]}, "columns differ in length: 'Days' has 1"),
        ({}, "no columns"),
    ],
)
def test_frames_that_cannot_be_used(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Model(FORMULA, data)


def test_a_huge_factor_in_the_fixed_part() -> None:
    rows = 60_000
    data = pd.DataFrame(
        {"y": np.arange(rows) % 17 * 1.0, "id": [f"i{i // 2}" for i in range(rows)], "g": np.arange(rows) % 10}
    )
    with pytest.raises(DataError, match=r"'id' would make 30000 columns.*GB.*\(1 \| id\)"):
        Model("y ~ id + (1 | g)", data)


def test_missing_rows_can_be_an_error() -> None:
    data = SLEEP.assign(**at("Reaction", 4, np.nan))
    with pytest.raises(DataError, match=r"1 of 180 rows .* \('Reaction' in 1\), first row 4.*missing='drop'"):
        Model(FORMULA, data, missing="raise")


@pytest.mark.parametrize("factor", [1e-200, 1e200, 1e-310])
def test_responses_beyond_floating_point(factor: float) -> None:
    """Refused with advice, or fitted right; nothing in between."""
    check_extreme(SLEEP.assign(Reaction=SLEEP["Reaction"] * factor), "Reaction")


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_predictors_beyond_floating_point(factor: float) -> None:
    check_extreme(SLEEP.assign(Days=SLEEP["Days"] * factor), "scale|large|small|range")


@pytest.mark.parametrize("weight", [1e-100, 1e-20, 1e20, 1e100, 1e300])
def test_weights_beyond_floating_point(weight: float) -> None:
    check_extreme(SLEEP, "weight|scale|large|small|range", weights=np.full(180, weight))


def check_extreme(data: pd.DataFrame, message: str, **options: Any) -> None:
    try:
        fit = Model(FORMULA, data, **options).fit()
    except DataError as error:
        assert re.search(message, str(error)), error
        return
    reference = Model(FORMULA, SLEEP).fit()
    assert fit.fixef()["statistic"][1] == pytest.approx(reference.fixef()["statistic"][1], rel=1e-5)


def test_tiny_data_fit_or_say_why() -> None:
    """Two to eight rows of every small pattern: numbers that are finite, or a typed error."""
    fitted = 0
    for rows in range(2, 9):
        for seed in range(12):
            rng = np.random.default_rng([rows, seed])
            data = pd.DataFrame(
                {
                    "y": rng.integers(0, 4, rows) * 1.0,
                    "x": rng.integers(0, 3, rows) * 1.0,
                    "g": rng.integers(0, 3, rows),
                }
            )
            for formula in ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)", "y ~ x + (x | g)"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ml.MultilevelWarning)
                    try:
                        fit = Model(formula, data).fit()
                    except MultilevelError:
                        continue
                fitted += 1
                assert np.isfinite(fit.criterion)
                assert np.isfinite(fit.sigma)
                assert np.isfinite(fit.optimum.beta).all()
                assert np.isfinite(fit.ranef()["estimate"]).all()
                assert isinstance(fit.convergence.sentence, str)
    assert fitted > 60


def test_odd_but_usable_input() -> None:
    """Booleans and whole floats as groups, numbers in an object column, unused categories, an unsorted index."""
    reference = Model(FORMULA, SLEEP).fit().criterion
    number = pd.to_numeric(SLEEP["Subject"].astype(str)).astype(float)
    for data in (
        SLEEP.assign(Subject=number),
        SLEEP.assign(Reaction=SLEEP["Reaction"].astype(object)),
        SLEEP.assign(Subject=SLEEP["Subject"].astype("category").cat.add_categories(["none"])),
        SLEEP.set_index(np.arange(180)[::-1]),
        SLEEP.convert_dtypes(),
        SLEEP.assign(Reaction=SLEEP["Reaction"].astype("float32").astype(float)),
    ):
        found = Model(FORMULA, data).fit().criterion
        assert found == pytest.approx(reference, rel=1e-5 if data["Reaction"].dtype == float else 1e-10)
    flag = draw(60, one(2, 60), 2)
    both: list[Array] = []
    for a in (flag["a"] == "a001", flag["a"]):
        both.append(np.array(quiet_fit(Model("y ~ x1 + (1 | a)", flag.assign(a=a))).criterion))
    assert both[0] == pytest.approx(float(both[1]), rel=1e-12)
