# Student's t and Tweedie models of glmmTMB: log-likelihoods and estimates.
# Run in this folder with owls.csv and sleepstudy.csv (as ml.load gives them) beside it.
suppressMessages({library(glmmTMB); library(jsonlite)})
owls <- read.csv("owls.csv"); owls$Nest <- factor(owls$Nest); owls$rate <- owls$SiblingNegotiation / owls$BroodSize
sleep <- read.csv("sleepstudy.csv"); sleep$Subject <- factor(sleep$Subject)
tight <- glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-12))
kept <- function(m) list(loglik = as.numeric(logLik(m)), beta = unname(fixef(m)$cond), dispersion = sigma(m),
                         shape = unname(family_params(m)), se = unname(sqrt(diag(vcov(m)$cond))),
                         cov = unname(matrix(VarCorr(m)$cond[[1]], nrow(VarCorr(m)$cond[[1]]))))
fixed <- function(value) list(start = list(psi = value), map = list(psi = factor(NA)))
out <- list(
  student = kept(glmmTMB(Reaction ~ Days + (Days | Subject), sleep, family = t_family, control = tight)),
  student_5 = kept(do.call(glmmTMB, c(list(Reaction ~ Days + (1 | Subject), sleep, family = t_family, control = tight),
                                      fixed(log(5))))),
  tweedie = kept(glmmTMB(rate ~ FoodTreatment + SexParent + (1 | Nest), owls, family = tweedie, control = tight)),
  tweedie_dispersion = kept(glmmTMB(rate ~ FoodTreatment + (1 | Nest), owls, family = tweedie,
                                    dispformula = ~ FoodTreatment, control = tight)),
  tweedie_1.3 = kept(do.call(glmmTMB, c(list(rate ~ FoodTreatment + (1 | Nest), owls, family = tweedie, control = tight),
                                        fixed(qlogis(0.3))))),
  versions = list(R = R.version.string, glmmTMB = as.character(packageVersion("glmmTMB"))))
write_json(out, "families.json", digits = 12, auto_unbox = TRUE)
