// The log densities of all rows of a generalised model at once: sums, derivatives by eta and by the further parameters.
#pragma once
#include "factor.hpp"
#include "family.hpp"

namespace multilevel {

// What a generalised model has per row beside Z: all (n); x (n, p) row-major.
struct ResponseRows {
    const double *y, *trials, *weights, *offset, *x;
    i64 n;
    int p;
};

// Derivatives of one row's weighted log density.
struct RowDerivatives {
    vec l1, l2, l3;                    // by eta
    std::vector<vec> a0, a1, a2;       // per further parameter: of the value and of its first two derivatives by eta
    void resize(i64 n, int parameters) {
        for (vec* v : {&l1, &l2, &l3}) v->resize(n);
        for (auto* list : {&a0, &a1, &a2}) {
            list->resize(parameters);
            for (vec& v : *list) v.resize(n);
        }
    }
};

// the two commonest densities by hand: one exponential a row
inline bool canonical(const Family& f) {
    return f.zero == ZeroKind::none && ((f.kind == FamilyKind::binomial && f.link == LinkKind::logit) ||
                                        (f.kind == FamilyKind::poisson && f.link == LinkKind::log));
}
struct CanonicalRow {
    double l, l1, l2, l3;
};
// log(1 + e) for e in (0, 1], to be multiplied by a factor: the quicker function where its last digit does not matter
inline double log_one_plus(double e, double factor) { return factor <= 100 ? std::log(1 + e) : std::log1p(e); }

inline CanonicalRow canonical_row(const Family& f, const ResponseRows& rows, i64 i, double eta) {
    const double w = rows.weights ? rows.weights[i] : 1.0, m = rows.trials ? rows.trials[i] : 1.0, t = w * m, y = w * rows.y[i];
    if ((m > large_count || rows.y[i] > large_count) && about_response(f, rows.y[i], m)) {
        const Jet<0> none(0.0), r = w * log_density(f, rows.y[i], m, Jet<0>::eta(eta), none, none, none);
        return {r.d[0], r.d[1], r.d[2], r.d[3]};
    }
    if (f.kind == FamilyKind::poisson) {
        const double mu = w * std::exp(eta);
        return {y * eta - mu, y - mu, -mu, -mu};
    }
    const double e = std::exp(-std::fabs(eta)), large = 1 / (1 + e), small = e * large;
    const double p = eta >= 0 ? large : small, q = eta >= 0 ? small : large;
    return {y * eta - t * ((eta > 0 ? eta : 0.0) + log_one_plus(e, t)), y - t * p, -t * p * q, -t * p * q * (q - p)};
}
// these return the sum of the log densities
inline double canonical_derivatives(const Family& f, const ResponseRows& rows, const vec& eta, RowDerivatives& out, Range range) {
    double sum = 0;
    if (f.kind == FamilyKind::binomial && !rows.weights && !rows.trials) {  // one logarithm for hundreds of rows
        LogProduct product;
        for (std::size_t i = range.begin; i < range.end; ++i) {
            const double x = eta[i], e = std::exp(-std::fabs(x)), large = 1 / (1 + e), small = e * large;
            const double p = x >= 0 ? large : small, q = x >= 0 ? small : large;
            product.multiply(1 + e);
            sum += rows.y[i] * x - (x > 0 ? x : 0.0);
            out.l1[i] = rows.y[i] - p;
            out.l2[i] = -p * q;
            out.l3[i] = -p * q * (q - p);
        }
        return sum - product.value();
    }
    for (std::size_t i = range.begin; i < range.end; ++i) {
        const CanonicalRow r = canonical_row(f, rows, static_cast<i64>(i), eta[i]);
        sum += r.l;
        out.l1[i] = r.l1;
        out.l2[i] = r.l2;
        out.l3[i] = r.l3;
    }
    return sum;
}

// The rows' further parameters with the part of each log density that depends on them alone, and its derivatives.
struct RowParameters {
    std::vector<vec> values;  // none, one or two (n)
    vec part;                 // (n), or empty where the family has no such part
    std::vector<vec> slopes;  // of it by each parameter

    void set(const Family& f, const ResponseRows& rows, const std::vector<vec>& params, int threads) {
        const bool same = !part.empty() && values == params;
        values = params;
        if (same || !f.has_parameter_part()) return;
        part.resize(rows.n);
        slopes.assign(params.size(), vec(rows.n));
        const auto parts = ranges(rows.n, rows.n > 5000 ? 64 : 1);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                using J = Jet<2>;
                const J first = J::parameter(values[0][i], 0), second = J::parameter(values.size() > 1 ? values[1][i] : 0.0, 1);
                const J p = parameter_part(f, rows.y[i], rows.trials ? rows.trials[i] : 1.0, first, second);
                part[i] = p.value();
                for (std::size_t k = 0; k < values.size(); ++k) slopes[k][i] = p.a[k][0];
            }
        });
    }
    // parameter k of row i, and the part, with derivatives by the first A parameters
    template <int A>
    Jet<A> value(int k, i64 i) const {
        if (k >= static_cast<int>(values.size())) return Jet<A>(0.0);
        return k < A ? Jet<A>::parameter(values[k][i], k) : Jet<A>(values[k][i]);
    }
    template <int A>
    Jet<A> constant(i64 i) const {
        if (part.empty()) return Jet<A>(0.0);
        Jet<A> p(part[i]);
        for (int k = 0; k < A; ++k) p.a[k][0] = slopes[k][i];
        return p;
    }
};

// weighted log density of row i, less its constant, with derivatives by the first A parameters (none or all)
template <int A>
inline Jet<A> row_jet(const Family& f, const ResponseRows& rows, i64 i, double eta, const RowParameters& params) {
    const double w = rows.weights ? rows.weights[i] : 1.0;
    return w * log_density(f, rows.y[i], rows.trials ? rows.trials[i] : 1.0, Jet<A>::eta(eta), params.value<A>(0, i),
                           params.value<A>(1, i), params.constant<A>(i));
}
template <int A>
inline double row_derivatives(const Family& f, const ResponseRows& rows, const vec& eta, const RowParameters& params,
                              RowDerivatives& out, Range range) {
    double sum = 0;
    for (std::size_t i = range.begin; i < range.end; ++i) {
        const Jet<A> r = row_jet<A>(f, rows, static_cast<i64>(i), eta[i], params);
        sum += r.d[0];
        out.l1[i] = r.d[1];
        out.l2[i] = r.d[2];
        out.l3[i] = r.d[3];
        for (int k = 0; k < A; ++k) {
            out.a0[k][i] = r.a[k][0];
            out.a1[k][i] = r.a[k][1];
            out.a2[k][i] = r.a[k][2];
        }
    }
    return sum;
}

// Derivatives by eta alone. A negative binomial with logarithmic link is, given its size, binomial in shape: with
// t = eta - log(size) it has y successes among size + y trials of logit t, but for what does not depend on eta.
inline double eta_derivatives(const Family& f, const ResponseRows& rows, const vec& eta, const RowParameters& params,
                              RowDerivatives& out, Range range) {
    if (canonical(f)) return canonical_derivatives(f, rows, eta, out, range);
    if (f.kind != FamilyKind::negative_binomial2 || f.link != LinkKind::log || f.zero != ZeroKind::none)
        return row_derivatives<0>(f, rows, eta, params, out, range);
    double sum = 0;
    for (std::size_t i = range.begin; i < range.end; ++i) {
        const double y = rows.y[i], w = rows.weights ? rows.weights[i] : 1.0, t = eta[i] - params.values[0][i];
        if (y > large_count) {
            sum += row_derivatives<0>(f, rows, eta, params, out, {i, i + 1});
            continue;
        }
        const double total = std::exp(params.values[0][i]) + y;
        const double e = std::exp(-std::fabs(t)), large = 1 / (1 + e), small = e * large;
        const double p = t >= 0 ? large : small, q = t >= 0 ? small : large, curved = -w * total * p * q;
        sum += w * (params.part[i] + y * t - total * ((t > 0 ? t : 0.0) + log_one_plus(e, total)));
        out.l1[i] = w * (y - total * p);
        out.l2[i] = curved;
        out.l3[i] = curved * (q - p);
    }
    return sum;
}

}  // namespace multilevel
