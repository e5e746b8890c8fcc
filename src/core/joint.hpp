// Log posterior of a generalised model over its parameters and group effects.
//
// Parameters phi: per term sds and correlations, coefficients, the family's further coefficients; all unconstrained. Group
// effects of a factor are centred (b itself) or not (u with b = Lambda u). joint_shape.hpp has the coordinates they are
// sampled in.
#pragma once
#include "laplace.hpp"
#include "random.hpp"
#include "scales.hpp"

namespace multilevel {

struct JointModel {
    std::vector<TermScale> terms;
    std::vector<vec> basis, inverse;  // per factor k x k row-major: user's effects = basis * engine's
    std::vector<Parameter> coefficients, further;
    vec x_inverse, further_inverse;   // engine's coefficients = inverse * user's, row-major
    bool ordered = false;             // further coefficients are thresholds that must ascend
    std::vector<const double*> designs;  // per further parameter of a row (n, m), null if none
    std::vector<char> centred;        // per factor
};

class JointDensity {
  public:
    JointDensity(const Laplace& laplace, const JointModel& model_) : laplace(laplace), model(model_), plan(laplace.plan) {
        for (const TermScale& t : model.terms) parameters += t.coordinates();
        for (const Parameter& q : model.coefficients) parameters += !q.fixed;
        for (const Parameter& q : model.further) parameters += !q.fixed;
        size = parameters + static_cast<int>(plan.q);
    }

    const Laplace& laplace;
    JointModel model;
    const Plan& plan;
    int parameters = 0, size = 0;

    // Laplace approximation of log p(phi | y), with its gradient on request; `at` is a Laplace of one's own
    double marginal(Laplace& at, const vec& phi, vec* grad) {
        constexpr double none = -std::numeric_limits<double>::infinity();
        vec slopes(parameters, 0.0);
        const double prior = read(phi, slopes);
        if (!std::isfinite(prior)) return none;
        const double f = at.value(beta_, lambda_, rows_);
        if (!std::isfinite(f)) return none;
        if (grad) {
            vec by_beta;
            std::vector<vec> by_lambda, by_rows;
            at.gradient(by_beta, by_lambda, by_rows);
            std::vector<vec> by_absolute;
            for (const TermScale& t : model.terms) by_absolute.push_back(absolute(t, by_lambda[t.factor], -1));
            for (double& v : by_beta) v = -v;
            for (vec& r : by_rows)
                for (double& v : r) v = -v;
            chain(phi, by_absolute, by_beta, by_rows, slopes);
            *grad = std::move(slopes);
        }
        return prior - f;
    }

    // x: phi, then the group coordinates y
    double log_posterior(const vec& x, vec* grad) {
        constexpr double none = -std::numeric_limits<double>::infinity();
        const vec phi(x.begin(), x.begin() + parameters);
        vec slopes(parameters, 0.0);
        double out = read(phi, slopes);
        if (!std::isfinite(out)) return none;
        const double* y = x.data() + parameters;
        set_effects(y);
        const i64 n = laplace.rows.n;
        eta_.assign(n, 0.0);
        laplace.refill.spread(b_, eta_, {0, static_cast<std::size_t>(n)});
        add_fixed();
        out += densities();
        if (!std::isfinite(out)) return none;
        vec zr;
        laplace.refill.products(l1_, zr, 1);
        vec by_y(plan.q, 0.0);
        std::vector<vec> by_absolute;
        for (const TermScale& t : model.terms) by_absolute.emplace_back(t.k * t.k, 0.0);
        out += group_priors(y, zr, by_y, by_absolute);
        if (!std::isfinite(out)) return none;
        if (grad) {
            vec by_beta(laplace.rows.p, 0.0);
            for (i64 i = 0; i < n; ++i)
                for (int j = 0; j < laplace.rows.p; ++j) by_beta[j] += laplace.rows.x[i * laplace.rows.p + j] * l1_[i];
            chain(phi, by_absolute, by_beta, by_rows_, slopes);
            grad->assign(slopes.begin(), slopes.end());
            grad->insert(grad->end(), by_y.begin(), by_y.end());
        }
        return out;
    }

    // group coordinates of spherical effects u at phi
    vec coordinates(const vec& phi, const vec& u) {
        vec slopes(parameters, 0.0), out = u;
        read(phi, slopes);
        for (int f = 0; f < plan.factors; ++f)
            if (model.centred[f]) multiply(lambda_[f], f, u, out);
        return out;
    }
    // engine's effects b of group coordinates y at phi
    const vec& effects(const vec& phi, const double* y) {
        vec slopes(parameters, 0.0);
        read(phi, slopes);
        set_effects(y);
        return b_;
    }
    // parameters on the user's scale: per term sds and correlations, coefficients, further coefficients
    vec constrained(const vec& phi) {
        vec slopes(parameters, 0.0), out;
        read(phi, slopes);
        for (const TermScale& t : model.terms) t.append(out);
        out.insert(out.end(), user_beta_.begin(), user_beta_.end());
        out.insert(out.end(), user_further_.begin(), user_further_.end());
        return out;
    }
    const std::vector<vec>& lambdas() const { return lambda_; }

  private:
    vec user_beta_, user_further_, beta_slope_, further_slope_, beta_, b_, eta_, l1_;
    std::vector<vec> lambda_, rows_, by_rows_;
    RowParameters parameters_;
    RowDerivatives derivatives_;

    double read(const vec& phi, vec& slopes) {
        double out = 0;
        int at = 0;
        for (TermScale& t : model.terms) {
            out += t.read(phi.data() + at, slopes.data() + at);
            at += t.coordinates();
        }
        lambda_.resize(plan.factors);
        for (int f = 0; f < plan.factors; ++f) lambda_[f].assign(plan.k[f] * plan.k[f], 0.0);
        for (const TermScale& t : model.terms) {
            const int k = plan.k[t.factor];
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < t.k; ++c)
                    for (int j = c; j < t.k; ++j)
                        lambda_[t.factor][i * k + t.first + c] += model.inverse[t.factor][i * k + t.first + j] * t.lambda(j, c);
        }
        out += read_list(model.coefficients, false, phi, slopes, at, user_beta_, beta_slope_);
        out += read_list(model.further, model.ordered, phi, slopes, at, user_further_, further_slope_);
        beta_ = turned(model.x_inverse, user_beta_);
        set_rows(turned(model.further_inverse, user_further_));
        return out;
    }
    // values of a list of parameters; of ordered ones the coordinates are the first and logs of differences
    static double read_list(const std::vector<Parameter>& list, bool ordered, const vec& phi, vec& slopes, int& at, vec& values,
                            vec& slope) {
        const std::size_t m = list.size();
        values.assign(m, 0.0);
        slope.assign(m, 0.0);
        double out = 0;
        const int first = at;
        vec by_value(m, 0.0);
        for (std::size_t i = 0; i < m; ++i) {
            if (list[i].fixed) {
                values[i] = list[i].value;
                continue;
            }
            const double x = phi[at++];
            if (ordered) {
                const double gap = i ? std::exp(x) : x;
                values[i] = i ? values[i - 1] + gap : x;
                slope[i] = i ? gap : 1;
                out += i ? x : 0;
            } else {
                const auto here = list[i].bounds.at(x);
                values[i] = here.value;
                slope[i] = here.slope;
                out += here.log_jacobian;
                slopes[at - 1] += here.jacobian_slope;
            }
            out += list[i].prior.log(values[i], by_value[i]);
        }
        if (ordered) {
            double sum = 0;
            for (std::size_t i = m; i-- > 0;) {
                sum += by_value[i];
                slopes[first + i] += sum * slope[i] + (i ? 1 : 0);
            }
            return out;
        }
        int k = first;
        for (std::size_t i = 0; i < m; ++i)
            if (!list[i].fixed) slopes[k++] += by_value[i] * slope[i];
        return out;
    }
    static vec turned(const vec& matrix, const vec& v) {
        const std::size_t m = v.size();
        vec out(m, 0.0);
        for (std::size_t i = 0; i < m; ++i)
            for (std::size_t j = 0; j < m; ++j) out[i] += matrix[i * m + j] * v[j];
        return out;
    }
    void set_rows(const vec& further) {
        const i64 n = laplace.rows.n;
        const std::size_t m = further.size();
        rows_.resize(model.designs.size());
        for (std::size_t k = 0; k < rows_.size(); ++k) {
            rows_[k].assign(n, 0.0);
            if (!model.designs[k]) continue;
            for (i64 i = 0; i < n; ++i)
                for (std::size_t j = 0; j < m; ++j) rows_[k][i] += model.designs[k][i * m + j] * further[j];
        }
    }
    void add_fixed() {
        const ResponseRows& r = laplace.rows;
        for (i64 i = 0; i < r.n; ++i) {
            double s = r.offset ? r.offset[i] : 0.0;
            for (int j = 0; j < r.p; ++j) s += r.x[i * r.p + j] * beta_[j];
            eta_[i] += s;
        }
    }
    // out = block-diagonal of (k x k) times v, on the levels of factor f
    void multiply(const vec& matrix, int f, const vec& v, vec& out) const {
        const int k = plan.k[f];
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            const i64 at = plan.offset[f] + j * k;
            for (int i = 0; i < k; ++i) {
                double s = 0;
                for (int c = 0; c < k; ++c) s += matrix[i * k + c] * v[at + c];
                out[at + i] = s;
            }
        }
    }
    void set_effects(const double* y) {
        const vec given(y, y + plan.q);
        b_ = given;
        for (int f = 0; f < plan.factors; ++f)
            if (!model.centred[f]) multiply(lambda_[f], f, given, b_);
    }
    // sum of the rows' log densities, with derivatives by eta (l1_) and by the further parameters (by_rows_)
    double densities() {
        const i64 n = laplace.rows.n;
        l1_.resize(n);
        by_rows_.resize(rows_.size());
        for (vec& v : by_rows_) v.resize(n);
        double sum = laplace.constant();
        if (canonical(laplace.family)) {
            if (derivatives_.l1.empty()) derivatives_.resize(n, 0);
            sum += canonical_derivatives(laplace.family, laplace.rows, eta_, derivatives_, {0, static_cast<std::size_t>(n)});
            l1_ = derivatives_.l1;
            return sum;
        }
        parameters_.set(laplace.family, laplace.rows, rows_, 1);
        switch (rows_.size()) {
            case 0: return sum + jets<0>();
            case 1: return sum + jets<1>();
            default: return sum + jets<2>();
        }
    }
    template <int A>
    double jets() {
        double sum = 0;
        for (i64 i = 0; i < laplace.rows.n; ++i) {
            const Jet<A> r = row_jet<A>(laplace.family, laplace.rows, i, eta_[i], parameters_);
            sum += r.d[0];
            l1_[i] = r.d[1];
            for (int k = 0; k < A; ++k) by_rows_[k][i] = r.a[k][0];
        }
        return sum;
    }
    double group_priors(const double* y, const vec& zr, vec& by_y, std::vector<vec>& by_absolute) {
        double out = 0;
        for (int f = 0; f < plan.factors; ++f)
            if (!model.centred[f]) out += spherical(f, y, zr, by_y);
        for (std::size_t t = 0; t < model.terms.size(); ++t) {
            const TermScale& term = model.terms[t];
            if (model.centred[term.factor]) out += centred(term, y, by_y, by_absolute[t]);
            else by_absolute[t] = absolute(term, spherical_slope(term.factor, y, zr), 1);
        }
        for (int f = 0; f < plan.factors; ++f)
            if (model.centred[f])
                for (i64 e = plan.offset[f]; e < plan.offset[f + 1]; ++e) by_y[e] += zr[e];
        return out;
    }
    double spherical(int f, const double* y, const vec& zr, vec& by_y) const {
        const int k = plan.k[f];
        double square = 0;
        vec qy(plan.levels[f] * k);  // Q y, with Q the levels' known precision
        laplace.prior_product(f, k, y + plan.offset[f], qy.data());
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            const i64 at = plan.offset[f] + j * k;
            for (int c = 0; c < k; ++c) {
                double s = 0;
                for (int i = 0; i < k; ++i) s += lambda_[f][i * k + c] * zr[at + i];
                by_y[at + c] = s - qy[j * k + c];
                square += y[at + c] * qy[j * k + c];
            }
        }
        return -0.5 * square;
    }
    // derivative of the log density by the engine's Lambda of a factor that is not centred
    vec spherical_slope(int f, const double* y, const vec& zr) const {
        const int k = plan.k[f];
        vec out(k * k, 0.0);
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            const i64 at = plan.offset[f] + j * k;
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) out[i * k + c] += zr[at + i] * y[at + c];
        }
        return out;
    }
    // normal density of one term's effects, with v = (absolute factor)^{-1} b: its derivatives by b and by the factor
    double centred(const TermScale& t, const double* y, vec& by_y, vec& by_factor) const {
        const int k = t.k, kf = plan.k[t.factor];
        const i64 count = plan.levels[t.factor];
        const vec& basis = model.basis[t.factor];
        const double levels = static_cast<double>(count);
        vec v(count * k), qv(count * k), w(k), sums(k * k, 0.0);
        double out = 0;
        for (int i = 0; i < k; ++i) out -= levels * std::log(std::fabs(t.lambda(i, i)));
        for (i64 j = 0; j < count; ++j) {
            const double* b = y + plan.offset[t.factor] + j * kf;
            for (int i = 0; i < k; ++i) {
                double s = 0;
                for (int c = 0; c < kf; ++c) s += basis[(t.first + i) * kf + c] * b[c];
                for (int c = 0; c < i; ++c) s -= t.lambda(i, c) * v[j * k + c];
                v[j * k + i] = s / t.lambda(i, i);
            }
        }
        laplace.prior_product(t.factor, k, v.data(), qv.data());
        for (i64 j = 0; j < count; ++j) {
            const i64 at = plan.offset[t.factor] + j * kf;
            for (int i = k; i-- > 0;) {  // w = factor^{-T} Q v
                double s = qv[j * k + i];
                for (int c = i + 1; c < k; ++c) s -= t.lambda(c, i) * w[c];
                w[i] = s / t.lambda(i, i);
            }
            for (int i = 0; i < k; ++i) {
                out -= 0.5 * v[j * k + i] * qv[j * k + i];
                for (int c = 0; c <= i; ++c) sums[i * k + c] += w[i] * v[j * k + c];
                for (int c = 0; c < kf; ++c) by_y[at + c] -= basis[(t.first + i) * kf + c] * w[i];
            }
        }
        for (int i = 0; i < k; ++i) sums[i * k + i] -= levels / t.lambda(i, i);
        by_factor = std::move(sums);
        return out - 0.91893853320467274178 * levels * k;
    }
    // derivative by the absolute factor of one term from that by the engine's Lambda, times a sign
    vec absolute(const TermScale& t, const vec& by_lambda, double sign) const {
        const int kf = plan.k[t.factor];
        vec out(t.k * t.k, 0.0);
        for (int j = 0; j < t.k; ++j)
            for (int c = 0; c < t.k; ++c)
                for (int i = 0; i < kf; ++i)
                    out[j * t.k + c] += sign * model.inverse[t.factor][i * kf + t.first + j] * by_lambda[i * kf + t.first + c];
        return out;
    }
    void chain(const vec& phi, const std::vector<vec>& by_absolute, const vec& by_beta, const std::vector<vec>& by_rows,
               vec& slopes) const {
        int at = 0;
        for (std::size_t t = 0; t < model.terms.size(); ++t) {
            model.terms[t].chain(by_absolute[t], phi.data() + at, slopes.data() + at);
            at += model.terms[t].coordinates();
        }
        chain_list(model.coefficients, false, transposed(model.x_inverse, by_beta), beta_slope_, slopes, at);
        const std::size_t m = model.further.size();
        vec by_further(m, 0.0);
        for (std::size_t k = 0; k < by_rows.size(); ++k)
            if (model.designs[k])
                for (i64 i = 0; i < laplace.rows.n; ++i)
                    for (std::size_t j = 0; j < m; ++j) by_further[j] += model.designs[k][i * m + j] * by_rows[k][i];
        chain_list(model.further, model.ordered, transposed(model.further_inverse, by_further), further_slope_, slopes, at);
    }
    static vec transposed(const vec& matrix, const vec& v) {
        const std::size_t m = v.size();
        vec out(m, 0.0);
        for (std::size_t i = 0; i < m; ++i)
            for (std::size_t j = 0; j < m; ++j) out[j] += matrix[i * m + j] * v[i];
        return out;
    }
    static void chain_list(const std::vector<Parameter>& list, bool ordered, const vec& by_value, const vec& slope, vec& slopes,
                           int& at) {
        const std::size_t m = list.size();
        if (ordered) {
            double sum = 0;
            for (std::size_t i = m; i-- > 0;) {
                sum += by_value[i];
                slopes[at + i] += sum * slope[i];
            }
            at += static_cast<int>(m);
            return;
        }
        for (std::size_t i = 0; i < m; ++i)
            if (!list[i].fixed) slopes[at++] += by_value[i] * slope[i];
    }
};

}  // namespace multilevel
