//! The connectors that every agent has: one folder each, of the same shape.

#[cfg(feature = "blackhole")]
mod blackhole_sink;
#[cfg(any(test, feature = "destructive"))]
mod destructive_source;
#[cfg(feature = "file")]
mod eol;
#[cfg(feature = "file")]
mod file_sink;
#[cfg(feature = "file")]
mod file_source;
#[cfg(feature = "generator")]
mod generator_source;
#[cfg(any(test, feature = "indiscreet"))]
mod indiscreet_source;
#[cfg(all(test, feature = "file"))]
mod roundtrip;
#[cfg(any(test, feature = "stubborn"))]
mod stubborn;
#[cfg(any(test, feature = "stubborn"))]
mod stubborn_sink;
#[cfg(any(test, feature = "stubborn"))]
mod stubborn_source;

use gantry_connector::Plugin;

/// All of them.
pub fn builtin() -> Vec<Plugin> {
    vec![
        #[cfg(feature = "blackhole")]
        Plugin::Sink(std::sync::Arc::new(blackhole_sink::BlackholeSinkPlugin)),
        #[cfg(any(test, feature = "destructive"))]
        Plugin::Source(std::sync::Arc::new(destructive_source::DestructiveSourcePlugin)),
        #[cfg(feature = "file")]
        Plugin::Sink(std::sync::Arc::new(file_sink::FileSinkPlugin)),
        #[cfg(feature = "file")]
        Plugin::Source(std::sync::Arc::new(file_source::FileSourcePlugin)),
        #[cfg(feature = "generator")]
        Plugin::Source(std::sync::Arc::new(generator_source::GeneratorSourcePlugin)),
        #[cfg(any(test, feature = "indiscreet"))]
        Plugin::Source(std::sync::Arc::new(indiscreet_source::IndiscreetSourcePlugin)),
        #[cfg(any(test, feature = "stubborn"))]
        Plugin::Sink(std::sync::Arc::new(stubborn_sink::StubbornSinkPlugin)),
        #[cfg(any(test, feature = "stubborn"))]
        Plugin::Source(std::sync::Arc::new(stubborn_source::StubbornSourcePlugin)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gantry_connector::testkit::check_info;

    use super::builtin;

    #[test]
    fn every_connector_describes_itself_under_a_name_of_its_own() {
        let mut names = HashSet::new();
        for plugin in builtin() {
            check_info(&plugin.info());
            assert!(names.insert(plugin.info().name));
        }
    }
}
