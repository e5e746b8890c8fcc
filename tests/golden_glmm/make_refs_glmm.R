# lme4 generalised linear mixed models and ordinal::clmm on the bundled sets.  Run: Rscript make_refs_glmm.R [id ...]
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R"))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
done <- function(id, head, fits, lrt = NULL, extra = NULL) save_ref(c(head, list(fits = lapply(fits, strip), likelihood_ratio_tests = lrt), extra), id)
M <- function(f) attr(f, "model")

if (want(id <- "cbpp_binomial")) {
  d <- read_set("cbpp.csv"); nd <- data.frame(period = c("1", "4"), herd = c("1", "15"), size = c(10, 10)); un <- data.frame(period = "2", herd = "99", size = 10)
  f <- cbind(incidence, size - incidence) ~ period + (1 | herd)
  a <- glmer_fit(f, d, binomial(), nd = nd, unseen = un, profile = TRUE)
  a9 <- glmer_fit(f, d, binomial(), nAGQ = 9, nd = nd); a25 <- glmer_fit(f, d, binomial(), nAGQ = 25, nd = nd); a0 <- glmer_fit(f, d, binomial(), nAGQ = 0, label = "nAGQ0", nd = nd, opts = c("bobyqa", "nlminb"))
  p <- glmer_fit(f, d, binomial("probit"), label = "Laplace_probit", nd = nd); k <- glmer_fit(f, d, binomial("cloglog"), label = "Laplace_cloglog", nd = nd)
  n <- glmer_fit(cbind(incidence, size - incidence) ~ 1 + (1 | herd), d, binomial(), label = "Laplace_null")
  d$obs <- factor(seq_len(nrow(d))); o <- glmer_fit(cbind(incidence, size - incidence) ~ period + (1 | herd) + (1 | obs), d, binomial(), label = "Laplace_OLRE")
  done(id, ref_head("CBPP in cattle herds, binomial counts", "cbpp.csv", d, "d$obs <- factor(seq_len(nrow(d))) for Laplace_OLRE", fixed_vars = "period", case = "binomial GLMM; Laplace against adaptive Gauss-Hermite quadrature; links"), list(a, a9, a25, a0, p, k, n, o), lrt = list(lrt_block(M(n), M(a), "Laplace_null", "Laplace"), lrt_block(M(a), M(o), "Laplace", "Laplace_OLRE")))
}
if (want(id <- "grouseticks_poisson")) {
  d <- read_set("grouseticks.csv"); nd <- data.frame(YEAR = c("95", "97"), cHEIGHT = c(0, 50), BROOD = c("501", "743"), INDEX = c("1", "403"), LOCATION = c("32", "1")); nd <- nd[nd$BROOD %in% levels(d$BROOD), ]
  un <- data.frame(YEAR = "96", cHEIGHT = 0, BROOD = "0", INDEX = "0", LOCATION = "0")
  a <- glmer_fit(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION), d, poisson(), nd = nd, unseen = un)
  b <- glmer_fit(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION), d, poisson(), label = "Laplace_no_OLRE")
  done(id, ref_head("Ticks on red grouse chicks", "grouseticks.csv", d, "cHEIGHT is the column of the file (HEIGHT minus its mean)", fixed_vars = "YEAR", case = "Poisson GLMM with three grouping factors, one of them observation-level (overdispersion)"), list(a, b), lrt = list(lrt_block(M(b), M(a), "Laplace_no_OLRE", "Laplace")))
}
if (want(id <- "verbagg_binomial")) {
  d <- read_set("verbagg.csv"); nd <- data.frame(Anger = c(20, 30), Gender = c("F", "M"), btype = c("curse", "shout"), situ = c("other", "self"), mode = c("want", "do"), id = c("1", "316"), item = c("S1WantCurse", "S4DoShout")); nd$item[2] <- tail(levels(d$item), 1); un <- data.frame(Anger = 20, Gender = "F", btype = "scold", situ = "self", mode = "do", id = "0", item = "none")
  a <- glmer_fit(r2 ~ Anger + Gender + btype + situ + mode + (1 | id) + (1 | item), d, binomial(), nd = nd, unseen = un, opts = c("bobyqa", "nloptwrap_bobyqa"))
  b <- glmer_fit(r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item), d, binomial(), label = "Laplace_interactions", opts = "bobyqa")
  g <- glmer_fit(r2 ~ Anger + Gender + btype + situ + mode + (1 + mode | id) + (1 | item), d, binomial(), label = "Laplace_mode_slope", opts = c("bobyqa"))
  done(id, ref_head("Verbal aggression items, persons crossed with items", "verbagg.csv", d, fixed_vars = c("Gender", "btype", "situ", "mode"), case = "item response model as a crossed logistic GLMM (De Boeck & Wilson)"), list(a, b, g), lrt = list(lrt_block(M(a), M(g), "Laplace", "Laplace_mode_slope")))
}
if (want(id <- "epilepsy_poisson")) {
  d <- read_set("epilepsy.csv"); nd <- data.frame(zAge = c(0, 1), zBase = c(0, 2), Trt = c("0", "1"), patient = c("1", "59"), obs = c("1", "236")); un <- data.frame(zAge = 0, zBase = 0, Trt = "1", patient = "99", obs = "999")
  a <- glmer_fit(count ~ zAge + zBase * Trt + (1 | patient), d, poisson(), nd = nd, unseen = un, profile = FALSE)
  a15 <- glmer_fit(count ~ zAge + zBase * Trt + (1 | patient), d, poisson(), nAGQ = 15)
  o <- glmer_fit(count ~ zAge + zBase * Trt + (1 | patient) + (1 | obs), d, poisson(), label = "Laplace_OLRE", nd = nd, unseen = un)
  done(id, ref_head("Seizure counts (Thall & Vail 1990)", "epilepsy.csv", d, fixed_vars = "Trt", case = "overdispersed longitudinal counts; the brms documentation's example"), list(a, a15, o), lrt = list(lrt_block(M(a), M(o), "Laplace", "Laplace_OLRE")))
}
if (want(id <- "arabidopsis_poisson")) {
  d <- read_set("arabidopsis.csv", factors = c("gen", "rack", "nutrient")); d$obs <- factor(seq_len(nrow(d)))
  a <- glmer_fit(total.fruits ~ nutrient * amd + rack + status + (1 | popu) + (1 | gen) + (1 | obs), d, poisson(), label = "Laplace_OLRE", opts = c("bobyqa", "nloptwrap_bobyqa"))
  done(id, ref_head("Fruit set of Arabidopsis", "arabidopsis.csv", d, "gen, rack, nutrient as factors; obs <- factor(1..n)", fixed_vars = c("nutrient", "amd", "rack", "status"), case = "Poisson log-normal GLMM with few levels of one factor (Bolker et al. 2009)"), list(a))
}
if (want(id <- "tumors_binomial")) {
  d <- read_set("tumors.csv"); d$study <- factor(seq_len(nrow(d)))
  a <- glmer_fit(cbind(y, K - y) ~ 1 + (1 | study), setNames(transform(d, K = d[[2]], y = d[[1]]), names(transform(d, K = d[[2]], y = d[[1]]))), binomial(), nd = data.frame(study = c("1", "71")), unseen = data.frame(study = "72"))
  a11 <- glmer_fit(cbind(y, K - y) ~ 1 + (1 | study), transform(d, K = d[[2]], y = d[[1]]), binomial(), nAGQ = 11)
  done(id, ref_head("Tumours in 71 groups of rats (Tarone 1982; BDA ch. 5)", "tumors.csv", d, "d$study <- factor(1..71); cbind(y, K - y)", fixed_vars = character(), case = "shrinkage of many proportions"), list(a, a11))
}
## ---- ordinal
clmm_fit <- function(formula, data, label, nAGQ = 1, link = "logit", threshold = "flexible") {
  r <- catchw(do.call(ordinal::clmm, list(formula, data = data, nAGQ = nAGQ, link = link, threshold = threshold, Hess = TRUE, control = ordinal::clmm.control(method = "nlminb", innerCtrl = "noWarn", gradTol = 1e-9, maxIter = 500))))
  r2 <- catchw(do.call(ordinal::clmm, list(formula, data = data, nAGQ = nAGQ, link = link, threshold = threshold, Hess = TRUE, control = ordinal::clmm.control(method = "ucminf", grtol = 1e-10, gradTol = 1e-9))))
  m <- r$value; m2 <- r2$value; if (is.null(m) || (!is.null(m2) && as.numeric(logLik(m2)) > as.numeric(logLik(m)))) m <- m2
  V <- vcov(m); p <- c(m$alpha, m$beta); k <- seq_along(p)
  list(label = label, method = if (nAGQ == 1) "Laplace" else paste("adaptive Gauss-Hermite,", nAGQ, "points"), formula = paste(deparse(formula, width.cutoff = 500), collapse = " "), link = link, threshold = threshold,
    sign_convention = "P(Y <= j) = F(alpha_j - x'beta - z'b): positive beta moves the response up", n_obs = m$info$nobs, n_obs_num = length(m$model[[1]]),
    loglik = sc(logLik(m)), n_params = attr(logLik(m), "df"), AIC = AIC(m), BIC = BIC(m), thresholds = list(names = as.list(names(m$alpha)), estimate = num(m$alpha), std_error = num(sqrt(diag(V))[seq_along(m$alpha)])),
    fixed = coef_block(p, V[k, k]), vcov_fixed = mat(V[k, k]), vcov_all = mat(V), vcov_all_names = as.list(rownames(V)),
    random = lapply(ordinal::VarCorr(m), function(v) list(terms = as.list(rownames(v)), sd = num(attr(v, "stddev")), cov = mat(v))),
    ranef = lapply(ordinal::ranef(m), function(x) list(levels = as.list(head(rownames(x), 12)), mode = mat(head(x, 12)))),
    ranef_cond_var = if (is.null(m$condVar)) NULL else lapply(m$condVar, function(x) mat(head(as.matrix(x), 12))),
    fitted_first5 = num(head(fitted(m), 5)), fitted_note = "probability of the observed category at the modes",
    max_gradient = sc(max(abs(m$gradient))), cond_hessian = sc(m$condHess <- tryCatch(kappa(m$Hessian), error = function(e) NA)),
    optimizers = list(list(optimizer = "nlminb", loglik = if (is.null(r$value)) NULL else sc(logLik(r$value)), warnings = r$warnings, error = r$error), list(optimizer = "ucminf", loglik = if (is.null(r2$value)) NULL else sc(logLik(r2$value)), warnings = r2$warnings, error = r2$error)), .m = m)
}
cl_done <- function(id, head, fits, lrt) { fits <- lapply(fits, function(f) { f$.m <- NULL; f }); save_ref(c(head, list(fits = fits, likelihood_ratio_tests = lrt)), id) }
if (want(id <- "wine_clmm")) {
  d <- read_set("wine.csv")
  a <- clmm_fit(rating ~ temp + contact + (1 | judge), d, "Laplace"); q <- clmm_fit(rating ~ temp + contact + (1 | judge), d, "AGQ15", nAGQ = 15)
  p <- clmm_fit(rating ~ temp + contact + (1 | judge), d, "Laplace_probit", link = "probit"); n <- clmm_fit(rating ~ temp + (1 | judge), d, "Laplace_temp_only"); e <- clmm_fit(rating ~ temp + contact + (1 | judge), d, "Laplace_equidistant", threshold = "equidistant")
  b2 <- clmm_fit(rating ~ temp + contact + (1 | judge) + (1 | bottle), d, "Laplace_judge_bottle")
  cl <- ordinal::clm(rating ~ temp + contact, data = d)
  cl_done(id, ref_head("Bitterness of wine, ordinal", "wine.csv", d, fixed_vars = c("temp", "contact"), case = "cumulative link mixed model (Randall 1989)", pk = c("ordinal")), list(a, q, p, n, e, b2), list(lrt_block(n$.m, a$.m, "Laplace_temp_only", "Laplace"), lrt_block(cl, a$.m, "clm without random effects", "Laplace")))
}
if (want(id <- "inhaler_clmm")) {
  d <- read_set("inhaler.csv", factors = "subject"); d$rating <- factor(d$rating, levels = 1:4, ordered = TRUE)
  a <- clmm_fit(rating ~ treat + period + carry + (1 | subject), d, "Laplace"); q <- clmm_fit(rating ~ treat + period + carry + (1 | subject), d, "AGQ11", nAGQ = 11); p <- clmm_fit(rating ~ treat + period + carry + (1 | subject), d, "Laplace_probit", link = "probit")
  cl_done(id, ref_head("Clarity of inhaler leaflets", "inhaler.csv", d, "subject as factor; rating as ordered factor 1<2<3<4", fixed_vars = character(), case = "ordinal cross-over trial with sparse subjects (two records each): Laplace is poor here, see AGQ", pk = c("ordinal")), list(a, q, p), NULL)
}
