# lme4's hatvalues, cooks.distance and influence (by group, with refits).  Run: Rscript make_influence.R > influence.json
suppressMessages({ library(lme4); library(jsonlite) })
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
set <- function(name) read.csv(file.path(here, "..", "..", "src", "multilevel", "data", paste0(name, ".csv")))
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 1e5), calc.derivs = FALSE)

one <- function(id, data, formula, reml, d, group = NULL, weights = NULL) {
  d$.w <- if (is.null(weights)) rep(1, nrow(d)) else weights
  m <- eval(bquote(lmer(.(formula), d, REML = .(reml), weights = .w, control = tight))) # influence() calls it again
  out <- list(id = id, data = data, formula = deparse1(formula), reml = reml, weights = weights,
              hat = unname(hatvalues(m)), cooks = unname(cooks.distance(m)))
  if (!is.null(group)) {
    found <- influence(m, group, data = d)
    levels <- rownames(dfbeta(found))
    refit <- lapply(levels, function(l) {
      part <- d[as.character(d[[group]]) != l, ]
      r <- lmer(formula, part, REML = reml, weights = .w, control = tight)
      c(sigma = sigma(r), as.data.frame(VarCorr(r))$sdcor)
    })
    out$group <- list(name = group, level = levels, dfbeta = unname(dfbeta(found)), cooks = unname(cooks.distance(found)),
                      sdcor = unname(do.call(rbind, refit)), coefficients = names(fixef(m)))
  }
  out
}

sleep <- set("sleepstudy"); pastes <- set("pastes"); pen <- set("penicillin"); mach <- set("machines")
sleep$Subject <- factor(sleep$Subject)
mach$Worker <- factor(mach$Worker)
fits <- list(
  one("sleepstudy", "sleepstudy", Reaction ~ Days + (Days | Subject), TRUE, sleep, "Subject"),
  one("sleepstudy_ml", "sleepstudy", Reaction ~ Days + (Days | Subject), FALSE, sleep, "Subject"),
  one("sleepstudy_weights", "sleepstudy", Reaction ~ Days + (Days | Subject), TRUE, sleep, "Subject", rep(c(1, 2, .5), 60)),
  one("penicillin", "penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), TRUE, pen, "plate"),
  one("machines", "machines", score ~ Machine + (1 | Worker), TRUE, mach, "Worker")
)
versions <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")))
cat(toJSON(list(versions = versions, fits = fits), digits = NA, auto_unbox = TRUE, null = "null"), "\n")
