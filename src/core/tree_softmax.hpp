// Softmax over the leaves of a tree whose nodes' coefficients are Gaussian deviations from their parents'.
//
// A tree has m nodes in depth-first order (the root left out) and c leaves, those below a node next to each other. With
// u_v = s_v w_v the deviation of node v, theta_v = theta_parent + u_v and B (p x c) the leaves' theta:
//   z_i = x_i B + b + o,   P(k | x_i) = softmax(z_i)_k,   P(node) = the sum over its leaves,
//   F(w) = -sum_i weight_i log P(label_i | x_i) + |w|^2 / 2,
// a label being a leaf or an inner node (then the log of a sum). Features come in groups, each with its own scales; the
// intercepts are one further feature, 1 in every row, with the last row of scales.
//
// One value with its gradient: B by one pass down the tree per feature; probabilities row by row; X'(P - Y) feature by feature
// from a copy of X by columns, so that no two threads write to one place; one pass up the tree per feature.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "parallel.hpp"
#include "tree_loops.hpp"

namespace multilevel {

struct Tree {
    std::vector<std::int32_t> parent;       // (m), -1 below the root; a parent comes before its children
    std::vector<std::int32_t> leaf_of;      // (m) number of a leaf, -1 of an inner node
    std::vector<std::int32_t> first, last;  // (m) leaves below each node: first to last - 1
    int leaves = 0;
    int nodes() const { return static_cast<int>(parent.size()); }
    int stride() const { return (leaves + 15) / 16 * 16; }  // leaves of a row in memory: whole blocks
};

// rows of a sparse matrix, or columns
template <class T>
struct Sparse {
    const std::int64_t* start;
    const std::int32_t* index;
    const T* value;
    std::int64_t lines, across;
};

// features in a row of one group of scales, at most LANES
struct FeatureBlock {
    std::size_t first;
    int count, group;
};

template <class T>
class TreeSoftmax {
  public:
    // label (rows): the node of each row; weight (rows); group (features): its row of the scales; offset (leaves)
    TreeSoftmax(Tree tree, Sparse<T> x, const std::int32_t* label, const double* weight, const std::int32_t* group, int groups,
                std::vector<T> offset, int threads)
        : tree_(std::move(tree)), x_(x), label_(label), weight_(weight), group_(group), groups_(groups), offset_(std::move(offset)),
          threads_(threads), m_(tree_.nodes()), c_(tree_.leaves), ld_(tree_.stride()), b_(cells(x.across)), bias_(ld_),
          p_(cells(x.lines)), inner_start_(x.lines, -1) {
        turn();
        cut();
        std::int64_t size = 0;
        for (std::int64_t i = 0; i < x_.lines; ++i)
            if (tree_.leaf_of[label_[i]] < 0) {
                inner_start_[i] = size;
                size += tree_.last[label_[i]] - tree_.first[label_[i]];
            }
        inner_.resize(size);
        change_inner_.resize(size);
    }

    std::size_t size() const { return static_cast<std::size_t>(features() + 1) * m_; }
    std::int64_t features() const { return x_.across; }
    int nodes() const { return m_; }
    int threads() const { return threads_; }

    // w (features + 1, m), scales (groups + 1, m) -> F; its gradient where wanted. Without the prior: the first sum alone.
    double value(const T* w, const double* scales, T* gradient, bool prior = true) {
        spread(w, scales, true);
        double f = rows();
        if (prior) f += 0.5 * dot(w, w);
        if (gradient) gather(p_, inner_, true, scales, prior ? w : nullptr, gradient);
        return f;
    }
    // Hessian of F at the w of the last value, times a vector
    void product(const T* direction, const double* scales, T* out, bool prior = true) {
        if (change_.empty()) change_.resize(p_.size());
        spread(direction, scales, false);
        changes();
        gather(change_, change_inner_, false, scales, prior ? direction : nullptr, out);
    }
    // what the labels say about each leaf's coefficient of each feature by itself, sum_i weight_i x_ij^2 p_ik (1 - p_ik), at
    // the w of the last value: for `precondition`
    void set_curvature() {
        if (change_.empty()) change_.resize(p_.size());
        curvature_.assign(cells(features() + 1), T(0));
        over_parts(x_.lines, [&](Range part) {
            for (std::size_t e = part.begin * ld_; e < part.end * ld_; ++e) change_[e] = p_[e] * (1 - p_[e]);
        }, ld_);
        over_parts(features(), [&](Range part) {
            for (std::size_t j = part.begin; j < part.end; ++j) {
                const std::int64_t begin = column_start_[j], end = column_start_[j + 1];
                combine(squares_.data() + begin, row_.data() + begin, end - begin, change_.data(), ld_, curvature_.data() + j * ld_);
            }
        }, 4 * ld_);
        const std::vector<double> sums = sums_of_rows(change_);
        std::copy(sums.begin(), sums.end(), curvature_.begin() + cells(features()));
    }
    // out = M^-1 r, M the Hessian as if features and leaves did not touch each other but through the tree: for each feature
    // I + S A' D A S, D its curvature, A which leaves are below which nodes. Solved from the leaves up and down again.
    void precondition(const T* r, const double* scales, T* out) const {
        over_blocks([&](const FeatureBlock& block, Buffers& at) {
            read(r, m_, block, at.w.data());
            read_leaves(curvature_.data(), block, at.j.data());
            family_solve(m_, tree_.parent.data(), scales_of(scales, block), at.w.data(), at.j.data(), at.h.data(), at.theta.data());
            write(at.w.data(), block, out);
        });
    }
    double dot(const T* a, const T* b) const {
        return sum_of_parts(size(), [&](Range r) {
            return dot_range(a + r.begin, b + r.begin, r.end - r.begin);
        });
    }
    // `work`: numbers each of the n costs; little work is not worth threads, the same parts all the same
    template <class Body>
    void over_parts(std::size_t n, Body&& body, std::size_t work = 1) const {
        const auto parts = ranges(n, 64);
        parallel_for(parts.size(), n * work < LITTLE ? 1 : threads_, [&](std::size_t part) { body(parts[part]); });
    }
    template <class Body>
    double sum_of_parts(std::size_t n, Body&& body, std::size_t work = 1) const {
        const auto parts = ranges(n, 64);
        std::vector<double> sums(parts.size());
        parallel_for(parts.size(), n * work < LITTLE ? 1 : threads_, [&](std::size_t part) { sums[part] = body(parts[part]); });
        double out = 0;
        for (double v : sums) out += v;
        return out;
    }

  private:
    static constexpr std::size_t LITTLE = 1000000;
    Tree tree_;
    Sparse<T> x_;
    const std::int32_t* label_;
    const double* weight_;
    const std::int32_t* group_;
    int groups_;
    std::vector<T> offset_;
    int threads_, m_, c_, ld_;
    std::vector<T> b_, bias_;                    // (features, ld), (ld)
    std::vector<T> p_, change_;                  // (rows, ld) probabilities of the leaves, and their change along a direction
    std::vector<std::int64_t> inner_start_;      // (rows) where an inner label's leaves begin in inner_, -1 of a leaf
    std::vector<T> inner_, change_inner_;        // probabilities of the leaves given an inner label, and their change
    std::vector<std::int64_t> column_start_;     // X by columns
    std::vector<std::int32_t> row_;
    std::vector<T> by_column_, squares_;         // x_ij weight_i, x_ij^2 weight_i
    std::vector<T> curvature_;                   // (features + 1, ld)
    std::vector<FeatureBlock> blocks_;           // of all features, the intercepts' last
    std::vector<int> node_of_;                   // (leaves)

    std::size_t cells(std::int64_t lines) const { return static_cast<std::size_t>(lines) * ld_; }

    void turn() {
        const std::int64_t entries = x_.start[x_.lines];
        column_start_.assign(x_.across + 1, 0);
        for (std::int64_t e = 0; e < entries; ++e) ++column_start_[x_.index[e] + 1];
        for (std::int64_t j = 0; j < x_.across; ++j) column_start_[j + 1] += column_start_[j];
        row_.resize(entries);
        by_column_.resize(entries);
        squares_.resize(entries);
        std::vector<std::int64_t> at(column_start_.begin(), column_start_.end() - 1);
        for (std::int64_t i = 0; i < x_.lines; ++i)
            for (std::int64_t e = x_.start[i]; e < x_.start[i + 1]; ++e) {
                const std::int64_t to = at[x_.index[e]]++;
                row_[to] = static_cast<std::int32_t>(i);
                by_column_[to] = static_cast<T>(x_.value[e] * weight_[i]);
                squares_[to] = static_cast<T>(x_.value[e] * by_column_[to]);
            }
    }
    // of one block of features: (nodes, LANES) each
    struct Buffers {
        std::vector<T> w, theta, j, h;
        explicit Buffers(int m) : w(m * LANES), theta(m * LANES), j(m * LANES), h(m * LANES) {}
    };
    void cut() {
        for (int v = 0; v < m_; ++v)
            if (tree_.leaf_of[v] >= 0) node_of_.push_back(v);
        for (std::size_t j = 0; j < static_cast<std::size_t>(features());) {
            const std::size_t first = j;
            while (j < static_cast<std::size_t>(features()) && j - first < LANES && group_[j] == group_[first]) ++j;
            blocks_.push_back({first, static_cast<int>(j - first), group_[first]});
        }
        blocks_.push_back({static_cast<std::size_t>(features()), 1, groups_});
    }
    template <class Body>
    void over_blocks(Body&& body) const {
        over_parts(blocks_.size(), [&](Range part) {
            Buffers at(m_);
            for (std::size_t k = part.begin; k < part.end; ++k) body(blocks_[k], at);
        }, static_cast<std::size_t>(4 * LANES) * m_);
    }
    const double* scales_of(const double* scales, const FeatureBlock& block) const {
        return scales + static_cast<std::size_t>(block.group) * m_;
    }
    // (features, nodes) <-> (nodes, LANES)
    void read(const T* from, int width, const FeatureBlock& block, T* to) const {
        for (int l = 0; l < block.count; ++l)
            for (int v = 0; v < width; ++v) to[v * LANES + l] = from[(block.first + l) * width + v];
    }
    void write(const T* from, const FeatureBlock& block, T* to) const {
        for (int l = 0; l < block.count; ++l)
            for (int v = 0; v < m_; ++v) to[(block.first + l) * m_ + v] = from[v * LANES + l];
    }
    // (features, ld) of the leaves -> the leaves' places among (nodes, LANES), 0 elsewhere
    void read_leaves(const T* from, const FeatureBlock& block, T* to) const {
        std::fill(to, to + static_cast<std::size_t>(m_) * LANES, T(0));
        for (int l = 0; l < block.count; ++l)
            for (int k = 0; k < c_; ++k) to[node_of_[k] * LANES + l] = from[(block.first + l) * ld_ + k];
    }
    // leaves' coefficients from the deviations of nodes
    void spread(const T* w, const double* scales, bool offset) {
        over_blocks([&](const FeatureBlock& block, Buffers& at) {
            read(w, m_, block, at.w.data());
            down(scales_of(scales, block), at);
            T* leaves = static_cast<std::int64_t>(block.first) < features() ? b_.data() + block.first * ld_ : bias_.data();
            for (int l = 0; l < block.count; ++l)
                for (int k = 0; k < c_; ++k) leaves[l * ld_ + k] = at.theta[node_of_[k] * LANES + l];
        });
        if (offset)
            for (int k = 0; k < c_; ++k) bias_[k] += offset_[k];
    }
    void down(const double* scales, Buffers& at) const {
        for (int v = 0; v < m_; ++v) {
            const T s = static_cast<T>(scales[v]);
            T* theta = at.theta.data() + v * LANES;
            const T* w = at.w.data() + v * LANES;
            if (const int above = tree_.parent[v]; above < 0)
                for (int l = 0; l < LANES; ++l) theta[l] = s * w[l];
            else
                for (int l = 0; l < LANES; ++l) theta[l] = s * w[l] + at.theta[above * LANES + l];
        }
    }
    void logits(std::int64_t i, T* z) const {
        std::copy(bias_.begin(), bias_.end(), z);
        const std::int64_t start = x_.start[i];
        combine(x_.value + start, x_.index + start, x_.start[i + 1] - start, b_.data(), ld_, z);
    }
    // -sum of weighted log probabilities of the labels; leaves p_ and inner_
    double rows() {
        return sum_of_parts(x_.lines, [&](Range part) {
            double sum = 0;
            for (std::size_t i = part.begin; i < part.end; ++i) {
                logits(i, p_.data() + i * ld_);
                const double log_probability = row(i, p_.data() + i * ld_);
                if (weight_[i] > 0) sum -= weight_[i] * log_probability;
            }
            return sum;
        }, 4 * ld_);
    }
    // log probability of one row's label; its logits become probabilities
    double row(std::size_t i, T* z) {
        const int node = label_[i], leaf = tree_.leaf_of[node];
        double own = leaf >= 0 ? z[leaf] : 0.0;
        if (leaf < 0) {
            const int first = tree_.first[node], count = tree_.last[node] - first;
            T* inner = inner_.data() + inner_start_[i];
            T top;
            std::copy(z + first, z + first + count, inner);
            const double total = exp_and_sum(inner, count, top);
            for (int k = 0; k < count; ++k) inner[k] = static_cast<T>(inner[k] / total);
            own = top + std::log(total);
        }
        T top;
        const double total = exp_and_sum(z, c_, top);
        const T scale = static_cast<T>(1 / total);
        for (int k = 0; k < c_; ++k) z[k] *= scale;
        for (int k = c_; k < ld_; ++k) z[k] = 0;
        return own - top - std::log(total);
    }
    // change of p_ and inner_ when the coefficients change by b_ and bias_
    void changes() {
        over_parts(x_.lines, [&](Range part) {
            for (std::size_t i = part.begin; i < part.end; ++i) {
                T* d = change_.data() + i * ld_;
                logits(i, d);
                if (inner_start_[i] >= 0) {
                    const int node = label_[i];
                    weigh(inner_.data() + inner_start_[i], d + tree_.first[node], change_inner_.data() + inner_start_[i],
                          tree_.last[node] - tree_.first[node]);
                }
                weigh(p_.data() + i * ld_, d, d, c_);
            }
        }, 4 * ld_);
    }
    static void weigh(const T* p, const T* d, T* out, int count) {
        double mean = 0;
        for (int k = 0; k < count; ++k) mean += static_cast<double>(p[k]) * d[k];
        const T shift = static_cast<T>(mean);
        for (int k = 0; k < count; ++k) out[k] = p[k] * (d[k] - shift);
    }
    // X'(P - Y) of each feature, summed up the tree; `leaf_labels`: Y of leaf labels is one, else nothing (a change of it)
    void gather(const std::vector<T>& p, const std::vector<T>& inner, bool leaf_labels, const double* scales, const T* w, T* out) const {
        const std::vector<T> by_bias = gather_intercepts(p, inner, leaf_labels);
        over_blocks([&](const FeatureBlock& block, Buffers& at) {
            std::vector<T> by_b(static_cast<std::size_t>(LANES) * ld_, T(0));
            if (static_cast<std::int64_t>(block.first) == features())
                std::copy(by_bias.begin(), by_bias.end(), by_b.begin());
            else
                for (int l = 0; l < block.count; ++l) gather_feature(block.first + l, p, inner, leaf_labels, by_b.data() + l * ld_);
            read_leaves(by_b.data(), {0, block.count, 0}, at.theta.data());
            up(scales_of(scales, block), at.theta.data());
            write(at.theta.data(), block, out);
            if (w)
                for (std::size_t e = block.first * m_; e < (block.first + block.count) * m_; ++e) out[e] += w[e];
        });
    }
    void gather_feature(std::size_t j, const std::vector<T>& p, const std::vector<T>& inner, bool leaf_labels, T* by_b) const {
        const std::int64_t begin = column_start_[j], end = column_start_[j + 1];
        combine(by_column_.data() + begin, row_.data() + begin, end - begin, p.data(), ld_, by_b);
        for (std::int64_t e = begin; e < end; ++e) take_label(row_[e], by_column_[e], inner, leaf_labels, by_b);
    }
    template <class S>
    void take_label(std::int64_t i, T x, const std::vector<T>& inner, bool leaf_labels, S* by_leaf) const {
        const int node = label_[i];
        if (inner_start_[i] < 0) {
            if (leaf_labels) by_leaf[tree_.leaf_of[node]] -= x;
            return;
        }
        const T* given = inner.data() + inner_start_[i];
        for (int k = tree_.first[node]; k < tree_.last[node]; ++k) by_leaf[k] -= x * *given++;
    }
    // sums over rows of (rows, ld) times their weights
    std::vector<double> sums_of_rows(const std::vector<T>& p) const {
        const auto parts = ranges(x_.lines, 64);
        std::vector<std::vector<double>> sums(parts.size(), std::vector<double>(c_, 0.0));
        parallel_for(parts.size(), threads_, [&](std::size_t part) {
            for (std::size_t i = parts[part].begin; i < parts[part].end; ++i)
                for (int k = 0; k < c_; ++k) sums[part][k] += weight_[i] * p[i * ld_ + k];
        });
        std::vector<double> out(c_, 0.0);
        for (const auto& one : sums)
            for (int k = 0; k < c_; ++k) out[k] += one[k];
        return out;
    }
    std::vector<T> gather_intercepts(const std::vector<T>& p, const std::vector<T>& inner, bool leaf_labels) const {
        std::vector<double> sums = sums_of_rows(p);
        for (std::int64_t i = 0; i < x_.lines; ++i) take_label(i, static_cast<T>(weight_[i]), inner, leaf_labels, sums.data());
        return std::vector<T>(sums.begin(), sums.end());
    }
    // sums over the leaves below each node, times the node's scale
    void up(const double* scales, T* sums) const {
        for (int v = m_; v-- > 0;) {
            T* own = sums + v * LANES;
            if (const int above = tree_.parent[v]; above >= 0)
                for (int l = 0; l < LANES; ++l) sums[above * LANES + l] += own[l];
            const T s = static_cast<T>(scales[v]);
            for (int l = 0; l < LANES; ++l) own[l] *= s;
        }
    }
};

// probabilities (rows, leaves) of the leaves: each row by itself, whatever rows there are beside it
template <class T>
void leaf_probabilities(const Sparse<T>& x, const T* coefficients, const T* intercepts, int leaves, int stride, int threads, double* out) {
    const auto parts = ranges(x.lines, 256);
    parallel_for(parts.size(), threads, [&](std::size_t part) {
        std::vector<T> z(stride);
        for (std::size_t i = parts[part].begin; i < parts[part].end; ++i) {
            std::copy(intercepts, intercepts + stride, z.begin());
            combine(x.value + x.start[i], x.index + x.start[i], x.start[i + 1] - x.start[i], coefficients, stride, z.data());
            double* row = out + i * leaves;
            for (int k = 0; k < leaves; ++k) row[k] = z[k];
            double top;
            const double total = exp_and_sum(row, leaves, top);
            for (int k = 0; k < leaves; ++k) row[k] /= total;
        }
    });
}

}  // namespace multilevel
