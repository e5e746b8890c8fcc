"""A saved posterior comes back equal, and no file can do more than be refused."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from posterior_samples import sampled

import multilevel as ml
from multilevel import archive
from multilevel.cli import main

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def relatives() -> ml.KnownCovariance:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(12, 12)) / 4 + np.eye(12)
    return ml.KnownCovariance([f"g{i}" for i in range(12)], covariance=a @ a.T)


def rows(seed: int = 1, n: int = 180) -> pd.DataFrame:
    """Rows with several kinds of columns, holes included."""
    rng = np.random.default_rng(seed)
    g = np.arange(n) % 12
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "arm": pd.Categorical(rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"], ordered=True),
            "g": [f"g{i}" for i in g],
            "h": rng.integers(0, 5, n),
            "w": rng.uniform(0.5, 2, n),
            "o": rng.normal(size=n),
        }
    )
    effect = rng.normal(size=12)[g]
    data["y"] = 3 + data["x"] + data["o"] + effect + rng.normal(size=n)
    data["count"] = rng.poisson(np.exp(0.3 * data["x"] + 0.5 * effect))
    data["good"] = rng.binomial(5, 1 / (1 + np.exp(-effect)))
    data["bad"] = 5 - data["good"]
    data["rank"] = pd.Categorical(np.clip(np.round(effect + rng.normal(size=n)), -1, 1).astype(int), ordered=True)
    data.loc[[3, 17], "y"] = np.nan
    return data


FREE: dict[str, Any] = {"x": ml.StudentT(4, 0, 2), "cor": ml.Fixed([[1.0, 0.2], [0.2, 1.0]]), "sigma": ml.Gamma(2, 1)}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "slope": ("y ~ x + (x | g)", {}),
    "user's priors": ("y ~ x + (x | g)", {"priors": FREE}),
    "weights, offset, factors": ("y ~ arm * x + offset(o) + (1 | h / g)", {"weights": "w"}),
    "spline": ("y ~ bs(x, df=4) + cs(0 + arm | g)", {"contrasts": {"arm": "sum"}}),
    "known covariance": ("y ~ x + (1 | g)", {"covariance": {"g": relatives()}}),
    "no groups": ("y ~ x", {}),
    "counts": ("count ~ x + (1 | g)", {"family": "nbinom2", "zi": "~ x"}),
    "proportions": ("cbind(good, bad) ~ x + (1 | g)", {"family": "binomial"}),
    "categories": ("rank ~ x + (1 | g)", {"family": "ordinal"}),
}


@cache
def posterior(name: str = "slope") -> Any:
    formula, given = MODELS[name]
    return sampled(formula, rows(), {"draws": 60, "warmup": 100, "chains": 2}, **given)


@cache
def saved(data: bool = False) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        posterior().save(Path(folder) / "p", data)
        return (Path(folder) / "p").read_bytes()


def refused(path: Path, match: str = "") -> None:
    with pytest.raises(ml.FileError, match=match):
        ml.read(path)


# -- what comes back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("data", [False, True])
def test_everything_comes_back(name: str, data: bool, tmp_path: Path) -> None:
    one = posterior(name)
    one.save(tmp_path / "p", data)
    back: Any = ml.read(tmp_path / "p")
    assert type(back) is type(one) and str(back) == str(one) and back.trust == one.trust
    mine, theirs = one.draws_kept, back.draws_kept
    assert mine.beta.tobytes() == theirs.beta.tobytes() and mine.scalars.tobytes() == theirs.scalars.tobytes()
    assert [b.tobytes() for b in mine.b] == [b.tobytes() for b in theirs.b]
    assert mine.coordinates == theirs.coordinates and mine.method == theirs.method
    assert set(mine.stats) == set(theirs.stats)
    assert all(np.array_equal(values, theirs.stats[key]) for key, values in mine.stats.items())
    assert {k: v for k, v in mine.facts.items() if k != "mode_gradients"}.keys() <= theirs.facts.keys()
    for table in ("fixef", "parameters", "ranef", "coef", "varcorr", "prior_summary"):
        pd.testing.assert_frame_equal(getattr(one, table)(), getattr(back, table)(), check_exact=True)
    assert [str(e.prior.text()) for e in one.entries] == [e.prior.text() for e in back.entries]
    assert [e.name for e in one.entries] == [e.name for e in back.entries]
    new = rows(2, 20)
    options: dict[str, Any] = {"interval": "confidence", "new_levels": "population", "seed": 1}
    pd.testing.assert_frame_equal(one.predict(new, **options), back.predict(new, **options), check_exact=True)
    if "x" in one.design.names:
        pd.testing.assert_frame_equal(one.hypothesis("x > 0"), back.hypothesis("x > 0"), check_exact=True)
    assert np.ravel(back.plot.trace())[0].figure is not None


@pytest.mark.parametrize("name", MODELS)
def test_with_data_the_rows_work_too(name: str, tmp_path: Path) -> None:
    one = posterior(name)
    one.save(tmp_path / "p", data=True)
    back: Any = ml.read(tmp_path / "p")
    assert np.array_equal(one.log_likelihood(), back.log_likelihood())
    assert np.array_equal(one.residuals("quantile"), back.residuals("quantile"), equal_nan=True)
    pd.testing.assert_frame_equal(one.simulate(2, seed=1), back.simulate(2, seed=1), check_exact=True)
    pd.testing.assert_frame_equal(one.predict(), back.predict(), check_exact=True)
    pd.testing.assert_frame_equal(one.model.prior_summary(), back.model.prior_summary(), check_exact=True)
    assert str(one.check()) == str(back.check())
    back.save(tmp_path / "again", data=True)
    assert str(ml.read(tmp_path / "again")) == str(one)


def test_without_data_what_needs_rows_says_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        posterior().save(Path(folder) / "p")
        back: Any = ml.read(Path(folder) / "p")
        for call in (
            back.residuals, back.check, back.loo, back.simulate, back.fitted, back.plot.check, back.plot.residuals,
            back.plot.shrinkage, lambda: back.condition(rows(2, 20).dropna()),
            lambda: back.save(Path(folder) / "q", data=True), back.model.sample, back.model.fit, back.model.prior_summary,
            lambda: back.model.criterion([1, 0, 1]),
        ):  # fmt: skip
            with pytest.raises(ml.DataError, match=r"saved without its data.*save\(path, data=True\)"):
                call()


def test_structured_residuals_come_back(tmp_path: Path) -> None:
    data = rows().dropna().assign(t=lambda d: d.groupby("g").cumcount())
    given: dict[str, Any] = {"correlation": "ar1(t | g)", "variance": "ident(arm)"}
    one = sampled("y ~ x + (1 | h)", data, {"draws": 20, "chains": 2}, **given)
    for keep in (False, True):
        one.save(tmp_path / "p", keep)
        back: Any = ml.read(tmp_path / "p")
        assert str(back) == str(one) and [e.limits for e in back.entries] == [e.limits for e in one.entries]
        assert back.model.residual.names() == one.model.residual.names()
    assert np.array_equal(back.model.residual.serial.previous, one.model.residual.serial.previous)
    with pytest.raises(ml.OptionError, match="independent residuals"):
        back.condition(data.head(3))


def test_parameters_alone(tmp_path: Path) -> None:
    one = sampled("y ~ x + (1 | g)", rows(), {"draws": 50, "chains": 2, "keep": "parameters"})
    one.save(tmp_path / "p")
    back: Any = ml.read(tmp_path / "p")
    assert str(back) == str(one) and not back.draws_kept.b
    with pytest.raises(ml.OptionError, match="not kept"):
        back.ranef()


def test_equal_posteriors_make_equal_files(tmp_path: Path) -> None:
    posterior().save(tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == saved()
    kept = posterior().draws_kept
    numbers = sum(v.nbytes for v in (kept.scalars, kept.beta, *kept.b, *kept.stats.values()))
    assert len(saved()) < numbers + 20_000


def test_save_refuses() -> None:
    with pytest.raises(ml.OptionError, match="data must be True or False"):
        posterior().save("p", data="yes")
    with pytest.raises(ml.FileError, match="cannot write"):
        posterior().save("/nowhere/at/all")


# -- what is refused ------------------------------------------------------------------------------------------------


def test_the_command_line_wants_a_fit(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "p").write_bytes(saved())
    assert main(["profile", str(tmp_path / "p")]) != 0
    assert "holds a posterior, where a fit is needed" in capsys.readouterr().err
    assert main(["summary", str(tmp_path / "p")]) == 0
    assert "posterior" in capsys.readouterr().out


def rewritten(path: Path, change: Any, data: bool = False) -> None:
    """A file with honest checksums, after `change(header, arrays)`."""
    path.write_bytes(saved(data))
    with open(path, "rb") as file:
        header, arrays = archive.read(file)
    change(header, arrays)
    header["arrays"] = list(arrays)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(archive.HEADER, json.dumps(header))
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array), version=(1, 0))
            out.writestr(f"{name}.npy", stream.getvalue())


def test_versions(tmp_path: Path) -> None:
    path = tmp_path / "p"
    rewritten(path, lambda header, _: header.update(version=7, library="9.1"))
    refused(path, r"newer multilevel \(9.1, format 7\).*upgrade")
    rewritten(path, lambda header, _: header.update(format="multilevel dance"))
    refused(path, "of another format")
    path.write_bytes(b"x,y\n1,2\n")
    refused(path, "is no fit or posterior saved by multilevel")
    rewritten(path, lambda header, _: header["entries"][0]["prior"].update(type="Horseshoe"))
    refused(path, "a prior is of a newer version")


def test_a_prior_is_no_way_in(tmp_path: Path) -> None:
    for name in ("check_priors", "Prior", "Density", "__builtins__", "np"):
        rewritten(tmp_path / "p", lambda header, _, name=name: header["entries"][0]["prior"].update(type=name))
        refused(tmp_path / "p", "a prior is")
    rewritten(tmp_path / "p", lambda header, _: header["entries"][1]["prior"]["values"].update(sigma=-1.0))
    refused(tmp_path / "p", "must be positive")


def test_arrays_of_a_wrong_shape(tmp_path: Path) -> None:
    _, arrays = archive.read(io.BytesIO(saved(True)))
    for name in (one for one in arrays if not one.startswith("column")):
        for change in (lambda a: a[:-1], lambda a: a[None], lambda a: a.astype(np.int32) if a.dtype != np.int32 else a[:0]):

            def put(_: Any, arrays: Any, name: str = name, change: Any = change) -> None:
                arrays[name] = change(arrays[name])

            rewritten(tmp_path / "p", put, True)
            refused(tmp_path / "p", "damaged or incomplete")


def test_draws_that_are_no_numbers(tmp_path: Path) -> None:
    for name in ("draws/beta", "draws/scalars", "draws/b0"):

        def put(_: Any, arrays: Any, name: str = name) -> None:
            arrays[name][0, 0] = np.nan

        rewritten(tmp_path / "p", put)
        refused(tmp_path / "p", "a draw is no number")


@QUICK
@given(st.data())
def test_headers_that_lie(data: Any) -> None:
    """Any one value of the header replaced: read or refused, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"

        def put(header: Any, _: Any) -> None:
            at: Any = header
            while True:
                keys = list(at) if isinstance(at, dict) else list(range(len(at)))
                key = data.draw(st.sampled_from(keys))
                if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.integers(0, 3)) == 0:
                    break
                at = at[key]
            at[key] = data.draw(st.sampled_from([None, -1, 10**9, "x", [], {}, 0.5, True]))

        rewritten(path, put)
        try:
            str(ml.read(path))
        except ml.FileError as error:
            assert str(path) in str(error)


@QUICK
@given(st.integers(0, 10**9), st.integers(0, 255))
def test_damage_is_noticed(at: int, value: int) -> None:
    content = bytearray(saved())
    content[at % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(bytes(content))
        try:
            assert str(ml.read(path)) == str(posterior())
        except ml.FileError:
            assert bytes(content) != saved()
        path.write_bytes(saved()[: at % len(content)])
        with pytest.raises(ml.FileError):
            ml.read(path)
        assert os.listdir(folder) == ["p"]
