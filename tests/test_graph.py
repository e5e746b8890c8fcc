"""Plate diagrams: what they say, that nothing overlaps, and that they are SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel.graph import Graph
from multilevel.graph_svg import Box, layout, text_width


def eight() -> ml.Model:
    data = ml.load("eight_schools")
    data["precision"] = 1 / data["sigma"] ** 2
    priors = {"Intercept": ml.Normal(0, 5), "sd": ml.HalfCauchy(5), "sigma": ml.Fixed(1.0)}
    return ml.Model("y ~ 1 + (1 | school)", data, weights="precision", priors=priors)


def math10() -> ml.Model:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))


def crossed() -> ml.Model:
    return ml.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", ml.load("penicillin"))


def zeros() -> ml.Model:
    return ml.Model(
        "count ~ spp * mined + (1 | site)", ml.load("salamanders"), family="nbinom2", zi="~ mined", dispersion="~ DOY"
    )


def zero_share() -> ml.Model:
    return ml.Model("count ~ mined + (1 | site)", ml.load("salamanders"), family="poisson", zi="~ 1")


def ordered() -> ml.Model:
    return ml.Model("rating ~ temp + contact + (1 | judge)", ml.load("wine"), family="ordinal")


def three_factors() -> ml.Model:
    formula = "TICKS ~ YEAR + HEIGHT + (1 | BROOD) + (1 | LOCATION) + (1 | INDEX)"
    return ml.Model(formula, ml.load("grouseticks"), family="nbinom2")


def machines() -> ml.Model:
    return ml.Model("score ~ Machine + (0 + Machine | Worker)", ml.load("machines"))


def proportions() -> ml.Model:
    return ml.Model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", ml.load("cbpp"), family="betabinomial")


def pooled() -> ml.Model:
    return ml.Model("math ~ homework", ml.load("math10"))


def grouped_only() -> ml.Model:
    return ml.Model("math ~ 0 + (1 | schid)", ml.load("math10"))


def long_names() -> ml.Model:
    rng = np.random.default_rng(1)
    data: dict[str, Any] = {"a_response_with_quite_a_long_name_that_nobody_would_type": rng.normal(size=60)}
    for i in range(14):
        data[f"a_predictor_with_a_rather_long_name_number_{i}"] = rng.normal(size=60)
    data["<group & 'co'>"] = np.repeat(np.arange(12), 5)
    data["g"] = np.tile(list("abcde"), 12)
    names = [n for n in data if n.startswith("a_predictor")]
    text = f"a_response_with_quite_a_long_name_that_nobody_would_type ~ {' + '.join(names)} + (1 + {names[0]} | g)"
    return ml.Model(text + " + (1 | `<group & 'co'>`) + (1 | linear)", data | {"linear": np.tile(list("xyz"), 20)})


def clashing() -> ml.Model:
    rng = np.random.default_rng(2)
    data = {
        "data": rng.normal(size=30), "sigma": rng.normal(size=30), "rows": np.repeat(np.arange(6), 5),
        "y": rng.normal(size=30),
    }  # fmt: skip
    return ml.Model("y ~ data + sigma + (1 | rows) + (0 + data | rows)", data)


def residual() -> ml.Model:
    sleep, priors = ml.load("sleepstudy"), {"rho": ml.Normal(0, 0.3)}
    options: dict[str, Any] = {"correlation": "ar1(Days | Subject)", "variance": "exp(Days)", "priors": priors}
    return ml.Model("Reaction ~ Days + (Days | Subject)", sleep, **options)


def ratios() -> ml.Model:
    return ml.Model("score ~ 1 + (1 | Worker)", ml.load("machines"), variance="ident(Machine)", priors={"ratio": ml.Fixed(2)})


MODELS: list[Callable[[], ml.Model]] = [
    eight, math10, crossed, zeros, zero_share, ordered, three_factors, machines, proportions, pooled, grouped_only,
    long_names, clashing, residual, ratios,
]  # fmt: skip
every_model = pytest.mark.parametrize("make", MODELS, ids=lambda m: m.__name__)


# -- what it says ----------------------------------------------------------------------------------------------


def test_random_slopes() -> None:
    found = math10().graph()
    assert set(found.edges) == {
        ("sd(schid, Intercept)", "ranef(schid)"), ("sd(schid, homework)", "ranef(schid)"), ("cor(schid)", "ranef(schid)"),
        ("ranef(schid)", "linear predictor"), ("Intercept", "linear predictor"), ("homework", "linear predictor"),
        ("data", "linear predictor"), ("linear predictor", "math"), ("sigma", "math"),
    }  # fmt: skip
    assert found.nodes["ranef(schid)"].plate == "schid"
    assert found.plates["schid"].caption == "schid: 10 levels" and found.plates["rows"].caption == "260 rows"
    assert found.nodes["ranef(schid)"].lines == ("ranef(schid)", "Intercept, homework", "~ Normal(0, Σ)")
    assert found.nodes["cor(schid)"].lines == ("cor(schid)", "~ LKJ(2)")
    assert found.nodes["math"].lines == ("math", "~ Normal(predictor, sigma)") and found.nodes["math"].kind == "observed"


def test_held_sigma_and_weights() -> None:
    found = eight().graph()
    assert found.nodes["sigma"].kind == "fixed" and found.nodes["sigma"].lines == ("sigma", "= 1")
    assert found.nodes["y"].lines[1] == "~ Normal(predictor, sigma / √weights)"
    assert found.nodes["sd(school, Intercept)"].lines[1] == "~ HalfCauchy(5)"


def test_crossed_factors_have_a_plate_each() -> None:
    found = crossed().graph()
    assert set(found.plates) == {"plate", "sample", "rows"}
    assert {a for a, b in found.edges if b == "linear predictor"} == {"ranef(plate)", "ranef(sample)", "Intercept"}


def test_parameters_of_rows_beside_the_mean() -> None:
    found = zeros().graph()
    assert {a for a, b in found.edges if b == "count"} == {"linear predictor", "log size", "logit zi"}
    assert {a for a, b in found.edges if b == "logit zi"} == {"zi[Intercept]", "zi[mined[T.no]]"}
    assert found.nodes["count"].lines[1] == "~ ZeroInflated(zi, NegativeBinomial(exp(predictor), size))"
    plain = zero_share().graph()
    assert ("zi[Intercept]", "count") in plain.edges
    assert ordered().graph().nodes["thresholds"].lines[0] == "1|2 ~ Normal(0, 5)"


def test_many_parameters_share_a_box() -> None:
    lines = zeros().graph().nodes["coefficients"].lines
    assert len(lines) == 10 and lines[-1] == "and 5 more"
    assert machines().graph().nodes["sds of Worker"].lines[-1] == "cor(Worker) ~ LKJ(2)"


def test_structured_residuals_are_said() -> None:
    model = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), correlation="ar1(1 | Subject)")
    assert model.graph().nodes["Reaction"].lines[1] == "~ Normal(predictor, Σ, structured)"


def test_parameters_of_residual_structures_have_nodes() -> None:
    found = residual().graph()
    assert found.nodes["rho(Subject)"].lines == ("rho(Subject)", "~ Normal(0, 0.3)")
    assert {a for a, b in found.edges if b == "Reaction"} == {"linear predictor", "sigma", "rho(Subject)", "exp(Days)"}
    assert found.nodes["sigma"].lines[1].endswith(" for the sd of a typical row")
    held = ratios().graph().nodes["ratio(Machine, B)"]
    assert held.kind == "fixed" and held.lines == ("ratio(Machine, B)", "= 2")


def test_known_covariance_is_said() -> None:
    known = ml.KnownCovariance(list("abcd"), covariance=0.5 * np.eye(4) + 0.5)
    data = {"y": [1.0, 2, 4, 3, 2, 5, 3, 1], "g": list("aabbccdd")}
    found = ml.Model("y ~ 1 + (1 | g)", data, covariance={"g": known}).graph()
    assert found.nodes["ranef(g)"].lines[1] == "Intercept ~ Normal(0, sd² K)"


def test_models_of_fits_have_their_diagram_too(tmp_path: Path) -> None:
    cows = ml.load("cbpp")
    priors = {"sd": ml.HalfNormal(0.7)}
    model = ml.Model("incidence | trials(size) ~ 1 + (1 | herd)", cows, family="binomial", priors=priors)
    fitted = model.fit(quadrature=5).model
    assert fitted.graph().nodes["sd(herd, Intercept)"].lines[1] == "~ HalfNormal(0.7)"
    fit = ml.lmer("math ~ homework + (1 | schid)", ml.load("math10"))
    fit.save(tmp_path / "fit.mlv", data=True)
    assert str(ml.read(tmp_path / "fit.mlv").model.graph()) == str(fit.model.graph())
    fit.save(tmp_path / "bare.mlv")
    with pytest.raises(ml.DataError, match="data=True"):
        ml.read(tmp_path / "bare.mlv").model.graph()


def test_impossible_priors_are_refused() -> None:
    model = ml.Model("math ~ homework + (1 | schid)", ml.load("math10"), priors={"homwork": ml.Normal(0, 1)})
    with pytest.raises(ml.OptionError, match="homework"):
        model.graph()


# -- where it stands -------------------------------------------------------------------------------------------


def apart(a: Box, b: Box) -> bool:
    return a.right <= b.x or b.right <= a.x or a.bottom <= b.y or b.bottom <= a.y


def inside(inner: Box, outer: Box) -> bool:
    return outer.x <= inner.x and inner.right <= outer.right and outer.y <= inner.y and inner.bottom <= outer.bottom


def points(arrow: tuple[float, ...]) -> list[tuple[float, float]]:
    """Points along an arrow: down to where it turns, then the cubic curve that is drawn."""
    x0, y0, turn, x1, y1 = arrow
    if y0 == turn and abs(y1 - y0) < 1:
        return [(x0 + s * (x1 - x0), y0) for s in np.linspace(0, 1, 40)]
    down = [(x0, y0 + s * (turn - y0)) for s in np.linspace(0, 1, 20)]
    middle = (turn + y1) / 2
    for t in np.linspace(0, 1, 60):
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        down.append((
            float(np.dot(weights, (x0, x0, x1, x1))), float(np.dot(weights, (turn, middle, middle, y1)))
        ))  # fmt: skip
    return down


@every_model
def test_nothing_overlaps(make: Callable[[], ml.Model]) -> None:
    found = make().graph()
    placed = layout(found)
    for one, other in combinations([*placed.nodes.items(), *placed.captions.items()], 2):
        assert apart(one[1], other[1]), f"{one[0]} overlaps {other[0]}"
    groups = [name for name in placed.plates if name != "rows"]
    for one, other in combinations([*groups, "rows"], 2):
        assert apart(placed.plates[one], placed.plates[other]), f"plate {one} overlaps {other}"
    for name, node in found.nodes.items():
        for plate, box in placed.plates.items():
            if plate == node.plate:
                assert inside(placed.nodes[name], box), f"{name} juts out of its plate"
            else:
                assert apart(placed.nodes[name], box), f"{name} stands in the plate {plate}"
    for name, box in placed.captions.items():
        assert inside(box, placed.plates[name])


@every_model
def test_arrows_cross_no_label(make: Callable[[], ml.Model]) -> None:
    found = make().graph()
    placed = layout(found)
    for (start, end), arrow in zip(found.edges, placed.arrows, strict=True):
        others = {n: b for n, b in {**placed.nodes, **{f"caption {c}": b for c, b in placed.captions.items()}}.items()
                  if n not in (start, end)}  # fmt: skip
        for x, y in points(arrow):
            for name, box in others.items():
                hit = box.x < x < box.right and box.y < y < box.bottom
                assert not hit, f"the arrow from {start} to {end} crosses {name}"
        target = placed.nodes[end]
        assert target.x - 1 <= arrow[3] <= target.right + 1 and target.y - 1 <= arrow[4] <= target.bottom + 1


@every_model
def test_text_fits_its_node(make: Callable[[], ml.Model]) -> None:
    found = make().graph()
    placed = layout(found)
    for name, node in found.nodes.items():
        box = placed.nodes[name]
        assert box.width >= max(text_width(line) for line in node.lines)
        assert inside(box, Box(0.0, 0.0, placed.width, placed.height))


# -- the file --------------------------------------------------------------------------------------------------


@every_model
def test_it_is_svg_with_every_label(make: Callable[[], ml.Model]) -> None:
    found = make().graph()
    root = ET.fromstring(str(found))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.attrib["width"]) > 100
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    wanted = [line for node in found.nodes.values() for line in node.lines]
    wanted += [plate.caption for plate in found.plates.values()]
    assert sorted(str(t).strip() for t in texts) == sorted(w.strip() for w in wanted)


def test_ways_out(tmp_path: Path) -> None:
    found = math10().graph()
    assert isinstance(found, Graph) and found._repr_svg_() == str(found)
    found.save(tmp_path / "model.svg")
    assert (tmp_path / "model.svg").read_text(encoding="utf-8") == str(found)
    assert "linear predictor -> math" in repr(found)
    with pytest.raises(ml.OptionError, match="SVG"):
        found.save(tmp_path / "model.png")
