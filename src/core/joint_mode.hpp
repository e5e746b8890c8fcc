// lme4's quick start (nAGQ = 0): fixed effects at the joint mode with the random effects, covariances and the rows' further
// coefficients by Laplace's approximation there.
//
// With P(beta) = min over u of -sum l + u'u/2, beta^ minimises P and the criterion is F(beta^). By P'' dbeta^ = -dP' its
// differential is dF at fixed beta less, with r = X P''^{-1} dF/dbeta, a = H^{-1}Lambda'Z'W r and t = r - Z Lambda a,
//   sum_i w_i t_i z_i'dLambda u^ + sum_i l'_i z_i'dLambda a - sum_i t_i (dl'_i by the rows' further parameters).
#pragma once
#include "laplace.hpp"

namespace multilevel {

class JointMode {
  public:
    explicit JointMode(Laplace& laplace) : laplace(laplace) {}

    Laplace& laplace;
    vec beta;  // start, then the mode

    double value(const std::vector<vec>& lambda, const std::vector<vec>& params) {
        const int p = laplace.rows.p;
        double f = laplace.value(beta, lambda, params);
        for (int step = 0; step < 100 && p > 0 && std::isfinite(f); ++step) {
            const vec slope = fixed_products(laplace.d.l1), move = solve(information(), slope);
            double decrement = 0;
            for (int j = 0; j < p; ++j) decrement += move[j] * slope[j];
            const double last = laplace.penalised;
            const vec keep_u = laplace.u, keep = beta;
            double t = 1;
            for (int half = 0; half < 40; ++half, t *= 0.5) {
                for (int j = 0; j < p; ++j) beta[j] = keep[j] + t * move[j];
                f = laplace.value(beta, lambda, params);
                if (std::isfinite(f) && laplace.penalised <= last + 1e-13 * std::fabs(last)) break;
                laplace.u = keep_u;
            }
            if (decrement < 1e-13) break;
        }
        return f;
    }

    void gradient(std::vector<vec>& by_lambda, std::vector<vec>& by_params) {
        const i64 n = laplace.rows.n;
        const Plan& plan = laplace.plan;
        vec by_beta;
        laplace.gradient(by_beta, by_lambda, by_params);
        const vec g = solve(information(), by_beta);
        vec r(n, 0.0), weighted(n), a, effects, moved(n, 0.0), zt, zs;
        for (i64 i = 0; i < n; ++i) {
            for (int j = 0; j < laplace.rows.p; ++j) r[i] += laplace.rows.x[i * laplace.rows.p + j] * g[j];
            weighted[i] = laplace.w[i] * r[i];
        }
        laplace.refill.products(weighted, a, laplace.threads);
        apply_lambda(laplace.fac, a.data(), 1, true);
        forward_solve(laplace.fac, a.data(), 1);
        backward_solve(laplace.fac, a.data(), 1);
        effects = a;
        apply_lambda(laplace.fac, effects.data(), 1, false);
        laplace.refill.spread(effects, moved, {0, static_cast<std::size_t>(n)});
        for (i64 i = 0; i < n; ++i) {
            r[i] -= moved[i];
            weighted[i] = laplace.w[i] * r[i];
        }
        laplace.refill.products(weighted, zt, laplace.threads);
        laplace.refill.products(laplace.d.l1, zs, laplace.threads);
        for (int f = 0; f < plan.factors; ++f) {
            const int k = plan.k[f];
            for (i64 j = 0; j < plan.levels[f]; ++j) {
                const i64 at = plan.offset[f] + j * k;
                for (int x = 0; x < k; ++x)
                    for (int y = 0; y < k; ++y)
                        by_lambda[f][x * k + y] -= zt[at + x] * laplace.u[at + y] + zs[at + x] * a[at + y];
            }
        }
        for (std::size_t k = 0; k < by_params.size(); ++k)
            for (i64 i = 0; i < n; ++i) by_params[k][i] += r[i] * laplace.d.a1[k][i];
    }

    // P'' = X'WX - X'WZ Lambda H^{-1} Lambda'Z'WX, column-major
    vec information() const {
        const int p = laplace.rows.p;
        const i64 n = laplace.rows.n, q = laplace.plan.q;
        const double* x = laplace.rows.x;
        vec out(p * p, 0.0), half(q * p), column(n), product;
        for (i64 i = 0; i < n; ++i)
            for (int a = 0; a < p; ++a)
                for (int c = 0; c < p; ++c) out[a + c * p] += laplace.w[i] * x[i * p + a] * x[i * p + c];
        for (int c = 0; c < p; ++c) {
            for (i64 i = 0; i < n; ++i) column[i] = laplace.w[i] * x[i * p + c];
            laplace.refill.products(column, product, laplace.threads);
            for (i64 e = 0; e < q; ++e) half[e * p + c] = product[e];
        }
        apply_lambda(laplace.fac, half.data(), p, true);
        forward_solve(laplace.fac, half.data(), p);
        for (i64 e = 0; e < q; ++e)
            for (int a = 0; a < p; ++a)
                for (int c = 0; c < p; ++c) out[a + c * p] -= half[e * p + a] * half[e * p + c];
        return out;
    }

  private:
    vec fixed_products(const vec& r) const {
        vec out(laplace.rows.p, 0.0);
        for (i64 i = 0; i < laplace.rows.n; ++i)
            for (int j = 0; j < laplace.rows.p; ++j) out[j] += laplace.rows.x[i * laplace.rows.p + j] * r[i];
        return out;
    }
    // symmetric solve; directions without positive curvature are turned round, so that steps go down
    static vec solve(vec a, const vec& b) {
        const int p = static_cast<int>(b.size());
        const vec values = eigen(p, a);
        vec out(p, 0.0);
        for (int c = 0; c < p; ++c) {
            double s = 0;
            for (int j = 0; j < p; ++j) s += a[j + c * p] * b[j];
            s /= std::max(std::fabs(values[c]), 1e-12 * std::fabs(values[p - 1]) + 1e-300);
            for (int j = 0; j < p; ++j) out[j] += a[j + c * p] * s;
        }
        return out;
    }
};

}  // namespace multilevel
