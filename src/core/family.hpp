// Log densities of the response given its linear predictor, written once in `Jet` numbers.
//
// A full density, so that log-likelihoods compare across families, is the sum of `row_constant`, which depends on the
// response alone, `parameter_part`, which does not depend on eta and is computed once for many of them, and the rest.
// Parameters beyond eta: the first is on the log scale (size, shape, precision, sd, phi), the second the logit of the share
// of structural zeros or, unless it is fixed, the family's shape: log(df - 1) of Student's t, the power of Tweedie's
// distribution as a logit over its range. For ordinal responses they are the thresholds above and below the category.
#pragma once
#include "tweedie.hpp"

namespace multilevel {

enum class FamilyKind {
    binomial = 0, poisson, negative_binomial2, negative_binomial1, gamma, inverse_gaussian, beta, beta_binomial,
    student, gaussian, lognormal, ordinal, tweedie
};
enum class LinkKind { identity = 0, log, logit, probit, cloglog, cauchit, inverse, sqrt, inverse_square };
enum class ZeroKind { none = 0, inflated, hurdle };

struct Family {
    FamilyKind kind;
    LinkKind link;
    ZeroKind zero = ZeroKind::none;
    double fixed = 0;  // Student's degrees of freedom or Tweedie's power; 0: a parameter of the rows

    bool has_dispersion() const {
        return kind != FamilyKind::binomial && kind != FamilyKind::poisson && kind != FamilyKind::ordinal;
    }
    bool has_shape() const { return (kind == FamilyKind::student || kind == FamilyKind::tweedie) && !(fixed > 0); }
    int parameters() const {
        if (kind == FamilyKind::ordinal || zero != ZeroKind::none || has_shape()) return 2;
        return has_dispersion() ? 1 : 0;
    }
    bool has_parameter_part() const {
        return kind == FamilyKind::negative_binomial2 || kind == FamilyKind::gamma || kind == FamilyKind::beta ||
               kind == FamilyKind::beta_binomial || kind == FamilyKind::student || kind == FamilyKind::tweedie;
    }
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
        case LinkKind::sqrt: return 2 * log_abs(eta);  // mu = eta^2 on either side of zero
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

// Counts above this have densities written about the response, after Loader (2000): with r = log(mean / y) the Poisson one
// is -y (exp(r) - 1 - r) less a constant, where the usual terms are large and leave few digits of their difference.
constexpr double large_count = 1e4;
inline bool about_response(const Family& f, double y, double trials) {
    if (f.kind == FamilyKind::binomial) return trials > large_count && y > 0 && y < trials;
    return y > large_count && (f.kind == FamilyKind::poisson || f.kind == FamilyKind::negative_binomial2 ||
                               f.kind == FamilyKind::negative_binomial1);
}

// what a log density holds of y alone, summed once
inline double row_constant(const Family& f, double y, double trials) {
    if (about_response(f, y, trials)) {
        const double own = -stirling_error(y) - 0.5 * std::log(y) - half_log_two_pi, rest = trials - y;
        if (f.kind != FamilyKind::binomial) return own;
        return own + stirling_error(trials) - stirling_error(rest) + 0.5 * std::log(trials / rest);
    }
    switch (f.kind) {
        case FamilyKind::binomial:
        case FamilyKind::beta_binomial:
            return trials == 1 ? 0.0 : log_gamma(trials + 1) - log_gamma(y + 1) - log_gamma(trials - y + 1);
        case FamilyKind::poisson:
        case FamilyKind::negative_binomial2:
        case FamilyKind::negative_binomial1: return y < 2 ? 0.0 : -log_gamma(y + 1);
        case FamilyKind::gamma:
        case FamilyKind::lognormal: return -std::log(y);
        case FamilyKind::beta: return -std::log(y) - std::log1p(-y);
        case FamilyKind::inverse_gaussian: return -half_log_two_pi - 1.5 * std::log(y);
        default: return 0.0;
    }
}

// a negative binomial density of a large count: what depends on the size alone, and the rest by the logarithms of the
// probabilities of failure and success
template <class T>
inline T size_part(double y, const T& size) {
    return stirling_error(size + y) - stirling_error(size) + 0.5 * log(size) - 0.5 * log(size + y);
}
template <class T>
inline T large_negative_binomial(double y, const T& size, const T& log_p, const T& log_q) {
    const T r = log1p(y * inverse(size)) + log_p;
    return -size * exp_remainder(r) - y * exp_remainder(log(size + y) - std::log(y) + log_q);
}

// lgamma(x) and lgamma(x + y) - lgamma(x) of whole y at x = exp(log_x), which may be too small for a number
template <class T>
inline T lgamma_at(const T& log_x) {
    const T x = exp(log_x);
    return log_x.value() < -10 ? lgamma(1.0 + x) - log_x : lgamma(x);
}
template <class T>
inline T log_rising_at(const T& log_x, double y) {
    const T x = exp(log_x);
    return log_x.value() < -10 && y > 0 ? log_x + log_rising(1.0 + x, y - 1) : log_rising(x, y);
}

// Student's degrees of freedom, more than 1
template <class T>
inline T degrees_of_freedom(const Family& f, const T& second) {
    return f.fixed > 0 ? T(f.fixed) : 1.0 + exp(second);
}
// Tweedie's power
template <class T>
inline T power(const Family& f, const T& second) {
    return f.fixed > 0 ? T(f.fixed) : least_power + power_width * inverse(1.0 + exp(-second));
}

// what the log density of y without zero inflation holds that does not depend on eta; nothing for a count of zero
template <class T>
inline T parameter_part(const Family& f, double y, double trials, const T& first, const T& second) {
    switch (f.kind) {
        case FamilyKind::negative_binomial2: return y > large_count ? size_part(y, exp(first)) : log_rising(exp(first), y);
        case FamilyKind::gamma: return stirling_remainder(exp(first));
        case FamilyKind::beta: return lgamma(exp(first));
        case FamilyKind::beta_binomial: return -log_rising(exp(first), trials);
        case FamilyKind::student: return half_step(0.5 * degrees_of_freedom(f, second)) - half_log_two_pi;
        case FamilyKind::tweedie: return y > 0 ? tweedie_series(y, first, power(f, second)) : T(0.0);
        default: return T(0.0);
    }
}

// log density of one response y (of `trials`, for binomial ones) less its constant, without zero inflation
template <class T>
inline T base_density(const Family& f, double y, double trials, const T& eta, const T& first, const T& second, const T& part) {
    switch (f.kind) {
        case FamilyKind::binomial: {
            T out(0.0);
            if (about_response(f, y, trials)) {
                const T r = log_probability(f.link, eta, false) + std::log(trials / y);
                return -y * exp_remainder(r) - (trials - y) * exp_remainder(log_probability(f.link, eta, true) + std::log(trials / (trials - y)));
            }
            if (y > 0) out = out + y * log_probability(f.link, eta, false);
            if (trials - y > 0) out = out + (trials - y) * log_probability(f.link, eta, true);
            return out;
        }
        case FamilyKind::poisson: {
            if (y == 0 && f.link == LinkKind::sqrt) return -(eta * eta);  // at eta = 0, too
            const T lm = log_mean(f.link, eta);
            if (y > large_count) return -y * exp_remainder(lm - std::log(y));
            return y * lm - exp(lm);
        }
        case FamilyKind::negative_binomial2: {  // variance mu + mu^2 / size, size = exp(first)
            const T size = exp(first);
            if (y == 0 && f.link == LinkKind::sqrt) return -size * log1p(eta * eta * exp(-first));
            const T lm = log_mean(f.link, eta);
            T minus_log_p, minus_log_q;
            softplus_both(lm - first, minus_log_p, minus_log_q);
            if (y > large_count) return part + large_negative_binomial(y, size, -minus_log_p, -minus_log_q);
            return part - size * minus_log_p - y * minus_log_q;
        }
        case FamilyKind::negative_binomial1: {  // variance mu (1 + alpha), alpha = exp(first)
            const T lm = log_mean(f.link, eta), size = exp(lm - first);
            if (y > large_count) return size_part(y, size) + large_negative_binomial(y, size, -softplus(first), -softplus(-first));
            return log_rising(size, y) - size * softplus(first) - y * softplus(-first);
        }
        case FamilyKind::gamma: {  // shape = exp(first), variance mu^2 / shape
            return part - exp(first) * exp_remainder(std::log(y) - log_mean(f.link, eta));
        }
        case FamilyKind::inverse_gaussian: {  // variance mu^3 / lambda, lambda = exp(first)
            const T r = exp(-log_mean(f.link, eta)), e = y * r - 1.0;
            return 0.5 * first - exp(first) * e * e * (0.5 / y);
        }
        case FamilyKind::beta: {  // precision = exp(first)
            const T log_p = log_probability(f.link, eta, false) + first, log_q = log_probability(f.link, eta, true) + first;
            return part - lgamma_at(log_p) - lgamma_at(log_q) + exp(log_p) * std::log(y) + exp(log_q) * std::log1p(-y);
        }
        case FamilyKind::beta_binomial: {
            const T log_p = log_probability(f.link, eta, false) + first, log_q = log_probability(f.link, eta, true) + first;
            return part + log_rising_at(log_p, y) + log_rising_at(log_q, trials - y);
        }
        case FamilyKind::student: {  // sd multiplier exp(first)
            const T df = degrees_of_freedom(f, second), z = (y - mean(f.link, eta)) * exp(-first);
            return part - first - 0.5 * (df + 1.0) * log1p(z * z * inverse(df));
        }
        case FamilyKind::gaussian:
        case FamilyKind::lognormal: {
            const bool logged = f.kind == FamilyKind::lognormal;
            const T z = ((logged ? std::log(y) : y) - mean(f.link, eta)) * exp(-first);
            return -0.5 * (z * z) - first - half_log_two_pi;
        }
        case FamilyKind::tweedie: return part + tweedie_mean_part(y, log_mean(f.link, eta), first, power(f, second));
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
inline T log_density(const Family& f, double y, double trials, const T& eta, const T& first, const T& second, const T& part) {
    if (f.zero == ZeroKind::none) return base_density(f, y, trials, eta, first, second, part);
    if (f.zero == ZeroKind::inflated) {
        const T base = base_density(f, y, trials, eta, first, second, part);
        if (y > 0) return base - softplus(second);
        // log(p + (1 - p) f0) is log(1 - p) + log(f0) + log(1 + exp(logit(p) - log(f0))); where f0 is the smaller, the terms
        // are turned round, or log(f0) would be added and taken away again
        const double f0 = base.value() - second.value();
        if (f0 <= -800) return -softplus(-second);  // exp(-800) is zero
        if (f0 < 0) return softplus(base - second) - softplus(-second);
        return base - softplus(second) + softplus(second - base);
    }
    if (y == 0) return -softplus(-second);
    const T none = base_density(f, 0.0, trials, eta, first, second, T(0.0));
    return base_density(f, y, trials, eta, first, second, part) - log1mexp(-none) - softplus(second);
}

}  // namespace multilevel
