use super::Session;
use crate::{args::Plugins, failure::Failure, render};

pub(super) async fn run(s: &Session, command: Plugins) -> Result<(), Failure> {
    match command {
        Plugins::List => {
            let all = s.client.plugins().await?;
            match render::structured(s.style, &all) {
                Some(text) => render::out(&text?),
                None => render::out(&render::plugins(s.style, &all)),
            }
        }
        Plugins::Describe { name } => {
            let plugin = s.client.plugin(&name).await?;
            match render::structured(s.style, &plugin) {
                Some(text) => render::out(&text?),
                None => render::out(&render::describe_plugin(&plugin)),
            }
        }
    }
}
