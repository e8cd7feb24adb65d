//! The kernels for AMX, the matrix registers of Intel's servers since 2023: tiles of 16 rows of 64 bytes.
//!
//! The intrinsics are not stable yet, so these are written in assembly. A block of 32 × 32 sums takes four registers,
//! the operands the other four.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

use super::kernel::{Kernel, Line, Operands, TILE_COLUMNS, Tile};

/// Rows of a tile register: a product reads as many rows of the left operand as fill one.
pub(super) const REGISTER_ROWS: usize = 16;

/// Whether this machine has AMX with `bf16` and `u8·i8`, and the system lets this process use it.
pub(super) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        /// AMX-BF16, AMX-TILE and AMX-INT8 in EDX of leaf 7.
        const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS && is_permitted()
    });
    *AVAILABLE
}

/// Asks Linux for the use of the tile registers, as every process must, once for all its threads.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    /// The number of `arch_prctl`.
    const ARCH_PRCTL: u64 = 158;
    /// `ARCH_REQ_XCOMP_PERM`.
    const REQUEST: u64 = 0x1023;
    /// `XFEATURE_XTILEDATA`.
    const TILE_DATA: u64 = 18;
    let result: u64;
    // SAFETY: this call reads and writes no memory of the process; it changes RCX and R11 besides its result.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST, in("rsi") TILE_DATA,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The tile registers are configured in this thread as long as this lives: all eight of 16 rows of 64 bytes.
pub(super) struct Configured(());

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

impl Configured {
    pub fn new() -> Self {
        let (mut bytes_of_row, mut rows) = ([0; 16], [0; 16]);
        bytes_of_row[..8].fill(64);
        rows[..8].fill(REGISTER_ROWS as u8);
        let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_row, rows };
        assert!(is_available(), "AMX on a machine without it");
        // SAFETY: this machine has AMX, permitted by the system, and the configuration is a valid one. The compiler
        // uses no tile registers.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Defines a kernel by its product instruction.
macro_rules! kernel {
    ($name:ident, $product:literal) => {
        pub(super) const $name: Kernel = {
            unsafe fn run(operands: &Operands, tile: &mut Tile) {
                let &Operands { left, stride, right, words, rows, panels } = operands;
                let lines = words * size_of::<Line>();
                // Without a second row of registers or a second panel, the first is computed twice.
                let second_rows = if rows > REGISTER_ROWS { REGISTER_ROWS * stride * size_of::<u32>() } else { 0 };
                let second_panel = if panels > 1 { lines } else { 0 };
                let output = tile.0.as_mut_ptr();
                // SAFETY: the caller promises that the operands have so many rows, words and panels; each step reads 16
                // words and lines, of which there is a multiple. The tile has 32 rows of 48 sums. No flags outlive the
                // block, and the compiler uses no tile registers.
                unsafe {
                    asm!(
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "2:",
                        "tileloadd tmm6, [{b} + {line}*1]",
                        "tileloadd tmm4, [{a} + {stride}*1]",
                        concat!($product, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{d} + {line}*1]",
                        concat!($product, " tmm1, tmm4, tmm7"),
                        "tileloadd tmm5, [{c} + {stride}*1]",
                        concat!($product, " tmm2, tmm5, tmm6"),
                        concat!($product, " tmm3, tmm5, tmm7"),
                        "add {a}, 64", "add {c}, 64", "add {b}, 1024", "add {d}, 1024",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{o} + {row}*1], tmm0",
                        "tilestored [{o} + {row}*1 + 64], tmm1",
                        "tilestored [{p} + {row}*1], tmm2",
                        "tilestored [{p} + {row}*1 + 64], tmm3",
                        a = inout(reg) left => _,
                        c = inout(reg) left.byte_add(second_rows) => _,
                        b = inout(reg) right => _,
                        d = inout(reg) right.byte_add(second_panel) => _,
                        o = in(reg) output,
                        p = in(reg) output.add(REGISTER_ROWS),
                        stride = in(reg) stride * size_of::<u32>(),
                        line = in(reg) size_of::<Line>(),
                        row = in(reg) TILE_COLUMNS * size_of::<u32>(),
                        steps = inout(reg) words / REGISTER_ROWS => _,
                        options(nostack)
                    );
                }
            }
            Kernel { name: stringify!($name), rows: 2 * REGISTER_ROWS, panels: 2, run, is_amx: true, offset: 0 }
        };
    };
}

kernel!(BF16_AMX, "tdpbf16ps");
kernel!(INT8_AMX, "tdpbusd");
