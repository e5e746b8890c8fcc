// exp() of many numbers at once, in a form that compilers turn into vector instructions: the widest of the machine that runs
// it, chosen when it runs. The same numbers on every machine: no multiplication is fused with an addition.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace multilevel {

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define MULTILEVEL_WIDEST __attribute__((target_clones("avx2", "default")))
#else
#define MULTILEVEL_WIDEST
#endif

// x[i] <- exp(x[i]), to about two units in the last place; below -708 as exp(-708), above 709 as exp(709).
//
// exp(x) = 2^n exp(r) with n the whole number nearest to x / log 2, and Taylor's polynomial of degree 13 for |r| <= log(2) / 2.
MULTILEVEL_WIDEST inline void quick_exp(double* x, long count) {
    constexpr double to_whole = 0x1.8p52;  // added, the last bits of the sum are a whole number
    for (long i = 0; i < count; ++i) {
        double v = x[i] < -708.0 ? -708.0 : x[i];
        v = v > 709.0 ? 709.0 : v;
        const double shifted = v * 1.4426950408889634 + to_whole, n = shifted - to_whole;
        const double r = (v - n * 0x1.62e42fefa0000p-1) - n * 0x1.cf79abc9e3b39p-40;
        double p = 1.0 / 6227020800.0;
        p = p * r + 1.0 / 479001600.0;
        p = p * r + 1.0 / 39916800.0;
        p = p * r + 1.0 / 3628800.0;
        p = p * r + 1.0 / 362880.0;
        p = p * r + 1.0 / 40320.0;
        p = p * r + 1.0 / 5040.0;
        p = p * r + 1.0 / 720.0;
        p = p * r + 1.0 / 120.0;
        p = p * r + 1.0 / 24.0;
        p = p * r + 1.0 / 6.0;
        p = p * r + 0.5;
        p = p * r + 1.0;
        p = p * r + 1.0;
        std::uint64_t bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        bits = (bits + 1023) << 52;
        double power;
        std::memcpy(&power, &bits, sizeof power);
        x[i] = p * power;
    }
}

// The same in single precision: below -87 as exp(-87), above 88 as exp(88); Taylor's polynomial of degree 7.
MULTILEVEL_WIDEST inline void quick_exp(float* x, long count) {
    constexpr float to_whole = 0x1.8p23f;
    for (long i = 0; i < count; ++i) {
        float v = x[i] < -87.0f ? -87.0f : x[i];
        v = v > 88.0f ? 88.0f : v;
        const float shifted = v * 1.44269504f + to_whole, n = shifted - to_whole;
        const float r = (v - n * 0x1.62e400p-1f) - n * 0x1.7f7d1cp-20f;
        float p = 1.0f / 5040.0f;
        p = p * r + 1.0f / 720.0f;
        p = p * r + 1.0f / 120.0f;
        p = p * r + 1.0f / 24.0f;
        p = p * r + 1.0f / 6.0f;
        p = p * r + 0.5f;
        p = p * r + 1.0f;
        p = p * r + 1.0f;
        std::uint32_t bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        bits = (bits + 127) << 23;
        float power;
        std::memcpy(&power, &bits, sizeof power);
        x[i] = p * power;
    }
}

}  // namespace multilevel
