// Small dense decompositions for the optimiser (k x k covariance factors, n_theta x n_theta Hessians), column-major.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "blocks.hpp"

namespace multilevel {

inline bool all_finite(const vec& a) {
    return std::all_of(a.begin(), a.end(), [](double v) { return std::isfinite(v); });
}

// symmetric A = Q diag(values) Q', values ascending; `a` is replaced by Q. Of a matrix with something that is not a number
// the values are none either (NaN): LAPACK fails on it, or does not come back.
inline vec eigen(int n, vec& a) {
    vec values(n);
    if (n == 0) return values;
    char job = 'V', uplo = 'L';
    int lwork = std::max(1, 34 * n), info = 0;
    if (!all_finite(a)) info = -1;
    else {
        vec work(lwork);
        lapack.dsyev(&job, &uplo, &n, a.data(), &n, values.data(), work.data(), &lwork, &info);
    }
    if (info != 0) values.assign(n, std::numeric_limits<double>::quiet_NaN());
    return values;
}

// A = U diag(s) V', s descending; NaN as above
struct Svd {
    int k = 0;
    vec u, s, v;  // k x k column-major; columns are singular vectors
};
inline Svd svd(int k, vec a) {
    Svd out;
    out.k = k;
    out.u.assign(k * k, 0.0);
    out.v.assign(k * k, 0.0);
    out.s.assign(k, 0.0);
    if (k == 1) {
        out.s[0] = std::fabs(a[0]);
        out.u[0] = a[0] < 0 ? -1 : 1;
        out.v[0] = 1;
        return out;
    }
    char job = 'A';
    int lwork = std::max(64, 10 * k), info = 0;
    vec work(lwork), vt(k * k);
    if (!all_finite(a)) info = -1;
    else
        lapack.dgesvd(&job, &job, &k, &k, a.data(), &k, out.s.data(), out.u.data(), &k, vt.data(), &k, work.data(), &lwork,
                      &info);
    if (info != 0) out.s.assign(k, std::numeric_limits<double>::quiet_NaN());
    for (int i = 0; i < k; ++i)
        for (int j = 0; j < k; ++j) out.v[i + j * k] = vt[j + i * k];
    return out;
}

// Minimise g'd + d'Hd/2 over |d| <= radius, exactly, from H = Q diag(e) Q'. Returns the predicted decrease.
struct Step {
    vec d;
    double decrease = 0, length = 0;
    bool interior = false;
};
inline Step trust_step(const vec& q, const vec& e, const vec& g, double radius) {
    const int n = static_cast<int>(g.size());
    Step out;
    out.d.assign(n, 0.0);
    if (n == 0) {
        out.interior = true;
        return out;
    }
    vec gt(n, 0.0);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) gt[i] += q[j + i * n] * g[j];
    auto length = [&](double mu) {
        double s = 0;
        for (int i = 0; i < n; ++i) s += gt[i] * gt[i] / ((e[i] + mu) * (e[i] + mu));
        return std::sqrt(s);
    };
    const double scale = std::max(std::fabs(e[0]), std::fabs(e[n - 1])) + 1e-300;
    double mu = 0;
    out.interior = e[0] > 1e-14 * scale && length(0) <= radius;
    if (!out.interior) {
        // the shifted length falls monotonically in mu above -e_min: bracket and bisect in log scale
        double low = std::max(0.0, -e[0]) + 1e-14 * scale, high = low + scale + 1;
        while (length(high) > radius) high = low + 4 * (high - low);
        for (int it = 0; it < 100; ++it) {
            mu = 0.5 * (low + high);
            (length(mu) > radius ? low : high) = mu;
            if (high - low < 1e-12 * high) break;
        }
        mu = high;
    }
    for (int i = 0; i < n; ++i) {
        const double step = -gt[i] / (e[i] + mu);
        out.decrease -= gt[i] * step + 0.5 * e[i] * step * step;
        for (int j = 0; j < n; ++j) out.d[j] += q[j + i * n] * step;
        out.length += step * step;
    }
    out.length = std::sqrt(out.length);
    return out;
}

}  // namespace multilevel
