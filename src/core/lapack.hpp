// BLAS and LAPACK through the function pointers that SciPy exports, so that building needs no system library.
// The pointers are filled once by bind.cpp. All matrices are column-major (Fortran order).
#pragma once
#include <cmath>

namespace multilevel {

struct Lapack {
    void (*dpotrf)(char*, int*, double*, int*, int*) = nullptr;
    void (*dtrtri)(char*, char*, int*, double*, int*, int*) = nullptr;
    void (*dlauum)(char*, int*, double*, int*, int*) = nullptr;
    void (*dsyev)(char*, char*, int*, double*, int*, double*, double*, int*, int*) = nullptr;
    void (*dgesvd)(char*, char*, int*, int*, double*, int*, double*, double*, int*, double*, int*, double*, int*,
                   int*) = nullptr;
    void (*dsyrk)(char*, char*, int*, int*, double*, double*, int*, double*, double*, int*) = nullptr;
    void (*dgemm)(char*, char*, int*, int*, int*, double*, double*, int*, double*, int*, double*, double*,
                  int*) = nullptr;
    void (*dtrsm)(char*, char*, char*, char*, int*, int*, double*, double*, int*, double*, int*) = nullptr;
};
inline Lapack lapack;

// Below this size plain loops beat a library call, and BLAS would at times wake threads of its own for nothing.
constexpr int small_size = 24;

inline int small_potrf(int n, double* a, int lda) {
    for (int j = 0; j < n; ++j) {
        for (int c = 0; c < j; ++c) {
            const double f = a[j + c * lda];
            for (int i = j; i < n; ++i) a[i + j * lda] -= f * a[i + c * lda];
        }
        const double d = a[j + j * lda];
        if (!(d > 0)) return j + 1;
        const double root = std::sqrt(d);
        for (int i = j; i < n; ++i) a[i + j * lda] /= root;
    }
    return 0;
}
inline void small_trtri(int n, double* a, int lda) {
    for (int j = 0; j < n; ++j) {
        a[j + j * lda] = 1 / a[j + j * lda];
        for (int i = j + 1; i < n; ++i) {
            double s = 0;
            for (int c = j; c < i; ++c) s += a[i + c * lda] * a[c + j * lda];
            a[i + j * lda] = -s / a[i + i * lda];
        }
    }
}
inline void small_lauum(int n, double* a, int lda) {
    for (int j = 0; j < n; ++j)
        for (int i = j; i < n; ++i) {
            double s = 0;
            for (int c = i; c < n; ++c) s += a[c + i * lda] * a[c + j * lda];
            a[i + j * lda] = s;
        }
}

inline int potrf_lower(int n, double* a, int lda) {
    if (n <= small_size) return small_potrf(n, a, lda);
    char uplo = 'L';
    int info = 0;
    lapack.dpotrf(&uplo, &n, a, &lda, &info);
    return info;
}
inline int trtri_lower(int n, double* a, int lda) {
    if (n <= small_size) {
        small_trtri(n, a, lda);
        return 0;
    }
    char uplo = 'L', diag = 'N';
    int info = 0;
    lapack.dtrtri(&uplo, &diag, &n, a, &lda, &info);
    return info;
}
// lower triangle of L'L, in place
inline void lauum_lower(int n, double* a, int lda) {
    if (n <= small_size) return small_lauum(n, a, lda);
    char uplo = 'L';
    int info = 0;
    lapack.dlauum(&uplo, &n, a, &lda, &info);
}
// lower triangle of C += alpha * A A', A is n x k
inline void syrk_lower(int n, int k, double alpha, double* a, int lda, double beta, double* c, int ldc) {
    char uplo = 'L', trans = 'N';
    lapack.dsyrk(&uplo, &trans, &n, &k, &alpha, a, &lda, &beta, c, &ldc);
}
// C = alpha op(A) op(B) + beta C, C is m x n
inline void gemm(char ta, char tb, int m, int n, int k, double alpha, double* a, int lda, double* b, int ldb,
                 double beta, double* c, int ldc) {
    lapack.dgemm(&ta, &tb, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}
// B = L^{-1} B (trans 'N') or L^{-T} B ('T'), L lower n x n, B is n x r
inline void trsm_lower(char trans, int n, int r, double* l, int ldl, double* b, int ldb) {
    char side = 'L', uplo = 'L', diag = 'N';
    double one = 1;
    lapack.dtrsm(&side, &uplo, &trans, &diag, &n, &r, &one, l, &ldl, b, &ldb);
}

}  // namespace multilevel
