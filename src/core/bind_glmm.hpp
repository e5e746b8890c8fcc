// Bindings of the generalised engine.
#pragma once
#include "convert.hpp"
#include "glmm.hpp"
#include "joint_mode.hpp"

// Prior precision of a factor's levels: the factor, then as `read_prior` takes it.
using LevelPrior = std::tuple<int, Array, Codes, Codes, Array>;

// Rows of a generalised model with the arrays they live in.
struct GlmmState {
    std::vector<Codes> codes;
    std::vector<std::optional<Array>> z;
    Array x, y;
    std::optional<Array> trials, weights, offset;
    std::tuple<int, int, int, double> family;
    std::vector<int> levels;
    std::vector<LevelPrior> priors;
    double prior_log_det;
    std::unique_ptr<Laplace> laplace;
    std::unique_ptr<Quadrature> quadrature;  // null: Laplace's approximation

    GlmmState(std::vector<Codes> codes_, std::vector<std::optional<Array>> z_, std::vector<int> levels_, Array x_, Array y_,
              std::optional<Array> trials_, std::optional<Array> weights_, std::optional<Array> offset_,
              std::tuple<int, int, int, double> family_, int threads, const std::vector<LevelPrior>& priors_,
              double prior_log_det_)
        : codes(std::move(codes_)), z(std::move(z_)), x(std::move(x_)), y(std::move(y_)), trials(std::move(trials_)),
          weights(std::move(weights_)), offset(std::move(offset_)), family(family_), levels(std::move(levels_)), priors(priors_),
          prior_log_det(prior_log_det_), laplace(fresh(threads)) {}
    // another Laplace of the same rows, for a thread of its own
    std::unique_ptr<Laplace> fresh(int threads) const {
        const Rows r = read_rows(codes, z, levels, x, weights);
        for (const auto* a : {&y}) check(*a, r.n);
        for (const auto* a : {&trials, &weights, &offset})
            if (*a) check(**a, r.n);
        const auto [kind, link, zero, fixed] = family;
        const ResponseRows rows{y.data(), trials ? trials->data() : nullptr, weights ? weights->data() : nullptr,
                                offset ? offset->data() : nullptr, x.data(), r.n, r.p};
        const auto set_priors = [&](Blocks& b) {
            for (const auto& [f, diag, ptr, idx, val] : priors) read_prior(b, f, diag, ptr, idx, val);
        };
        return std::make_unique<Laplace>(r.factors, rows, Family{FamilyKind(kind), LinkKind(link), ZeroKind(zero), fixed},
                                         threads, set_priors, prior_log_det);
    }
    static void check(const Array& a, i64 n) {
        if (a.ndim() != 1 || static_cast<i64>(a.shape(0)) != n) throw std::invalid_argument("a column must be (n,)");
    }
    void check_beta(const Array& beta) const {
        if (beta.size() != static_cast<std::size_t>(laplace->rows.p)) throw std::invalid_argument("beta must be (p,)");
    }
    std::vector<vec> read_parameters(const std::vector<Array>& params) const {
        if (params.size() != static_cast<std::size_t>(laplace->family.parameters()))
            throw std::invalid_argument("parameters are missing");
        std::vector<vec> rows;
        for (const Array& a : params) {
            check(a, laplace->rows.n);
            rows.emplace_back(a.data(), a.data() + a.size());
        }
        return rows;
    }
    // a rule for the standard normal distribution, (Q,) nodes and logs of weights; without nodes Laplace's approximation
    void set_quadrature(const Array& nodes, const Array& log_weights) {
        if (nodes.size() != log_weights.size()) throw std::invalid_argument("nodes and weights must be (Q,) each");
        quadrature.reset();
        if (nodes.size())
            quadrature = std::make_unique<Quadrature>(*laplace, vec(nodes.data(), nodes.data() + nodes.size()),
                                                      vec(log_weights.data(), log_weights.data() + log_weights.size()));
    }
    // F with its derivatives by beta, Lambda and the rows' parameters (the latter without gradient: empty)
    nb::tuple evaluate(const Array& beta, const std::vector<Array>& lambdas, const std::vector<Array>& params, bool want) {
        Laplace& s = *laplace;
        const auto lam = read_lambdas(s.plan, lambdas);
        check_beta(beta);
        const auto rows = read_parameters(params);
        const vec b(beta.data(), beta.data() + beta.size());
        double f;
        vec by_beta;
        std::vector<vec> by_lambda, by_params;
        {
            nb::gil_scoped_release free;
            f = quadrature ? quadrature->value(b, lam, rows, want) : s.value(b, lam, rows);
            if (want && std::isfinite(f)) {
                if (quadrature) quadrature->gradient(by_beta, by_lambda, by_params);
                else s.gradient(by_beta, by_lambda, by_params);
            }
        }
        if (!want || !std::isfinite(f)) return nb::make_tuple(f, nb::none(), nb::none(), nb::none());
        const std::size_t size = by_beta.size();
        return nb::make_tuple(f, array(std::move(by_beta), {size}), write_squares(s.plan, by_lambda), write_rows(by_params));
    }
    static nb::list write_rows(std::vector<vec>& list) {
        nb::list out;
        for (vec& v : list) {
            const std::size_t n = v.size();
            out.append(array(std::move(v), {n}));
        }
        return out;
    }
    // F at the joint mode of fixed and random effects, that beta, F's derivatives with beta following, and P''
    nb::tuple joint_mode(const Array& beta, const std::vector<Array>& lambdas, const std::vector<Array>& params) {
        Laplace& s = *laplace;
        const auto lam = read_lambdas(s.plan, lambdas);
        check_beta(beta);
        const auto rows = read_parameters(params);
        JointMode mode(s);
        mode.beta.assign(beta.data(), beta.data() + beta.size());
        double f;
        std::vector<vec> by_lambda, by_params;
        vec information;
        {
            nb::gil_scoped_release free;
            f = mode.value(lam, rows);
            if (std::isfinite(f)) {
                mode.gradient(by_lambda, by_params);
                information = mode.information();
            }
        }
        if (!std::isfinite(f)) return nb::make_tuple(f, nb::none(), nb::none(), nb::none(), nb::none());
        const std::size_t p = beta.size();
        return nb::make_tuple(f, array(std::move(mode.beta), {p}), write_squares(s.plan, by_lambda), write_rows(by_params),
                              array(std::move(information), {p, p}));
    }
};

// designs of the rows' further parameters (n, m), as the evaluator takes them
inline std::vector<const double*> read_designs(const Laplace& s, const std::vector<std::optional<Array>>& designs, int m) {
    if (m < 0 || designs.size() != static_cast<std::size_t>(s.family.parameters()))
        throw std::invalid_argument("the coordinates or the designs of the rows' parameters do not fit the family");
    std::vector<const double*> out;
    for (const auto& d : designs) {
        if (d && d->size() != static_cast<std::size_t>(s.rows.n * m)) throw std::invalid_argument("a design must be (n, m)");
        out.push_back(d ? d->data() : nullptr);
    }
    return out;
}

// Gradient and Hessian of the deviance along moves (factor, matrix) and the plain coordinates; None where they fail.
inline nb::object glmm_hessian(GlmmState& state, const std::vector<Array>& lambdas, const Array& plain,
                               const std::vector<std::optional<Array>>& designs,
                               const std::vector<std::pair<int, Array>>& moves, const Array& steps, const Array& u) {
    Laplace& s = *state.laplace;
    std::vector<vec> at = read_lambdas(s.plan, lambdas);
    const int m = static_cast<int>(plain.size()) - s.rows.p;
    GlmmEvaluator ev(s, state.quadrature.get(), read_designs(s, designs, m), m);
    std::vector<GlmmEvaluator::Move> list;
    for (const auto& [factor, matrix] : moves) {
        if (factor < 0 || factor >= s.plan.factors || matrix.size() != at[factor].size())
            throw std::invalid_argument("a move does not fit its factor");
        list.push_back({factor, vec(matrix.data(), matrix.data() + matrix.size())});
    }
    at.emplace_back(plain.data(), plain.data() + plain.size());
    const std::size_t size = list.size() + plain.size();
    if (steps.size() != size || u.size() != s.u.size()) throw std::invalid_argument("steps or modes have the wrong size");
    vec gradient, out;
    bool good;
    {
        nb::gil_scoped_release free;
        good = ev.hessian(at, list, vec(steps.data(), steps.data() + size), vec(u.data(), u.data() + u.size()), gradient, out);
    }
    if (!good) return nb::none();
    return nb::make_tuple(array(std::move(gradient), {size}), array(std::move(out), {size, size}));
}

// Search from a start over covariances and plain coordinates (beta, then m coefficients of the rows' parameters).
inline nb::dict fit_glmm(GlmmState& state, const std::vector<Array>& start, const Array& plain,
                         const std::vector<std::optional<Array>>& designs,
                         const std::vector<std::pair<int, std::vector<int>>>& components, int max_evaluations) {
    Laplace& s = *state.laplace;
    std::vector<vec> at = read_lambdas(s.plan, start);
    const auto comps = read_components(s.blocks, components);
    const int m = static_cast<int>(plain.size()) - s.rows.p;
    at.emplace_back(plain.data(), plain.data() + plain.size());
    GlmmEvaluator ev(s, state.quadrature.get(), read_designs(s, designs, m), m);
    FitResult r;
    const Response none;
    {
        nb::gil_scoped_release free;
        TrustRegion<GlmmEvaluator> search(ev, none, comps, max_evaluations);
        r = search.run(at, 0);
    }
    nb::dict d;
    vec last = r.lambda.back();
    const std::size_t size = last.size();
    d["plain"] = array(std::move(last), {size});
    r.lambda.pop_back();
    d["lambdas"] = write_squares(s.plan, r.lambda);
    d["deviance"] = r.deviance;
    d["decrement"] = r.decrement;
    d["gradient_norm"] = r.gradient_norm;
    d["null_slopes"] = r.null_slopes;
    d["rank"] = r.rank;
    d["evaluations"] = r.evaluations;
    d["iterations"] = r.iterations;
    d["status"] = r.status;
    d["min_curvature"] = r.min_curvature;
    d["trace"] = r.trace;
    return d;
}

// Full log density per row with its derivatives: by eta (n, 4), and by each further parameter (n, 3) each.
inline nb::tuple log_densities(std::tuple<int, int, int, double> family, const Array& y, const std::optional<Array>& trials,
                               const Array& eta, const Array& first, const Array& second) {
    const auto [kind, link, zero, fixed] = family;
    const Family f{FamilyKind(kind), LinkKind(link), ZeroKind(zero), fixed};
    const std::size_t n = y.size();
    if (eta.size() != n || first.size() != n || second.size() != n || (trials && trials->size() != n))
        throw std::invalid_argument("every column must be (n,)");
    vec by_eta(4 * n), by_first(3 * n), by_second(3 * n);
    for (std::size_t i = 0; i < n; ++i) {
        const double t = trials ? trials->data()[i] : 1.0;
        using J = Jet<2>;
        const J a = J::parameter(first.data()[i], 0), b = J::parameter(second.data()[i], 1);
        const J r = log_density(f, y.data()[i], t, J::eta(eta.data()[i]), a, b, parameter_part(f, y.data()[i], t, a, b));
        for (int k = 0; k < 4; ++k) by_eta[4 * i + k] = r.d[k];
        by_eta[4 * i] += row_constant(f, y.data()[i], t);
        for (int k = 0; k < 3; ++k) {
            by_first[3 * i + k] = r.a[0][k];
            by_second[3 * i + k] = r.a[1][k];
        }
    }
    return nb::make_tuple(array(std::move(by_eta), {n, 4}), array(std::move(by_first), {n, 3}), array(std::move(by_second), {n, 3}));
}

inline void bind_glmm(nb::module_& m) {
    m.def("log_densities", &log_densities, nb::arg("family"), nb::arg("y"), nb::arg("trials").none(), nb::arg("eta"),
          nb::arg("first"), nb::arg("second"));
    nb::class_<GlmmState>(m, "GlmmState")
        .def(nb::init<std::vector<Codes>, std::vector<std::optional<Array>>, std::vector<int>, Array, Array, std::optional<Array>,
                      std::optional<Array>, std::optional<Array>, std::tuple<int, int, int, double>, int,
                      std::vector<LevelPrior>, double>(),
             nb::arg("codes"), nb::arg("z"), nb::arg("levels"), nb::arg("x"), nb::arg("y"), nb::arg("trials").none(),
             nb::arg("weights").none(), nb::arg("offset").none(), nb::arg("family"), nb::arg("threads"),
             nb::arg("priors") = std::vector<LevelPrior>(), nb::arg("prior_log_det") = 0.0)
        .def("evaluate", &GlmmState::evaluate)
        .def("joint_mode", &GlmmState::joint_mode)
        .def("set_quadrature", &GlmmState::set_quadrature)
        .def("fit", &fit_glmm)
        .def("hessian", &glmm_hessian)
        .def("rows", [](const GlmmState& s) {
            const std::size_t n = s.laplace->eta.size();
            return nb::make_tuple(array(vec(s.laplace->eta), {n}), array(vec(s.laplace->w), {n}), array(vec(s.laplace->d.l1), {n}));
        })
        .def_prop_ro("steps", [](const GlmmState& s) { return s.laplace->steps; })
        .def_prop_rw("u", [](const GlmmState& s) { vec v = s.laplace->u; const std::size_t n = v.size(); return array(std::move(v), {n}); },
                     [](GlmmState& s, const Array& a) {
                         if (a.size() != s.laplace->u.size()) throw std::invalid_argument("u must be (q,)");
                         s.laplace->u.assign(a.data(), a.data() + a.size());
                     });
}
