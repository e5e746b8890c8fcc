# Standard errors of predictions by glmmTMB (predict(se.fit = TRUE)) on the bundled sets.
# Run: Rscript make_refs_predict.R   (ref_lib.R of ../golden in the same folder)
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R")); suppressMessages(library(glmmTMB))

se <- function(m, rows, ...) {   # numbers at some rows, counted from zero
  p <- predict(m, se.fit = TRUE, ...)
  list(fit = as.numeric(p$fit)[rows + 1], se = as.numeric(p$se.fit)[rows + 1])
}
one <- function(formula, data, family, rows, ...) {
  m <- glmmTMB(formula, data = data, family = family, control = glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-14)), ...)
  for (i in 1:3) m <- update(m, start = list(beta = m$fit$par[names(m$fit$par) == "beta"], theta = m$fit$par[names(m$fit$par) == "theta"]))
  list(formula = paste(deparse(formula, width.cutoff = 500), collapse = ""), loglik = as.numeric(logLik(m)), rows = rows,
       link = se(m, rows, type = "link"), population = se(m, rows, type = "link", re.form = NA),
       response = se(m, rows, type = "response"))
}
cb <- read_set("cbpp.csv"); ow <- read_set("owls.csv"); di <- read_set("dietox.csv"); di$Pig <- factor(di$Pig); ep <- read_set("epilepsy.csv")
gt <- read_set("grouseticks.csv"); gt$YEAR <- factor(gt$YEAR)
out <- list(
  cbpp = one(cbind(incidence, size - incidence) ~ period + (1 | herd), cb, binomial(), c(0, 1, 10, 30, 55)),
  owls = one(SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest), ow, nbinom2(), c(0, 1, 100, 300, 598), ziformula = ~FoodTreatment),
  hurdle = one(SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest), ow, truncated_poisson(), c(0, 1, 100, 300, 598), ziformula = ~1),
  epilepsy = one(count ~ zAge + zBase * Trt + (1 | patient), ep, nbinom2(), c(0, 1, 50, 120, 235)),
  slope = one(count ~ zAge + zBase + (zBase | visit) + (1 | patient), ep, poisson(), c(0, 1, 50, 120, 235)),
  ticks = one(TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION), gt, poisson(), c(0, 1, 100, 300, 402)),
  dietox = one(Weight ~ log(Time) + (1 | Pig), di, Gamma("log"), c(0, 1, 100, 500, 860))
)
writeLines(toJSON(out, auto_unbox = TRUE, digits = 12), file.path(here, "predict_glmmTMB.json"))
