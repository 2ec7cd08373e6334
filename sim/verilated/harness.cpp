// Runs a Verilated design from ctypes. What depends on the design comes from ports.h:
//   PORTS(X)       X(index, member, bytes) for each port
//   HAS_CLOCK, HAS_RESET, HAS_STORAGE, HAS_HOST, HAS_IRQ   0 or 1
//   MEMORY_BYTES, BEAT_BYTES    of the memory behind the `storage` ports
//   STORAGE_LATENCY, HOST_READ_LATENCY    in cycles
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "ports.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

#define API extern "C" __attribute__((visibility("default")))

namespace {

// A port is an integer, or words of 32 bits (VlWide). All hosts are little-endian.
template <typename T>
void load(T& port, const void* bytes, size_t n) {
    port = 0;
    std::memcpy(&port, bytes, n);
}
template <std::size_t N>
void load(VlWide<N>& port, const void* bytes, size_t n) {
    std::memset(port.data(), 0, 4 * N);
    std::memcpy(port.data(), bytes, n);
}
template <typename T>
const void* bits(const T& port) {
    return &port;
}
template <std::size_t N>
const void* bits(const VlWide<N>& port) {
    return port.data();
}

struct Card {
    VerilatedContext context;
    std::unique_ptr<Vtop> top;
    uint64_t cycles = 0;
#if HAS_STORAGE
    uint8_t* memory = nullptr;
    // Reads on their way; each slot comes up once in as many cycles as there are slots.
    uint8_t answers[STORAGE_LATENCY - 1][BEAT_BYTES];
    bool answered[STORAGE_LATENCY - 1] = {};
#endif
#if HAS_HOST
    // The register that was read last, and when. Reads of it that follow are on their way already.
    uint32_t read_address = 0;
    uint64_t read_cycle = ~uint64_t{0};
#endif
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> wave;
    uint64_t wave_end = 0;
#endif

    bool start() {
#if HAS_STORAGE
        // Pages appear when they are first written, and read as zero until then.
        void* pages = mmap(nullptr, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED) return false;
        memory = static_cast<uint8_t*>(pages);
#endif
#if VM_TRACE
        context.traceEverOn(true);
#endif
        top = std::make_unique<Vtop>(&context);
        top->eval();
        return true;
    }

    ~Card() {
#if VM_TRACE
        if (wave) wave->close();
#endif
        if (top) top->final();
#if HAS_STORAGE
        if (memory) munmap(memory, MEMORY_BYTES);
#endif
    }

    void dump(unsigned half) {
#if VM_TRACE
        if (wave && cycles < wave_end) wave->dump(10 * cycles + 5 * half);
#endif
    }

    // One cycle. On entry and on return the clock is low and all has settled.
    void cycle() {
        Vtop& t = *top;
#if HAS_STORAGE
        const bool enable = t.storage___05Fenable;
        const bool write = t.storage___05Fwrite;
        uint8_t* const beat = memory + static_cast<size_t>(t.storage___05Faddress) * BEAT_BYTES;
        if (enable && write) {
            const uint64_t mask = t.storage___05Fwrite_mask;
            const auto* data = static_cast<const uint8_t*>(bits(t.storage___05Fwrite_data));
            if (mask == (~uint64_t{0} >> (64 - BEAT_BYTES))) {
                std::memcpy(beat, data, BEAT_BYTES);
            } else {
                for (unsigned i = 0; i < BEAT_BYTES; ++i)
                    if (mask >> i & 1) beat[i] = data[i];
            }
        }
#endif
#if HAS_CLOCK
        t.clk = 1;
        t.eval();
        dump(0);
        t.clk = 0;
#endif
#if HAS_STORAGE
        const unsigned slot = cycles % (STORAGE_LATENCY - 1);
        if (answered[slot]) load(t.storage___05Fread_data, answers[slot], BEAT_BYTES);
        answered[slot] = enable && !write;
        if (answered[slot]) std::memcpy(answers[slot], beat, BEAT_BYTES);
#endif
        t.eval();
        dump(1);
        ++cycles;
    }
};

}  // namespace

API Card* card_new() {
    auto card = std::make_unique<Card>();
    return card->start() ? card.release() : nullptr;
}

API void card_free(Card* card) { delete card; }

API uint64_t card_cycles(const Card* card) { return card->cycles; }

API void card_reset(Card* card, uint64_t cycles) {
#if HAS_RESET
    card->top->rst = 1;
    card->top->eval();
#endif
    for (uint64_t i = 0; i < cycles; ++i) card->cycle();
#if HAS_RESET
    card->top->rst = 0;
    card->top->eval();
#endif
}

API void card_tick(Card* card, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; ++i) card->cycle();
}

// Run until irq is high, or for `limit` cycles; return how many were run.
API uint64_t card_run(Card* card, uint64_t limit) {
    uint64_t n = 0;
#if HAS_IRQ
    for (; n < limit && !card->top->irq; ++n) card->cycle();
#else
    for (; n < limit; ++n) card->cycle();
#endif
    return n;
}

API int card_set(Card* card, unsigned port, const void* bytes) {
    switch (port) {
#define X(index, member, size)                  \
    case index:                                 \
        load(card->top->member, bytes, size);   \
        break;
        PORTS(X)
#undef X
        default: return -1;
    }
    card->top->eval();
    return 0;
}

API int card_get(const Card* card, unsigned port, void* bytes) {
    switch (port) {
#define X(index, member, size)                               \
    case index:                                              \
        std::memcpy(bytes, bits(card->top->member), size);   \
        return 0;
        PORTS(X)
#undef X
    }
    return -1;
}

#if HAS_STORAGE
API int card_write(Card* card, uint64_t address, const void* bytes, uint64_t n) {
    if (n > MEMORY_BYTES || address > MEMORY_BYTES - n) return -1;
    std::memcpy(card->memory + address, bytes, n);
    return 0;
}

API int card_read(const Card* card, uint64_t address, void* bytes, uint64_t n) {
    if (n > MEMORY_BYTES || address > MEMORY_BYTES - n) return -1;
    std::memcpy(bytes, card->memory + address, n);
    return 0;
}
#endif

#if HAS_HOST
API void card_csr_write(Card* card, uint32_t address, uint32_t value) {
    Vtop& t = *card->top;
    t.host___05Faddress = address;
    t.host___05Fwrite_data = value;
    t.host___05Fwrite = 1;
    t.eval();
    card->cycle();
    t.host___05Fwrite = 0;
    t.eval();
}

API uint32_t card_csr_read(Card* card, uint32_t address) {
    Vtop& t = *card->top;
    t.host___05Faddress = address;
    t.eval();
    const bool again = card->read_cycle == card->cycles && card->read_address == address;
    for (unsigned i = again ? 1 : HOST_READ_LATENCY; i; --i) card->cycle();
    card->read_address = address;
    card->read_cycle = card->cycles;
    return t.host___05Fread_data;
}
#endif

#if VM_TRACE
API int card_wave_open(Card* card, const char* path, uint64_t cycles) {
    card->wave = std::make_unique<VerilatedVcdC>();
    card->top->trace(card->wave.get(), 99);
    card->wave->open(path);
    card->wave_end = cycles ? card->cycles + cycles : ~uint64_t{0};
    return card->wave->isOpen() ? 0 : -1;
}
#endif
