use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/gantry");
    let descriptors = protox::compile(
        ["proto/gantry/store/v1/store.proto"],
        ["proto", "../proto", "../proto/third_party"],
    )?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .btree_map(".")
        .extern_path(".google.protobuf", "::pbjson_types")
        .extern_path(".google.rpc", "::gantry_proto::google::rpc")
        .extern_path(".gantry.v1", "::gantry_proto::v1")
        .extern_path(".gantry.agent.v1", "::gantry_proto::agent::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
