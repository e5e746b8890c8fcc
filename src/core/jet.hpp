// Numbers that carry derivatives: by the linear predictor up to the third, and each of those up to the second also once
// by up to two further parameters (dispersion, zero inflation, thresholds). A density written once in them gives all
// that the Laplace approximation and its gradient need, exactly.
#pragma once
#include <cmath>
#include <limits>

namespace multilevel {

template <int A>
struct Jet {
    double d[4] = {0, 0, 0, 0};     // value and derivatives by eta
    double a[A > 0 ? A : 1][3];     // by parameter i: of the value, of the first and of the second derivative by eta

    Jet() {
        for (int i = 0; i < A; ++i)
            for (double& v : a[i]) v = 0;
    }
    Jet(double value) : Jet() { d[0] = value; }
    static Jet eta(double value) {
        Jet x(value);
        x.d[1] = 1;
        return x;
    }
    static Jet parameter(double value, int i) {
        Jet x(value);
        x.a[i][0] = 1;
        return x;
    }
    double value() const { return d[0]; }
};

template <int A>
inline Jet<A> operator-(Jet<A> x) {
    for (double& v : x.d) v = -v;
    for (int i = 0; i < A; ++i)
        for (double& v : x.a[i]) v = -v;
    return x;
}
template <int A>
inline Jet<A> operator+(Jet<A> x, const Jet<A>& y) {
    for (int i = 0; i < 4; ++i) x.d[i] += y.d[i];
    for (int i = 0; i < A; ++i)
        for (int j = 0; j < 3; ++j) x.a[i][j] += y.a[i][j];
    return x;
}
template <int A>
inline Jet<A> operator-(const Jet<A>& x, const Jet<A>& y) { return x + (-y); }
template <int A>
inline Jet<A> operator+(Jet<A> x, double c) { x.d[0] += c; return x; }
template <int A>
inline Jet<A> operator+(double c, const Jet<A>& x) { return x + c; }
template <int A>
inline Jet<A> operator-(const Jet<A>& x, double c) { return x + (-c); }
template <int A>
inline Jet<A> operator-(double c, const Jet<A>& x) { return (-x) + c; }
template <int A>
inline Jet<A> operator*(Jet<A> x, double c) {
    for (double& v : x.d) v *= c;
    for (int i = 0; i < A; ++i)
        for (double& v : x.a[i]) v *= c;
    return x;
}
template <int A>
inline Jet<A> operator*(double c, const Jet<A>& x) { return x * c; }
template <int A>
inline Jet<A> operator*(const Jet<A>& x, const Jet<A>& y) {
    Jet<A> r;
    r.d[0] = x.d[0] * y.d[0];
    r.d[1] = x.d[1] * y.d[0] + x.d[0] * y.d[1];
    r.d[2] = x.d[2] * y.d[0] + 2 * x.d[1] * y.d[1] + x.d[0] * y.d[2];
    r.d[3] = x.d[3] * y.d[0] + 3 * x.d[2] * y.d[1] + 3 * x.d[1] * y.d[2] + x.d[0] * y.d[3];
    for (int i = 0; i < A; ++i) {
        const double *p = x.a[i], *q = y.a[i];
        r.a[i][0] = p[0] * y.d[0] + x.d[0] * q[0];
        r.a[i][1] = p[1] * y.d[0] + x.d[1] * q[0] + p[0] * y.d[1] + x.d[0] * q[1];
        r.a[i][2] = p[2] * y.d[0] + x.d[2] * q[0] + 2 * (p[1] * y.d[1] + x.d[1] * q[1]) + p[0] * y.d[2] + x.d[0] * q[2];
    }
    return r;
}

// g(x) from g and its first three derivatives at x's value (Faa di Bruno)
template <int A>
inline Jet<A> chain(const Jet<A>& x, double g0, double g1, double g2, double g3) {
    Jet<A> r;
    const double f1 = x.d[1], f2 = x.d[2];
    r.d[0] = g0;
    r.d[1] = g1 * f1;
    r.d[2] = g2 * f1 * f1 + g1 * f2;
    r.d[3] = g3 * f1 * f1 * f1 + 3 * g2 * f1 * f2 + g1 * x.d[3];
    for (int i = 0; i < A; ++i) {
        const double* f = x.a[i];
        r.a[i][0] = g1 * f[0];
        r.a[i][1] = g2 * f1 * f[0] + g1 * f[1];
        r.a[i][2] = g3 * f1 * f1 * f[0] + g2 * (2 * f1 * f[1] + f2 * f[0]) + g1 * f[2];
    }
    return r;
}

template <int A>
inline Jet<A> exp(const Jet<A>& x) {
    const double e = std::exp(x.d[0]);
    return chain(x, e, e, e, e);
}
template <int A>
inline Jet<A> log(const Jet<A>& x) {
    const double r = 1 / x.d[0];
    return chain(x, std::log(x.d[0]), r, -r * r, 2 * r * r * r);
}
// log |x|
template <int A>
inline Jet<A> log_abs(const Jet<A>& x) { return x.d[0] < 0 ? log(-x) : log(x); }
template <int A>
inline Jet<A> inverse(const Jet<A>& x) {
    const double r = 1 / x.d[0];
    return chain(x, r, -r * r, 2 * r * r * r, -6 * r * r * r * r);
}
template <int A>
inline Jet<A> log1p(const Jet<A>& x) {
    const double r = 1 / (1 + x.d[0]);
    return chain(x, std::log1p(x.d[0]), r, -r * r, 2 * r * r * r);
}
// log(1 + exp(x))
template <int A>
inline Jet<A> softplus(const Jet<A>& x) {
    const double e = std::exp(-std::fabs(x.d[0])), upper = 1 / (1 + e), lower = e / (1 + e);
    const double p = x.d[0] >= 0 ? upper : lower, w = upper * lower, turn = x.d[0] >= 0 ? lower - upper : upper - lower;
    return chain(x, std::fmax(x.d[0], 0.0) + std::log1p(e), p, w, w * turn);
}
// log(1 + exp(x)) and log(1 + exp(-x)) in one go
template <int A>
inline void softplus_both(const Jet<A>& x, Jet<A>& plus, Jet<A>& minus) {
    const double v = x.d[0], e = std::exp(-std::fabs(v)), upper = 1 / (1 + e), lower = e / (1 + e), more = std::log1p(e);
    const double p = v >= 0 ? upper : lower, q = v >= 0 ? lower : upper, w = upper * lower;
    plus = chain(x, std::fmax(v, 0.0) + more, p, w, w * (q - p));
    minus = chain(x, std::fmax(-v, 0.0) + more, -q, w, w * (q - p));
}
// exp(x) - 1 - x, with all its digits at small x
inline double exp_remainder(double x) {
    if (std::fabs(x) > 0.3) return std::expm1(x) - x;
    double sum = 0, term = 0.5 * x * x;
    for (int k = 3; std::fabs(term) > 1e-18 * std::fabs(sum); ++k) {
        sum += term;
        term *= x / k;
    }
    return sum;
}
template <int A>
inline Jet<A> exp_remainder(const Jet<A>& x) {
    const double e = std::exp(x.d[0]);
    return chain(x, exp_remainder(x.d[0]), std::expm1(x.d[0]), e, e);
}
// log(1 - exp(-x)), x > 0
template <int A>
inline Jet<A> log1mexp(const Jet<A>& x) {
    const double e = std::expm1(x.d[0]), r = 1 / e, s = 1 + r;  // r = 1/(e^x - 1); derivative of r is -r(1 + r)
    const double g0 = x.d[0] > 0.693 ? std::log1p(-std::exp(-x.d[0])) : std::log(-std::expm1(-x.d[0]));
    return chain(x, g0, r, -r * s, r * s * (s + r));
}

// What lgamma, psi, psi' and psi'' hold beyond their leading terms, for x >= 12 (Abramowitz & Stegun 6.1.41, 6.3, 6.4):
// lgamma = (x - 1/2) log x - x + log(2 pi)/2 + tail, and its derivatives.
struct StirlingTail {
    double g0, g1, g2, g3;
};
inline StirlingTail stirling_tail(double x) {
    const double r = 1 / x, s = r * r;
    return {r * (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s * (1.0 / 1680 - s * (1.0 / 1188 - s * 691.0 / 360360))))),
            -s * (1.0 / 12 - s * (1.0 / 120 - s * (1.0 / 252 - s * (1.0 / 240 - s * (1.0 / 132 - s * 691.0 / 32760))))),
            s * r * (1.0 / 6 - s * (1.0 / 30 - s * (1.0 / 42 - s * (1.0 / 30 - s * (5.0 / 66 - s * 691.0 / 2730))))),
            -s * s * (0.5 - s * (1.0 / 6 - s * (1.0 / 6 - s * (0.3 - s * (5.0 / 6 - s * 691.0 / 210)))))};
}

// psi, psi' and psi'' for x > 0: recurrence up to 12, then the asymptotic series
struct Polygamma {
    double psi, psi1, psi2;
};
inline Polygamma polygamma(double x) {
    double psi = 0, psi1 = 0, psi2 = 0;
    while (x < 12) {
        const double r = 1 / x;
        psi -= r;
        psi1 += r * r;
        psi2 -= 2 * r * r * r;
        x += 1;
    }
    const double r = 1 / x, s = r * r;
    const StirlingTail tail = stirling_tail(x);
    psi += std::log(x) - 0.5 * r + tail.g1;
    psi1 += r + 0.5 * s + tail.g2;
    psi2 -= s + s * r - tail.g3;
    return {psi, psi1, psi2};
}
inline double log_gamma(double x) {
    // Stirling's series after a shift: reentrant, unlike the C library's lgamma
    double shift = 1;
    double extra = 0;
    while (x < 12) {
        shift *= x;
        if (shift > 1e200) {
            extra += std::log(shift);
            shift = 1;
        }
        x += 1;
    }
    return (x - 0.5) * std::log(x) - x + 0.91893853320467274178 + stirling_tail(x).g0 - std::log(shift) - extra;
}
// lgamma(x + 1) - (x + 1/2) log x + x - log(2 pi)/2 = lgamma(x) - (x - 1/2) log x + x - log(2 pi)/2, with its derivative
// where asked for
inline double stirling_error(double x, double* slope = nullptr) {
    if (x >= 12) {
        const StirlingTail t = stirling_tail(x);
        if (slope) *slope = t.g1;
        return t.g0;
    }
    const double log_x = std::log(x);
    if (slope) *slope = polygamma(x).psi + 0.5 / x - log_x;
    return log_gamma(x + 1) - (x + 0.5) * log_x + x - 0.91893853320467274178;
}
template <int A>
inline Jet<A> stirling_error(const Jet<A>& x) {
    const double v = x.d[0], r = 1 / v;
    if (v >= 12) {
        const StirlingTail t = stirling_tail(v);
        return chain(x, t.g0, t.g1, t.g2, t.g3);
    }
    const Polygamma p = polygamma(v);
    return chain(x, stirling_error(v), p.psi + 0.5 * r - std::log(v), p.psi1 - 0.5 * r * r - r, p.psi2 + r * r * r + r * r);
}
template <int A>
inline Jet<A> lgamma(const Jet<A>& x) {
    const Polygamma p = polygamma(x.d[0]);
    return chain(x, log_gamma(x.d[0]), p.psi, p.psi1, p.psi2);
}
// x log x - x - lgamma(x)
template <int A>
inline Jet<A> stirling_remainder(const Jet<A>& x) {
    const double v = x.d[0], r = 1 / v, log_v = std::log(v);
    if (v >= 12) {
        const StirlingTail t = stirling_tail(v);
        return chain(x, 0.5 * log_v - 0.91893853320467274178 - t.g0, 0.5 * r - t.g1, -0.5 * r * r - t.g2, r * r * r - t.g3);
    }
    const Polygamma p = polygamma(v);
    return chain(x, v * log_v - v - log_gamma(v), log_v - p.psi, r - p.psi1, -r * r - p.psi2);
}
// lgamma(x + y) - lgamma(x), also for large x, where the difference of the two would cancel
template <int A>
inline Jet<A> log_rising(const Jet<A>& x, double y) {
    const double v = x.d[0];
    if (y == 0) return Jet<A>(0.0);
    if (y <= 30 && y == std::floor(y)) {
        double g0 = 0, g1 = 0, g2 = 0, g3 = 0;
        for (int k = 0; k < static_cast<int>(y); ++k) {
            const double t = v + k, r = 1 / t;
            g0 += std::log(t);
            g1 += r;
            g2 -= r * r;
            g3 += 2 * r * r * r;
        }
        return chain(x, g0, g1, g2, g3);
    }
    if (v >= 12) {
        const double w = v + y, r = 1 / v, q = 1 / w, more = std::log1p(y / v);
        const StirlingTail a = stirling_tail(w), b = stirling_tail(v);
        return chain(x, (v - 0.5) * more + y * (std::log(w) - 1) + a.g0 - b.g0,
                     more + 0.5 * y * r * q + a.g1 - b.g1,
                     -y * r * q - 0.5 * y * (r + q) * r * q + a.g2 - b.g2,
                     y * (r + q) * r * q + y * (q * q + q * r + r * r) * r * q + a.g3 - b.g3);
    }
    const Polygamma p = polygamma(v + y), q = polygamma(v);
    return chain(x, log_gamma(v + y) - log_gamma(v), p.psi - q.psi, p.psi1 - q.psi1, p.psi2 - q.psi2);
}
// lgamma(x + 1/2) - lgamma(x) - log(x)/2: an asymptotic series after a shift
template <int A>
inline Jet<A> half_step(const Jet<A>& x) {
    double v = x.d[0], g0 = 0, g1 = 0, g2 = 0, g3 = 0;
    while (v < 16) {  // the step from v to v + 1
        const double a = v + 0.5, b = v + 1, r = 1 / v, p = 1 / a, q = 1 / b;
        g0 += 0.5 * (std::log1p(r) - 2 * std::log1p(0.5 * r));
        g1 += 0.5 * (q - p + r - p);
        g2 += 0.5 * (2 * p * p - q * q - r * r);
        g3 += q * q * q + r * r * r - 2 * p * p * p;
        v = b;
    }
    const double c[] = {-1.0 / 8, 1.0 / 192, -1.0 / 640, 17.0 / 14336, -31.0 / 18432, 691.0 / 180224, -5461.0 / 425984};
    const double r = 1 / v, s = r * r;
    double power = r;
    for (int k = 0; k < 7; ++k, power *= s) {
        const double n = 2 * k + 1;
        g0 += c[k] * power;
        g1 -= c[k] * n * power * r;
        g2 += c[k] * n * (n + 1) * power * s;
        g3 -= c[k] * n * (n + 1) * (n + 2) * power * s * r;
    }
    return chain(x, g0, g1, g2, g3);
}

// phi(x) / Phi(x), accurate in the lower tail (continued fraction for erfc)
inline double mills(double x) {
    const double phi = 0.3989422804014326779 * std::exp(-0.5 * x * x);
    if (x > -5) return phi / (0.5 * std::erfc(-x * 0.70710678118654752440));
    double f = 0;  // Phi(x) = phi(x) / (-x + 1/(-x + 2/(-x + 3/...)))
    for (int k = 60; k >= 1; --k) f = k / (-x + f);
    return -x + f;
}
template <int A>
inline Jet<A> log_normal_cdf(const Jet<A>& x) {
    const double t = x.d[0], m = mills(t);
    const double g0 = t > -5 ? std::log(0.5 * std::erfc(-t * 0.70710678118654752440))
                             : -0.5 * t * t - 0.91893853320467274178 - std::log(m);
    const double g2 = -m * (t + m);
    return chain(x, g0, m, g2, -g2 * (t + m) - m * (1 + g2));
}
// log(1/2 + atan(x) / pi)
template <int A>
inline Jet<A> log_cauchy_cdf(const Jet<A>& x) {
    const double pi = 3.14159265358979323846, t = x.d[0];
    const double f = t > 0 ? 0.5 + std::atan(t) / pi : std::atan2(1.0, -t) / pi;
    const double q = 1 / (1 + t * t), p = q / pi, p1 = -2 * t * q * p, p2 = (6 * t * t - 2) * q * q * p;
    const double r = p / f;
    return chain(x, std::log(f), r, p1 / f - r * r, p2 / f - 3 * p1 * p / (f * f) + 2 * r * r * r);
}

}  // namespace multilevel
