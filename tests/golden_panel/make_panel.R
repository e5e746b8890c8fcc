# plm's estimators, cluster-robust errors and Hausman tests; Mundlak's terms by lme4.
# Run: Rscript make_panel.R > panel.json
suppressMessages({ library(plm); library(lme4); library(jsonlite) })
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
grunfeld <- read.csv(file.path(here, "..", "..", "src", "multilevel", "data", "grunfeld.csv"))
produc <- read.csv(file.path(here, "produc.csv")); produc$region <- factor(produc$region)
for (x in c("gsp", "pcap", "pc", "emp")) produc[[paste0("l", x)]] <- log(produc[[x]]) # phtest(method = "aux") wants plain names
gaps <- function(d, id) { # unbalanced, and two groups with a single row
  g <- match(d[[id]], unique(d[[id]])); r <- ave(seq_len(nrow(d)), d[[id]], FUN = seq_along)
  d[!((g * 7 + r * 3) %% 5 == 0 | r > 20 - g %% 9 | (g %in% c(3, 8) & r > 1)), ]
}
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE)
table <- function(fit) list(names = names(coef(fit)), coef = unname(coef(fit)), se = unname(sqrt(diag(vcov(fit)))),
  cluster = if (inherits(fit, "plm") && fit$args$model != "between")
    unname(sqrt(diag(vcovHC(fit, method = "arellano", type = "sss", cluster = "group")))))
quadratic <- function(w, r, terms) { # phtest on some of the coefficients
  b <- if (inherits(r, "plm")) coef(r) else fixef(r)
  d <- coef(w)[terms] - b[terms]; V <- vcov(w)[terms, terms] - as.matrix(vcov(r))[terms, terms]
  list(statistic = drop(d %*% solve(V) %*% d), df = length(d), eigen = min(eigen(V)$values))
}
test <- function(h) list(statistic = unname(h$statistic), df = unname(h$parameter), p = unname(h$p.value))
one <- function(d, formula, id, terms, time = NULL) {
  text <- if (is.null(time)) formula else update(formula, as.formula(paste("~ . + factor(", time, ")")))
  index <- c(id, "year"); d <- d[order(d[[id]], d$year), ]
  fit <- function(model, ...) plm(text, data = d, index = index, model = model, ...)
  w <- if (is.null(time)) fit("within") else plm(formula, data = d, index = index, model = "within", effect = "twoways")
  r <- if (is.null(time)) fit("random", random.method = "swar") # plm's between regression is singular with effects of years
  else lmer(update(text, as.formula(paste("~ . + (1 |", id, ")"))), d, control = tight)
  out <- list(pooled = table(fit("pooling")), between = if (is.null(time)) table(fit("between")), within = table(w),
    hausman = quadratic(w, r, terms), n = nobs(w))
  if (is.null(time)) {
    out$random <- table(r); out$sigma2 <- unname(ercomp(r)$sigma2)
    out$phtest <- test(phtest(w, r))
    out$aux <- test(phtest(formula, data = d, index = index, method = "aux"))
    out$aux_robust <- test(phtest(formula, data = d, index = index, method = "aux",
      vcov = function(x) vcovHC(x, method = "arellano", type = "sss", cluster = "group")))
  }
  d[paste0("mean_", seq_along(terms))] <- lapply(terms, function(t) ave(d[[t]], d[[id]]))
  more <- paste0("mean_", seq_along(terms))
  if (is.null(time)) {
    m <- lmer(update(formula, as.formula(paste("~ . +", paste(more, collapse = "+"), "+ (1 |", id, ")"))), d, control = tight)
    b <- fixef(m)[more]; V <- as.matrix(vcov(m))[more, more]
    out$mundlak <- list(names = names(fixef(m)), coef = unname(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m))))),
      statistic = drop(b %*% solve(V) %*% b), df = length(b))
    for (reml in c(TRUE, FALSE)) {
      f <- lmer(update(formula, as.formula(paste("~ . + (1 |", id, ")"))), d, REML = reml, control = tight)
      out[[if (reml) "reml" else "ml"]] <- list(coef = unname(fixef(f)), se = unname(sqrt(diag(as.matrix(vcov(f))))))
    }
  }
  out
}
inv <- inv ~ value + capital; gsp <- lgsp ~ lpcap + lpc + lemp + unemp
g <- c("value", "capital"); p <- c("lpcap", "lpc", "lemp", "unemp")
out <- list(
  grunfeld = one(grunfeld, inv, "firm", g),
  grunfeld_gaps = one(gaps(grunfeld, "firm"), inv, "firm", g),
  grunfeld_time = one(grunfeld, inv, "firm", g, "year"),
  produc = one(produc, gsp, "state", p),
  produc_gaps = one(gaps(produc, "state"), gsp, "state", p),
  produc_region = one(gaps(produc, "state"), update(gsp, ~ . + region), "state", p),
  produc_time = one(produc, gsp, "state", p, "year"),
  produc_gaps_time = one(gaps(produc, "state"), gsp, "state", p, "year"),
  versions = list(R = R.version.string, plm = as.character(packageVersion("plm")), lme4 = as.character(packageVersion("lme4"))))
cat(toJSON(out, digits = I(12), auto_unbox = TRUE, null = "null", na = "null", pretty = FALSE), "\n")
