//! The driver for Postgres.

use super::Server;
use std::time::Instant;

use crate::{
    Change, Driver, DriverError, Dump, Feed, Ground, Loaded, Options, Outcome, Proposal, Stats,
};

/// Objects kept in Postgres.
pub struct Postgres {
    place: Server,
}

impl Postgres {
    /// A driver for it. Nobody is asked before the store opens.
    pub fn driver(place: Server) -> Self {
        Self { place }
    }

    fn missing(&self) -> DriverError {
        DriverError::Remote {
            doing: "connect to",
            datastore: self.name(),
            hint: None,
            source: "this driver is not in this build".into(),
        }
    }
}

impl Driver for Postgres {
    fn name(&self) -> String {
        self.place.to_string()
    }

    fn load(
        &mut self,
        _options: &Options,
        _feed: Feed,
        _sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        Err(self.missing())
    }

    fn fill(&mut self, _options: &Options, _dump: &Dump) -> Result<(), DriverError> {
        Err(self.missing())
    }

    fn commit(&mut self, _batch: Vec<Proposal>, _ground: &dyn Ground) -> Outcome {
        Outcome::default()
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tend(&mut self, _now: Instant, _ground: &dyn Ground) {}

    fn flush(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        Ok(())
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn close(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}
