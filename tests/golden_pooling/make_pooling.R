# Complete, no and partial pooling by lm, glm and lme4.
# Run: Rscript make_pooling.R > pooling.json
suppressMessages({ library(lme4); library(jsonlite) })
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
set <- function(name) read.csv(file.path(here, "..", "..", "src", "multilevel", "data", paste0(name, ".csv")))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE)
one <- function(fit) { # coefficients of a regression, missing ones included
  found <- coef(summary(fit))
  all <- names(coef(fit))
  se <- setNames(rep(NA_real_, length(all)), all)
  se[rownames(found)] <- found[, 2]
  ci <- suppressMessages(confint.default(fit))
  out <- list(term = all, estimate = unname(coef(fit)), std_error = unname(se), df = df.residual(fit),
              loglik = as.numeric(logLik(fit)), aic = AIC(fit), rank = fit$rank)
  if (!inherits(fit, "glm")) out <- c(out, sigma = summary(fit)$sigma, list(low = unname(confint(fit)[, 1])))
  out
}
mixed <- function(fit, group) {
  found <- coef(fit)[[group]]
  r <- ranef(fit, condVar = TRUE)[[group]]
  pv <- attr(r, "postVar")
  tau <- diag(VarCorr(fit)[[group]])
  k <- ncol(r)
  list(level = rownames(r), coef = unname(as.matrix(found[, colnames(r), drop = FALSE])),
       shrinkage = unname(t(sapply(seq_len(nrow(r)), function(j) diag(as.matrix(pv[, , j])) / tau))), terms = colnames(r),
       hat = if (inherits(fit, "lmerMod")) sum(hatvalues(fit)) else NULL,
       rss = sum(weights(fit) * residuals(fit, "response")^2), sigma = sigma(fit),
       tau = unname(tau), fixef = unname(fixef(fit)), fitted = unname(head(fitted(fit), 5)))
}
math <- set("math10"); radon <- set("radon"); cb <- set("cbpp"); ticks <- set("grouseticks"); sleep <- set("sleepstudy")
math$g <- factor(math$schid); radon$g <- factor(radon$county); cb$period <- factor(cb$period); cb$g <- factor(cb$herd)
ticks$g <- factor(ticks$LOCATION); sleep$g <- factor(sleep$Subject)
math$w <- rep(c(1, 2, .5, 4), length.out = nrow(math))
out <- list(
  math = list(
    complete = one(lm(math ~ homework, math)), no = one(lm(math ~ 0 + g + g:homework, math)),
    partial = mixed(lmer(math ~ homework + (homework | g), math, control = tight), "g"),
    pooled_list = unname(as.matrix(coef(lmList(math ~ homework | g, math)))),
    weighted = list(no = one(lm(math ~ 0 + g + g:homework, math, weights = w)), complete = one(lm(math ~ homework, math, weights = w)),
                    partial = mixed(lmer(math ~ homework + (homework | g), math, weights = w, control = tight), "g")),
    between = list(no = one(lm(math ~ 0 + g + ses + g:homework, math)),
                   partial = mixed(lmer(math ~ ses + homework + (homework | g), math, control = tight), "g")),
    predict = {
      new <- data.frame(homework = c(0, 3), g = factor(c("7472", "62821"), levels = levels(math$g)))
      list(no = unname(predict(lm(math ~ 0 + g + g:homework, math), new, interval = "confidence")),
           no_new = unname(suppressWarnings(predict(lm(math ~ 0 + g + g:homework, math), new, interval = "prediction"))),
           complete = unname(predict(lm(math ~ homework, math), new, interval = "confidence")))
    }
  ),
  radon = list(
    intercepts = one(lm(log_radon ~ 0 + g + floor, radon)), slopes = one(lm(log_radon ~ 0 + g + g:floor, radon)),
    uranium = mixed(lmer(log_radon ~ floor + log_uranium + (1 | g), radon, control = tight), "g"),
    uranium_complete = one(lm(log_radon ~ floor + log_uranium, radon)),
    partial = mixed(lmer(log_radon ~ floor + (1 | g), radon, control = tight), "g")
  ),
  cbpp = list(
    complete = one(glm(cbind(incidence, size - incidence) ~ period, binomial, cb)),
    no = one(glm(cbind(incidence, size - incidence) ~ 0 + g + period, binomial, cb, control = list(epsilon = 1e-14, maxit = 100))),
    partial = mixed(glmer(cbind(incidence, size - incidence) ~ period + (1 | g), cb, binomial,
                          control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-10))), "g")
  ),
  ticks = list(
    zero = levels(ticks$g)[tapply(ticks$TICKS, ticks$g, sum) == 0],
    no = one(suppressWarnings(glm(TICKS ~ 0 + g, poisson, ticks, control = list(epsilon = 1e-14, maxit = 100))))
  )
)
cat(toJSON(out, digits = 12, auto_unbox = TRUE, na = "null"), "\n")
