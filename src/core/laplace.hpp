// Laplace approximation of a generalised model's likelihood, with its exact gradient.
//
// With u spherical, eta = offset + X beta + Z Lambda u and H = Lambda'Z'WZ Lambda + I at the mode of the penalised
// log density, F = -sum log p(y|eta) + u'u/2 + log|H|/2 approximates -log-likelihood. W holds minus the second
// derivatives of log p (observed, not expected), so that H is the Hessian whose determinant Laplace's method asks for.
//
// Levels of a factor may covary in a known way: u ~ N(0, Q^{-1} x I). Then u'Qu takes the place of u'u, Q x I that of I in H,
// and -log|Q|/2 per effect is added; Q depends on no parameter, so that the gradient keeps its form.
#pragma once
#include <functional>

#include "gradient.hpp"
#include "row_density.hpp"
#include "solve.hpp"

namespace multilevel {

// Z'WZ again and again on one pattern, for weights that change.
class Refill {
  public:
    Refill(Blocks& b, Plan& plan, std::vector<FactorRows> rows) : b_(b), plan_(plan), rows_(std::move(rows)) {
        for (const FactorRows& f : rows_) order_.push_back(order_rows(f, b.n));
        for (int f = 0; f < b.factors(); ++f) {
            position_.emplace_back();
            for (std::size_t h = 0; h < b.pairs[f].size(); ++h) {
                const PairBlocks& pb = b.pairs[f][h];
                std::vector<i32> at(b.n);
                for (i64 i = 0; i < b.n; ++i) {
                    const i32 level = rows_[f].codes[i];
                    const auto first = pb.idx.begin() + pb.ptr[level], last = pb.idx.begin() + pb.ptr[level + 1];
                    at[i] = static_cast<i32>(std::lower_bound(first, last, rows_[f + 1 + h].codes[i]) - pb.idx.begin());
                }
                position_.back().push_back(std::move(at));
            }
        }
    }
    // blocks of Z'WZ for weights w (n)
    void weights(const vec& w, int threads) {
        for (int f = 0; f < b_.factors(); ++f) {
            const auto parts = level_ranges(order_[f].start, b_.n > 20000 ? 16 : 1);
            parallel_for(parts.size(), threads, [&](std::size_t t) { fill_levels(f, parts[t], w); });
        }
        for (int f = 0; f < plan_.sparse_factors; ++f)
            for (i64 v = plan_.node_offset[f]; v < plan_.node_offset[f + 1]; ++v) fill_node(plan_, b_, f, v);
    }
    // out (q): Z'r, factor by factor
    void products(const vec& r, vec& out, int threads) const {
        out.assign(plan_.q, 0.0);
        for (int f = 0; f < b_.factors(); ++f) {
            const int k = rows_[f].k;
            const double *z = rows_[f].z, *from = r.data();
            const i32* perm = order_[f].perm.data();
            const auto parts = level_ranges(order_[f].start, b_.n > 20000 ? 16 : 1);
            parallel_for(parts.size(), threads, [&](std::size_t t) {
                for (std::size_t j = parts[t].begin; j < parts[t].end; ++j) {
                    double* target = out.data() + plan_.offset[f] + static_cast<i64>(j) * k;
                    const i64 begin = order_[f].start[j], end = order_[f].start[j + 1];
                    if (!z) {
                        double sum = 0;
                        for (i64 e = begin; e < end; ++e) sum += from[perm[e]];
                        *target = sum;
                    } else {
                        for (i64 e = begin; e < end; ++e)
                            for (int c = 0; c < k; ++c) target[c] += z[static_cast<i64>(perm[e]) * k + c] * from[perm[e]];
                    }
                }
            });
        }
    }
    // out (q, r): Z'diag(w) of columns (n, r), row-major, in one pass over the rows
    void products(const vec& w, const vec& columns, int r, vec& out, int threads) const {
        out.assign(plan_.q * r, 0.0);
        for (int f = 0; f < b_.factors(); ++f) {
            const int k = rows_[f].k;
            const double one = 1.0, *z = rows_[f].z;
            const auto parts = level_ranges(order_[f].start, b_.n > 20000 ? 16 : 1);
            parallel_for(parts.size(), threads, [&](std::size_t t) {
                for (std::size_t j = parts[t].begin; j < parts[t].end; ++j) {
                    double* target = out.data() + (plan_.offset[f] + static_cast<i64>(j) * k) * r;
                    for (i64 e = order_[f].start[j]; e < order_[f].start[j + 1]; ++e) {
                        const i64 i = order_[f].perm[e];
                        const double *own = columns.data() + i * r, *effects = z ? z + i * k : &one;
                        for (int c = 0; c < k; ++c) {
                            const double weight = w[i] * effects[c];
                            for (int x = 0; x < r; ++x) target[c * r + x] += weight * own[x];
                        }
                    }
                }
            });
        }
    }
    // out (n) += Z b
    void spread(const vec& b, vec& out, Range range) const {
        for (int f = 0; f < b_.factors(); ++f) {
            const int k = rows_[f].k;
            const double* effects = b.data() + plan_.offset[f];
            for (std::size_t i = range.begin; i < range.end; ++i) {
                const double* mine = effects + static_cast<i64>(rows_[f].codes[i]) * k;
                if (!rows_[f].z) out[i] += mine[0];
                else
                    for (int c = 0; c < k; ++c) out[i] += rows_[f].z[i * k + c] * mine[c];
            }
        }
    }
    const std::vector<FactorRows>& rows() const { return rows_; }

  private:
    // the blocks of factor f with one that comes after it
    struct Partner {
        double* blocks;
        const i32* position;  // of each row's block
        const double* z;
        int k;
    };
    void fill_levels(int f, Range levels, const vec& w) {
        const int k = rows_[f].k;
        const double one = 1.0;
        std::vector<Partner> partners;
        for (std::size_t h = 0; h < b_.pairs[f].size(); ++h) {
            const FactorRows& g = rows_[f + 1 + h];
            partners.push_back({b_.pairs[f][h].val.data(), position_[f][h].data(), g.z, g.k});
        }
        for (std::size_t j = levels.begin; j < levels.end; ++j) {
            double* d = b_.diag[f].data() + j * k * k;
            std::fill(d, d + k * k, 0.0);
            for (std::size_t h = 0; h < b_.pairs[f].size(); ++h) {
                PairBlocks& pb = b_.pairs[f][h];
                const i64 size = static_cast<i64>(k) * rows_[f + 1 + h].k;
                std::fill(pb.val.begin() + pb.ptr[j] * size, pb.val.begin() + pb.ptr[j + 1] * size, 0.0);
            }
            for (i64 e = order_[f].start[j]; e < order_[f].start[j + 1]; ++e) {
                const i64 i = order_[f].perm[e];
                const double weight = w[i], *z = rows_[f].z ? rows_[f].z + i * k : &one;
                if (k == 1) d[0] += weight * z[0] * z[0];
                else
                    for (int a = 0; a < k; ++a)
                        for (int c = 0; c < k; ++c) d[a * k + c] += weight * z[a] * z[c];
                for (const Partner& g : partners) {
                    double* block = g.blocks + static_cast<i64>(g.position[i]) * g.k * k;
                    for (int a = 0; a < g.k; ++a) {
                        const double wz = weight * (g.z ? g.z[i * g.k + a] : 1.0);
                        for (int c = 0; c < k; ++c) block[a * k + c] += wz * z[c];
                    }
                }
            }
        }
    }
    Blocks& b_;
    Plan& plan_;
    std::vector<FactorRows> rows_;
    std::vector<RowOrder> order_;
    std::vector<std::vector<std::vector<i32>>> position_;
};

constexpr i64 few_rows = 10000;  // fewer are done before a second thread has started

class Laplace {
  public:
    // `priors` gives levels their prior precisions; `prior_log_det` is the log-determinant of all effects' prior covariance
    Laplace(const std::vector<FactorRows>& factors, ResponseRows rows, Family family, int threads,
            const std::function<void(Blocks&)>& priors = {}, double prior_log_det = 0)
        : rows(rows), family(family), threads(rows.n < few_rows ? 1 : threads), all_threads(threads), blocks(pattern(factors, rows.n, priors)), plan(make_plan(blocks)),
          refill(blocks, plan, factors), fac(blocks, plan), inv(fac), constant_(-0.5 * prior_log_det) {
        for (const SelfPairs& self : blocks.self) known_ = known_ || !self.prior_diag.empty();
        d.resize(rows.n, family.parameters());
        u.assign(plan.q, 0.0);
        eta.resize(rows.n);
        w.resize(rows.n);
        for (i64 i = 0; i < rows.n; ++i)
            constant_ += (rows.weights ? rows.weights[i] : 1.0) * row_constant(family, rows.y[i], rows.trials ? rows.trials[i] : 1.0);
    }
    Laplace(const Laplace&) = delete;

    ResponseRows rows;
    Family family;
    int threads, all_threads;  // of passes over the rows; of work that is worth it for fewer rows, too
    Blocks blocks;
    Plan plan;
    Refill refill;
    Factor fac;
    Inverse inv;
    RowDerivatives d;
    vec u, eta, w;
    Response response;
    int steps = 0;         // Newton steps of the last mode search
    double settled = 1e-9; // decrement of a step that ends it: the step leaves about its square
    bool clipped = false;  // whether weights that are not positive may be clipped at the end, too
    double penalised = 0;  // -2 sum log p + u'Qu at u

    // F at beta, Lambda and the rows' further parameters; infinite if there is no mode to be found. `u` is the start.
    double value(const vec& beta, const std::vector<vec>& lambda, const std::vector<vec>& params) {
        set(beta, lambda, params);
        if (!find_mode()) return std::numeric_limits<double>::infinity();
        return 0.5 * (penalised + fac.log_det_u);
    }

    // derivatives of F at the last value: by beta (p), by each Lambda (k x k), by each row's further parameters (n)
    void gradient(vec& by_beta, std::vector<vec>& by_lambda, std::vector<vec>& by_params) {
        const i64 n = rows.n;
        by_parameters();
        inv.compute({1.0, 0.0, 0.0}, true, threads);
        vec c(n), e(n), a(plan.q), za(n, 0.0), h(n);
        leverages(h);
        for (i64 i = 0; i < n; ++i) c[i] = -0.5 * h[i] * d.l3[i];
        refill.products(c, a, threads);
        apply_lambda(fac, a.data(), 1, true);
        solve_mode(a);
        vec la = a;
        apply_lambda(fac, la.data(), 1, false);
        refill.spread(la, za, {0, static_cast<std::size_t>(n)});
        for (i64 i = 0; i < n; ++i) e[i] = -d.l1[i] + c[i] - w[i] * za[i];
        by_beta.assign(rows.p, 0.0);
        for (i64 i = 0; i < n; ++i)
            for (int j = 0; j < rows.p; ++j) by_beta[j] += rows.x[i * rows.p + j] * e[i];
        vec ze, zs;
        refill.products(e, ze, threads);
        refill.products(d.l1, zs, threads);
        by_lambda.clear();
        for (int f = 0; f < plan.factors; ++f) {
            const int k = plan.k[f];
            vec g(k * k);
            for (int x = 0; x < k * k; ++x) g[x] = 0.5 * inv.gradient[f][x];
            for (i64 j = 0; j < plan.levels[f]; ++j) {
                const i64 at = plan.offset[f] + j * k;
                for (int x = 0; x < k; ++x)
                    for (int y = 0; y < k; ++y) g[x * k + y] += ze[at + x] * u[at + y] + zs[at + x] * a[at + y];
            }
            by_lambda.push_back(std::move(g));
        }
        by_params.assign(family.parameters(), vec(n));
        for (int k = 0; k < family.parameters(); ++k)
            for (i64 i = 0; i < n; ++i)
                by_params[k][i] = -d.a0[k][i] - 0.5 * h[i] * d.a2[k][i] + za[i] * d.a1[k][i];
    }

    // derivatives of the log densities by the rows' further parameters, at the last value
    void by_parameters() {
        if (!family.parameters()) return;
        const auto parts = ranges(rows.n, rows.n > 5000 ? 64 : 1);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            if (family.parameters() == 1) row_derivatives<1>(family, rows, eta, params_, d, parts[t]);
            else row_derivatives<2>(family, rows, eta, params_, d, parts[t]);
        });
    }

    // of the last value: linear predictors without random effects (n), the rows' further parameters, the densities' constant
    const vec& fixed() const { return fixed_; }
    const RowParameters& row_parameters() const { return params_; }
    double constant() const { return constant_; }
    // whether levels of some factor covary a priori
    bool known() const { return known_; }
    // to = Q from, with Q the prior precision of factor f's levels and k numbers of each
    void prior_product(int f, int k, const double* from, double* to) const {
        const SelfPairs& self = blocks.self[f];
        for (i64 j = 0; j < plan.levels[f]; ++j)
            for (int c = 0; c < k; ++c) to[j * k + c] = self.diagonal(j) * from[j * k + c];
        if (self.prior_diag.empty()) return;
        for (i64 j = 0; j < plan.levels[f]; ++j)
            for (i64 i = self.a.ptr[j]; i < self.a.ptr[j + 1]; ++i)
                for (int c = 0; c < k; ++c) {
                    const i64 other = static_cast<i64>(self.a.idx[i]) * k + c;
                    to[j * k + c] += self.prior[i] * from[other];
                    to[other] += self.prior[i] * from[j * k + c];
                }
    }

  private:
    double constant_ = 0;  // of all densities, the effects' included
    bool known_ = false;
    vec fixed_, zu_, step_, qu_;
    std::vector<vec> lambda_;
    RowParameters params_;

    static Blocks pattern(const std::vector<FactorRows>& factors, i64 n, const std::function<void(Blocks&)>& priors) {
        const vec none(1, 0.0), zero(n, 0.0);
        Blocks b = build_blocks(n, 0, factors, none.data(), zero.data(), nullptr, 1);
        if (priors) priors(b);
        return b;
    }
    // out = Qx
    void prior_product(const vec& x, vec& out) const {
        out.resize(x.size());
        for (int f = 0; f < plan.factors; ++f)
            prior_product(f, plan.k[f], x.data() + plan.offset[f], out.data() + plan.offset[f]);
    }
    void set(const vec& beta, const std::vector<vec>& lambda, const std::vector<vec>& params) {
        lambda_ = lambda;
        params_.set(family, rows, params, threads);
        fac.lambda = lambda;
        fixed_.assign(rows.n, 0.0);
        for (i64 i = 0; i < rows.n; ++i) {
            double s = rows.offset ? rows.offset[i] : 0.0;
            for (int j = 0; j < rows.p; ++j) s += rows.x[i * rows.p + j] * beta[j];
            fixed_[i] = s;
        }
    }
    // eta, derivatives by it and the penalised deviance at u
    double at(const vec& u_now) {
        vec b = u_now;
        apply_lambda(fac, b.data(), 1, false);
        zu_.assign(rows.n, 0.0);
        const auto parts = ranges(rows.n, rows.n > 5000 ? 64 : 1);
        vec sums(parts.size(), 0.0);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            refill.spread(b, zu_, parts[t]);
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) eta[i] = fixed_[i] + zu_[i];
            sums[t] = eta_derivatives(family, rows, eta, params_, d, parts[t]);
        });
        double total = constant_, square = 0;
        for (double s : sums) total += s;
        prior_product(u_now, qu_);
        for (std::size_t i = 0; i < u_now.size(); ++i) square += u_now[i] * qu_[i];
        return -2 * total + square;
    }
    bool factorise(bool curved) {
        for (i64 i = 0; i < rows.n; ++i) {
            w[i] = -d.l2[i];
            if (!curved && !(w[i] > 1e-10)) w[i] = 1e-10;  // away from the mode the Hessian need not be positive definite
            if (!std::isfinite(w[i])) return false;
        }
        refill.weights(w, threads);
        response.zy.resize(plan.factors);
        for (int f = 0; f < plan.factors; ++f) response.zy[f].assign(static_cast<std::size_t>(plan.levels[f]) * plan.k[f], 0.0);
        response.yy = 1;
        return fac.evaluate(lambda_, response, threads) == Status::ok;
    }
    // x <- H^{-1} x
    void solve_mode(vec& x) {
        forward_solve(fac, x.data(), 1);
        backward_solve(fac, x.data(), 1);
    }
    // from u, and where that leads nowhere from zero
    bool find_mode() {
        if (search_mode()) return true;
        std::fill(u.begin(), u.end(), 0.0);
        return search_mode();
    }
    bool search_mode() {
        penalised = at(u);
        if (!std::isfinite(penalised)) {
            std::fill(u.begin(), u.end(), 0.0);
            penalised = at(u);
        }
        if (!std::isfinite(penalised)) return false;
        vec trial(u.size());
        for (steps = 1; steps < 200; ++steps) {
            if (!factorise(true) && !factorise(false)) return false;
            vec g;
            refill.products(d.l1, g, threads);
            apply_lambda(fac, g.data(), 1, true);
            prior_product(u, qu_);
            for (std::size_t i = 0; i < u.size(); ++i) g[i] -= qu_[i];
            step_ = g;
            solve_mode(step_);
            double decrement = 0;
            for (std::size_t i = 0; i < u.size(); ++i) decrement += step_[i] * g[i];
            if (!(decrement < 1e300)) return false;
            double t = 1, found = 0;
            bool better = false;
            for (int half = 0; half < 40; ++half, t *= 0.5) {
                for (std::size_t i = 0; i < u.size(); ++i) trial[i] = u[i] + t * step_[i];
                found = at(trial);
                // close to the mode the objective's rounding no longer tells a step's worth, and Newton's method needs no check
                better = std::isfinite(found) && (decrement < 1e-9 || found <= penalised + 1e-14 * std::fabs(penalised) -
                                                                                   (decrement > 1e-8 ? 1e-4 * t * decrement : 0));
                if (better) break;
            }
            if (!better) {
                found = at(u);
                trial = u;
            }
            u = trial;
            penalised = found;
            if (!better || decrement < settled) break;
        }
        return factorise(true) || (clipped && factorise(false));
    }
    // h_i = z_i'Lambda H^{-1} Lambda'z_i
    void leverages(vec& h) {
        if (plan.factors == 1) return single_leverages(h);
        const auto parts = ranges(rows.n, 64);
        parallel_for(parts.size(), rows.n > 1000 ? threads : 1, [&](std::size_t t) {
            std::vector<i64> index;
            vec value;
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                index.clear();
                value.clear();
                for (int f = 0; f < plan.factors; ++f) {
                    const FactorRows& r = refill.rows()[f];
                    const int k = r.k;
                    const double* lam = fac.lambda[f].data();
                    for (int c = 0; c < k; ++c) {
                        double s = 0;
                        for (int e = 0; e < k; ++e) s += (r.z ? r.z[i * k + e] : 1.0) * lam[e * k + c];
                        index.push_back(plan.offset[f] + static_cast<i64>(r.codes[i]) * k + c);
                        value.push_back(s);
                    }
                }
                h[i] = inv.quadratic(index, value, nullptr);
            }
        });
    }
    // of one factor: per level Lambda S_jj Lambda' once, then a small quadratic form for each row
    void single_leverages(vec& h) {
        const FactorRows& r = refill.rows()[0];
        const int k = r.k;
        const double* lam = fac.lambda[0].data();
        vec spread(static_cast<std::size_t>(plan.levels[0]) * k * k), half(k * k);
        for (i64 j = 0; j < plan.levels[0]; ++j) {
            double* out = spread.data() + j * k * k;
            for (int a = 0; a < k; ++a)
                for (int c = 0; c < k; ++c) {
                    double s = 0;
                    for (int e = 0; e < k; ++e)
                        s += lam[a * k + e] * (plan.sparse_factors ? inv.diag_block(0, j)[e * k + c] : inv.tail_at(j * k + e, j * k + c));
                    half[a * k + c] = s;
                }
            for (int a = 0; a < k; ++a)
                for (int c = 0; c < k; ++c) {
                    double s = 0;
                    for (int e = 0; e < k; ++e) s += half[a * k + e] * lam[c * k + e];
                    out[a * k + c] = s;
                }
        }
        const auto parts = ranges(rows.n, 64);
        parallel_for(parts.size(), rows.n > 1000 ? threads : 1, [&](std::size_t t) {
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                const double* m = spread.data() + static_cast<i64>(r.codes[i]) * k * k;
                if (!r.z) {
                    h[i] = m[0];
                    continue;
                }
                const double* z = r.z + i * k;
                double s = 0;
                for (int a = 0; a < k; ++a)
                    for (int c = 0; c < k; ++c) s += z[a] * m[a * k + c] * z[c];
                h[i] = s;
            }
        });
    }
};

}  // namespace multilevel
