// Importance sampling of the group effects given the parameters phi: an unbiased estimate of p(y | phi), and effects chosen in
// proportion to their weights. Parameters weighted by the estimate and effects so chosen have the exact joint posterior,
// however few the points (Tran, Scharth, Pitt & Kohn 2013, arXiv:1309.3339, sections 2 and 3).
//
// Given the others, the levels of the first factor are independent. Outer points: pairs of the other factors' effects,
// u^ + d +- L^{-T}s with normal s, L the factor of the Hessian H at the mode u^ given phi; d is a Newton step from there to the
// mode of their own density, in which the first factor is integrated out by Laplace's approximation: H^{-1}Lambda'Z'(h l3)/2
// with h the rows' leverages in the first factor alone and l3 the densities' third derivatives. Inner points: for each of those, level by
// level as in quadrature, at c + L_j^{-T}s round the normal approximation's conditional mean c; s from a product of
// heavy-tailed densities, on a lattice with a random shift. The outer normal may have lighter tails than the effects' density;
// whether that matters is what Pareto's k of all weights tells. With one factor there is one outer point, u^.
#pragma once
#include "joint.hpp"
#include "quick_exp.hpp"

namespace multilevel {

// Sums of log densities over rows in the order of the first factor's levels, values alone; the commonest families by hand.
class RowSum {
  public:
    RowSum(const Laplace& at, const RowOrder& order) : at_(at), order_(order) {
        const Family& f = at.family;
        const ResponseRows& r = at.rows;
        for (auto [from, to] : {std::pair{r.y, &y_}, {r.weights, &w_}, {r.trials, &m_}}) {
            to->resize(r.n);
            for (i64 e = 0; e < r.n; ++e) (*to)[e] = from ? from[order.perm[e]] : 1.0;
        }
        const bool large = r.n && std::max(*std::max_element(y_.begin(), y_.end()), *std::max_element(m_.begin(), m_.end())) > large_count;
        if (f.zero != ZeroKind::none || large) return;
        if (canonical(f) && f.kind == FamilyKind::poisson) kind_ = 'p';
        else if (canonical(f)) kind_ = r.trials || r.weights ? 'm' : 'b';
        else if (f.kind == FamilyKind::negative_binomial2 && f.link == LinkKind::log) kind_ = 'n';
    }
    // reads the rows' further parameters
    void set() {
        if (kind_ != 'n') return;
        const RowParameters& p = at_.row_parameters();
        shift_.resize(at_.rows.n);
        part_ = 0;
        for (i64 e = 0; e < at_.rows.n; ++e) {
            const i64 i = order_.perm[e];
            shift_[e] = p.values[0][i];
            m_[e] = std::exp(shift_[e]) + y_[e];
            part_ += w_[e] * p.part[i];
        }
    }
    // of all rows, what no point changes
    double constant() const { return part_; }
    // of the rows begin to end of the order, x their linear predictors (overwritten)
    double operator()(i64 begin, i64 end, double* x) const {
        const long count = static_cast<long>(end - begin);
        const double *y = y_.data() + begin, *w = w_.data() + begin, *m = m_.data() + begin;
        double sum = 0;
        if (kind_ == 0) {
            for (long e = 0; e < count; ++e)
                sum += row_jet<0>(at_.family, at_.rows, order_.perm[begin + e], x[e], at_.row_parameters()).d[0];
            return sum;
        }
        if (kind_ == 'p') {
            for (long e = 0; e < count; ++e) sum += w[e] * y[e] * x[e];
            quick_exp(x, count);
            for (long e = 0; e < count; ++e) sum -= w[e] * x[e];
            return sum;
        }
        if (kind_ == 'n')
            for (long e = 0; e < count; ++e) x[e] -= shift_[begin + e];
        for (long e = 0; e < count; ++e) {  // y x - m log(1 + exp(x))
            sum += w[e] * (y[e] * x[e] - m[e] * (x[e] > 0 ? x[e] : 0.0));
            x[e] = -std::fabs(x[e]);
        }
        quick_exp(x, count);
        if (kind_ != 'b') {
            for (long e = 0; e < count; ++e) sum -= w[e] * m[e] * log_one_plus(x[e], m[e]);
            return sum;
        }
        for (long from = 0; from < count; from += 500) {  // one logarithm for hundreds of factors between one and two
            double even = 1, odd = 1;
            const long to = std::min(count, from + 500);
            long e = from;
            for (; e + 1 < to; e += 2) {
                even *= 1 + x[e];
                odd *= 1 + x[e + 1];
            }
            if (e < to) even *= 1 + x[e];
            sum -= std::log(even) + std::log(odd);
        }
        return sum;
    }

  private:
    const Laplace& at_;
    const RowOrder& order_;
    char kind_ = 0;
    vec y_, w_, m_, shift_;
    double part_ = 0;
};

class EffectSampler {
  public:
    // `density` has spherical effects of all factors, and `at` is its Laplace
    EffectSampler(JointDensity& density, Laplace& at, int outer, int inner)
        : density_(density), at_(at), outer_(at.plan.factors > 1 ? outer : 1), inner_(inner), k_(at.plan.k[0]),
          first_(at.plan.levels[0] * at.plan.k[0]), order_(order_rows(at.refill.rows()[0], at.rows.n)), rows_(at, order_) {
        eta_.resize(at.rows.n);
        x_.resize(at.rows.n);
        at.settled = 0.1;  // any centre near the mode will do, and any curvature
        at.clipped = true;
        if (at.known()) throw std::invalid_argument("levels must be independent");
    }

    // log of p(phi) times the estimate of p(y | phi); the mode search begins at `start`. `chosen`: spherical effects u.
    double estimate(const vec& phi, const vec& start, Random random, vec* chosen) {
        at_.u = start;
        const double laplace = density_.marginal(at_, phi, nullptr);
        if (!std::isfinite(laplace) || !curvatures()) return none;
        rows_.set();
        const double prior = laplace + 0.5 * (at_.penalised + at_.fac.log_det_u) + at_.constant() + rows_.constant();
        const i64 q = at_.plan.q;
        vec logs(outer_), step(q, 0.0), middle = at_.u;
        if (at_.plan.factors > 1) own_mode(middle);
        effects_.assign(static_cast<std::size_t>(outer_) * q, 0.0);
        double square = 0;
        for (int m = 0; m < outer_; ++m) {
            double* u = effects_.data() + static_cast<std::size_t>(m) * q;
            if (at_.plan.factors > 1 && m % 2 == 0) square = draw_step(step, random);
            logs[m] = 0.5 * square - 0.5 * at_.fac.log_det_u + log_det_;
            for (i64 e = 0; e < q; ++e) u[e] = middle[e] + (m % 2 ? -step[e] : step[e]);
            for (i64 e = first_; e < q; ++e) logs[m] -= 0.5 * u[e] * u[e];
            spread(u);
            logs[m] += levels(random, u);
        }
        std::size_t choice = 0;
        const double out = mean_and_choice(logs, random, choice);
        if (chosen) chosen->assign(effects_.begin() + choice * q, effects_.begin() + (choice + 1) * q);
        return prior + out;
    }

  private:
    static constexpr double none = -std::numeric_limits<double>::infinity();
    JointDensity& density_;
    Laplace& at_;
    int outer_, inner_, k_;
    i64 first_;         // effects of the first factor
    RowOrder order_;    // of its rows
    RowSum rows_;
    vec a_, roots_;     // Lambda'z of each row in that order; per level the factor L_j of I + sum w a a'
    double log_det_ = 0;  // of the L_j
    vec effects_, eta_, logs_, points_, all_, x_;  // eta_ in the first factor's order

    // Quantile function 3.3 (p - 1/2) / (p (1 - p))^(1/4) of a density nearly twice as wide as the standard normal, with tails
    // like those of Student's t with four degrees of freedom. That wide, a lattice of few points integrates normal-like
    // functions best (fewest were needed at 2.5 to 3.8). `log_slope`: log of its derivative, which is minus the log density.
    static double quantile(double p, double& log_slope) {
        constexpr double scale = 3.3;
        const double v = p * (1 - p), fourth = std::sqrt(std::sqrt(v));
        log_slope = std::log(scale * (0.125 + 0.5 * v) / (v * fourth));
        return scale * (p - 0.5) / fourth;
    }

    // log of the mean of exp(logs), and the position of one of them chosen in proportion; overwrites them
    static double mean_and_choice(vec& logs, Random& random, std::size_t& choice) {
        double top = none, sum = 0;
        for (double v : logs) top = std::max(top, v);
        choice = 0;
        if (!std::isfinite(top)) return none;
        for (double& v : logs) v -= top;
        quick_exp(logs.data(), static_cast<long>(logs.size()));
        for (double v : logs) sum += v;
        double left = random.uniform() * sum;
        for (; choice + 1 < logs.size(); ++choice)
            if ((left -= logs[choice]) <= 0) break;
        return top + std::log(sum / static_cast<double>(logs.size()));
    }

    // effects of all factors but the first from their normal approximation, those of the first at their mean given them
    double draw_step(vec& step, Random& random) {
        double square = 0;
        for (i64 e = 0; e < at_.plan.q; ++e) {
            step[e] = e < first_ ? 0.0 : random.normal();
            square += step[e] * step[e];
        }
        backward_solve(at_.fac, step.data(), 1);
        return square;
    }
    // from the joint mode to that of the other factors' own density, and the first factor's mean there
    void own_mode(vec& u) {
        vec c(at_.rows.n), move, half(k_);
        for (i64 j = 0; j < at_.plan.levels[0]; ++j)
            for (i64 e = order_.start[j]; e < order_.start[j + 1]; ++e) {
                std::copy_n(a_.data() + e * k_, k_, half.data());
                solve_lower<0>(roots_.data() + j * k_ * k_, half.data(), k_);
                const i64 i = order_.perm[e];
                c[i] = 0.5 * dot<0>(half.data(), half.data(), k_) * at_.d.l3[i];
            }
        at_.refill.products(c, move, 1);
        apply_lambda(at_.fac, move.data(), 1, true);
        forward_solve(at_.fac, move.data(), 1);
        std::fill(move.begin(), move.begin() + first_, 0.0);
        backward_solve(at_.fac, move.data(), 1);
        for (i64 e = 0; e < at_.plan.q; ++e) u[e] += move[e];
    }
    // linear predictors without the first factor's effects
    void spread(const double* u) {
        all_ = at_.fixed();
        if (at_.plan.factors > 1) {
            vec b(u, u + at_.plan.q);
            std::fill(b.begin(), b.begin() + first_, 0.0);
            apply_lambda(at_.fac, b.data(), 1, false);
            at_.refill.spread(b, all_, {0, static_cast<std::size_t>(at_.rows.n)});
        }
        for (i64 e = 0; e < at_.rows.n; ++e) eta_[e] = all_[order_.perm[e]];
    }

    bool curvatures() {
        const double *lambda = density_.lambdas()[0].data(), *z = at_.refill.rows()[0].z;
        const i64 n = at_.rows.n, levels = at_.plan.levels[0];
        a_.assign(n * k_, 0.0);
        roots_.assign(levels * k_ * k_, 0.0);
        log_det_ = 0;
        for (i64 j = 0; j < levels; ++j) {
            double* l = roots_.data() + j * k_ * k_;
            for (int c = 0; c < k_; ++c) l[c * k_ + c] = 1;
            for (i64 e = order_.start[j]; e < order_.start[j + 1]; ++e) {
                const i64 i = order_.perm[e];
                double* a = a_.data() + e * k_;
                for (int c = 0; c < k_; ++c)
                    for (int x = 0; x < k_; ++x) a[c] += (z ? z[i * k_ + x] : 1.0) * lambda[x * k_ + c];
                for (int c = 0; c < k_; ++c)
                    for (int x = 0; x < k_; ++x) l[c * k_ + x] += at_.w[i] * a[c] * a[x];
            }
            if (!cholesky<0>(l, k_)) return false;
            for (int c = 0; c < k_; ++c) log_det_ += std::log(l[c * k_ + c]);
        }
        return true;
    }

    // log of the estimated integral over the first factor's effects; u: their centres, then the effects chosen
    double levels(Random& random, double* u) {
        double out = 0;
        vec s(k_), shift(k_);
        logs_.resize(inner_);
        points_.resize(static_cast<std::size_t>(inner_) * k_);
        for (i64 j = 0; j < at_.plan.levels[0]; ++j) {
            const double* l = roots_.data() + j * k_ * k_;
            double* centre = u + j * k_;
            double base = -k_ * 0.91893853320467274178;
            for (int c = 0; c < k_; ++c) base -= std::log(l[c * k_ + c]);
            for (double& v : shift) v = random.uniform();
            for (int p = 0; p < inner_; ++p) {
                double g = base, *at = points_.data() + p * k_;
                for (int c = 0; c < k_; ++c) {
                    double log_slope;
                    at[c] = quantile(lattice(p, c, shift[c]), log_slope);
                    g += log_slope;
                }
                solve_lower_transposed<0>(l, at, k_);
                for (int c = 0; c < k_; ++c) {
                    at[c] += centre[c];
                    g -= 0.5 * at[c] * at[c];
                }
                const i64 begin = order_.start[j], end = order_.start[j + 1];
                if (k_ == 1) for (i64 e = begin; e < end; ++e) x_[e - begin] = eta_[e] + a_[e] * at[0];
                else for (i64 e = begin; e < end; ++e) x_[e - begin] = eta_[e] + dot<0>(a_.data() + e * k_, at, k_);
                g += rows_(begin, end, x_.data());
                logs_[p] = std::isfinite(g) ? g : none;
            }
            std::size_t choice = 0;
            out += mean_and_choice(logs_, random, choice);
            std::copy_n(points_.begin() + choice * k_, k_, centre);
        }
        return out;
    }
    // coordinate c of point p of a lattice in the unit cube, after a shift
    double lattice(int p, int c, double shift) const {
        static constexpr double steps[] = {0.6180339887498949, 0.7548776662466927, 0.5698402909980532};
        const double x = c == 0 ? (p + shift) / inner_ : shift + p * (k_ == 2 ? steps[0] : steps[1 + (c - 1) % 2]);
        return std::min(std::max(x - std::floor(x), 1e-15), 1 - 1e-15);
    }
};

}  // namespace multilevel
