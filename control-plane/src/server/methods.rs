//! The names of all methods that are served: what else a caller names must not become a label or the name of a span.

use std::collections::HashSet;

use gantry_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Stands for every name that is not served.
const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug)]
pub(super) struct Methods(HashSet<String>);

impl Methods {
    /// Those of our services, of health and of reflection.
    pub(super) fn served() -> Self {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        // What is compiled in can be read; a set that could not would only have its calls counted as unknown.
        let files = sets
            .into_iter()
            .filter_map(|set| FileDescriptorSet::decode(set).ok());
        let mut names = HashSet::new();
        for file in files.flat_map(|set| set.file) {
            for service in &file.service {
                let methods = service
                    .method
                    .iter()
                    .map(|m| format!("{}.{}/{}", file.package(), service.name(), m.name()));
                names.extend(methods);
            }
        }
        Self(names)
    }

    /// The method of a path such as `/gantry.v1.ConnectorService/GetConnector`.
    pub(super) fn name<'a>(&'a self, path: &str) -> &'a str {
        self.0
            .get(path.trim_start_matches('/'))
            .map_or(UNKNOWN, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_served_has_a_name() {
        let methods = Methods::served();
        for name in [
            "gantry.v1.ConnectorService/CreateConnector",
            "gantry.agent.v1.AgentSessionService/OpenSession",
            "grpc.health.v1.Health/Check",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(methods.name(&format!("/{name}")), name);
        }
        for other in ["", "/", "/x", "/gantry.v1.ConnectorService/Drop"] {
            assert_eq!(methods.name(other), UNKNOWN);
        }
    }
}
