// Numeric factorisation of Omega(Lambda) = Lambda'[Z X y]'W[Z X y]Lambda + I: the value of the objective.
//
// Left-looking: a node (one level) collects the updates of the nodes that touch it, then takes its k x k Cholesky
// factor and divides its rows; the dense tail collects all updates and goes to LAPACK. Each target is written by one
// thread in a fixed order, so values do not depend on the thread count (apart from BLAS on the dense tail).
// Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 3, gives the objective.
#pragma once
#include <memory>

#include "plan.hpp"
#include "small.hpp"

namespace multilevel {

// Sum of logarithms of positive numbers, with one logarithm per hundred or so.
class LogProduct {
  public:
    void multiply(double x) {
        product_ *= x;
        if (!(product_ < 1e150 && product_ > 1e-150)) {
            sum_ += std::log(product_);
            product_ = 1;
        }
    }
    double value() const { return sum_ + std::log(product_); }

  private:
    double product_ = 1, sum_ = 0;
};

enum class Status { ok = 0, not_positive = 1, perfect_fit = 2 };

class Factor {
  public:
    Factor(const Blocks& blocks, const Plan& plan) : b(blocks), plan(plan) {
        diag_ptr.assign(1, 0);
        for (int f = 0; f < plan.sparse_factors; ++f)
            diag_ptr.push_back(diag_ptr.back() + static_cast<i64>(plan.levels[f]) * plan.k[f] * plan.k[f]);
        l_diag.resize(diag_ptr.back());
        l.resize(plan.value_ptr.back());
        tail.resize(static_cast<std::size_t>(plan.m) * plan.m);
        lambda.resize(plan.factors);
    }

    const Blocks& b;
    const Plan& plan;
    const Response* y = nullptr;
    std::vector<vec> lambda;     // per factor k x k, row-major
    std::vector<i64> diag_ptr;   // per sparse factor: first entry of its k x k blocks in l_diag
    vec l_diag, l, tail;
    double log_det_u = 0, log_det_x = 0, r2 = 0;
    Status status = Status::ok;

    // 2 log|L_u|, 2 log|L_X| and the penalised residual sum of squares at `lambda`
    Status evaluate(const std::vector<vec>& lam, const Response& response, int threads) {
        lambda = lam;
        y = &response;
        if (plan.flops < 2e6) threads = 1;
        status = Status::ok;
        for (int f = 0; f < plan.sparse_factors && status == Status::ok; ++f) eliminate(f, threads);
        if (status != Status::ok) return status;
        start_tail();
        if (plan.mode == TailMode::direct) subtract_direct(threads);
        else if (plan.mode == TailMode::panel) subtract_panels();
        else subtract_scattered(threads);
        return finish_tail();
    }

    // entry (row, col) of the lower-triangular X block of L
    double l_x(i64 row, i64 col) const {
        return tail[(plan.q - plan.tail + row) + (plan.q - plan.tail + col) * plan.m];
    }
    double* diag_block(int f, i64 node) {
        return l_diag.data() + diag_ptr[f] + (node - plan.node_offset[f]) * plan.k[f] * plan.k[f];
    }
    const i32* rows(i64 node) const { return plan.rows.data() + plan.row_ptr[node]; }
    i64 row_count(i64 node) const { return plan.row_ptr[node + 1] - plan.row_ptr[node]; }
    double* values(i64 node) { return l.data() + plan.value_ptr[node]; }
    int sparse_factor_of(i64 node) const {
        int f = 0;
        while (plan.node_offset[f + 1] <= node) ++f;
        return f;
    }
    const double* response_row(int f, i64 node) const {
        return y->zy[f].data() + (node - plan.node_offset[f]) * plan.k[f];
    }

    // visit the rows of a pattern in blocks: body(first row position, factor) for each random-effect block;
    // returns the position of the first X (or y) row
    template <class Body>
    i64 each_block(i64 node, Body&& body) const {
        const i32* row = rows(node);
        const i64 random = row_count(node) - plan.p - 1;
        int g = 0;
        for (i64 r = 0; r < random; r += plan.k[g]) {
            while (plan.offset[g + 1] <= row[r]) ++g;
            body(r, g);
        }
        return random;
    }

  private:
    void eliminate(int f, int threads) {
        const i64 first = plan.node_offset[f], count = plan.node_offset[f + 1] - first;
        const bool updated = f > 0 || !plan.independent[0];
        const auto parts = ranges(count, plan.independent[f] ? 64 : 1);
        vec logs(parts.size(), 0.0);
        std::atomic<bool> failed{false};
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            // read only where written just before, so left uninitialised: its length is that of all effects
            const std::unique_ptr<i32[]> position(updated ? new i32[plan.scalars()] : nullptr);
            with_size(plan.k[f], [&](auto K) {
                LogProduct logs_here;
                for (std::size_t i = parts[t].begin; i < parts[t].end && !failed; ++i) {
                    const i64 node = first + static_cast<i64>(i);
                    start_node<K>(f, node);
                    if (updated) collect<K>(f, node, position.get());
                    if (!divide<K>(f, node, logs_here)) failed = true;
                }
                logs[t] = 2 * logs_here.value();
            });
        });
        if (failed) status = Status::not_positive;
        if (f == 0) log_det_u = 0;
        for (double v : logs) log_det_u += v;
    }

    // Omega's column block of one node before any update
    template <int K>
    void start_node(int f, i64 node) {
        const int k = K ? K : plan.k[f];
        const double *lam = lambda[f].data(), *a = plan.a.data() + plan.value_ptr[node];
        double *out = values(node), *d = diag_block(f, node);
        Scratch scratch(static_cast<std::size_t>(k) * k);
        double* tmp = scratch.data();
        const double* z = b.diag[f].data() + (node - plan.node_offset[f]) * k * k;
        product<K>(z, lam, tmp, k);
        transposed_product<K>(lam, tmp, d, k);
        const i64 level = node - plan.node_offset[f];
        const double prior = b.self[f].diagonal(level);
        for (int c = 0; c < k; ++c) d[c * k + c] += prior;
        const i64 count = row_count(node);
        const i64 x = each_block(node, [&](i64 r, int g) {
            const int kg = plan.k[g];
            const double* lg = lambda[g].data();
            if (kg == 1) {
                row_product<K>(a + r * k, lam, out + r * k, k);
                for (int c = 0; c < k; ++c) out[r * k + c] *= lg[0];
                return;
            }
            for (int i = 0; i < kg; ++i) {  // (lambda_g' A) row i, then times lambda_f
                double* row = tmp;
                std::fill(row, row + k, 0.0);
                for (int j = 0; j < kg; ++j)
                    for (int c = 0; c < k; ++c) row[c] += lg[j * kg + i] * a[(r + j) * k + c];
                row_product<K>(row, lam, out + (r + i) * k, k);
            }
        });
        if (!b.self[f].empty()) add_prior(f, level, node, out);
        for (i64 r = x; r < count - 1; ++r) row_product<K>(a + r * k, lam, out + r * k, k);
        row_product<K>(response_row(f, node), lam, out + (count - 1) * k, k);
    }

    // the prior precision between this level and later ones of its factor
    void add_prior(int f, i64 level, i64 node, double* out) {
        const SelfPairs& self = b.self[f];
        const int k = plan.k[f];
        const i32* row = rows(node);
        i64 r = 0;
        for (i64 i = self.a.ptr[level]; i < self.a.ptr[level + 1]; ++i) {
            const i64 first = plan.offset[f] + static_cast<i64>(self.a.idx[i]) * k;
            while (row[r] < first) ++r;
            for (int c = 0; c < k; ++c) out[(r + c) * k + c] += self.prior[i];
        }
    }

    // subtract what earlier nodes do to this one
    template <int K>
    void collect(int f, i64 node, i32* position) {
        const int k = K ? K : plan.k[f];
        const i64 slot = plan.in_slot(node, false), count = row_count(node);
        const i32* mine = rows(node);
        for (i64 r = 0; r < count; ++r) position[mine[r]] = static_cast<i32>(r);
        double *out = values(node), *d = diag_block(f, node);
        for (i64 in = plan.in_ptr[slot]; in < plan.in_ptr[slot + 1]; ++in) {
            const i64 from = plan.in_node[in], pos = plan.in_pos[in], rows_from = row_count(from);
            const int kf = plan.k[sparse_factor_of(from)];
            const double* lf = values(from);
            const i32* theirs = rows(from);
            if (k == 1 && kf == 1) {
                const double mine0 = lf[pos];
                d[0] -= mine0 * mine0;
                for (i64 r = pos + 1; r < rows_from; ++r) out[position[theirs[r]]] -= lf[r] * mine0;
                continue;
            }
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < k; ++j) d[i * k + j] -= dot<0>(lf + (pos + i) * kf, lf + (pos + j) * kf, kf);
            for (i64 r = pos + k; r < rows_from; ++r) {
                double* target = out + static_cast<i64>(position[theirs[r]]) * k;
                for (int c = 0; c < k; ++c) target[c] -= dot<0>(lf + r * kf, lf + (pos + c) * kf, kf);
            }
        }
    }

    template <int K>
    bool divide(int f, i64 node, LogProduct& logs) {
        const int k = K ? K : plan.k[f];
        double *d = diag_block(f, node), *out = values(node);
        if (!cholesky<K>(d, k)) return false;
        for (int c = 0; c < k; ++c) logs.multiply(d[c * k + c]);
        const i64 count = row_count(node);
        for (i64 r = 0; r < count; ++r) solve_lower<K>(d, out + r * k, k);
        return true;
    }

    double& at(i64 row, i64 col) { return tail[(row - plan.tail) + (col - plan.tail) * plan.m]; }

    void start_tail() {
        if (plan.sparse_factors == 0) log_det_u = 0;
        std::fill(tail.begin(), tail.end(), 0.0);
        const i64 x0 = plan.q, y0 = plan.q + plan.p;
        for (int g = plan.sparse_factors; g < plan.factors; ++g) tail_factor(g);
        for (int i = 0; i < plan.p; ++i) {
            for (int j = 0; j <= i; ++j) at(x0 + i, x0 + j) = b.xx[i * plan.p + j];
            at(y0, x0 + i) = y->xy[i];
        }
        at(y0, y0) = y->yy;
    }

    void tail_factor(int g) {
        const int k = plan.k[g], p = plan.p;
        const double* lam = lambda[g].data();
        vec tmp(k * k), block(k * k);
        for (i64 j = 0; j < plan.levels[g]; ++j) {
            const i64 first = plan.offset[g] + j * k;
            product<0>(b.diag[g].data() + j * k * k, lam, tmp.data(), k);
            transposed_product<0>(lam, tmp.data(), block.data(), k);
            for (int r = 0; r < k; ++r)
                for (int c = 0; c <= r; ++c) at(first + r, first + c) = block[r * k + c] + (r == c ? b.self[g].diagonal(j) : 0);
            const double *border = b.border[g].data() + j * k * p, *zy = y->zy[g].data() + j * k;
            for (int c = 0; c < k; ++c) {
                double s = 0;
                for (int e = 0; e < k; ++e) s += zy[e] * lam[e * k + c];
                at(plan.q + p, first + c) = s;
                for (int x = 0; x < p; ++x) {
                    double t = 0;
                    for (int e = 0; e < k; ++e) t += border[e * p + x] * lam[e * k + c];
                    at(plan.q + x, first + c) = t;
                }
            }
            for (int h = b.self[g].empty() ? g + 1 : g; h < plan.factors; ++h) tail_pair(g, h, j);
        }
    }

    void tail_pair(int g, int h, i64 level) {
        const PairBlocks& pb = g == h ? b.self[g].a : b.pairs[g][h - g - 1];
        const int k = plan.k[g], kh = plan.k[h];
        const double *lg = lambda[g].data(), *lh = lambda[h].data();
        vec half(kh * k);
        for (i64 i = pb.ptr[level]; i < pb.ptr[level + 1]; ++i) {
            const double* a = pb.val.data() + i * kh * k;
            for (int r = 0; r < kh; ++r) row_product<0>(a + r * k, lg, half.data() + r * k, k);
            const i64 row = plan.offset[h] + static_cast<i64>(pb.idx[i]) * kh, col = plan.offset[g] + level * k;
            for (int r = 0; r < kh; ++r)
                for (int c = 0; c < k; ++c) {
                    double s = 0;
                    for (int e = 0; e < kh; ++e) s += lh[e * kh + r] * half[e * k + c];
                    at(row + r, col + c) = g == h && r == c ? s + b.self[g].prior[i] : s;
                }
        }
    }

    // tail -= L_T L_T', one target column at a time; the column stays in cache
    void subtract_scattered(int threads) {
        const auto parts = ranges(plan.m, 256);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            for (std::size_t a = parts[t].begin; a < parts[t].end; ++a) {
                double* column = tail.data() + a * plan.m;
                const i64 slot = plan.in_slot(plan.tail + static_cast<i64>(a), true);
                for (i64 in = plan.in_ptr[slot]; in < plan.in_ptr[slot + 1]; ++in) {
                    const i64 node = plan.in_node[in], pos = plan.in_pos[in], count = row_count(node);
                    const i32* row = rows(node);
                    const double* v = values(node);
                    with_size(plan.k[sparse_factor_of(node)], [&](auto K) {
                        const int k = K ? int(K) : plan.k[sparse_factor_of(node)];
                        const double* va = v + pos * k;
                        for (i64 r = pos; r < count; ++r) column[row[r] - plan.tail] -= dot<K>(v + r * k, va, k);
                    });
                }
            }
        });
    }

  public:
    // the tail rows of a run of nodes as a dense m x columns panel; returns the next node
    i64 load_panel(i64 node, int f, vec& panel, int& columns, int max_columns) {
        const int k = plan.k[f];
        const i64 end = std::min(plan.node_offset[f + 1], node + std::max(1, max_columns / k));
        columns = static_cast<int>(end - node) * k;
        panel.assign(static_cast<std::size_t>(columns) * plan.m, 0.0);
        for (i64 v = node; v < end; ++v) {
            const double* lv = values(v);
            const i32* row = rows(v);
            double* base = panel.data() + (v - node) * k * plan.m;
            for (i64 r = plan.sparse_rows[v]; r < row_count(v); ++r)
                for (int c = 0; c < k; ++c) base[c * static_cast<i64>(plan.m) + row[r] - plan.tail] = lv[r * k + c];
        }
        return end;
    }
    int panel_columns() const { return std::max(16, std::min(4096, static_cast<int>(4000000 / plan.m))); }

  private:
    // a small tail: sums over fixed runs of nodes, added in order
    void subtract_direct(int threads) {
        const int m = plan.m;
        for (int f = 0; f < plan.sparse_factors; ++f) {
            const i64 first = plan.node_offset[f];
            const auto parts = ranges(plan.node_offset[f + 1] - first, 64);
            std::vector<vec> sums(parts.size());
            parallel_for(parts.size(), threads, [&](std::size_t t) {
                sums[t].assign(static_cast<std::size_t>(m) * m, 0.0);
                with_size(plan.k[f], [&](auto K) {
                    const int k = K ? int(K) : plan.k[f];
                    for (std::size_t i = parts[t].begin; i < parts[t].end; ++i) {
                        const i64 node = first + static_cast<i64>(i), count = row_count(node);
                        const i32* row = rows(node);
                        const double* v = values(node);
                        for (i64 a = plan.sparse_rows[node]; a < count; ++a) {
                            double* column = sums[t].data() + (row[a] - plan.tail) * m;
                            for (i64 r = a; r < count; ++r) column[row[r] - plan.tail] += dot<K>(v + r * k, v + a * k, k);
                        }
                    }
                });
            });
            for (const vec& s : sums)
                for (std::size_t i = 0; i < s.size(); ++i) tail[i] -= s[i];
        }
    }

    void subtract_panels() {
        vec panel;
        int columns = 0;
        for (int f = 0; f < plan.sparse_factors; ++f)
            for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1];) {
                v = load_panel(v, f, panel, columns, panel_columns());
                syrk_lower(plan.m, columns, -1.0, panel.data(), plan.m, 1.0, tail.data(), plan.m);
            }
    }

    Status finish_tail() {
        const int info = potrf_lower(plan.m, tail.data(), plan.m);
        // only the last pivot, the residual sum of squares, may vanish in a sound model
        if (info != 0) return status = info == plan.m ? Status::perfect_fit : Status::not_positive;
        const i64 random = plan.q - plan.tail;
        log_det_x = 0;
        for (i64 i = 0; i < plan.m - 1; ++i) (i < random ? log_det_u : log_det_x) += 2 * std::log(tail[i * plan.m + i]);
        const double r = tail[static_cast<std::size_t>(plan.m) * plan.m - 1];
        r2 = r * r;
        return status;
    }
};

}  // namespace multilevel
