// Operations on one level's k x k block, row-major. K > 0 fixes the size at compile time; K = 0 reads it at run time.
#pragma once
#include <cmath>
#include <type_traits>

#include "blocks.hpp"

namespace multilevel {

// k doubles of scratch inside a loop over levels: on the stack unless k is unusually large.
class Scratch {
  public:
    explicit Scratch(std::size_t size) {
        if (size > sizeof(small_) / sizeof(double)) {
            large_.resize(size);
            data_ = large_.data();
        }
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    double* data() { return data_; }
    double& operator[](std::size_t i) { return data_[i]; }

  private:
    double small_[64];
    vec large_;
    double* data_ = small_;
};

template <class Body>
void with_size(int k, Body&& body) {
    switch (k) {
        case 1: body(std::integral_constant<int, 1>{}); break;
        case 2: body(std::integral_constant<int, 2>{}); break;
        case 3: body(std::integral_constant<int, 3>{}); break;
        case 4: body(std::integral_constant<int, 4>{}); break;
        default: body(std::integral_constant<int, 0>{});
    }
}

// out = a b
template <int K>
inline void product(const double* a, const double* b, double* out, int k) {
    const int kk = K ? K : k;
    for (int i = 0; i < kk; ++i)
        for (int j = 0; j < kk; ++j) {
            double s = 0;
            for (int c = 0; c < kk; ++c) s += a[i * kk + c] * b[c * kk + j];
            out[i * kk + j] = s;
        }
}
// out = a' b
template <int K>
inline void transposed_product(const double* a, const double* b, double* out, int k) {
    const int kk = K ? K : k;
    for (int i = 0; i < kk; ++i)
        for (int j = 0; j < kk; ++j) {
            double s = 0;
            for (int c = 0; c < kk; ++c) s += a[c * kk + i] * b[c * kk + j];
            out[i * kk + j] = s;
        }
}
// out (row of length k) = row b
template <int K>
inline void row_product(const double* row, const double* b, double* out, int k) {
    const int kk = K ? K : k;
    for (int j = 0; j < kk; ++j) {
        double s = 0;
        for (int c = 0; c < kk; ++c) s += row[c] * b[c * kk + j];
        out[j] = s;
    }
}
template <int K>
inline double dot(const double* a, const double* b, int k) {
    const int kk = K ? K : k;
    double s = 0;
    for (int c = 0; c < kk; ++c) s += a[c] * b[c];
    return s;
}
// lower Cholesky in place; false if not positive definite. The strict upper part is set to zero.
template <int K>
inline bool cholesky(double* a, int k) {
    const int kk = K ? K : k;
    for (int j = 0; j < kk; ++j) {
        double d = a[j * kk + j];
        for (int c = 0; c < j; ++c) d -= a[j * kk + c] * a[j * kk + c];
        if (!(d > 0)) return false;
        d = std::sqrt(d);
        a[j * kk + j] = d;
        for (int i = j + 1; i < kk; ++i) {
            double s = a[i * kk + j];
            for (int c = 0; c < j; ++c) s -= a[i * kk + c] * a[j * kk + c];
            a[i * kk + j] = s / d;
            a[j * kk + i] = 0;
        }
    }
    return true;
}
// x <- L^{-1} x, or row x <- x L^{-T}
template <int K>
inline void solve_lower(const double* l, double* x, int k) {
    const int kk = K ? K : k;
    for (int c = 0; c < kk; ++c) {
        double s = x[c];
        for (int d = 0; d < c; ++d) s -= l[c * kk + d] * x[d];
        x[c] = s / l[c * kk + c];
    }
}
// x <- L^{-T} x, or row x <- x L^{-1}
template <int K>
inline void solve_lower_transposed(const double* l, double* x, int k) {
    const int kk = K ? K : k;
    for (int c = kk - 1; c >= 0; --c) {
        double s = x[c];
        for (int d = c + 1; d < kk; ++d) s -= l[d * kk + c] * x[d];
        x[c] = s / l[c * kk + c];
    }
}

}  // namespace multilevel
