//! Three things about linking that Cargo.toml has no setting for.
//!
//! The unwinder is linked statically on glibc. The reason: `once` is a short process that cron starts
//! often, and this saves it one shared library to find, map and relocate.
//!
//! The tables that unwinding needs are left out of the released program: half a megabyte that nothing
//! reads. With `panic = "abort"` nothing unwinds, and without symbols a backtrace has no names.
//!
//! The functions that commands run are put side by side in the released program, as
//! packaging/functions.txt lists them. A process maps its program in pieces of 64 KiB: with the functions
//! scattered, a refresh maps nearly all of it.

use std::fmt::Write as _;
use std::{env, fs, io, path::Path};

/// For the linker, in addition to its own script.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) *(.gcc_except_table) \
                      *(.gcc_except_table.*) } } INSERT BEFORE .text;\n";

/// Sections of functions: those of short commands, an empty line, and those of a refresh.
const FUNCTIONS: &str = "packaging/functions.txt";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FUNCTIONS}");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu" {
        // Comes before std's shared libgcc_s on the linker's command line, which is then not needed.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
        // Cargo tells a build script nothing about panics; this profile has "abort".
        if variable("PROFILE") == "release" {
            let script = Path::new(&variable("OUT_DIR")).join("layout.ld");
            fs::write(&script, SCRIPT.to_owned() + &side_by_side(&fs::read_to_string(FUNCTIONS)?))?;
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
        }
    }
    Ok(())
}

/// One section of the program for each part of the list.
fn side_by_side(functions: &str) -> String {
    let mut script = "SECTIONS {".to_owned();
    for (part, place) in functions.split("\n\n").zip(["short", "refresh"]) {
        let names = part.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        if !names.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(script, " .text_{place} : {{ *({}) }}", names.join(" "));
        }
    }
    script + " } INSERT BEFORE .text;\n"
}
