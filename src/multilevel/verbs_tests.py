"""Verbs of a Fit about tests of fixed and random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .fit import Fit


class TestVerbs:
    """Inherited by Fit."""

    __test__ = False  # no test case, whatever pytest makes of the name

    def anova(self, type: Any = 3, ddf: str = "satterthwaite") -> Any:
        """F test of each term of the fixed effects.

        Parameters
        ----------
        type : {3, 2, 1, "III", "II", "I"}
            1: each term adjusted for those before it. 2: for all terms that do not contain it. 3: for all others, with
            factors averaged evenly over the levels of those they interact with (SAS's type III, whatever the contrasts
            the model was fitted with). They agree where no term contains another and for balanced data. A term contains
            another if it has the same numeric variables and more factors: ``a:b`` contains ``a``, ``a:x`` contains ``x``
            but not ``a``, whose test then is at x = 0.
        ddf : {"satterthwaite", "kenward-roger", "none"}
            Denominator degrees of freedom. "kenward-roger" also adjusts F and needs a REML fit; "none" takes F times
            num_df as chi-square, as ``car::Anova`` and statsmodels' ``wald_test_terms`` do by default.

        Returns
        -------
        frame
            term, sum_sq, mean_sq, num_df, den_df, statistic, p_value: lmerTest's table. ``mean_sq`` is the Wald statistic
            over num_df times sigma squared, before Kenward and Roger's factor. A term whose columns were all dropped for
            rank has num_df 0.

        Raises
        ------
        OptionError
            For a type or ddf that is not known, or "kenward-roger" where it is not defined.
        DataError
            For a fit saved without its rows.

        Notes
        -----
        lme4 itself has no p-values here; this is ``lmerTest::anova``, whose numbers it gives, but for two cases: there
        ``poly()`` and splines count as factors in type 2, and in ``a / b`` the term ``a`` counts as not contained in
        ``a:b`` for types 2 and 3. Kuznetsova, Brockhoff & Christensen (2017), J. Stat. Softw. 82(13).

        To compare models, not terms, see `drop1` with ``test="LRT"``.
        """
        from .anova import anova

        return anova(cast("Fit", self), type, ddf)

    def drop1(self, ddf: str = "satterthwaite", test: str = "F") -> Any:
        """Test of leaving out each term that no other term contains (R's rule of marginality: ``a`` stays with ``a:x``).

        Parameters
        ----------
        ddf : {"satterthwaite", "kenward-roger", "none"}
            For F tests, as in `anova`.
        test : {"F", "LRT"}
            "F" as ``lmerTest::drop1``, from this fit alone. "LRT" as ``lme4::drop1(test = "Chisq")``: the model and every
            smaller one by maximum likelihood (REML values cannot be compared between different fixed effects); "Chisq" is
            taken for it too.

        Returns
        -------
        frame
            For "F": term, sum_sq, mean_sq, num_df, den_df, statistic, p_value. For "LRT": term, npar, aic, lrt, df,
            p_value, the model itself first as "<none>"; npar counts all parameters of the smaller model.
        """
        from .anova import drop1

        return drop1(cast("Fit", self), ddf, test)

    def ranova(self) -> Any:
        """Likelihood-ratio test of each random term, dropped or made smaller, by the criterion of the fit.

        A term ``(1 | g)`` or ``(0 + x | g)`` is left out. From ``(x + z | g)`` one slope at a time goes with its
        covariances, ``(0 + f | g)`` of a factor becomes ``(1 | g)``, and ``(x || g)`` loses one variance at a time
        (lmerTest's rule).

        Returns
        -------
        frame
            term, npar, loglik, aic, lrt, df, p_value, p_boundary; the fit itself first as "<none>". ``p_value`` is the
            chi-square's with df, as lmerTest's, and too large, because a variance cannot be negative. ``p_boundary``
            knows that: the mixture ``0.5 chi2(q) + 0.5 chi2(q + 1)`` where one variance goes with q covariances. Where two
            or three go at once, with three parameters at most, its weights are computed from the design; NaN beyond that,
            and where the smaller model has a variance of zero itself.

        Raises
        ------
        DataError
            For a fit saved without its rows.

        Notes
        -----
        The mixture holds for large samples if all other variances are positive. Self & Liang (1987), J. Am. Stat.
        Assoc. 82, 605; Stram & Lee (1994), Biometrics 50, 1171.
        """
        from .random_tests import ranova

        return ranova(cast("Fit", self))

    def test(
        self, hypotheses: Any, rhs: Any = None, *, joint: bool = False, ddf: str = "satterthwaite", level: float = 0.95
    ) -> Any:
        """Test linear hypotheses about the fixed effects.

        Parameters
        ----------
        hypotheses : str, list of str or (r, p) array
            ``"Days = 0"``, ``"recipe[T.B] - recipe[T.C] = 0"``, ``"2 * (a + b) = c + 1"``: names as `fixef` shows them, odd
            ones in backticks if need be; without ``=`` the value tested is 0. A matrix has a column for each estimated
            coefficient (`design.names`) and a row for each hypothesis.
        rhs : number or (r,) array, optional
            Values tested with a matrix; default 0.
        joint : bool
            One F test of all hypotheses together in place of a t test of each.
        ddf : {"satterthwaite", "kenward-roger", "none"}
        level : float
            Coverage of the intervals.

        Returns
        -------
        frame
            hypothesis, estimate, std_error, statistic, df, p_value, conf_low, conf_high, the estimate and its interval of
            the combination without the value tested; joint: hypothesis, num_df, den_df, statistic, p_value.

        Raises
        ------
        FormulaError
            For text that cannot be read, with a caret, and for a name that is no coefficient, with the nearest one.
        OptionError
            For a matrix of the wrong shape, or joint hypotheses that contradict each other.

        Notes
        -----
        statsmodels' ``t_test`` and ``f_test``, lmerTest's ``contest`` and car's ``linearHypothesis``, with small-sample
        degrees of freedom. Several tests are not adjusted for their number.

        Examples
        --------
        >>> import multilevel as ml
        >>> fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
        >>> round(float(fit.test("Days = 10")["estimate"][0]), 2)
        10.47
        """
        from .hypotheses import test

        return test(cast("Fit", self), hypotheses, rhs, joint, ddf, level)

    def update(self, formula: str = ". ~ .", *, data: Any = None, reml: bool | None = None, **options: Any) -> Fit:
        """Fit again with another formula, other options or other data: R's ``update``.

        Parameters
        ----------
        formula : str
            ``". ~ . + x - z"``: a dot stands for the old response or the old right side, fixed and random terms alike.
            ``- z`` takes a fixed term out, ``- (x | g)`` a random one, ``+ (1 | h)`` adds one. A right side without a dot
            is a new one. Default: the old formula.
        data : data frame, optional
            Default the data of the fit.
        reml : bool, optional
            Default as the fit.
        **options
            What `Model` takes: weights, offset, contrasts, missing, levels, correlation, variance, covariance. Those
            that are not given stay as they are; None takes one away. Of a generalised model also family, link, dispersion,
            zi, hurdle and quadrature.

        Returns
        -------
        Fit

        Raises
        ------
        FormulaError
            For what cannot be read, and for a term to take out that is not there, with a caret.
        DataError
            For a fit saved without its data, unless `data` is given.

        Notes
        -----
        Rows with missing values in a new column are left out, so that the two fits may be of different rows; a warning
        counts them. By REML, models with different fixed effects cannot be compared: use ``reml=False``.

        Examples
        --------
        >>> import multilevel as ml
        >>> fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
        >>> fit.update(". ~ . + I(Days^2)").formula
        'Reaction ~ Days + I(Days^2) + (Days | Subject)'
        """
        from .update import update

        return update(cast("Fit", self), formula, data, reml, **options)
