# Hat values and Cook's distances of lme4's generalised fits; hatvalues() itself takes the prior weights, not those at the mode.
# Rscript tests/golden_checks/make_influence_glmm.R OUT
suppressMessages({library(lme4); library(jsonlite)})
options(digits = 15)
out <- commandArgs(trailingOnly = TRUE)[1]
control <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
hat <- function(fit) with(getME(fit, c("L", "Lambdat", "Zt", "RX", "X", "RZX")), {
  root <- Matrix::Diagonal(x = sqrt(weights(fit, type = "working")))
  CL <- Matrix::solve(L, Matrix::solve(L, Lambdat %*% Zt %*% root, system = "P"), system = "L")
  CR <- Matrix::solve(Matrix::t(RX), Matrix::t(X) %*% root - Matrix::t(RZX) %*% CL)
  Matrix::colSums(CL^2) + Matrix::colSums(CR^2)
})
one <- function(id, fit) {
  h <- unname(hat(fit))
  pearson <- unname(resid(fit, "pearson"))
  list(id = id, formula = deparse1(formula(fit)), version = as.character(packageVersion("lme4")), hat = h,
       cooks = (pearson / (1 - h))^2 * h / length(fixef(fit)), pearson = pearson)
}
ticks <- within(grouseticks, YEAR <- factor(YEAR))
fits <- list(
  one("cbpp", glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial, control = control)),
  one("grouseticks", glmer(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION), ticks, poisson, control = control))
)
write_json(list(fits = fits), out, digits = NA, auto_unbox = TRUE)
