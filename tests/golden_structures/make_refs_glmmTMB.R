# glmmTMB on the bundled sets.  Run: Rscript make_refs_glmmTMB.R [id ...]
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R")); suppressMessages(library(glmmTMB))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
source(file.path(here, "ref_lib_tmb.R"))

if (want(id <- "sleepstudy_covstructs")) {
  d <- read_set("sleepstudy.csv"); d$fDays <- factor(d$Days); nd <- data.frame(Days = c(0, 9), fDays = c("0", "9"), Subject = c("308", "372")); un <- data.frame(Days = 0, fDays = "0", Subject = "999")
  F <- list(tmb_fit(Reaction ~ Days + us(Days | Subject), d, gaussian(), label = "us_ML", nd = nd, unseen = un), tmb_fit(Reaction ~ Days + diag(Days | Subject), d, gaussian(), label = "diag_ML", nd = nd), tmb_fit(Reaction ~ Days + us(Days | Subject), d, gaussian(), REML = TRUE, label = "us_REML", nd = nd),
            tmb_fit(Reaction ~ Days + ar1(0 + fDays | Subject), d, gaussian(), label = "ar1_plus_noise_ML", nd = nd), tmb_fit(Reaction ~ Days + ar1(0 + fDays | Subject), d, gaussian(), disp = ~0, label = "ar1_only_ML"), tmb_fit(Reaction ~ Days + (1 | Subject) + ar1(0 + fDays | Subject), d, gaussian(), disp = ~0, label = "intercept_plus_ar1_ML"),
            tmb_fit(Reaction ~ Days + cs(0 + fDays | Subject), d, gaussian(), disp = ~0, label = "cs_heterogeneous_ML"), tmb_fit(Reaction ~ Days + toep(0 + fDays | Subject), d, gaussian(), disp = ~0, label = "toep_heterogeneous_ML"),
            tmb_fit(Reaction ~ Days + (Days | Subject), d, gaussian(), disp = ~Days, label = "dispformula_Days_ML", nd = nd))
  tmb_done(id, ref_head("Covariance structures on the sleep study", "sleepstudy.csv", d, "d$fDays <- factor(d$Days)", fixed_vars = character(), case = "us, diag, ar1, cs, toep; residual AR(1); heteroscedastic residuals", pk = c("glmmTMB", "TMB")), F, list(c("diag_ML", "us_ML"), c("us_ML", "dispformula_Days_ML")))
}
if (want(id <- "orthodont_covstructs")) {
  d <- read_set("orthodont.csv"); d$Subject <- factor(as.character(d$Subject)); d$fage <- factor(d$age)
  F <- list(tmb_fit(distance ~ age * Sex + us(0 + fage | Subject), d, gaussian(), disp = ~0, label = "unstructured_marginal_ML"), tmb_fit(distance ~ age * Sex + cs(0 + fage | Subject), d, gaussian(), disp = ~0, label = "cs_marginal_ML"), tmb_fit(distance ~ age * Sex + ar1(0 + fage | Subject), d, gaussian(), disp = ~0, label = "ar1_marginal_ML"),
            tmb_fit(distance ~ age * Sex + us(0 + fage | Subject), d, gaussian(), disp = ~0, REML = TRUE, label = "unstructured_marginal_REML"), tmb_fit(distance ~ age * Sex + (1 | Subject), d, gaussian(), disp = ~Sex, label = "dispformula_Sex_ML"))
  tmb_done(id, ref_head("Marginal covariance structures (MMRM) on Orthodont", "orthodont.csv", d, "d$Subject <- factor(as.character(d$Subject)); d$fage <- factor(d$age)", fixed_vars = c("Sex"), case = "MMRM-like models, sex-specific residual variance", pk = c("glmmTMB", "TMB")), F, list(c("cs_marginal_ML", "unstructured_marginal_ML")))
}
