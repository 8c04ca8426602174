//! Tells the linker where the layout of images is.
//!
//! Owns nothing else.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    println!("cargo::rustc-link-search={here}/..");
    println!("cargo::rustc-link-arg=-L{here}/..");
    println!("cargo::rerun-if-changed=../image.ld");
}
