// One linear mixed model's numbers at any Lambda: profiled deviance, gradient, average information.
#pragma once
#include "gradient.hpp"
#include "dense.hpp"
#include "solve.hpp"

namespace multilevel {

constexpr double two_pi = 6.283185307179586476925286766559;

// A direction in which one factor's Lambda may move: the rank-one matrix left * right'.
struct Direction {
    int factor;
    vec left, right;  // (k) each
    double size = 1;  // of what it moves, for steps of differences
};

// per factor K Z'r, with K the prior covariance of its levels. As u = K Lambda'Z'r, it is Lambda'^{-1}u: the search
// keeps Lambda regular. For independent levels it is Z'r itself.
inline std::vector<vec> prior_residuals(const Factor& fac, const vec& u, const vec& zr) {
    const Plan& plan = fac.plan;
    std::vector<vec> out(plan.factors);
    for (int f = 0; f < plan.factors; ++f) {
        const int k = plan.k[f];
        const i64 size = plan.levels[f] * static_cast<i64>(k);
        const double* from = zr.data() + plan.offset[f];
        out[f].assign(from, from + size);
        if (fac.b.self[f].prior_diag.empty()) continue;
        const Svd d = svd(k, fac.lambda[f]);  // of the transpose, for LAPACK reads by columns: Lambda' = U S V'
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            const double* uj = u.data() + plan.offset[f] + j * k;
            double* x = out[f].data() + j * k;
            std::fill(x, x + k, 0.0);
            for (int a = 0; a < k; ++a) {
                double v = 0;
                for (int c = 0; c < k; ++c) v += d.u[c + a * k] * uj[c];
                for (int c = 0; c < k; ++c) x[c] += d.v[c + a * k] * v / std::max(d.s[a], 1e-300);
            }
        }
    }
    return out;
}

class Evaluator {
  public:
    Evaluator(const Blocks& b, const Plan& plan, bool reml, int threads)
        : fac(b, plan), inv(fac), reml(reml), threads(threads), df(static_cast<double>(b.n - (reml ? b.p : 0))) {}

    Factor fac;
    Inverse inv;
    bool reml;
    int threads;
    double df;
    double value = 0;
    int evaluations = 0;

    // profiled deviance (REML criterion or ML deviance of the whitened problem); infinite if it cannot be computed
    double deviance(const std::vector<vec>& lambda, const Response& y, bool want_gradient) {
        ++evaluations;
        if (fac.evaluate(lambda, y, threads) != Status::ok) return value = std::numeric_limits<double>::infinity();
        value = fac.log_det_u + (reml ? fac.log_det_x : 0.0) + df * (1 + std::log(two_pi * fac.r2 / df));
        if (!std::isfinite(value)) return value = std::numeric_limits<double>::infinity();
        if (want_gradient) inv.compute({1.0, reml ? 1.0 : 0.0, df}, true, threads);
        return value;
    }
    const std::vector<vec>& gradient() const { return inv.gradient; }
    // what rounding leaves of two deviances' difference; the residual sum of squares is what is left of y'Wy
    double noise(const Response& y) const {
        return 4e-15 * (std::fabs(value) + df) + 2e-16 * df * y.yy / fac.r2;
    }

    // Average-information Hessian of the profiled deviance along `dirs`, without the curvature of Sigma = Lambda
    // Lambda' (the caller adds it). Gilmour, Thompson & Cullis (1995), Biometrics 51(4), in this parametrisation.
    vec average_information(const std::vector<Direction>& dirs) {
        const Plan& plan = fac.plan;
        const int r = static_cast<int>(dirs.size());
        const i64 total = plan.q + plan.p;
        const vec u = solution(fac);
        const vec zr = residual_products(u);
        vec a(total * r, 0.0), t(total * r), s(r, 0.0);
        const std::vector<vec> spread = prior_residuals(fac, u, zr);
        for (int i = 0; i < r; ++i) s[i] = fill_direction(dirs[i], u, zr, spread[dirs[i].factor], a, i, r);
        cross_multiply(fac, a.data(), t.data(), r);
        vec quad(r * r, 0.0);
        add_products(r, total, 1.0, a, t, quad);
        apply_lambda(fac, t.data(), r, true);
        forward_solve(fac, t.data(), r);
        add_products(r, total, -1.0, t, t, quad);
        const double s2 = fac.r2 / df;
        for (int i = 0; i < r; ++i)
            for (int j = 0; j < r; ++j) quad[i + j * r] = quad[i + j * r] / s2 - s[i] * s[j] / (s2 * s2 * df);
        return quad;
    }

    // Z'W(y - X beta - Z Lambda u)
    vec residual_products(const vec& u) {
        const Plan& plan = fac.plan;
        vec x = u, out(u.size());
        apply_lambda(fac, x.data(), 1, false);
        cross_multiply(fac, x.data(), out.data(), 1);
        for (int f = 0; f < plan.factors; ++f)
            for (std::size_t i = 0; i < fac.y->zy[f].size(); ++i)
                out[plan.offset[f] + i] = fac.y->zy[f][i] - out[plan.offset[f] + i];
        for (int c = 0; c < plan.p; ++c) out[plan.q + c] = fac.y->xy[c] - out[plan.q + c];
        return out;
    }

  private:
    // out += sign * sum over rows of a_i b_i'
    static void add_products(int r, i64 rows, double sign, vec& a, vec& b, vec& out) {
        if (r > 8) return gemm('N', 'T', r, r, static_cast<int>(rows), sign, a.data(), r, b.data(), r, 1.0, out.data(), r);
        for (i64 k = 0; k < rows; ++k)
            for (int j = 0; j < r; ++j)
                for (int i = 0; i < r; ++i) out[i + j * r] += sign * a[k * r + i] * b[k * r + j];
    }
    // column i of a: D u_j + lambda D'(K Z'r)_j per level j; returns y'P V_i P y = 2 sum_j (Z'r)_j' D u_j
    double fill_direction(const Direction& d, const vec& u, const vec& zr, const vec& spread, vec& a, int i, int r) const {
        const Plan& plan = fac.plan;
        const int k = plan.k[d.factor];
        const double* lam = fac.lambda[d.factor].data();
        vec lr(k, 0.0);
        for (int c = 0; c < k; ++c)
            for (int e = 0; e < k; ++e) lr[c] += lam[c * k + e] * d.right[e];
        double s = 0;
        for (i64 j = 0; j < plan.levels[d.factor]; ++j) {
            const i64 first = plan.offset[d.factor] + j * k;
            double vu = 0, uz = 0, ux = 0;
            for (int c = 0; c < k; ++c) {
                vu += d.right[c] * u[first + c];
                uz += d.left[c] * zr[first + c];
                ux += d.left[c] * spread[j * k + c];
            }
            for (int c = 0; c < k; ++c) a[(first + c) * r + i] = d.left[c] * vu + lr[c] * ux;
            s += 2 * vu * uz;
        }
        return s;
    }
};

}  // namespace multilevel
