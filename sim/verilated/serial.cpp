// Added to harness.cpp for a design with the pins `rx` and `tx` and the output `busy`: plays the
// host's end of the serial line, between the pins and a file descriptor.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace {

constexpr unsigned CHUNK = 512;  // cycles between two looks at the descriptors

// Bits are timed by the overflows of a phase, since a bit may take a fraction of a cycle more.
struct Phase {
    uint64_t step, at = 0;

    Phase(uint64_t clock_hz, uint64_t baud) : step((baud << 32) / clock_hz) {}

    bool next() {
        at += step;
        const bool bit = at >> 32;
        at &= 0xFFFFFFFF;
        return bit;
    }
};

struct Sender {
    Phase phase;
    unsigned bits = 0;  // those to come; the lowest one is on the line
    unsigned left = 0;
    std::vector<uint8_t> queue;
    size_t taken = 0;

    bool idle() const { return !left && taken == queue.size(); }

    // Return the level of the line in the next cycle.
    bool cycle() {
        if (left && phase.next()) {
            bits >>= 1;
            --left;
        }
        if (!left) {
            if (taken == queue.size()) return true;
            bits = queue[taken++] << 1 | 1u << 9;
            left = 10;
        }
        return bits & 1;
    }
};

struct Receiver {
    Phase phase;
    unsigned bits = 0;
    unsigned left = 0;
    std::vector<uint8_t> queue;

    void cycle(bool line) {
        if (!left) {
            if (line) return;
            left = 10;
            bits = 0;
            phase.at = uint64_t{1} << 31;  // the middle of a bit
        }
        if (!phase.next()) return;
        bits |= static_cast<unsigned>(line) << (10 - left);
        --left;
        if (left == 9 && line) left = 0;  // that was no start bit
        if (left == 0 && bits >> 9 & 1) queue.push_back(bits >> 1);
    }
};

}  // namespace

// Run the design, with its pins connected to `terminal` (non-blocking), until something can be read
// from `stop` or its other end is closed. Without a terminal (-1) nothing comes, and what is sent
// is lost. No time passes while the terminal does not take what was sent, nor when all has been
// quiet for `rest` cycles. What waits in the terminal already comes `CHUNK` cycles later: a design
// that makes its own reset is through with it then.
//
// Return 0, or the errno of the terminal.
API int card_serve(Card* card, int terminal, int stop, uint64_t clock_hz, uint64_t baud,
                   uint64_t rest) {
    Sender to{Phase(clock_hz, baud)};
    Receiver from{Phase(clock_hz, baud)};
    Vtop& t = *card->top;
    uint64_t quiet = 0;
    size_t given = 0;
    bool awake = false;
    for (;;) {
        const bool blocked = given != from.queue.size();
        const bool resting = quiet >= rest;
        pollfd events[] = {{stop, POLLIN, 0}, {terminal, 0, 0}};
        if (terminal >= 0 && awake && (to.idle() || resting)) events[1].events |= POLLIN;
        if (blocked) events[1].events |= POLLOUT;
        if (poll(events, terminal >= 0 ? 2 : 1, blocked || resting ? -1 : 0) < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        if (events[0].revents) return 0;
        if (events[1].revents & (POLLERR | POLLHUP | POLLNVAL)) return EIO;
        if (events[1].revents & POLLIN) {
            to.queue.resize(4096);
            const ssize_t n = read(terminal, to.queue.data(), to.queue.size());
            if (n < 0 && errno != EAGAIN && errno != EINTR) return errno;
            to.queue.resize(n > 0 ? n : 0);
            to.taken = 0;
            quiet = 0;
        }
        if (blocked) {
            const ssize_t n =
                write(terminal, from.queue.data() + given, from.queue.size() - given);
            if (n < 0 && errno != EAGAIN && errno != EINTR) return errno;
            if (n > 0) given += n;
            if (given != from.queue.size()) continue;
        }
        from.queue.clear();
        given = 0;
        if (quiet >= rest) continue;
        for (unsigned i = 0; i < CHUNK; ++i) {
            t.rx = to.cycle();
            card->cycle();
            from.cycle(t.tx);
            quiet = t.rx && t.tx && !t.busy ? quiet + 1 : 0;
        }
        awake = true;
        if (terminal < 0) given = from.queue.size();
    }
}
