// Minimisation of TreeSoftmax's objective by Newton's steps, each found by preconditioned conjugate gradients as well as it
// deserves and within a radius of trust (Steihaug 1983; Lin, Weng & Keerthi 2008), and solves with its Hessian.
//
// The preconditioner knows the tree and the curvature by each feature, so that a step takes few products; beside the data
// there are eight vectors of the size of w, where L-BFGS with ten pairs has 24.
#pragma once
#include <functional>
#include <vector>

#include "tree_softmax.hpp"

namespace multilevel {

using Stopped = std::function<bool()>;

struct TreeOptimum {
    double value = 0, gap = 0;  // gap: what F is above its minimum, as the quadratic model before the last step had it
    int evaluations = 0;        // values with gradient, and products
    bool converged = false;     // or no digits left
};

// x = Hessian^-1 right at the w of the last value, from x = 0 or the x given, until the residual is `tolerance` times the
// right side in the preconditioner's norm, or until x (from 0) is `radius` long in its inverse's; the length of x is told.
// Needs set_curvature. Returns the products.
template <class T>
int solve_with_hessian(TreeSoftmax<T>& f, const double* scales, const T* right, T* x, bool from_x, double tolerance, int most,
                       const Stopped& stopped, double radius = std::numeric_limits<double>::infinity(), double* x_length = nullptr) {
    const std::size_t n = f.size();
    std::vector<T> r(right, right + n), z(n), d(n, T(0)), hd(n);
    f.precondition(right, scales, z.data());
    const double enough = tolerance * tolerance * f.dot(right, z.data());
    int products = 0;
    if (from_x) {
        f.product(x, scales, hd.data());
        ++products;
        f.over_parts(n, [&](Range part) {
            for (std::size_t e = part.begin; e < part.end; ++e) r[e] -= hd[e];
        });
        f.precondition(r.data(), scales, z.data());
    } else {
        std::fill(x, x + n, T(0));
    }
    double rz = f.dot(r.data(), z.data());
    double xx = 0, xd = 0, dd = rz;  // products of x and d in the preconditioner's inverse
    T beta = 0;
    while (products < most && rz > enough && !stopped()) {
        f.over_parts(n, [&](Range part) {
            for (std::size_t e = part.begin; e < part.end; ++e) d[e] = z[e] + beta * d[e];
        });
        f.product(d.data(), scales, hd.data());
        ++products;
        const double curve = f.dot(d.data(), hd.data());
        if (!(curve > 0) && !std::isfinite(radius)) break;
        double along = rz / curve;
        // labels of inner nodes can bend the objective downwards: then to the edge
        const bool leaves = !(curve > 0) || xx + along * (2 * xd + along * dd) >= radius * radius;
        if (leaves) along = (std::sqrt(xd * xd + dd * (radius * radius - xx)) - xd) / dd;
        xx += along * (2 * xd + along * dd);
        const T a = static_cast<T>(along);
        f.over_parts(n, [&](Range part) {
            for (std::size_t e = part.begin; e < part.end; ++e) {
                x[e] += a * d[e];
                r[e] -= a * hd[e];
            }
        });
        if (leaves) break;
        f.precondition(r.data(), scales, z.data());
        const double next = f.dot(r.data(), z.data()), ratio = next / rz;
        beta = static_cast<T>(ratio);
        xd = ratio * (xd + along * dd);
        dd = next + ratio * ratio * dd;
        rz = next;
    }
    if (x_length) *x_length = std::sqrt(xx);
    return products;
}

// w to the minimum: until a Newton step promises no more than `gap`, that step taken too
template <class T>
TreeOptimum minimise(TreeSoftmax<T>& f, const double* scales, T* w, double gap, int most, const Stopped& stopped) {
    const std::size_t n = f.size();
    std::vector<T> gradient(n), step(n), next(n), next_gradient(n);
    TreeOptimum out;
    out.value = f.value(w, scales, gradient.data());
    out.evaluations = 1;
    double radius = 0;
    int idle = 0;
    while (true) {
        f.set_curvature();
        f.precondition(gradient.data(), scales, step.data());
        const double newton = std::sqrt(f.dot(gradient.data(), step.data()));  // length of Newton's step, nearly
        if (newton == 0) {
            out.converged = true;
            return out;
        }
        if (radius == 0) radius = 0.25 * newton;
        // rough steps far away; near the minimum better ones, since then each squares what is left
        const double forcing = newton > 0.5 * radius ? 0.3 : 0.1;
        double length = 0;
        out.evaluations += solve_with_hessian(f, scales, gradient.data(), step.data(), false, forcing, 200, stopped, radius, &length);
        const double slope = -f.dot(gradient.data(), step.data());
        const bool inside = length < 0.999 * radius;
        out.gap = inside ? -0.5 * slope : 0.5 * newton * newton;
        const double noise = 4 * std::numeric_limits<T>::epsilon() * std::abs(out.value);  // rounding of the logits
        double stride = 1;
        bool taken = false;
        for (int tries = 0; tries < 30 && !taken; ++tries) {
            f.over_parts(n, [&](Range part) {
                for (std::size_t e = part.begin; e < part.end; ++e) next[e] = w[e] - static_cast<T>(stride) * step[e];
            });
            const double value = f.value(next.data(), scales, next_gradient.data());
            ++out.evaluations;
            const double dropped = out.value - value;
            taken = dropped >= -1e-4 * stride * slope - noise;
            if (!taken) {
                stride *= dropped < stride * slope ? 0.25 : 0.5;
                continue;
            }
            // a slope that has stayed says that the step could have been longer
            const double slope_left = -f.dot(next_gradient.data(), step.data());
            if (stride < 1) radius = stride * length;
            else if (slope_left < 0.25 * slope) radius = std::max(radius, 3 * length);
            else if (slope_left < -0.5 * slope && !inside) radius *= 1.5;
            // where values cannot tell any more, steps that do not lower the gradient either are the last
            const bool better = dropped > noise || f.dot(next_gradient.data(), next_gradient.data()) <
                                                       0.25 * f.dot(gradient.data(), gradient.data());
            idle = better ? 0 : idle + 1;
            std::copy(next.begin(), next.end(), w);
            gradient.swap(next_gradient);
            out.value = value;
        }
        const bool spent = idle > 1 || (!taken && out.gap <= 10 * noise);  // no digits are left
        out.converged = spent || (taken && stride == 1 && inside && out.gap <= gap);
        if (out.converged || !taken || out.evaluations >= most || stopped()) return out;
    }
}

}  // namespace multilevel
