# Rscript rstanarm.R JOB OUT: draws one posterior with rstanarm; OUT.json has the seconds, OUT.f64 the draws (parameter by
# parameter, chain by chain). Precompiled, so nothing is compiled here; it always samples group effects non-centred.
#
# Priors of group sds are rstanarm's own (decov): in a Gaussian model exponential, times the residual sd, shared out among
# the effects of a term; it has no others. The prior of the intercept is that at the means of the predictors.

start <- proc.time()[["elapsed"]]
suppressWarnings(suppressMessages({
  library(jsonlite)
  library(rstanarm)
}))
imports <- proc.time()[["elapsed"]] - start

arguments <- commandArgs(trailingOnly = TRUE)
job <- read_json(arguments[1])
about <- read_json(paste0(job$stem, ".json"))
frame <- read.csv(paste0(job$stem, ".csv"), stringsAsFactors = TRUE)

b_priors <- about$coefficient_priors
intercept <- about$coefficients[[1]] == "Intercept"
slopes <- if (intercept) b_priors[-1] else b_priors
linear <- about$family == "gaussian"
aux <- about$sigma_prior
etas <- unlist(lapply(about$terms, function(t) t$cor_prior[[2]]))  # of terms with correlations
call <- list(
  formula = as.formula(about$formula), data = frame, family = get(about$family)(),
  prior_covariance = if (length(etas)) decov(regularization = etas) else decov(),
  chains = job$chains, warmup = job$warmup, iter = job$warmup + job$draws, cores = job$cores, seed = job$seed,
  refresh = 0
)
if (intercept) call$prior_intercept <- normal(b_priors[[1]][[2]], b_priors[[1]][[3]], autoscale = FALSE)
if (length(slopes)) {
  call$prior <- normal(
    sapply(slopes, function(p) p[[2]]), sapply(slopes, function(p) p[[3]]), autoscale = FALSE
  )
}
if (linear) {
  call$prior_aux <- switch(aux[[1]],
    "half-normal" = normal(0, aux[[2]], autoscale = FALSE),
    "half-cauchy" = cauchy(0, aux[[2]], autoscale = FALSE),
    "exponential" = exponential(aux[[2]], autoscale = FALSE)
  )
}

before <- proc.time()
fit <- suppressWarnings(do.call(stan_glmer, call))
spent <- proc.time() - before

found <- as.array(fit$stanfit)
label <- function(group, one, two) {
  pattern <- paste0("Sigma[", group, ":", one, ",", two, "]")
  names <- gsub("^(Sigma\\[[^:]*?)\\.[0-9]+:", "\\1:", dimnames(found)$parameters, perl = TRUE)
  which(names == pattern)
}
in_r <- function(effect) if (effect == "Intercept") "(Intercept)" else effect
pick <- function(index) found[, , index]
draws <- list()
fixed <- names(fixef(fit))
for (i in seq_along(about$coefficients)) draws[[about$coefficients[[i]]]] <- pick(fixed[i])
for (term in about$terms) {
  effects <- sapply(term$sds, function(s) in_r(sub("^sd\\([^,]*, (.*)\\)$", "\\1", s)))
  variances <- lapply(effects, function(e) pick(label(term$group, e, e)))
  for (i in seq_along(effects)) draws[[term$sds[[i]]]] <- sqrt(variances[[i]])
  if (!is.null(term$cor)) {
    draws[[term$cor]] <- pick(label(term$group, effects[2], effects[1])) / sqrt(variances[[1]] * variances[[2]])
  }
}
if (linear) draws[["sigma"]] <- pick("sigma")

chains <- rstan::get_elapsed_time(fit$stanfit)
diverging <- sum(sapply(rstan::get_sampler_params(fit$stanfit, inc_warmup = FALSE), function(p) sum(p[, "divergent__"])))
con <- file(paste0(arguments[2], ".f64"), "wb")
for (one in draws) writeBin(as.double(one), con)
close(con)
write_json(
  list(
    names = names(draws), total = spent[["elapsed"]], total_cpu = spent[["user.self"]] + spent[["sys.self"]] + sum(chains),
    # chains run side by side on `cores` processors, each in a process that has to be started first
    sampling = max(sum(chains) / min(job$cores, job$chains), max(rowSums(chains))), sampling_cpu = sum(chains),
    divergences = diverging, warmup = job$warmup, draws = job$draws, imports = imports,
    versions = list(rstanarm = as.character(packageVersion("rstanarm")), rstan = as.character(packageVersion("rstan")))
  ),
  paste0(arguments[2], ".json"), auto_unbox = TRUE, digits = NA
)
