# lme4 linear mixed models on the bundled sets.  Run: Rscript make_refs_lmm.R [id ...]
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R"))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
done <- function(id, head, fits, lrt = NULL, extra = NULL) save_ref(c(head, list(fits = lapply(fits, strip), likelihood_ratio_tests = lrt), extra), id)
M <- function(f) attr(f, "model")

if (want(id <- "dyestuff_ri")) {
  d <- read_set("dyestuff.csv"); nd <- data.frame(Batch = c("A", "F")); un <- data.frame(Batch = "Z")
  a <- lmer_fit(Yield ~ 1 + (1 | Batch), d, TRUE, profile = FALSE, nd = nd, unseen = un)
  b <- lmer_fit(Yield ~ 1 + (1 | Batch), d, FALSE, profile = TRUE, nd = nd, unseen = un)
  lm0 <- lm(Yield ~ 1, d)
  done(id, ref_head("Random intercept, balanced one-way", "dyestuff.csv", d, fixed_vars = character(), case = "one-way random effects / variance components"), list(a, b), lrt = list(lrt_block(lm0, M(b), "lm(Yield ~ 1)", "ML")))
}
if (want(id <- "dyestuff2_singular")) {
  d <- read_set("dyestuff2.csv"); nd <- data.frame(Batch = c("A", "F"))
  a <- lmer_fit(Yield ~ 1 + (1 | Batch), d, TRUE, nd = nd); b <- lmer_fit(Yield ~ 1 + (1 | Batch), d, FALSE, nd = nd, profile = TRUE)
  done(id, ref_head("Random intercept whose variance estimate is exactly zero", "dyestuff2.csv", d, fixed_vars = character(), case = "boundary (singular) fit"), list(a, b))
}
if (want(id <- "penicillin_crossed")) {
  d <- read_set("penicillin.csv"); nd <- data.frame(plate = c("a", "x"), sample = c("A", "F")); un <- data.frame(plate = c("a", "new"), sample = c("new", "new"))
  a <- lmer_fit(diameter ~ 1 + (1 | plate) + (1 | sample), d, TRUE, nd = nd, unseen = un, profile = TRUE); b <- lmer_fit(diameter ~ 1 + (1 | plate) + (1 | sample), d, FALSE, nd = nd, unseen = un, profile = TRUE)
  r0 <- lmer_fit(diameter ~ 1 + (1 | sample), d, FALSE, label = "ML_sample_only")
  done(id, ref_head("Two crossed random intercepts", "penicillin.csv", d, fixed_vars = character(), case = "completely crossed grouping factors"), list(a, b, r0), lrt = list(lrt_block(M(r0), M(b), "ML_sample_only", "ML")))
}
if (want(id <- "pastes_nested")) {
  d <- read_set("pastes.csv"); nd <- data.frame(batch = c("A", "J"), cask = c("a", "c")); un <- data.frame(batch = c("A", "Z"), cask = c("z", "a"))
  a <- lmer_fit(strength ~ 1 + (1 | batch/cask), d, TRUE, nd = nd, unseen = un); b <- lmer_fit(strength ~ 1 + (1 | batch/cask), d, FALSE, nd = nd, unseen = un, profile = TRUE)
  r0 <- lmer_fit(strength ~ 1 + (1 | batch:cask), d, FALSE, label = "ML_cask_only")
  done(id, ref_head("Nested random intercepts (cask in batch)", "pastes.csv", d, fixed_vars = character(), case = "nested grouping, implicit nesting with `/`"), list(a, b, r0), lrt = list(lrt_block(M(r0), M(b), "ML_cask_only", "ML")))
}
if (want(id <- "sleepstudy_random_slope")) {
  d <- read_set("sleepstudy.csv"); nd <- data.frame(Days = c(0, 5, 12), Subject = c("308", "335", "372")); un <- data.frame(Days = c(0, 5), Subject = c("999", "999"))
  a <- lmer_fit(Reaction ~ Days + (Days | Subject), d, TRUE, nd = nd, unseen = un, profile = TRUE); b <- lmer_fit(Reaction ~ Days + (Days | Subject), d, FALSE, nd = nd, unseen = un, profile = TRUE)
  u <- lmer_fit(Reaction ~ Days + (Days || Subject), d, FALSE, label = "ML_uncorrelated", nd = nd, unseen = un, profile = TRUE)
  uR <- lmer_fit(Reaction ~ Days + (Days || Subject), d, TRUE, label = "REML_uncorrelated", nd = nd)
  i <- lmer_fit(Reaction ~ Days + (1 | Subject), d, FALSE, label = "ML_intercept_only", nd = nd); iR <- lmer_fit(Reaction ~ Days + (1 | Subject), d, TRUE, label = "REML_intercept_only", nd = nd, profile = TRUE)
  n <- lmer_fit(Reaction ~ 1 + (Days | Subject), d, FALSE, label = "ML_no_fixed_slope")
  q <- lmer_fit(Reaction ~ Days + I(Days^2) + (Days | Subject), d, FALSE, label = "ML_quadratic")
  set.seed(1); w <- rep(c(1, 2, .5), 60); ww <- lmer_fit(Reaction ~ Days + (Days | Subject), d, TRUE, label = "REML_prior_weights_1_2_0.5_recycled", weights = w, tests = FALSE, icc = FALSE)
  done(id, ref_head("Correlated random intercept and slope", "sleepstudy.csv", d, fixed_vars = character(), case = "longitudinal growth, random slope"), list(a, b, u, uR, i, iR, n, q, ww),
    lrt = list(lrt_block(M(u), M(b), "ML_uncorrelated", "ML"), lrt_block(M(i), M(u), "ML_intercept_only", "ML_uncorrelated"), lrt_block(M(n), M(b), "ML_no_fixed_slope", "ML"), lrt_block(M(b), M(q), "ML", "ML_quadratic")))
}
if (want(id <- "cake_splitplot")) {
  d <- read_set("cake.csv"); nd <- data.frame(recipe = c("A", "C"), temperature = c("175", "225"), replicate = c("1", "15"), temp = c(175, 225))
  nd$temperature <- factor(nd$temperature, levels = levels(d$temperature), ordered = TRUE)
  a <- lmer_fit(angle ~ recipe * temperature + (1 | recipe:replicate), d, TRUE, nd = nd, profile = FALSE)
  a2 <- lmer_fit(angle ~ recipe * temperature + (1 | replicate/recipe), d, TRUE, label = "REML_replicate_recipe", nd = nd)
  l <- lmer_fit(angle ~ recipe + temp + (1 | recipe:replicate), d, TRUE, label = "REML_linear_temp", nd = nd, profile = TRUE)
  m1 <- lmer_fit(angle ~ recipe + temp + (1 | recipe:replicate), d, FALSE, label = "ML_linear_temp"); m2 <- lmer_fit(angle ~ recipe + temperature + (1 | recipe:replicate), d, FALSE, label = "ML_factor_temp"); m3 <- lmer_fit(angle ~ recipe * temperature + (1 | recipe:replicate), d, FALSE, label = "ML_full")
  s <- lmer_fit(angle ~ recipe * temperature + (1 | recipe:replicate), d, TRUE, label = "REML_sum_contrasts", contrasts = list(recipe = "contr.sum", temperature = "contr.sum"))
  done(id, ref_head("Split-plot with an ordered factor", "cake.csv", d, case = "split plot, polynomial contrasts, F tests with KR / Satterthwaite df"), list(a, a2, l, m1, m2, m3, s), lrt = list(lrt_block(M(m1), M(m2), "ML_linear_temp", "ML_factor_temp"), lrt_block(M(m2), M(m3), "ML_factor_temp", "ML_full")))
}
if (want(id <- "insteval_crossed")) {
  d <- read_set("insteval.parquet"); nd <- data.frame(service = c("0", "1"), s = c("1", "2972"), d = c("1", "2160"), dept = c("15", "5")); un <- data.frame(service = "1", s = "99999", d = "1", dept = "15")
  nd <- nd[nd$d %in% levels(d$d), ]
  o <- c("nloptwrap_bobyqa", "minqa_bobyqa")
  b <- lmer_fit(y ~ service + (1 | s) + (1 | d) + (1 | dept), d, FALSE, opts = o, nd = nd, unseen = un, tests = FALSE, icc = FALSE)
  a <- lmer_fit(y ~ service + (1 | s) + (1 | d) + (1 | dept), d, TRUE, opts = o, nd = nd, unseen = un, tests = FALSE, icc = FALSE)
  c1 <- lmer_fit(y ~ 1 + service + (1 | s) + (1 | d), d, FALSE, label = "ML_no_dept", opts = o[1], tests = FALSE, icc = FALSE)
  done(id, ref_head("Partially crossed random intercepts, 73 421 rows", "insteval.parquet", d, fixed_vars = "service", case = "large crossed design, sparse Cholesky"), list(a, b, c1), lrt = list(lrt_block(M(c1), M(b), "ML_no_dept", "ML")))
}
if (want(id <- "insteval_service_dept")) {   # 28 fixed effects; Bates' (MixedModels.jl) model
  d <- read_set("insteval.parquet")
  b <- lmer_fit(y ~ service * dept + (1 | s) + (1 | d), d, FALSE, opts = c("nloptwrap_bobyqa", "minqa_bobyqa"), tests = FALSE, icc = FALSE)
  done(id, ref_head("InstEval with 28 fixed effects", "insteval.parquet", d, fixed_vars = c("service", "dept"), case = "large crossed design with many fixed effects"), list(b))
}
if (want(id <- "radon_mn")) {
  d <- read_set("radon.csv", factors = "county"); nd <- data.frame(floor = c(0, 1), county = c("ST LOUIS", "LAC QUI PARLE"), log_uranium = c(-0.4746742, 0.3)); un <- data.frame(floor = 0, county = "NOWHERE", log_uranium = 0)
  a0 <- lmer_fit(log_radon ~ 1 + (1 | county), d, TRUE, label = "REML_null", nd = nd, unseen = un)
  a <- lmer_fit(log_radon ~ floor + log_uranium + (1 | county), d, TRUE, nd = nd, unseen = un, profile = TRUE)
  f <- lmer_fit(log_radon ~ floor + (1 | county), d, FALSE, label = "ML_floor", nd = nd); g <- lmer_fit(log_radon ~ floor + log_uranium + (1 | county), d, FALSE, label = "ML_floor_uranium", nd = nd)
  s <- lmer_fit(log_radon ~ floor * log_uranium + (1 + floor | county), d, TRUE, label = "REML_varying_slope", nd = nd, unseen = un)
  s2 <- lmer_fit(log_radon ~ floor * log_uranium + (1 + floor | county), d, FALSE, label = "ML_varying_slope")
  done(id, ref_head("Radon in Minnesota houses: varying intercept, county-level predictor, varying slope", "radon.csv", d, fixed_vars = character(), case = "partial pooling with a group-level predictor (Gelman & Hill ch. 12-13)"), list(a0, a, f, g, s, s2), lrt = list(lrt_block(M(f), M(g), "ML_floor", "ML_floor_uranium"), lrt_block(M(g), M(s2), "ML_floor_uranium", "ML_varying_slope")))
}
if (want(id <- "math10")) {
  d <- read_set("math10.csv", factors = "schid"); prep <- "d$schid <- factor(d$schid); d$hw_mean <- ave(d$homework, d$schid); d$hw_within <- d$homework - d$hw_mean"
  d$hw_mean <- ave(d$homework, d$schid); d$hw_within <- d$homework - d$hw_mean
  nd <- data.frame(schid = c("7472", "62821"), homework = c(1, 4), ses = c(0, .5), public = c(1, 0), hw_mean = c(1.39, 3.3), hw_within = c(-.39, .7)); un <- data.frame(schid = "1", homework = 2, ses = 0, public = 1, hw_mean = 2, hw_within = 0)
  a0 <- lmer_fit(math ~ 1 + (1 | schid), d, TRUE, label = "REML_null", nd = nd, unseen = un)
  a <- lmer_fit(math ~ homework + (1 | schid), d, FALSE, label = "ML_intercept", nd = nd); b <- lmer_fit(math ~ homework + (homework | schid), d, FALSE, label = "ML_slope", nd = nd, unseen = un)
  r <- lmer_fit(math ~ homework + (homework | schid), d, TRUE, label = "REML_slope", nd = nd, unseen = un, profile = TRUE)
  x <- lmer_fit(math ~ homework * public + ses + (homework | schid), d, TRUE, label = "REML_cross_level", nd = nd)
  w <- lmer_fit(math ~ hw_within + hw_mean + (1 | schid), d, TRUE, label = "REML_within_between", nd = nd)
  done(id, ref_head("NELS-88 ten-school mathematics data", "math10.csv", d, prep, fixed_vars = character(), case = "random slopes of a level-1 predictor, cross-level interaction, few groups (Kreft & de Leeuw 1998)"), list(a0, a, b, r, x, w), lrt = list(lrt_block(M(a), M(b), "ML_intercept", "ML_slope")))
}
if (want(id <- "chem97_nested")) {
  d <- read_set("chem97.csv"); d$lea <- factor(d$lea); d$school <- factor(d$school); nd <- data.frame(gcsecnt = c(0, 1), gender = c("M", "F"), lea = c("1", "131"), school = c("1", "2410")); un <- data.frame(gcsecnt = 0, gender = "F", lea = "1", school = "9999")
  a <- lmer_fit(score ~ gcsecnt + gender + (1 | lea) + (1 | school), d, TRUE, nd = nd, unseen = un, tests = FALSE); b <- lmer_fit(score ~ gcsecnt + gender + (1 | lea) + (1 | school), d, FALSE, nd = nd, tests = FALSE)
  s <- lmer_fit(score ~ gcsecnt + gender + (1 | lea) + (1 + gcsecnt | school), d, FALSE, label = "ML_school_slope", tests = FALSE)
  done(id, ref_head("A-level chemistry, pupils in schools in LEAs", "chem97.csv", d, fixed_vars = "gender", case = "three-level nesting, 31 022 rows"), list(a, b, s), lrt = list(lrt_block(M(b), M(s), "ML", "ML_school_slope")))
}
if (want(id <- "oxboys_quadratic")) {
  d <- read_set("oxboys.csv"); d$Subject <- factor(as.character(d$Subject)); nd <- data.frame(age = c(-1, 0, .9), Subject = c("10", "26", "4")); un <- data.frame(age = c(-1, .5), Subject = "999")
  a <- lmer_fit(height ~ age + I(age^2) + (age + I(age^2) | Subject), d, TRUE, nd = nd, unseen = un); b <- lmer_fit(height ~ age + I(age^2) + (age + I(age^2) | Subject), d, FALSE, nd = nd); s <- lmer_fit(height ~ age + I(age^2) + (age | Subject), d, FALSE, label = "ML_linear_slope", nd = nd)
  done(id, ref_head("Growth of 26 boys, quadratic random curve", "oxboys.csv", d, "d$Subject <- factor(as.character(d$Subject))", fixed_vars = character(), case = "3x3 random-effects covariance"), list(a, b, s), lrt = list(lrt_block(M(s), M(b), "ML_linear_slope", "ML")))
}
if (want(id <- "orthodont_growth")) {
  d <- read_set("orthodont.csv"); d$Subject <- factor(as.character(d$Subject)); nd <- data.frame(age = c(8, 14), Sex = c("Male", "Female"), Subject = c("M01", "F11")); un <- data.frame(age = 10, Sex = "Female", Subject = "F99")
  a <- lmer_fit(distance ~ age * Sex + (age | Subject), d, TRUE, nd = nd, unseen = un, profile = FALSE); i <- lmer_fit(distance ~ age * Sex + (1 | Subject), d, TRUE, label = "REML_intercept", nd = nd, unseen = un, profile = TRUE)
  m1 <- lmer_fit(distance ~ age + Sex + (1 | Subject), d, FALSE, label = "ML_additive"); m2 <- lmer_fit(distance ~ age * Sex + (1 | Subject), d, FALSE, label = "ML_interaction")
  done(id, ref_head("Dental growth of 27 children", "orthodont.csv", d, "d$Subject <- factor(as.character(d$Subject))", fixed_vars = "Sex", case = "growth curve with a between-subject factor (Potthoff & Roy)"), list(a, i, m1, m2), lrt = list(lrt_block(M(m1), M(m2), "ML_additive", "ML_interaction")))
}
if (want(id <- "machines_worker")) {
  d <- read_set("machines.csv"); d$Worker <- factor(as.character(d$Worker)); nd <- data.frame(Machine = c("A", "C"), Worker = c("1", "6")); un <- data.frame(Machine = "B", Worker = "7")
  a <- lmer_fit(score ~ Machine + (1 | Worker/Machine), d, TRUE, nd = nd, unseen = un, profile = TRUE); s <- lmer_fit(score ~ Machine + (0 + Machine | Worker), d, TRUE, label = "REML_slopes", nd = nd, unseen = un)
  i <- lmer_fit(score ~ Machine + (1 | Worker), d, TRUE, label = "REML_intercept"); a2 <- lmer_fit(score ~ Machine + (1 | Worker/Machine), d, FALSE, label = "ML_nested"); s2 <- lmer_fit(score ~ Machine + (0 + Machine | Worker), d, FALSE, label = "ML_slopes"); dd <- lmer_fit(score ~ Machine + (Machine || Worker), d, TRUE, label = "REML_double_bar_factor")
  done(id, ref_head("Machines and workers", "machines.csv", d, "d$Worker <- factor(as.character(d$Worker))", fixed_vars = "Machine", case = "interaction of a fixed factor with a random one; factor slopes; the double-bar trap with factors"), list(a, s, i, a2, s2, dd), lrt = list(lrt_block(M(a2), M(s2), "ML_nested", "ML_slopes")))
}
if (want(id <- "kb07_crossed_maximal")) {
  d <- read_set("kb07.csv", factors = c("subj", "item")); nd <- data.frame(S = c(1, -1), P = c(-1, 1), C = c(1, -1), SP = c(-1, -1), SC = c(1, 1), PC = c(-1, -1), SPC = c(-1, 1), subj = c("30", "31"), item = c("1", "2"))
  i <- lmer_fit(RTtrunc ~ S * P * C + (1 | subj) + (1 | item), d, FALSE, label = "ML_intercepts", nd = nd, tests = FALSE)
  p <- lmer_fit(RTtrunc ~ S * P * C + (1 | subj) + (1 + P | item), d, FALSE, label = "ML_item_slope_P", nd = nd, tests = FALSE); pR <- lmer_fit(RTtrunc ~ S * P * C + (1 | subj) + (1 + P | item), d, TRUE, label = "REML_item_slope_P", nd = nd, kr = FALSE)
  z <- lmer_fit(RTtrunc ~ S * P * C + (1 + S + P + C || subj) + (1 + S + P + C || item), d, FALSE, label = "ML_uncorrelated_slopes", tests = FALSE, icc = FALSE, opts = c("nloptwrap_bobyqa", "minqa_bobyqa"))
  x <- lmer_fit(RTtrunc ~ S * P * C + (1 + S + P + C | subj) + (1 + S + P + C | item), d, FALSE, label = "ML_correlated_slopes", tests = FALSE, icc = FALSE, opts = c("nloptwrap_bobyqa", "minqa_bobyqa"))
  done(id, ref_head("Kronmueller & Barr 2007, subjects crossed with items", "kb07.csv", d, "1790 rows here; MixedModels.jl's copy drops one outlier (1789)", fixed_vars = character(), case = "psycholinguistic subjects-by-items design; over-parameterised random-effects structure"), list(i, p, pR, z, x), lrt = list(lrt_block(M(i), M(p), "ML_intercepts", "ML_item_slope_P"), lrt_block(M(z), M(x), "ML_uncorrelated_slopes", "ML_correlated_slopes")))
}
if (want(id <- "dietox_growth")) {
  d <- read_set("dietox.csv"); d$Pig <- factor(d$Pig); nd <- data.frame(Time = c(1, 12), Pig = c("4601", "8442")); nd <- nd[nd$Pig %in% levels(d$Pig), ]; un <- data.frame(Time = 6, Pig = "1")
  i <- lmer_fit(Weight ~ Time + (1 | Pig), d, TRUE, label = "REML_intercept", nd = nd, unseen = un, kr = FALSE); s <- lmer_fit(Weight ~ Time + (Time | Pig), d, TRUE, label = "REML_slope", nd = nd, unseen = un, kr = FALSE); q <- lmer_fit(Weight ~ poly(Time, 2) + (Time | Pig), d, FALSE, label = "ML_poly2", tests = FALSE)
  done(id, ref_head("Weight of pigs (statsmodels' MixedLM example)", "dietox.csv", d, "d$Pig <- factor(d$Pig)", fixed_vars = character(), case = "growth; the data set of statsmodels' MixedLM documentation"), list(i, s, q))
}
