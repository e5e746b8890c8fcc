# Profile intervals and likelihood-ratio tests of generalised models: lme4, glmmTMB and ordinal on the bundled sets.
# Run: Rscript make_refs_profiles.R [id ...]   (ref_lib.R of ../golden in the same folder)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R"))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
tight <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-9, maxfun = 200000))

lme4_profile <- function(m) {   # limits on the scale of sds and correlations; zeta = 1.96 by lme4's splines
  p <- profile(m, signames = FALSE)   # the optimiser of the fit
  ci <- confint(p, level = 0.95, oldNames = FALSE)
  list(names = as.list(rownames(ci)), lower = num(ci[, 1]), upper = num(ci[, 2]))
}
lme4_drop1 <- function(m) {
  t <- drop1(m, test = "Chisq")
  list(term = as.list(rownames(t)), aic = num(t$AIC), lrt = num(t[["LRT"]]), df = num(t[[1]]), p_value = num(t[["Pr(Chi)"]]))
}
lrt <- function(small, large, label) {
  d <- 2 * (as.numeric(logLik(large)) - as.numeric(logLik(small))); k <- attr(logLik(large), "df") - attr(logLik(small), "df")
  list(term = label, lrt = sc(d), df = k, loglik = sc(logLik(small)))
}
one <- function(formula, data, family, random = list(), nAGQ = 1, prof = TRUE, drop = TRUE) {
  fit <- function(f) do.call(glmer, list(f, data = data, family = family, nAGQ = nAGQ, control = tight))
  m <- fit(formula)
  r <- lapply(names(random), function(n) lrt(fit(random[[n]]), m, n))
  list(formula = paste(deparse(formula, width.cutoff = 500), collapse = ""), nAGQ = nAGQ, loglik = sc(logLik(m)),
       profile95 = if (prof) lme4_profile(m), drop1 = if (drop) lme4_drop1(m), random = r)
}

if (want(id <- "profiles_lme4")) {
  cb <- read_set("cbpp.csv"); ep <- read_set("epilepsy.csv"); gt <- read_set("grouseticks.csv"); gt$YEAR <- factor(gt$YEAR)
  ep$week <- as.numeric(as.character(ep$visit)) - 2.5
  fc <- cbind(incidence, size - incidence) ~ period + (1 | herd)
  fits <- list(
    cbpp = one(fc, cb, binomial()),
    cbpp_agq9 = one(fc, cb, binomial(), nAGQ = 9),
    epilepsy_slope = one(count ~ zBase * Trt + (1 + week | patient), ep, poisson(),
      list("week in (1 + week | patient)" = count ~ zBase * Trt + (1 | patient))),
    grouseticks = one(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION), gt, poisson(),
      list("(1 | BROOD)" = TICKS ~ YEAR + cHEIGHT + (1 | LOCATION), "(1 | LOCATION)" = TICKS ~ YEAR + cHEIGHT + (1 | BROOD))))
  save_ref(list(versions = versions("lme4"), fits = fits), id)
}
if (want(id <- "profiles_glmmTMB")) {
  suppressMessages(library(glmmTMB))
  ow <- read_set("owls.csv")
  f <- SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)
  fit <- function(f, zi) glmmTMB(f, ow, family = nbinom2(), ziformula = zi, control = glmmTMBControl(optCtrl = list(rel.tol = 1e-15, x.tol = 1e-14, eval.max = 1e5, iter.max = 1e5)))
  m <- fit(f, ~1)
  b <- with(m$obj$env, parList(m$fit$par, last.par.best)); n <- names(m$fit$par)
  root <- t(sapply(seq_along(n), function(i) TMB::tmbroot(m$obj, i, target = qchisq(0.95, 1) / 2, sd.range = 6, trace = FALSE)))
  m0 <- fit(update(f, . ~ . - FoodTreatment), ~1); m1 <- glmmTMB(update(f, . ~ . - (1 | Nest)), ow, family = nbinom2(), ziformula = ~1)
  save_ref(list(versions = versions(c("glmmTMB", "TMB")), formula = paste(deparse(f, width.cutoff = 500), collapse = ""), internal = as.list(n),
    estimate = num(m$fit$par), lower = num(root[, 1]), upper = num(root[, 2]), loglik = sc(logLik(m)),
    fixed = list(lrt(m0, m, "FoodTreatment")), random = list(lrt(m1, m, "(1 | Nest)"))), id)
}
if (want(id <- "profiles_clmm")) {
  suppressMessages(library(ordinal))
  w <- read_set("wine.csv"); w$rating <- factor(w$rating, ordered = TRUE)
  ctl <- clmm.control(method = "nlminb", innerCtrl = "noWarn", gradTol = 1e-10, maxIter = 500)
  fit <- function(f) clmm(f, data = w, control = ctl)
  m <- fit(rating ~ temp + contact + (1 | judge))
  m1 <- clm(rating ~ temp + contact, data = w)
  save_ref(list(versions = versions("ordinal"), loglik = sc(logLik(m)),
    fixed = list(lrt(fit(rating ~ contact + (1 | judge)), m, "temp"), lrt(fit(rating ~ temp + (1 | judge)), m, "contact")),
    random = list(lrt(m1, m, "(1 | judge)"))), id)
}
