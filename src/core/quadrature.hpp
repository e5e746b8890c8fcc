// Adaptive Gauss-Hermite quadrature of a generalised model's likelihood with one grouping factor, with its exact gradient.
//
// The likelihood of a level is the integral of exp(g(u)) over u with respect to du / (2 pi)^(k/2), where
// g(u) = sum_i l_i(f_i + a_i'u) - u'u/2, a_i = Lambda'z_i and f_i = offset + x_i'beta. With the mode u^, H = LL' minus the
// Hessian of g there, and nodes s_q and weights w_q of the standard normal product rule, u_q = u^ + L^{-T}s_q gives
//   F_j = log|L| - log sum_q w_q exp(g(u_q) + s_q's_q/2),
// which with one node is Laplace's approximation (Pinheiro & Bates 1995, J. Comput. Graph. Stat. 4(1)).
//
// A product rule has axes, so that the sum would change a little with rotations Lambda V, which leave the model as it is.
// Lambda is turned to its principal axes Lambda V = U S first: the sum then depends on Lambda Lambda' only, and on the
// square of a standard deviation that vanishes, as the search expects.
//
// The gradient is that of F_j as computed: the nodes move with u^ and L. With p_q the nodes' shares of the sum and
// v_q = g'(u_q), the differential is sum_q -p_q (dg at fixed u)(u_q) + tr(B dH) - (sum_q p_q v_q)'du^, where
// B = sym(L^{-T} P L^{-1}), P = low(I + sum_q p_q s_q (L^{-1}v_q)') with its diagonal halved (the reverse of a Cholesky
// factorisation); dH and du^ follow from the densities' third derivatives as for Laplace's approximation.
#pragma once
#include "laplace.hpp"

namespace multilevel {

// l, l' and the derivatives of l by the rows' further parameters
struct CanonicalKernel {
    const Laplace& s;
    static constexpr int parameters = 0;
    double operator()(i64 i, double eta, double& slope, double*) const {
        const CanonicalRow r = canonical_row(s.family, s.rows, i, eta);
        slope = r.l1;
        return r.l;
    }
};
template <int A>
struct JetKernel {
    const Laplace& s;
    static constexpr int parameters = A;
    double operator()(i64 i, double eta, double& slope, double* by_parameters) const {
        const Jet<A> r = row_jet<A>(s.family, s.rows, i, eta, s.row_parameters());
        slope = r.d[1];
        for (int k = 0; k < A; ++k) by_parameters[k] = r.a[k][0];
        return r.d[0];
    }
};

// Principal axes of one block of Lambda: its rows and columns `index`, U S V'.
struct Axes {
    std::vector<int> index;
    Svd svd;
};

class Quadrature {
  public:
    // `nodes` and `log_weights` of the one-dimensional rule for the standard normal distribution
    Quadrature(Laplace& laplace, const vec& nodes, const vec& log_weights) : laplace(laplace) {
        if (laplace.plan.factors != 1) throw std::invalid_argument("quadrature is for one grouping factor");
        if (laplace.known()) throw std::invalid_argument("quadrature is for independent levels");
        k_ = laplace.plan.k[0];
        order_ = order_rows(laplace.refill.rows()[0], laplace.rows.n);
        product_rule(nodes, log_weights);
    }

    Laplace& laplace;

    // F, infinite if it cannot be computed; with its derivatives where wanted
    double value(const vec& beta, const std::vector<vec>& lambda, const std::vector<vec>& params, bool want) {
        const double first = laplace.value(beta, lambda, params);
        if (!std::isfinite(first)) return first;
        const i64 levels = laplace.plan.levels[0];
        turn(lambda[0]);
        values_.assign(levels, 0.0);
        if (want) {
            by_level_.assign(levels * k_ * k_, 0.0);
            by_eta_.assign(laplace.rows.n, 0.0);
            by_params_.assign(laplace.family.parameters(), vec(laplace.rows.n));
        }
        if (want) laplace.by_parameters();
        if (canonical(laplace.family)) all_levels(CanonicalKernel{laplace}, want);
        else switch (want ? laplace.family.parameters() : 0) {
            case 0: all_levels(JetKernel<0>{laplace}, want); break;
            case 1: all_levels(JetKernel<1>{laplace}, want); break;
            default: all_levels(JetKernel<2>{laplace}, want);
        }
        double f = -laplace.constant();
        for (double v : values_) f += v;
        return std::isfinite(f) ? f : std::numeric_limits<double>::infinity();
    }

    // derivatives at the last value that wanted them: by beta (p), by Lambda, by each row's further parameters (n)
    void gradient(vec& by_beta, std::vector<vec>& by_lambda, std::vector<vec>& by_params) const {
        const ResponseRows& rows = laplace.rows;
        by_beta.assign(rows.p, 0.0);
        for (i64 i = 0; i < rows.n; ++i)
            for (int j = 0; j < rows.p; ++j) by_beta[j] += rows.x[i * rows.p + j] * by_eta_[i];
        vec by_turned(k_ * k_, 0.0);
        for (std::size_t e = 0; e < by_level_.size(); ++e) by_turned[e % (k_ * k_)] += by_level_[e];
        by_lambda.assign(1, turn_back(by_turned));
        by_params = by_params_;
    }

  private:
    int k_ = 1;
    RowOrder order_;
    vec lambda_, modes_;       // Lambda V and the modes V'u^
    std::vector<Axes> axes_;
    vec nodes_, log_weights_;  // of the product rule: (Q, k) and, with s's/2 added, (Q)
    vec values_, by_level_, by_eta_;
    std::vector<vec> by_params_;

    // What one level needs; sums over nodes are relative to exp(top).
    struct Work {
        std::vector<i64> row;
        vec a, fixed, slope, extra;            // per row: a, eta without u, l', derivatives by parameters
        vec hessian, u, s, v, turned;          // H, then its factor L; a node, g' there, L^{-1}g'
        double top = 0, total = 0;
        vec sum_slope, sum_extra, sum_v, sum_sv, sum_zu;
    };

    void product_rule(const vec& nodes, const vec& log_weights) {
        std::size_t count = 1;
        for (int c = 0; c < k_; ++c) count *= nodes.size();
        for (std::size_t q = 0; q < count; ++q) {
            double weight = 0;
            std::size_t rest = q;
            for (int c = 0; c < k_; ++c, rest /= nodes.size()) {
                const std::size_t at = rest % nodes.size();
                nodes_.push_back(nodes[at]);
                weight += log_weights[at] + 0.5 * nodes[at] * nodes[at];
            }
            log_weights_.push_back(weight);
        }
    }

    // blocks of Lambda between which every element is zero
    std::vector<std::vector<int>> blocks(const vec& lambda) const {
        std::vector<int> owner(k_);
        for (int c = 0; c < k_; ++c) owner[c] = c;
        for (int c = 0; c < k_; ++c)
            for (int x = 0; x < k_; ++x)
                if (lambda[c * k_ + x] != 0 && owner[c] != owner[x]) {
                    const int from = std::max(owner[c], owner[x]), to = std::min(owner[c], owner[x]);
                    std::replace(owner.begin(), owner.end(), from, to);
                }
        std::vector<std::vector<int>> out(k_);
        for (int c = 0; c < k_; ++c) out[owner[c]].push_back(c);
        out.erase(std::remove_if(out.begin(), out.end(), [](const auto& b) { return b.empty(); }), out.end());
        return out;
    }
    // Among equal singular values any axes would do; the choice must not depend on rounding, so it is the coordinate axes'
    // images in their subspace, made orthogonal one after the other.
    static void settle_axes(Svd& d) {
        const int k = d.k;
        for (int first = 0, end; first < k; first = end) {
            end = first + 1;
            while (end < k && d.s[first] - d.s[end] <= 4e-13 * d.s[0]) ++end;
            const int size = end - first;
            if (size == 1 || !(d.s[first] > 0)) continue;
            vec turn;  // size x size; a new axis in terms of the old ones after the other
            for (int e = 0; e < k && static_cast<int>(turn.size()) < size * size; ++e) {
                vec c(size);
                for (int a = 0; a < size; ++a) c[a] = d.u[e + (first + a) * k];
                for (std::size_t b = 0; b < turn.size(); b += size) {
                    const double along = dot<0>(turn.data() + b, c.data(), size);
                    for (int a = 0; a < size; ++a) c[a] -= along * turn[b + a];
                }
                const double length = std::sqrt(dot<0>(c.data(), c.data(), size));
                if (length < 1e-6) continue;
                for (double v : c) turn.push_back(v / length);
            }
            if (static_cast<int>(turn.size()) < size * size) continue;
            turn_columns(d.u, k, first, size, turn);
            turn_columns(d.v, k, first, size, turn);
        }
    }
    static void turn_columns(vec& m, int k, int first, int size, const vec& turn) {
        for (int r = 0; r < k; ++r) {
            vec row(size, 0.0);
            for (int b = 0; b < size; ++b)
                for (int a = 0; a < size; ++a) row[b] += m[r + (first + a) * k] * turn[b * size + a];
            for (int b = 0; b < size; ++b) m[r + (first + b) * k] = row[b];
        }
    }
    void turn(const vec& lambda) {
        const int k = k_;
        axes_.clear();
        vec v(k * k, 0.0);
        for (const std::vector<int>& index : blocks(lambda)) {
            const int size = static_cast<int>(index.size());
            vec block(size * size);
            for (int c = 0; c < size; ++c)
                for (int x = 0; x < size; ++x) block[c + x * size] = lambda[index[c] * k + index[x]];
            axes_.push_back({index, svd(size, block)});
            settle_axes(axes_.back().svd);
            for (int c = 0; c < size; ++c)
                for (int x = 0; x < size; ++x) v[index[c] * k + index[x]] = axes_.back().svd.v[c + x * size];
        }
        lambda_.assign(k * k, 0.0);
        product<0>(lambda.data(), v.data(), lambda_.data(), k);
        modes_.assign(laplace.plan.q, 0.0);
        for (i64 at = 0; at < laplace.plan.q; at += k) row_product<0>(laplace.u.data() + at, v.data(), modes_.data() + at, k);
    }
    // G, the derivative by Lambda V, becomes that by Lambda: dLambda V + Lambda dV with V'dV from S^2's differential
    vec turn_back(const vec& g) const {
        const int k = k_;
        vec out(k * k, 0.0), turns(k * k, 0.0);
        for (int c = 0; c < k; ++c)
            for (int x = 0; x < k; ++x)
                for (int e = 0; e < k; ++e) turns[c * k + x] += lambda_[e * k + c] * g[e * k + x];
        vec v(k * k, 0.0), inner(k * k, 0.0), u(k * k, 0.0);
        for (const Axes& a : axes_) {
            const int size = a.svd.k;
            for (int c = 0; c < size; ++c)
                for (int x = 0; x < size; ++x) {
                    const int at = a.index[c] * k + a.index[x];
                    v[at] = a.svd.v[c + x * size];
                    u[at] = a.svd.u[c + x * size];
                    const double sc = a.svd.s[c], sx = a.svd.s[x], gap = sx * sx - sc * sc;
                    if (std::fabs(gap) <= 1e-12 * a.svd.s[0] * a.svd.s[0]) continue;  // equal axes: any turn will do
                    inner[at] = (turns[at] - turns[a.index[x] * k + a.index[c]]) * sc / gap;
                }
        }
        for (int c = 0; c < k; ++c)
            for (int x = 0; x < k; ++x) {
                double mine = g[c * k + x];
                for (int e = 0; e < k; ++e) mine += u[c * k + e] * inner[e * k + x];
                for (int e = 0; e < k; ++e) out[c * k + e] += mine * v[e * k + x];
            }
        return out;
    }

    template <class Kernel>
    void all_levels(const Kernel& kernel, bool want) {
        const auto parts = level_ranges(order_.start, 64);
        parallel_for(parts.size(), laplace.all_threads, [&](std::size_t t) {
            Work w;
            for (std::size_t j = parts[t].begin; j < parts[t].end; ++j) {
                gather(static_cast<i64>(j), w);
                values_[j] = integrate(kernel, want, static_cast<i64>(j), w);
                if (want && std::isfinite(values_[j])) differentiate(Kernel::parameters, static_cast<i64>(j), w);
            }
        });
    }

    const double* mode(i64 j) const { return modes_.data() + j * k_; }
    double z(i64 i, int c) const {
        const double* all = laplace.refill.rows()[0].z;
        return all ? all[i * k_ + c] : 1.0;
    }

    // rows of level j, and L
    void gather(i64 j, Work& w) const {
        const int k = k_;
        const double* lambda = lambda_.data();
        w.row.assign(order_.perm.begin() + order_.start[j], order_.perm.begin() + order_.start[j + 1]);
        const std::size_t m = w.row.size();
        w.a.assign(m * k, 0.0);
        w.fixed.resize(m);
        w.hessian.assign(k * k, 0.0);
        for (int c = 0; c < k; ++c) w.hessian[c * k + c] = 1;
        for (std::size_t e = 0; e < m; ++e) {
            const i64 i = w.row[e];
            double* a = w.a.data() + e * k;
            w.fixed[e] = laplace.fixed()[i];
            for (int c = 0; c < k; ++c)
                for (int x = 0; x < k; ++x) a[c] += z(i, x) * lambda[x * k + c];
            for (int c = 0; c < k; ++c)
                for (int x = 0; x < k; ++x) w.hessian[c * k + x] += laplace.w[i] * a[c] * a[x];
        }
    }

    // F_j, and what its derivatives need of the nodes
    template <class Kernel>
    double integrate(const Kernel& kernel, bool want, i64 j, Work& w) const {
        constexpr int A = Kernel::parameters;
        const int k = k_;
        const std::size_t m = w.row.size();
        if (!cholesky<0>(w.hessian.data(), k)) return std::numeric_limits<double>::infinity();
        for (vec* v : {&w.u, &w.s, &w.v, &w.turned}) v->resize(k);
        w.slope.resize(m);
        w.extra.resize(m * A);
        w.sum_slope.assign(m, 0.0);
        w.sum_extra.assign(m * A, 0.0);
        w.sum_v.assign(k, 0.0);
        w.sum_sv.assign(k * k, 0.0);
        w.sum_zu.assign(k * k, 0.0);
        w.top = -std::numeric_limits<double>::infinity();
        w.total = 0;
        for (std::size_t q = 0; q < log_weights_.size(); ++q) {
            w.s.assign(nodes_.begin() + q * k, nodes_.begin() + (q + 1) * k);
            w.u = w.s;
            solve_lower_transposed<0>(w.hessian.data(), w.u.data(), k);
            double g = log_weights_[q];
            for (int c = 0; c < k; ++c) {
                w.u[c] += mode(j)[c];
                g -= 0.5 * w.u[c] * w.u[c];
            }
            for (std::size_t e = 0; e < m; ++e)
                g += kernel(w.row[e], w.fixed[e] + dot<0>(w.a.data() + e * k, w.u.data(), k), w.slope[e], w.extra.data() + e * A);
            if (!std::isfinite(g)) continue;  // no density there: the link leaves the response's range
            if (g > w.top) rescale(w, g);
            const double share = std::exp(g - w.top);
            w.total += share;
            if (want && share > 0) add_node(share, A, w);
        }
        double f = -(w.top + std::log(w.total));
        for (int c = 0; c < k; ++c) f += std::log(w.hessian[c * k + c]);
        return f;
    }
    static void rescale(Work& w, double top) {
        const double factor = std::exp(w.top - top);
        w.top = top;
        w.total *= factor;
        for (vec* sum : {&w.sum_slope, &w.sum_extra, &w.sum_v, &w.sum_sv, &w.sum_zu})
            for (double& v : *sum) v *= factor;
    }
    void add_node(double share, int parameters, Work& w) const {
        const int k = k_;
        const double* lambda = lambda_.data();
        Scratch zs(k);  // Z'l'
        for (int c = 0; c < k; ++c) zs[c] = 0;
        for (std::size_t e = 0; e < w.row.size(); ++e) {
            w.sum_slope[e] += share * w.slope[e];
            for (int c = 0; c < k; ++c) zs[c] += w.slope[e] * z(w.row[e], c);
        }
        for (int c = 0; c < k; ++c) {
            w.v[c] = -w.u[c];
            for (int x = 0; x < k; ++x) {
                w.v[c] += lambda[x * k + c] * zs[x];
                w.sum_zu[c * k + x] += share * zs[c] * w.u[x];
            }
        }
        for (std::size_t e = 0; e < w.row.size() * parameters; ++e) w.sum_extra[e] += share * w.extra[e];
        w.turned = w.v;
        solve_lower<0>(w.hessian.data(), w.turned.data(), k);
        for (int c = 0; c < k; ++c) {
            w.sum_v[c] += share * w.v[c];
            for (int x = 0; x < k; ++x) w.sum_sv[c * k + x] += share * w.s[c] * w.turned[x];
        }
    }

    // B: what F_j changes by with H (see above)
    vec by_hessian(const Work& w) const {
        const int k = k_;
        const double* l = w.hessian.data();
        vec p(k * k, 0.0), out(k * k);
        for (int c = 0; c < k; ++c)
            for (int x = 0; x <= c; ++x)
                p[c * k + x] = c == x ? 0.5 * (1 + w.sum_sv[c * k + c] / w.total) : w.sum_sv[c * k + x] / w.total;
        for (int c = 0; c < k; ++c) solve_lower_transposed<0>(l, p.data() + c * k, k);  // P L^{-1}
        vec column(k);
        for (int x = 0; x < k; ++x) {
            for (int c = 0; c < k; ++c) column[c] = p[c * k + x];
            solve_lower_transposed<0>(l, column.data(), k);
            for (int c = 0; c < k; ++c) p[c * k + x] = column[c];
        }
        for (int c = 0; c < k; ++c)
            for (int x = 0; x < k; ++x) out[c * k + x] = 0.5 * (p[c * k + x] + p[x * k + c]);
        return out;
    }

    void differentiate(int parameters, i64 j, Work& w) {
        const int k = k_;
        const std::size_t m = w.row.size();
        const RowDerivatives& d = laplace.d;  // at the modes
        const vec b = by_hessian(w);
        vec alpha(k), ba(m * k, 0.0), h(m, 0.0);  // H^{-1} dF/du^; B a_i; a_i'B a_i
        for (int c = 0; c < k; ++c) alpha[c] = -w.sum_v[c] / w.total;
        for (std::size_t e = 0; e < m; ++e) {
            const double* a = w.a.data() + e * k;
            for (int c = 0; c < k; ++c) {
                for (int x = 0; x < k; ++x) ba[e * k + c] += b[c * k + x] * a[x];
                h[e] += a[c] * ba[e * k + c];
            }
            for (int c = 0; c < k; ++c) alpha[c] -= h[e] * d.l3[w.row[e]] * a[c];
        }
        solve_lower<0>(w.hessian.data(), alpha.data(), k);
        solve_lower_transposed<0>(w.hessian.data(), alpha.data(), k);
        double* by_lambda = by_level_.data() + j * k * k;
        for (int e = 0; e < k * k; ++e) by_lambda[e] = -w.sum_zu[e] / w.total;
        for (std::size_t e = 0; e < m; ++e) {
            const i64 i = w.row[e];
            const double moved = dot<0>(w.a.data() + e * k, alpha.data(), k);
            const double at_mode = -h[e] * d.l3[i] - laplace.w[i] * moved;
            by_eta_[i] = -w.sum_slope[e] / w.total + at_mode;
            for (int c = 0; c < k; ++c)
                for (int x = 0; x < k; ++x)
                    by_lambda[c * k + x] += z(i, c) * (at_mode * mode(j)[x] + d.l1[i] * alpha[x] + 2 * laplace.w[i] * ba[e * k + x]);
            for (int n = 0; n < parameters; ++n)
                by_params_[n][i] = -w.sum_extra[e * parameters + n] / w.total - h[e] * d.a2[n][i] + moved * d.a1[n][i];
        }
    }
};

}  // namespace multilevel
