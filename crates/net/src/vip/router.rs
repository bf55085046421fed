//! One member in one family: what the machine decides, done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::link::{Interface, Link, News};
use super::machine::{Action, Advert, Event, Machine, Settings, State};
use super::packet::Packet;
use super::socket::{Adverts, Frames, Received};
use super::{VipConfig, VipError, VipStatus, announce};

/// How often the addresses' lifetime is renewed; a third of it.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Pause after the kernel refused.
const RETRY: Duration = Duration::from_secs(1);
/// Packets that are none of ours are spoken of no more often than this.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A member of a group, in one family.
pub(super) struct Router {
    config: VipConfig,
    v4: bool,
    interface: Interface,
    machine: Machine,
    /// The machine's time begins here.
    began: Instant,
    priority: watch::Receiver<Option<u8>>,
    tell: Arc<dyn Fn(VipStatus) + Send + Sync>,
    told: Option<VipStatus>,
    complained: Option<Instant>,
    /// Whether our last advertisement was kept from going out.
    muted: bool,
}

/// What a member needs while its link is there.
struct Session {
    link: Link,
    source: IpAddr,
    adverts: Adverts,
    frames: Frames,
}

/// Why a session is over.
enum Ended {
    /// We are to leave.
    Asked,
    /// The link is another one, or gone.
    Changed,
}

impl Router {
    /// Takes part until told to leave.
    pub(super) async fn run(
        config: VipConfig,
        v4: bool,
        priority: watch::Receiver<Option<u8>>,
        tell: Arc<dyn Fn(VipStatus) + Send + Sync>,
    ) -> Result<(), VipError> {
        let failed = |action| move |source| VipError::Kernel { action, source };
        let interface = Interface::new(&config, v4).map_err(failed("opening netlink"))?;
        let taken = interface.taken().await.map_err(failed("listing addresses"))?;
        if let Some(address) = taken {
            return Err(VipError::Taken(address));
        }
        interface.release().await.map_err(failed("removing an old virtual address"))?;
        let mut news = interface.news().await.map_err(failed("listening to changes of links"))?;
        let settings = Settings {
            priority: (*priority.borrow()).unwrap_or(1),
            interval: Duration::from_millis(u64::from(config.interval) * 10),
            preempt: config.preempt,
            preempt_delay: config.preempt_delay,
        };
        let machine = Machine::new(settings);
        let (began, told, complained) = (Instant::now(), None, None);
        let muted = false;
        let mut router =
            Self { config, v4, interface, machine, began, priority, tell, told, complained, muted };
        loop {
            match router.take_part(&mut news).await {
                Ok(Ended::Asked) => return Ok(()),
                Ok(Ended::Changed) => {}
                Err(error) => {
                    tracing::warn!(%error, "the virtual address has trouble with the network");
                    router.machine.handle(router.began.elapsed(), Event::Stop);
                    if let Err(error) = router.interface.release().await {
                        tracing::warn!(%error, "the virtual address is left to expire");
                    }
                    router.tell(None);
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        () = asked(&mut router.priority) => return Ok(()),
                    }
                    if let Ok(anew) = router.interface.news().await {
                        news = anew;
                    }
                }
            }
        }
    }

    /// One life of the link.
    async fn take_part(&mut self, news: &mut News) -> std::io::Result<Ended> {
        let link = self.interface.look().await?.filter(|link| link.running);
        let Some((link, source)) = link.and_then(|link| link.own.map(|own| (link, own))) else {
            self.tell(None);
            return tokio::select! {
                changed = news.next() => changed.map(|()| Ended::Changed),
                () = asked(&mut self.priority) => Ok(Ended::Asked),
            };
        };
        let adverts = Adverts::open(self.v4, &link.name, link.index)?;
        let frames = Frames::open(link.index)?;
        let session = Session { link, source, adverts, frames };
        self.handle(&session, Event::Start(source)).await?;
        let ended = self.speak_and_listen(&session, news).await;
        self.handle(&session, Event::Stop).await?;
        ended
    }

    async fn speak_and_listen(
        &mut self,
        session: &Session,
        news: &mut News,
    ) -> std::io::Result<Ended> {
        let mut renew = interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.machine.deadline().map(|after| self.began + after);
            let active = self.machine.state() == State::Active;
            let event = tokio::select! {
                received = session.adverts.receive() => self.judge(session, received?),
                () = sleep_until(deadline.unwrap_or(self.began)), if deadline.is_some() => {
                    Some(Event::Timer)
                }
                _ = renew.tick(), if active => {
                    self.interface.hold(session.link.index).await?;
                    None
                }
                changed = self.priority.changed() => {
                    let priority = *self.priority.borrow_and_update();
                    match priority.filter(|_| changed.is_ok()) {
                        Some(priority) => Some(Event::Priority(priority)),
                        None => return Ok(Ended::Asked),
                    }
                }
                changed = news.next() => {
                    changed?;
                    if self.interface.look().await?.as_ref() != Some(&session.link) {
                        return Ok(Ended::Changed);
                    }
                    None
                }
            };
            if let Some(event) = event {
                self.handle(session, event).await?;
            }
        }
    }

    async fn handle(&mut self, session: &Session, event: Event) -> std::io::Result<()> {
        for action in self.machine.handle(self.began.elapsed(), event) {
            match action {
                // Whoever cannot have the addresses must not say so.
                Action::Take => self.interface.hold(session.link.index).await?,
                Action::Release => self.interface.release().await?,
                Action::Advertise(priority) => self.advertise(session, priority),
                Action::Announce => self.announce(session),
            }
        }
        self.tell(Some(&session.link.name));
        Ok(())
    }

    fn advertise(&mut self, session: &Session, priority: u8) {
        let packet = Packet {
            router_id: self.config.router_id,
            priority,
            interval: self.config.interval,
            addresses: self.addresses(),
        };
        let peers = self.config.unicast_peers.iter().copied().filter(|ip| ip.is_ipv4() == self.v4);
        let peers: Vec<IpAddr> = peers.filter(|ip| *ip != session.source).collect();
        let group = self.config.unicast_peers.is_empty().then(|| session.adverts.group());
        self.muted = false;
        for to in peers.into_iter().chain(group) {
            if let Err(error) = session.adverts.send(&packet, session.source, to) {
                self.muted |= error.kind() == std::io::ErrorKind::PermissionDenied;
                self.complain(&format!(
                    "no advertisement can be sent to {to} ({error}); \
                     hint: a firewall must let protocol 112 out"
                ));
            }
        }
    }

    /// A firewall that keeps our word from the others lets frames like these pass: they would take
    /// the segment's traffic away from a holder that we only do not hear.
    fn announce(&mut self, session: &Session) {
        if self.muted {
            return;
        }
        for address in self.addresses() {
            for frame in announce::frames(session.link.mac, address) {
                if let Err(error) = session.frames.send(&frame) {
                    self.complain(&format!("{address} cannot be announced ({error})"));
                }
            }
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.config.addresses.iter().map(|address| address.ip);
        addresses.filter(|ip| ip.is_ipv4() == self.v4).collect()
    }

    /// What a packet means to us, if anything.
    fn judge(&mut self, session: &Session, received: Received) -> Option<Event> {
        let Received { source, packet } = received;
        let stranger =
            !self.config.unicast_peers.is_empty() && !self.config.unicast_peers.contains(&source);
        if source == session.source || stranger {
            return None;
        }
        let packet = match packet {
            Ok(packet) => packet,
            Err(refused) => {
                self.complain(&format!("a VRRP packet of {source} is refused: {refused}"));
                return None;
            }
        };
        if packet.router_id != self.config.router_id {
            return None;
        }
        let ours = self.addresses();
        let common = packet.addresses.iter().filter(|ip| ours.contains(ip)).count();
        if common == 0 {
            self.complain(&format!(
                "{source} uses the group {} for other addresses; hint: choose another number",
                packet.router_id
            ));
            return None;
        }
        if common != ours.len() || common != packet.addresses.len() {
            self.complain(&format!("{source} has other addresses in the group than we"));
        }
        let (priority, interval) = (packet.priority, packet.interval());
        Some(Event::Heard(Advert { from: source, priority, interval }))
    }

    fn complain(&mut self, complaint: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            tracing::warn!(router_id = self.config.router_id, "virtual address: {complaint}");
            self.complained = Some(Instant::now());
        }
    }

    fn tell(&mut self, interface: Option<&String>) {
        let state = self.machine.state();
        let status = VipStatus { ipv4: self.v4, state, interface: interface.cloned() };
        if self.told.as_ref() != Some(&status) {
            (self.tell)(status.clone());
            self.told = Some(status);
        }
    }
}

/// Returns when we are to leave.
async fn asked(priority: &mut watch::Receiver<Option<u8>>) {
    // An error says that the sender is gone, which means the same.
    let _ = priority.wait_for(Option::is_none).await;
}
