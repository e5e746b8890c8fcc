// Log densities of prior distributions with their derivatives.
#pragma once
#include <cmath>
#include <limits>

#include "jet.hpp"

namespace multilevel {

enum class PriorKind { flat = 0, normal, student, exponential, gamma, inverse_gamma, log_normal, uniform, laplace };

// Parameters a, b, c in the order of the name: location and scale; degrees of freedom, location, scale; rate; shape and
// rate; shape and scale; mean and sd of the logarithm; lower and upper limit.
struct PriorDensity {
    PriorKind kind = PriorKind::flat;
    double a = 0, b = 0, c = 0;
    bool half = false;  // on the positive numbers only

    // log density at x and, in `slope`, its derivative; constants included but for truncations away from the centre
    double log(double x, double& slope) const {
        constexpr double half_log_two_pi = 0.91893853320467274178, log_two = 0.69314718055994530942;
        const double twice = half ? log_two : 0.0;
        slope = 0;
        switch (kind) {
            case PriorKind::flat: return 0;
            case PriorKind::normal: {
                const double z = (x - a) / b;
                slope = -z / b;
                return -0.5 * z * z - std::log(b) - half_log_two_pi + twice;
            }
            case PriorKind::student: {
                const double z = (x - b) / c;
                slope = -(a + 1) * z / (c * (a + z * z));
                return log_gamma((a + 1) / 2) - log_gamma(a / 2) - 0.5 * std::log(a * 3.14159265358979323846) - std::log(c) -
                       0.5 * (a + 1) * std::log1p(z * z / a) + twice;
            }
            case PriorKind::exponential: slope = -a; return std::log(a) - a * x;
            case PriorKind::gamma:
                slope = (a - 1) / x - b;
                return a * std::log(b) - log_gamma(a) + (a - 1) * std::log(x) - b * x;
            case PriorKind::inverse_gamma:
                slope = -(a + 1) / x + b / (x * x);
                return a * std::log(b) - log_gamma(a) - (a + 1) * std::log(x) - b / x;
            case PriorKind::log_normal: {
                const double z = (std::log(x) - a) / b;
                slope = -(z / b + 1) / x;
                return -0.5 * z * z - std::log(b * x) - half_log_two_pi;
            }
            case PriorKind::uniform: return -std::log(b - a);
            case PriorKind::laplace:
                slope = x > a ? -1 / b : 1 / b;
                return -std::fabs(x - a) / b - std::log(2 * b) + twice;
        }
        return -std::numeric_limits<double>::infinity();
    }
};

// A number between limits (none: infinite) as a function of one without: value, d value / d x, log Jacobian and its slope.
struct Unbounded {
    double lower = -std::numeric_limits<double>::infinity(), upper = std::numeric_limits<double>::infinity();

    struct At {
        double value, slope, log_jacobian, jacobian_slope;
    };
    At at(double x) const {
        if (std::isinf(lower) && std::isinf(upper)) return {x, 1, 0, 0};
        if (std::isinf(upper)) {
            const double e = std::exp(x);
            return {lower + e, e, x, 1};
        }
        const double e = std::exp(-std::fabs(x)), p = (x >= 0 ? 1 : e) / (1 + e), w = e / ((1 + e) * (1 + e));
        return {lower + (upper - lower) * p, (upper - lower) * w, std::log((upper - lower) * w), 1 - 2 * p};
    }
    double inverse(double v) const {
        if (std::isinf(lower) && std::isinf(upper)) return v;
        if (std::isinf(upper)) return std::log(v - lower);
        return std::log((v - lower) / (upper - v));
    }
};

// One scalar parameter: fixed at `value`, or free with a prior.
struct Parameter {
    bool fixed = false;
    double value = 0;
    PriorDensity prior;
    Unbounded bounds;
};

}  // namespace multilevel
