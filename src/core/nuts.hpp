// The no-U-turn sampler on any log density with gradient.
//
// Hoffman & Gelman (2014), J. Mach. Learn. Res. 15, 1593, with multinomial draws along the trajectory and the U-turn
// criterion of Betancourt (2017, arXiv:1701.02434); step size by dual averaging, a diagonal metric in growing windows as
// in Stan's reference manual.
#pragma once
#include <atomic>

#include "blocks.hpp"
#include "random.hpp"

namespace multilevel {

struct NutsOptions {
    int warmup = 1000, draws = 1000, max_depth = 10;
    double target = 0.8;
    bool adapt_metric = true;
    int thin = 1, leading = 0;  // every so manyth draw is kept, and of it so many coordinates (0: all)
};

struct NutsChain {
    int done = 0;                // draws kept
    vec draws;                   // (done, coordinates kept)
    vec log_posterior, energy, accept, depth, steps, divergent;
    double step_size = 0;
    i64 warmup_gradients = 0;
    vec metric;
};

// Density: size, log_posterior(x, &gradient)
template <class Density>
class Nuts {
  public:
    Nuts(Density& density, const NutsOptions& options, Random random)
        : density(density), opt(options), random(random), n(density.size), inverse_mass(density.size, 1.0) {}

    NutsChain run(const vec& start, std::atomic<i64>& progress, const std::atomic<bool>& stop) {
        NutsChain out;
        Point z;
        z.x = start;
        evaluate(z);
        for (int i = 0; i < 10 && !std::isfinite(z.value); ++i) {  // towards the mode, which is at zero
            for (double& v : z.x) v *= i < 9 ? 0.5 : 0.0;
            evaluate(z);
        }
        if (!std::isfinite(z.value)) return out;
        refresh(z);
        step = 0.5;
        find_step(z);
        DualAverage average(step, opt.target);
        Windows windows(opt.warmup, n);
        for (int i = 0; i < opt.warmup && !stop; ++i, ++progress) {
            const Transition t = transition(z);
            step = average.update(t.accept);
            if (opt.adapt_metric && windows.take(i, z.x, inverse_mass)) {
                find_step(z);
                average = DualAverage(step, opt.target);
            }
        }
        out.warmup_gradients = gradients;
        if (opt.warmup > 0) step = average.final(step);
        out.step_size = step;
        out.metric = inverse_mass;
        const int kept = opt.leading > 0 ? opt.leading : n;
        out.draws.reserve(static_cast<std::size_t>((opt.draws + opt.thin - 1) / opt.thin) * kept);
        for (int i = 0; i < opt.draws && !stop; ++i, ++progress) {
            const Transition t = transition(z);
            if (i % opt.thin) continue;
            out.draws.insert(out.draws.end(), z.x.begin(), z.x.begin() + kept);
            out.log_posterior.push_back(z.value);
            out.energy.push_back(t.energy);
            out.accept.push_back(t.accept);
            out.depth.push_back(t.depth);
            out.steps.push_back(t.steps);
            out.divergent.push_back(t.divergent);
            ++out.done;
        }
        return out;
    }

  private:
    struct Point {
        vec x, momentum, grad;
        double value = 0;
    };
    struct Transition {
        double accept = 0, energy = 0;
        int depth = 0, steps = 0;
        bool divergent = false;
    };
    // Nesterov's dual averaging of the logarithm of the step size
    class DualAverage {
      public:
        DualAverage(double step, double target) : mu_(std::log(10 * step)), target_(target) {}
        double update(double accept) {
            ++count_;
            const double eta = 1 / (count_ + 10.0);
            error_ = (1 - eta) * error_ + eta * (target_ - accept);
            const double log_step = mu_ - std::sqrt(count_) / 0.05 * error_, weight = std::pow(count_, -0.75);
            mean_ = weight * log_step + (1 - weight) * mean_;
            return std::exp(log_step);
        }
        double final(double now) const { return count_ > 0 ? std::exp(mean_) : now; }

      private:
        double mu_, target_, error_ = 0, mean_ = 0, count_ = 0;
    };
    // Variances in windows that double, between a first and a last stretch for the step size alone
    class Windows {
      public:
        Windows(int warmup, int n) : n_(n), mean_(n, 0.0), square_(n, 0.0) {
            int first = 75, last = 50, size = 25;
            if (warmup < first + last + size) {
                first = static_cast<int>(0.15 * warmup);
                last = static_cast<int>(0.1 * warmup);
                size = warmup - first - last;
            }
            begin_ = first;
            for (int end = first + size; end <= warmup - last; end += size) {
                const int next = 2 * size;
                if (end + next > warmup - last) end = warmup - last;
                ends_.push_back(end);
                size = next;
                if (end == warmup - last) break;
            }
        }
        // after iteration i: true if the metric has changed
        bool take(int i, const vec& x, vec& inverse_mass) {
            if (i < begin_ || ends_.empty() || i >= ends_.back()) return false;
            ++count_;
            for (int j = 0; j < n_; ++j) {
                const double d = x[j] - mean_[j];
                mean_[j] += d / count_;
                square_[j] += d * (x[j] - mean_[j]);
            }
            if (i + 1 != ends_[at_]) return false;
            ++at_;
            for (int j = 0; j < n_; ++j) {  // shrunk towards a small unit variance, as Stan does
                const double weight = count_ / (count_ + 5);
                inverse_mass[j] = weight * square_[j] / std::max(count_ - 1, 1.0) + 1e-3 * (1 - weight);
                mean_[j] = square_[j] = 0;
            }
            count_ = 0;
            return true;
        }

      private:
        int n_, begin_ = 0;
        std::size_t at_ = 0;
        std::vector<int> ends_;
        vec mean_, square_;
        double count_ = 0;
    };
    // a subtree: its two ends, a draw from it, the log of the sum of its weights
    struct Tree {
        Point left, right, draw;
        vec rho;  // sum of momenta
        double log_weight = -std::numeric_limits<double>::infinity();
        bool turning = false;
    };

    Density& density;
    NutsOptions opt;
    Random random;
    int n;
    vec inverse_mass;
    double step = 1;
    i64 gradients = 0;

    void evaluate(Point& z) {
        z.value = density.log_posterior(z.x, &z.grad);
        ++gradients;
        if (!std::isfinite(z.value)) z.value = -std::numeric_limits<double>::infinity();
    }
    void refresh(Point& z) {
        z.momentum.resize(n);
        for (int i = 0; i < n; ++i) z.momentum[i] = random.normal() / std::sqrt(inverse_mass[i]);
    }
    double energy(const Point& z) const {
        double kinetic = 0;
        for (int i = 0; i < n; ++i) kinetic += z.momentum[i] * z.momentum[i] * inverse_mass[i];
        return 0.5 * kinetic - z.value;
    }
    void leap(Point& z, double size) {
        for (int i = 0; i < n; ++i) z.momentum[i] += 0.5 * size * z.grad[i];
        for (int i = 0; i < n; ++i) z.x[i] += size * inverse_mass[i] * z.momentum[i];
        evaluate(z);
        if (!std::isfinite(z.value)) return;
        for (int i = 0; i < n; ++i) z.momentum[i] += 0.5 * size * z.grad[i];
    }
    // double or halve until a single step is accepted with probability near 0.8
    void find_step(const Point& from) {
        int direction = 0;
        for (int i = 0; i < 60; ++i) {
            Point z = from;
            refresh(z);
            const double before = energy(z);
            leap(z, step);
            const double change = std::isfinite(z.value) ? before - energy(z) : -1e300;
            const int now = change > std::log(0.8) ? 1 : -1;
            if (direction && now != direction) return;
            direction = now;
            step = std::min(std::max(step * (now > 0 ? 2.0 : 0.5), 1e-10), 1e7);
        }
    }
    // whether the ends of a trajectory with summed momentum rho come nearer to each other
    bool turns(const vec& left, const vec& right, const vec& rho) const {
        double a = 0, b = 0;
        for (int i = 0; i < n; ++i) {
            a += inverse_mass[i] * left[i] * rho[i];
            b += inverse_mass[i] * right[i] * rho[i];
        }
        return a <= 0 || b <= 0;
    }
    static double add_logs(double a, double b) {
        const double m = std::max(a, b);
        return std::isinf(m) ? m : m + std::log1p(std::exp(std::min(a, b) - m));
    }
    static void add(vec& a, const vec& b) {
        for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    }
    // join two neighbouring subtrees; `first` was there before, and `biased` prefers the later one's draw (the top level)
    void join(Tree& left, Tree& right, bool grown_right, bool biased, Tree& out) {
        Tree &old = grown_right ? left : right, &fresh = grown_right ? right : left;
        const double total = add_logs(left.log_weight, right.log_weight);
        const double log_share = fresh.log_weight - (biased ? old.log_weight : total);
        const bool take = std::log(random.uniform()) < log_share;
        vec rho = left.rho;
        add(rho, right.rho);
        bool turning = turns(left.left.momentum, right.right.momentum, rho);
        // also across the seam, which a trajectory that closes on itself passes (Stan issue 2800)
        vec part = left.rho;
        add(part, right.left.momentum);
        turning = turning || turns(left.left.momentum, right.left.momentum, part);
        part = right.rho;
        add(part, left.right.momentum);
        turning = turning || turns(left.right.momentum, right.right.momentum, part);
        Tree joined;
        joined.draw = take ? std::move(fresh.draw) : std::move(old.draw);
        joined.left = std::move(left.left);
        joined.right = std::move(right.right);
        joined.rho = std::move(rho);
        joined.log_weight = total;
        joined.turning = turning;
        out = std::move(joined);
    }
    // subtree of 2^depth steps from z in one direction; false if it diverged or turned inside
    bool grow(Point& z, int depth, double direction, double energy0, Transition& t, Tree& out) {
        if (depth == 0) {
            leap(z, direction * step);
            ++t.steps;
            double change = std::isfinite(z.value) ? energy0 - energy(z) : -std::numeric_limits<double>::infinity();
            if (std::isnan(change)) change = -std::numeric_limits<double>::infinity();
            t.accept += std::min(1.0, std::exp(change));
            if (!(change > -1000)) {
                t.divergent = true;
                return false;
            }
            out.left = out.right = out.draw = z;
            out.rho = z.momentum;
            out.log_weight = change;
            out.turning = false;
            return true;
        }
        Tree first, second;
        if (!grow(z, depth - 1, direction, energy0, t, first) || first.turning) return false;
        if (!grow(z, depth - 1, direction, energy0, t, second) || second.turning) return false;
        if (direction > 0) join(first, second, true, false, out);
        else join(second, first, false, false, out);
        return !out.turning;
    }
    Transition transition(Point& z) {
        Transition t;
        refresh(z);
        const double energy0 = energy(z);
        Tree tree;
        tree.left = tree.right = tree.draw = z;
        tree.rho = z.momentum;
        tree.log_weight = 0;
        for (; t.depth < opt.max_depth; ++t.depth) {
            const bool right = random.uniform() < 0.5;
            Point end = right ? tree.right : tree.left;
            Tree fresh;
            if (!grow(end, t.depth, right ? 1 : -1, energy0, t, fresh)) break;
            Tree joined;
            if (right) join(tree, fresh, true, true, joined);
            else join(fresh, tree, false, true, joined);
            tree = std::move(joined);
            if (tree.turning) {
                ++t.depth;
                break;
            }
        }
        z = std::move(tree.draw);
        t.energy = energy(z);
        t.accept /= std::max(t.steps, 1);
        return t;
    }
};

}  // namespace multilevel
