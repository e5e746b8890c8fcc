"""Hierarchical (multilevel, mixed-effects) models: one formula, one data frame.

Names load on first use, so that ``import multilevel`` costs a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Model": "model",
    "lmer": "model",
    "glmer": "model",
    "Fit": "fit",
    "read": "storage",
    "load": "datasets",
    "datasets": "datasets",
    "MultilevelError": "errors",
    "FormulaError": "errors",
    "DataError": "errors",
    "ColumnError": "errors",
    "OptionError": "errors",
    "FileError": "errors",
    "MultilevelWarning": "errors",
    "ConvergenceWarning": "errors",
    "SingularFitWarning": "errors",
    "RankWarning": "errors",
    "MissingRowsWarning": "errors",
    "KnownCovariance": "relatives",
    "pedigree": "relatives",
    "student": "families",
    "tweedie": "families",
    "Posterior": "posterior",
    "Cauchy": "priors",
    "Exponential": "priors",
    "Fixed": "priors",
    "Flat": "priors",
    "Gamma": "priors",
    "HalfCauchy": "priors",
    "HalfNormal": "priors",
    "HalfStudentT": "priors",
    "InverseGamma": "priors",
    "LKJ": "priors",
    "Laplace": "priors",
    "LogNormal": "priors",
    "Normal": "priors",
    "StudentT": "priors",
    "Uniform": "priors",
    "compare": "comparison",
    "CrossValidation": "cross_validation",
    "cross_validate": "cross_validation",
    "TaxonomyClassifier": "taxonomy.estimator",
    "Taxonomy": "taxonomy.tree",
    "PartialPoolingEncoder": "encode",
    "MultilevelRegressor": "encode",
    "MultilevelClassifier": "encode",
    "Cost": "taxonomy.stopping",
    "Guarantee": "taxonomy.stopping",
    "Darts": "taxonomy.stopping",
    "icc": "screening",
    "vif": "inflation",
    "random_slope_check": "slope_check",
    "describe": "description",
    "report": "report_file",
    "pooling": "pooling_call",
    "panel": "panel_models",
}
_MODULES = ("encode",)  # read as multilevel.encode.PartialPoolingEncoder
_OF_SKLEARN = ("TaxonomyClassifier", "PartialPoolingEncoder", "MultilevelRegressor", "MultilevelClassifier", "encode")
__all__ = ["__version__", *_HOMES, *_MODULES]

if TYPE_CHECKING:
    from . import encode as encode
    from .comparison import compare as compare
    from .cross_validation import CrossValidation as CrossValidation
    from .cross_validation import cross_validate as cross_validate
    from .datasets import datasets as datasets
    from .datasets import load as load
    from .description import describe as describe
    from .encode import PartialPoolingEncoder as PartialPoolingEncoder
    from .encode_models import MultilevelClassifier as MultilevelClassifier
    from .encode_models import MultilevelRegressor as MultilevelRegressor
    from .errors import ColumnError as ColumnError
    from .errors import ConvergenceWarning as ConvergenceWarning
    from .errors import DataError as DataError
    from .errors import FileError as FileError
    from .errors import FormulaError as FormulaError
    from .errors import MissingRowsWarning as MissingRowsWarning
    from .errors import MultilevelError as MultilevelError
    from .errors import MultilevelWarning as MultilevelWarning
    from .errors import OptionError as OptionError
    from .errors import RankWarning as RankWarning
    from .errors import SingularFitWarning as SingularFitWarning
    from .families import student as student
    from .families import tweedie as tweedie
    from .fit import Fit as Fit
    from .inflation import vif as vif
    from .model import Model as Model
    from .model import glmer as glmer
    from .model import lmer as lmer
    from .panel_models import panel as panel
    from .pooling_call import pooling as pooling
    from .posterior import Posterior as Posterior
    from .priors import LKJ as LKJ
    from .priors import Cauchy as Cauchy
    from .priors import Exponential as Exponential
    from .priors import Fixed as Fixed
    from .priors import Flat as Flat
    from .priors import Gamma as Gamma
    from .priors import HalfCauchy as HalfCauchy
    from .priors import HalfNormal as HalfNormal
    from .priors import HalfStudentT as HalfStudentT
    from .priors import InverseGamma as InverseGamma
    from .priors import Laplace as Laplace
    from .priors import LogNormal as LogNormal
    from .priors import Normal as Normal
    from .priors import StudentT as StudentT
    from .priors import Uniform as Uniform
    from .relatives import KnownCovariance as KnownCovariance
    from .relatives import pedigree as pedigree
    from .report_file import report as report
    from .screening import icc as icc
    from .slope_check import random_slope_check as random_slope_check
    from .storage import read as read
    from .taxonomy.estimator import TaxonomyClassifier as TaxonomyClassifier
    from .taxonomy.stopping import Cost as Cost
    from .taxonomy.stopping import Darts as Darts
    from .taxonomy.stopping import Guarantee as Guarantee
    from .taxonomy.tree import Taxonomy as Taxonomy


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'multilevel' has no attribute {name!r}")
    if name in _OF_SKLEARN and find_spec("sklearn") is None:
        raise ImportError(f"{name} needs scikit-learn 1.6 or newer: pip install 'multilevel[classify]'")
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    home = import_module(f".{_HOMES[name]}", __name__)
    # all of a home's names at once: importing the submodule `datasets` must not hide the function of that name
    globals().update({other: getattr(home, other) for other, place in _HOMES.items() if place == _HOMES[name]})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
