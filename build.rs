//! Two things about linking that Cargo.toml has no setting for.
//!
//! The unwinder is linked statically on glibc. The reason: `once` is a short process that cron starts
//! often, and this saves it one shared library to find, map and relocate.
//!
//! The tables that unwinding needs are left out of the released program: half a megabyte that nothing
//! reads. With `panic = "abort"` nothing unwinds, and without symbols a backtrace has no names.

use std::{env, fs, io, path::Path};

/// For the linker, in addition to its own script.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) *(.gcc_except_table) \
                      *(.gcc_except_table.*) } } INSERT BEFORE .text;\n";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu" {
        // Comes before std's shared libgcc_s on the linker's command line, which is then not needed.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        // Cargo tells a build script nothing about panics; this profile has "abort".
        if variable("PROFILE") == "release" {
            let script = Path::new(&variable("OUT_DIR")).join("without_unwind_tables.ld");
            fs::write(&script, SCRIPT)?;
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
        }
    }
    Ok(())
}
