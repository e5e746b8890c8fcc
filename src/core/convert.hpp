// Arrays between Python and the core: types, checks of what comes in, NumPy arrays of what goes out.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "trust.hpp"

namespace nb = nanobind;
using namespace multilevel;

using Array = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<const i32, nb::c_contig, nb::device::cpu>;

inline nb::object array(vec values, std::vector<std::size_t> shape) {
    auto* data = new vec(std::move(values));
    nb::capsule owner(data, [](void* p) noexcept { delete static_cast<vec*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, double>(data->data(), shape.size(), shape.data(), owner));
}

// The caller's rows, checked; the arrays must outlive the call.
struct Rows {
    i64 n = 0;
    int p = 0;
    std::vector<FactorRows> factors;
    const double *x = nullptr, *y = nullptr, *w = nullptr;
};
inline Rows read_rows(const std::vector<Codes>& codes, const std::vector<std::optional<Array>>& z,
                      const std::vector<int>& levels, const Array& x, const std::optional<Array>& w) {
    Rows r;
    if (x.ndim() != 2) throw std::invalid_argument("X must be (n, p)");
    r.n = static_cast<i64>(x.shape(0));
    if (r.n >= INT32_MAX) throw std::length_error("more than 2^31 rows in one piece; pass them in chunks");
    if (x.shape(1) >= INT32_MAX) throw std::length_error("more than 2^31 fixed effects");
    r.p = static_cast<int>(x.shape(1));
    r.x = x.data();
    if (codes.size() != z.size() || codes.size() != levels.size())
        throw std::invalid_argument("codes, z and levels must have one entry per factor");
    for (std::size_t f = 0; f < codes.size(); ++f) {
        if (codes[f].ndim() != 1 || static_cast<i64>(codes[f].shape(0)) != r.n)
            throw std::invalid_argument("codes must be (n,)");
        for (i64 i = 0; i < r.n; ++i)
            if (codes[f].data()[i] < 0 || codes[f].data()[i] >= levels[f])
                throw std::invalid_argument("a code lies outside its factor's levels");
        if (levels[f] < 1 || levels[f] == INT32_MAX) throw std::invalid_argument("a factor needs 1 to 2^31 - 2 levels");
        int k = 1;
        if (z[f]) {
            if (z[f]->ndim() != 2 || static_cast<i64>(z[f]->shape(0)) != r.n)
                throw std::invalid_argument("Z must be (n, k)");
            if (z[f]->shape(1) < 1 || z[f]->shape(1) > 30000) throw std::invalid_argument("Z needs 1 to 30000 columns");
            k = static_cast<int>(z[f]->shape(1));
        }
        r.factors.push_back({codes[f].data(), z[f] ? z[f]->data() : nullptr, levels[f], k});
    }
    if (w) {
        if (w->ndim() != 1 || static_cast<i64>(w->shape(0)) != r.n) throw std::invalid_argument("weights must be (n,)");
        r.w = w->data();
    }
    return r;
}

// Cross-products and their symbolic plan; immutable once made.
struct Problem {
    Blocks blocks;
    Plan plan;
    explicit Problem(Blocks b) : blocks(std::move(b)), plan(make_plan(blocks)) {}
};

inline std::vector<vec> read_lambdas(const Plan& plan, const std::vector<Array>& lambdas) {
    if (static_cast<int>(lambdas.size()) != plan.factors) throw std::invalid_argument("one Lambda per factor is needed");
    std::vector<vec> out;
    for (int f = 0; f < plan.factors; ++f) {
        const std::size_t k = plan.k[f];
        if (lambdas[f].ndim() != 2 || lambdas[f].shape(0) != k || lambdas[f].shape(1) != k)
            throw std::invalid_argument("Lambda of a factor must be (k, k)");
        out.emplace_back(lambdas[f].data(), lambdas[f].data() + k * k);
    }
    return out;
}
// Second levels of whitened rows, per factor or none: added to the rows, which then must have their Z.
inline void read_seconds(Rows& r, const std::vector<std::optional<Codes>>& codes, const std::vector<std::optional<Array>>& z) {
    if (codes.empty() && z.empty()) return;
    if (codes.size() != r.factors.size() || z.size() != r.factors.size())
        throw std::invalid_argument("second levels need one entry per factor");
    for (std::size_t f = 0; f < codes.size(); ++f) {
        FactorRows& rows = r.factors[f];
        if (!codes[f]) continue;
        if (!z[f] || !rows.z) throw std::invalid_argument("second levels need their effects");
        if (static_cast<i64>(codes[f]->size()) != r.n || static_cast<i64>(z[f]->size()) != r.n * rows.k)
            throw std::invalid_argument("second levels must be (n,) with effects (n, k)");
        if (2 * r.n >= INT32_MAX) throw std::length_error("more than 2^30 rows whose residuals covary");
        for (i64 i = 0; i < r.n; ++i)
            if (codes[f]->data()[i] >= rows.levels || codes[f]->data()[i] == rows.codes[i])
                throw std::invalid_argument("a second level lies outside its factor or repeats the first");
        rows.codes2 = codes[f]->data();
        rows.z2 = z[f]->data();
    }
}
// Prior precision of a factor's levels: diagonal, and per level the entries with later levels (compressed rows).
inline void read_prior(Blocks& b, int f, const Array& diag, const Codes& ptr, const Codes& idx, const Array& val) {
    if (f < 0 || f >= b.factors()) throw std::invalid_argument("a prior names no factor");
    const std::size_t levels = b.levels[f];
    if (diag.size() != levels || ptr.size() != levels + 1 || idx.size() != val.size())
        throw std::invalid_argument("a prior precision has wrong sizes");
    PairBlocks q;
    q.ptr.assign(ptr.data(), ptr.data() + ptr.size());
    q.idx.assign(idx.data(), idx.data() + idx.size());
    q.val.assign(val.data(), val.data() + val.size());
    if (q.ptr.front() != 0 || q.ptr.back() != static_cast<i64>(q.idx.size()))
        throw std::invalid_argument("a prior precision has wrong pointers");
    for (std::size_t j = 0; j < levels; ++j) {
        if (q.ptr[j] > q.ptr[j + 1]) throw std::invalid_argument("a prior precision has wrong pointers");
        for (i64 e = q.ptr[j]; e < q.ptr[j + 1]; ++e) {
            const bool ordered = q.idx[e] > static_cast<i32>(j) && (e == q.ptr[j] || q.idx[e] > q.idx[e - 1]);
            if (!ordered || q.idx[e] >= b.levels[f]) throw std::invalid_argument("a prior precision is not sorted");
        }
    }
    set_prior(b, f, vec(diag.data(), diag.data() + levels), std::move(q));
}
inline nb::list write_squares(const Plan& plan, const std::vector<vec>& mats) {
    nb::list out;
    for (int f = 0; f < plan.factors; ++f)
        out.append(array(mats[f], {std::size_t(plan.k[f]), std::size_t(plan.k[f])}));
    return out;
}
inline std::vector<Component> read_components(const Blocks& b, const std::vector<std::pair<int, std::vector<int>>>& list) {
    std::vector<Component> out;
    for (const auto& c : list) {
        if (c.first < 0 || c.first >= b.factors()) throw std::invalid_argument("a component names no factor");
        if (c.second.empty()) throw std::invalid_argument("a component needs effects");
        for (int i : c.second)
            if (i < 0 || i >= b.k[c.first]) throw std::invalid_argument("a component names no effect of its factor");
        out.push_back({c.first, c.second});
    }
    return out;
}
