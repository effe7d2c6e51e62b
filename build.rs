//! Links the unwinder into the program where the C library is glibc: one shared library less to
//! find, map and relocate in each of the short lives that cron gives to `once`. `panic = "abort"`
//! leaves it backtraces to do, and those are as good.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if of_target("OS") == "linux" && of_target("ENV") == "gnu" {
        // Named before std names the shared one, of which then nothing is needed.
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
