// Minimise the profiled deviance over the covariance factors: trust-region Newton with the average information.
//
// Each unstructured component (a set of effects of one factor) is held as any square root Lambda = U S V' of its
// relative covariance; directions are U_a V_c' with a >= c, lower triangular in the eigenbasis, so that nothing is
// redundant and a vanishing direction is one column. Singular values are floored at `floor_value` while iterating: the
// derivative by the variance of a vanished direction stays visible, which decides (KKT) whether zero is right.
#pragma once
#include <array>
#include <limits>

#include "problem.hpp"

namespace multilevel {

struct Component {
    int factor;
    std::vector<int> index;  // effects of the factor that covary freely
};

struct FitResult {
    std::vector<vec> lambda;      // per factor k x k row-major, whitened coordinates
    double deviance = 0, decrement = 0, gradient_norm = 0, min_curvature = 0;
    std::vector<vec> weakest;     // per factor: unit direction of Lambda with the least average-information curvature
    vec null_slopes;              // per component: smallest derivative by a vanished variance (NaN: none vanished)
    std::vector<int> rank;        // per component
    int evaluations = 0, iterations = 0, restarts = 0;
    int status = 0;               // 0 converged, 1 out of evaluations, 2 no further progress, 3 start failed
    vec trace;                    // deviance after each iteration
};

constexpr double floor_value = 1e-6;      // relative sd below which a direction counts as vanished, whitened scale
constexpr double stop_decrement = 1e-11;  // predicted decrease of the deviance that ends the search
constexpr double accept_decrement = 1e-6; // with no measurable progress left, this is still convergence
constexpr int patience = 15;             // iterations after which a cheap problem turns to the exact Hessian
constexpr double exact_flops = 5e7;      // of one exact Hessian, halved: what still counts as cheap
constexpr double null_tolerance = 1e-5;   // a derivative by a vanished variance above minus this is non-negative

// E evaluates: `Evaluator` for Gaussian models, `GlmmEvaluator` for the others. Coordinates that are no covariance (the
// fixed effects of a generalised model) stand in one more block of `lambda`, a column; no component names it.
template <class E>
class TrustRegion {
  public:
    TrustRegion(E& evaluator, const Response& y, const std::vector<Component>& components, int max_evaluations)
        : ev_(evaluator), y_(y), comps_(components), max_(max_evaluations) {}

    FitResult run(std::vector<vec> start, int em_steps) {
        lambda_ = std::move(start);
        raise_to_floor(lambda_);  // at an exact zero the derivative by the factor hides that its variance wants to grow
        if (!first_evaluation()) {
            out_.status = 3;
            return finish();
        }
        for (int i = 0; i < em_steps; ++i) em_step();
        out_.status = 1;
        while (ev_.evaluations < max_) {
            ++out_.iterations;
            out_.trace.push_back(f_);
            if (!iterate()) break;
        }
        return finish();
    }

  private:
    E& ev_;
    const Response& y_;
    const std::vector<Component>& comps_;
    int max_;
    std::vector<vec> lambda_, gradient_;
    std::vector<Svd> svd_;
    std::vector<int> active_;  // per component: leading columns that are searched
    double f_ = 0, noise_ = 0, radius_ = 1;
    bool current_ = false;  // the factor holds lambda_, not a rejected trial
    FitResult out_;

    double noise() const { return noise_; }

    // whether there is a deviance with derivatives
    bool evaluate_at(const std::vector<vec>& lambda) {
        current_ = false;
        if (!std::isfinite(ev_.deviance(lambda, y_, true))) return false;
        const std::vector<vec>& g = ev_.gradient();
        return std::all_of(g.begin(), g.end(), all_finite);
    }
    void accept(const std::vector<vec>& lambda) {
        lambda_ = lambda;
        f_ = ev_.value;
        noise_ = ev_.noise(y_);
        gradient_ = ev_.gradient();
        current_ = true;
    }

    bool first_evaluation() {
        for (int attempt = 0; attempt < 8; ++attempt) {
            if (evaluate_at(lambda_)) {
                accept(lambda_);
                return true;
            }
            for (int f = 0; f < ev_.fac.plan.factors; ++f)
                for (double& v : lambda_[f]) v *= 0.1;
        }
        return false;
    }

    vec component(const std::vector<vec>& mats, const Component& c) const {  // column-major sub-matrix
        const int k = static_cast<int>(c.index.size()), kf = ev_.fac.plan.k[c.factor];
        vec out(k * k);
        for (int i = 0; i < k; ++i)
            for (int j = 0; j < k; ++j) out[i + j * k] = mats[c.factor][c.index[i] * kf + c.index[j]];
        return out;
    }
    void set_component(std::vector<vec>& mats, const Component& c, const vec& value) const {
        const int k = static_cast<int>(c.index.size()), kf = ev_.fac.plan.k[c.factor];
        for (int i = 0; i < k; ++i)
            for (int j = 0; j < k; ++j) mats[c.factor][c.index[i] * kf + c.index[j]] = value[i + j * k];
    }

    // Sigma <- lambda E lambda', E = I - sym(lambda'G)/(2J): one EM step, free after a gradient
    void em_step() {
        std::vector<vec> next = lambda_;
        for (const Component& c : comps_) {
            const int k = static_cast<int>(c.index.size());
            const double levels = ev_.fac.plan.levels[c.factor];
            const vec lam = component(lambda_, c), g = component(gradient_, c);
            vec e(k * k, 0.0), root(k * k, 0.0), product(k * k, 0.0);
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < k; ++j)
                    for (int a = 0; a < k; ++a)
                        e[i + j * k] -= (lam[a + i * k] * g[a + j * k] + lam[a + j * k] * g[a + i * k]) / (4 * levels);
            for (int i = 0; i < k; ++i) e[i + i * k] += 1;
            const vec values = eigen(k, e);
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < k; ++j)
                    for (int a = 0; a < k; ++a)
                        root[i + j * k] += e[i + a * k] * e[j + a * k] * std::sqrt(std::max(values[a], 1e-8));
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < k; ++j)
                    for (int a = 0; a < k; ++a) product[i + j * k] += lam[i + a * k] * root[a + j * k];
            set_component(next, c, product);
        }
        if (evaluate_at(next) && ev_.value <= f_ + noise()) accept(next);
        else if (evaluate_at(lambda_)) accept(lambda_);
    }

    // N = U'(d deviance / d Sigma)U of one component, from G = 2 (d/d Sigma) Lambda; column-major
    vec slopes(std::size_t i) const {
        const Svd& s = svd_[i];
        const int k = s.k;
        const vec g = component(gradient_, comps_[i]);
        vec m(k * k, 0.0), n(k * k);
        for (int a = 0; a < k; ++a)
            for (int c = 0; c < k; ++c)
                for (int x = 0; x < k; ++x) {
                    double gv = 0;
                    for (int z = 0; z < k; ++z) gv += g[x + z * k] * s.v[z + c * k];
                    m[a + c * k] += s.u[x + a * k] * gv;
                }
        for (int a = 0; a < k; ++a)
            for (int c = 0; c < k; ++c) {
                const double sa = std::max(s.s[a], floor_value), sc = std::max(s.s[c], floor_value);
                n[a + c * k] = (sc * m[a + c * k] + sa * m[c + a * k]) / (2 * (sa * sa + sc * sc));
            }
        return n;
    }

    // smallest eigenvalue of N on the vanished columns of component i, and its vector in that basis
    double null_slope(std::size_t i, const vec& n, vec* direction) const {
        const int k = svd_[i].k, first = active_[i], size = k - first;
        if (size == 0) return std::numeric_limits<double>::quiet_NaN();
        vec sub(size * size);
        for (int a = 0; a < size; ++a)
            for (int c = 0; c < size; ++c) sub[a + c * size] = n[(first + a) + (first + c) * k];
        const vec values = eigen(size, sub);
        if (direction) direction->assign(sub.begin(), sub.begin() + size);
        return values[0];
    }

    void decompose() {
        svd_.clear();
        active_.clear();
        for (const Component& c : comps_) {
            svd_.push_back(svd(static_cast<int>(c.index.size()), component(lambda_, c)));
            int rank = 0;
            while (rank < svd_.back().k && svd_.back().s[rank] > 3 * floor_value) ++rank;
            active_.push_back(rank);
        }
    }

    std::vector<Direction> directions(vec& g, vec& curvature) const {
        std::vector<Direction> dirs;
        std::vector<std::array<int, 3>> label;  // component, row a, column c
        std::vector<vec> n;
        for (std::size_t i = 0; i < comps_.size(); ++i) {
            n.push_back(slopes(i));
            const Svd& s = svd_[i];
            const int kf = ev_.fac.plan.k[comps_[i].factor];
            for (int c = 0; c < active_[i]; ++c)
                for (int a = c; a < s.k; ++a) {
                    Direction d{comps_[i].factor, vec(kf, 0.0), vec(kf, 0.0), std::max(s.s[c], 0.01)};
                    for (int x = 0; x < s.k; ++x) {
                        d.left[comps_[i].index[x]] = s.u[x + a * s.k];
                        d.right[comps_[i].index[x]] = s.v[x + c * s.k];
                    }
                    double slope = 0;
                    for (int x = 0; x < kf; ++x)
                        for (int z = 0; z < kf; ++z) slope += d.left[x] * gradient_[d.factor][x * kf + z] * d.right[z];
                    g.push_back(slope);
                    dirs.push_back(std::move(d));
                    label.push_back({static_cast<int>(i), a, c});
                }
        }
        for (std::size_t f = ev_.fac.plan.factors; f < lambda_.size(); ++f)
            for (std::size_t i = 0; i < lambda_[f].size(); ++i) {
                Direction d{static_cast<int>(f), vec(lambda_[f].size(), 0.0), vec(1, 1.0), 1.0};
                d.left[i] = 1;
                g.push_back(gradient_[f][i]);
                dirs.push_back(std::move(d));
                label.push_back({-1, 0, static_cast<int>(dirs.size())});
            }
        const int r = static_cast<int>(dirs.size());
        curvature.assign(r * r, 0.0);  // 2 <N, D_i D_k'>: D_i D_k' = U_a U_b' when both move the same column
        for (int i = 0; i < r; ++i)
            for (int j = 0; j < r; ++j)
                if (label[i][0] >= 0 && label[i][0] == label[j][0] && label[i][2] == label[j][2])
                    curvature[i + j * r] = 2 * n[label[i][0]][label[i][1] + label[j][1] * svd_[label[i][0]].k];
        return dirs;
    }

    // lambda + step along dirs, singular values kept at or above the floor
    std::vector<vec> moved(const std::vector<Direction>& dirs, const vec& d) const {
        std::vector<vec> next = lambda_;
        for (std::size_t i = 0; i < dirs.size(); ++i) {
            const int rows = static_cast<int>(dirs[i].left.size()), k = static_cast<int>(dirs[i].right.size());
            for (int a = 0; a < rows; ++a)
                for (int c = 0; c < k; ++c) next[dirs[i].factor][a * k + c] += d[i] * dirs[i].left[a] * dirs[i].right[c];
        }
        raise_to_floor(next);
        return next;
    }
    void raise_to_floor(std::vector<vec>& mats) const {
        for (const Component& c : comps_) set_component(mats, c, with_floor(svd(int(c.index.size()), component(mats, c)), floor_value, floor_value));
    }
    // singular values at or below `threshold` become `value`
    static vec with_floor(const Svd& s, double threshold, double value) {
        vec out(s.k * s.k, 0.0);
        for (int a = 0; a < s.k; ++a) {
            const double sv = s.s[a] <= threshold ? value : s.s[a];
            for (int i = 0; i < s.k; ++i)
                for (int j = 0; j < s.k; ++j) out[i + j * s.k] += sv * s.u[i + a * s.k] * s.v[j + a * s.k];
        }
        return out;
    }

    // one Newton step; false when the search is over
    bool iterate() {
        decompose();
        if (reopen()) return true;
        vec g, h;
        const std::vector<Direction> dirs = directions(g, h);
        const int r = static_cast<int>(dirs.size());
        out_.gradient_norm = 0;
        for (double v : g) out_.gradient_norm = std::max(out_.gradient_norm, std::fabs(v));
        if (r > 0) {
            vec exact;
            if (out_.iterations > patience && ev_.fac.plan.flops * r < exact_flops) exact = exact_hessian(dirs);
            if (!exact.empty()) h = std::move(exact);
            else {
                if (!current_ && evaluate_at(lambda_)) accept(lambda_);  // the factor must be that of lambda_
                add_into(h, ev_.average_information(dirs));
            }
        }
        const vec e = eigen(r, h);
        if (r > 0 && !std::isfinite(e[0])) return done(out_.iterations > 1 ? 2 : 3);  // no curvature: no step from here
        out_.min_curvature = r ? e[0] : std::numeric_limits<double>::infinity();
        remember_weakest(dirs, h);
        const Step newton = trust_step(h, e, g, std::numeric_limits<double>::max());
        out_.decrement = r == 0 || newton.interior ? newton.decrease : std::numeric_limits<double>::infinity();
        while (ev_.evaluations < max_) {
            const Step step = trust_step(h, e, g, radius_);
            const bool last = step.interior && step.decrease < std::max(stop_decrement, noise());
            if (r == 0) return done(0);
            if (!all_finite(step.d)) return done(out_.iterations > 1 ? 2 : 3);
            const std::vector<vec> next = moved(dirs, step.d);
            const bool good = evaluate_at(next);
            const double gain = good ? f_ - ev_.value : -1;
            const double ratio = gain / std::max(step.decrease, 1e-300);
            if (good && (gain > 0 ? ratio > 1e-4 : last && gain >= -noise())) {
                accept(next);
                if (ratio > 0.7 && !step.interior) radius_ *= 3;
                if (ratio < 0.25) radius_ = std::max(0.25 * step.length, 1e-8);
                return last ? done(0) : true;
            }
            if (last || (step.interior && step.decrease < 10 * noise())) return done(step.decrease < accept_decrement ? 0 : 2);
            // a flat criterion has no interior step: nothing is left to gain, and the certificate says how flat it is
            if (step.decrease < 10 * noise() && out_.gradient_norm * std::max(1.0, largest_value()) < accept_decrement) return done(0);
            radius_ = 0.25 * step.length;
            if (radius_ < 1e-9) return done(out_.decrement < accept_decrement ? 0 : 2);
        }
        return done(1);
    }
    // second derivatives along dirs by central differences of the exact gradient: where the average information is far
    // from them (few rows, a boundary near by), its steps crawl. Empty if an evaluation failed.
    vec exact_hessian(const std::vector<Direction>& dirs) {
        const int r = static_cast<int>(dirs.size());
        vec h(r * r, 0.0);
        auto along = [&](const Direction& d, const std::vector<vec>& g) {
            const int rows = static_cast<int>(d.left.size()), k = static_cast<int>(d.right.size());
            double s = 0;
            for (int a = 0; a < rows; ++a)
                for (int c = 0; c < k; ++c) s += d.left[a] * g[d.factor][a * k + c] * d.right[c];
            return s;
        };
        for (int i = 0; i < r; ++i) {
            const Direction& d = dirs[i];
            const double step = 1e-4 * d.size;
            const int rows = static_cast<int>(d.left.size()), k = static_cast<int>(d.right.size());
            for (double sign : {1.0, -1.0}) {
                std::vector<vec> moved = lambda_;
                for (int a = 0; a < rows; ++a)
                    for (int c = 0; c < k; ++c) moved[d.factor][a * k + c] += sign * step * d.left[a] * d.right[c];
                if (!evaluate_at(moved)) return {};
                for (int j = 0; j < r; ++j) h[j + i * r] += sign * along(dirs[j], ev_.gradient()) / (2 * step);
            }
        }
        for (int i = 0; i < r; ++i)
            for (int j = 0; j < i; ++j) h[i + j * r] = h[j + i * r] = (h[i + j * r] + h[j + i * r]) / 2;
        for (double v : h)
            if (!std::isfinite(v)) return {};
        return h;
    }
    void remember_weakest(const std::vector<Direction>& dirs, const vec& q) {
        out_.weakest.clear();
        for (const vec& l : lambda_) out_.weakest.emplace_back(l.size(), 0.0);
        for (std::size_t i = 0; i < dirs.size(); ++i) {
            const int rows = static_cast<int>(dirs[i].left.size()), k = static_cast<int>(dirs[i].right.size());
            for (int a = 0; a < rows; ++a)
                for (int c = 0; c < k; ++c) out_.weakest[dirs[i].factor][a * k + c] += q[i] * dirs[i].left[a] * dirs[i].right[c];
        }
    }
    double largest_value() const {
        double top = 0;
        for (const Svd& s : svd_) top = std::max(top, s.s[0]);
        return top;
    }
    bool done(int status) {
        out_.status = status;
        return false;
    }

    // a vanished direction whose variance wants to grow: give it a positive sd, found by backtracking
    bool reopen() {
        for (std::size_t i = 0; i < comps_.size(); ++i) {
            vec v;
            const vec n = slopes(i);
            const double slope = null_slope(i, n, &v);
            if (!(slope < -null_tolerance)) continue;
            const Svd& s = svd_[i];
            const int k = s.k, first = active_[i], size = k - first;
            vec w(k, 0.0);
            for (int x = 0; x < k; ++x)
                for (int a = 0; a < size; ++a) w[x] += s.u[x + (first + a) * k] * v[a];
            for (double sd = 0.3; sd > 10 * floor_value && ev_.evaluations < max_; sd *= 0.2) {
                std::vector<vec> next = lambda_;
                vec value = with_floor(s, 3 * floor_value, 0.0);
                for (int x = 0; x < k; ++x)
                    for (int z = 0; z < k; ++z) value[x + z * k] += sd * w[x] * s.v[z + first * k];
                set_component(next, comps_[i], with_floor(svd(k, value), floor_value, floor_value));
                if (evaluate_at(next) && ev_.value < f_ - noise()) {
                    accept(next);
                    ++out_.restarts;
                    return true;
                }
            }
            if (evaluate_at(lambda_)) accept(lambda_);
        }
        return false;
    }

    // vanished directions become exactly zero; the last evaluation is at the answer
    FitResult finish() {
        out_.null_slopes.clear();
        if (out_.status != 3) {
            decompose();
            std::vector<vec> exact = lambda_;
            bool vanished = false;
            for (std::size_t i = 0; i < comps_.size(); ++i) {
                out_.null_slopes.push_back(null_slope(i, slopes(i), nullptr));
                out_.rank.push_back(active_[i]);
                if (active_[i] == svd_[i].k) continue;
                vanished = true;
                set_component(exact, comps_[i], with_floor(svd_[i], 3 * floor_value, 0.0));
            }
            if ((vanished || !current_) && evaluate_at(exact)) accept(exact);
        }
        out_.lambda = lambda_;
        out_.deviance = f_;
        out_.evaluations = ev_.evaluations;
        return out_;
    }
};

}  // namespace multilevel
