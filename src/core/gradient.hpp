// The selected inverse S = L^{-T} diag(w) L^{-1} on the pattern of L, and the gradient that falls out of it.
//
// With w = 1 on random effects, 1 (REML) or 0 (ML) on X and df on y, the derivative of the profiled deviance by the
// k x k factor of a grouping factor is G = 2 sum_j [A Lambda S]_jj over its levels j (reverse mode through the
// Cholesky factor; Takahashi's recursion backwards over the nodes). Nothing divides by Lambda: singular is fine.
#pragma once
#include <limits>

#include "factor.hpp"

namespace multilevel {

struct Weights {
    double u = 1, x = 0, y = 0;
    const vec* border = nullptr;  // C, lower (p+1) x (p+1) column-major: C'C takes the place of diag(x, y)
};

class Inverse {
  public:
    explicit Inverse(Factor& factor) : fac(factor), plan(factor.plan), b(factor.b) {
        s.resize(fac.l.size());
        s_diag.resize(fac.l_diag.size());
        s_tail.resize(fac.tail.size());
    }

    Factor& fac;
    const Plan& plan;
    const Blocks& b;
    vec s, s_diag, s_tail;  // same layout as Factor::l, l_diag, tail (tail full and symmetric)
    std::vector<vec> gradient;

    // S on the pattern; with `want_gradient` also the k x k gradients per factor
    void compute(const Weights& w, bool want_gradient, int threads) {
        if (plan.flops < 2e6) threads = 1;
        weights_ = w;
        invert_tail();
        if (plan.mode == TailMode::panel) tail_products_panel();
        else if (plan.mode == TailMode::scattered) tail_products_scattered(threads);
        if (want_gradient) {
            gradient.assign(plan.factors, {});
            for (int f = 0; f < plan.factors; ++f) gradient[f].assign(plan.k[f] * plan.k[f], 0.0);
        }
        for (int f = plan.sparse_factors - 1; f >= 0; --f) sweep(f, want_gradient, threads);
        if (want_gradient) {
            for (int g = plan.sparse_factors; g < plan.factors; ++g) tail_gradient(g);
            for (vec& g : gradient)
                for (double& v : g) v *= 2;
        }
    }
    const double* diag_block(int f, i64 level) const {
        return s_diag.data() + fac.diag_ptr[f] + level * plan.k[f] * plan.k[f];
    }
    double tail_at(i64 row, i64 col) const { return s_tail[(row - plan.tail) + (col - plan.tail) * plan.m]; }

    // v'S v for a sparse v given as ascending random-effect scalars (whole levels) and all X columns; NaN if two of
    // its levels never met in the data, so that their entry of S was not computed
    double quadratic(const std::vector<i64>& index, const vec& value, const double* x) const {
        double total = 0;
        const std::size_t count = index.size();
        for (std::size_t i = 0; i < count;) {
            if (index[i] >= plan.tail) {
                for (std::size_t j = 0; j < count; ++j) {
                    if (j < i) continue;
                    total += (i == j ? 1 : 2) * value[i] * value[j] * tail_at(index[j], index[i]);
                }
                for (int c = 0; c < plan.p; ++c) total += 2 * value[i] * x[c] * tail_at(plan.q + c, index[i]);
                ++i;
                continue;
            }
            const int f = plan.factor_of(index[i]), k = plan.k[f];
            const i64 level = (index[i] - plan.offset[f]) / k, node = plan.node_offset[f] + level;
            const double *sd = diag_block(f, level), *sv = s.data() + plan.value_ptr[node], *mine = value.data() + i;
            for (int a = 0; a < k; ++a) total += mine[a] * dot<0>(sd + a * k, mine, k);
            const i32 *row = fac.rows(node), *end = row + fac.row_count(node), *at = row;
            for (std::size_t j = i + k; j < count; ++j) {
                at = std::lower_bound(at, end, static_cast<i32>(index[j]));
                if (at == end || *at != index[j]) return std::numeric_limits<double>::quiet_NaN();
                total += 2 * value[j] * dot<0>(sv + (at - row) * k, mine, k);
            }
            const double* border = sv + (fac.row_count(node) - 1 - plan.p) * k;
            for (int c = 0; c < plan.p; ++c) total += 2 * x[c] * dot<0>(border + c * k, mine, k);
            i += k;
        }
        for (int a = 0; a < plan.p; ++a)
            for (int c = 0; c < plan.p; ++c) total += x[a] * x[c] * tail_at(plan.q + a, plan.q + c);
        return total;
    }

  private:
    Weights weights_;

    void invert_tail() {
        const int m = plan.m;
        const i64 random = plan.q - plan.tail;
        // copy the lower triangle only: LAPACK never reads the rest
        for (i64 c = 0; c < m; ++c)
            std::copy(fac.tail.begin() + c * m + c, fac.tail.begin() + (c + 1) * m, s_tail.begin() + c * m + c);
        trtri_lower(m, s_tail.data(), m);
        const double wu = std::sqrt(weights_.u), wx = std::sqrt(weights_.x), wy = std::sqrt(weights_.y);
        for (i64 c = 0; c < m; ++c)
            for (i64 r = c; r < (weights_.border ? random : m); ++r)
                s_tail[r + c * m] *= r < random ? wu : r < m - 1 ? wx : wy;
        if (weights_.border) weigh_border(*weights_.border, random);
        lauum_lower(m, s_tail.data(), m);
        mirror();
    }
    // rows of X and y of the inverse factor, times C
    void weigh_border(const vec& border, i64 first) {
        const i64 m = plan.m, size = m - first;
        for (i64 c = 0; c < m; ++c) {
            double* column = s_tail.data() + c * m + first;
            for (i64 i = size; i-- > std::max<i64>(0, c - first);) {
                double sum = 0;
                for (i64 j = std::max<i64>(0, c - first); j <= i; ++j) sum += border[i + j * size] * column[j];
                column[i] = sum;
            }
        }
    }
    // upper triangle from the lower one, by tiles that fit the cache
    void mirror() {
        const i64 m = plan.m, tile = 64;
        for (i64 c0 = 0; c0 < m; c0 += tile)
            for (i64 r0 = c0; r0 < m; r0 += tile)
                for (i64 c = c0; c < std::min(c0 + tile, m); ++c)
                    for (i64 r = std::max(r0, c + 1); r < std::min(r0 + tile, m); ++r)
                        s_tail[c + r * m] = s_tail[r + c * m];
    }

    // V = S_TT L_T on the tail rows of every node, kept in s
    void tail_products_scattered(int threads) {
        const auto parts = ranges(plan.m, 256);
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            for (std::size_t a = parts[t].begin; a < parts[t].end; ++a) {
                const double* column = s_tail.data() + a * plan.m;
                const i64 slot = plan.in_slot(plan.tail + static_cast<i64>(a), true);
                for (i64 in = plan.in_ptr[slot]; in < plan.in_ptr[slot + 1]; ++in) {
                    const i64 node = plan.in_node[in], pos = plan.in_pos[in], count = fac.row_count(node);
                    const i32* row = fac.rows(node);
                    const double* v = fac.values(node);
                    with_size(plan.k[fac.sparse_factor_of(node)], [&](auto K) {
                        const int k = K ? int(K) : plan.k[fac.sparse_factor_of(node)];
                        double* out = s.data() + plan.value_ptr[node] + pos * k;
                        std::fill(out, out + k, 0.0);
                        for (i64 r = plan.sparse_rows[node]; r < count; ++r) {
                            const double sr = column[row[r] - plan.tail];
                            for (int c = 0; c < k; ++c) out[c] += sr * v[r * k + c];
                        }
                    });
                }
            }
        });
    }
    template <int K>
    void tail_products_direct(int f, i64 node) {
        const int k = K ? K : plan.k[f];
        const i64 count = fac.row_count(node);
        const i32* row = fac.rows(node);
        const double* v = fac.values(node);
        double* out = s.data() + plan.value_ptr[node];
        for (i64 a = plan.sparse_rows[node]; a < count; ++a) {
            const double* column = s_tail.data() + (row[a] - plan.tail) * plan.m;
            for (int c = 0; c < k; ++c) {
                double sum = 0;
                for (i64 r = plan.sparse_rows[node]; r < count; ++r) sum += column[row[r] - plan.tail] * v[r * k + c];
                out[a * k + c] = sum;
            }
        }
    }
    void tail_products_panel() {
        vec panel, result;
        int columns = 0;
        for (int f = 0; f < plan.sparse_factors; ++f)
            for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1];) {
                const i64 first = v;
                v = fac.load_panel(v, f, panel, columns, fac.panel_columns());
                result.resize(panel.size());
                gemm('N', 'N', plan.m, columns, plan.m, 1.0, s_tail.data(), plan.m, panel.data(), plan.m, 0.0,
                     result.data(), plan.m);
                const int k = plan.k[f];
                for (i64 u = first; u < v; ++u) {
                    const i32* row = fac.rows(u);
                    double* out = s.data() + plan.value_ptr[u];
                    const double* base = result.data() + (u - first) * k * plan.m;
                    for (i64 r = plan.sparse_rows[u]; r < fac.row_count(u); ++r)
                        for (int c = 0; c < k; ++c) out[r * k + c] = base[c * static_cast<i64>(plan.m) + row[r] - plan.tail];
                }
            }
    }

    void sweep(int f, bool want_gradient, int threads) {
        const i64 first = plan.node_offset[f], count = plan.node_offset[f + 1] - first;
        const auto parts = ranges(count, plan.independent[f] ? 64 : 1);
        std::vector<std::vector<vec>> sums(parts.size());
        parallel_for(parts.size(), threads, [&](std::size_t t) {
            if (want_gradient)
                for (int g = 0; g < plan.factors; ++g) sums[t].emplace_back(plan.k[g] * plan.k[g], 0.0);
            with_size(plan.k[f], [&](auto K) {
                vec work(2 * plan.k[f] * plan.k[f]);
                for (std::size_t i = parts[t].end; i-- > parts[t].begin;) {
                    const i64 node = first + static_cast<i64>(i);
                    if (plan.mode == TailMode::direct) tail_products_direct<K>(f, node);
                    if (plan.sparse_rows[node]) sparse_products<K>(f, node);
                    finish_node<K>(f, node, work);
                    if (want_gradient) node_gradient<K>(f, node, sums[t], work);
                }
            });
        });
        for (const auto& part : sums)
            for (int g = 0; g < plan.factors && want_gradient; ++g) add_into(gradient[g], part[g]);
    }

    // the part of V = S_PP L_P that involves rows of later sparse nodes
    template <int K>
    void sparse_products(int f, i64 node) {
        const int k = K ? K : plan.k[f];
        const i64 sparse = plan.sparse_rows[node], count = fac.row_count(node);
        const i32* row = fac.rows(node);
        const double* lv = fac.values(node);
        double* v = s.data() + plan.value_ptr[node];
        std::fill(v, v + sparse * k, 0.0);
        int g = f;
        for (i64 pa = 0; pa < sparse; pa += plan.k[g]) {
            while (plan.offset[g + 1] <= row[pa]) ++g;
            const int kg = plan.k[g];
            const i64 level = (row[pa] - plan.offset[g]) / kg, other = plan.node_offset[g] + level;
            const double *sd = diag_block(g, level), *so = s.data() + plan.value_ptr[other];
            for (int i = 0; i < kg; ++i)
                for (int j = 0; j < kg; ++j)
                    for (int c = 0; c < k; ++c) v[(pa + i) * k + c] += sd[i * kg + j] * lv[(pa + j) * k + c];
            const i32 *theirs = fac.rows(other), *end = theirs + fac.row_count(other), *at = theirs;
            // the rows after this block are among its own: walk where they are dense there, search where they are not
            const bool walk = 8 * (count - pa) > end - theirs;
            if (walk && k == 1 && kg == 1) {
                double sum = 0;
                const double mine = lv[pa];
                for (i64 r = pa + 1; r < count; ++r) {
                    while (*at < row[r]) ++at;
                    const double sr = so[at - theirs];
                    sum += sr * lv[r];
                    v[r] += sr * mine;
                }
                v[pa] += sum;
                continue;
            }
            for (i64 r = pa + kg; r < count; ++r) {
                if (walk)
                    while (*at < row[r]) ++at;
                else
                    at = std::lower_bound(at, end, row[r]);
                const double* sr = so + (at - theirs) * kg;
                for (int i = 0; i < kg; ++i)
                    for (int c = 0; c < k; ++c) {
                        v[(pa + i) * k + c] += sr[i] * lv[r * k + c];
                        v[r * k + c] += sr[i] * lv[(pa + i) * k + c];
                    }
            }
        }
    }

    // S_P = -V L_vv^{-1} (in place of V) and S_vv = L_vv^{-T}(w I + L_P'V) L_vv^{-1}
    template <int K>
    void finish_node(int f, i64 node, vec& work) {
        const int k = K ? K : plan.k[f];
        const i64 count = fac.row_count(node);
        const double *lv = fac.values(node), *d = fac.diag_block(f, node);
        double* v = s.data() + plan.value_ptr[node];
        double* inner = work.data();
        std::fill(inner, inner + k * k, 0.0);
        for (int c = 0; c < k; ++c) inner[c * k + c] = weights_.u;
        for (i64 r = 0; r < count; ++r) {
            for (int i = 0; i < k; ++i)
                for (int j = 0; j < k; ++j) inner[i * k + j] += lv[r * k + i] * v[r * k + j];
            for (int c = 0; c < k; ++c) v[r * k + c] = -v[r * k + c];
            solve_lower_transposed<K>(d, v + r * k, k);
        }
        double* out = s_diag.data() + fac.diag_ptr[f] + (node - plan.node_offset[f]) * k * k;
        for (int i = 0; i < k; ++i) solve_lower_transposed<K>(d, inner + i * k, k);  // inner L^{-1}
        Scratch x(k);
        for (int j = 0; j < k; ++j) {
            for (int i = 0; i < k; ++i) x[i] = inner[i * k + j];
            solve_lower_transposed<K>(d, x.data(), k);
            for (int i = 0; i < k; ++i) out[i * k + j] = x[i];
        }
    }

    // this node's terms of A Lambda S: its diagonal block, its column and, transposed, its row
    template <int K>
    void node_gradient(int f, i64 node, std::vector<vec>& sums, vec& work) {
        const int k = K ? K : plan.k[f];
        const i64 level = node - plan.node_offset[f], count = fac.row_count(node);
        const double *lam = fac.lambda[f].data(), *a = plan.a.data() + plan.value_ptr[node];
        const double* sv = s.data() + plan.value_ptr[node];
        double *mine = sums[f].data(), *tmp = work.data(), *tmp2 = work.data() + k * k;
        product<K>(lam, diag_block(f, level), tmp, k);
        product<K>(b.diag[f].data() + level * k * k, tmp, tmp2, k);
        for (int e = 0; e < k * k; ++e) mine[e] += tmp2[e];
        auto own = [&](const double* ar, const double* wr) {
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) mine[i * k + c] += ar[i] * wr[c];
        };
        const i64 x = fac.each_block(node, [&](i64 r, int g) {
            const int kg = plan.k[g];
            const double* lg = fac.lambda[g].data();
            double* theirs = sums[g].data();
            if (kg == 1) {
                row_product<K>(a + r * k, lam, tmp, k);
                theirs[0] += dot<K>(tmp, sv + r * k, k);
                for (int c = 0; c < k; ++c) tmp[c] = lg[0] * sv[r * k + c];
                own(a + r * k, tmp);
                return;
            }
            double* row = tmp2;
            for (int i = 0; i < kg; ++i) {
                row_product<K>(a + (r + i) * k, lam, row, k);
                for (int j = 0; j < kg; ++j) theirs[i * kg + j] += dot<K>(row, sv + (r + j) * k, k);
                std::fill(row, row + k, 0.0);
                for (int j = 0; j < kg; ++j)
                    for (int c = 0; c < k; ++c) row[c] += lg[i * kg + j] * sv[(r + j) * k + c];
                own(a + (r + i) * k, row);
            }
        });
        for (i64 r = x; r < count - 1; ++r) own(a + r * k, sv + r * k);
        own(fac.response_row(f, node), sv + (count - 1) * k);
    }

    void tail_gradient(int g) {
        const int k = plan.k[g], p = plan.p;
        const double* lam = fac.lambda[g].data();
        vec sd(k * k), tmp(k * k), out(k * k);
        for (i64 j = 0; j < plan.levels[g]; ++j) {
            const i64 first = plan.offset[g] + j * k;
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) sd[i * k + c] = tail_at(first + i, first + c);
            product<0>(lam, sd.data(), tmp.data(), k);
            product<0>(b.diag[g].data() + j * k * k, tmp.data(), out.data(), k);
            add_into(gradient[g], out);
            const double *border = b.border[g].data() + j * k * p, *zy = fac.y->zy[g].data() + j * k;
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) {
                    double v = zy[i] * tail_at(plan.q + p, first + c);
                    for (int x = 0; x < p; ++x) v += border[i * p + x] * tail_at(plan.q + x, first + c);
                    gradient[g][i * k + c] += v;
                }
            for (int h = b.self[g].empty() ? g + 1 : g; h < plan.factors; ++h) tail_pair_gradient(g, h, j);
        }
    }

    void tail_pair_gradient(int g, int h, i64 level) {
        const PairBlocks& pb = g == h ? b.self[g].a : b.pairs[g][h - g - 1];
        const int k = plan.k[g], kh = plan.k[h];
        const double *lg = fac.lambda[g].data(), *lh = fac.lambda[h].data();
        vec block(kh * k), left(kh * k), right(kh * k);
        for (i64 e = pb.ptr[level]; e < pb.ptr[level + 1]; ++e) {
            const double* a = pb.val.data() + e * kh * k;
            const i64 row = plan.offset[h] + static_cast<i64>(pb.idx[e]) * kh, col = plan.offset[g] + level * k;
            for (int i = 0; i < kh; ++i)
                for (int c = 0; c < k; ++c) block[i * k + c] = tail_at(row + i, col + c);
            for (int i = 0; i < kh; ++i) {
                row_product<0>(a + i * k, lg, left.data() + i * k, k);  // A lambda_g
                for (int c = 0; c < k; ++c) {                           // lambda_h S
                    double v = 0;
                    for (int j = 0; j < kh; ++j) v += lh[i * kh + j] * block[j * k + c];
                    right[i * k + c] = v;
                }
            }
            for (int i = 0; i < kh; ++i)
                for (int j = 0; j < kh; ++j)
                    gradient[h][i * kh + j] += dot<0>(left.data() + i * k, block.data() + j * k, k);
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c)
                    for (int j = 0; j < kh; ++j) gradient[g][i * k + c] += a[j * k + i] * right[j * k + c];
        }
    }
};

}  // namespace multilevel
