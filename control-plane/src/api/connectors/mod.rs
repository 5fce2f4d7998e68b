//! ConnectorService. [`service`] translates; the other modules are what its calls do, by theme. What they may do and what
//! comes of it is decided in [`crate::domain`].

mod change;
mod declare;
mod define;
mod history;
mod lifecycle;
mod offsets;
mod reads;
mod request;
mod service;
mod validate;
mod watch;

pub(super) use service::Connectors;
