// Minimisation of TreeSoftmax's objective by L-BFGS (Nocedal 1980), and solves with its Hessian by conjugate gradients.
//
// The objective is 1-strongly convex in the whitened w, so that F(w) - min F <= |gradient|^2 / 2: the stopping rule.
// The first metric is diagonal and the same for all nodes of a feature: steps from 0 stay in the space where a node's
// deviation is the sum of what its leaves pull.
#pragma once
#include <functional>
#include <vector>

#include "tree_softmax.hpp"

namespace multilevel {

struct TreeOptimum {
    double value = 0, gap = 0;  // gap: |gradient|^2 / 2, a bound of what F is above its minimum
    int evaluations = 0;
    bool converged = false;
};

template <class T>
class TreeMinimiser {
  public:
    TreeMinimiser(TreeSoftmax<T>& f, const double* scales, int history)
        : f_(f), scales_(scales), n_(f.size()), metric_(f.metric(scales, 0.5 / f.nodes())), history_(history) {}

    TreeOptimum minimise(T* w, double gap, int most, const std::function<bool()>& stopped) {
        std::vector<T> gradient(n_), next(n_), next_gradient(n_), direction(n_);
        TreeOptimum out;
        out.value = f_.value(w, scales_, gradient.data());
        out.evaluations = 1;
        while (true) {
            out.gap = 0.5 * f_.dot(gradient.data(), gradient.data());
            out.converged = out.gap <= gap;
            if (out.converged || out.evaluations >= most || stopped()) return out;
            towards(gradient, direction);
            if (!step(w, gradient, direction, next, next_gradient, out)) return out;
        }
    }

  private:
    TreeSoftmax<T>& f_;
    const double* scales_;
    std::size_t n_;
    std::vector<T> metric_;  // (features + 1)
    int history_;
    std::vector<std::vector<T>> steps_, changes_;  // of w and of the gradient
    std::vector<double> rho_;

    // direction = -H gradient, H the inverse Hessian as the last steps show it
    void towards(const std::vector<T>& gradient, std::vector<T>& direction) {
        direction = gradient;
        const std::size_t kept = steps_.size();
        std::vector<double> a(kept);
        for (std::size_t k = kept; k-- > 0;) {
            a[k] = rho_[k] * f_.dot(steps_[k].data(), direction.data());
            add(-a[k], changes_[k], direction);
        }
        divide(direction, kept ? curvature_ : 1.0);
        for (std::size_t k = 0; k < kept; ++k) {
            const double b = rho_[k] * f_.dot(changes_[k].data(), direction.data());
            add(a[k] - b, steps_[k], direction);
        }
        f_.over_parts(n_, [&](Range r) {
            for (std::size_t e = r.begin; e < r.end; ++e) direction[e] = -direction[e];
        });
    }
    // a step that lowers F enough (Armijo); false where rounding leaves none
    bool step(T* w, std::vector<T>& gradient, const std::vector<T>& direction, std::vector<T>& next, std::vector<T>& next_gradient,
              TreeOptimum& out) {
        const double slope = f_.dot(gradient.data(), direction.data());
        double length = 1;
        for (int tries = 0; tries < 20; ++tries) {
            f_.over_parts(n_, [&](Range r) {
                for (std::size_t e = r.begin; e < r.end; ++e) next[e] = w[e] + static_cast<T>(length) * direction[e];
            });
            const double value = f_.value(next.data(), scales_, next_gradient.data());
            ++out.evaluations;
            // what rounding of the logits can do to F
            const double noise = 4 * std::numeric_limits<T>::epsilon() * std::abs(out.value);
            const bool lower = value <= out.value + 1e-4 * length * slope - noise;
            // where values no longer tell, the slope does (Hager and Zhang 2005)
            const bool flatter = !lower && value <= out.value + noise &&
                                 std::abs(f_.dot(next_gradient.data(), direction.data())) <= 0.9 * std::abs(slope);
            if (lower || flatter) {
                if (!lower && stalled(out.gap)) return false;
                remember(w, gradient, next, next_gradient);
                std::copy(next.begin(), next.end(), w);
                gradient.swap(next_gradient);
                out.value = value;
                return true;
            }
            if (!(slope < 0)) return false;
            const double curve = value - out.value - length * slope;  // least of the parabola through the two values
            length *= std::min(0.5, std::max(0.1, curve > 0 ? -0.5 * length * slope / curve : 0.1));
        }
        return false;
    }
    void remember(const T* w, const std::vector<T>& gradient, const std::vector<T>& next, const std::vector<T>& next_gradient) {
        std::vector<T> s(n_), y(n_);
        if (static_cast<int>(steps_.size()) == history_) {
            s.swap(steps_.front());
            y.swap(changes_.front());
            steps_.erase(steps_.begin());
            changes_.erase(changes_.begin());
            rho_.erase(rho_.begin());
        }
        f_.over_parts(n_, [&](Range r) {
            for (std::size_t e = r.begin; e < r.end; ++e) {
                s[e] = next[e] - w[e];
                y[e] = next_gradient[e] - gradient[e];
            }
        });
        const double sy = f_.dot(s.data(), y.data());
        if (!(sy > 0)) return;
        std::vector<T> scaled = y;
        divide(scaled, 1.0);
        curvature_ = f_.dot(y.data(), scaled.data()) / sy;
        rho_.push_back(1 / sy);
        steps_.push_back(std::move(s));
        changes_.push_back(std::move(y));
    }
    // whether the gradient has stayed where it was for some steps: all digits are spent
    bool stalled(double gap) {
        if (gap < 0.5 * least_gap_) {
            least_gap_ = gap;
            idle_ = 0;
        }
        return ++idle_ > 20;
    }
    double least_gap_ = std::numeric_limits<double>::infinity();
    int idle_ = 0;
    double curvature_ = 1;  // of the last step, in units of the metric

    void add(double a, const std::vector<T>& x, std::vector<T>& y) const {
        const T factor = static_cast<T>(a);
        f_.over_parts(n_, [&](Range r) {
            for (std::size_t e = r.begin; e < r.end; ++e) y[e] += factor * x[e];
        });
    }
    void divide(std::vector<T>& x, double by) const { divide_by_metric(f_, metric_, by, x); }

  public:
    static void divide_by_metric(const TreeSoftmax<T>& f, const std::vector<T>& metric, double by, std::vector<T>& x) {
        const std::size_t m = f.nodes();
        f.over_parts(metric.size(), [&](Range r) {
            for (std::size_t j = r.begin; j < r.end; ++j) {
                const T factor = static_cast<T>(1 / (by * metric[j]));
                for (std::size_t e = j * m; e < (j + 1) * m; ++e) x[e] *= factor;
            }
        });
    }
};

// x = Hessian^-1 right at the w of the last value, by preconditioned conjugate gradients from the x given
template <class T>
int solve_with_hessian(TreeSoftmax<T>& f, const double* scales, const T* right, T* x, double tolerance, int most) {
    const std::size_t n = f.size();
    const auto metric = f.metric(scales, 0.5 / f.nodes());
    std::vector<T> r(right, right + n), z(n), d(n), hd(n);
    f.product(x, scales, hd.data());
    for (std::size_t e = 0; e < n; ++e) r[e] -= hd[e];
    const double enough = tolerance * std::sqrt(f.dot(right, right));
    double rz = 0;
    for (int k = 0; k < most; ++k) {
        if (std::sqrt(f.dot(r.data(), r.data())) <= enough) return k;
        z = r;
        TreeMinimiser<T>::divide_by_metric(f, metric, 1.0, z);
        const double before = rz;
        rz = f.dot(r.data(), z.data());
        const T beta = static_cast<T>(k ? rz / before : 0.0);
        f.over_parts(n, [&](Range part) {
            for (std::size_t e = part.begin; e < part.end; ++e) d[e] = z[e] + beta * d[e];
        });
        f.product(d.data(), scales, hd.data());
        const T a = static_cast<T>(rz / f.dot(d.data(), hd.data()));
        f.over_parts(n, [&](Range part) {
            for (std::size_t e = part.begin; e < part.end; ++e) {
                x[e] += a * d[e];
                r[e] -= a * hd[e];
            }
        });
    }
    return most;
}

}  // namespace multilevel
