"""Control and status registers."""

from amaranth.lib import enum

__all__ = [
    "Csr",
]


class Csr(enum.IntEnum):
    """Byte addresses of the 32-bit control and status registers."""

    ID = 0x00
    """Reads 0x4B535044 ("DPSK")."""
    ABI = 0x04
    BUILD_LOW = 0x08
    """Hash of the RTL text that this card was built from."""
    BUILD_HIGH = 0x0C
    GEOMETRY = 0x10
    """rows | cols << 8 | bus_bytes << 16 | hbm_channels << 24."""
    SCRATCHPAD_BYTES = 0x14
    MEMORY_BYTES = 0x18
    OPERAND_DEPTH = 0x1C
    CONTROL = 0x20
    """Write 1: reset the card; 2: abort the running job."""
    STATE = 0x24
    """Bit 0: a job runs. Bits 8-14: busy units, by `Unit`."""
    RING_BASE = 0x28
    """Byte address of the command ring, a multiple of 128."""
    RING_SIZE = 0x2C
    """Commands in the ring, a power of two."""
    RING_TAIL = 0x30
    """Doorbell: commands written so far, modulo 2^32. The card fetches up to here."""
    RING_HEAD = 0x34
    """Commands taken so far, modulo 2^32. The ring below it may be written again."""
    COMPLETED = 0x38
    """Jobs ended so far, modulo 2^32. The interrupt line is high while it differs from ACK."""
    ACK = 0x3C
    ERROR = 0x40
    """Of the newest job that failed: status | unit << 8. Cleared by reset."""
    ERROR_COMMAND = 0x44
    WATCHDOG = 0x48
    """Cycles without progress after which a job is ended; 0 is never. Reset: 100,000."""
    MEMORY_MODE = 0x4C
    """0: HBM; 1: ideal (fixed latency). Changed only while no job runs."""
    STALL = 0x50
    """What each queue waits for when the watchdog fired: 4 bits a queue; 0 nothing, 1 semaphore,
    2 unit."""
    STALL_SEMAPHORE = 0x54
    """Index of the semaphore that each queue waits for, 4 bits a queue."""
    PARTS = 0x58
    """Parts of the vector unit: bit 0 VECTOR (always 1), bit 1 ROWS, bit 2 REFORMAT."""
    STEP = 0x5C
    """Steps through commands. With bit 31 the card takes at most as many more commands out of the
    ring as bits 0-15 tell, END and those that a failed job skips included; each one taken counts
    the bits down to 0. The watchdog stands still while the next command waits for a step. A write
    sets both, a read shows what is left. Without bit 31 nothing is counted. Reset: 0."""

    CYCLES = 0x80
    """Counters, cleared when a job starts, two cycles after the doorbell. 64 bits: low word, then
    high."""
    MAC_ACTIVE = 0x88
    """Engine-cycles in which a row engine issued a weight."""
    STALL_STREAM = 0x90
    """Engine-cycles in which a row engine with work waited for its stream."""
    STALL_FILL = 0x98
    """... for its operands."""
    STALL_DRAIN = 0xA0
    """... for the drain or the epilogue."""
    IDLE_IMBALANCE = 0xA8
    """Engine-cycles without work while another engine had some."""
    BYTES_READ = 0xB0
    BYTES_WRITTEN = 0xB8
    HBM_ROW_HITS = 0xC0
    HBM_ACTIVATES = 0xC8
    HBM_REFRESHES = 0xD0
    IDLE_MEMORY = 0xD8
    """Engine-cycles in which no engine had work, and a load or store unit did. With MAC_ACTIVE, the
    three stalls and the other two idle counts these add up to ``rows * CYCLES``."""
    IDLE_OTHER = 0xE0
    """Engine-cycles in which neither engines nor load or store units had work."""
    COUNT_ENGINE = 0xE8
    """Whose cycles the engine counters count: an engine's index, or 0xFF for all (reset value). It
    may change while a job runs: a cycle counts for whom it names then, and shows a few cycles
    later."""
