// Bindings of the Bayesian engine.
#pragma once
#include "bind_glmm.hpp"
#include "convert.hpp"
#include "joint_importance.hpp"
#include "joint_shape.hpp"
#include "marginal.hpp"
#include "nuts.hpp"

// fixed, value, kind of prior, a, b, c, on the positive numbers only, lower and upper limit
using ParameterTuple = std::tuple<bool, double, int, double, double, double, bool, double, double>;
// factor, first effect, effects, kind of correlation, eta, sds, (k, k) fixed root of the correlations
using TermTuple = std::tuple<int, int, int, int, double, std::vector<ParameterTuple>, std::optional<Array>>;

inline Parameter read_parameter(const ParameterTuple& t) {
    const auto& [fixed, value, kind, a, b, c, half, lower, upper] = t;
    return {fixed, value, PriorDensity{PriorKind(kind), a, b, c, half}, Unbounded{lower, upper}};
}
inline vec read_vector(const Array& a, std::size_t size, const char* what) {
    if (a.size() != size) throw std::invalid_argument(std::string(what) + " has the wrong size");
    return vec(a.data(), a.data() + size);
}
inline TermScale read_term(const Plan& plan, const TermTuple& tuple) {
    const auto& [factor, first, k, kind, eta, sds, root] = tuple;
    TermScale out;
    if (factor < 0 || factor >= plan.factors || first < 0 || k < 1 || first + k > plan.k[factor])
        throw std::invalid_argument("a term lies outside its factor");
    if (static_cast<int>(sds.size()) != k && sds.size() != 1) throw std::invalid_argument("a term needs one sd, or one for each effect");
    out.factor = factor;
    out.first = first;
    out.k = k;
    out.kind = CorrelationKind(kind);
    out.eta = eta;
    for (const auto& s : sds) out.sds.push_back(read_parameter(s));
    if (root) {
        out.fixed_correlation = true;
        out.root = read_vector(*root, static_cast<std::size_t>(k) * k, "the root of the correlations");
    }
    return out;
}

// x = center + root xi (row-major), for a density whose shape near its mode is known
template <class Density>
struct Whitened {
    Density& inner;
    const vec &center, &root;
    int size;

    vec back(const vec& xi) const {
        vec x = center;
        for (int i = 0; i < size; ++i)
            for (int j = 0; j < size; ++j) x[i] += root[i * size + j] * xi[j];
        return x;
    }
    double log_posterior(const vec& xi, vec* grad) {
        vec by_x;
        const double value = inner.log_posterior(back(xi), grad ? &by_x : nullptr);
        if (!grad || !std::isfinite(value)) return value;
        grad->assign(size, 0.0);
        for (int i = 0; i < size; ++i)
            for (int j = 0; j < size; ++j) (*grad)[j] += root[i * size + j] * by_x[i];
        return value;
    }
};

inline nb::dict chain_dict(NutsChain& chain, vec draws, std::size_t d) {
    nb::dict out;
    const std::size_t m = chain.done;
    out["x"] = array(std::move(draws), {m, d});
    for (auto& [name, values] : {std::pair<const char*, vec*>{"lp", &chain.log_posterior}, {"energy", &chain.energy},
                                 {"acceptance_rate", &chain.accept}, {"tree_depth", &chain.depth},
                                 {"n_steps", &chain.steps}, {"diverging", &chain.divergent}})
        out[name] = array(std::move(*values), {m});
    out["step_size"] = chain.step_size;
    out["warmup_gradients"] = chain.warmup_gradients;
    return out;
}

// A marginal posterior with what is needed to sample it. One call at a time; stop() and done may come from elsewhere.
struct MarginalPosterior {
    std::shared_ptr<Problem> problem;
    MarginalModel model;
    std::unique_ptr<MarginalDensity> density;
    std::atomic<i64> done{0};
    std::atomic<bool> stopped{false};

    MarginalPosterior(std::shared_ptr<Problem> p, const std::vector<TermTuple>& terms, const ParameterTuple& sigma, double unit,
                      const std::vector<Array>& to_engine, const std::vector<ParameterTuple>& sampled, const Array& maps,
                      const Array& moved, const Array& shift, const Array& precision, const Array& linear, double constant)
        : problem(std::move(p)) {
        const Plan& plan = problem->plan;
        for (const auto& t : terms) model.terms.push_back(read_term(plan, t));
        model.sigma = read_parameter(sigma);
        model.unit = unit;
        model.to_engine = read_lambdas(plan, to_engine);
        for (const auto& s : sampled) model.sampled.push_back(read_parameter(s));
        const std::size_t g = linear.size(), size = plan.p;
        model.integrated = static_cast<int>(g);
        model.maps = read_vector(maps, size * g, "maps");
        model.moved = read_vector(moved, size * sampled.size(), "moved");
        model.shift = read_vector(shift, size, "shift");
        model.precision = read_vector(precision, g * g, "precision");
        model.linear = read_vector(linear, g, "linear");
        model.constant = constant;
        density = fresh(1);
    }
    std::unique_ptr<MarginalDensity> fresh(int threads) const {
        return std::make_unique<MarginalDensity>(problem->blocks, problem->plan, model, threads);
    }
    vec point(const Array& x) const { return read_vector(x, density->size, "the point"); }

    nb::tuple log_posterior(const Array& x, bool want) {
        vec grad;
        double value;
        const vec at = point(x);
        {
            nb::gil_scoped_release free;
            value = density->log_posterior(at, want ? &grad : nullptr);
        }
        if (!want || !std::isfinite(value)) return nb::make_tuple(value, nb::none());
        const std::size_t size = grad.size();
        return nb::make_tuple(value, array(std::move(grad), {size}));
    }
    // body(density, row) for each row of X in fixed parts, each with a density of its own
    template <class Body>
    void each_row(std::size_t rows, int threads, Body&& body) {
        const auto parts = ranges(rows, std::max(1, threads));
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            const auto own = fresh(1);
            for (std::size_t i = parts[t].begin; i < parts[t].end && !stopped; ++i, ++done) body(*own, i);
        });
    }
    void check_rows(const Array& x) const {
        if (x.ndim() != 2 || static_cast<int>(x.shape(1)) != density->size) throw std::invalid_argument("X must be (m, size)");
    }
    nb::object log_posteriors(const Array& x, int threads) {
        check_rows(x);
        const std::size_t m = x.shape(0), d = density->size;
        vec out(m, -std::numeric_limits<double>::infinity());
        {
            nb::gil_scoped_release free;
            each_row(m, threads, [&](MarginalDensity& own, std::size_t i) {
                out[i] = own.log_posterior(vec(x.data() + i * d, x.data() + (i + 1) * d), nullptr);
            });
        }
        return array(std::move(out), {m});
    }
    // the same with what `draw` gives, from one factorisation for both
    nb::tuple log_posteriors_and_draws(const Array& x, std::uint64_t seed, int threads) {
        check_rows(x);
        const std::size_t m = x.shape(0), d = density->size, width = problem->plan.q + problem->plan.p;
        vec out(m, -std::numeric_limits<double>::infinity()), drawn(m * width, std::numeric_limits<double>::quiet_NaN());
        {
            nb::gil_scoped_release free;
            each_row(m, threads, [&](MarginalDensity& own, std::size_t i) {
                const vec at(x.data() + i * d, x.data() + (i + 1) * d);
                Random random(seed, i);
                out[i] = own.log_posterior(at, nullptr);
                if (std::isfinite(out[i])) own.draw(at, random, drawn.data() + i * width);
            });
        }
        return nb::make_tuple(array(std::move(out), {m}), array(std::move(drawn), {m, width}));
    }
    nb::object constrained(const Array& x) {
        check_rows(x);
        const std::size_t m = x.shape(0), d = density->size;
        vec out;
        for (std::size_t i = 0; i < m; ++i) {
            const vec row = density->constrained(vec(x.data() + i * d, x.data() + (i + 1) * d));
            out.insert(out.end(), row.begin(), row.end());
        }
        const std::size_t width = m ? out.size() / m : 0;
        return array(std::move(out), {m, width});
    }
    // per row of X: beta and Lambda u, engine's coordinates; a row's numbers depend on the seed and its position alone
    nb::object draw(const Array& x, std::uint64_t seed, int threads) {
        check_rows(x);
        const std::size_t m = x.shape(0), d = density->size, width = problem->plan.q + problem->plan.p;
        vec out(m * width, std::numeric_limits<double>::quiet_NaN());
        {
            nb::gil_scoped_release free;
            each_row(m, threads, [&](MarginalDensity& own, std::size_t i) {
                Random random(seed, i);
                own.draw(vec(x.data() + i * d, x.data() + (i + 1) * d), random, out.data() + i * width);
            });
        }
        return array(std::move(out), {m, width});
    }
    nb::list nuts(const Array& starts, const Array& center, const Array& root, int warmup, int draws, int max_depth,
                  double target, bool adapt_metric, std::uint64_t seed, int threads) {
        check_rows(starts);
        const std::size_t chains = starts.shape(0), d = density->size;
        const vec middle = point(center), scale = read_vector(root, d * d, "the root");
        std::vector<NutsChain> found(chains);
        std::vector<vec> back(chains);
        {
            nb::gil_scoped_release free;
            parallel_for(chains, threads, [&](std::size_t c) {
                const auto own = fresh(1);
                Whitened<MarginalDensity> white{*own, middle, scale, static_cast<int>(d)};
                Nuts<Whitened<MarginalDensity>> sampler(white, {warmup, draws, max_depth, target, adapt_metric}, Random(seed, c));
                found[c] = sampler.run(vec(starts.data() + c * d, starts.data() + (c + 1) * d), done, stopped);
                for (int i = 0; i < found[c].done; ++i) {
                    const vec x = white.back(vec(found[c].draws.begin() + i * d, found[c].draws.begin() + (i + 1) * d));
                    back[c].insert(back[c].end(), x.begin(), x.end());
                }
            });
        }
        nb::list out;
        for (std::size_t c = 0; c < chains; ++c) out.append(chain_dict(found[c], std::move(back[c]), d));
        return out;
    }
};

// parameter, knots (m), shifts, log scales, logs of answers (q, m)
using PathTuple = std::tuple<int, Array, Array, Array, Array>;

// The joint posterior of a generalised model. One call at a time; stop() and done may come from elsewhere.
struct JointPosterior {
    GlmmState& state;
    std::vector<Array> designs;  // kept alive
    JointModel model;
    std::unique_ptr<JointDensity> density;
    std::atomic<i64> done{0};
    std::atomic<bool> stopped{false};

    JointPosterior(GlmmState& state_, const std::vector<TermTuple>& terms, const std::vector<Array>& basis,
                   const std::vector<Array>& inverse, const std::vector<ParameterTuple>& coefficients, const Array& x_inverse,
                   const std::vector<ParameterTuple>& further, const Array& further_inverse, bool ordered,
                   const std::vector<Array>& designs_, const std::vector<bool>& centred)
        : state(state_), designs(designs_) {
        const Laplace& s = *state.laplace;
        const std::size_t p = s.rows.p, m = further.size();
        for (const auto& t : terms) model.terms.push_back(read_term(s.plan, t));
        model.basis = read_lambdas(s.plan, basis);
        model.inverse = read_lambdas(s.plan, inverse);
        if (coefficients.size() != p) throw std::invalid_argument("one prior per coefficient is needed");
        for (const auto& c : coefficients) model.coefficients.push_back(read_parameter(c));
        for (const auto& c : further) model.further.push_back(read_parameter(c));
        model.x_inverse = read_vector(x_inverse, p * p, "x_inverse");
        model.further_inverse = read_vector(further_inverse, m * m, "further_inverse");
        model.ordered = ordered;
        if (designs.size() != static_cast<std::size_t>(s.family.parameters())) throw std::invalid_argument("designs are missing");
        for (const Array& d : designs) {
            if (d.size() != s.rows.n * m) throw std::invalid_argument("a design must be (n, m)");
            model.designs.push_back(d.data());
        }
        if (static_cast<int>(centred.size()) != s.plan.factors) throw std::invalid_argument("centred needs one flag per factor");
        model.centred.assign(centred.begin(), centred.end());
        density = std::make_unique<JointDensity>(s, model);
    }
    nb::tuple answer(double value, vec grad, bool want) const {
        if (!want || !std::isfinite(value)) return nb::make_tuple(value, nb::none());
        const std::size_t size = grad.size();
        return nb::make_tuple(value, array(std::move(grad), {size}));
    }
    nb::tuple marginal(const Array& phi, bool want) {
        vec grad;
        const vec at = read_vector(phi, density->parameters, "phi");
        double value;
        {
            nb::gil_scoped_release free;
            value = density->marginal(*state.laplace, at, want ? &grad : nullptr);
        }
        return answer(value, std::move(grad), want);
    }
    // group coordinates at the mode that the last call of marginal found
    nb::object group_mode(const Array& phi) {
        vec out = density->coordinates(read_vector(phi, density->parameters, "phi"), state.laplace->u);
        const std::size_t size = out.size();
        return array(std::move(out), {size});
    }
    // per factor the sds (k) of the engine's effects at the last phi
    std::vector<vec> prior_sds() const {
        std::vector<vec> out;
        for (int f = 0; f < state.laplace->plan.factors; ++f) {
            const int k = state.laplace->plan.k[f];
            const vec& root = density->lambdas()[f];
            vec own(k, 0.0);
            for (int i = 0; i < k; ++i) {
                for (int c = 0; c < k; ++c) own[i] += root[i * k + c] * root[i * k + c];
                own[i] = std::sqrt(own[i]);
            }
            out.push_back(own);
        }
        return out;
    }
    // conditional sds of the group coordinates (q) given phi at the mode that the last call of marginal found
    nb::object group_sd() {
        Laplace& s = *state.laplace;
        s.inv.compute({1, 0, 0}, false, s.threads);
        vec out(s.plan.q);
        for (int f = 0; f < s.plan.factors; ++f) {
            const int k = s.plan.k[f];
            const vec& root = density->lambdas()[f];
            for (i64 j = 0; j < s.plan.levels[f]; ++j) {
                const i64 at = s.plan.offset[f] + j * k;
                auto c = [&](int a, int b) {
                    return f < s.plan.sparse_factors ? s.inv.diag_block(f, j)[a * k + b] : s.inv.tail_at(at + a, at + b);
                };
                for (int i = 0; i < k; ++i) {
                    double v = c(i, i);
                    if (model.centred[f]) {
                        v = 0;
                        for (int a = 0; a < k; ++a)
                            for (int b = 0; b < k; ++b) v += root[i * k + a] * root[i * k + b] * c(a, b);
                    }
                    out[at + i] = std::sqrt(v);
                }
            }
        }
        const std::size_t size = out.size();
        return array(std::move(out), {size});
    }
    nb::tuple log_posterior(const Array& x, bool want) {
        vec grad;
        const vec at = read_vector(x, density->size, "the point");
        double value;
        {
            nb::gil_scoped_release free;
            value = density->log_posterior(at, want ? &grad : nullptr);
        }
        return answer(value, std::move(grad), want);
    }
    void check_rows(const Array& x, int width) const {
        if (x.ndim() != 2 || static_cast<int>(x.shape(1)) != width) throw std::invalid_argument("rows have the wrong length");
    }
    nb::object constrained(const Array& phi) {
        const int d = density->parameters;
        check_rows(phi, d);
        const std::size_t m = phi.shape(0);
        vec out;
        for (std::size_t i = 0; i < m; ++i) {
            const vec row = density->constrained(vec(phi.data() + i * d, phi.data() + (i + 1) * d));
            out.insert(out.end(), row.begin(), row.end());
        }
        const std::size_t width = m ? out.size() / m : 0;
        return array(std::move(out), {m, width});
    }
    // engine's group effects of points (m, size)
    nb::object effects(const Array& x) {
        check_rows(x, density->size);
        const std::size_t m = x.shape(0), q = state.laplace->plan.q, d = density->parameters;
        vec out(m * q);
        {
            nb::gil_scoped_release free;
            for (std::size_t i = 0; i < m; ++i) {
                const double* row = x.data() + i * (d + q);
                const vec& b = density->effects(vec(row, row + d), row + d);
                std::copy(b.begin(), b.end(), out.begin() + i * q);
            }
        }
        return array(std::move(out), {m, q});
    }
    // per row of phi (m, parameters): log of its prior times an unbiased estimate of the likelihood from outer and inner
    // points; with `want` the engine's group effects (m, q) chosen in proportion, too. A row's numbers depend on the seed and its id alone.
    nb::tuple importance(const Array& phi, const Codes& ids, const Array& start, int outer, int inner,
                         std::uint64_t seed, int threads, bool want) {
        const std::size_t d = density->parameters, q = state.laplace->plan.q;
        check_rows(phi, static_cast<int>(d));
        const std::size_t m = phi.shape(0);
        if (ids.size() != m || outer < 1 || inner < 1) throw std::invalid_argument("ids must be (m,), points positive");
        const vec first = read_vector(start, q, "the start");
        vec out(m, -std::numeric_limits<double>::infinity()), effects(want ? m * q : 0, 0.0);
        JointModel spherical = model;
        spherical.centred.assign(model.centred.size(), 0);
        {
            nb::gil_scoped_release free;
            const auto parts = ranges(m, std::max(1, threads));
            parallel_for(parts.size(), threads, [&](std::size_t t) {
                const auto at = state.fresh(1);
                JointDensity own(*at, spherical);
                EffectSampler sampler(own, *at, outer, inner);
                vec chosen;
                for (std::size_t i = parts[t].begin; i < parts[t].end && !stopped; ++i, ++done) {
                    const vec row(phi.data() + i * d, phi.data() + (i + 1) * d);
                    out[i] = sampler.estimate(row, first, Random(seed, ids.data()[i]), want ? &chosen : nullptr);
                    if (!want || !std::isfinite(out[i])) continue;
                    const vec& b = own.effects(row, chosen.data());
                    std::copy(b.begin(), b.end(), effects.begin() + i * q);
                }
            });
        }
        const std::size_t rows = want ? m : 0;
        return nb::make_tuple(array(std::move(out), {m}), array(std::move(effects), {rows, q}));
    }
    // Laplace approximations of log p(phi | y) per row of phi
    nb::object marginals(const Array& phi, const Array& start, int threads) {
        const std::size_t d = density->parameters;
        check_rows(phi, static_cast<int>(d));
        const std::size_t m = phi.shape(0);
        const vec first = read_vector(start, state.laplace->plan.q, "the start");
        vec out(m, -std::numeric_limits<double>::infinity());
        {
            nb::gil_scoped_release free;
            const auto parts = ranges(m, std::max(1, threads));
            parallel_for(parts.size(), threads, [&](std::size_t t) {
                const auto at = state.fresh(1);
                JointDensity own(*at, model);
                for (std::size_t i = parts[t].begin; i < parts[t].end && !stopped; ++i, ++done) {
                    at->u = first;
                    out[i] = own.marginal(*at, vec(phi.data() + i * d, phi.data() + (i + 1) * d), nullptr);
                }
            });
        }
        return array(std::move(out), {m});
    }
    // every so manyth draw, (done, size), or of the parameters alone
    nb::list nuts(const Array& starts, const Array& phi, const Array& y, const Array& root, const Array& derivative,
                  const std::vector<PathTuple>& paths, int warmup, int draws, int max_depth, double target, bool adapt_metric,
                  std::uint64_t seed, int threads, int thin, bool parameters_only) {
        check_rows(starts, density->size);
        const std::size_t chains = starts.shape(0), size = density->size, d = density->parameters, q = size - d;
        WhitenedJoint::Shape shape{read_vector(phi, d, "phi"), read_vector(y, q, "y"), read_vector(root, d * d, "the root"),
                                   read_vector(derivative, q * d, "the derivative"), {}};
        for (const auto& [parameter, knots, shifts, scales, answers] : paths) {
            const std::size_t m = knots.size();
            if (parameter < 0 || parameter >= static_cast<int>(d) || m < 3) throw std::invalid_argument("a path is not one");
            shape.paths.push_back({parameter, read_vector(knots, m, "knots"), read_vector(shifts, q * m, "shifts"),
                                   read_vector(scales, q * m, "scales"), read_vector(answers, q * m, "answers")});
        }
        std::vector<NutsChain> found(chains);
        const std::size_t width = parameters_only ? d : size;
        const NutsOptions options{warmup, draws, max_depth, target, adapt_metric, thin, static_cast<int>(width)};
        bool there = false;
        {
            nb::gil_scoped_release free;
            there = std::isfinite(density->marginal(*state.laplace, shape.phi, nullptr));  // the factor at the mode
            if (there) parallel_for(chains, threads, [&](std::size_t c) {
                JointDensity own(*state.laplace, model);
                WhitenedJoint white(own, state.laplace->fac, shape);
                Nuts<WhitenedJoint> sampler(white, options, Random(seed, c));
                found[c] = sampler.run(vec(starts.data() + c * size, starts.data() + (c + 1) * size), done, stopped);
                vec z(size, 0.0);
                for (int i = 0; i < found[c].done; ++i) {
                    double* row = found[c].draws.data() + i * width;
                    std::copy_n(row, width, z.data());
                    const vec x = white.back(z);
                    std::copy_n(x.data(), width, row);
                }
            });
        }
        if (!there) throw std::runtime_error("the posterior cannot be evaluated at its mode");
        nb::list out;
        for (std::size_t c = 0; c < chains; ++c) out.append(chain_dict(found[c], std::move(found[c].draws), width));
        return out;
    }
};

inline void bind_bayes(nb::module_& m) {
    nb::class_<MarginalPosterior>(m, "MarginalPosterior")
        .def(nb::init<std::shared_ptr<Problem>, const std::vector<TermTuple>&, const ParameterTuple&, double,
                      const std::vector<Array>&, const std::vector<ParameterTuple>&, const Array&, const Array&, const Array&,
                      const Array&, const Array&, double>(),
             nb::arg("problem"), nb::arg("terms"), nb::arg("sigma"), nb::arg("unit"), nb::arg("to_engine"), nb::arg("sampled"),
             nb::arg("maps"), nb::arg("moved"), nb::arg("shift"), nb::arg("precision"), nb::arg("linear"), nb::arg("constant"))
        .def_prop_ro("size", [](const MarginalPosterior& s) { return s.density->size; })
        .def_prop_ro("done", [](const MarginalPosterior& s) { return s.done.load(); })
        .def("stop", [](MarginalPosterior& s) { s.stopped = true; })
        .def("restart", [](MarginalPosterior& s) { s.stopped = false; s.done = 0; })
        .def("log_posterior", &MarginalPosterior::log_posterior, nb::arg("x"), nb::arg("gradient"))
        .def("log_posteriors", &MarginalPosterior::log_posteriors, nb::arg("x"), nb::arg("threads"))
        .def("log_posteriors_and_draws", &MarginalPosterior::log_posteriors_and_draws, nb::arg("x"), nb::arg("seed"),
             nb::arg("threads"))
        .def("constrained", &MarginalPosterior::constrained, nb::arg("x"))
        .def("draw", &MarginalPosterior::draw, nb::arg("x"), nb::arg("seed"), nb::arg("threads"))
        .def("nuts", &MarginalPosterior::nuts, nb::arg("starts"), nb::arg("center"), nb::arg("root"), nb::arg("warmup"),
             nb::arg("draws"), nb::arg("max_depth"), nb::arg("target"), nb::arg("adapt_metric"), nb::arg("seed"),
             nb::arg("threads"));
    nb::class_<JointPosterior>(m, "JointPosterior")
        .def(nb::init<GlmmState&, const std::vector<TermTuple>&, const std::vector<Array>&, const std::vector<Array>&,
                      const std::vector<ParameterTuple>&, const Array&, const std::vector<ParameterTuple>&, const Array&, bool,
                      const std::vector<Array>&, const std::vector<bool>&>(),
             nb::keep_alive<1, 2>(), nb::arg("state"), nb::arg("terms"), nb::arg("basis"), nb::arg("inverse"),
             nb::arg("coefficients"), nb::arg("x_inverse"), nb::arg("further"), nb::arg("further_inverse"), nb::arg("ordered"),
             nb::arg("designs"), nb::arg("centred"))
        .def_prop_ro("size", [](const JointPosterior& s) { return s.density->size; })
        .def_prop_ro("parameters", [](const JointPosterior& s) { return s.density->parameters; })
        .def_prop_ro("flops", [](const JointPosterior& s) { return s.state.laplace->plan.flops; })
        .def_prop_ro("done", [](const JointPosterior& s) { return s.done.load(); })
        .def("stop", [](JointPosterior& s) { s.stopped = true; })
        .def("restart", [](JointPosterior& s) { s.stopped = false; s.done = 0; })
        .def("marginal", &JointPosterior::marginal, nb::arg("phi"), nb::arg("gradient"))
        .def("group_sd", &JointPosterior::group_sd)
        .def("prior_sds", &JointPosterior::prior_sds)
        .def("group_mode", &JointPosterior::group_mode, nb::arg("phi"))
        .def("log_posterior", &JointPosterior::log_posterior, nb::arg("x"), nb::arg("gradient"))
        .def("constrained", &JointPosterior::constrained, nb::arg("phi"))
        .def("effects", &JointPosterior::effects, nb::arg("x"))
        .def("importance", &JointPosterior::importance, nb::arg("phi"), nb::arg("ids"), nb::arg("start"), nb::arg("outer"),
             nb::arg("inner"), nb::arg("seed"), nb::arg("threads"), nb::arg("effects"))
        .def("marginals", &JointPosterior::marginals, nb::arg("phi"), nb::arg("start"), nb::arg("threads"))
        .def("nuts", &JointPosterior::nuts, nb::arg("starts"), nb::arg("phi"), nb::arg("y"), nb::arg("root"),
             nb::arg("derivative"), nb::arg("paths"), nb::arg("warmup"), nb::arg("draws"), nb::arg("max_depth"), nb::arg("target"),
             nb::arg("adapt_metric"), nb::arg("seed"), nb::arg("threads"), nb::arg("thin") = 1, nb::arg("parameters_only") = false);
}
