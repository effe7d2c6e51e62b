//! Links the unwinder statically on glibc. The reason: `once` is a short process that cron starts
//! often, and this saves it one shared library to find, map and relocate. With `panic = "abort"` the
//! unwinder only prints backtraces, which work as before. Cargo.toml has no setting for this.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if of_target("OS") == "linux" && of_target("ENV") == "gnu" {
        // Comes before std's shared libgcc_s on the linker's command line, which is then not needed.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
