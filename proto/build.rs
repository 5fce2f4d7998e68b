use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PROTOS: &[&str] = &[
    "gantry/v1/connector.proto",
    "gantry/v1/difference.proto",
    "gantry/v1/offset.proto",
    "gantry/v1/plugin.proto",
    "gantry/v1/problem.proto",
    "gantry/v1/agent.proto",
    "gantry/agent/v1/session.proto",
    // Registered for reflection, so that clients can print error details as text.
    "third_party/google/rpc/error_details.proto",
    "third_party/google/rpc/status.proto",
];

#[allow(clippy::disallowed_methods, reason = "cargo tells build scripts by variables")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=gantry");
    println!("cargo:rerun-if-changed=third_party");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(PROTOS, ["third_party", "."])?;
    let bytes = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &bytes)?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(".")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .btree_map(["."])
        .build(&[".gantry", ".google.rpc"])?;
    Ok(())
}
