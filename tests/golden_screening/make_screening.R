# car's variance inflation, performance's ICC and likelihood-ratio tests of random slopes by lme4.
# Run: Rscript make_screening.R > screening.json
suppressMessages({ library(lme4); library(car); library(performance); library(jsonlite) })
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
set <- function(name) read.csv(file.path(here, "..", "..", "src", "multilevel", "data", paste0(name, ".csv")))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 1e5), calc.derivs = FALSE)
table <- function(found) { # car gives a vector where every term has one column
  if (!is.matrix(found)) found <- cbind(GVIF = found, Df = 1, factor = sqrt(found))
  list(term = rownames(found), vif = unname(found[, 1]), df = unname(found[, 2]), se_factor = unname(found[, 3]))
}
math <- set("math10"); cake <- set("cake"); sleep <- set("sleepstudy"); dye <- set("dyestuff"); pastes <- set("pastes")
radon <- set("radon"); pen <- set("penicillin"); ox <- set("oxboys"); cb <- set("cbpp")
cake$recipe <- factor(cake$recipe); cake$replicate <- factor(cake$replicate); cb$period <- factor(cb$period)
math$region <- factor(math$region)
w <- rep(c(1, 2, .5, 4), length.out = nrow(math))
vifs <- list(
  numbers = table(vif(lm(math ~ homework + ses + parented + ratio, math))),
  factor = table(vif(lm(math ~ homework + ses + region + percmin + ratio, math))),
  weighted = table(vif(lm(math ~ homework + ses + region + ratio, math, weights = w))),
  poly = table(vif(lm(math ~ poly(ses, 2) + homework + parented, math))),
  interaction = suppressMessages(table(vif(lm(angle ~ recipe * temp, cake)))),
  mixed = table(vif(lmer(math ~ homework + ses + region + meanses + (homework | schid), math, control = tight))),
  glm = table(vif(glmer(cbind(incidence, size - incidence) ~ period + log(size) + (1 | herd), cb, binomial, nAGQ = 1,
                        control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(rhoend = 1e-9)))))
)
share <- function(fit, by = FALSE) {
  found <- if (by) as.data.frame(icc(fit, by_group = TRUE)) else icc(fit)
  if (by) list(group = found$Group, icc = found$ICC) else found$ICC_adjusted
}
iccs <- list(
  dyestuff = share(lmer(Yield ~ 1 + (1 | Batch), dye, control = tight)),
  math10 = share(lmer(math ~ 1 + (1 | schid), math, control = tight)),
  radon = share(lmer(log_radon ~ 1 + (1 | county), radon, control = tight)),
  pastes = share(lmer(strength ~ 1 + (1 | batch / cask), pastes, control = tight), TRUE),
  penicillin = share(lmer(diameter ~ 1 + (1 | plate) + (1 | sample), pen, control = tight), TRUE)
)
slopes <- function(small, large) {
  lrt <- as.numeric(2 * (logLik(large) - logLik(small)))
  own <- lapply(list(small, large), function(f) list(aic = AIC(f), bic = BIC(f), loglik = as.numeric(logLik(f))))
  list(lrt = lrt, df = attr(logLik(large), "df") - attr(logLik(small), "df"), small = own[[1]], large = own[[2]])
}
one <- function(f, data, reml = TRUE) lmer(f, data, REML = reml, control = tight)
checks <- list(
  sleepstudy = slopes(one(Reaction ~ Days + (1 | Subject), sleep), one(Reaction ~ Days + (Days | Subject), sleep)),
  sleepstudy_ml = slopes(one(Reaction ~ Days + (1 | Subject), sleep, FALSE), one(Reaction ~ Days + (Days | Subject), sleep, FALSE)),
  radon = slopes(one(log_radon ~ floor + (1 | county), radon), one(log_radon ~ floor + (floor | county), radon)),
  cake = slopes(one(angle ~ temp + (1 | replicate), cake), one(angle ~ temp + (temp | replicate), cake))
)
sleep$Subject <- factor(sleep$Subject)
own <- summary(lm(Reaction ~ 0 + Subject + Subject:Days, sleep))$coefficients
own <- own[grepl(":Days", rownames(own)), ]
versions <- sapply(c("lme4", "car", "performance"), function(p) as.character(packageVersion(p)))
cat(toJSON(list(versions = as.list(c(R = R.version.string, versions)), vif = vifs, icc = iccs, slopes = checks,
                own_slopes = list(estimate = unname(own[, 1]))), digits = NA, auto_unbox = TRUE), "\n")
