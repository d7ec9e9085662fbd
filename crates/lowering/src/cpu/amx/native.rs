//! The processor's tiles. Rust's names for these instructions are not stable yet, so they are written as assembly.

use super::{Operand, Steps};
use crate::cpu::matrix::Target;

/// Whether the processor has tiles of bfloat16 products and the system lets this process use them; asks it once.
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *AVAILABLE.get_or_init(|| x86::has_tiles() && x86::permitted())
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Sets all tiles of this thread up: sixteen rows of 64 bytes each.
pub(super) fn configure() {
    assert!(available(), "tiles are set up where there are some");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    x86::configure();
}

/// Gives the tiles of this thread up, so that the system need not save them.
pub(super) fn release() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    x86::release();
}

/// [`super::product`], which has made sure that all rows are there.
pub(super) fn product(tiles: [usize; 2], operands: [Operand; 2], steps: Steps, to: Target) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    match tiles {
        [2, 2] => x86::two_by_two(operands, steps, to),
        [2, 1] => x86::two_by_one(operands, steps, to),
        [1, 2] => x86::one_by_two(operands, steps, to),
        _ => x86::one_by_one(operands, steps, to),
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let _ = (tiles, operands, steps, to);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86 {
    use std::arch::asm;

    use super::{super::SIDE, Operand, Steps, Target};

    /// `CPUID.7:EDX`: bfloat16 products of tiles, and tiles.
    pub(super) fn has_tiles() -> bool {
        const NEEDED: u32 = 1 << 22 | 1 << 24;
        let largest = std::arch::x86_64::__cpuid(0).eax;
        largest >= 7
            && std::arch::x86_64::__cpuid_count(7, 0).edx & NEEDED == NEEDED
            && is_x86_feature_detected!("avx512bf16")
    }

    /// Asks Linux for the right to use tiles, whose state it saves only for processes that have asked (since 5.16).
    pub(super) fn permitted() -> bool {
        /// `arch_prctl`.
        const CALL: i64 = 158;
        /// `ARCH_REQ_XCOMP_PERM`.
        const REQUEST: u64 = 0x1023;
        /// `XFEATURE_XTILEDATA`.
        const TILE_DATA: u64 = 18;
        let answer: i64;
        // SAFETY: a system call that takes two numbers and touches no memory of ours; it may overwrite rcx and r11, and says so.
        #[expect(unsafe_code, reason = "a system call that the standard library has no name for")]
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") CALL => answer,
                in("rdi") REQUEST,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        answer == 0
    }

    /// What `LDTILECFG` reads: palette 1, then the bytes of a row and the rows of each tile.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    static FULL: Configuration = {
        let mut full = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            full.row_bytes[tile] = 64;
            full.rows[tile] = SIDE as u8;
            tile += 1;
        }
        full
    };

    pub(super) fn configure() {
        // SAFETY: the processor has the instruction and the system allows it (the caller has asserted that); it reads 64 bytes and changes tiles
        // alone, which only this module uses.
        #[expect(unsafe_code, reason = "an instruction by its name")]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &FULL, options(readonly, nostack, preserves_flags));
        }
    }

    pub(super) fn release() {
        // SAFETY: as in `configure`; no memory is touched.
        #[expect(unsafe_code, reason = "an instruction by its name")]
        unsafe {
            asm!("tilerelease", options(nomem, nostack, preserves_flags));
        }
    }

    /// A product with these instructions for the sums' start, the first step's operands, each step, the last one and the sums' end. Sums are
    /// tiles 0 to 3, by rows, the left operand's 4 and 5, the right one's 6 and 7. Operands of the next step are fetched as soon as those of the
    /// present one have been read: where another thread shares the core, tiles are not renamed.
    macro_rules! product {
        ($name:ident, zero: $($zero:literal)*, load: $($load:literal)*, second: $($second:literal)*,
         fetch: $($fetch:literal)*, step: $($step:literal)*, last: $($last:literal)*,
         store: $($store:literal)*, store_second: $($store_second:literal)*) => {
            pub(super) fn $name([left, right]: [Operand; 2], steps: Steps, to: Target) {
                // SAFETY: `super::product` runs where tiles are set up; `amx::product` has asserted that all rows which the steps lead to lie within
                // the operands and those of the sums within the target, which is borrowed exclusively. There is a step. Tiles are named as
                // overwritten.
                #[expect(unsafe_code, reason = "instructions by their names")]
                unsafe {
                    asm!(
                        "test {accumulate}, {accumulate}",
                        "jnz 3f",
                        $($zero,)*
                        "jmp 5f",
                        "3:",
                        $($load,)*
                        // The second row of tiles.
                        "mov {i}, {to_stride}",
                        "shl {i}, 4",
                        "add {i}, {to}",
                        $($second,)*
                        "5:",
                        "mov {i}, [{at}]",
                        "mov {j}, [{at} + 8]",
                        "lea {i}, [{left} + 2*{i}]",
                        "lea {j}, [{right} + 2*{j}]",
                        $($fetch,)*
                        "dec {count}",
                        "jz 4f",
                        "2:",
                        "add {at}, 16",
                        "mov {i}, [{at}]",
                        "mov {j}, [{at} + 8]",
                        "lea {i}, [{left} + 2*{i}]",
                        "lea {j}, [{right} + 2*{j}]",
                        $($step,)*
                        "dec {count}",
                        "jnz 2b",
                        "4:",
                        $($last,)*
                        $($store,)*
                        "shl {to_stride}, 4",
                        "add {to}, {to_stride}",
                        "shr {to_stride}, 4",
                        $($store_second,)*
                        accumulate = in(reg) usize::from(to.accumulate),
                        at = inout(reg) steps.at.as_ptr() => _,
                        count = inout(reg) steps.at.len() => _,
                        left = in(reg) left.halves.as_ptr(),
                        right = in(reg) right.halves.as_ptr(),
                        left_stride = in(reg) 2 * left.stride,
                        right_stride = in(reg) 2 * right.stride,
                        left_second = in(reg) 2 * left.second,
                        right_second = in(reg) 2 * right.second,
                        to = inout(reg) to.values.as_mut_ptr() => _,
                        to_stride = inout(reg) 4 * to.stride => _,
                        i = out(reg) _,
                        j = out(reg) _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
        };
    }

    product!(
        two_by_two,
        zero: "tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3",
        load: "tileloadd tmm0, [{to} + {to_stride}]" "tileloadd tmm1, [{to} + {to_stride} + 64]",
        second: "tileloadd tmm2, [{i} + {to_stride}]" "tileloadd tmm3, [{i} + {to_stride} + 64]",
        fetch: "tileloadd tmm4, [{i} + {left_stride}]" "tileloadd tmm6, [{j} + {right_stride}]" "add {i}, {left_second}" "add {j}, {right_second}" "tileloadd tmm7, [{j} + {right_stride}]" "tileloadd tmm5, [{i} + {left_stride}]",
        step: "tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm1, tmm4, tmm7" "tileloadd tmm4, [{i} + {left_stride}]" "add {i}, {left_second}" "tdpbf16ps tmm2, tmm5, tmm6" "tileloadd tmm6, [{j} + {right_stride}]" "add {j}, {right_second}" "tdpbf16ps tmm3, tmm5, tmm7" "tileloadd tmm7, [{j} + {right_stride}]" "tileloadd tmm5, [{i} + {left_stride}]",
        last: "tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm1, tmm4, tmm7" "tdpbf16ps tmm2, tmm5, tmm6" "tdpbf16ps tmm3, tmm5, tmm7",
        store: "tilestored [{to} + {to_stride}], tmm0" "tilestored [{to} + {to_stride} + 64], tmm1",
        store_second: "tilestored [{to} + {to_stride}], tmm2" "tilestored [{to} + {to_stride} + 64], tmm3"
    );
    product!(
        two_by_one,
        zero: "tilezero tmm0" "tilezero tmm2",
        load: "tileloadd tmm0, [{to} + {to_stride}]",
        second: "tileloadd tmm2, [{i} + {to_stride}]",
        fetch: "tileloadd tmm4, [{i} + {left_stride}]" "tileloadd tmm6, [{j} + {right_stride}]" "add {i}, {left_second}" "add {j}, {right_second}" "tileloadd tmm5, [{i} + {left_stride}]",
        step: "tdpbf16ps tmm0, tmm4, tmm6" "tileloadd tmm4, [{i} + {left_stride}]" "add {i}, {left_second}" "tdpbf16ps tmm2, tmm5, tmm6" "tileloadd tmm6, [{j} + {right_stride}]" "add {j}, {right_second}" "tileloadd tmm5, [{i} + {left_stride}]",
        last: "tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm2, tmm5, tmm6",
        store: "tilestored [{to} + {to_stride}], tmm0",
        store_second: "tilestored [{to} + {to_stride}], tmm2"
    );
    product!(
        one_by_two,
        zero: "tilezero tmm0" "tilezero tmm1",
        load: "tileloadd tmm0, [{to} + {to_stride}]" "tileloadd tmm1, [{to} + {to_stride} + 64]",
        second:,
        fetch: "tileloadd tmm4, [{i} + {left_stride}]" "tileloadd tmm6, [{j} + {right_stride}]" "add {i}, {left_second}" "add {j}, {right_second}" "tileloadd tmm7, [{j} + {right_stride}]",
        step: "tdpbf16ps tmm0, tmm4, tmm6" "tileloadd tmm6, [{j} + {right_stride}]" "add {j}, {right_second}" "tdpbf16ps tmm1, tmm4, tmm7" "tileloadd tmm4, [{i} + {left_stride}]" "add {i}, {left_second}" "tileloadd tmm7, [{j} + {right_stride}]",
        last: "tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm1, tmm4, tmm7",
        store: "tilestored [{to} + {to_stride}], tmm0" "tilestored [{to} + {to_stride} + 64], tmm1",
        store_second:
    );
    product!(
        one_by_one,
        zero: "tilezero tmm0",
        load: "tileloadd tmm0, [{to} + {to_stride}]",
        second:,
        fetch: "tileloadd tmm4, [{i} + {left_stride}]" "tileloadd tmm6, [{j} + {right_stride}]" "add {i}, {left_second}" "add {j}, {right_second}",
        step: "tdpbf16ps tmm0, tmm4, tmm6" "tileloadd tmm4, [{i} + {left_stride}]" "tileloadd tmm6, [{j} + {right_stride}]" "add {i}, {left_second}" "add {j}, {right_second}",
        last: "tdpbf16ps tmm0, tmm4, tmm6",
        store: "tilestored [{to} + {to_stride}], tmm0",
        store_second:
    );
}
