// Log densities of the response given its linear predictor, written once in `Jet` numbers.
//
// With `row_constant` each is the full density, so that log-likelihoods compare across families. Parameters beyond eta:
// the first is on the log scale (size, shape, precision, sd), the second the logit of the share of structural zeros; for
// ordinal responses they are the thresholds above and below the category.
#pragma once
#include "jet.hpp"

namespace multilevel {

enum class FamilyKind {
    binomial = 0, poisson, negative_binomial2, negative_binomial1, gamma, inverse_gaussian, beta, beta_binomial,
    student, gaussian, lognormal, ordinal
};
enum class LinkKind { identity = 0, log, logit, probit, cloglog, cauchit, inverse, sqrt, inverse_square };
enum class ZeroKind { none = 0, inflated, hurdle };

struct Family {
    FamilyKind kind;
    LinkKind link;
    ZeroKind zero = ZeroKind::none;
    double fixed = 0;  // Student's degrees of freedom

    bool has_dispersion() const {
        return kind != FamilyKind::binomial && kind != FamilyKind::poisson && kind != FamilyKind::ordinal;
    }
    int parameters() const { return kind == FamilyKind::ordinal ? 2 : zero != ZeroKind::none ? 2 : has_dispersion() ? 1 : 0; }
};

// log mu, or log(1 - mu), of a probability
template <class T>
inline T log_probability(LinkKind link, const T& eta, bool complement) {
    switch (link) {
        case LinkKind::probit: return log_normal_cdf(complement ? -eta : eta);
        case LinkKind::cauchit: return log_cauchy_cdf(complement ? -eta : eta);
        case LinkKind::cloglog: return complement ? -exp(eta) : log1mexp(exp(eta));
        case LinkKind::log: return complement ? log1mexp(-eta) : eta;
        default: return -softplus(complement ? eta : -eta);
    }
}
// log mu of a positive mean
template <class T>
inline T log_mean(LinkKind link, const T& eta) {
    switch (link) {
        case LinkKind::identity: return log(eta);
        case LinkKind::sqrt: return 2 * log(eta);
        case LinkKind::inverse: return -log(eta);
        case LinkKind::inverse_square: return -0.5 * log(eta);
        default: return eta;
    }
}
// a mean on the whole line
template <class T>
inline T mean(LinkKind link, const T& eta) {
    if (link == LinkKind::log) return exp(eta);
    return link == LinkKind::inverse ? inverse(eta) : eta;
}

constexpr double half_log_two_pi = 0.91893853320467274178;

// what a log density holds of y alone, summed once
inline double row_constant(const Family& f, double y, double trials) {
    switch (f.kind) {
        case FamilyKind::binomial:
        case FamilyKind::beta_binomial:
            return trials == 1 ? 0.0 : log_gamma(trials + 1) - log_gamma(y + 1) - log_gamma(trials - y + 1);
        case FamilyKind::poisson:
        case FamilyKind::negative_binomial2:
        case FamilyKind::negative_binomial1: return -log_gamma(y + 1);
        case FamilyKind::gamma:
        case FamilyKind::lognormal: return -std::log(y);
        case FamilyKind::inverse_gaussian: return -half_log_two_pi - 1.5 * std::log(y);
        case FamilyKind::gaussian: return 0.0;
        case FamilyKind::student:
            return log_gamma((f.fixed + 1) / 2) - log_gamma(f.fixed / 2) - 0.5 * std::log(f.fixed * 3.14159265358979323846);
        default: return 0.0;
    }
}

// log density of one response y (of `trials`, for binomial ones) less its constant, without zero inflation
template <class T>
inline T base_density(const Family& f, double y, double trials, const T& eta, const T& first, const T& second) {
    switch (f.kind) {
        case FamilyKind::binomial: {
            T out(0.0);
            if (y > 0) out = out + y * log_probability(f.link, eta, false);
            if (trials - y > 0) out = out + (trials - y) * log_probability(f.link, eta, true);
            return out;
        }
        case FamilyKind::poisson: {
            const T lm = log_mean(f.link, eta);
            return y * lm - exp(lm);
        }
        case FamilyKind::negative_binomial2: {  // variance mu + mu^2 / size, size = exp(first)
            const T lm = log_mean(f.link, eta), size = exp(first);
            return log_rising(size, y) - size * softplus(lm - first) - y * softplus(first - lm);
        }
        case FamilyKind::negative_binomial1: {  // variance mu (1 + alpha), alpha = exp(first)
            const T lm = log_mean(f.link, eta), size = exp(lm - first);
            return log_rising(size, y) - size * softplus(first) - y * softplus(-first);
        }
        case FamilyKind::gamma: {  // shape = exp(first), variance mu^2 / shape
            const T lm = log_mean(f.link, eta), shape = exp(first);
            return shape * (first - lm + std::log(y)) - shape * y * exp(-lm) - lgamma(shape);
        }
        case FamilyKind::inverse_gaussian: {  // variance mu^3 / lambda, lambda = exp(first)
            const T r = exp(-log_mean(f.link, eta)), e = y * r - 1.0;
            return 0.5 * first - exp(first) * e * e * (0.5 / y);
        }
        case FamilyKind::beta: {  // precision = exp(first)
            const T precision = exp(first);
            const T p = exp(log_probability(f.link, eta, false) + first), q = exp(log_probability(f.link, eta, true) + first);
            return lgamma(precision) - lgamma(p) - lgamma(q) + (p - 1.0) * std::log(y) + (q - 1.0) * std::log1p(-y);
        }
        case FamilyKind::beta_binomial: {
            const T p = exp(log_probability(f.link, eta, false) + first), q = exp(log_probability(f.link, eta, true) + first);
            return log_rising(p, y) + log_rising(q, trials - y) - log_rising(exp(first), trials);
        }
        case FamilyKind::student: {  // sd multiplier exp(first), degrees of freedom fixed
            const double nu = f.fixed;
            const T z = (y - mean(f.link, eta)) * exp(-first);
            return -first - ((nu + 1) / 2) * log1p(z * z * (1 / nu));
        }
        case FamilyKind::gaussian:
        case FamilyKind::lognormal: {
            const bool logged = f.kind == FamilyKind::lognormal;
            const T z = ((logged ? std::log(y) : y) - mean(f.link, eta)) * exp(-first);
            return -0.5 * (z * z) - first - half_log_two_pi;
        }
        case FamilyKind::ordinal: {  // y: category from 0; trials: their number
            const bool lowest = y == 0, highest = y == trials - 1;
            if (lowest) return log_probability(f.link, first - eta, false);
            if (highest) return log_probability(f.link, second - eta, true);
            const T upper = first - eta, lower = second - eta;
            if (f.link == LinkKind::logit) return log1mexp(upper - lower) - softplus(-upper) - softplus(lower);
            // the tail in which both probabilities are small keeps the digits of their difference
            const bool flip = lower.value() > 0;
            const T big = log_probability(f.link, flip ? lower : upper, flip);
            const T small = log_probability(f.link, flip ? upper : lower, flip);
            return big + log1mexp(big - small);
        }
    }
    return T(std::numeric_limits<double>::quiet_NaN());
}

template <class T>
inline T log_density(const Family& f, double y, double trials, const T& eta, const T& first, const T& second) {
    if (f.zero == ZeroKind::none) return base_density(f, y, trials, eta, first, second);
    if (f.zero == ZeroKind::inflated) {
        const T base = base_density(f, y, trials, eta, first, second);
        if (y > 0) return base - softplus(second);
        const T zero = second - base;  // log(p + (1 - p) f0) = log(1 - p) + log f0 + log(1 + exp(logit p - log f0))
        return base - softplus(second) + softplus(zero);
    }
    if (y == 0) return -softplus(-second);
    const T none = base_density(f, 0.0, trials, eta, first, second);
    return base_density(f, y, trials, eta, first, second) - log1mexp(-none) - softplus(second);
}

}  // namespace multilevel
