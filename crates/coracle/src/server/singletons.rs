//! What exactly one server of a cluster does at a time: controllers, scheduler, and the care of
//! the datastore.

use std::sync::Arc;

use apiserver::{ApiServer, User};
use client::Informers;
use client::leader::Elector;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Outcome;

/// The Lease that decides which server it is.
const LEASE: (&str, &str) = ("kube-system", "coracle-controller-manager");
/// Nearly everything is needed by one controller or another.
const USER: (&str, &str) = ("system:kube-controller-manager", "system:masters");

/// Work that only one server may do; it ends when the token is cancelled.
pub type Duty = Box<dyn Fn(Informers, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// What exactly one server does.
#[derive(Default)]
pub struct Singletons(Vec<Duty>);

impl Singletons {
    /// Adds a duty.
    pub fn add<F>(
        &mut self,
        duty: impl Fn(Informers, CancellationToken) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.push(Box::new(move |informers, stop| Box::pin(duty(informers, stop))));
    }

    /// Does everything until `stop`, on the only server there is: it takes no Lease, and so
    /// writes nothing.
    pub fn run_alone(
        self,
        informers: &Informers,
        parts: &mut JoinSet<Outcome>,
        stop: &CancellationToken,
    ) {
        let (informers, stop) = (informers.clone(), stop.clone());
        parts.spawn(async move {
            self.run(&informers, &stop).await;
            Ok(())
        });
    }

    /// Stands for election until `stop`, and does everything whenever this server leads. The
    /// caches live as long as the leadership; requests are refused once it is not certain.
    pub fn run_elected(
        self,
        server: &Arc<ApiServer>,
        node_name: &str,
        parts: &mut JoinSet<Outcome>,
        stop: &CancellationToken,
    ) {
        let identity = format!("{node_name}_{:016x}", fastrand::u64(..));
        let service = server.in_process(User::new(USER.0, [USER.1]));
        let elector =
            Elector::new(client::in_process(service.clone()), LEASE.0, LEASE.1, &identity);
        let client = client::in_process(elector.fence().around(LEASE.1, service));
        let (singletons, stop) = (Arc::new(self), stop.clone());
        parts.spawn(async move {
            let work = |leading: client::leader::Leading| {
                let (singletons, client) = (singletons.clone(), client.clone());
                async move {
                    let caches = CancellationToken::new();
                    // Goes also where the work is dropped because it did not end in time.
                    let _ended = caches.clone().drop_guard();
                    singletons.run(&Informers::until(client, caches), &leading.stop).await;
                }
            };
            elector.run(stop, work).await;
            Ok(())
        });
    }

    async fn run(&self, informers: &Informers, stop: &CancellationToken) {
        let duties = self.0.iter().map(|duty| duty(informers.clone(), stop.clone()));
        futures::future::join_all(duties).await;
    }
}
