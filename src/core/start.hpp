// A first guess of the covariance factors from the cross-products alone, by matching second moments.
//
// In whitened coordinates A_jj is about n_j I and y'Wy about n, so that E[zy_j zy_j'] is about n_j^2 Sigma + n_j sigma^2
// I for a level with n_j rows. Other factors leak in; this is a start, not an estimate.
#pragma once
#include "dense.hpp"

namespace multilevel {

constexpr double smallest_start = 0.1;  // relative sd: a start too close to zero would have to climb back
constexpr double largest_start = 20.0;

inline vec start_root(const vec& moment, int k, double s2) {
    vec q = moment, out(k * k, 0.0);
    const vec values = eigen(k, q);
    for (int c = 0; c < k; ++c) {
        const double sd = std::sqrt(std::max(values[c] / s2, 0.0));
        const double kept = std::min(std::max(sd, smallest_start), largest_start);
        for (int i = 0; i < k; ++i)
            for (int j = 0; j < k; ++j) out[i * k + j] += kept * q[i + c * k] * q[j + c * k];
    }
    return out;
}

// per factor k x k, row-major; effects in different components do not mix
inline std::vector<vec> moment_start(const Blocks& b, const Response& y,
                                     const std::vector<std::pair<int, std::vector<int>>>& components) {
    const int factors = b.factors();
    std::vector<vec> sums(factors);
    vec squares(factors, 0.0);  // sum of n_j^2
    double left = y.yy / static_cast<double>(b.n), share = 1;
    for (int f = 0; f < factors; ++f) {
        const int k = b.k[f];
        sums[f].assign(k * k, 0.0);
        double rows = 0;
        for (int j = 0; j < b.levels[f]; ++j) {
            const double *d = b.diag[f].data() + static_cast<i64>(j) * k * k, *zy = y.zy[f].data() + static_cast<i64>(j) * k;
            double size = 0;
            for (int c = 0; c < k; ++c) size += d[c * k + c] / k;
            squares[f] += size * size;
            rows += size;
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) sums[f][i * k + c] += zy[i] * zy[c];
        }
        squares[f] = std::max(squares[f], 1e-300);
        double trace = 0;
        for (int c = 0; c < k; ++c) trace += sums[f][c * k + c];
        left -= trace / squares[f];
        share -= k * rows / squares[f];
    }
    double s2 = share > 0.05 ? left / share : left;
    s2 = std::min(std::max(s2, 0.1), 1.0);
    std::vector<vec> out(factors);
    for (int f = 0; f < factors; ++f) out[f].assign(b.k[f] * b.k[f], 0.0);
    for (const auto& [f, index] : components) {
        const int k = static_cast<int>(index.size()), kf = b.k[f];
        double rows = 0;
        for (int j = 0; j < b.levels[f]; ++j) rows += b.diag[f][static_cast<i64>(j) * kf * kf];
        vec moment(k * k);
        for (int i = 0; i < k; ++i)
            for (int c = 0; c < k; ++c)
                moment[i + c * k] = (sums[f][index[i] * kf + index[c]] - (i == c ? s2 * rows : 0.0)) / squares[f];
        const vec root = start_root(moment, k, s2);
        for (int i = 0; i < k; ++i)
            for (int c = 0; c < k; ++c) out[f][index[i] * kf + index[c]] = root[i * k + c];
    }
    return out;
}

}  // namespace multilevel
