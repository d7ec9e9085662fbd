// What 32 threads of a warp do together on tensor cores, and copies that go on by themselves: compute capability 8.0 and newer. The functions
// that hold PTX have a second form for the host in `tests/emulator/kernel.h`, with fragments laid out as the PTX manual has them (sections
// "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8"; "ldmatrix"; "cp.async").

// 16 bytes: what one thread copies at once, and a row of a matrix that `load_matrices` takes.
struct alignas(16) Chunk {
    unsigned words[4];
};

// A float whose lower 16 bits are cut off, rounded to nearest, ties to even. NaN stays NaN.
struct Bf16 {
    using Value = unsigned short;
    // Values of a chunk; sums of products that one instruction adds.
    static constexpr int CHUNK = 8, DEPTH = 16;

    static DEVICE Value round(float value) {
        const unsigned bits = __float_as_uint(value);
        if (value != value) return (Value)(bits >> 16 | 0x40u);
        return (Value)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
    static DEVICE float widen(Value value) { return __uint_as_float((unsigned)value << 16); }
};

// A float with 10 bits of mantissa in the place of one with 23, rounded to nearest, ties away from zero as `cvt.rna.tf32` does.
struct Tf32 {
    using Value = unsigned;
    static constexpr int CHUNK = 4, DEPTH = 8;

    static DEVICE Value round(float value) {
        const unsigned bits = __float_as_uint(value);
        if (value != value) return bits | 0x400000u;
        return (bits + 0x1000u) & ~0x1fffu;
    }
    static DEVICE float widen(Value value) { return __uint_as_float(value); }
};

#ifndef EMULATED

// Starts to copy a chunk from memory to shared memory, or fills it with zeros; `from` must be an address that can be read in any case.
DEVICE void copy_chunk(Chunk* to, const void* from, bool valid) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}

// Ends a group of copies of this thread.
DEVICE void end_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until all but the last GROUPS groups of this thread have arrived.
template <int GROUPS>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// Four matrices of 8 rows each, rows of a chunk: lane l names row l % 8 of matrix l / 8. Lane l gets word l % 4 of row l / 4 of each.
DEVICE void load_matrices(unsigned (&to)[4], const Chunk* row) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// The same of the transposes, as matrices of 8 × 8 halves of a word.
DEVICE void load_transposed(unsigned (&to)[4], const Chunk* row) {
    const unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// C [16, 8] += A [16, DEPTH] B [DEPTH, 8], over the fragments of a warp; sums in 32 bits.
DEVICE void multiply_fragments(Bf16, float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE void multiply_fragments(Tf32, float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
