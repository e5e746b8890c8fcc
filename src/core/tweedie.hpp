// Density of Tweedie's compound Poisson-gamma distribution, 1 < power < 2 (Dunn & Smyth 2005, Statistics and Computing 15).
//
// Y is the sum of N gamma variables, N Poisson with mean mu^(2-p) / (phi (2-p)). At y > 0
//   log f(y; mu, phi, p) = -deviance(y, mu) / (2 phi) + log f(y; y, phi, p),
// and with mu = y, a = (2-p)/(p-1), lambda = y^(2-p) / (phi (2-p)), D(j) = j log(j/lambda) - j + lambda and
// S(k) = lgamma(k+1) - (k+1/2) log k + k - log(2 pi)/2 the last is
//   -log y + log(a)/2 - log(2 pi) + log sum_j exp(-S(j) - S(aj) - (1+a) D(j)),
// Dunn & Smyth's series with the large parts of its terms cancelled by hand (as Loader 2000 does for the Poisson and gamma
// densities), so that digits are kept however many terms there are. The sum does not depend on mu.
#pragma once
#include "jet.hpp"

namespace multilevel {

constexpr double least_power = 1.01, power_width = 0.98;  // powers from 1.01 to 1.99

// j log(j/lambda) - j + lambda, near j = lambda by a series (Loader's bd0)
inline double poisson_deviance(double j, double lambda, double log_lambda) {
    if (std::fabs(j - lambda) > 0.1 * (j + lambda)) return j * (std::log(j) - log_lambda) - j + lambda;
    const double v = (j - lambda) / (j + lambda), square = v * v;
    double sum = (j - lambda) * v, term = 2 * j * v;
    for (int k = 3;; k += 2) {
        term *= square;
        const double next = sum + term / k;
        if (next == sum) return sum;
        sum = next;
    }
}

struct TweedieSeries {
    double value, by_log_phi, by_power;  // log f(y; y, phi, p) and its derivatives
};

// The terms are bell-shaped about lambda with sd sqrt(lambda / (1+a)). Where they are many, every h-th is summed: the sum of
// a smooth bell is the same on any grid finer than half its sd, to more digits than there are (Poisson's summation formula).
inline TweedieSeries tweedie_series(double y, double log_phi, double p) {
    constexpr double far = 40, many = 12, per_sd = 2.5;  // log size of terms left out; sd from which, grid points per sd
    const double a = (2 - p) / (p - 1), a_slope = -1 / ((p - 1) * (p - 1)), log_y = std::log(y);
    const double log_lambda = (2 - p) * log_y - log_phi - std::log(2 - p), lambda = std::exp(log_lambda);
    const double lambda_slope = 1 / (2 - p) - log_y;  // of log lambda by p
    const double sd = std::sqrt(lambda / (1 + a)), h = sd > many ? sd / per_sd : 1;
    const double middle = h > 1 ? lambda : std::fmax(1.0, std::round(lambda));
    double total = 0, moved = 0, turned = 0, top = 0;
    const auto add = [&](double j) {
        double slope;
        const double d = poisson_deviance(j, lambda, log_lambda);
        const double log_term = -stirling_error(j) - stirling_error(a * j, &slope) - (1 + a) * d;
        if (j == middle) top = log_term;
        const double term = std::exp(log_term - top);
        total += term;
        moved += term * (lambda - j);
        turned -= term * (a_slope * (j * slope + d));
        return log_term;
    };
    add(middle);
    for (double j = middle + h;; j += h)
        if (!(add(j) > top - far)) break;
    for (double j = middle - h; j >= 1; j -= h)
        if (!(add(j) > top - far)) break;
    const double mean = moved / total;  // of lambda - j
    return {-log_y + 0.5 * std::log(a) - 1.83787706640934548356 + top + std::log(total * h),
            (1 + a) * mean,
            0.5 * a_slope / a + turned / total - (1 + a) * lambda_slope * mean};
}
template <int A>
inline Jet<A> tweedie_series(double y, const Jet<A>& log_phi, const Jet<A>& p) {  // neither may depend on eta
    const TweedieSeries s = tweedie_series(y, log_phi.d[0], p.d[0]);
    Jet<A> out(s.value);
    for (int i = 0; i < A; ++i) out.a[i][0] = s.by_log_phi * log_phi.a[i][0] + s.by_power * p.a[i][0];
    return out;
}

// log density less the series above
template <class T>
inline T tweedie_mean_part(double y, const T& log_mu, const T& log_phi, const T& p) {
    const T up = 2.0 - p, down = p - 1.0;
    if (y == 0) return -exp(up * log_mu - log_phi) * inverse(up);
    const double log_y = std::log(y);
    const T r = log_mu - log_y;
    return -exp(up * log_y - log_phi) * (exp_remainder(up * r) * inverse(up) + exp_remainder(-(down * r)) * inverse(down));
}

}  // namespace multilevel
