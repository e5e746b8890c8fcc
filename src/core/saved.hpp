// Cross-products as plain arrays and back, checked on the way in.
#pragma once
#include "convert.hpp"

inline void put_pairs(nb::dict& d, const std::string& pair, const PairBlocks& pb) {
    d[("ptr" + pair).c_str()] = array(vec(pb.ptr.begin(), pb.ptr.end()), {pb.ptr.size()});
    d[("idx" + pair).c_str()] = array(vec(pb.idx.begin(), pb.idx.end()), {pb.idx.size()});
    d[("val" + pair).c_str()] = array(pb.val, {pb.val.size()});
}

// What a saved fit keeps instead of its rows.
inline nb::dict export_blocks(const Problem& problem) {
    const Blocks& b = problem.blocks;
    nb::dict d;
    auto put = [&](const std::string& name, const vec& v) { d[name.c_str()] = array(v, {v.size()}); };
    d["n"] = b.n;
    d["p"] = b.p;
    d["sum_log_w"] = b.sum_log_w;
    d["yy"] = b.y.yy;
    d["levels"] = b.levels;
    d["k"] = b.k;
    put("xx", b.xx);
    put("xy", b.y.xy);
    for (int f = 0; f < b.factors(); ++f) {
        const std::string at = std::to_string(f);
        put("diag" + at, b.diag[f]);
        put("border" + at, b.border[f]);
        put("zy" + at, b.y.zy[f]);
        if (!b.self[f].prior_diag.empty()) put("prior_diag" + at, b.self[f].prior_diag);
        if (!b.self[f].empty()) {
            put_pairs(d, at + "_" + at, b.self[f].a);
            put("prior" + at, b.self[f].prior);
        }
        for (std::size_t h = 0; h < b.pairs[f].size(); ++h) {
            const std::string pair = at + "_" + std::to_string(f + 1 + h);
            put_pairs(d, pair, b.pairs[f][h]);
        }
    }
    return d;
}
inline std::shared_ptr<Problem> import_blocks(const nb::dict& d) {
    Blocks b;
    auto get = [&](const std::string& name, std::size_t size) {
        const Array a = nb::cast<Array>(d[name.c_str()]);
        if (a.size() != size) throw std::invalid_argument("saved array " + name + " has a wrong size");
        return vec(a.data(), a.data() + a.size());
    };
    b.n = nb::cast<i64>(d["n"]);
    b.p = nb::cast<int>(d["p"]);
    b.sum_log_w = nb::cast<double>(d["sum_log_w"]);
    b.levels = nb::cast<std::vector<int>>(d["levels"]);
    b.k = nb::cast<std::vector<int>>(d["k"]);
    if (b.n < 1 || b.p < 0 || b.k.size() != b.levels.size()) throw std::invalid_argument("saved sizes disagree");
    const std::size_t p = b.p;
    b.xx = get("xx", p * p);
    b.y.xy = get("xy", p);
    b.y.yy = nb::cast<double>(d["yy"]);
    for (int f = 0; f < b.factors(); ++f) {
        const std::string at = std::to_string(f);
        if (b.k[f] < 1 || b.levels[f] < 1) throw std::invalid_argument("saved sizes are not positive");
        const std::size_t j = b.levels[f], k = b.k[f];
        b.diag.push_back(get("diag" + at, j * k * k));
        b.border.push_back(get("border" + at, j * k * p));
        b.y.zy.push_back(get("zy" + at, j * k));
        b.pairs.emplace_back();
        b.self.emplace_back();
        auto pairs = [&](int g) {
            const std::string pair = at + "_" + std::to_string(g);
            PairBlocks pb;
            const vec ptr = get("ptr" + pair, j + 1);
            for (std::size_t i = 0; i <= j; ++i) {
                if (!(ptr[i] >= (i ? ptr[i - 1] : 0.0)) || ptr[i] > 9e15) throw std::invalid_argument("saved pointers are not ascending");
                pb.ptr.push_back(static_cast<i64>(ptr[i]));
            }
            const vec idx = get("idx" + pair, pb.ptr.back());
            for (double v : idx) {
                if (!(v >= 0 && v < b.levels[g])) throw std::invalid_argument("a saved level lies outside its factor");
                pb.idx.push_back(static_cast<i32>(v));
            }
            for (std::size_t i = 0; i < j; ++i)
                for (i64 e = pb.ptr[i] + 1; e < pb.ptr[i + 1]; ++e)
                    if (pb.idx[e] <= pb.idx[e - 1]) throw std::invalid_argument("saved levels are not ascending");
            pb.val = get("val" + pair, idx.size() * k * b.k[g]);
            return pb;
        };
        for (int g = f + 1; g < b.factors(); ++g) b.pairs.back().push_back(pairs(g));
        if (d.contains(("prior_diag" + at).c_str()))
            b.self.back().prior_diag = get("prior_diag" + at, j);
        if (d.contains(("prior" + at).c_str())) {
            SelfPairs& self = b.self.back();
            self.a = pairs(f);
            for (std::size_t i = 0; i < j; ++i)
                if (self.a.ptr[i] < self.a.ptr[i + 1] && self.a.idx[self.a.ptr[i]] <= static_cast<i32>(i))
                    throw std::invalid_argument("a saved pair of levels is not ascending");
            self.prior = get("prior" + at, self.a.idx.size());
        }
    }
    return std::make_shared<Problem>(std::move(b));
}
