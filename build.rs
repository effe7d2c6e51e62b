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
//! scattered, a refresh maps nearly all of it. Large constants that they do not read, such as the dictionary
//! of brotli, are put behind all others.

use std::fmt::Write as _;
use std::{env, fs, io, path::Path};

/// For the linker, in addition to its own script.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) *(.gcc_except_table) \
                      *(.gcc_except_table.*) } } INSERT BEFORE .text;\n";

/// Sections of functions and constants, in parts with empty lines between them.
const FUNCTIONS: &str = "packaging/functions.txt";

/// The parts: of short commands, of these and `run`, of `run`, and of a refresh in `once`. After them come the constants.
const PARTS: [&str; 4] = ["short", "common", "run", "once"];

/// What the list lacks, since valgrind's processor has no ADX and no SHA extensions, its process no vDSO, and ring's
/// assembly no names: the part that it comes after, its name, and its sections.
const UNSEEN: [(&str, &str, &str); 2] = [
    (
        "common",
        "start",
        "*crt1.o(.text) *crtbegin*.o(.text) *(.text.*check_elf_base* .text.*4vdso* .text.*x86_sha* \
         .text.*OpenOptions5__open* .text.*FileNtNtB7_2io5Write5write .text.*lock_contended*)",
    ),
    (
        "run",
        "tls",
        "*libring-*.rlib:*(.text) *(.text.*x25519*adx* .text.inline_x25519* .text.fiat_* .text.*aes_gcm* \
         .text.constant_time_conditional_* .text.fe4_* .text.*11server_name* .plt)",
    ),
];

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

/// Sections of the program: the functions that were run, part by part, and then all others of the same
/// names. If the hashes in the list are out of date, the names find all instances of a generic function,
/// most of which no command runs.
fn side_by_side(functions: &str) -> String {
    let parts = functions.split("\n\n").map(|part| {
        let lines = part.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect::<Vec<_>>()
    });
    let constants = parts.clone().nth(PARTS.len());
    let parts = parts.zip(PARTS).collect::<Vec<_>>();
    let mut script = "SECTIONS {".to_owned();
    // Writing to a string does not fail.
    let mut add = |place: &str, patterns: Vec<String>| {
        if !patterns.is_empty() {
            let _ = write!(script, " .text_{place} : {{ *({}) }}", patterns.join(" "));
            for (_, place, sections) in UNSEEN.iter().filter(|(before, ..)| *before == place) {
                let _ = write!(script, " .text_{place} : {{ {sections} }}");
            }
        }
    };
    // The functions of short commands alone come last: `run` needs none of them.
    for (lines, place) in parts.iter().skip(1).chain(parts.first()) {
        let exact = lines.iter().flat_map(|(name, hashes)| match *hashes {
            "" => vec![(*name).to_owned()],
            hashes => hashes.split(' ').map(|hash| with_hash(name, hash)).collect(),
        });
        add(place, exact.collect());
    }
    for (lines, place) in &parts {
        add(&format!("{place}_others"), lines.iter().map(|(name, _)| (*name).to_owned()).collect());
    }
    script += " } INSERT BEFORE .text;\n";
    if let Some(constants) = constants {
        let names = constants.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
        let _ = writeln!(script, "SECTIONS {{ .rodata_unread : {{ *({names}) }} }} INSERT AFTER .rodata;");
    }
    script
}

/// The beginning of a name may end within what comes before each hash.
fn with_hash(name: &str, hash: &str) -> String {
    let beginning = name.split('*').next().unwrap_or_default();
    let beginning =
        ["17h", "17", "1"].iter().find_map(|end| beginning.strip_suffix(end)).unwrap_or(beginning);
    format!("{beginning}*17h{hash}E*")
}
