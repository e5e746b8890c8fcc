// Log posterior of a Gaussian mixed model with random effects and normal-prior coefficients integrated out.
//
// Coordinates: per term sds and correlations, sigma, then coefficients whose prior is not normal, all unconstrained. The
// factor gives T, the Cholesky triangle's last block: the quadratic form in (beta, -1) that is left when the random effects
// are integrated out. The rest is (p+1) x (p+1) algebra: the priors add to T / sigma^2, and the derivative by T is seeded
// into the reverse sweep of gradient.hpp in place of REML's weights.
#pragma once
#include "problem.hpp"
#include "random.hpp"
#include "scales.hpp"

namespace multilevel {

// The model beyond its cross-products, in the engine's coordinates. beta = maps delta + moved s - shift, delta the
// coefficients integrated out, s the sampled ones; precision and linear: delta's prior is
// exp(-delta'P delta / 2 + linear'delta - constant).
struct MarginalModel {
    std::vector<TermScale> terms;
    Parameter sigma;
    double unit = 1;             // sigma of the engine = sigma / unit
    std::vector<vec> to_engine;  // per factor k x k row-major: the engine's factor = to_engine * absolute factor / sigma
    std::vector<Parameter> sampled;
    int integrated = 0;
    vec maps, moved, shift;      // p x g, p x s (row-major), p
    vec precision, linear;       // g x g, g
    double constant = 0;
};

class MarginalDensity {
  public:
    MarginalDensity(const Blocks& blocks, const Plan& plan, const MarginalModel& model_, int threads_)
        : fac(blocks, plan), inv(fac), model(model_), plan(plan), threads(threads_), p(plan.p), g(model_.integrated) {
        for (const TermScale& t : model.terms) size += t.coordinates();
        if (!model.sigma.fixed) sigma_at = size++;
        sampled_at = size;
        size += static_cast<int>(model.sampled.size());
    }

    Factor fac;
    Inverse inv;
    MarginalModel model;
    const Plan& plan;
    int threads, p, g, size = 0;

    // log posterior; with `grad` its gradient too. Minus infinity where it cannot be computed.
    double log_posterior(const vec& x, vec* grad) {
        constexpr double none = -std::numeric_limits<double>::infinity();
        drawn_ = false;
        vec slopes(size, 0.0);
        double out = read(x, slopes);
        if (!std::isfinite(out) || !(sigma > 0) || !std::isfinite(sigma)) return none;
        for (const vec& l : lambda)
            for (double v : l)
                if (!std::isfinite(v)) return none;
        const Status status = fac.evaluate(lambda, fac.b.y, threads);
        if (status == Status::not_positive) return none;
        const double form = collapse();
        out -= static_cast<double>(fac.b.n) * std::log(sigma / model.unit) + 0.5 * fac.log_det_u + form;
        if (!std::isfinite(out)) return none;
        if (grad) {
            differentiate(x, slopes);
            *grad = std::move(slopes);
        } else {
            last_ = x;
            drawn_ = true;
        }
        return out;
    }

    // beta (p) and Lambda u (q), engine's coordinates, drawn given the parameters at x
    bool draw(const vec& x, Random& random, double* out) {
        if (!drawn_ || x != last_) {  // repeated points share the factor
            if (!std::isfinite(log_posterior(x, nullptr))) return false;
        }
        const double s = sigma / model.unit;
        vec delta(g);
        for (int i = 0; i < g; ++i) delta[i] = root_[g + i * (g + 1)] + random.normal();
        for (int i = g; i-- > 0;) {
            for (int j = i + 1; j < g; ++j) delta[i] -= root_[j + i * (g + 1)] * delta[j];
            delta[i] /= root_[i + i * (g + 1)];
        }
        vec full(plan.q + p);
        for (int i = 0; i < p; ++i) {
            out[i] = moved_[i];
            for (int j = 0; j < g; ++j) out[i] += model.maps[i * g + j] * delta[j];
        }
        load_response_row(full);
        for (i64 i = 0; i < plan.q; ++i) full[i] += s * random.normal();
        const i64 first = plan.q - plan.tail;
        for (int i = 0; i < p; ++i) {  // so that solving backwards gives this beta
            double v = 0;
            for (int j = i; j < p; ++j) v += fac.tail[(first + j) + (first + i) * plan.m] * out[j];
            full[plan.q + i] = v;
        }
        backward_solve(fac, full.data(), 1);
        apply_lambda(fac, full.data(), 1, false);
        std::copy(full.begin(), full.begin() + plan.q, out + p);
        return true;
    }

    // parameters on their own scale, in the order of the coordinates, fixed ones included: per term sds then the
    // correlations (lower triangle by rows, or the single one), sigma, sampled coefficients
    vec constrained(const vec& x) {
        vec slopes(size, 0.0), out;
        read(x, slopes);
        for (const TermScale& t : model.terms) t.append(out);
        out.push_back(sigma);
        for (double v : sampled) out.push_back(v);
        return out;
    }

  private:
    int sigma_at = -1, sampled_at = 0;
    double sigma = 1, sigma_slope = 0;
    bool drawn_ = false;  // whether the factor is that of last_
    vec last_, sampled, sampled_slope, moved_, v_, root_, center_;
    std::vector<vec> lambda;

    double read(const vec& x, vec& slopes) {
        double out = 0;
        int at = 0;
        for (TermScale& t : model.terms) {
            out += t.read(x.data() + at, slopes.data() + at);
            at += t.coordinates();
        }
        sigma = model.sigma.value;
        if (sigma_at >= 0) sigma = read_one(model.sigma, x[sigma_at], slopes[sigma_at], sigma_slope, out);
        sampled.resize(model.sampled.size());
        sampled_slope.resize(sampled.size());
        for (std::size_t i = 0; i < sampled.size(); ++i)
            sampled[i] = read_one(model.sampled[i], x[sampled_at + i], slopes[sampled_at + i], sampled_slope[i], out);
        set_lambda();
        return out;
    }
    static double read_one(const Parameter& q, double x, double& slope, double& by_x, double& out) {
        const auto at = q.bounds.at(x);
        double s;
        out += q.prior.log(at.value, s) + at.log_jacobian;
        slope += s * at.slope + at.jacobian_slope;
        by_x = at.slope;
        return at.value;
    }
    void set_lambda() {
        lambda.resize(plan.factors);
        for (int f = 0; f < plan.factors; ++f) lambda[f].assign(plan.k[f] * plan.k[f], 0.0);
        for (const TermScale& t : model.terms) {
            const int k = plan.k[t.factor];
            const vec& turn = model.to_engine[t.factor];
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < t.k; ++c) {
                    double v = 0;
                    for (int j = c; j < t.k; ++j) v += turn[i * k + t.first + j] * t.lambda(j, c);
                    lambda[t.factor][i * k + t.first + c] = v / sigma;
                }
        }
    }

    // V = L_t'W and the Cholesky factor of A = V'V / sigma^2 + prior (lower, column-major); log|A_dd| / 2 + remainder / 2
    double collapse() {
        const int b = p + 1, w = g + 1;
        const i64 first = plan.q - plan.tail;
        const double s2 = (sigma / model.unit) * (sigma / model.unit);
        moved_.assign(p, 0.0);
        for (int i = 0; i < p; ++i) {
            moved_[i] = -model.shift[i];
            for (std::size_t j = 0; j < sampled.size(); ++j) moved_[i] += model.moved[i * sampled.size() + j] * sampled[j];
        }
        auto lt = [&](int r, int c) { return fac.tail[(first + r) + (first + c) * plan.m]; };
        v_.assign(b * w, 0.0);  // column-major b x w
        for (int c = 0; c < w; ++c)
            for (int i = 0; i < b; ++i) {
                double v = c == g ? lt(p, i) : 0;
                for (int r = i; r < p; ++r) v += lt(r, i) * (c == g ? -moved_[r] : model.maps[r * g + c]);
                v_[i + c * b] = v;
            }
        root_.assign(w * w, 0.0);
        for (int c = 0; c < w; ++c)
            for (int r = c; r < w; ++r) {
                double v = 0;
                for (int i = 0; i < b; ++i) v += v_[i + r * b] * v_[i + c * b];
                v /= s2;
                if (r < g) v += model.precision[r * g + c];
                else v += c < g ? model.linear[c] : 2 * model.constant;
                root_[r + c * w] = v;
            }
        double half_log = 0;
        for (int j = 0; j < g; ++j) {
            for (int c = 0; c < j; ++c)
                for (int i = j; i < w; ++i) root_[i + j * w] -= root_[i + c * w] * root_[j + c * w];
            if (!(root_[j + j * w] > 0)) return std::numeric_limits<double>::infinity();
            const double d = std::sqrt(root_[j + j * w]);
            for (int i = j; i < w; ++i) root_[i + j * w] /= d;
            half_log += std::log(d);
        }
        double rest = root_[g + g * w];
        for (int c = 0; c < g; ++c) rest -= root_[g + c * w] * root_[g + c * w];
        return half_log + 0.5 * rest;
    }

    // the derivative of the form, as vectors: F_A = B B' / 2 with B's columns A_dd^{-1/2} and (mode, -1)
    vec half_derivative() {
        const int w = g + 1;
        vec out(w * w, 0.0);
        for (int c = 0; c < g; ++c) {  // columns of L_dd^{-T}
            out[c + c * w] = 1 / root_[c + c * w];
            for (int r = c; r-- > 0;) {
                double v = 0;
                for (int j = r + 1; j <= c; ++j) v -= root_[j + r * w] * out[j + c * w];
                out[r + c * w] = v / root_[r + r * w];
            }
        }
        out[g + g * w] = -1;
        for (int r = g; r-- > 0;) {
            double v = root_[g + r * w];
            for (int j = r + 1; j < g; ++j) v -= root_[j + r * w] * out[j + g * w];
            out[r + g * w] = v / root_[r + r * w];
        }
        return out;
    }

    void differentiate(const vec& x, vec& slopes) {
        const int b = p + 1, w = g + 1;
        const double s = sigma / model.unit;
        const vec half = half_derivative();
        vec u(b * w, 0.0);  // V B / (sigma sqrt 2): the seed is K = U U'
        for (int c = 0; c < w; ++c)
            for (int j = 0; j < w; ++j)
                for (int i = 0; i < b; ++i) u[i + c * b] += v_[i + j * b] * half[j + c * w];
        sampled_slopes(u, s, slopes);
        for (double& value : u) value /= s * std::sqrt(2.0);
        double trace = 0;
        for (double value : u) trace += value * value;
        const vec border = reverse_root(u);
        inv.compute({0.5, 0, 0, &border}, true, threads);
        double radial = 0;
        for (int f = 0; f < plan.factors; ++f)
            for (std::size_t e = 0; e < lambda[f].size(); ++e) radial += inv.gradient[f][e] * lambda[f][e];
        if (sigma_at >= 0) {
            const double by_log = -static_cast<double>(fac.b.n) + 2 * trace + radial;
            slopes[sigma_at] += by_log * sigma_slope / sigma;
        }
        int at = 0;
        for (const TermScale& t : model.terms) {
            t.chain(by_absolute(t), x.data() + at, slopes.data() + at);
            at += t.coordinates();
        }
    }
    // last column of V B is V (mode, -1): the residual, from the left by L_t
    void sampled_slopes(const vec& u, double s, vec& slopes) const {
        const i64 first = plan.q - plan.tail;
        for (std::size_t j = 0; j < sampled.size(); ++j) {
            double sum = 0;
            for (int r = 0; r < p; ++r) {
                double left = 0;
                for (int i = 0; i <= r; ++i) left += fac.tail[(first + r) + (first + i) * plan.m] * u[i + g * (p + 1)];
                sum += left * model.moved[r * sampled.size() + j];
            }
            slopes[sampled_at + j] -= sum / (s * s) * sampled_slope[j];
        }
    }
    // C, lower, with C'C = U U' (semidefinite where coefficients are sampled)
    vec reverse_root(const vec& u) const {
        const int b = p + 1, w = g + 1;
        vec k(b * b, 0.0);
        for (int c = 0; c < b; ++c)
            for (int r = c; r < b; ++r) {
                double v = 0;
                for (int j = 0; j < w; ++j) v += u[r + j * b] * u[c + j * b];
                k[r + c * b] = v;
            }
        vec out(b * b, 0.0);
        for (int i = b; i-- > 0;) {
            double d = k[i + i * b];
            for (int r = i + 1; r < b; ++r) d -= out[r + i * b] * out[r + i * b];
            if (!(d > 1e-14 * k[i + i * b])) continue;  // nothing is left of this row
            out[i + i * b] = std::sqrt(d);
            for (int c = 0; c < i; ++c) {
                double v = k[i + c * b];
                for (int r = i + 1; r < b; ++r) v -= out[r + i * b] * out[r + c * b];
                out[i + c * b] = v / out[i + i * b];
            }
        }
        return out;
    }
    // derivative of the log posterior by the absolute factor of one term, k x k
    vec by_absolute(const TermScale& t) const {
        const int kf = plan.k[t.factor];
        const vec &turn = model.to_engine[t.factor], &grad = inv.gradient[t.factor];
        vec out(t.k * t.k, 0.0);
        for (int j = 0; j < t.k; ++j)
            for (int c = 0; c < t.k; ++c)
                for (int i = 0; i < kf; ++i)
                    out[j * t.k + c] -= turn[i * kf + t.first + j] * grad[i * kf + t.first + c] / sigma;
        return out;
    }
    // the y row of L on the random effects
    void load_response_row(vec& full) {
        for (int f = 0; f < plan.sparse_factors; ++f)
            for (i64 node = plan.node_offset[f]; node < plan.node_offset[f + 1]; ++node) {
                const double* last = fac.values(node) + (fac.row_count(node) - 1) * plan.k[f];
                for (int c = 0; c < plan.k[f]; ++c) full[plan.first_scalar(f, node) + c] = last[c];
            }
        for (i64 c = 0; c < plan.q - plan.tail; ++c) full[plan.tail + c] = fac.tail[plan.m - 1 + c * plan.m];
    }
};

}  // namespace multilevel
