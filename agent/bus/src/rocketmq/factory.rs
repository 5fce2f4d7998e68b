use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::RocketmqBus;
use crate::{Bus, BusFactory, Endpoint};

/// One [`RocketmqBus`] per endpoint, kept for the life of the factory. Clones share the buses.
#[derive(Clone, Default)]
pub struct RocketmqFactory {
    buses: Arc<Mutex<HashMap<Endpoint, Arc<RocketmqBus>>>>,
}

impl RocketmqFactory {
    /// A factory without connections.
    pub fn new() -> Self {
        Self::default()
    }
}

impl BusFactory for RocketmqFactory {
    fn bus(&self, endpoint: &Endpoint) -> Arc<dyn Bus> {
        let make = || Arc::new(RocketmqBus::new(endpoint));
        self.buses
            .lock()
            .entry(endpoint.clone())
            .or_insert_with(make)
            .clone()
    }
}
