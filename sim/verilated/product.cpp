// Compares a Verilated multiplier with numbers worked out here, pair by pair: see exhaustive.py.
//
// What is right is written from docs/isa.md, the number formats and the contract of the component:
// numbers become exact doubles (or integers in units of 2^-24), never significands and shifts.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

using Wide = unsigned __int128;

enum Format { INT8 = 0, FP16 = 1, INT4 = 4, BF16 = 5, E4M3 = 6, E5M2 = 7 };
enum Mode { MODE_INT8 = 0, MODE_FP16 = 1, MODE_INT4 = 2, MODE_BF16 = 3 };
enum Flag { NAN_ = 1, INF_POS = 2, INF_NEG = 4, BELOW = 8, ABOVE = 16 };

constexpr unsigned LATENCY = 8;  // PrepareWeight's and Product's
constexpr Wide MASK96 = (Wide{1} << 96) - 1;
constexpr uint64_t MASK48 = (uint64_t{1} << 48) - 1;
constexpr uint64_t MASK24 = (uint64_t{1} << 24) - 1;

struct Number {
    double value = 0;   // of a finite number
    int64_t fixed = 0;  // the same in units of 2^-24, where that is an integer below 2^53
    int unit = 0;       // the lowest bit of its BF16 significand weighs 2^unit
    bool zero = false, inf = false, nan = false, negative = false;
};

// An IEEE-like number: sign, exponent and fraction bits.
Number ieee(unsigned bits, int exponent_bits, int fraction_bits, bool has_inf) {
    Number n;
    const unsigned fraction = bits & ((1u << fraction_bits) - 1);
    const unsigned top = (1u << exponent_bits) - 1;
    const unsigned exponent = bits >> fraction_bits & top;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    n.negative = bits >> (exponent_bits + fraction_bits) & 1;
    if (exponent == top && (has_inf || fraction == (1u << fraction_bits) - 1)) {
        n.nan = !has_inf || fraction != 0;
        n.inf = !n.nan;
        return n;
    }
    const double part = std::ldexp(double(fraction), -fraction_bits);
    const double size = exponent ? std::ldexp(1 + part, int(exponent) - bias)
                                 : std::ldexp(part, 1 - bias);
    n.value = n.negative ? -size : size;
    return n;
}

Number number(int format, unsigned raw) {
    Number n;
    switch (format) {
        case INT8: n.value = int8_t(raw); break;
        case INT4: n.value = int8_t(raw << 4) >> 4; break;
        case FP16: n = ieee(raw, 5, 10, true); break;
        case BF16: n = ieee(raw, 8, 7, true); break;
        case E4M3: n = ieee(raw & 0xFF, 4, 3, false); break;
        case E5M2: n = ieee(raw & 0xFF, 5, 2, true); break;
    }
    if (format == INT8 || format == INT4) n.negative = n.value < 0;
    n.zero = n.value == 0 && !n.inf && !n.nan;
    if (n.value != 0) {
        n.unit = std::max(std::ilogb(n.value), -126) - 7;
        const double fixed = std::ldexp(n.value, 24);
        if (std::fabs(fixed) < 0x1p53) n.fixed = int64_t(fixed);
    }
    return n;
}

struct Result {
    Wide segments;  // of 24 bits each
    unsigned flags;
    bool operator==(const Result& other) const = default;
};

uint64_t mix(uint64_t x) {  // splitmix64
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

}  // namespace

// What exhaustive.py tells, in its order.
struct Setting {
    int32_t mode, stream_format, in_format, anchor, offset;
    uint32_t w_count, x_count;
    const uint16_t *w, *x;
    uint16_t w_noise, x_noise;  // bits that do not matter
    int32_t sampled;            // pairs drawn at random, or all in turn
    uint64_t seed;
};

struct Mismatch {
    uint64_t index;
    uint16_t w, x;
    uint32_t expected_flags, found_flags;
    uint32_t expected[4], found[4];
};

struct Checker {
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    Setting setting{};
    std::vector<Number> w, x;  // by index

    Checker() : top(std::make_unique<Vtop>(&context)) { reset(); }
    ~Checker() { top->final(); }

    void clock() {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
    }

    void reset() {
        top->rst = 1;
        top->valid_i = 0;
        clock();
        clock();
        top->rst = 0;
    }

    void set(const Setting& given) {
        setting = given;
        top->mode = given.mode;
        top->stream_format = given.stream_format;
        top->in_format = given.in_format;
        top->offset = given.offset & 0x3FF;
        top->valid_i = 0;
        clock();  // the mode is decoded a cycle before the first pair
        w.clear();
        x.clear();
        for (uint32_t i = 0; i < given.w_count; ++i)
            w.push_back(number(given.stream_format, given.w[i]));
        for (uint32_t i = 0; i < given.x_count; ++i)
            x.push_back(number(given.in_format, given.x[i]));
    }

    Result expected(uint32_t wi, uint32_t xi) const {
        if (setting.mode == MODE_FP16 || setting.mode == MODE_BF16) return floats(w[wi], x[xi]);
        const int weight = int(w[wi].value);
        const uint16_t word = setting.x[xi];
        Wide segments = 0;
        if (setting.mode == MODE_INT8) {
            for (int lane = 0; lane < 2; ++lane) {
                const int64_t product = weight * int8_t(word >> 8 * lane);
                segments |= Wide(uint64_t(product) & MASK48) << 48 * lane;
            }
        } else {
            for (int lane = 0; lane < 4; ++lane) {
                const int nibble = int8_t(uint8_t(word >> 4 * lane) << 4) >> 4;
                segments |= Wide(uint64_t(int64_t(weight * nibble)) & MASK24) << 24 * lane;
            }
        }
        return {segments, 0};
    }

    Result floats(const Number& a, const Number& b) const {
        if (a.zero || b.zero) return {0, 0};
        if (a.nan || b.nan) return {0, NAN_};
        const unsigned infinity = a.negative != b.negative ? INF_NEG : INF_POS;
        if (a.inf || b.inf) return {0, infinity};
        if (setting.mode == MODE_FP16) return {Wide(__int128(a.fixed) * b.fixed) & MASK96, 0};
        if (a.unit + b.unit > 64 + setting.anchor) return {0, infinity | ABOVE};
        const double exact = std::ldexp(a.value * b.value, -setting.anchor);
        const double kept = std::trunc(exact);
        return {Wide(__int128(kept)) & MASK96, kept == exact ? 0u : unsigned(BELOW)};
    }

    Result found() const {
        const Vtop& t = *top;
        const uint32_t part[4] = {t.addend___05F0, t.addend___05F1, t.addend___05F2,
                                  t.addend___05F3};
        const auto add = [&](int i) { return uint64_t(part[i]) + (t.carry_in >> i & 1); };
        Wide segments = 0;
        if (setting.mode == MODE_INT8) {
            for (int i = 0; i < 2; ++i) {
                const uint64_t sum = add(2 * i) + (add(2 * i + 1) << 24);
                segments |= Wide(sum & MASK48) << 48 * i;
            }
        } else if (setting.mode == MODE_INT4) {
            for (int i = 0; i < 4; ++i) segments |= Wide(add(i) & MASK24) << 24 * i;
        } else {
            for (int i = 0; i < 4; ++i) segments += Wide(add(i)) << 24 * i;
        }
        const unsigned flags = t.nan * NAN_ | t.inf_pos * INF_POS | t.inf_neg * INF_NEG |
                               t.below * BELOW | t.above * ABOVE;
        return {segments & MASK96, flags};
    }

    // Pairs first to first + count - 1; returns how many are wrong, and the first one of them.
    uint64_t run(uint64_t first, uint64_t count, Mismatch* mismatch) {
        struct Sent {
            uint64_t index;
            uint32_t w, x;
            bool valid;
        } sent[LATENCY] = {};
        Vtop& t = *top;
        uint64_t wrong = 0;
        const uint64_t end = first + count;
        const bool plain = !setting.sampled && !setting.w_noise && !setting.x_noise;
        uint64_t next = first;
        for (uint64_t cycle = 0, left = LATENCY; left; ++cycle) {
            Sent& slot = sent[cycle % LATENCY];
            const Sent due = slot;
            const uint64_t random = plain ? 0 : mix(setting.seed + next);
            slot = {next, 0, 0, false};
            if (next == end) {
                --left;
            } else if (setting.sampled && mix(random + cycle) % 32 == 0) {
                // A cycle without a pair.
            } else {
                const uint64_t pair =
                    setting.sampled ? random % (uint64_t{setting.w_count} * setting.x_count) : next;
                slot.w = uint32_t(pair / setting.x_count);
                slot.x = uint32_t(pair % setting.x_count);
                slot.valid = true;
                t.w = setting.w[slot.w] | (uint16_t(random >> 32) & setting.w_noise);
                t.x = setting.x[slot.x] | (uint16_t(random >> 48) & setting.x_noise);
                ++next;
            }
            t.valid_i = slot.valid;
            // What went in LATENCY cycles ago was there before this clock edge.
            if (cycle >= LATENCY) {
                const Result now = due.valid ? found() : Result{0, 0};
                const Result want = due.valid ? expected(due.w, due.x) : Result{0, 0};
                if (t.valid_o != due.valid || !(now == want)) {
                    if (!wrong++) {
                        *mismatch = {due.index, setting.w[due.w], setting.x[due.x],
                                     want.flags, now.flags, {}, {}};
                        for (int i = 0; i < 4; ++i) {
                            mismatch->expected[i] = uint32_t(want.segments >> 24 * i & MASK24);
                            mismatch->found[i] = uint32_t(now.segments >> 24 * i & MASK24);
                        }
                    }
                }
            }
            clock();
        }
        return wrong;
    }
};

API Checker* product_new() { return new Checker; }

API void product_free(Checker* checker) { delete checker; }

API void product_set(Checker* checker, const Setting* setting) { checker->set(*setting); }

API uint64_t product_run(Checker* checker, uint64_t first, uint64_t count, Mismatch* mismatch) {
    return checker->run(first, count, mismatch);
}
