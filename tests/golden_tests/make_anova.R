# Reference tests by lmerTest and pbkrtest on unbalanced data: Rscript make_anova.R writes anova.json beside it.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(jsonlite)})
options(digits = 17)
set.seed(20)
n <- 110
d <- data.frame(a = sample(c("p", "q", "r"), n, TRUE, c(.5, .3, .2)), b = sample(c("u", "v"), n, TRUE, c(.6, .4)),
  o = sample(c("lo", "mid", "hi"), n, TRUE, c(.3, .45, .25)), g = sample(sprintf("g%02d", 1:14), n, TRUE),
  h = sample(sprintf("h%d", 1:6), n, TRUE), x = round(rnorm(n, 1), 3), z = round(runif(n, 0, 3), 3), w = sample(c(.5, 1, 2), n, TRUE))
d$y <- round(2 + (d$a == "q") + .7 * (d$b == "v") * d$x + .4 * (d$a == "r") * (d$b == "v") + .3 * d$z^2 +
  .8 * rnorm(14)[as.integer(factor(d$g))] + .5 * rnorm(14)[as.integer(factor(d$g))] * d$x + .6 * rnorm(6)[as.integer(factor(d$h))] + rnorm(n), 3)
d$empty <- d$a == "r" & d$b == "v"   # without these rows one cell of a:b is empty
frame <- function(d) transform(d, a = factor(a), b = factor(b), o = factor(o, c("lo", "mid", "hi"), ordered = TRUE), g = factor(g), h = factor(h))
tight <- lmerControl(optimizer = "nloptwrap", optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-13, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 100000))
num <- function(v) I(unname(as.numeric(v)))
table_of <- function(t) list(term = I(rownames(t)), sum_sq = num(t[["Sum Sq"]]), mean_sq = num(t[["Mean Sq"]]), num_df = num(t[["NumDF"]]),
  den_df = num(t[["DenDF"]]), statistic = num(t[["F value"]]), p_value = num(t[["Pr(>F)"]]))
case <- function(label, formula, contrasts = NULL, reml = TRUE, subset = FALSE, weighted = FALSE) {
  data <- frame(if (subset) d[!d$empty, ] else d)
  args <- list(formula = as.formula(formula), data = data, REML = reml, control = tight)
  if (!is.null(contrasts)) args$contrasts <- lapply(contrasts, function(k) paste0("contr.", k))
  if (weighted) args$weights <- data$w
  m <- suppressMessages(suppressWarnings(do.call(lmerTest::lmer, args)))
  out <- list(label = label, formula = formula, contrasts = contrasts, reml = reml, subset = subset, weighted = weighted,
    criterion = -2 * as.numeric(logLik(m)), singular = isSingular(m), tests = list())
  for (ddf in c("Satterthwaite", if (reml && !weighted) "Kenward-Roger")) for (type in 1:3)
    out$tests[[length(out$tests) + 1]] <- c(list(type = type, ddf = tolower(ddf)), table_of(suppressMessages(anova(m, type = type, ddf = ddf))))
  out$drop1 <- table_of(suppressMessages(drop1(m, ddf = "Satterthwaite")))
  x <- suppressMessages(drop1(as(m, "lmerMod"), test = "Chisq"))
  out$drop1_lrt <- list(term = I(rownames(x)), npar = num(x[["npar"]]), aic = num(x[["AIC"]]), lrt = num(x[["LRT"]]), p_value = num(x[["Pr(Chi)"]]))
  r <- suppressMessages(suppressWarnings(ranova(m)))
  out$ranova <- list(term = I(rownames(r)), npar = num(r[["npar"]]), loglik = num(r[["logLik"]]), aic = num(r[["AIC"]]), lrt = num(r[["LRT"]]), df = num(r[["Df"]]), p_value = num(r[["Pr(>Chisq)"]]))
  p <- length(fixef(m)); L <- rbind(seq_len(p) / p, (-1)^seq_len(p), c(1, rep(0, p - 1)))
  joint <- lapply(c("Satterthwaite", if (reml && !weighted) "Kenward-Roger"), function(ddf) { t <- contest(m, L, ddf = ddf, joint = TRUE)
    list(ddf = tolower(ddf), num_df = t[["NumDF"]], den_df = t[["DenDF"]], statistic = t[["F value"]], p_value = t[["Pr(>F)"]]) })
  out$joint <- joint
  out
}
plain <- "y ~ a * b + x + (1 | g)"
cases <- list(
  case("treatment", plain), case("sum", plain, list(a = "sum", b = "sum")), case("helmert", plain, list(a = "helmert", b = "sum")),
  case("ml", plain, reml = FALSE), case("slopes", "y ~ a * x + b * x + (x | g)"), case("slopes_sum", "y ~ a * x + b * x + (x | g)", list(a = "sum", b = "sum")),
  case("crossed_three_way", "y ~ a * b * x + (1 | g) + (1 | h)"), case("ordered", "y ~ o * a + z + (1 | g)"), case("poly", "y ~ poly(z, 2) * b + a + (1 | g)"),
  case("empty_cell", plain, subset = TRUE), case("empty_cell_sum", plain, list(a = "sum", b = "sum"), subset = TRUE),
  case("no_intercept", "y ~ 0 + a + b + x + (1 | g)"), case("nested", "y ~ b / a + z + (1 | g)"), case("weights", plain, weighted = TRUE),
  case("one_term", "y ~ a + (1 | g)"), case("two_slopes", "y ~ x + z + (x + z | g) + (1 | h)"))
ref <- list(made_by = "make_anova.R", versions = list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")), pbkrtest = as.character(packageVersion("pbkrtest"))),
  data = as.list(d), cases = cases)
write_json(ref, "anova.json", auto_unbox = TRUE, digits = NA, na = "null", null = "null")
