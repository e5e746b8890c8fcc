// Symbolic analysis: which levels are eliminated one by one (sparse columns of L) and where the dense tail begins.
//
// Scalars are numbered factor by factor in the given order (the first factor is the block-diagonal head), then X,
// then y. A node is one level of one factor: k columns of L that share a pattern of later scalar rows. The first
// factor never fills in. A later factor stays sparse as long as its columns after elimination hold less than
// `dense_share` of the dense triangle that would replace them (nested factors do, crossed ones do not); from the
// first factor that does not, everything is one dense lower triangle.
#pragma once
#include <numeric>

#include "blocks.hpp"

namespace multilevel {

constexpr double dense_share = 0.3;  // of the triangle: above it a dense factorisation is faster
constexpr double sparse_limit = 3e7; // entries of one factor's columns: beyond it, finding the pattern costs too much
constexpr double panel_share = 0.15; // of head x tail: above it BLAS on a dense panel beats scattered updates
constexpr int direct_size = 24;      // a dense tail this small is summed node by node, without either

// How the sparse nodes update the dense tail.
enum class TailMode { direct, panel, scattered };

struct Plan {
    int factors = 0, sparse_factors = 0, p = 0;
    std::vector<int> levels, k;
    std::vector<i64> offset;      // first scalar of each factor; offset[factors] = first X column
    i64 q = 0;                    // random-effect scalars
    i64 tail = 0;                 // first scalar of the dense tail
    int m = 0;                    // size of the dense tail, with X and y
    std::vector<i64> node_offset; // first node of each sparse factor, then the number of nodes
    std::vector<i64> row_ptr;     // per node: its pattern in `rows`; the last row is always y
    std::vector<i64> value_ptr;   // per node: its values (rows x k, row-major)
    std::vector<i32> rows;        // scalar indices, ascending
    std::vector<i32> sparse_rows; // per node: how many of its rows lie before the dense tail
    vec a;                        // Z'WZ and X'WZ on the pattern, zero where L fills in; the y rows are zero
    // who updates a later node or tail column: positions in the earlier nodes' patterns
    std::vector<i64> in_ptr;      // per sparse node from first_updated() on, then per tail scalar
    std::vector<i64> in_node, in_pos;
    std::vector<char> independent;// per sparse factor: its nodes do not touch one another
    TailMode mode = TailMode::scattered;
    double flops = 0;             // of one factorisation, roughly
    double bytes = 0;             // of one factor with its selected inverse

    i64 scalars() const { return q + p + 1; }
    i64 nodes() const { return node_offset.back(); }
    int factor_of(i64 scalar) const {  // random-effect scalars only
        int f = 0;
        while (offset[f + 1] <= scalar) ++f;
        return f;
    }
    i64 first_scalar(int f, i64 node) const { return offset[f] + (node - node_offset[f]) * k[f]; }
    // nodes before this one are never updated: those of a first factor whose levels do not touch one another
    i64 first_updated() const { return !independent.empty() && !independent[0] ? 0 : node_offset[1]; }
    i64 in_slot(i64 scalar_or_node, bool is_tail) const {
        const i64 first = first_updated();
        return is_tail ? nodes() - first + (scalar_or_node - tail) : scalar_or_node - first;
    }
};

// Pattern of one sparse factor's nodes in global node numbers (all factors numbered), by merging children.
class NodePatterns {
  public:
    explicit NodePatterns(const Blocks& b) : b_(b) {
        start_.assign(1, 0);
        for (int J : b.levels) start_.push_back(start_.back() + J);
        mark_.assign(start_.back(), -1);
        children_.resize(start_.back());
    }
    // false if the factor's columns would hold more than `limit` scalars
    bool add_factor(int f, double limit) {
        double scalars = 0;
        const std::size_t keep = ptr_.size();
        for (i64 v = start_[f]; v < start_[f + 1]; ++v) {
            std::vector<i64> pat = merged(f, v);
            for (i64 u : pat) scalars += static_cast<double>(b_.k[factor(u)]) * b_.k[f];
            if (scalars > limit) {
                ptr_.resize(keep);
                nodes_.resize(keep ? ptr_.back() : 0);
                return false;
            }
            if (!pat.empty()) children_[pat[0]].push_back(v);
            nodes_.insert(nodes_.end(), pat.begin(), pat.end());
            ptr_.push_back(static_cast<i64>(nodes_.size()));
        }
        return true;
    }
    int factor(i64 node) const {
        int f = 0;
        while (start_[f + 1] <= node) ++f;
        return f;
    }
    i64 begin(i64 v) const { return v ? ptr_[v - 1] : 0; }
    i64 end(i64 v) const { return ptr_[v]; }
    i64 start(int f) const { return start_[f]; }
    i64 at(i64 i) const { return nodes_[i]; }

  private:
    std::vector<i64> merged(int f, i64 v) {
        std::vector<i64> pat;
        auto add = [&](i64 u) {
            if (u > v && mark_[u] != v) {
                mark_[u] = v;
                pat.push_back(u);
            }
        };
        const i64 level = v - start_[f];
        const PairBlocks& own = b_.self[f].a;
        for (i64 i = own.ptr.empty() ? 0 : own.ptr[level]; !own.ptr.empty() && i < own.ptr[level + 1]; ++i)
            add(start_[f] + own.idx[i]);
        for (std::size_t h = 0; h < b_.pairs[f].size(); ++h) {
            const PairBlocks& pb = b_.pairs[f][h];
            for (i64 i = pb.ptr[level]; i < pb.ptr[level + 1]; ++i) add(start_[f + 1 + h] + pb.idx[i]);
        }
        for (i64 c : children_[v])
            for (i64 i = begin(c); i < end(c); ++i) add(nodes_[i]);
        std::sort(pat.begin(), pat.end());
        return pat;
    }
    const Blocks& b_;
    std::vector<i64> start_, mark_, ptr_, nodes_;
    std::vector<std::vector<i64>> children_;
};

// Copy Z'WZ of one node into its pattern.
inline void fill_node(Plan& plan, const Blocks& b, int f, i64 node) {
    const i64 level = node - plan.node_offset[f];
    const int k = b.k[f], p = b.p;
    double* a = plan.a.data() + plan.value_ptr[node];
    const i32* rows = plan.rows.data() + plan.row_ptr[node];
    const i64 count = plan.row_ptr[node + 1] - plan.row_ptr[node];
    i64 r = 0;
    for (int g = b.self[f].empty() ? f + 1 : f; g < b.factors(); ++g) {
        const int kg = b.k[g];
        const PairBlocks& pb = g == f ? b.self[f].a : b.pairs[f][g - f - 1];
        for (i64 i = pb.ptr[level]; i < pb.ptr[level + 1]; ++i) {
            const i64 first = plan.offset[g] + static_cast<i64>(pb.idx[i]) * kg;
            while (rows[r] < first) ++r;
            for (int e = 0; e < kg * k; ++e) a[r * k + e] = pb.val[i * kg * k + e];
        }
    }
    const double* border = b.border[f].data() + level * k * p;
    for (int x = 0; x < p; ++x)
        for (int c = 0; c < k; ++c) a[(count - 1 - p + x) * k + c] = border[c * p + x];
}

inline void fill_incoming(Plan& plan) {
    const i64 slots = plan.nodes() - plan.first_updated() + plan.m;
    plan.in_ptr.assign(slots + 1, 0);
    auto each = [&](auto&& use) {
        for (int f = 0; f < plan.sparse_factors; ++f)
            for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v)
                for (i64 r = plan.row_ptr[v]; r < plan.row_ptr[v + 1];) {
                    const i64 row = plan.rows[r];
                    if (row >= plan.tail) {
                        if (plan.mode == TailMode::scattered) use(plan.in_slot(row, true), v, r - plan.row_ptr[v]);
                        ++r;
                    } else {
                        const int g = plan.factor_of(row);
                        const i64 node = plan.node_offset[g] + (row - plan.offset[g]) / plan.k[g];
                        use(plan.in_slot(node, false), v, r - plan.row_ptr[v]);
                        r += plan.k[g];
                    }
                }
    };
    each([&](i64 slot, i64, i64) { ++plan.in_ptr[slot + 1]; });
    for (i64 s = 0; s < slots; ++s) plan.in_ptr[s + 1] += plan.in_ptr[s];
    plan.in_node.resize(plan.in_ptr[slots]);
    plan.in_pos.resize(plan.in_ptr[slots]);
    std::vector<i64> at(plan.in_ptr.begin(), plan.in_ptr.end() - 1);
    each([&](i64 slot, i64 v, i64 pos) {
        plan.in_node[at[slot]] = v;
        plan.in_pos[at[slot]++] = pos;
    });
}

inline void estimate_cost(Plan& plan) {
    double pairs = 0, values = 0, panel = 0;
    for (int f = 0; f < plan.sparse_factors; ++f)
        for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v) {
            const double rows = static_cast<double>(plan.row_ptr[v + 1] - plan.row_ptr[v]);
            pairs += rows * rows * plan.k[f];
            panel += static_cast<double>(plan.m) * plan.m * plan.k[f];
            values += rows * plan.k[f];
        }
    const double m = plan.m;
    plan.flops = (plan.mode == TailMode::panel ? panel : pairs) + m * m * m / 3 + 10 * values;
    plan.bytes = 8 * (3 * m * m + 4 * values) + 4 * static_cast<double>(plan.rows.size());
}

inline Plan make_plan(const Blocks& b) {
    Plan plan;
    plan.factors = b.factors();
    plan.p = b.p;
    plan.levels = b.levels;
    plan.k = b.k;
    plan.offset.assign(1, 0);
    for (int f = 0; f < plan.factors; ++f)
        plan.offset.push_back(plan.offset.back() + static_cast<i64>(b.levels[f]) * b.k[f]);
    plan.q = plan.offset.back();
    if (plan.q + b.p + 1 > INT32_MAX) throw std::length_error("more than 2^31 random effects");
    NodePatterns patterns(b);
    plan.node_offset.assign(1, 0);
    for (int f = 0; f < plan.factors; ++f) {
        const double rest = static_cast<double>(plan.q - plan.offset[f]);
        // a small remainder is one cheap dense triangle; a head of independent levels never fills in
        const double limit = f == 0 && b.self[0].empty() ? 1e300 : rest <= 64 ? -1 : std::min(sparse_limit, dense_share * rest * rest / 2);
        if (limit < 0 || !patterns.add_factor(f, limit)) break;
        plan.node_offset.push_back(plan.node_offset.back() + b.levels[f]);
        ++plan.sparse_factors;
    }
    if (plan.sparse_factors == 0) plan.node_offset.push_back(0);
    plan.tail = plan.offset[plan.sparse_factors];
    plan.m = static_cast<int>(plan.scalars() - plan.tail);
    plan.row_ptr.assign(1, 0);
    plan.value_ptr.assign(1, 0);
    double tail_rows = 0;
    for (int f = 0; f < plan.sparse_factors; ++f) {
        bool independent = true;
        for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v) {
            for (i64 i = patterns.begin(v); i < patterns.end(v); ++i) {
                const int g = patterns.factor(patterns.at(i));
                if (g == f) independent = false;
                const i64 first = plan.offset[g] + (patterns.at(i) - patterns.start(g)) * b.k[g];
                for (int c = 0; c < b.k[g]; ++c) plan.rows.push_back(static_cast<i32>(first + c));
                if (first >= plan.tail) tail_rows += b.k[g] * b.k[f];
            }
            i32 before_tail = 0;
            for (std::size_t r = plan.row_ptr.back(); r < plan.rows.size(); ++r) before_tail += plan.rows[r] < plan.tail;
            plan.sparse_rows.push_back(before_tail);
            for (int x = 0; x <= b.p; ++x) plan.rows.push_back(static_cast<i32>(plan.q + x));
            tail_rows += (b.p + 1.0) * b.k[f];
            const i64 count = static_cast<i64>(plan.rows.size()) - plan.row_ptr.back();
            plan.row_ptr.push_back(static_cast<i64>(plan.rows.size()));
            plan.value_ptr.push_back(plan.value_ptr.back() + count * b.k[f]);
        }
        plan.independent.push_back(independent);
    }
    if (plan.m <= direct_size) plan.mode = TailMode::direct;
    else if (tail_rows > panel_share * plan.m * static_cast<double>(plan.tail)) plan.mode = TailMode::panel;
    plan.a.assign(plan.value_ptr.back(), 0.0);
    for (int f = 0; f < plan.sparse_factors; ++f)
        for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v) fill_node(plan, b, f, v);
    fill_incoming(plan);
    estimate_cost(plan);
    return plan;
}

}  // namespace multilevel
