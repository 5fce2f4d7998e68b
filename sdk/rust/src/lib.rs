//! The API of Gantry from Rust.
//!
//! ```no_run
//! # async fn example() -> Result<(), gantry_client::Error> {
//! let client = gantry_client::Client::connect("http://127.0.0.1:7420").await?;
//! let connector = client.pause("orders-in").await?.connector;
//! println!("{} is {:?}", connector.name, connector.state());
//! # Ok(())
//! # }
//! ```
//!
//! Calls that fail because the control plane cannot be reached for the moment are sent again with back-off. Every mutation
//! carries a request id, so that sending it again never does it twice.

mod calls;
mod connect;
mod error;
mod watch;

pub use calls::{Changed, Deletion};
pub use connect::{Client, Options};
pub use error::{Error, Violation};
/// The messages of the API.
pub use gantry_proto::v1;
pub use watch::{AgentWatch, ConnectorWatch, Step, TaskWatch};
