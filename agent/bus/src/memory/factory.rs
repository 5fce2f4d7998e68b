use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::MemoryBus;
use crate::{Bus, BusFactory, Endpoint};

/// Gives a [`MemoryBus`] for each endpoint, made at its first use. Clones share the buses.
#[derive(Clone, Default)]
pub struct MemoryBusFactory {
    buses: Arc<Mutex<HashMap<Endpoint, MemoryBus>>>,
    only: Option<MemoryBus>,
}

impl MemoryBusFactory {
    /// A bus of its own per endpoint.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same bus for every endpoint.
    pub fn of(bus: MemoryBus) -> Self {
        Self {
            buses: Arc::default(),
            only: Some(bus),
        }
    }

    /// The endpoint's bus, to look into it or to put faults on it.
    pub fn memory(&self, endpoint: &Endpoint) -> MemoryBus {
        match &self.only {
            Some(bus) => bus.clone(),
            None => self.buses.lock().entry(endpoint.clone()).or_default().clone(),
        }
    }
}

impl BusFactory for MemoryBusFactory {
    fn bus(&self, endpoint: &Endpoint) -> Arc<dyn Bus> {
        Arc::new(self.memory(endpoint))
    }
}
