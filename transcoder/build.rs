//! Puts this crate's loops in the place of libopus' (`src/codec/silk`), here and in every program of a dependent that passes
//! `DEP_CAUSEWAY_CODEC_LINK` on to its linker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "x86_64");
    let replaced: &[&str] =
        if x86 { &["silk_NSQ_del_dec_avx2", "silk_warped_autocorrelation_FLP"] } else { &[] };
    let arguments: Vec<_> = replaced.iter().map(|symbol| format!("-Wl,--wrap={symbol}")).collect();
    for argument in &arguments {
        println!("cargo::rustc-link-arg={argument}");
    }
    println!("cargo::metadata=LINK={}", arguments.join(" "));
}
