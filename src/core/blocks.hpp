// Cross-products of [Z X y]: the last code that touches the n rows.
//
// Rows enter as arrays; what leaves is, per grouping factor and level, sums of w z z', w [X] z' and w y z, and per
// pair of factors the blocks of Z_g' W Z_f for the level pairs that occur. Memory: O(levels + observed pairs).
// Every level is summed by one thread in row order, so the result is the same for any thread count.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "lapack.hpp"
#include "parallel.hpp"

namespace multilevel {

using i32 = std::int32_t;
using i64 = std::int64_t;
using vec = std::vector<double>;

// One grouping factor as the caller's arrays. Z is (n, k) row-major; null means a column of ones (k = 1). A row of
// correlated residuals, once whitened, may touch a second, different level: codes2 (-1 for none) with its effects z2.
struct FactorRows {
    const i32* codes;
    const double* z;
    int levels;
    int k;
    const i32* codes2 = nullptr;
    const double* z2 = nullptr;
};

// Z_g'W Z_f for one pair f < g: per level of f the levels of g met, sorted, each with a k_g x k_f row-major block.
struct PairBlocks {
    std::vector<i64> ptr;
    std::vector<i32> idx;
    vec val;
};

// Pairs of levels of one factor: A where rows touch two of them, and the precision Q of levels that covary a priori
// (u ~ N(0, sigma^2 Q^{-1} x I) in place of sigma^2 I). Per level its partners of higher number.
struct SelfPairs {
    PairBlocks a;          // k x k blocks, rows of the later level; zero where only Q is not
    vec prior;             // per pair: the entry of Q
    vec prior_diag;        // per level; empty: ones
    bool empty() const { return a.ptr.empty(); }
    double diagonal(i64 level) const { return prior_diag.empty() ? 1.0 : prior_diag[level]; }
};

// The response's part, apart from the rest because refits replace only this.
struct Response {
    std::vector<vec> zy;  // per factor (J * k): sum of w y z
    vec xy;               // (p): X'Wy
    double yy = 0;        // y'Wy
};

struct Blocks {
    i64 n = 0;
    int p = 0;
    double sum_log_w = 0;
    std::vector<int> levels, k;
    std::vector<vec> diag;                       // per factor J * k * k
    std::vector<vec> border;                     // per factor J * k * p: for each level and effect, X'W z
    std::vector<std::vector<PairBlocks>> pairs;  // pairs[f][g - f - 1]
    std::vector<SelfPairs> self;                 // per factor, mostly empty
    vec xx;                                      // p * p, symmetric
    Response y;

    int factors() const { return static_cast<int>(levels.size()); }
};

// Rows ordered by level: perm[start[j] .. start[j+1]) are the rows of level j, in row order; n + i is row i by its
// second level.
struct RowOrder {
    std::vector<i64> start;
    std::vector<i32> perm;
};
inline RowOrder order_rows(const FactorRows& f, i64 n) {
    RowOrder out;
    out.start.assign(f.levels + 1, 0);
    for (i64 i = 0; i < n; ++i) ++out.start[f.codes[i] + 1];
    for (i64 i = 0; f.codes2 && i < n; ++i)
        if (f.codes2[i] >= 0) ++out.start[f.codes2[i] + 1];
    for (int j = 0; j < f.levels; ++j) out.start[j + 1] += out.start[j];
    out.perm.resize(out.start.back());
    std::vector<i64> at(out.start.begin(), out.start.end() - 1);
    for (i64 i = 0; i < n; ++i) out.perm[at[f.codes[i]]++] = static_cast<i32>(i);
    for (i64 i = 0; f.codes2 && i < n; ++i)
        if (f.codes2[i] >= 0) out.perm[at[f.codes2[i]]++] = static_cast<i32>(n + i);
    return out;
}

// Levels cut into ranges of about equal row counts.
inline std::vector<Range> level_ranges(const std::vector<i64>& start, std::size_t parts) {
    const std::size_t levels = start.size() - 1;
    const i64 n = start.back();
    std::vector<Range> out;
    std::size_t j = 0;
    for (std::size_t part = 0; part < parts && j < levels; ++part) {
        const i64 target = n * static_cast<i64>(part + 1) / static_cast<i64>(parts);
        std::size_t end = part + 1 == parts ? levels : j + 1;
        while (end < levels && start[end] < target) ++end;
        out.push_back({j, end});
        j = end;
    }
    return out;
}

// Sums of one range of levels of factor f against every later factor; against itself first, if rows touch two levels.
class LevelSums {
  public:
    LevelSums(const std::vector<FactorRows>& fs, int f) : fs_(fs), f_(f), first_(fs[f].codes2 ? f : f + 1) {
        for (std::size_t g = first_; g < fs.size(); ++g) slot_.emplace_back(fs[g].levels, -1);
        out_.resize(slot_.size());
        count_.resize(slot_.size());
        touched_.resize(slot_.size());
        sums_.resize(slot_.size());
    }
    // add row i (weight w, effects z of factor f) of the current level, by its first or its second entry
    void add(i64 i, double w, const double* z, bool second) {
        for (std::size_t h = 0; h < slot_.size(); ++h) {
            const FactorRows& g = fs_[first_ + h];
            const double* z1 = g.z ? g.z + i * g.k : nullptr;
            const i32 code2 = g.codes2 ? g.codes2[i] : -1;
            if (first_ + h == static_cast<std::size_t>(f_)) {  // the row's other level, once per pair
                if (code2 < 0) continue;
                if (!second && code2 > g.codes[i]) add_block(h, code2, g, g.z2 + i * g.k, w, z);
                if (second && g.codes[i] > code2) add_block(h, g.codes[i], g, z1, w, z);
                continue;
            }
            add_block(h, g.codes[i], g, z1, w, z);
            if (code2 >= 0) add_block(h, code2, g, g.z2 + i * g.k, w, z);
        }
    }
    // close the current level: sort its partners and write them out
    void finish_level() {
        const int k = fs_[f_].k;
        for (std::size_t h = 0; h < slot_.size(); ++h) {
            const int size = fs_[first_ + h].k * k;
            auto& touched = touched_[h];
            sorted_ = touched;
            std::sort(sorted_.begin(), sorted_.end());
            for (i32 code : sorted_) {
                const double* block = sums_[h].data() + static_cast<std::size_t>(slot_[h][code]) * size;
                out_[h].idx.push_back(code);
                out_[h].val.insert(out_[h].val.end(), block, block + size);
            }
            count_[h].push_back(static_cast<i64>(sorted_.size()));
            for (i32 code : touched) slot_[h][code] = -1;
            touched.clear();
            sums_[h].clear();
        }
    }
    std::vector<PairBlocks> out_;
    std::vector<std::vector<i64>> count_;  // per later factor: partners of each level of the range

  private:
    void add_block(std::size_t h, i32 code, const FactorRows& g, const double* zg, double w, const double* z) {
        const int k = fs_[f_].k;
        i32 s = slot_[h][code];
        if (s < 0) {
            s = slot_[h][code] = static_cast<i32>(touched_[h].size());
            touched_[h].push_back(code);
            sums_[h].resize(sums_[h].size() + g.k * k, 0.0);
        }
        double* block = sums_[h].data() + static_cast<std::size_t>(s) * g.k * k;
        for (int a = 0; a < g.k; ++a) {
            const double wz = zg ? w * zg[a] : w;
            for (int c = 0; c < k; ++c) block[a * k + c] += wz * z[c];
        }
    }
    const std::vector<FactorRows>& fs_;
    int f_;
    std::size_t first_;
    std::vector<std::vector<i32>> slot_, touched_;
    std::vector<i32> sorted_;
    std::vector<vec> sums_;
};

// X'WX, X'Wy and y'Wy over fixed chunks of rows, added in order.
inline void fixed_sums(Blocks& b, const double* x, const double* y, const double* w, int threads) {
    const int p = b.p, q = p + 1;
    const double square = static_cast<double>(q) * q;  // with many columns fewer chunks, for their sums take memory
    const auto parts = ranges(b.n, static_cast<std::size_t>(std::min(64.0, std::max(1.0, 1e7 / square))));
    std::vector<vec> part(parts.size(), vec(static_cast<std::size_t>(q) * q, 0.0));
    parallel_for(parts.size(), b.n > 20000 ? threads : 1, [&](std::size_t t) {
        // rows are copied with their weights, then one syrk: small enough that BLAS starts no threads below ours
        const std::size_t batch = std::min<std::size_t>(256, std::max<std::size_t>(8, static_cast<std::size_t>(50000 / square)));
        vec rows(batch * q);
        for (std::size_t i = parts[t].begin; i < parts[t].end;) {
            const std::size_t end = std::min(i + batch, parts[t].end), first = i;
            for (; i < end; ++i) {
                const double root = w ? std::sqrt(w[i]) : 1.0;
                double* row = rows.data() + (i - first) * q;
                for (int c = 0; c < p; ++c) row[c] = root * x[i * p + c];
                row[p] = root * y[i];
            }
            syrk_lower(q, static_cast<int>(end - first), 1.0, rows.data(), q, 1.0, part[t].data(), q);
        }
    });
    vec total(static_cast<std::size_t>(q) * q, 0.0);
    for (const vec& s : part)
        for (std::size_t i = 0; i < s.size(); ++i) total[i] += s[i];
    b.xx.assign(static_cast<std::size_t>(p) * p, 0.0);
    b.y.xy.assign(p, 0.0);
    for (int a = 0; a < p; ++a) {
        const std::size_t row = a;
        for (std::size_t c = 0; c <= row; ++c) b.xx[row * p + c] = b.xx[c * p + row] = total[c * q + row];
        b.y.xy[a] = total[row * q + p];
    }
    b.y.yy = total.back();
}

// All sums of factor f: its diagonal blocks, its border with X and y, its pairs with later factors.
inline void factor_sums(Blocks& b, const std::vector<FactorRows>& fs, int f, const double* x, const double* y,
                        const double* w, int threads) {
    const int k = fs[f].k, p = b.p, levels = fs[f].levels;
    const RowOrder order = order_rows(fs[f], b.n);
    const auto parts = level_ranges(order.start, b.n > 20000 ? 16 : 1);
    b.diag[f].assign(static_cast<std::size_t>(levels) * k * k, 0.0);
    b.border[f].assign(static_cast<std::size_t>(levels) * k * p, 0.0);
    b.y.zy[f].assign(static_cast<std::size_t>(levels) * k, 0.0);
    std::vector<LevelSums> sums(parts.size(), LevelSums(fs, f));
    const double one = 1.0;
    parallel_for(parts.size(), threads, [&](std::size_t t) {
        for (std::size_t j = parts[t].begin; j < parts[t].end; ++j) {
            double* d = b.diag[f].data() + j * k * k;
            double* e = b.border[f].data() + j * k * p;
            double* zy = b.y.zy[f].data() + j * k;
            for (i64 r = order.start[j]; r < order.start[j + 1]; ++r) {
                const bool second = order.perm[r] >= b.n;
                const i64 i = second ? order.perm[r] - b.n : order.perm[r];
                const double wi = w ? w[i] : 1.0;
                const double* z = second ? fs[f].z2 + i * k : fs[f].z ? fs[f].z + i * k : &one;
                const double* xi = x + i * p;
                for (int a = 0; a < k; ++a) {
                    const double wz = wi * z[a];
                    for (int c = 0; c < k; ++c) d[a * k + c] += wz * z[c];
                    for (int c = 0; c < p; ++c) e[a * p + c] += wz * xi[c];
                    zy[a] += wz * y[i];
                }
                sums[t].add(i, wi, z, second);
            }
            sums[t].finish_level();
        }
    });
    const std::size_t own = fs[f].codes2 ? 1 : 0;
    for (std::size_t h = 0; h + f + 1 < fs.size() + own; ++h) {
        PairBlocks& out = h < own ? b.self[f].a : b.pairs[f][h - own];
        out.ptr.assign(1, 0);
        for (auto& s : sums) {
            for (i64 c : s.count_[h]) out.ptr.push_back(out.ptr.back() + c);
            out.idx.insert(out.idx.end(), s.out_[h].idx.begin(), s.out_[h].idx.end());
            out.val.insert(out.val.end(), s.out_[h].val.begin(), s.out_[h].val.end());
            s.out_[h] = PairBlocks();
        }
    }
}

inline Blocks build_blocks(i64 n, int p, const std::vector<FactorRows>& fs, const double* x, const double* y,
                           const double* w, int threads) {
    Blocks b;
    b.n = n;
    b.p = p;
    for (const auto& f : fs) {
        b.levels.push_back(f.levels);
        b.k.push_back(f.k);
    }
    b.diag.resize(fs.size());
    b.border.resize(fs.size());
    b.y.zy.resize(fs.size());
    b.pairs.resize(fs.size());
    b.self.resize(fs.size());
    for (std::size_t f = 0; f < fs.size(); ++f) b.pairs[f].resize(fs.size() - f - 1);
    fixed_sums(b, x, y, w, threads);
    for (std::size_t f = 0; f < fs.size(); ++f) factor_sums(b, fs, static_cast<int>(f), x, y, w, threads);
    if (w)
        for (i64 i = 0; i < n; ++i) b.sum_log_w += std::log(w[i]);
    for (std::size_t f = 0; f < fs.size(); ++f) b.self[f].prior.assign(b.self[f].a.idx.size(), 0.0);
    return b;
}

inline void add_into(vec& a, const vec& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
}

inline PairBlocks merge_pairs(const PairBlocks& a, const PairBlocks& b, int size) {
    PairBlocks out;
    out.ptr.assign(1, 0);
    for (std::size_t j = 0; j + 1 < a.ptr.size(); ++j) {
        i64 s = a.ptr[j], t = b.ptr[j];
        while (s < a.ptr[j + 1] || t < b.ptr[j + 1]) {
            const i32 ia = s < a.ptr[j + 1] ? a.idx[s] : INT32_MAX, ib = t < b.ptr[j + 1] ? b.idx[t] : INT32_MAX;
            const i32 code = std::min(ia, ib);
            out.idx.push_back(code);
            const std::size_t at = out.val.size();
            out.val.resize(at + size, 0.0);
            if (ia == code) {
                for (int i = 0; i < size; ++i) out.val[at + i] += a.val[s * size + i];
                ++s;
            }
            if (ib == code) {
                for (int i = 0; i < size; ++i) out.val[at + i] += b.val[t * size + i];
                ++t;
            }
        }
        out.ptr.push_back(static_cast<i64>(out.idx.size()));
    }
    return out;
}

// Levels of factor f get the prior precision Q: its diagonal, and per level the entries with later levels.
inline void set_prior(Blocks& b, int f, vec diag, PairBlocks q) {
    SelfPairs& self = b.self[f];
    const int size = b.k[f] * b.k[f];
    PairBlocks scaled = q;  // Q in the first entry of blocks as large as A's, to be merged with them
    scaled.val.assign(q.idx.size() * size, 0.0);
    PairBlocks zero = scaled;
    for (std::size_t i = 0; i < q.idx.size(); ++i) scaled.val[i * size] = q.val[i];
    if (self.empty()) {
        self.a = std::move(zero);
        self.prior = std::move(q.val);
    } else {
        PairBlocks mine = self.a;
        std::fill(mine.val.begin(), mine.val.end(), 0.0);
        const PairBlocks both = merge_pairs(mine, scaled, size);
        self.prior.resize(both.idx.size());
        for (std::size_t i = 0; i < both.idx.size(); ++i) self.prior[i] = both.val[i * size];
        self.a = merge_pairs(self.a, zero, size);
    }
    self.prior_diag = std::move(diag);
}

// Cross-products of two disjoint sets of rows that share levels and columns: their sum.
inline Blocks merge_blocks(const Blocks& a, const Blocks& b) {
    if (a.levels != b.levels || a.k != b.k || a.p != b.p)
        throw std::invalid_argument("cross-products of different models cannot be added");
    for (int f = 0; f < a.factors(); ++f)
        if (!a.self[f].empty() || !b.self[f].empty())
            throw std::invalid_argument("cross-products of rows or levels that covary cannot be added");
    Blocks out = a;
    out.n += b.n;
    out.sum_log_w += b.sum_log_w;
    add_into(out.xx, b.xx);
    add_into(out.y.xy, b.y.xy);
    out.y.yy += b.y.yy;
    for (int f = 0; f < a.factors(); ++f) {
        add_into(out.diag[f], b.diag[f]);
        add_into(out.border[f], b.border[f]);
        add_into(out.y.zy[f], b.y.zy[f]);
        for (std::size_t h = 0; h < a.pairs[f].size(); ++h)
            out.pairs[f][h] = merge_pairs(a.pairs[f][h], b.pairs[f][h], a.k[f] * a.k[f + 1 + h]);
    }
    return out;
}

// Response sums of one more y on the same rows (refits, bootstrap).
inline Response response_sums(i64 n, int p, const std::vector<FactorRows>& fs, const double* x, const double* y,
                              const double* w) {
    Response out;
    out.xy.assign(p, 0.0);
    for (const auto& f : fs) out.zy.emplace_back(static_cast<std::size_t>(f.levels) * f.k, 0.0);
    for (i64 i = 0; i < n; ++i) {
        const double wy = (w ? w[i] : 1.0) * y[i];
        for (int c = 0; c < p; ++c) out.xy[c] += wy * x[i * p + c];
        out.yy += wy * y[i];
        for (std::size_t f = 0; f < fs.size(); ++f) {
            double* zy = out.zy[f].data() + static_cast<std::size_t>(fs[f].codes[i]) * fs[f].k;
            for (int a = 0; a < fs[f].k; ++a) zy[a] += fs[f].z ? wy * fs[f].z[i * fs[f].k + a] : wy;
            if (!fs[f].codes2 || fs[f].codes2[i] < 0) continue;
            zy = out.zy[f].data() + static_cast<std::size_t>(fs[f].codes2[i]) * fs[f].k;
            for (int a = 0; a < fs[f].k; ++a) zy[a] += wy * fs[f].z2[i * fs[f].k + a];
        }
    }
    return out;
}

}  // namespace multilevel
