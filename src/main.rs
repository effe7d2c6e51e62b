//! The binary: everything is in the library.

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

/// One heap for all threads. glibc's has one for each thread that works on files, and keeps 128 KiB and more
/// of each: half of the memory of a thousand accounts after a wave (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    zg_tokend::cli::main()
}
