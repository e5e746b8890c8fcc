# Covariance structures in generalised models by glmmTMB, on bundled sets.  Run in this folder: Rscript make_refs_structures.R
# Structures with one sd for all effects are the others' with equal parameters (map), for this glmmTMB has no names for them.
suppressMessages({library(glmmTMB); library(jsonlite)})
arg <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1])
here <- dirname(normalizePath(arg)); data <- file.path(here, "..", "..", "src", "multilevel", "data")
tight <- glmmTMBControl(optCtrl = list(rel.tol = 1e-15, x.tol = 1e-12, eval.max = 5000, iter.max = 5000))

one <- function(label, ours, formula, d, family, sds = 0, rho = FALSE, zi = ~0) {
  args <- list(formula, data = d, family = family, control = tight, ziformula = zi)
  if (sds > 0) {  # one sd for `sds` effects
    args$map <- list(theta = factor(c(rep(1, sds), if (rho) 2)))
    args$start <- list(theta = c(rep(-0.5, sds), if (rho) 0.3))
  }
  f <- do.call(glmmTMB, args)
  again <- args; p <- f$fit$parfull; part <- function(n) unname(p[names(p) == n])
  again$start <- list(beta = part("beta"), theta = unname(getME(f, "theta")), betad = part("betad"))
  g <- suppressWarnings(do.call(glmmTMB, again))  # from its own optimum, to settle the last digits
  if (is.finite(logLik(g)) && (!is.finite(logLik(f)) || logLik(g) >= logLik(f))) f <- g
  s <- summary(f)$coefficients$cond; v <- VarCorr(f)$cond
  random <- lapply(v, function(m) list(sd = unname(attr(m, "stddev")), corr = unname(attr(m, "correlation"))))
  list(label = label, formula = ours, family = family$family, loglik = -f$fit$objective, npar = attr(logLik(f), "df"),
       names = rownames(s), estimate = unname(s[, 1]), std_error = unname(s[, 2]), sigma = sigma(f), random = unname(random),
       gradient = max(abs(f$obj$gr(f$fit$par))))
}

e <- read.csv(file.path(data, "epilepsy.csv")); e$visit <- factor(e$visit); e$Trt <- factor(e$Trt); e$patient <- factor(e$patient)
b <- read.csv(file.path(data, "cbpp.csv")); b$period <- factor(b$period); b$herd <- factor(b$herd)
fe <- "count ~ zAge + zBase * Trt + "; fb <- "cbind(incidence, size - incidence) ~ period + "
s <- read.csv(file.path(data, "salamanders.csv")); s$site <- factor(s$site); s$sample <- factor(s$sample)
v <- read.csv(gzfile(file.path(data, "verbagg.csv.gz"))); v$r2 <- factor(v$r2, levels = c("N", "Y")); v$id <- factor(v$id); v$btype <- factor(v$btype)
ce <- count ~ zAge + zBase * Trt; cb <- cbind(incidence, size - incidence) ~ period; cs <- count ~ mined + spp; cv <- r2 ~ Anger + btype + mode
with_term <- function(f, term) as.formula(paste(deparse(f, width.cutoff = 500), "+", term))
all <- function(tag, text, f, d, family, effects, group, k, ordered = TRUE, ...) {
  term <- function(x) with_term(f, sprintf("%s(0 + %s | %s)", x, effects, group))
  mine <- function(x) sprintf("%s + %s(0 + %s | %s)", text, x, if (ordered) sprintf("factor(%s)", effects) else effects, group)
  runs <- list(one(paste0(tag, "_cs"), mine("cs"), term("cs"), d, family, ...), one(paste0(tag, "_homcs"), mine("homcs"), term("cs"), d, family, k, TRUE, ...),
               one(paste0(tag, "_diag"), mine("diag"), term("diag"), d, family, ...), one(paste0(tag, "_homdiag"), mine("homdiag"), term("diag"), d, family, k, ...))
  if (ordered) runs <- c(list(one(paste0(tag, "_ar1"), mine("ar1"), term("ar1"), d, family, ...)), runs)
  runs
}
o <- read.csv(file.path(data, "owls.csv")); o$Nest <- factor(o$Nest); o$FoodTreatment <- factor(o$FoodTreatment)
fo <- SiblingNegotiation ~ FoodTreatment + SexParent + offset(log(BroodSize))
runs <- c(
  all("nbinom2_owls", "SiblingNegotiation ~ FoodTreatment + SexParent + offset(log(BroodSize))", fo, o, nbinom2(), "FoodTreatment", "Nest", 2, FALSE),
  all("poisson", "count ~ zAge + zBase * Trt", ce, e, poisson(), "visit", "patient", 4),
  all("binomial_few", "cbind(incidence, size - incidence) ~ period", cb, b, binomial(), "period", "herd", 4),
  all("binomial", "r2 ~ Anger + btype + mode", cv, v, binomial(), "btype", "id", 3, FALSE),
  list(one("binomial_ar1", "count01 ~ mined + spp + ar1(0 + factor(sample) | site)", count01 ~ mined + spp + ar1(0 + sample | site), transform(s, count01 = as.numeric(count > 0)), binomial())),
  all("nbinom2", "count ~ mined + spp", cs, s, nbinom2(), "sample", "site", 4),
  list(one("nbinom2_epilepsy_ar1", "count ~ zAge + zBase * Trt + ar1(0 + factor(visit) | patient)", with_term(ce, "ar1(0 + visit | patient)"), e, nbinom2())),
  list(one("crossed_ar1", "count ~ mined + (1 | spp) + ar1(0 + factor(sample) | site)", count ~ mined + (1 | spp) + ar1(0 + sample | site), s, poisson()),
       one("inflated_ar1", "count ~ mined + spp + ar1(0 + factor(sample) | site)", with_term(cs, "ar1(0 + sample | site)"), s, poisson(), zi = ~mined)))
out <- list(software = paste("R", getRversion(), "glmmTMB", packageVersion("glmmTMB"), "TMB", packageVersion("TMB")), fits = runs)
write(toJSON(out, digits = 15, auto_unbox = TRUE), file.path(here, "structures.json"))
for (r in runs) cat(r$label, format(r$loglik, digits = 12), r$gradient, "\n")
