# Estimated marginal means, contrasts and slopes by emmeans on lmer fits of the bundled sets.
# Run: Rscript make_means.R    (writes means.json beside this file)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1])))
suppressMessages({ library(lme4); library(lmerTest); library(emmeans); library(jsonlite); library(data.table); library(numDeriv); library(mvtnorm) })
DATA <- file.path(here, "..", "..", "src", "multilevel", "data")
emm_options(lmerTest.limit = 1e6, pbkrtest.limit = 1e6, cov.keep = character(0))   # numbers stay covariates, however few values
set.seed(1)

read_set <- function(name) {
  e <- fromJSON(file.path(DATA, "index.json"), simplifyVector = FALSE)[[name]]
  d <- as.data.frame(fread(file.path(DATA, e$file), na.strings = ""))
  for (v in names(e$columns)) {
    x <- e$columns[[v]]
    if (!is.list(x)) next
    d[[v]] <- if (identical(x$levels, "numeric")) factor(d[[v]]) else factor(as.character(d[[v]]), levels = unlist(x$levels), ordered = isTRUE(x$ordered))
  }
  d
}
table_of <- function(g, ...) {              # one row an estimate, in emmeans' order; columns by our names
  s <- as.data.frame(summary(g, infer = c(TRUE, TRUE), ...))
  names(s)[names(s) %in% c("emmean", "prediction", "response", "ratio") | grepl("\\.trend$", names(s))] <- "estimate"
  num <- function(v) I(as.numeric(s[[v]]))
  out <- list(estimate = num("estimate"), std_error = num("SE"), df = num("df"), conf_low = num("lower.CL"), conf_high = num("upper.CL"))
  if ("p.value" %in% names(s)) out <- c(out, list(statistic = num("t.ratio"), p_value = num("p.value")))
  skip <- c("estimate", "SE", "df", "lower.CL", "upper.CL", "t.ratio", "p.value", "null")
  c(list(labels = lapply(s[setdiff(names(s), skip)], function(x) I(as.character(x)))), out)
}
cases <- list()
add <- function(id, formula, data, make) {
  for (ddf in c("satterthwaite", "kenward-roger")) cases[[length(cases) + 1]] <<- list(id = id, formula = formula, data = data, ddf = ddf, table = make(ddf))
}
# lmer's derivative-free search leaves theta good to five digits or so; Newton steps on its own criterion add the rest
fit_of <- function(formula, d, w = NULL) {
  args <- list(formula = as.formula(formula), data = d, weights = w)
  m <- do.call(lmerTest::lmer, c(args, list(control = lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10)))))
  criterion <- do.call(lme4::lmer, c(args, list(devFunOnly = TRUE)))
  theta <- getME(m, "theta"); stopifnot(all(abs(theta) > 1e-3))
  for (i in 1:3) theta <- theta - solve(numDeriv::hessian(criterion, theta), numDeriv::grad(criterion, theta))
  m <- do.call(lmerTest::lmer, c(args, list(start = theta, control = lmerControl(optCtrl = list(maxeval = 1)))))
  stopifnot(max(abs(getME(m, "theta") - theta)) < 1e-12)
  m
}

d <- read_set("cake"); f <- "angle ~ recipe * temperature + (1 | recipe:replicate)"; m <- fit_of(f, d)
add("recipe", f, "cake", function(k) table_of(emmeans(m, ~ recipe, lmer.df = k)))
add("recipe_by_temperature", f, "cake", function(k) table_of(emmeans(m, ~ recipe | temperature, lmer.df = k)))
add("pairs_temperature", f, "cake", function(k) table_of(pairs(emmeans(m, ~ temperature, lmer.df = k))))
add("pairs_recipe_in_temperature", f, "cake", function(k) table_of(pairs(emmeans(m, ~ recipe | temperature, lmer.df = k))))
add("poly_temperature", f, "cake", function(k) table_of(contrast(emmeans(m, ~ temperature, lmer.df = k), "poly")))
add("eff_temperature", f, "cake", function(k) table_of(contrast(emmeans(m, ~ temperature, lmer.df = k), "eff")))
add("ctrl_temperature_sidak", f, "cake", function(k) table_of(contrast(emmeans(m, ~ temperature, lmer.df = k), "trt.vs.ctrl", ref = 2, adjust = "sidak")))
add("consecutive_bonferroni", f, "cake", function(k) table_of(contrast(emmeans(m, ~ temperature | recipe, lmer.df = k), "consec", adjust = "bonferroni")))
add("pairs_scheffe", f, "cake", function(k) table_of(pairs(emmeans(m, ~ temperature, lmer.df = k), adjust = "scheffe")))
add("pairs_holm", f, "cake", function(k) table_of(pairs(emmeans(m, ~ temperature, lmer.df = k), adjust = "holm")))
add("means_sidak", f, "cake", function(k) table_of(emmeans(m, ~ temperature, lmer.df = k), adjust = "sidak"))
add("means_scheffe", f, "cake", function(k) table_of(emmeans(m, ~ recipe, lmer.df = k), adjust = "scheffe"))
add("own", f, "cake", function(k) table_of(contrast(emmeans(m, ~ recipe, lmer.df = k), list(`A - rest` = c(1, -.5, -.5), `C - B` = c(0, -1, 1)))))

d <- read_set("sleepstudy"); f <- "Reaction ~ Days + (Days | Subject)"; m <- fit_of(f, d)
add("grand", f, "sleepstudy", function(k) table_of(emmeans(m, ~ 1, lmer.df = k)))
add("at_days", f, "sleepstudy", function(k) table_of(emmeans(m, ~ Days, at = list(Days = c(0, 2, 9)), lmer.df = k)))
add("slope", f, "sleepstudy", function(k) table_of(emtrends(m, ~ 1, var = "Days", lmer.df = k)))
f <- "Reaction ~ poly(Days, 2) + (Days | Subject)"; m <- fit_of(f, d)
# a difference over x - h to x + h is the exact slope of a parabola; emtrends' own is one-sided
add("poly_slope_at_3", f, "sleepstudy", function(k) table_of(contrast(emmeans(m, ~ Days, at = list(Days = c(2, 4)), lmer.df = k), list(slope = c(-.5, .5)))))
f <- "log(Reaction) ~ Days + (1 | Subject)"; m <- fit_of(f, d)
add("log_response", f, "sleepstudy", function(k) table_of(emmeans(m, ~ Days, at = list(Days = c(1, 8)), lmer.df = k), type = "response"))
add("log_ratio", f, "sleepstudy", function(k) table_of(pairs(emmeans(m, ~ Days, at = list(Days = c(1, 8)), lmer.df = k)), type = "response"))
f <- "sqrt(Reaction) ~ Days + (1 | Subject)"; m <- fit_of(f, d)
add("sqrt_response", f, "sleepstudy", function(k) table_of(emmeans(m, ~ Days, at = list(Days = c(1, 8)), lmer.df = k), type = "response"))

d <- read_set("machines"); f <- "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"; m <- fit_of(f, d)
add("pairs_machine", f, "machines", function(k) table_of(pairs(emmeans(m, ~ Machine, lmer.df = k))))
add("ctrl_machine_mvt", f, "machines", function(k) table_of(contrast(emmeans(m, ~ Machine, lmer.df = k), "trt.vs.ctrl", adjust = "mvt")))

d <- read_set("orthodont"); f <- "distance ~ age * Sex + (age | Subject)"; m <- fit_of(f, d)
add("slopes_by_sex", f, "orthodont", function(k) table_of(emtrends(m, ~ Sex, var = "age", lmer.df = k)))
add("slopes_difference", f, "orthodont", function(k) table_of(pairs(emtrends(m, ~ Sex, var = "age", lmer.df = k))))
add("sex_at_age", f, "orthodont", function(k) table_of(emmeans(m, ~ Sex | age, at = list(age = c(8, 14)), lmer.df = k)))
add("sex_averaged_over_age", f, "orthodont", function(k) table_of(emmeans(m, ~ Sex, at = list(age = c(8, 9, 14)), lmer.df = k)))

d <- read_set("ratpupweight"); f <- "weight ~ Treatment * sex + Lsize + (1 | Litter)"; m <- fit_of(f, d)
for (w in c("equal", "proportional", "cells")) { force(w)
  add(paste0("treatment_", w), f, "ratpupweight", function(k) table_of(emmeans(m, ~ Treatment, weights = w, lmer.df = k))) }
add("pairs_treatment", f, "ratpupweight", function(k) table_of(pairs(emmeans(m, ~ Treatment, lmer.df = k))))
add("pairs_treatment_by_sex", f, "ratpupweight", function(k) table_of(pairs(emmeans(m, ~ Treatment | sex, lmer.df = k))))
add("pairs_treatment_sex", f, "ratpupweight", function(k) table_of(pairs(emmeans(m, ~ Treatment * sex, lmer.df = k))))
add("ctrl_mvt", f, "ratpupweight", function(k) table_of(contrast(emmeans(m, ~ Treatment, lmer.df = k), "trt.vs.ctrl", adjust = "mvt")))
add("pairs_at_level", f, "ratpupweight", function(k) table_of(pairs(emmeans(m, ~ Treatment, at = list(sex = "Female", Lsize = 10), lmer.df = k))))

d <- read_set("dietox"); d$f <- d$Time - min(d$Time); d$early <- d$Time < 4
keep <- !(d$Evit == levels(d$Evit)[3] & d$Cu == levels(d$Cu)[3]); d <- d[keep, ]     # an empty cell: rank-deficient
f <- "Weight ~ Evit * Cu + Time + (1 | Pig)"; m <- suppressMessages(fit_of(f, d))
add("rank_cells", f, "dietox_without_a_cell", function(k) table_of(emmeans(m, ~ Evit * Cu, lmer.df = k)))
add("rank_margin", f, "dietox_without_a_cell", function(k) table_of(emmeans(m, ~ Evit, lmer.df = k)))
add("rank_margin_cells", f, "dietox_without_a_cell", function(k) table_of(emmeans(m, ~ Evit, weights = "cells", lmer.df = k)))
add("rank_pairs", f, "dietox_without_a_cell", function(k) table_of(pairs(emmeans(m, ~ Evit | Cu, lmer.df = k))))
f <- "Weight ~ Evit + early + I(Time^2) + offset(f) + (1 | Pig)"; m <- fit_of(f, d)
add("offset", f, "dietox_without_a_cell", function(k) table_of(emmeans(m, ~ Evit, lmer.df = k)))
add("logical", f, "dietox_without_a_cell", function(k) table_of(emmeans(m, ~ early | Evit, lmer.df = k)))

d <- read_set("sleepstudy"); d$w <- rep(c(1, 2, .5), 60); d$half <- factor(ifelse(d$Days < 4, "first", "second"))
d$late <- factor(ifelse(d$Days > 6, "yes", "no")); f <- "Reaction ~ half + late + (1 | Subject)"
m <- fit_of(f, d, d$w)
# pbkrtest leaves prior weights out of its covariance of y; the same model with rows scaled by their roots has none
s <- sqrt(d$w); X <- s * model.matrix(m); D <- data.frame(y = s * d$Reaction, X1 = X[, 1], X2 = X[, 2], X3 = X[, 3], s = s, Subject = d$Subject)
m2 <- fit_of("y ~ 0 + X1 + X2 + X3 + (0 + s | Subject)", D); V <- pbkrtest::vcovAdj(m2)
stopifnot(max(abs(fixef(m2) - fixef(m))) < 1e-6)
scaled_kr <- function(g) {
  out <- table_of(g); L <- g@linfct; se <- sqrt(diag(L %*% as.matrix(V) %*% t(L)))
  df <- apply(L, 1, function(l) pbkrtest::Lb_ddf(l, as.matrix(vcov(m2)), V)); half <- qt(.975, df) * se
  out$std_error <- I(as.numeric(se)); out$df <- I(as.numeric(df)); out$conf_low <- I(as.numeric(out$estimate - half)); out$conf_high <- I(as.numeric(out$estimate + half))
  out[c("labels", "estimate", "std_error", "df", "conf_low", "conf_high")]
}
for (w2 in c("equal", "proportional", "cells")) { force(w2)
  add(paste0("weighted_", w2), f, "sleepstudy_weighted", function(k) {
    g <- emmeans(m, ~ half, weights = w2, lmer.df = "satterthwaite")
    if (k == "satterthwaite") table_of(g) else scaled_kr(g) }) }

d <- read_set("radon"); f <- "log_radon_p01 ~ floor * log_uranium + (1 | county)"; m <- fit_of(f, d)
cases[[length(cases) + 1]] <- list(id = "radon_floor", formula = f, data = "radon", ddf = "satterthwaite", table = table_of(emmeans(m, ~ floor, at = list(floor = 0:1), lmer.df = "satterthwaite")))
cases[[length(cases) + 1]] <- list(id = "radon_slopes", formula = f, data = "radon", ddf = "satterthwaite", table = table_of(emtrends(m, ~ floor, var = "log_uranium", at = list(floor = 0:1), lmer.df = "satterthwaite")))
# the largest of correlated |t|: chance that it exceeds t, and the point it exceeds with chance 0.05
mvt <- function(name, root, df, t) {
  R <- cov2cor(root %*% t(root)); tight <- mvtnorm::GenzBretz(maxpts = 5e6, abseps = 1e-7)
  p <- sapply(t, function(x) 1 - mvtnorm::pmvt(rep(-x, nrow(R)), rep(x, nrow(R)), df = df, corr = R, algorithm = tight))
  list(name = name, root = root, df = df, t = I(t), p_value = I(as.numeric(p)))
}
pairs_of <- function(k) { m <- t(combn(k, 2)); C <- matrix(0, nrow(m), k); for (i in seq_len(nrow(m))) C[i, m[i, ]] <- c(1, -1); C }
mvts <- list(
  mvt("two controls", rbind(c(1, -1, 0), c(1, 0, -1)), 10, c(1, 2.57, 4)),
  mvt("unequal", diag(c(1, 2, 1)) + 0.4, 7, c(0.5, 2, 3)),
  mvt("four pairs", pairs_of(4), 20, c(1, 2, 2.8)),
  mvt("five steps", diff(diag(6)), 30, c(1.5, 2.5)))
write_json(list(versions = list(R = paste(R.version$major, R.version$minor, sep = "."), emmeans = as.character(packageVersion("emmeans")),
  lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")), pbkrtest = as.character(packageVersion("pbkrtest"))),
  cases = cases, mvt = mvts), file.path(here, "means.json"), auto_unbox = TRUE, digits = NA, na = "null", null = "null")
cat(length(cases), "cases\n")
