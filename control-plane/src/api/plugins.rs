use std::sync::Arc;

use gantry_proto::{
    error::{Reason, Refusal},
    name::PluginName,
    v1::{
        GetPluginRequest, ListPluginsRequest, ListPluginsResponse, Plugin,
        plugin_service_server::PluginService,
    },
};
use tonic::{Request, Response, Status};

use super::{Shared, answers, paging::Paging};
use crate::domain::{catalog::Catalog, view};

/// PluginService.
pub struct Plugins(pub(super) Arc<Shared>);

impl Plugins {
    fn catalog(&self) -> Catalog {
        self.0.handles.mirror.read(Catalog::of)
    }
}

#[tonic::async_trait]
impl PluginService for Plugins {
    async fn get_plugin(&self, request: Request<GetPluginRequest>) -> Result<Response<Plugin>, Status> {
        let request = request.into_inner();
        let name = PluginName::parse(&request.name).map_err(|e| answers::bad_name("name", &e))?;
        let catalog = self.catalog();
        let plugin = view::plugin_view(&catalog, name.id(), &request.version).ok_or_else(|| {
            let version = if request.version.is_empty() {
                String::new()
            } else {
                format!(" in version {}", request.version)
            };
            Refusal::new(
                Reason::PluginNotFound,
                format!("no agent has brought {name}{version}"),
            )
            .resource("gantry/Plugin", name.to_string())
            .with("name", name.to_string())
        })?;
        Ok(Response::new(plugin))
    }

    async fn list_plugins(
        &self,
        request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let request = request.into_inner();
        let paging = Paging::parse(request.page_size, &request.page_token, &["plugins"])?;
        let catalog = self.catalog();
        let after = paging.after.clone().unwrap_or_default();
        let found = catalog
            .ids()
            .filter(|id| *id > after.as_str())
            .filter_map(|id| Some((id.to_owned(), view::plugin_view(&catalog, id, "")?)));
        let (plugins, next_page_token) = paging.cut(found);
        Ok(Response::new(ListPluginsResponse {
            plugins,
            next_page_token,
        }))
    }
}
