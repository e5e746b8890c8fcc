// Covariance of one random term as a function of unconstrained numbers: sds, then correlations, with their priors.
//
// Correlations of an unstructured term are tanh of the coordinates, partial ones along the rows of the Cholesky factor
// (Lewandowski, Kurowicka & Joe 2009, J. Multivar. Anal. 100, 1989), with the LKJ prior; cs and ar1 have a single one.
#pragma once
#include "blocks.hpp"
#include "priors.hpp"

namespace multilevel {

enum class CorrelationKind { none = 0, free, equal, serial };  // diag, us, cs, ar1

class TermScale {
  public:
    int factor = 0, first = 0, k = 1;  // which grouping factor, the term's first effect in it, number of effects
    std::vector<Parameter> sds;        // k, or one for all
    CorrelationKind kind = CorrelationKind::none;
    double eta = 1;                    // of the LKJ prior; of a single correlation a beta(eta, eta) on its range
    bool fixed_correlation = false;
    vec root;                          // k x k row-major lower Cholesky factor of the correlations, set by `read`
    vec sd;                            // k

    int correlations() const {
        if (fixed_correlation || kind == CorrelationKind::none || k < 2) return 0;
        return kind == CorrelationKind::free ? k * (k - 1) / 2 : 1;
    }
    int coordinates() const {
        int n = correlations();
        for (const Parameter& p : sds) n += !p.fixed;
        return n;
    }
    // log prior and Jacobian at x; adds their slopes to `grad`
    double read(const double* x, double* grad) {
        double out = 0;
        sd.assign(k, 0.0);
        vec values(sds.size());
        for (std::size_t i = 0; i < sds.size(); ++i) values[i] = read_sd(sds[i], x, grad, out);
        for (int i = 0; i < k; ++i) sd[i] = values[sds.size() == 1 ? 0 : i];
        if (correlations()) out += kind == CorrelationKind::free ? read_free(x, grad) : read_single(x, grad);
        else if (root.empty()) identity();
        return out;
    }
    // entry of the absolute factor diag(sd) root
    double lambda(int i, int j) const { return sd[i] * root[i * k + j]; }
    // adds the sds and the correlations (lower triangle by rows, or the single one), fixed ones included
    void append(vec& out) const {
        for (std::size_t i = 0; i < sds.size(); ++i) out.push_back(sd[i]);
        if (kind == CorrelationKind::none || k < 2) return;
        for (int i = 1; i < k; ++i)
            for (int j = 0; j < i; ++j) {
                double r = 0;
                for (int c = 0; c <= j; ++c) r += root[i * k + c] * root[j * k + c];
                if (kind == CorrelationKind::free || (i == 1 && j == 0)) out.push_back(r);
            }
    }
    // adds to `grad` what the derivative g (k x k row-major) by the absolute factor becomes
    void chain(const vec& g, const double* x, double* grad) const {
        for (std::size_t s = 0; s < sds.size(); ++s) {
            if (sds[s].fixed) continue;
            const double slope = sds[s].bounds.at(*x++).slope;
            double sum = 0;
            for (int i = 0; i < k; ++i)
                if (sds.size() == 1 || i == static_cast<int>(s))
                    for (int j = 0; j <= i; ++j) sum += g[i * k + j] * root[i * k + j];
            *grad++ += sum * slope;
        }
        if (!correlations()) return;
        if (kind != CorrelationKind::free) {
            double sum = 0;
            for (int i = 0; i < k; ++i)
                for (int j = 0; j <= i; ++j) sum += g[i * k + j] * sd[i] * root_slope_[i * k + j];
            *grad += sum;
            return;
        }
        for (int i = 1; i < k; ++i)
            for (int l = 0; l < i; ++l) {
                // row i: entry j is z_j prod_{m<j} sqrt(1 - z_m^2); the last one the product alone
                const double z = std::tanh(*x++), c2 = 1 - z * z;
                double sum = g[i * k + l] * sd[i] * remaining_[i * k + l] * c2;
                for (int j = l + 1; j <= i; ++j) sum -= g[i * k + j] * sd[i] * root[i * k + j] * z;
                *grad++ += sum;
            }
    }

  private:
    vec remaining_, root_slope_;

    static double read_sd(const Parameter& p, const double*& x, double*& grad, double& out) {
        if (p.fixed) return p.value;
        const auto at = p.bounds.at(*x++);
        double slope;
        out += p.prior.log(at.value, slope) + at.log_jacobian;
        *grad++ += slope * at.slope + at.jacobian_slope;
        return at.value;
    }
    void identity() {
        root.assign(k * k, 0.0);
        for (int i = 0; i < k; ++i) root[i * k + i] = 1;
    }
    // density of the factor's coordinates: LKJ(eta) of R = LL' is prod_{i>0} L_ii^{k-i-1+2(eta-1)} (rows from zero) by L
    double read_free(const double* x, double* grad) {
        identity();
        remaining_.assign(k * k, 0.0);
        double out = 0;
        for (int i = 1; i < k; ++i) {
            double left = 1;  // prod of sqrt(1 - z^2)
            const double power = k - i - 1 + 2 * (eta - 1);
            for (int l = 0; l < i; ++l) {
                const double z = std::tanh(*x++), c2 = 1 - z * z;
                remaining_[i * k + l] = left;
                root[i * k + l] = z * left;
                left *= std::sqrt(c2);
                // L_ii^power, dL_il/dz = prod of the earlier ones: each z_l counts (i - 1 - l)/2 times, and dz/dx = 1 - z^2
                const double times = 0.5 * power + 0.5 * (i - 1 - l) + 1;
                const double log_c2 = std::log1p(-z * z);
                out += times * (std::isfinite(log_c2) ? log_c2 : -1e300);
                *grad++ += -2 * times * z;
            }
            root[i * k + i] = left;
        }
        return out;
    }
    double lowest() const { return kind == CorrelationKind::equal ? -1.0 / (k - 1) : -1.0; }
    double read_single(const double* x, double* grad) {
        const Unbounded range{lowest(), 1.0};
        const auto at = range.at(*x);
        const double p = (at.value - lowest()) / (1 - lowest());
        vec r(k * k), slope(k * k, 0.0);
        for (int i = 0; i < k; ++i)
            for (int j = 0; j < k; ++j) {
                const int lag = i > j ? i - j : j - i;
                const bool equal = kind == CorrelationKind::equal;
                r[i * k + j] = lag == 0 ? 1.0 : equal ? at.value : std::pow(at.value, lag);
                if (lag) slope[i * k + j] = at.slope * (equal ? 1.0 : lag * std::pow(at.value, lag - 1));
            }
        cholesky_with_slope(r, slope);
        *grad += (eta - 1) * (1 - 2 * p) + at.jacobian_slope;
        return (eta - 1) * (std::log(p) + std::log1p(-p)) + at.log_jacobian;
    }
    // root of r and, in root_slope_, the derivative of the root in direction `d`
    void cholesky_with_slope(const vec& r, const vec& d) {
        root.assign(k * k, 0.0);
        root_slope_.assign(k * k, 0.0);
        for (int i = 0; i < k; ++i)
            for (int j = 0; j <= i; ++j) {
                double v = r[i * k + j], dv = d[i * k + j];
                for (int c = 0; c < j; ++c) {
                    v -= root[i * k + c] * root[j * k + c];
                    dv -= root_slope_[i * k + c] * root[j * k + c] + root[i * k + c] * root_slope_[j * k + c];
                }
                if (i == j) {
                    root[i * k + i] = std::sqrt(v > 1e-300 ? v : 1e-300);
                    root_slope_[i * k + i] = dv / (2 * root[i * k + i]);
                } else {
                    root[i * k + j] = v / root[j * k + j];
                    root_slope_[i * k + j] = (dv - root[i * k + j] * root_slope_[j * k + j]) / root[j * k + j];
                }
            }
    }
};

}  // namespace multilevel
