//! Compresses the pages ahead of time and records what is built for what.
//!
//! `web/` is copied to `OUT_DIR/web`; beside each file that gets smaller stand its gzip (`.gz`) and
//! brotli (`.br`) forms, which the service sends as they are.

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=web");
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET")?;
    println!("cargo::rustc-env=EDGEWEB_TARGET={target}");
    println!("cargo::rustc-env=EDGEWEB_FEATURES={}", features().join(" "));

    let pages = Path::new(&env::var("OUT_DIR")?).join("web");
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    compress_directory(Path::new("web"), &pages)
}

/// The crate's features that are on, as Cargo.toml writes them, sorted.
fn features() -> Vec<String> {
    let mut features: Vec<String> = env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase()))
        .filter(|name| name != "default")
        .map(|name| name.replace('_', "-"))
        .collect();
    features.sort();
    features
}

fn compress_directory(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            compress_directory(&entry.path(), &target)?;
            continue;
        }
        let content = fs::read(entry.path())?;
        fs::write(&target, &content)?;
        for (ending, compressed) in [("gz", gzip(&content)?), ("br", brotli(&content)?)] {
            // A form that saves less than a tenth costs flash and gains nothing.
            if compressed.len() * 10 < content.len() * 9 {
                let mut name = target.clone().into_os_string();
                name.push(format!(".{ending}"));
                fs::write(name, compressed)?;
            }
        }
    }
    Ok(())
}

fn gzip(content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    // No file name and no time in the header: the same page is the same bytes in every build.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

fn brotli(content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut compressed = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: 11,
        lgwin: 22,
        ..Default::default()
    };
    brotli::BrotliCompress(&mut &content[..], &mut compressed, &parameters)?;
    Ok(compressed)
}
