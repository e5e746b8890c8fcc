// Random numbers that are the same on every machine: xoshiro256++ (Blackman & Vigna 2021), seeded by splitmix64.
#pragma once
#include <cmath>
#include <cstdint>

namespace multilevel {

class Random {
  public:
    explicit Random(std::uint64_t seed, std::uint64_t stream = 0) {
        // the stream is mixed on its own first, so that neighbouring streams share no words
        std::uint64_t x = mix(seed + golden) ^ mix(mix(stream + golden) + 0xD1B54A32D192ED03ull);
        for (std::uint64_t& word : state_) word = mix(x += golden);
    }
    std::uint64_t bits() {
        const std::uint64_t out = rotate(state_[0] + state_[3], 23) + state_[0], t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = rotate(state_[3], 45);
        return out;
    }
    // on (0, 1)
    double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1.0p-53; }
    // standard normal, by Marsaglia's polar method
    double normal() {
        if (ready_) {
            ready_ = false;
            return spare_;
        }
        double u, v, s;
        do {
            u = 2 * uniform() - 1;
            v = 2 * uniform() - 1;
            s = u * u + v * v;
        } while (s >= 1 || s == 0);
        const double f = std::sqrt(-2 * std::log(s) / s);
        spare_ = v * f;
        ready_ = true;
        return u * f;
    }

  private:
    static constexpr std::uint64_t golden = 0x9E3779B97F4A7C15ull;
    std::uint64_t state_[4];
    double spare_ = 0;
    bool ready_ = false;

    static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    static std::uint64_t rotate(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
};

}  // namespace multilevel
