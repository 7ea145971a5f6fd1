//! Links programs with the codec loops of `transcoder`; its build script says how.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arguments = std::env::var("DEP_CAUSEWAY_CODEC_LINK").unwrap_or_default();
    for argument in arguments.split_whitespace() {
        println!("cargo::rustc-link-arg={argument}");
    }
}
