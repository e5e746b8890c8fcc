# Worker for the engines that live in R: Rscript engines/worker.R JOB OUT (see protocol.py).
suppressMessages({ library(jsonlite); library(lme4) })
args <- commandArgs(trailingOnly = TRUE)
job <- fromJSON(args[1], simplifyVector = FALSE)
engine <- job$engine
if (engine == "glmmTMB") suppressMessages(library(glmmTMB))

read_table <- function(spec) {
  file <- paste0(spec$stem, ".csv")
  data <- if (requireNamespace("data.table", quietly = TRUE)) {
    data.table::fread(file, data.table = FALSE, nThread = 1)
  } else read.csv(file)
  for (name in unlist(spec$factors)) data[[name]] <- factor(as.character(data[[name]]))
  data
}

timed <- function(call) {
  cpu <- proc.time(); wall <- Sys.time()
  result <- call()
  wall <- as.numeric(Sys.time()) - as.numeric(wall)
  list(result = result, wall = wall, cpu = sum((proc.time() - cpu)[1:2]))
}

again <- function(call, first) {
  wall <- cpu <- numeric()
  if (first > job$slow) return(list(wall = wall, cpu = cpu))
  while (length(wall) < job$repeats || (sum(wall) < job$min_seconds && length(wall) < 500)) {
    t <- timed(call); wall <- c(wall, t$wall); cpu <- c(cpu, t$cpu)
  }
  list(wall = wall, cpu = cpu)
}

tight <- list(
  lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore",
              optCtrl = list(xtol_abs = 1e-11, ftol_abs = 1e-11, xtol_rel = 1e-12, ftol_rel = 1e-15, maxeval = 20000)),
  lmerControl(optimizer = "bobyqa", calc.derivs = FALSE, check.conv.singular = "ignore",
              optCtrl = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 20000)))

lmer_call <- function(spec, data, control) {
  f <- as.formula(spec$formula)
  w <- spec$weights
  # lmer looks its weights up in the data, so they travel as a column
  if (is.null(w)) lmer(f, data, REML = spec$reml, control = control)
  else eval(substitute(lmer(f, data, REML = spec$reml, control = control, weights = W), list(W = as.name(w))))
}

lme4_whole <- function(spec, data) {
  if (job$control != "tight") return(lmer_call(spec, data, lmerControl()))
  fits <- lapply(tight, function(control) try(lmer_call(spec, data, control), silent = TRUE))
  fits <- Filter(function(m) !inherits(m, "try-error"), fits)
  if (!length(fits)) return(lmer_call(spec, data, lmerControl()))
  fits[[which.min(sapply(fits, function(m) -2 * as.numeric(logLik(m))))]]
}

# groups named by cnms: VarCorr's own names are mangled ("a.b") where a group has two terms
blocks <- function(vc, cnms) lapply(seq_along(vc), function(i) list(
  group = names(cnms)[i], effects = as.list(rownames(vc[[i]])), cov = unname(matrix(as.numeric(vc[[i]]), nrow(vc[[i]])))))

lme4_read <- function(m) list(
  criterion = -2 * as.numeric(logLik(m)), fixef = as.list(fixef(m)), blocks = blocks(VarCorr(m), m@cnms),
  theta = as.list(unname(getME(m, "theta"))), sigma = sigma(m), evaluations = m@optinfo$feval,
  singular = isSingular(m), message = paste(unlist(m@optinfo$conv$lme4$messages), collapse = "; "))

lme4_engine <- function(spec, data) {
  parsed <- lFormula(as.formula(spec$formula), data, REML = spec$reml)
  function() optimizeLmer(do.call(mkLmerDevfun, parsed))
}

# -- generalised models: likelihoods are full ones; lme4's by quadrature lacks that of the saturated model

saturated <- function(m) {
  y <- model.response(model.frame(m))
  if (family(m)$family == "poisson") return(sum(dpois(y, y, log = TRUE)))
  if (is.null(dim(y))) return(0)
  size <- rowSums(y)
  sum(dbinom(y[, 1], size, ifelse(size > 0, y[, 1] / size, 0.5), log = TRUE))
}

glmer_call <- function(spec, data) {
  f <- as.formula(spec$formula)
  if (spec$family == "nbinom2") glmer.nb(f, data)
  else glmer(f, data, family = spec$family, nAGQ = spec$nodes)
}

glmer_read <- function(m, spec) {
  answer <- lme4_read(m)
  if (spec$nodes > 1) answer$criterion <- answer$criterion - 2 * saturated(m)
  answer
}

glmer_engine <- function(spec, data) {
  parsed <- glFormula(as.formula(spec$formula), data, family = spec$family)
  function() {
    first <- do.call(mkGlmerDevfun, parsed)
    optimizeGlmer(first)
    optimizeGlmer(updateGlmerDevfun(first, parsed$reTrms, nAGQ = spec$nodes), stage = 2)
  }
}

tmb_generalised <- function(spec, data) {
  family <- if (spec$family == "nbinom2") nbinom2() else get(spec$family)()
  glmmTMB(as.formula(spec$formula), data, family = family)
}

tmb_whole <- function(spec, data) glmmTMB(as.formula(spec$formula), data, REML = spec$reml)

tmb_read <- function(m) list(
  criterion = -2 * as.numeric(logLik(m)), fixef = as.list(fixef(m)$cond), blocks = blocks(VarCorr(m)$cond, m$modelInfo$reTrms$cond$cnms),
  sigma = sigma(m), evaluations = sum(m$fit$evaluations[1]), converged = m$fit$convergence == 0)

many <- function(spec, data) {
  file <- paste0(spec$stem, ".f64")
  y <- matrix(readBin(file, "double", file.size(file) / 8), nrow = nrow(data))
  data[[spec$extra$response]] <- y[, 1]
  start <- lmer_call(spec, data, lmerControl(calc.derivs = FALSE))
  values <- numeric(); begin <- as.numeric(Sys.time()); cpu <- proc.time()
  for (j in seq_len(ncol(y))) {
    values <- c(values, -2 * as.numeric(logLik(refit(start, y[, j]))))
    if (as.numeric(Sys.time()) - begin > job$budget) break
  }
  scale <- ncol(y) / length(values); head50 <- head(values, 50)
  list(seconds = list((as.numeric(Sys.time()) - begin) * scale), cpu = list(sum((proc.time() - cpu)[1:2]) * scale),
       fitted = length(values), criteria = as.list(head50), criterion = sum(head50))
}

solve_spec <- function(spec) {
  data <- read_table(spec)
  if (spec$responses > 0) {
    if (engine == "glmmTMB") return(list(unsupported = "no refit without building the model again"))
    return(many(spec, data))
  }
  if (engine == "glmmTMB" && !is.null(spec$weights)) return(list(unsupported = "weights are likelihood weights"))
  other <- spec$family != "gaussian"
  if (engine == "glmmTMB" && spec$nodes > 1) return(list(unsupported = "no quadrature"))
  whole <- if (engine == "glmmTMB") {
    if (other) function() tmb_generalised(spec, data) else function() tmb_whole(spec, data)
  } else if (other) function() glmer_call(spec, data) else function() lme4_whole(spec, data)
  once <- timed(whole)
  more <- again(whole, once$wall)
  answer <- if (engine == "glmmTMB") tmb_read(once$result)
    else if (other) glmer_read(once$result, spec) else lme4_read(once$result)
  answer$first <- once$wall
  answer$seconds <- as.list(if (length(more$wall)) more$wall else once$wall)
  answer$cpu <- as.list(if (length(more$cpu)) more$cpu else once$cpu)
  if (engine == "lme4" && job$control != "tight" && once$wall < job$slow && is.null(spec$weights) && spec$family != "nbinom2") {
    engine_only <- if (other) glmer_engine(spec, data) else lme4_engine(spec, data)
    first <- timed(engine_only); more <- again(engine_only, first$wall)
    answer$engine_seconds <- as.list(more$wall); answer$engine_cpu <- as.list(more$cpu)
  }
  answer
}

versions <- list(R = paste(R.version$major, R.version$minor, sep = "."), lme4 = as.character(packageVersion("lme4")),
                 Matrix = as.character(packageVersion("Matrix")), BLAS = as.character(extSoftVersion()["BLAS"]))
if (engine == "glmmTMB") versions$glmmTMB <- as.character(packageVersion("glmmTMB"))

out <- file(args[2], "a")
for (spec in job$specs) {
  answer <- tryCatch(suppressMessages(suppressWarnings(solve_spec(spec))),
                     error = function(e) list(error = substr(conditionMessage(e), 1, 500)))
  answer$problem <- spec$name; answer$versions <- versions
  writeLines(toJSON(answer, auto_unbox = TRUE, digits = NA, null = "null", na = "null"), out)
  flush(out)
}
close(out)
