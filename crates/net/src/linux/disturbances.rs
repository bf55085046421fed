//! News of links and addresses that may have cost us routes.

use std::io;

use futures::StreamExt;
use nlink::netlink::{
    Connection, NetworkEvent, OwnedEventStream, Route as RouteProto, RtnetlinkGroup,
};

use super::os_error;

/// Tells when links or addresses of this machine have changed. The kernel drops the routes of a
/// link that goes down, without a word for IPv4, and does not bring them back with it.
pub struct Disturbances {
    events: OwnedEventStream<RouteProto>,
    /// Interfaces whose names begin so come and go with pods.
    ignored: String,
}

impl Disturbances {
    /// Listens from now on, in the network namespace of the calling thread.
    pub(crate) async fn open(ignored: &str) -> io::Result<Self> {
        Ok(Self { events: listen().await?, ignored: ignored.to_owned() })
    }

    /// Returns at the next change that may matter; changes of pods' interfaces do not. An error
    /// says that the listening broke off: look again, and open anew.
    pub async fn next(&mut self) -> io::Result<()> {
        while let Some(event) = self.events.next().await {
            match event.map_err(os_error)? {
                NetworkEvent::NewLink(link) | NetworkEvent::DelLink(link) => {
                    if !link.name().is_some_and(|name| name.starts_with(&self.ignored)) {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

async fn listen() -> io::Result<OwnedEventStream<RouteProto>> {
    let netlink = Connection::<RouteProto>::new().map_err(os_error)?;
    let groups = [RtnetlinkGroup::Link, RtnetlinkGroup::Ipv4Addr, RtnetlinkGroup::Ipv6Addr];
    netlink.subscribe(&groups).map_err(os_error)?;
    Ok(netlink.into_events().await)
}

impl std::fmt::Debug for Disturbances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disturbances").field("ignored", &self.ignored).finish_non_exhaustive()
    }
}
