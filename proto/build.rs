//! Generates the Rust types of `shard.proto` without a protoc on the machine.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=shard.proto");
    let descriptors = protox::compile(["shard.proto"], ["."])?;
    // `bytes` fields become `Bytes`, so that pixels and token runs are sliced, not copied.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
