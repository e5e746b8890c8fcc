// Triangular solves with the factor, and products with Z'WZ. Several right-hand sides are row-major: (scalars, r).
#pragma once
#include "factor.hpp"

namespace multilevel {

// B (r x m', row-major rows of the tail as columns) <- B L^{-T} or B L^{-1} on the leading `size` of the tail
inline void tail_solve(Factor& fac, double* rhs, int r, int size, bool transposed) {
    char side = 'R', uplo = 'L', trans = transposed ? 'N' : 'T', diag = 'N';
    double one = 1;
    int m = fac.plan.m;
    if (size > 0 && r > 0) lapack.dtrsm(&side, &uplo, &trans, &diag, &r, &size, &one, fac.tail.data(), &m, rhs, &r);
}

// x <- L^{-1} x on the rows of u and X: x is (q + p, r) row-major
inline void forward_solve(Factor& fac, double* x, int r) {
    const Plan& plan = fac.plan;
    for (int f = 0; f < plan.sparse_factors; ++f) {
        const int k = plan.k[f];
        for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v) {
            const double *d = fac.diag_block(f, v), *lv = fac.values(v);
            double* mine = x + plan.first_scalar(f, v) * r;
            for (int c = 0; c < k; ++c) {
                for (int e = 0; e < c; ++e)
                    for (int s = 0; s < r; ++s) mine[c * r + s] -= d[c * k + e] * mine[e * r + s];
                for (int s = 0; s < r; ++s) mine[c * r + s] /= d[c * k + c];
            }
            const i32* row = fac.rows(v);
            const i64 count = fac.row_count(v) - 1;
            for (i64 i = 0; i < count; ++i)
                for (int c = 0; c < k; ++c) {
                    const double a = lv[i * k + c];
                    double* target = x + static_cast<i64>(row[i]) * r;
                    for (int s = 0; s < r; ++s) target[s] -= a * mine[c * r + s];
                }
        }
    }
    tail_solve(fac, x + plan.tail * r, r, plan.m - 1, false);
}

// x <- L^{-T} x on the rows of u and X
inline void backward_solve(Factor& fac, double* x, int r) {
    const Plan& plan = fac.plan;
    tail_solve(fac, x + plan.tail * r, r, plan.m - 1, true);
    for (int f = plan.sparse_factors - 1; f >= 0; --f) {
        const int k = plan.k[f];
        for (i64 v = plan.node_offset[f + 1] - 1; v >= plan.node_offset[f]; --v) {
            const double *d = fac.diag_block(f, v), *lv = fac.values(v);
            double* mine = x + plan.first_scalar(f, v) * r;
            const i32* row = fac.rows(v);
            const i64 count = fac.row_count(v) - 1;
            for (i64 i = 0; i < count; ++i)
                for (int c = 0; c < k; ++c) {
                    const double a = lv[i * k + c];
                    const double* from = x + static_cast<i64>(row[i]) * r;
                    for (int s = 0; s < r; ++s) mine[c * r + s] -= a * from[s];
                }
            for (int c = k - 1; c >= 0; --c) {
                for (int e = c + 1; e < k; ++e)
                    for (int s = 0; s < r; ++s) mine[c * r + s] -= d[e * k + c] * mine[e * r + s];
                for (int s = 0; s < r; ++s) mine[c * r + s] /= d[c * k + c];
            }
        }
    }
}

// (u, beta) at the factor's Lambda: the y row of L solved backwards
inline vec solution(Factor& fac) {
    const Plan& plan = fac.plan;
    vec x(plan.q + plan.p);
    for (int f = 0; f < plan.sparse_factors; ++f)
        for (i64 v = plan.node_offset[f]; v < plan.node_offset[f + 1]; ++v) {
            const double* last = fac.values(v) + (fac.row_count(v) - 1) * plan.k[f];
            for (int c = 0; c < plan.k[f]; ++c) x[plan.first_scalar(f, v) + c] = last[c];
        }
    for (i64 c = 0; c + 1 < plan.m; ++c) x[plan.tail + c] = fac.tail[plan.m - 1 + c * plan.m];
    backward_solve(fac, x.data(), 1);
    return x;
}

// out = [Z X]'W[Z X] x on (q + p, r); the X columns of x take part
inline void cross_multiply(const Factor& fac, const double* x, double* out, int r) {
    const Plan& plan = fac.plan;
    const Blocks& b = fac.b;
    std::fill(out, out + (plan.q + plan.p) * r, 0.0);
    auto axpy = [&](i64 to, i64 from, double a) {
        for (int s = 0; s < r; ++s) out[to * r + s] += a * x[from * r + s];
    };
    auto both = [&](i64 i, i64 j, double a) {
        axpy(i, j, a);
        axpy(j, i, a);
    };
    for (int f = 0; f < plan.factors; ++f) {
        const int k = plan.k[f];
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            const i64 first = plan.offset[f] + j * k;
            const double* d = b.diag[f].data() + j * k * k;
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) axpy(first + i, first + c, d[i * k + c]);
            for (int c = 0; c < k; ++c)
                for (int e = 0; e < plan.p; ++e)
                    both(plan.q + e, first + c, b.border[f][(j * k + c) * plan.p + e]);
            for (int g = b.self[f].empty() ? f + 1 : f; g < plan.factors; ++g) {
                const PairBlocks& pb = g == f ? b.self[f].a : b.pairs[f][g - f - 1];
                const int kg = plan.k[g];
                for (i64 e = pb.ptr[j]; e < pb.ptr[j + 1]; ++e)
                    for (int i = 0; i < kg; ++i)
                        for (int c = 0; c < k; ++c)
                            both(plan.offset[g] + static_cast<i64>(pb.idx[e]) * kg + i, first + c,
                                 pb.val[(e * kg + i) * k + c]);
            }
        }
    }
    for (int i = 0; i < plan.p; ++i)
        for (int c = 0; c < plan.p; ++c) axpy(plan.q + i, plan.q + c, b.xx[i * plan.p + c]);
}

// x <- Lambda x, or Lambda'x, on the random rows
inline void apply_lambda(const Factor& fac, double* x, int r, bool transposed) {
    const Plan& plan = fac.plan;
    for (int f = 0; f < plan.factors; ++f) {
        const int k = plan.k[f];
        const double* lam = fac.lambda[f].data();
        vec out(k * r);
        for (i64 j = 0; j < plan.levels[f]; ++j) {
            double* mine = x + (plan.offset[f] + j * k) * r;
            std::fill(out.begin(), out.end(), 0.0);
            for (int i = 0; i < k; ++i)
                for (int c = 0; c < k; ++c) {
                    const double a = transposed ? lam[c * k + i] : lam[i * k + c];
                    for (int s = 0; s < r; ++s) out[i * r + s] += a * mine[c * r + s];
                }
            std::copy(out.begin(), out.end(), mine);
        }
    }
}

}  // namespace multilevel
