// The deviance of a generalised model as the search sees it: covariance factors, then one column of other coordinates
// (fixed effects; dispersion, zero inflation or thresholds).
#pragma once
#include "problem.hpp"
#include "quadrature.hpp"

namespace multilevel {

class GlmmEvaluator {
  public:
    // designs[k] is (n, m) row-major or null: the rows' k-th further parameter is designs[k] @ coefficients
    // quadrature: null for Laplace's approximation
    GlmmEvaluator(Laplace& laplace, Quadrature* quadrature, std::vector<const double*> designs, int m)
        : laplace(laplace), quadrature(quadrature), fac(laplace.fac), designs(std::move(designs)), m(m) {}

    Laplace& laplace;
    Quadrature* quadrature;
    Factor& fac;
    std::vector<const double*> designs;
    int m;
    double value = 0, df = 0;
    int evaluations = 0;

    double deviance(const std::vector<vec>& lambda, const Response&, bool want_gradient) {
        ++evaluations;
        at_ = lambda;
        const int p = laplace.rows.p;
        const vec& plain = lambda.back();
        const vec beta(plain.begin(), plain.begin() + p);
        const vec keep = laplace.u;
        const std::vector<vec> factors{lambda.begin(), lambda.end() - 1};
        value = 2 * (quadrature ? quadrature->value(beta, factors, row_parameters(plain), want_gradient)
                                : laplace.value(beta, factors, row_parameters(plain)));
        if (!std::isfinite(value)) {
            laplace.u = keep;
            return value = std::numeric_limits<double>::infinity();
        }
        if (want_gradient) compute_gradient();
        return value;
    }
    const std::vector<vec>& gradient() const { return gradient_; }
    double noise(const Response&) const { return 1e-13 * (1 + std::fabs(value)); }

    // Hessian along `dirs` without the curvature of Sigma = Lambda Lambda': the working linear model's average
    // information for covariances, its information for fixed effects, differences of the gradient for the rest
    vec average_information(const std::vector<Direction>& dirs) {
        const int r = static_cast<int>(dirs.size()), p = laplace.rows.p, factors = fac.plan.factors;
        const vec gram = working_gram(dirs);
        vec h(r * r, 0.0);
        std::vector<int> theta, beta, others;
        for (int i = 0; i < r; ++i) {
            if (dirs[i].factor < factors) theta.push_back(i);
            else (coordinate(dirs[i]) < p ? beta : others).push_back(i);
        }
        for (int i : theta)
            for (int j : theta) h[i + j * r] = gram[i + j * r];
        for (int i : beta) {
            for (int j : beta) h[i + j * r] = 2 * gram[i + j * r];
            for (int j : theta) h[i + j * r] = h[j + i * r] = 2 * gram[i + j * r];
        }
        add_projection(theta, beta, gram, r, h);
        if (!others.empty()) difference_columns(dirs, others, h);
        return h;
    }

    // Hessian (size x size) and gradient at a point, along moves of the factors and then each plain coordinate, by central
    // differences of the exact gradient with a step for each; false where it cannot be evaluated. Every search for the modes
    // begins at u or, on the way back, at its mirror image: densities may have several modes.
    struct Move {
        int factor;
        vec matrix;
    };
    bool hessian(const std::vector<vec>& point, const std::vector<Move>& moves, const vec& steps, const vec& u, vec& gradient,
                 vec& out) {
        const Response none;
        const std::size_t size = steps.size();
        out.assign(size * size, 0.0);
        laplace.u = u;
        if (!std::isfinite(deviance(point, none, true))) return false;
        gradient = along(moves, size);
        const vec mode = laplace.u;
        const bool good = columns(point, moves, steps, mode, out);
        laplace.u = mode;
        deviance(point, none, false);
        return good;
    }

  private:
    bool columns(const std::vector<vec>& point, const std::vector<Move>& moves, const vec& steps, const vec& mode, vec& out) {
        const Response none;
        const std::size_t size = steps.size();
        vec up;
        for (std::size_t i = 0; i < size; ++i) {
            laplace.u = mode;
            if (!std::isfinite(deviance(moved(point, moves, i, steps[i]), none, true))) return false;
            up = along(moves, size);
            for (std::size_t e = 0; e < mode.size(); ++e) laplace.u[e] = 2 * mode[e] - laplace.u[e];
            if (!std::isfinite(deviance(moved(point, moves, i, -steps[i]), none, true))) return false;
            const vec down = along(moves, size);
            for (std::size_t j = 0; j < size; ++j) out[i * size + j] = (up[j] - down[j]) / (2 * steps[i]);
        }
        return true;
    }
    std::vector<vec> at_, gradient_, columns_at_;
    std::vector<std::vector<vec>> columns_;

    static std::vector<vec> moved(std::vector<vec> point, const std::vector<Move>& moves, std::size_t i, double step) {
        if (i >= moves.size()) point.back()[i - moves.size()] += step;
        else
            for (std::size_t e = 0; e < moves[i].matrix.size(); ++e) point[moves[i].factor][e] += step * moves[i].matrix[e];
        return point;
    }
    vec along(const std::vector<Move>& moves, std::size_t size) const {
        vec out(size, 0.0);
        for (std::size_t i = 0; i < moves.size(); ++i)
            for (std::size_t e = 0; e < moves[i].matrix.size(); ++e)
                out[i] += gradient_[moves[i].factor][e] * moves[i].matrix[e];
        for (std::size_t i = moves.size(); i < size; ++i) out[i] = gradient_.back()[i - moves.size()];
        return out;
    }

    static int coordinate(const Direction& d) {
        return static_cast<int>(std::find_if(d.left.begin(), d.left.end(), [](double v) { return v != 0; }) - d.left.begin());
    }
    std::vector<vec> row_parameters(const vec& plain) const {
        std::vector<vec> out;
        for (const double* design : designs) {
            out.emplace_back(laplace.rows.n, 0.0);
            for (i64 i = 0; design && i < laplace.rows.n; ++i)
                for (int j = 0; j < m; ++j) out.back()[i] += design[i * m + j] * plain[laplace.rows.p + j];
        }
        return out;
    }
    void compute_gradient() {
        vec by_beta;
        std::vector<vec> by_rows;
        if (quadrature) quadrature->gradient(by_beta, gradient_, by_rows);
        else laplace.gradient(by_beta, gradient_, by_rows);
        for (vec& g : gradient_)
            for (double& v : g) v *= 2;
        for (double& v : by_beta) v *= 2;
        by_beta.resize(laplace.rows.p + m, 0.0);
        for (std::size_t k = 0; k < designs.size(); ++k)
            for (i64 i = 0; designs[k] && i < laplace.rows.n; ++i)
                for (int j = 0; j < m; ++j) by_beta[laplace.rows.p + j] += 2 * designs[k][i * m + j] * by_rows[k][i];
        gradient_.push_back(std::move(by_beta));
    }
    // [t x]'V^{-1}[t x] with t = V_i V^{-1}r for covariance directions and x for fixed effects, at the working weights
    vec working_gram(const std::vector<Direction>& dirs) {
        const Plan& plan = fac.plan;
        const int r = static_cast<int>(dirs.size()), p = laplace.rows.p;
        const i64 n = laplace.rows.n;
        vec zs, columns(n * r, 0.0), one(n);
        laplace.refill.products(laplace.d.l1, zs, laplace.threads);
        const std::vector<vec> spread = prior_residuals(fac, laplace.u, zs);
        for (int i = 0; i < r; ++i) {
            std::fill(one.begin(), one.end(), 0.0);
            if (dirs[i].factor < plan.factors) {
                laplace.refill.spread(moved_modes(dirs[i], spread[dirs[i].factor]), one, {0, static_cast<std::size_t>(n)});
            } else if (coordinate(dirs[i]) < p) {
                const int j = coordinate(dirs[i]);
                for (i64 row = 0; row < n; ++row) one[row] = laplace.rows.x[row * p + j];
            }
            for (i64 row = 0; row < n; ++row) columns[row * r + i] = one[row];
        }
        vec gram(r * r, 0.0), half;
        for (i64 row = 0; row < n; ++row) {
            const double* own = columns.data() + row * r;
            for (int i = 0; i < r; ++i) {
                const double weighted = laplace.w[row] * own[i];
                double* target = gram.data() + i * r;
                for (int j = 0; j <= i; ++j) target[j] += weighted * own[j];
            }
        }
        laplace.refill.products(laplace.w, columns, r, half, laplace.threads);
        apply_lambda(fac, half.data(), r, true);
        forward_solve(fac, half.data(), r);
        for (i64 e = 0; e < plan.q; ++e)
            for (int i = 0; i < r; ++i)
                for (int j = 0; j <= i; ++j) gram[i * r + j] -= half[e * r + i] * half[e * r + j];
        for (int i = 0; i < r; ++i)
            for (int j = 0; j < i; ++j) gram[j * r + i] = gram[i * r + j];
        return gram;
    }
    // D u_j + Lambda D'(K Z's)_j per level, with K the prior covariance of levels
    vec moved_modes(const Direction& d, const vec& spread) const {
        const Plan& plan = fac.plan;
        const int k = plan.k[d.factor];
        const double* lam = fac.lambda[d.factor].data();
        vec out(plan.q, 0.0), lr(k, 0.0);
        for (int c = 0; c < k; ++c)
            for (int e = 0; e < k; ++e) lr[c] += lam[c * k + e] * d.right[e];
        for (i64 j = 0; j < plan.levels[d.factor]; ++j) {
            const i64 at = plan.offset[d.factor] + j * k;
            double vu = 0, uz = 0;
            for (int c = 0; c < k; ++c) {
                vu += d.right[c] * laplace.u[at + c];
                uz += d.left[c] * spread[j * k + c];
            }
            for (int c = 0; c < k; ++c) out[at + c] = d.left[c] * vu + lr[c] * uz;
        }
        return out;
    }
    // with fixed effects as coordinates of their own, the covariances' block is that of average information plus what
    // eliminating them takes away again
    static void add_projection(const std::vector<int>& theta, const std::vector<int>& beta, const vec& gram, int r, vec& h) {
        const int b = static_cast<int>(beta.size());
        if (!b || theta.empty()) return;
        vec xx(b * b);
        for (int i = 0; i < b; ++i)
            for (int j = 0; j < b; ++j) xx[i + j * b] = gram[beta[i] + beta[j] * r];
        const vec values = eigen(b, xx);
        for (int i : theta)
            for (int j : theta)
                for (int a = 0; a < b; ++a) {
                    if (!(values[a] > 1e-12 * values[b - 1])) continue;
                    double left = 0, right = 0;
                    for (int e = 0; e < b; ++e) {
                        left += gram[i + beta[e] * r] * xx[e + a * b];
                        right += gram[j + beta[e] * r] * xx[e + a * b];
                    }
                    h[i + j * r] += left * right / values[a];
                }
    }
    // Columns of the Hessian for coordinates without an information of their own. They are kept while the point has moved
    // little since they were taken: the search needs a shape, not digits.
    void difference_columns(const std::vector<Direction>& dirs, const std::vector<int>& others, vec& h) {
        const int r = static_cast<int>(dirs.size());
        if (columns_.size() != others.size() || far_from(columns_at_)) {
            columns_.clear();
            for (int i : others) columns_.push_back(difference(coordinate(dirs[i])));
            columns_at_ = at_;
        }
        for (std::size_t o = 0; o < others.size(); ++o) {
            if (columns_[o].empty()) continue;
            for (int j = 0; j < r; ++j) {
                double change = 0;
                const Direction& d = dirs[j];
                const std::size_t k = d.right.size();
                for (std::size_t a = 0; a < d.left.size(); ++a)
                    for (std::size_t c = 0; c < k; ++c) change += d.left[a] * d.right[c] * columns_[o][d.factor][a * k + c];
                h[others[o] + j * r] = h[j + others[o] * r] = change;
            }
        }
    }
    // derivative of the gradient by one plain coordinate; empty where it cannot be evaluated
    std::vector<vec> difference(int i) {
        constexpr double step = 1e-5;
        const std::vector<vec> here = at_, base = gradient_;
        const Response none;
        std::vector<vec> moved = here, out;
        moved.back()[i] += step;
        if (std::isfinite(deviance(moved, none, true))) {
            out = gradient_;
            for (std::size_t f = 0; f < out.size(); ++f)
                for (std::size_t e = 0; e < out[f].size(); ++e) out[f][e] = (out[f][e] - base[f][e]) / step;
        }
        deviance(here, none, true);
        return out;
    }
    bool far_from(const std::vector<vec>& there) const {
        for (std::size_t f = 0; f < at_.size(); ++f)
            for (std::size_t e = 0; e < at_[f].size(); ++e)
                if (std::fabs(at_[f][e] - there[f][e]) > 0.05 * (1 + std::fabs(there[f][e]))) return true;
        return false;
    }
};

}  // namespace multilevel
