// Python bindings: float64/int arrays in and out, opaque handles between; sentences about statuses are Python's.
#include <memory>
#include <optional>

#include <nanobind/stl/tuple.h>
#include <tuple>

#include "saved.hpp"
#include "start.hpp"
#include "trust.hpp"
#include "bind_bayes.hpp"
#include "bind_taxonomy.hpp"
#include "bind_glmm.hpp"

using Prior = std::tuple<int, Array, Codes, Codes, Array>;  // factor; diagonal, pointers, levels, values of its precision

// One factorisation that stays, for values, gradients, solves at one Lambda.
struct State {
    std::shared_ptr<Problem> problem;
    Evaluator ev;
    State(std::shared_ptr<Problem> p, bool reml, int threads)
        : problem(p), ev(p->blocks, p->plan, reml, threads) {}
    int set(const std::vector<Array>& lambdas) {
        const auto lam = read_lambdas(problem->plan, lambdas);
        nb::gil_scoped_release free;
        return static_cast<int>(ev.fac.evaluate(lam, problem->blocks.y, ev.threads));
    }
    nb::list gradient(double wu, double wx, double wy) {
        {
            nb::gil_scoped_release free;
            ev.inv.compute({wu, wx, wy}, true, ev.threads);
        }
        return write_squares(problem->plan, ev.inv.gradient);
    }
    // diagonal blocks (J, k, k) per factor of L^{-T} diag(w) L^{-1}
    nb::list inverse_blocks(double wu, double wx) {
        const Plan& plan = problem->plan;
        std::vector<vec> out;
        {
            nb::gil_scoped_release free;
            ev.inv.compute({wu, wx, 0.0}, false, ev.threads);
            for (int f = 0; f < plan.factors; ++f) {
                const int k = plan.k[f];
                vec v(static_cast<std::size_t>(plan.levels[f]) * k * k);
                for (i64 j = 0; j < plan.levels[f]; ++j)
                    for (int a = 0; a < k; ++a)
                        for (int c = 0; c < k; ++c)
                            v[(j * k + a) * k + c] =
                                f < plan.sparse_factors
                                    ? ev.inv.diag_block(f, j)[a * k + c]
                                    : ev.inv.tail_at(plan.offset[f] + j * k + a, plan.offset[f] + j * k + c);
                out.push_back(std::move(v));
            }
        }
        nb::list list;
        for (int f = 0; f < plan.factors; ++f)
            list.append(array(out[f], {std::size_t(plan.levels[f]), std::size_t(plan.k[f]), std::size_t(plan.k[f])}));
        return list;
    }
    nb::object solution() {
        vec x;
        {
            nb::gil_scoped_release free;
            x = multilevel::solution(ev.fac);
        }
        const std::size_t size = x.size();
        return array(std::move(x), {size});
    }
    // lower-triangular L of the X block, (p, p)
    nb::object l_x() {
        const Plan& plan = problem->plan;
        vec out(plan.p * plan.p, 0.0);
        for (int i = 0; i < plan.p; ++i)
            for (int j = 0; j <= i; ++j) out[i * plan.p + j] = ev.fac.l_x(i, j);
        return array(std::move(out), {std::size_t(plan.p), std::size_t(plan.p)});
    }
    nb::object solve(const Array& rhs, bool backward) {
        const std::size_t rows = static_cast<std::size_t>(problem->plan.q + problem->plan.p);
        if (rhs.ndim() != 2 || rhs.shape(0) != rows) throw std::invalid_argument("the right-hand side must be (q + p, r)");
        vec x(rhs.data(), rhs.data() + rhs.size());
        const int r = static_cast<int>(rhs.shape(1));
        {
            nb::gil_scoped_release free;
            if (backward) backward_solve(ev.fac, x.data(), r);
            else forward_solve(ev.fac, x.data(), r);
        }
        return array(std::move(x), {rows, std::size_t(r)});
    }
};

// Products with pieces of the problem on (q + p, r): [Z X]'W[Z X] rhs, Lambda rhs (or Lambda'rhs), and
// (Lambda'Z'WZ Lambda + I)^{-1} rhs on the random rows with the X rows taken as zero.
enum class Product { cross, lambda, lambda_transposed, random_inverse };
static nb::object multiply(State& state, const Array& rhs, Product what) {
    const Plan& plan = state.problem->plan;
    const std::size_t q = static_cast<std::size_t>(plan.q), rows = q + plan.p;
    if (rhs.ndim() != 2 || rhs.shape(0) != rows) throw std::invalid_argument("the right-hand side must be (q + p, r)");
    vec x(rhs.data(), rhs.data() + rhs.size());
    const int r = static_cast<int>(rhs.shape(1));
    {
        nb::gil_scoped_release free;
        Factor& fac = state.ev.fac;
        if (what == Product::cross) {
            vec out(x.size());
            cross_multiply(fac, x.data(), out.data(), r);
            x.swap(out);
        } else if (what == Product::random_inverse) {
            std::fill(x.begin() + q * r, x.end(), 0.0);
            forward_solve(fac, x.data(), r);
            std::fill(x.begin() + q * r, x.end(), 0.0);
            backward_solve(fac, x.data(), r);
        } else {
            apply_lambda(fac, x.data(), r, what == Product::lambda_transposed);
        }
    }
    return array(std::move(x), {rows, std::size_t(r)});
}

// Per row, v'(L L')^{-1}v with v from the row's levels (effects already times Lambda) and X; NaN off the pattern.
// With `fixed` false the X columns count as known (ML): L^{-T} diag(1, 0) L^{-1} takes its place. `factors` says which
// factor each pair of codes and effects belongs to, ascending; two levels of one factor are given smaller first.
static nb::object estimation_var(State& state, const Array& x, const std::vector<Codes>& codes,
                                 const std::vector<Array>& effects, const std::vector<int>& factors, bool fixed) {
    const Plan& plan = state.problem->plan;
    if (x.ndim() != 2) throw std::invalid_argument("estimation_var needs X (m, p)");
    const std::size_t m = x.shape(0), entries = factors.size();
    if (x.shape(1) != std::size_t(plan.p) || codes.size() != entries || effects.size() != entries)
        throw std::invalid_argument("estimation_var needs X (m, p) and one array of codes and effects per factor");
    for (std::size_t e = 0; e < entries; ++e) {
        const int f = factors[e];
        if (f < 0 || f >= plan.factors || (e && f < factors[e - 1])) throw std::invalid_argument("factors must ascend");
        if (codes[e].size() != m || effects[e].size() != m * plan.k[f])
            throw std::invalid_argument("codes must be (m,) and effects (m, k)");
        for (std::size_t i = 0; i < m; ++i)
            if (codes[e].data()[i] >= plan.levels[f]) throw std::invalid_argument("a code lies outside its factor's levels");
    }
    vec out(m);
    {
        nb::gil_scoped_release free;
        state.ev.inv.compute({1.0, fixed ? 1.0 : 0.0, 0.0}, false, state.ev.threads);
        const auto parts = ranges(m, 64);
        parallel_for(parts.size(), m > 1000 ? state.ev.threads : 1, [&](std::size_t t) {
            std::vector<i64> index;
            vec value;
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                index.clear();
                value.clear();
                for (std::size_t e = 0; e < entries; ++e) {
                    const int f = factors[e];
                    const i64 code = codes[e].data()[i];
                    for (int c = 0; code >= 0 && c < plan.k[f]; ++c) {
                        index.push_back(plan.offset[f] + code * plan.k[f] + c);
                        value.push_back(effects[e].data()[i * plan.k[f] + c]);
                    }
                }
                out[i] = state.ev.inv.quadratic(index, value, x.data() + i * plan.p);
            }
        });
    }
    return array(std::move(out), {m});
}

// At plus and minus each step along rank-one directions: gradients along all of them, r2 and the X factor.
static nb::dict differences(State& state, const std::vector<Array>& lambdas, const std::vector<int>& groups,
                            const std::vector<Array>& moves, const std::vector<double>& steps) {
    const Plan& plan = state.problem->plan;
    const auto center = read_lambdas(plan, lambdas);
    const std::size_t r = groups.size(), p = plan.p;
    if (moves.size() != r || steps.size() != r) throw std::invalid_argument("one move and step per direction is needed");
    for (std::size_t i = 0; i < r; ++i) {
        if (groups[i] < 0 || groups[i] >= plan.factors) throw std::invalid_argument("a direction names no factor");
        if (moves[i].size() != center[groups[i]].size()) throw std::invalid_argument("a move must be (k, k)");
    }
    vec gradients(2 * r * r), r2(2 * r), l_x(2 * r * p * p, 0.0);
    bool failed = false;
    {
        nb::gil_scoped_release free;
        Evaluator& ev = state.ev;
        failed = ev.fac.evaluate(center, state.problem->blocks.y, ev.threads) != Status::ok;
        const double s2 = ev.fac.r2 / ev.df;
        for (std::size_t at = 0; at < 2 * r && !failed; ++at) {
            const std::size_t i = at / 2;
            std::vector<vec> moved = center;
            for (std::size_t e = 0; e < moves[i].size(); ++e)
                moved[groups[i]][e] += (at % 2 ? -steps[i] : steps[i]) * moves[i].data()[e];
            failed = ev.fac.evaluate(moved, state.problem->blocks.y, ev.threads) != Status::ok;
            if (failed) break;
            ev.inv.compute({1.0, ev.reml ? 1.0 : 0.0, ev.fac.r2 / s2}, true, ev.threads);
            for (std::size_t j = 0; j < r; ++j)
                for (std::size_t e = 0; e < moves[j].size(); ++e)
                    gradients[at * r + j] += ev.inv.gradient[groups[j]][e] * moves[j].data()[e];
            r2[at] = ev.fac.r2;
            for (std::size_t a = 0; a < p; ++a)
                for (std::size_t c = 0; c <= a; ++c) l_x[(at * p + a) * p + c] = ev.fac.l_x(a, c);
        }
        ev.fac.evaluate(center, state.problem->blocks.y, ev.threads);
    }
    nb::dict d;
    d["failed"] = failed;
    d["gradients"] = array(std::move(gradients), {r, 2, r});
    d["r2"] = array(std::move(r2), {r, 2});
    d["l_x"] = array(std::move(l_x), {r, 2, p, p});
    return d;
}

static nb::dict fit_dict(const Plan& plan, const FitResult& r, Evaluator& ev) {
    nb::dict d;
    d["lambdas"] = write_squares(plan, r.lambda);
    if (!r.weakest.empty()) d["weakest"] = write_squares(plan, r.weakest);
    d["deviance"] = r.deviance;
    d["log_det_u"] = ev.fac.log_det_u;
    d["log_det_x"] = ev.fac.log_det_x;
    d["r2"] = ev.fac.r2;
    d["decrement"] = r.decrement;
    d["gradient_norm"] = r.gradient_norm;
    d["min_curvature"] = r.min_curvature;
    d["null_slopes"] = r.null_slopes;
    d["rank"] = r.rank;
    d["evaluations"] = r.evaluations;
    d["iterations"] = r.iterations;
    d["restarts"] = r.restarts;
    d["status"] = r.status;
    d["failure"] = static_cast<int>(ev.fac.status);
    d["trace"] = r.trace;
    return d;
}

static nb::dict fit(State& state, const std::vector<Array>& start,
                    const std::vector<std::pair<int, std::vector<int>>>& components, int max_evaluations, int em_steps) {
    const auto lam = read_lambdas(state.problem->plan, start);
    const auto comps = read_components(state.problem->blocks, components);
    FitResult result;
    {
        nb::gil_scoped_release free;
        state.ev.evaluations = 0;
        TrustRegion<Evaluator> search(state.ev, state.problem->blocks.y, comps, max_evaluations);
        result = search.run(lam, em_steps);
    }
    return fit_dict(state.problem->plan, result, state.ev);
}

// Many responses on one design: (r, n) in; per response Lambda entries, beta, r2, deviance, status out.
static nb::dict refit(const std::shared_ptr<Problem>& problem, const std::vector<Codes>& codes,
                      const std::vector<std::optional<Array>>& z, const std::vector<int>& levels, const Array& x,
                      const std::optional<Array>& w, const Array& ys,
                      const std::vector<std::pair<int, std::vector<int>>>& components, bool reml, int max_evaluations,
                      int threads) {
    const Rows rows = read_rows(codes, z, levels, x, w);
    const Plan& plan = problem->plan;
    const auto comps = read_components(problem->blocks, components);
    bool same = rows.n == problem->blocks.n && rows.p == plan.p && rows.factors.size() == plan.k.size();
    for (std::size_t f = 0; same && f < plan.k.size(); ++f)
        same = rows.factors[f].levels == plan.levels[f] && rows.factors[f].k == plan.k[f];
    if (!same) throw std::invalid_argument("the rows are not those of the cross-products");
    if (ys.ndim() != 2 || static_cast<i64>(ys.shape(1)) != rows.n) throw std::invalid_argument("Y must be (r, n)");
    const std::size_t r = ys.shape(0);
    std::size_t width = 0;
    for (int k : plan.k) width += static_cast<std::size_t>(k) * k;
    const std::size_t pp = static_cast<std::size_t>(plan.p) * plan.p;
    vec l_x(r * pp, 0.0), lambdas(r * width), beta(r * plan.p), r2(r), deviance(r), status(r), evaluations(r);
    {
        nb::gil_scoped_release free;
        const auto parts = ranges(r, 64);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            Evaluator ev(problem->blocks, plan, reml, 1);
            for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                const Response y = response_sums(rows.n, rows.p, rows.factors, rows.x, ys.data() + i * rows.n, rows.w);
                ev.evaluations = 0;
                TrustRegion<Evaluator> search(ev, y, comps, max_evaluations);
                const FitResult res = search.run(moment_start(problem->blocks, y, components), 0);
                std::size_t at = i * width;
                for (const vec& l : res.lambda)
                    for (double v : l) lambdas[at++] = v;
                deviance[i] = res.deviance;
                status[i] = res.status;
                evaluations[i] = res.evaluations;
                r2[i] = ev.fac.r2;
                if (ev.fac.status != Status::ok) status[i] = 3;
                if (status[i] == 3) {  // no number rather than one that was never computed
                    const double none = std::numeric_limits<double>::quiet_NaN();
                    deviance[i] = r2[i] = none;
                    std::fill_n(lambdas.begin() + i * width, width, none);
                    std::fill_n(beta.begin() + i * plan.p, plan.p, none);
                    for (int a = 0; a < plan.p; ++a) l_x[i * pp + a * plan.p + a] = 1;
                    continue;
                }
                if (!(ev.fac.r2 > 1e-14 * y.yy)) status[i] = 2;  // a perfect fit has no maximum
                for (int a = 0; a < plan.p; ++a)
                    for (int c = 0; c <= a; ++c) l_x[i * pp + a * plan.p + c] = ev.fac.l_x(a, c);
                const vec sol = multilevel::solution(ev.fac);
                for (int c = 0; c < plan.p; ++c) beta[i * plan.p + c] = sol[plan.q + c];
            }
        });
    }
    nb::dict d;
    d["lambdas"] = array(std::move(lambdas), {r, width});
    d["beta"] = array(std::move(beta), {r, std::size_t(plan.p)});
    d["l_x"] = array(std::move(l_x), {r, std::size_t(plan.p), std::size_t(plan.p)});
    d["r2"] = array(std::move(r2), {r});
    d["deviance"] = array(std::move(deviance), {r});
    d["status"] = array(std::move(status), {r});
    d["evaluations"] = array(std::move(evaluations), {r});
    return d;
}

template <class Fn>
static void take(Fn& target, const nb::dict& api, const char* name) {
    PyObject* capsule = PyDict_GetItemString(api.ptr(), name);
    if (!capsule) throw std::runtime_error(std::string("SciPy exports no ") + name);
    void* p = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    if (!p) throw nb::python_error();
    target = reinterpret_cast<Fn>(p);
}

NB_MODULE(_core, m) {
    m.doc() = "Compiled kernels of multilevel";
    // Fits held in caches (functools.cache, a notebook's history) live until the interpreter is gone, and nanobind would then
    // report their objects as leaks on stderr; nothing is lost, for the process ends.
    nb::set_leak_warnings(false);
    {
        nb::object blas_module = nb::module_::import_("scipy.linalg.cython_blas");
        nb::object lapack_module = nb::module_::import_("scipy.linalg.cython_lapack");
        const nb::dict blas = nb::cast<nb::dict>(blas_module.attr("__pyx_capi__"));
        const nb::dict lap = nb::cast<nb::dict>(lapack_module.attr("__pyx_capi__"));
        take(lapack.dpotrf, lap, "dpotrf");
        take(lapack.dtrtri, lap, "dtrtri");
        take(lapack.dlauum, lap, "dlauum");
        take(lapack.dsyev, lap, "dsyev");
        take(lapack.dgesvd, lap, "dgesvd");
        take(lapack.dsyrk, blas, "dsyrk");
        take(lapack.dgemm, blas, "dgemm");
        take(lapack.dtrsm, blas, "dtrsm");
    }
    nb::class_<Problem>(m, "Problem")
        .def_prop_ro("n", [](const Problem& p) { return p.blocks.n; })
        .def_prop_ro("sum_log_w", [](const Problem& p) { return p.blocks.sum_log_w; })
        .def_prop_ro("yy", [](const Problem& p) { return p.blocks.y.yy; })
        .def_prop_ro("tail_size", [](const Problem& p) { return p.plan.m; })
        .def_prop_ro("sparse_factors", [](const Problem& p) { return p.plan.sparse_factors; })
        .def_prop_ro("tail_mode", [](const Problem& p) { return static_cast<int>(p.plan.mode); })
        .def_prop_ro("flops", [](const Problem& p) { return p.plan.flops; })
        .def_prop_ro("bytes", [](const Problem& p) { return p.plan.bytes; })
        .def("__add__", [](const Problem& a, const Problem& b) {
            return std::make_shared<Problem>(merge_blocks(a.blocks, b.blocks));
        });
    m.def(
        "build",
        [](const std::vector<Codes>& codes, const std::vector<std::optional<Array>>& z, const std::vector<int>& levels,
           const Array& x, const Array& y, const std::optional<Array>& w, int threads,
           const std::vector<std::optional<Codes>>& codes2, const std::vector<std::optional<Array>>& z2,
           const std::vector<Prior>& priors) {
            Rows r = read_rows(codes, z, levels, x, w);
            read_seconds(r, codes2, z2);
            if (y.ndim() != 1 || static_cast<i64>(y.shape(0)) != r.n) throw std::invalid_argument("y must be (n,)");
            nb::gil_scoped_release free;
            Blocks b = build_blocks(r.n, r.p, r.factors, r.x, y.data(), r.w, threads);
            for (const auto& [f, diag, ptr, idx, val] : priors) read_prior(b, f, diag, ptr, idx, val);
            return std::make_shared<Problem>(std::move(b));
        },
        nb::arg("codes"), nb::arg("z"), nb::arg("levels"), nb::arg("x"), nb::arg("y"), nb::arg("w").none(),
        nb::arg("threads"), nb::arg("codes2") = std::vector<std::optional<Codes>>(),
        nb::arg("z2") = std::vector<std::optional<Array>>(), nb::arg("priors") = std::vector<Prior>());
    bind_bayes(m);
    bind_glmm(m);
    bind_taxonomy(m);
    m.def("export_blocks", &export_blocks, nb::arg("problem"));
    m.def("import_blocks", &import_blocks, nb::arg("arrays"));
    nb::class_<State>(m, "State")
        .def(nb::init<std::shared_ptr<Problem>, bool, int>(), nb::arg("problem"), nb::arg("reml"), nb::arg("threads"))
        .def("set", &State::set, nb::arg("lambdas"), "Factorise; 0 is success, 1 not positive definite, 2 perfect fit")
        .def_prop_ro("log_det_u", [](const State& s) { return s.ev.fac.log_det_u; })
        .def_prop_ro("log_det_x", [](const State& s) { return s.ev.fac.log_det_x; })
        .def_prop_ro("r2", [](const State& s) { return s.ev.fac.r2; })
        .def("gradient", &State::gradient, nb::arg("wu"), nb::arg("wx"), nb::arg("wy"))
        .def("inverse_blocks", &State::inverse_blocks, nb::arg("wu"), nb::arg("wx"))
        .def("solution", &State::solution)
        .def("l_x", &State::l_x)
        .def("solve", &State::solve, nb::arg("rhs"), nb::arg("backward"))
        .def("cross", [](State& s, const Array& rhs) { return multiply(s, rhs, Product::cross); })
        .def("apply_lambda",
             [](State& s, const Array& rhs, bool transposed) {
                 return multiply(s, rhs, transposed ? Product::lambda_transposed : Product::lambda);
             })
        .def("solve_random", [](State& s, const Array& rhs) { return multiply(s, rhs, Product::random_inverse); });
    m.def(
        "moment_start",
        [](const Problem& p, const std::vector<std::pair<int, std::vector<int>>>& components) {
            read_components(p.blocks, components);
            return write_squares(p.plan, moment_start(p.blocks, p.blocks.y, components));
        },
        nb::arg("problem"), nb::arg("components"));
    m.def("differences", &differences, nb::arg("state"), nb::arg("lambdas"), nb::arg("groups"), nb::arg("moves"),
          nb::arg("steps"));
    m.def("estimation_var", &estimation_var, nb::arg("state"), nb::arg("x"), nb::arg("codes"), nb::arg("effects"),
          nb::arg("factors"), nb::arg("fixed"));
    m.def("fit", &fit, nb::arg("state"), nb::arg("start"), nb::arg("components"), nb::arg("max_evaluations"),
          nb::arg("em_steps"));
    m.def("refit", &refit, nb::arg("problem"), nb::arg("codes"), nb::arg("z"), nb::arg("levels"), nb::arg("x"),
          nb::arg("w").none(), nb::arg("ys"), nb::arg("components"), nb::arg("reml"),
          nb::arg("max_evaluations"), nb::arg("threads"));
}
