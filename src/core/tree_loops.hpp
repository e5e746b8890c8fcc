// Inner loops of the tree softmax, each for the widest vectors of the machine that runs it.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quick_exp.hpp"

namespace multilevel {

#if defined(__GNUC__)
#define MULTILEVEL_INLINE inline __attribute__((always_inline))
#else
#define MULTILEVEL_INLINE inline
#endif

// 32 bytes of numbers at once: one or two vectors of the machine
template <class T>
struct Lanes {
    static constexpr int count = 32 / sizeof(T);
#if defined(__GNUC__)
    typedef T Vector __attribute__((vector_size(32)));
    Vector x;
    MULTILEVEL_INLINE void read(const T* p) { std::memcpy(&x, p, sizeof x); }
    MULTILEVEL_INLINE void write(T* p) const { std::memcpy(p, &x, sizeof x); }
    MULTILEVEL_INLINE void add(T a, const T* p) {
        Vector y;
        std::memcpy(&y, p, sizeof y);
        x += a * y;
    }
#else
    T x[count];
    void read(const T* p) { std::copy(p, p + count, x); }
    void write(T* p) const { std::copy(x, x + count, p); }
    void add(T a, const T* p) {
        for (int l = 0; l < count; ++l) x[l] += a * p[l];
    }
#endif
};
// some columns of the sum below, kept in registers
template <int BLOCKS, class T>
MULTILEVEL_INLINE int combine_tile(const T* value, const std::int32_t* index, long count, const T* matrix, int stride, T* out) {
    constexpr int width = Lanes<T>::count;
    Lanes<T> sum[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b) sum[b].read(out + width * b);
    for (long e = 0; e < count; ++e) {
        const T* row = matrix + static_cast<std::size_t>(index[e]) * stride;
        for (int b = 0; b < BLOCKS; ++b) sum[b].add(value[e], row + width * b);
    }
    for (int b = 0; b < BLOCKS; ++b) sum[b].write(out + width * b);
    return width * BLOCKS;
}
// out[k] += sum_e value[e] matrix[index[e], k], k over whole blocks of 16
template <class T>
MULTILEVEL_INLINE void combine_blocks(const T* value, const std::int32_t* index, long count, const T* matrix, int stride, T* out) {
    constexpr int width = Lanes<T>::count;
    int k = 0;
    while (k + 8 * width <= stride) k += combine_tile<8>(value, index, count, matrix + k, stride, out + k);
    while (k + 4 * width <= stride) k += combine_tile<4>(value, index, count, matrix + k, stride, out + k);
    while (k < stride) k += combine_tile<2>(value, index, count, matrix + k, stride, out + k);
}
MULTILEVEL_WIDEST inline void combine(const float* v, const std::int32_t* at, long n, const float* matrix, int stride, float* out) {
    combine_blocks(v, at, n, matrix, stride, out);
}
MULTILEVEL_WIDEST inline void combine(const double* v, const std::int32_t* at, long n, const double* matrix, int stride, double* out) {
    combine_blocks(v, at, n, matrix, stride, out);
}

// sum of products, in several sums so that additions need not wait for each other
template <class T>
MULTILEVEL_INLINE double dot_of(const T* a, const T* b, std::size_t n) {
    double sum[16] = {}, out = 0;
    std::size_t e = 0;
    for (; e + 16 <= n; e += 16)
        for (int l = 0; l < 16; ++l) sum[l] += static_cast<double>(a[e + l]) * static_cast<double>(b[e + l]);
    for (; e < n; ++e) sum[0] += static_cast<double>(a[e]) * static_cast<double>(b[e]);
    for (double s : sum) out += s;
    return out;
}
MULTILEVEL_WIDEST inline double dot_range(const float* a, const float* b, std::size_t n) { return dot_of(a, b, n); }
MULTILEVEL_WIDEST inline double dot_range(const double* a, const double* b, std::size_t n) { return dot_of(a, b, n); }

// less its greatest entry, which is returned
template <class T>
MULTILEVEL_INLINE T shift_of(T* z, int count) {
    T most[16];
    for (int l = 0; l < 16; ++l) most[l] = z[0];
    int k = 0;
    for (; k + 16 <= count; k += 16)
        for (int l = 0; l < 16; ++l) most[l] = z[k + l] > most[l] ? z[k + l] : most[l];
    for (; k < count; ++k) most[0] = z[k] > most[0] ? z[k] : most[0];
    T top = most[0];
    for (int l = 1; l < 16; ++l) top = most[l] > top ? most[l] : top;
    for (k = 0; k < count; ++k) z[k] -= top;
    return top;
}
template <class T>
MULTILEVEL_INLINE double sum_of(const T* z, int count) {
    T sum[16] = {};
    int k = 0;
    for (; k + 16 <= count; k += 16)
        for (int l = 0; l < 16; ++l) sum[l] += z[k + l];
    double out = 0;
    for (; k < count; ++k) out += z[k];
    for (T s : sum) out += s;
    return out;
}
MULTILEVEL_WIDEST inline float shift(float* z, int count) { return shift_of(z, count); }
MULTILEVEL_WIDEST inline double shift(double* z, int count) { return shift_of(z, count); }
MULTILEVEL_WIDEST inline double total(const float* z, int count) { return sum_of(z, count); }
MULTILEVEL_WIDEST inline double total(const double* z, int count) { return sum_of(z, count); }

// z (count) becomes exp(z - top), top its greatest entry; returns the sum
template <class T>
inline double exp_and_sum(T* z, int count, T& top) {
    top = shift(z, count);
    quick_exp(z, count);
    return total(z, count);
}

constexpr int LANES = 16;  // features that go down or up the tree side by side

// w of least |w|^2 / 2 + sum_k d_k theta_k^2 / 2 - r'w, theta_v = theta_parent + s_v w_v: what a subtree costs as a function of
// theta is J theta^2 / 2 - h theta, gathered from the leaves up; then down. w has r at first; j has d; all (nodes, LANES)
template <class T>
MULTILEVEL_INLINE void solve_family(int m, const std::int32_t* parent, const double* scales, T* w, T* j, T* h, T* theta) {
    std::fill(h, h + static_cast<std::size_t>(m) * LANES, T(0));
    for (int v = m; v-- > 0;) {
        const int above = parent[v];
        if (above < 0) continue;
        const T s = static_cast<T>(scales[v]);
        for (int l = 0; l < LANES; ++l) {
            const T own = j[v * LANES + l], part = 1 / (1 + own * s * s);
            j[above * LANES + l] += own * part;
            h[above * LANES + l] += (h[v * LANES + l] - own * s * w[v * LANES + l]) * part;
        }
    }
    const T none[LANES] = {};
    for (int v = 0; v < m; ++v) {
        const T s = static_cast<T>(scales[v]);
        const T* from = parent[v] < 0 ? none : theta + parent[v] * LANES;
        for (int l = 0; l < LANES; ++l) {
            const T own = j[v * LANES + l];
            const T out = (w[v * LANES + l] + s * (h[v * LANES + l] - own * from[l])) / (1 + own * s * s);
            w[v * LANES + l] = out;
            theta[v * LANES + l] = from[l] + s * out;
        }
    }
}
MULTILEVEL_WIDEST inline void family_solve(int m, const std::int32_t* parent, const double* s, float* w, float* j, float* h, float* t) {
    solve_family(m, parent, s, w, j, h, t);
}
MULTILEVEL_WIDEST inline void family_solve(int m, const std::int32_t* parent, const double* s, double* w, double* j, double* h, double* t) {
    solve_family(m, parent, s, w, j, h, t);
}

}  // namespace multilevel
