// The shape NUTS is told of a generalised model's posterior: coordinates in which it is nearly round.
//
// They are whitened at the mode of the Laplace approximation of phi's posterior (Monnahan, Kristensen, Thorson & Carpenter
// 2026, arXiv:2603.02437), and follow the sds of the group effects from there:
//   phi = phi^ + R zeta,  y = y^ + answer(phi) D (phi - phi^) + shift(phi) + scale(phi) S L^{-T} xi,
// with L the factor of the group effects' Hessian there, D the derivative of their mode by phi, S Lambda^ or one.
#pragma once
#include "joint.hpp"

namespace multilevel {

// How the group coordinates' conditional mode, log sds and answer to the other parameters (log of D's factor) move along one
// parameter: knots, and per coordinate its values.
struct JointPath {
    int parameter = 0;
    vec knots;          // distances from the mode, ascending
    vec shifts, scales, answers;  // (q, knots) row-major, zero at the mode

    // weights of the knots at a distance, and their slopes: cubic Hermite pieces, flat beyond the ends
    void weights(double at, vec& value, vec& slope) const {
        const int m = static_cast<int>(knots.size());
        value.assign(m, 0.0);
        slope.assign(m, 0.0);
        if (at <= knots.front()) return void(value.front() = 1);
        if (at >= knots.back()) return void(value.back() = 1);
        int i = 0;
        while (at > knots[i + 1]) ++i;
        const double h = knots[i + 1] - knots[i], t = (at - knots[i]) / h;
        value[i] += (1 + 2 * t) * (1 - t) * (1 - t);
        value[i + 1] += t * t * (3 - 2 * t);
        slope[i] += 6 * t * (t - 1) / h;
        slope[i + 1] += 6 * t * (1 - t) / h;
        tangent(i, h, h * t * (1 - t) * (1 - t), (1 - t) * (1 - 3 * t), value, slope);
        tangent(i + 1, h, h * t * t * (t - 1), t * (3 * t - 2), value, slope);
    }

  private:
    void tangent(int i, double, double weight, double slope_weight, vec& value, vec& slope) const {
        if (i == 0 || i + 1 == static_cast<int>(knots.size())) return;  // flat at the ends
        const double width = knots[i + 1] - knots[i - 1];
        value[i + 1] += weight / width;
        value[i - 1] -= weight / width;
        slope[i + 1] += slope_weight / width;
        slope[i - 1] -= slope_weight / width;
    }
};

// The whitening above, as a density of (zeta, xi): 
// y = y^ + answer(phi) D (phi - phi^) + shift(phi) + scale(phi) S L^{-T} xi.
class WhitenedJoint {
  public:
    struct Shape {
        vec phi, y, root, derivative;  // (d), (q), d x d, q x d, row-major
        std::vector<JointPath> paths;
    };
    WhitenedJoint(JointDensity& density, Factor& factor, const Shape& shape)
        : size(density.size), inner_(density), factor_(factor), shape_(shape), d_(density.parameters), q_(density.plan.q),
          lambda_(factor.lambda) {}
    int size;

    // x = (phi, y)
    vec back(const vec& z) {
        vec x(size), move(d_, 0.0);
        for (int i = 0; i < d_; ++i) {
            for (int j = 0; j < d_; ++j) move[i] += shape_.root[i * d_ + j] * z[j];
            x[i] = shape_.phi[i] + move[i];
        }
        xi_.assign(z.begin() + d_, z.end());
        backward_solve(factor_, xi_.data(), 1);
        turn(xi_, false);
        log_scale_.assign(q_, 0.0);
        double* y = x.data() + d_;
        drift_.assign(q_, 0.0);
        answer_.assign(q_, 0.0);
        for (i64 e = 0; e < q_; ++e) {
            y[e] = shape_.y[e];
            for (int j = 0; j < d_; ++j) drift_[e] += shape_.derivative[e * d_ + j] * move[j];
        }
        weights_.resize(shape_.paths.size());
        slopes_.resize(shape_.paths.size());
        for (std::size_t k = 0; k < shape_.paths.size(); ++k) {
            const JointPath& path = shape_.paths[k];
            path.weights(move[path.parameter], weights_[k], slopes_[k]);
            add(path, weights_[k], path.shifts, y);
            add(path, weights_[k], path.scales, log_scale_.data());
            add(path, weights_[k], path.answers, answer_.data());
        }
        for (i64 e = 0; e < q_; ++e) {
            xi_[e] *= std::exp(log_scale_[e]);
            answer_[e] = std::exp(answer_[e]);
            drift_[e] *= answer_[e];
            y[e] += drift_[e] + xi_[e];
        }
        return x;
    }
    double log_posterior(const vec& z, vec* grad) {
        vec by_x;
        double value = inner_.log_posterior(back(z), grad ? &by_x : nullptr);
        for (double v : log_scale_) value += v;
        if (!grad || !std::isfinite(value)) return value;
        grad->assign(size, 0.0);
        vec by_phi(by_x.begin(), by_x.begin() + d_), by_y(by_x.begin() + d_, by_x.end()), change(q_), stretch(q_),
            turn_more(q_);
        for (i64 e = 0; e < q_; ++e)
            for (int j = 0; j < d_; ++j) by_phi[j] += shape_.derivative[e * d_ + j] * answer_[e] * by_y[e];
        for (std::size_t k = 0; k < shape_.paths.size(); ++k) {
            const JointPath& path = shape_.paths[k];
            std::fill(change.begin(), change.end(), 0.0);
            std::fill(stretch.begin(), stretch.end(), 0.0);
            std::fill(turn_more.begin(), turn_more.end(), 0.0);
            add(path, slopes_[k], path.answers, turn_more.data());
            add(path, slopes_[k], path.shifts, change.data());
            add(path, slopes_[k], path.scales, stretch.data());
            double sum = 0;
            for (i64 e = 0; e < q_; ++e) sum += by_y[e] * (change[e] + turn_more[e] * drift_[e] + stretch[e] * xi_[e]) + stretch[e];
            by_phi[path.parameter] += sum;
        }
        for (int i = 0; i < d_; ++i)
            for (int j = 0; j < d_; ++j) (*grad)[j] += shape_.root[i * d_ + j] * by_phi[i];
        for (i64 e = 0; e < q_; ++e) by_y[e] *= std::exp(log_scale_[e]);
        turn(by_y, true);
        forward_solve(factor_, by_y.data(), 1);
        std::copy(by_y.begin(), by_y.end(), grad->begin() + d_);
        return value;
    }

  private:
    JointDensity& inner_;
    Factor& factor_;
    const Shape& shape_;
    int d_;
    i64 q_;
    std::vector<vec> lambda_;
    vec xi_, log_scale_, drift_, answer_;
    std::vector<vec> weights_, slopes_;

    void add(const JointPath& path, const vec& weights, const vec& values, double* out) const {
        const std::size_t m = path.knots.size();
        for (std::size_t k = 0; k < m; ++k) {
            if (weights[k] == 0) continue;
            for (i64 e = 0; e < q_; ++e) out[e] += weights[k] * values[e * m + k];
        }
    }
    // Lambda^ on the factors that are centred
    void turn(vec& x, bool transposed) const {
        const Plan& plan = inner_.plan;
        for (int f = 0; f < plan.factors; ++f) {
            if (!inner_.model.centred[f]) continue;
            const int k = plan.k[f];
            vec out(k);
            for (i64 j = 0; j < plan.levels[f]; ++j) {
                double* mine = x.data() + plan.offset[f] + j * k;
                for (int i = 0; i < k; ++i) {
                    out[i] = 0;
                    for (int c = 0; c < k; ++c) out[i] += (transposed ? lambda_[f][c * k + i] : lambda_[f][i * k + c]) * mine[c];
                }
                std::copy(out.begin(), out.end(), mine);
            }
        }
    }
};

}  // namespace multilevel
