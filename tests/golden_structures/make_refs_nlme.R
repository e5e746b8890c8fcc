# nlme::lme / gls on the bundled sets.  Run: Rscript make_refs_nlme.R [id ...]
here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)[1]))
source(file.path(here, "ref_lib.R")); suppressMessages(library(nlme)); source(file.path(here, "ref_lib_nlme.R"))
only <- commandArgs(TRUE); want <- function(id) { force(id); !length(only) || id %in% only }
PK <- c("nlme")

if (want(id <- "ovary_ar1")) {
  d <- read_set("ovary.csv"); d$Mare <- factor(as.character(d$Mare)); fx <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time); nd <- data.frame(Time = c(0, .25), Mare = c("1", "9"))
  F <- list(lme_fit(fx, ~1 | Mare, d, label = "REML_intercept", nd = nd), lme_fit(fx, list(Mare = pdDiag(~sin(2 * pi * Time))), d, label = "REML_pdDiag", nd = nd), lme_fit(fx, list(Mare = pdDiag(~sin(2 * pi * Time))), d, cor = corAR1(), label = "REML_pdDiag_corAR1", nd = nd),
            lme_fit(fx, ~1 | Mare, d, cor = corAR1(), label = "REML_intercept_corAR1", nd = nd), lme_fit(fx, ~1 | Mare, d, cor = corARMA(p = 1, q = 1), label = "REML_intercept_corARMA11", nd = nd), lme_fit(fx, ~1 | Mare, d, cor = corAR1(), method = "ML", label = "ML_intercept_corAR1"), lme_fit(fx, ~1 | Mare, d, method = "ML", label = "ML_intercept"),
            gls_fit(fx, d, cor = corAR1(form = ~1 | Mare), label = "gls_REML_corAR1"))
  nl_done(id, ref_head("Ovarian follicles of mares: AR(1) residuals within groups", "ovary.csv", d, "d$Mare <- factor(as.character(d$Mare)); rows kept in file order (the order defines the AR lag)", fixed_vars = character(), case = "lme with corAR1 (Pinheiro & Bates 5.3)", pk = PK), F, list(c("REML_pdDiag", "REML_pdDiag_corAR1"), c("ML_intercept", "ML_intercept_corAR1")))
}
if (want(id <- "bodyweight_var_cor")) {
  d <- read_set("bodyweight.csv"); d$Rat <- factor(as.character(d$Rat)); nd <- data.frame(Time = c(1, 64), Diet = c("1", "3"), Rat = c("1", "16"))
  F <- list(lme_fit(weight ~ Time * Diet, ~Time | Rat, d, label = "REML_slope", nd = nd), lme_fit(weight ~ Time * Diet, ~Time | Rat, d, wt = varPower(), label = "REML_slope_varPower", nd = nd), lme_fit(weight ~ Time * Diet, ~Time | Rat, d, wt = varPower(), cor = corExp(form = ~Time), label = "REML_slope_varPower_corExp", nd = nd),
            lme_fit(weight ~ Time * Diet, ~Time | Rat, d, cor = corCAR1(form = ~Time), label = "REML_slope_corCAR1"), lme_fit(weight ~ Time * Diet, ~1 | Rat, d, cor = corAR1(), label = "REML_intercept_corAR1", nd = nd), lme_fit(weight ~ Time * Diet, ~Time | Rat, d, wt = varExp(), label = "REML_slope_varExp"), lme_fit(weight ~ Time * Diet, ~Time | Rat, d, method = "ML", label = "ML_slope"))
  nl_done(id, ref_head("Weight of rats on three diets: variance function and serial correlation", "bodyweight.csv", d, "d$Rat <- factor(as.character(d$Rat))", fixed_vars = "Diet", case = "varPower, corExp / corCAR1 / corAR1 (Pinheiro & Bates 5.2-5.3)", pk = PK), F, list(c("REML_slope", "REML_slope_varPower"), c("REML_slope_varPower", "REML_slope_varPower_corExp")))
}
if (want(id <- "orthodont_varIdent")) {
  d <- read_set("orthodont.csv"); d$Subject <- factor(as.character(d$Subject)); nd <- data.frame(age = c(8, 14), Sex = c("Male", "Female"), Subject = c("M01", "F11"))
  F <- list(lme_fit(distance ~ age * Sex, ~age | Subject, d, label = "REML_slope", nd = nd), lme_fit(distance ~ age * Sex, ~age | Subject, d, wt = varIdent(form = ~1 | Sex), label = "REML_slope_varIdent_Sex", nd = nd), lme_fit(distance ~ age * Sex, ~1 | Subject, d, label = "REML_intercept"), lme_fit(distance ~ age * Sex, ~1 | Subject, d, wt = varIdent(form = ~1 | Sex), label = "REML_intercept_varIdent_Sex"),
            lme_fit(distance ~ age * Sex, list(Subject = pdDiag(~age)), d, label = "REML_pdDiag"), gls_fit(distance ~ age * Sex, d, cor = corCompSymm(form = ~1 | Subject), label = "gls_REML_corCompSymm"), gls_fit(distance ~ age * Sex, d, cor = corSymm(form = ~1 | Subject), wt = varIdent(form = ~1 | age), label = "gls_REML_unstructured"),
            gls_fit(distance ~ age * Sex, d, cor = corSymm(form = ~1 | Subject), wt = varIdent(form = ~1 | age), method = "ML", label = "gls_ML_unstructured"), gls_fit(distance ~ age * Sex, d, cor = corAR1(form = ~1 | Subject), label = "gls_REML_corAR1"))
  nl_done(id, ref_head("Dental growth: sex-specific residual variance; marginal models", "orthodont.csv", d, "d$Subject <- factor(as.character(d$Subject))", fixed_vars = "Sex", case = "varIdent; gls with compound symmetry / unstructured (MMRM) / AR(1)", pk = PK), F, list(c("REML_slope", "REML_slope_varIdent_Sex"), c("gls_REML_corCompSymm", "gls_REML_unstructured")))
}
if (want(id <- "machines_pd")) {
  d <- read_set("machines.csv"); d$Worker <- factor(as.character(d$Worker)); nd <- data.frame(Machine = c("A", "C"), Worker = c("1", "6"))
  F <- list(lme_fit(score ~ Machine, list(Worker = pdCompSymm(~Machine - 1)), d, label = "REML_pdCompSymm", nd = nd), lme_fit(score ~ Machine, list(Worker = pdDiag(~Machine - 1)), d, label = "REML_pdDiag", nd = nd), lme_fit(score ~ Machine, list(Worker = pdSymm(~Machine - 1)), d, label = "REML_pdSymm", nd = nd), lme_fit(score ~ Machine, list(Worker = pdBlocked(list(pdIdent(~1), pdIdent(~Machine - 1)))), d, label = "REML_pdBlocked"), lme_fit(score ~ Machine, ~1 | Worker/Machine, d, label = "REML_nested", nd = nd), lme_fit(score ~ Machine, ~1 | Worker/Machine, d, wt = varIdent(form = ~1 | Machine), label = "REML_nested_varIdent"))
  nl_done(id, ref_head("Machines and workers: structured random-effects matrices", "machines.csv", d, "d$Worker <- factor(as.character(d$Worker))", fixed_vars = "Machine", case = "pdCompSymm, pdDiag, pdSymm, pdBlocked, nested", pk = PK), F, list(c("REML_pdDiag", "REML_pdSymm"), c("REML_pdCompSymm", "REML_pdSymm")))
}
if (want(id <- "ratpupweight_varIdent")) {
  d <- read_set("ratpupweight.csv"); d$Litter <- factor(as.character(d$Litter)); d$Treatment <- factor(as.character(d$Treatment), levels = c("Control", "Low", "High")); nd <- data.frame(Treatment = c("Control", "High"), sex = c("Male", "Female"), Lsize = c(12, 15), Litter = c("1", "22")); nd <- nd[nd$Litter %in% levels(d$Litter), ]
  F <- list(lme_fit(weight ~ Treatment + sex + Lsize, ~1 | Litter, d, label = "REML", nd = nd), lme_fit(weight ~ Treatment + sex + Lsize, ~1 | Litter, d, wt = varIdent(form = ~1 | Treatment), label = "REML_varIdent_Treatment", nd = nd), lme_fit(weight ~ Treatment * sex + Lsize, ~1 | Litter, d, method = "ML", label = "ML_interaction"))
  nl_done(id, ref_head("Rat pups: treatment-specific residual variance", "ratpupweight.csv", d, "Litter as unordered factor; Treatment as unordered factor Control, Low, High", fixed_vars = c("Treatment", "sex"), case = "heteroscedastic residuals by group (West, Welch & Galecki ch. 3)", pk = PK), F, list(c("REML", "REML_varIdent_Treatment")))
}
