//! Whole tasks: on real files, and on a disk that forgets what was not synced.

mod compliance;
mod crashes;
mod files;
mod rig;
mod simulated;
