# glmmTMB on the bundled sets.  Run: Rscript make_refs_glmmTMB.R [id ...]
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R")); suppressMessages(library(glmmTMB))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
source(file.path(here, "ref_lib_tmb.R"))

if (want(id <- "owls_zinb")) {
  d <- read_set("owls.csv"); f <- SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest)
  nd <- data.frame(FoodTreatment = c("Deprived", "Satiated"), SexParent = c("Male", "Female"), BroodSize = c(3, 5), Nest = c("AutavauxTV", "Yvonnand")); un <- data.frame(FoodTreatment = "Deprived", SexParent = "Male", BroodSize = 4, Nest = "nowhere")
  F <- list(tmb_fit(f, d, poisson(), label = "poisson", nd = nd), tmb_fit(f, d, poisson(), zi = ~1, label = "zip", nd = nd, unseen = un), tmb_fit(f, d, nbinom1(), zi = ~1, label = "zinb1", nd = nd, unseen = un),
            tmb_fit(f, d, nbinom2(), zi = ~1, label = "zinb2", nd = nd, unseen = un), tmb_fit(f, d, nbinom2(), label = "nb2", nd = nd), tmb_fit(f, d, nbinom1(), label = "nb1", nd = nd),
            tmb_fit(f, d, nbinom2(), zi = ~FoodTreatment + (1 | Nest), label = "zinb2_zi_random"), tmb_fit(f, d, truncated_nbinom2(), zi = ~FoodTreatment, label = "hurdle_truncated_nbinom2"), tmb_fit(f, d, truncated_poisson(), zi = ~1, label = "hurdle_truncated_poisson"))
  tmb_done(id, ref_head("Begging of barn-owl chicks", "owls.csv", d, fixed_vars = c("FoodTreatment", "SexParent"), case = "zero-inflated and overdispersed counts with an offset (glmmTMB paper)", pk = c("glmmTMB", "TMB", "Matrix")), F, list(c("poisson", "zip"), c("nb2", "zinb2"), c("nb1", "zinb1")))
}
if (want(id <- "salamanders_zi")) {
  d <- read_set("salamanders.csv"); d$site <- factor(as.character(d$site)); nd <- data.frame(spp = c("GP", "DM"), mined = c("yes", "no"), site = c("R-1", "VF-5"), DOY = c(0, 1), cover = 0); nd$site[2] <- tail(levels(d$site), 1)
  F <- list(tmb_fit(count ~ mined + (1 | site), d, poisson(), zi = ~mined, label = "zip_mined", nd = nd), tmb_fit(count ~ mined + spp + (1 | site), d, poisson(), label = "poisson_spp"),
            tmb_fit(count ~ spp + mined + (1 | site), d, nbinom2(), zi = ~spp + mined, label = "zinb2", nd = nd), tmb_fit(count ~ spp * mined + (1 | site), d, nbinom2(), label = "nb2_interaction", nd = nd),
            tmb_fit(count ~ spp + mined + (1 | site), d, nbinom2(), disp = ~DOY, label = "nb2_dispformula_DOY", nd = nd), tmb_fit(count ~ spp + mined + (1 | site), d, nbinom2(), label = "nb2", nd = nd), tmb_fit(count ~ spp + mined + (1 | site), d, nbinom1(), label = "nb1"),
            tmb_fit(count ~ spp + mined, d, truncated_nbinom2(), zi = ~spp + mined, label = "hurdle_no_random"))
  tmb_done(id, ref_head("Salamanders in streams below coal mines", "salamanders.csv", d, "d$site <- factor(as.character(d$site))", fixed_vars = c("spp", "mined"), case = "zero inflation, hurdle, dispersion formula (Price et al. 2016)", pk = c("glmmTMB", "TMB")), F, list(c("nb2", "nb2_dispformula_DOY"), c("nb2", "zinb2"), c("nb2", "nb2_interaction")))
}
if (want(id <- "gasolineyield_beta")) {
  d <- read_set("gasolineyield.csv", factors = "batch"); nd <- data.frame(temp = c(300, 400), batch = c("1", "10")); un <- data.frame(temp = 300, batch = "99")
  F <- list(tmb_fit(yield ~ temp + (1 | batch), d, beta_family(), label = "beta", nd = nd, unseen = un), tmb_fit(yield ~ temp + (1 | batch), d, beta_family(), disp = ~temp, label = "beta_dispformula_temp", nd = nd), tmb_fit(yield ~ temp + (1 | batch), d, beta_family("probit"), label = "beta_probit"))
  tmb_done(id, ref_head("Proportion of crude oil turned into gasoline", "gasolineyield.csv", d, "batch as factor", fixed_vars = character(), case = "beta mixed regression (Prater 1956)", pk = c("glmmTMB", "TMB")), F, list(c("beta", "beta_dispformula_temp")))
}
if (want(id <- "cbpp_glmmTMB")) {
  d <- read_set("cbpp.csv"); nd <- data.frame(period = c("1", "4"), herd = c("1", "15"), size = 10, incidence = 0)
  F <- list(tmb_fit(cbind(incidence, size - incidence) ~ period + (1 | herd), d, binomial(), label = "binomial", nd = nd), tmb_fit(cbind(incidence, size - incidence) ~ period + (1 | herd), d, betabinomial(), label = "betabinomial", nd = nd))
  tmb_done(id, ref_head("CBPP, binomial and beta-binomial", "cbpp.csv", d, fixed_vars = "period", case = "beta-binomial overdispersion", pk = c("glmmTMB", "TMB")), F, list(c("binomial", "betabinomial")))
}
if (want(id <- "epilepsy_nb")) {
  d <- read_set("epilepsy.csv"); nd <- data.frame(zAge = c(0, 1), zBase = c(0, 2), Trt = c("0", "1"), patient = c("1", "59"), visit = c("1", "4"))
  F <- list(tmb_fit(count ~ zAge + zBase * Trt + (1 | patient), d, poisson(), label = "poisson", nd = nd), tmb_fit(count ~ zAge + zBase * Trt + (1 | patient), d, nbinom2(), label = "nb2", nd = nd), tmb_fit(count ~ zAge + zBase * Trt + (1 | patient), d, nbinom1(), label = "nb1"), tmb_fit(count ~ zAge + zBase * Trt + ar1(0 + visit | patient), d, poisson(), label = "poisson_ar1"))
  tmb_done(id, ref_head("Seizure counts, negative binomial and AR(1) on the log scale", "epilepsy.csv", d, fixed_vars = "Trt", case = "NB1 / NB2 parametrisation, serial correlation in a count model", pk = c("glmmTMB", "TMB")), F, list(c("poisson", "nb2")))
}
if (want(id <- "dietox_gamma")) {
  d <- read_set("dietox.csv"); d$Pig <- factor(d$Pig); nd <- data.frame(Time = c(1, 12), Pig = levels(d$Pig)[c(1, nlevels(d$Pig))]); un <- data.frame(Time = 6, Pig = "1")
  F <- list(tmb_fit(Weight ~ log(Time) + (1 | Pig), d, Gamma("log"), label = "gamma_log", nd = nd, unseen = un), tmb_fit(Weight ~ log(Time) + (1 + log(Time) | Pig), d, Gamma("log"), label = "gamma_log_slope", nd = nd), tmb_fit(Weight ~ Time + (1 | Pig), d, gaussian(), label = "gaussian_ML", nd = nd), tmb_fit(Weight ~ Time + (1 | Pig), d, gaussian(), REML = TRUE, label = "gaussian_REML", nd = nd))
  tmb_done(id, ref_head("Gamma GLMM with log link", "dietox.csv", d, "d$Pig <- factor(d$Pig)", fixed_vars = character(), case = "positive response, gamma family", pk = c("glmmTMB", "TMB")), F, list(c("gamma_log", "gamma_log_slope")))
}
