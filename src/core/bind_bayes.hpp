// Bindings of the Bayesian engine.
#pragma once
#include "convert.hpp"
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
    static nb::dict chain_dict(NutsChain& chain, vec draws, std::size_t d) {
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
        .def("constrained", &MarginalPosterior::constrained, nb::arg("x"))
        .def("draw", &MarginalPosterior::draw, nb::arg("x"), nb::arg("seed"), nb::arg("threads"))
        .def("nuts", &MarginalPosterior::nuts, nb::arg("starts"), nb::arg("center"), nb::arg("root"), nb::arg("warmup"),
             nb::arg("draws"), nb::arg("max_depth"), nb::arg("target"), nb::arg("adapt_metric"), nb::arg("seed"),
             nb::arg("threads"));
}
