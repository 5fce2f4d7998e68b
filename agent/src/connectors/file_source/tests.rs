//! Whole tasks on real files, with tokio's clock paused.

mod compliance;
mod files;
mod interleavings;
mod offsets;
mod rig;
mod rotation;
