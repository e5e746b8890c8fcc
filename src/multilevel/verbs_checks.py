"""Verbs of a Fit about checks: shares of variance, influence, singularity, new rows."""

from __future__ import annotations


class CheckVerbs:
    """Inherited by Fit."""
