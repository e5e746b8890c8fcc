"""From rows to blocks: whitening, chunks, threads, order of elimination, the plan of the factorisation, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import Array
from shapes import NAMES, draw, engine, generic, one, shape, twin

from multilevel import DataError, Model, _core, crossprod
from multilevel.crossprod import CrossProducts, build, center_response, default_threads, whitening


def blocks(name: str, weighted: bool = False) -> CrossProducts:
    s = shape(name)
    return engine(s.weighted if weighted else s.model).blocks


def arrays(problem: Any) -> dict[str, Array]:
    return {name: np.asarray(value, dtype=float) for name, value in _core.export_blocks(problem).items()}


def columns(c: CrossProducts) -> tuple[Array, list[int]]:
    """Dense [Z X] of the engine's coordinates and where each factor begins."""
    parts, starts, at = [], [], 0
    for codes, z, levels in zip(c.rows.codes, c.rows.z, c.rows.levels, strict=True):
        values = np.ones((c.n, 1)) if z is None else z
        full = np.zeros((c.n, levels, values.shape[1]))
        full[np.arange(c.n), codes] = values
        starts.append(at)
        at += levels * values.shape[1]
        parts.append(full.reshape(c.n, -1))
    return np.hstack([*parts, c.rows.x]), [*starts, at]


def rebuilt(c: CrossProducts, design: Any, rows: Any, threads: int = 1) -> Any:
    y, _, _ = center_response(design, c.rows.x, c.rows.weights)
    pick = [None if z is None else np.ascontiguousarray(z[rows]) for z in c.rows.z]
    return _core.build(
        [np.ascontiguousarray(a[rows]) for a in c.rows.codes],
        pick,
        c.rows.levels,
        np.ascontiguousarray(c.rows.x[rows]),
        np.ascontiguousarray(y[rows]),
        None if c.rows.weights is None else np.ascontiguousarray(c.rows.weights[rows]),
        threads,
    )


# --- blocks


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_the_cross_products(name: str, weighted: bool) -> None:
    c = blocks(name, weighted)
    design = (shape(name).weighted if weighted else shape(name).model).design
    y, _, _ = center_response(design, c.rows.x, c.rows.weights)
    w = np.ones(c.n) if c.rows.weights is None else c.rows.weights
    dense, starts = columns(c)
    gram, right = dense.T @ (w[:, None] * dense), dense.T @ (w * y)
    got = arrays(c.core)
    assert c.core.n == c.n == len(design.y)
    assert c.core.yy == pytest.approx(y @ (w * y), rel=1e-13)
    assert c.core.sum_log_w == pytest.approx(np.log(w).sum(), rel=1e-12, abs=1e-12)
    x0 = starts[-1]
    tolerance = {"rtol": 0, "atol": 1e-12 * c.n}
    np.testing.assert_allclose(got["xx"].reshape(c.p, c.p), gram[x0:, x0:], **tolerance)
    np.testing.assert_allclose(got["xy"], right[x0:], **tolerance)
    for f, g in enumerate(c.groups):
        k, levels, first = g.k, g.levels, starts[f]
        own = gram[first : first + levels * k, first : first + levels * k].reshape(levels, k, levels, k)
        np.testing.assert_allclose(got[f"diag{f}"].reshape(levels, k, k), np.einsum("jajb->jab", own), **tolerance)
        np.testing.assert_allclose(got[f"zy{f}"], right[first : first + levels * k], **tolerance)
        np.testing.assert_allclose(
            got[f"border{f}"].reshape(levels * k, c.p), gram[first : first + levels * k, x0:], **tolerance
        )
        for h in range(f + 1, len(c.groups)):
            other, kh = c.groups[h], c.groups[h].k
            full = np.zeros((other.levels, kh, levels, k))
            ptr, idx = got[f"ptr{f}_{h}"].astype(int), got[f"idx{f}_{h}"].astype(int)
            value = got[f"val{f}_{h}"].reshape(-1, kh, k)
            for j in range(levels):
                for e in range(ptr[j], ptr[j + 1]):
                    full[idx[e], :, j] = value[e]
            wanted = gram[starts[h] : starts[h] + other.levels * kh, first : first + levels * k]
            np.testing.assert_allclose(full.reshape(other.levels * kh, levels * k), wanted, **tolerance)
            assert len(idx) == len({*zip(c.rows.codes[f].tolist(), c.rows.codes[h].tolist(), strict=True)})


@pytest.mark.parametrize("name", NAMES)
def test_chunks_add_up(name: str) -> None:
    """Two halves that each miss levels, added: the blocks and the criterion of the whole."""
    m = shape(name).weighted
    whole = engine(m)
    c = whole.blocks
    rows = np.arange(c.n)
    cut = c.n // 3
    added = rebuilt(c, m.design, rows[:cut]) + rebuilt(c, m.design, rows[cut:])
    wanted, got = arrays(c.core), arrays(added)
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12 * c.n, err_msg=key)
    roots = [np.eye(g.k) * 0.7 for g in c.groups]
    for reml in (True, False):
        first, second = _core.State(c.core, reml, 1), _core.State(added, reml, 1)
        assert first.set(roots) == second.set(roots) == 0
        for name_ in ("log_det_u", "log_det_x", "r2"):
            assert getattr(second, name_) == pytest.approx(getattr(first, name_), rel=1e-12, abs=1e-12)
        for a, b in zip(first.gradient(1.0, 1.0, c.n), second.gradient(1.0, 1.0, c.n), strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * max(1.0, np.abs(a).max()))


def test_chunks_of_another_model_are_refused() -> None:
    with pytest.raises(Exception, match=r"(?i)differ|levels|same"):
        blocks("slope").core + blocks("crossed").core


@pytest.mark.parametrize("name", ["slope", "merged blocks", "crossed, panel", "chain with slopes", "sparse mesh"])
def test_threads_and_order_of_rows(name: str) -> None:
    m = shape(name).weighted
    c = engine(m).blocks
    rows = np.arange(c.n)
    one_thread, four = arrays(rebuilt(c, m.design, rows, 1)), arrays(rebuilt(c, m.design, rows, 4))
    turned = arrays(rebuilt(c, m.design, np.random.default_rng(1).permutation(c.n), 4))
    for key, value in one_thread.items():
        np.testing.assert_array_equal(four[key], value, err_msg=key)
        np.testing.assert_allclose(turned[key], value, rtol=0, atol=1e-12 * c.n, err_msg=key)


def test_many_rows_in_threads() -> None:
    """Enough rows that the passes are really split."""
    rng = np.random.default_rng(2)
    n = 60_000
    codes = [rng.integers(0, 700, n).astype(np.int32), rng.integers(0, 40, n).astype(np.int32)]
    z: list[Any] = [rng.normal(size=(n, 2)), None]
    x, y, w = rng.normal(size=(n, 3)), rng.normal(size=n), rng.uniform(0.5, 2, n)
    first, second = (_core.build(codes, z, [700, 40], x, y, w, threads) for threads in (1, 4))
    for key, value in arrays(first).items():
        np.testing.assert_array_equal(arrays(second)[key], value, err_msg=key)
    one_state, four = _core.State(first, True, 1), _core.State(second, True, 4)
    roots = [np.array([[0.4, 0.0], [0.1, 0.3]]), np.array([[0.2]])]
    assert one_state.set(roots) == four.set(roots) == 0
    assert one_state.r2 == four.r2
    assert one_state.log_det_u == four.log_det_u
    for a, b in zip(one_state.gradient(1, 1, n), four.gradient(1, 1, n), strict=True):
        np.testing.assert_array_equal(a, b)


def test_export_and_import() -> None:
    c = blocks("merged blocks", True)
    back = _core.import_blocks(_core.export_blocks(c.core))
    for key, value in arrays(c.core).items():
        np.testing.assert_array_equal(arrays(back)[key], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": [np.array([0, 1, 2], np.int32)]}, "outside"),
        ({"codes": [np.array([0, -1, 1], np.int32)]}, "outside"),
        ({"codes": [np.array([0, 1], np.int32)]}, r"\(n,\)"),
        ({"z": [np.ones((2, 1))]}, r"\(n, k\)"),
        ({"levels": [2, 3]}, "one entry"),
        ({"x": np.ones(3)}, r"\(n, p\)"),
        ({"y": np.ones(2)}, r"\(n,\)"),
        ({"w": np.ones(2)}, r"\(n,\)"),
    ],
)
def test_the_core_checks_its_input(change: dict[str, Any], message: str) -> None:
    """Nothing a caller in Python passes may read outside an array."""
    good: dict[str, Any] = {
        "codes": [np.array([0, 1, 1], np.int32)],
        "z": [None],
        "levels": [2],
        "x": np.ones((3, 1)),
        "y": np.arange(3.0),
        "w": None,
        "threads": 1,
    }
    _core.build(**good)
    with pytest.raises(ValueError, match=message):
        _core.build(**(good | change))


def test_a_lambda_of_the_wrong_shape() -> None:
    state = _core.State(blocks("slope").core, True, 1)
    with pytest.raises(ValueError, match=r"\(k, k\)"):
        state.set([np.eye(3)])
    with pytest.raises(ValueError, match="one Lambda"):
        state.set([])


# --- plan


def test_every_route_of_the_plan_is_taken() -> None:
    """The shapes of these tests reach each way to update the tail and each number of sparse factors."""
    seen = {name: (c.core.sparse_factors, c.core.tail_mode) for name in NAMES for c in [blocks(name)]}
    assert {mode for _, mode in seen.values()} == {0, 1, 2}  # direct, panel, scattered
    assert {count for count, _ in seen.values()} == {0, 1, 2, 3}
    assert seen["crossed, panel"] == (1, 1)
    assert seen["crossed, panel, slopes"] == (1, 1)
    assert seen["crossed, scattered"] == (1, 2)
    assert seen["crossed, scattered, slopes"] == (1, 2)
    assert seen["chain"] == (3, 0)
    assert seen["chain with slopes"] == (3, 0)
    assert seen["chain, sparse twice"] == (2, 2)
    assert seen["sparse mesh"] == (2, 0)


@pytest.mark.parametrize("mode", ["panel", "scattered"])
def test_a_dense_remainder_of_more_than_64(mode: str) -> None:
    """Crossed so thickly that a later factor of many levels is dense after all."""
    rng = np.random.default_rng(6)
    rows, levels = (700, 70) if mode == "panel" else (330, 80)
    a = np.arange(rows) % 75 if mode == "panel" else np.arange(rows) // 2
    b = rng.integers(0, levels, rows)
    data = draw(rows, {"a": np.unique(a, return_inverse=True)[1], "b": np.unique(b, return_inverse=True)[1]}, 3)
    m = Model("y ~ x1 + (1 | a) + (1 | b)", data)
    mine, dense = engine(m), twin(m.design)
    assert mine.blocks.core.sparse_factors == 1
    assert mine.blocks.core.tail_size > 64
    assert mine.blocks.core.tail_mode == {"panel": 1, "scattered": 2}[mode]
    factors = generic(m.design)
    assert mine.criterion(factors) == pytest.approx(dense.criterion(factors), rel=1e-12)
    for found, wanted in zip(mine.gradient(factors), dense.gradient(factors), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_factors_go_in_an_order_that_keeps_nests_sparse() -> None:
    assert [g.name for g in blocks("small chain").groups] == ["c:b:a", "c:b", "c"]
    assert [g.name for g in blocks("chain with slopes").groups] == ["a", "b", "c"]
    assert [g.name for g in blocks("with their interaction").groups][0] == "a:b"
    # more scalars, but schools lie in it: the inner factor still goes first
    s = shape("chain with slopes")
    wide = engine(Model("y ~ x1 + (1 | b) + (1 + x1 + x2 + x3 | c)", s.data)).blocks
    assert [g.name for g in wide.groups] == ["b", "c"]
    assert wide.groups[1].levels * wide.groups[1].k > wide.groups[0].levels


def test_terms_on_one_group_are_merged() -> None:
    c = blocks("merged blocks")
    assert [(g.name, g.terms, g.k) for g in c.groups] == [("a", (0, 1), 4), ("b", (2,), 1)]
    assert c.components == [(0, [0, 1]), (0, [2]), (0, [3]), (1, [0])]
    assert c.owners == [(0, [0, 1]), (1, [0]), (1, [1]), (2, [0])]
    basis = c.groups[0].basis
    np.testing.assert_array_equal(basis[:2, 2:], 0)
    assert basis[2, 3] == basis[3, 2] == 0


def test_an_effect_twice_on_one_group() -> None:
    m = Model("y ~ x1 + (x1 | a) + (1 | a)", shape("slope").data)
    with pytest.raises(DataError, match=r"'Intercept' varies by 'a' in two terms"):
        m.engine(1)


# --- coordinates


@pytest.mark.parametrize(("kind", "worst"), [("plain", 1e-10), ("far", 1e-6), ("near collinear", 1e-3)])
def test_whitened_columns_are_orthogonal(kind: str, worst: float) -> None:
    rng = np.random.default_rng(1)
    given = rng.normal(size=(200, 3))
    given[:, 0] = 1
    if kind == "far":
        given[:, 1:] += 2000
    if kind == "near collinear":
        given[:, 2] = given[:, 1] + 1e-6 * given[:, 2]
    basis = whitening(given)
    np.testing.assert_array_equal(basis, np.triu(basis))
    made = given @ basis
    np.testing.assert_allclose(made.T @ made / 200, np.eye(3), rtol=0, atol=worst)


def test_whitening_of_collinear_and_empty_columns() -> None:
    column = np.arange(1.0, 11.0)
    basis = whitening(np.column_stack([column, 2 * column, 0 * column]))
    assert np.all(np.isfinite(basis))
    np.testing.assert_array_equal(basis, np.diag(np.diag(basis)))
    assert whitening(np.zeros((5, 1)))[0, 0] == 1.0


def test_the_response_is_centred_exactly() -> None:
    m = shape("six fixed effects").weighted
    c = build(m.design, 1)
    y, shift, scale = center_response(m.design, c.rows.x, c.rows.weights)
    np.testing.assert_allclose(c.rows.x @ shift + scale * y, m.design.y, rtol=1e-13)
    assert 0.1 < np.mean(y * y) < 10
    assert np.abs(c.rows.x.T @ (m.design.weights * y)).max() < 1e-10


def test_memory_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossprod, "MEMORY_LIMIT", 1e4)
    with pytest.raises(
        DataError,
        match=r"needs about .* GB: the crossed factors leave a dense block of 27 rows "
        r"\(a \(30 levels x 1\), b \(24 levels x 1\)\).*Drop or coarsen",
    ):
        blocks("crossed, panel")


def test_memory_is_linear_in_rows_and_levels() -> None:
    """What the plan says it needs: a nest of many levels is no dense matrix."""
    rng = np.random.default_rng(3)
    n, inner = 40_000, 8_000
    school = rng.integers(0, inner, n).astype(np.int32)
    region = (school // 8).astype(np.int32)
    core = _core.build(
        [school, region], [None, None], [inner, inner // 8], np.ones((n, 1)), rng.normal(size=n), None, 1
    )
    assert core.sparse_factors == 2
    assert core.bytes < 8 * 40 * (inner + inner // 8)


def test_default_threads() -> None:
    assert default_threads() >= 1


def test_object_and_integer_groups_are_one(rows: int = 40) -> None:
    data = draw(rows, one(5, rows), 1)
    number = data.assign(a=data["a"].str[1:].astype(int))
    boolean = pd.DataFrame({"y": data["y"], "a": data["x1"] > 0})
    first, second = (Model("y ~ 1 + (1 | a)", d).engine(1).fit().criterion for d in (data, number))
    assert first == second
    assert np.isfinite(Model("y ~ 1 + (1 | a)", boolean).engine(1).fit().criterion)
