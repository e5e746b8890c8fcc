# Common functions for the reference fits: every make_*.R beside this file sources it.
# One JSON file a model (a model may hold several `fits`: REML and ML, Laplace and AGQ, ...).
suppressMessages({
  library(lme4); library(jsonlite); library(data.table); library(Matrix)
})
DATA <- Sys.getenv("REF_DATA", file.path(here, "..", "..", "src", "multilevel", "data"))   # `here` is set by the caller
OUT  <- Sys.getenv("REF_OUT", here)
EXTRAS_MAX_N <- 4000   # Satterthwaite / Kenward-Roger / profile only for sets up to this many rows, unless asked for

read_set <- function(file, factors = NULL) {      # a bundled set, by any of its file names; factors and levels from index.json
  e <- fromJSON(file.path(DATA, "index.json"), simplifyVector = FALSE)[[sub("\\.(csv|parquet)(\\.gz)?$", "", file)]]
  d <- as.data.frame(fread(file.path(DATA, e$file), na.strings = ""))
  for (v in names(e$columns)) {
    x <- e$columns[[v]]
    if (!is.list(x)) next
    if (identical(x$levels, "numeric")) d[[v]] <- factor(d[[v]])
    else d[[v]] <- factor(as.character(d[[v]]), levels = unlist(x$levels), ordered = isTRUE(x$ordered))
  }
  for (v in factors) d[[v]] <- factor(d[[v]])
  d
}
num <- function(x) I(unname(as.numeric(x)))          # always a JSON array
sc <- function(x) unname(as.numeric(x))               # a JSON number
mat <- function(m) { m <- as.matrix(m); matrix(as.numeric(m), nrow(m), ncol(m)) }
catchw <- function(expr) {          # value + warnings + error
  w <- character(); m <- character(); e <- NULL
  v <- withCallingHandlers(tryCatch(expr, error = function(x) { e <<- conditionMessage(x); NULL }),
    warning = function(x) { w <<- c(w, conditionMessage(x)); invokeRestart("muffleWarning") },
    message = function(x) { m <<- c(m, trimws(conditionMessage(x))); invokeRestart("muffleMessage") })
  list(value = v, warnings = as.list(unique(w)), messages = as.list(unique(m)), error = e)
}
versions <- function(pk) { r <- list(R = paste(R.version$major, R.version$minor, sep = ".")); for (p in pk) if (requireNamespace(p, quietly = TRUE)) r[[p]] <- as.character(packageVersion(p)); r }
save_ref <- function(ref, id) {
  ref <- c(list(id = id), ref)
  f <- file.path(OUT, paste0(id, ".json"))
  write_json(ref, f, auto_unbox = TRUE, digits = NA, na = "null", null = "null", pretty = 1)
  cat("wrote", basename(f), round(file.size(f) / 1024), "kB\n")
  invisible(ref)
}
# level order and contrast matrices actually used in the model frame
frame_info <- function(mf, contr = NULL) {
  o <- list()
  for (v in names(mf)) if (is.factor(mf[[v]]) && nlevels(mf[[v]]) <= 60)
    o[[v]] <- list(ordered = is.ordered(mf[[v]]), levels = as.list(levels(mf[[v]])))
  o
}
contr_info <- function(mf, fixed_vars) {
  o <- list()
  for (v in intersect(names(mf), fixed_vars)) if (is.factor(mf[[v]]) && nlevels(mf[[v]]) <= 40) {
    C <- contrasts(mf[[v]])
    o[[v]] <- list(kind = if (is.ordered(mf[[v]])) "contr.poly" else "contr.treatment (first level is the base)",
                   rows = as.list(rownames(C)), columns = as.list(if (is.null(colnames(C))) as.character(seq_len(ncol(C))) else colnames(C)), matrix = mat(C))
  }
  o
}
coef_block <- function(b, V, df = Inf, crit = 1.959963984540054) {
  se <- sqrt(diag(as.matrix(V))); st <- b / se
  list(names = as.list(names(b)), estimate = num(b), std_error = num(se), statistic = num(st),
       p_normal = num(2 * pnorm(-abs(st))),
       wald95_lower = num(b - crit * se), wald95_upper = num(b + crit * se))
}
vc_block <- function(vc) {   # lme4 VarCorr
  lapply(seq_along(vc), function(i) {
    v <- vc[[i]]; sd <- attr(v, "stddev"); cr <- attr(v, "correlation")
    list(group = names(vc)[i], terms = as.list(rownames(v)), sd = num(sd), variance = num(sd^2),
         corr = mat(cr), cov = mat(v))
  })
}
ranef_block <- function(m, k = 5, full_max = 80) {
  re <- ranef(m, condVar = TRUE)
  lapply(seq_along(re), function(i) {
    r <- re[[i]]; pv <- attr(r, "postVar"); lv <- rownames(r); n <- nrow(r)
    pick <- if (n <= full_max) seq_len(n) else sort(unique(round(seq(1, n, length.out = k * 2))))
    if (is.list(pv)) {                                     # several terms with one grouping factor (||)
      q <- ncol(r); A <- array(0, c(q, q, n)); o <- 0
      for (x in pv) { d <- dim(x)[1]; A[o + seq_len(d), o + seq_len(d), ] <- x; o <- o + d }
      pv <- A
    }
    list(group = names(re)[i], n_levels = n, terms = as.list(colnames(r)),
         levels = as.list(lv[pick]), mode = mat(r[pick, , drop = FALSE]),
         cond_var = if (is.null(pv)) NULL else lapply(pick, function(j) matrix(pv[, , j], ncol(r))),
         all_levels = n <= full_max,
         sum_of_squares_of_all_modes = num(colSums(as.matrix(r)^2)))
  })
}
newdata_block <- function(nd) { nd <- as.data.frame(lapply(nd, function(x) if (is.factor(x)) as.character(x) else x), check.names = FALSE); nd }
pred_block <- function(m, nd, unseen = NULL, type = NULL) {
  f <- function(d, re, anl = FALSE, ty = NULL) {
    a <- list(m, newdata = d, re.form = re, allow.new.levels = anl); if (!is.null(ty)) a$type <- ty
    r <- catchw(do.call(predict, a)); if (is.null(r$value)) r$error else num(r$value)
  }
  o <- list(newdata = newdata_block(nd), with_random_effects = f(nd, NULL, FALSE, type[1]),
            population = f(nd, NA, FALSE, type[1]))
  if (length(type) > 1) { o$scale <- type[1]; o[[paste0("with_random_effects_", type[2])]] <- f(nd, NULL, FALSE, type[2]); o[[paste0("population_", type[2])]] <- f(nd, NA, FALSE, type[2]) }
  if (!is.null(unseen)) {
    o$unseen_level_newdata <- newdata_block(unseen)
    o$unseen_level_allow_new_levels <- f(unseen, NULL, TRUE, type[1])
    o$unseen_level_default <- f(unseen, NULL, FALSE, type[1])
  }
  o
}

## ---------------------------------------------------------------- lmer
LMER_OPT <- list(
  nloptwrap_bobyqa = function() lmerControl(optimizer = "nloptwrap", calc.derivs = TRUE,
    optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-13, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 100000)),
  minqa_bobyqa = function() lmerControl(optimizer = "bobyqa", calc.derivs = TRUE, optCtrl = list(rhoend = 1e-11, maxfun = 200000)),
  nloptwrap_neldermead = function() lmerControl(optimizer = "nloptwrap", calc.derivs = TRUE,
    optCtrl = list(algorithm = "NLOPT_LN_NELDERMEAD", xtol_abs = 1e-13, ftol_abs = 1e-13, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 100000)),
  nlminb = function() lmerControl(optimizer = "nlminbwrap", calc.derivs = TRUE, optCtrl = list(rel.tol = 1e-15, x.tol = 1e-14, abs.tol = 0, eval.max = 100000, iter.max = 100000)))
fit_best <- function(make, opts) {
  tr <- list(); best <- NULL; bestd <- Inf
  for (n in names(opts)) {
    t0 <- proc.time()[[3]]
    r <- catchw(make(opts[[n]](), NULL)); m <- r$value
    if (is.null(m)) { tr[[n]] <- list(optimizer = n, error = r$error); next }
    dv <- if (lme4::isREML(m)) lme4::REMLcrit(m) else -2 * as.numeric(logLik(m))
    g <- m@optinfo$derivs
    tr[[n]] <- list(optimizer = n, objective = sc(dv), theta = num(getME(m, "theta")),
      max_abs_gradient = if (is.null(g)) NULL else sc(max(abs(g$gradient))),
      conv_code = m@optinfo$conv$opt, feval = m@optinfo$feval,
      conv_messages = as.list(unlist(m@optinfo$conv$lme4$messages)), warnings = r$warnings, seconds = round(proc.time()[[3]] - t0, 2))
    if (dv < bestd) { bestd <- dv; best <- m; bn <- n }
  }
  list(m = best, name = bn, tries = unname(tr), spread = sc(diff(range(unlist(lapply(tr, function(x) x$objective))))))
}
lmer_fit <- function(formula, data, REML = TRUE, label = NULL, opts = c("nloptwrap_bobyqa", "minqa_bobyqa", "nloptwrap_neldermead"),
                     nd = NULL, unseen = NULL, tests = nrow(data) <= EXTRAS_MAX_N, profile = FALSE, weights = NULL, re_k = 5, icc = TRUE, kr = tests, contrasts = NULL) {
  mk <- function(ctrl, start) {
    a <- list(formula = formula, data = data, REML = REML, control = ctrl); if (!is.null(weights)) a$weights <- weights
    if (!is.null(contrasts)) a$contrasts <- contrasts
    do.call(lme4::lmer, a)
  }
  fb <- fit_best(mk, LMER_OPT[opts]); m <- fb$m
  b <- fixef(m); V <- vcov(m); ll <- logLik(m)
  r <- list(label = if (is.null(label)) (if (REML) "REML" else "ML") else label, method = if (REML) "REML" else "ML",
    formula = paste(deparse(formula, width.cutoff = 500), collapse = " "), n_obs = nobs(m), n_groups = as.list(lme4::ngrps(m)),
    loglik = sc(ll), n_params = attr(ll, "df"), AIC = AIC(m), BIC = BIC(m),
    REML_criterion = if (REML) REMLcrit(m) else NULL, deviance_ML = if (REML) NULL else deviance(m),
    ML_deviance_at_these_parameters = sc(-2 * as.numeric(logLik(m, REML = FALSE))),
    fixed = coef_block(b, V), vcov_fixed = mat(V), sigma = sigma(m), random = vc_block(VarCorr(m)), theta = as.list(getME(m, "theta")),
    pwrss = getME(m, "devcomp")$cmp[["pwrss"]], ldL2 = getME(m, "devcomp")$cmp[["ldL2"]], ldRX2 = getME(m, "devcomp")$cmp[["ldRX2"]],
    ranef = ranef_block(m, re_k), fitted_first5 = num(head(fitted(m), 5)), residuals_first5 = num(head(residuals(m), 5)),
    scaled_residuals_quantiles = num(quantile(residuals(m, scaled = TRUE))), singular = isSingular(m),
    optimizers = fb$tries, optimizer_chosen = fb$name, objective_spread_between_optimizers = fb$spread)
  if (!is.null(nd)) r$predictions <- pred_block(m, nd, unseen)
  if (tests && requireNamespace("lmerTest", quietly = TRUE)) {
    lt <- catchw(suppressMessages(lmerTest::as_lmerModLmerTest(m)))$value
    if (!is.null(lt)) {
      s <- catchw(summary(lt, ddf = "Satterthwaite")$coefficients)$value
      if (!is.null(s)) r$satterthwaite <- list(names = as.list(rownames(s)), df = num(s[, "df"]), t = num(s[, "t value"]), p = num(s[, "Pr(>|t|)"]))
      an <- catchw(anova(lt, type = 3, ddf = "Satterthwaite"))$value
      if (!is.null(an) && nrow(an)) r$anova_type3_satterthwaite <- list(terms = as.list(rownames(an)), sum_sq = num(an[["Sum Sq"]]), num_df = num(an[["NumDF"]]), den_df = num(an[["DenDF"]]), F = num(an[["F value"]]), p = num(an[["Pr(>F)"]]))
      an <- catchw(anova(lt, type = 2, ddf = "Satterthwaite"))$value
      if (!is.null(an) && nrow(an)) r$anova_type2_satterthwaite <- list(terms = as.list(rownames(an)), num_df = num(an[["NumDF"]]), den_df = num(an[["DenDF"]]), F = num(an[["F value"]]), p = num(an[["Pr(>F)"]]))
      if (REML && kr) {
        s <- catchw(summary(lt, ddf = "Kenward-Roger")$coefficients)$value
        if (!is.null(s)) r$kenward_roger <- list(names = as.list(rownames(s)), std_error = num(s[, "Std. Error"]), df = num(s[, "df"]), t = num(s[, "t value"]), p = num(s[, "Pr(>|t|)"]))
        vk <- catchw(pbkrtest::vcovAdj(m))$value; if (!is.null(vk)) r$kenward_roger$vcov_adjusted <- mat(vk)
        an <- catchw(anova(lt, type = 3, ddf = "Kenward-Roger"))$value
        if (!is.null(an) && nrow(an)) r$anova_type3_kenward_roger <- list(terms = as.list(rownames(an)), num_df = num(an[["NumDF"]]), den_df = num(an[["DenDF"]]), F = num(an[["F value"]]), p = num(an[["Pr(>F)"]]))
      }
      rn <- catchw(lmerTest::ranova(lt))$value
      if (!is.null(rn)) r$ranova <- list(terms = as.list(rownames(rn)), loglik = num(rn$logLik), LRT = num(rn$LRT), df = num(rn$Df), p = num(rn[["Pr(>Chisq)"]]))
    }
  }
  if (icc) {
    i <- catchw(performance::icc(m))$value
    if (is.list(i)) r$icc <- list(adjusted = sc(i$ICC_adjusted), unadjusted = sc(if (is.null(i$ICC_unadjusted)) i$ICC_conditional else i$ICC_unadjusted))
    i <- catchw(performance::r2_nakagawa(m))$value
    if (is.list(i)) r$r2_nakagawa <- list(conditional = sc(i$R2_conditional), marginal = sc(i$R2_marginal))
  }
  if (profile) {
    m0 <- m; pc <- catchw(confint(profile(m0, signames = FALSE), level = .95))
    if (!is.null(pc$value)) r$profile95 <- list(names = as.list(rownames(pc$value)), lower = num(pc$value[, 1]), upper = num(pc$value[, 2]), warnings = pc$warnings)
    else r$profile95 <- list(error = pc$error)
  }
  attr(r, "model") <- m
  r
}
## ---------------------------------------------------------------- glmer
GLMER_OPT <- list(
  bobyqa = function(tol = 1e-10) glmerControl(optimizer = "bobyqa", tolPwrss = tol, optCtrl = list(rhoend = 1e-9, maxfun = 200000)),
  nlminb = function(tol = 1e-10) glmerControl(optimizer = "nlminbwrap", tolPwrss = tol, optCtrl = list(rel.tol = 1e-13, x.tol = 1e-12, eval.max = 100000, iter.max = 100000)),
  nloptwrap_bobyqa = function(tol = 1e-10) glmerControl(optimizer = "nloptwrap", tolPwrss = tol, optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-10, ftol_abs = 1e-11, xtol_rel = 1e-12, ftol_rel = 1e-14, maxeval = 100000)))
glmer_fit <- function(formula, data, family, nAGQ = 1, label = NULL, opts = c("bobyqa", "nlminb", "nloptwrap_bobyqa"), nd = NULL, unseen = NULL,
                      weights = NULL, profile = FALSE, re_k = 5, icc = TRUE, tol = 1e-10) {
  mk <- function(ctrl, start) {
    a <- list(formula = formula, data = data, family = family, nAGQ = nAGQ, control = ctrl); if (!is.null(weights)) a$weights <- weights
    do.call(lme4::glmer, a)
  }
  fb <- fit_best(mk, lapply(GLMER_OPT[opts], function(f) function() f(tol))); m <- fb$m
  b <- fixef(m); V <- catchw(vcov(m, use.hessian = TRUE))$value; if (is.null(V)) V <- vcov(m, use.hessian = FALSE); ll <- logLik(m)
  Vx <- catchw(vcov(m, use.hessian = FALSE))$value
  r <- list(label = if (is.null(label)) (if (nAGQ == 1) "Laplace" else paste0("AGQ", nAGQ)) else label,
    method = if (nAGQ == 1) "Laplace" else if (nAGQ == 0) "PQL-like nAGQ=0" else paste("adaptive Gauss-Hermite,", nAGQ, "points"),
    formula = paste(deparse(formula, width.cutoff = 500), collapse = " "), family = family$family, link = family$link,
    n_obs = nobs(m), n_groups = as.list(lme4::ngrps(m)), loglik = sc(ll), n_params = attr(ll, "df"), AIC = AIC(m), BIC = BIC(m),
    conditional_deviance = sc(deviance(m)), loglik_note = if (nAGQ > 1) "lme4's AGQ log-likelihood omits constants of the response's density, so it is comparable only between AGQ fits" else "comparable with other software: all constants included",
    fixed = coef_block(b, V), vcov_fixed = mat(V), vcov_fixed_RX = if (is.null(Vx)) NULL else mat(Vx), vcov_note = "vcov_fixed: from the finite-difference Hessian of the deviance (accurate to ~1e-4); vcov_fixed_RX: from the RX factor at the optimum",
    sigma = sigma(m), random = vc_block(VarCorr(m)), theta = as.list(getME(m, "theta")), ranef = ranef_block(m, re_k),
    fitted_first5 = num(head(fitted(m), 5)), singular = isSingular(m), optimizers = fb$tries, optimizer_chosen = fb$name, objective_spread_between_optimizers = fb$spread)
  if (!is.null(nd)) r$predictions <- pred_block(m, nd, unseen, c("link", "response"))
  if (icc && nAGQ == 1) {
    i <- catchw(performance::icc(m))$value
    if (is.list(i)) r$icc <- list(adjusted = sc(i$ICC_adjusted), unadjusted = sc(if (is.null(i$ICC_unadjusted)) i$ICC_conditional else i$ICC_unadjusted))
    i <- catchw(performance::r2_nakagawa(m))$value
    if (is.list(i)) r$r2_nakagawa <- list(conditional = sc(i$R2_conditional), marginal = sc(i$R2_marginal))
  }
  if (profile) {
    pc <- catchw(confint(profile(m, signames = FALSE), level = .95))
    r$profile95 <- if (!is.null(pc$value)) list(names = as.list(rownames(pc$value)), lower = num(pc$value[, 1]), upper = num(pc$value[, 2]), warnings = pc$warnings) else list(error = pc$error)
  }
  attr(r, "model") <- m
  r
}
lrt_block <- function(a, b, la, lb) {   # a nested in b
  x <- as.numeric(logLik(a)); y <- as.numeric(logLik(b)); k <- attr(logLik(b), "df") - attr(logLik(a), "df"); s <- 2 * (y - x)
  list(null = la, alternative = lb, loglik_null = x, loglik_alternative = y, chisq = s, df = k, p_chisq = pchisq(max(s, 0), k, lower.tail = FALSE))
}
strip <- function(f) { attr(f, "model") <- NULL; f }
ref_head <- function(title, file, data, prep = NULL, fixed_vars = names(data), case = NULL, pk = c("lme4", "Matrix", "lmerTest", "pbkrtest", "performance", "insight"))
  list(title = title, textbook_case = case, dataset = list(file = file, rows = nrow(data)), data_preparation_R = prep,
       factor_levels = frame_info(data), contrasts = contr_info(data, fixed_vars), software = versions(pk), made = format(Sys.Date()))
