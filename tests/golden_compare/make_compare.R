# Reference comparisons by lme4's anova() and loo's stacking: Rscript make_compare.R writes compare.json beside it.
suppressMessages({library(lme4); library(loo); library(jsonlite)})
options(digits = 17)
num <- function(v) I(unname(as.numeric(v)))
tight <- lmerControl(optimizer = "nloptwrap", optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-13, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 100000))
case <- function(data, formulas, reml, refit, binomial = FALSE) {
  fits <- lapply(formulas, function(f) if (binomial) glmer(as.formula(f), get(data), stats::binomial, control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-9, maxfun = 200000))) else lmer(as.formula(f), get(data), REML = reml, control = tight))
  t <- suppressMessages(do.call(anova, c(fits, list(refit = refit))))
  list(data = data, formulas = I(formulas), reml = reml, family = if (binomial) "binomial" else "gaussian", npar = num(t$npar), loglik = num(t$logLik),
    aic = num(t$AIC), bic = num(t$BIC), lrt = num(t$Chisq), df = num(t$Df), p_value = num(t[["Pr(>Chisq)"]]))
}
slopes <- c("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (Days | Subject)")
cases <- list(
  case("sleepstudy", slopes, TRUE, FALSE),
  case("sleepstudy", c("Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)", "Reaction ~ poly(Days, 3) + (Days | Subject)"), TRUE, TRUE),
  case("Pastes", c("strength ~ 1 + (1 | cask)", "strength ~ 1 + (1 | batch) + (1 | cask)"), FALSE, FALSE),
  case("cbpp", c("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", "cbind(incidence, size - incidence) ~ period + (1 | herd)"), FALSE, FALSE, TRUE)
)
set.seed(7)
n <- 60
y <- round(rnorm(n, ifelse(runif(n) < .35, -2, 1.5), .8), 4)
lpd <- round(cbind(dnorm(y, -1.8, 1, TRUE), dnorm(y, 1.4, 1, TRUE), dt(y, 3, log = TRUE), dnorm(y, 4, 1, TRUE)), 6)
stack <- list(pointwise = lpd, weights = num(stacking_weights(lpd, optim_control = list(reltol = 1e-14))))
write_json(list(R = R.version.string, lme4 = as.character(packageVersion("lme4")), loo = as.character(packageVersion("loo")), cases = cases, stacking = stack),
  "compare.json", digits = NA, auto_unbox = TRUE, na = "null", pretty = TRUE)
